"""Text with labels, before any tokenizer: what a user brings and what the sources produce. Labels live on characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sparse_probing.errors import InputError
from sparse_probing.records import Split

Level = Literal["document", "span", "token"]
"""What becomes a row: a whole document (its window), each labelled stretch of characters, or each token."""

TOKEN_NUMBERS = ("position", "log2_position")
"""Numbers that follow from where a token stands in its sequence (paper, sequence position)."""


class Span(NamedTuple):
    """A labelled stretch of characters, `text[start:end]`."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text and what is known about it."""

    id: str
    text: str
    group: str
    """Documents of one group always fall into the same split (a book, a topic, a pair)."""
    labels: Mapping[str, bool] = field(default_factory=dict)
    """Whole-document features; a missing feature means *not eligible*: neither positive nor negative."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Whole-document numbers, to be predicted by regression; a missing one means *not eligible*."""
    spans: tuple[Span, ...] = ()
    """Labelled characters, for the levels `span` and `token`."""
    breaks: tuple[int, ...] = ()
    """Characters at which a window may begin, ascending (starts of sentences). Empty: a window may begin at any token."""
    split: Split | None = None
    """Split that the source prescribes; null lets the builder decide."""
    source: str | None = None
    """Where the text comes from (repository, book, URL)."""
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText:
    """Documents of one feature category."""

    category: str
    features: tuple[str, ...]
    """Binary features, by the name of their positive label."""
    level: Level
    documents: tuple[Document, ...]
    numbers: tuple[str, ...] = ()
    """Regression targets: keys of `Document.numbers`, or, at level `token`, members of `TOKEN_NUMBERS`."""
    only_spanned_tokens: bool = False
    """Token level: tokens outside every span are not eligible (a treebank labels every word, a span file does not)."""
    contrasts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Span labels that the negatives of a feature carry, at least one of them (Tense_Past: only Tense_Pres). A feature that is
    missing here has every other labelled span or token as a negative."""
    hard_negatives: Mapping[str, str] = field(default_factory=dict)
    """Token level: half of a feature's negatives carry this label (numerator: denominator)."""
    token_patterns: Mapping[str, str] = field(default_factory=dict)
    """Token level: features that follow from a token's own spelling, as regular expressions (see `label_by_pattern`)."""
    near_duplicates: Literal["group", "count", "by_design"] = "group"
    """Near duplicates share a group. `count`: they are counted, groups stay (minimal pairs). `by_design`: not looked for, since
    texts made from templates all are."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `SamplingRules` that suit these texts; the user's own options win."""
    notes: tuple[str, ...] = ()
    """What a reader of the file should know: rows left out, spellings merged, features without enough text."""


def document_level_text(
    category: str,
    texts: Sequence[str],
    labels: Mapping[str, Sequence[bool | None]],
    groups: Sequence[str] | None = None,
) -> LabelledText:
    """Whole documents with binary labels, from parallel sequences.

    Args:
        category: name under which the features appear in results.
        texts: one string per document.
        labels: feature name to one value per document: True, False, or None for not eligible.
        groups: documents that share a group stay in one split; each document is its own group when not given.
    """
    for number, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"document {number} has no text: remove the row or fill the text column.")
    for feature, values in labels.items():
        if len(values) != len(texts):
            raise InputError(f"feature {feature!r} has {len(values)} labels for {len(texts)} texts: give one per text.")
    documents = tuple(
        Document(
            id=str(i),
            text=text,
            group=str(i) if groups is None else groups[i],
            labels={name: bool(values[i]) for name, values in labels.items() if values[i] is not None},
        )
        for i, text in enumerate(texts)
    )
    return LabelledText(category=category, features=tuple(labels), level="document", documents=documents)
