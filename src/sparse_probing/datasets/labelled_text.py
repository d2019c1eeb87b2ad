"""Text with labels, before any tokenizer: what a user brings and what the sources produce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sparse_probing.errors import InputError
from sparse_probing.records import Split


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
    spans: tuple[Span, ...] = ()
    """Character spans that carry a feature; used when the text is labelled token by token."""
    split: Split | None = None
    """Split that the source prescribes; null lets the builder decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText:
    """Documents of one feature category."""

    category: str
    features: tuple[str, ...]
    level: Literal["document", "token"]
    """`document`: each document is one row. `token`: each labelled token is one row."""
    documents: tuple[Document, ...]
    only_spanned_tokens: bool = False
    """Token level: tokens outside every span are not eligible (a treebank labels every word, a span file does not)."""
    token_patterns: Mapping[str, str] = field(default_factory=dict)
    """Token level: features that follow from a token's own spelling, as regular expressions (see `label_by_pattern`)."""


MAX_CATEGORIES = 200
TRUE_WORDS = frozenset({"1", "true", "yes", "y", "t", "1.0"})
FALSE_WORDS = frozenset({"0", "false", "no", "n", "f", "0.0"})


def features_of_column(name: str, values: Sequence[object]) -> dict[str, list[bool | None]]:
    """Binary features of one label column.

    Boolean words (`1/0`, `true/false`, `yes/no`) give one feature with the column's name; anything else is read as
    categories and gives one feature `name=category` each, one against the rest. Empty cells are *not eligible*.

    Raises:
        InputError: no label at all, one class only, or more than 200 categories.
    """
    words = [None if value is None or str(value).strip() == "" else str(value).strip() for value in values]
    present = {word for word in words if word is not None}
    if not present:
        raise InputError(f"label column {name!r} is empty in every row: nothing to learn from.")
    if len(present) == 1:
        raise InputError(
            f"label column {name!r} holds one class only ({present.pop()!r} in every row): a probe needs at least two."
        )
    lowered = {word.lower() for word in present}
    if lowered <= TRUE_WORDS | FALSE_WORDS:
        if lowered <= TRUE_WORDS or lowered <= FALSE_WORDS:
            raise InputError(f"label column {name!r} holds one class only: a probe needs positives and negatives.")
        return {name: [None if word is None else word.lower() in TRUE_WORDS for word in words]}
    if len(present) > MAX_CATEGORIES:
        raise InputError(
            f"label column {name!r} has {len(present):,} different values; at most {MAX_CATEGORIES} categories are probed "
            "one against the rest. Name another column or merge rare categories."
        )
    return {
        f"{name}={category}": [None if word is None else word == category for word in words]
        for category in sorted(present)
    }


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
