"""Anyone's own labels: label columns, spans, tags of words, regular expressions, functions.

Each function takes the path of a file (see `readers.iter_rows`), or rows or texts in memory, and returns `LabelledText`. Rows
without text are left out and counted in its notes. Files are streamed: with `most`, memory does not grow with the file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal, Unpack

import numpy as np

from sparse_probing.datasets import cells
from sparse_probing.datasets.cells import is_blank
from sparse_probing.datasets.label_columns import label_columns
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.own_rows import Data, DrawnRows, Reading, document_of, draw_rows, label_names
from sparse_probing.datasets.readers import Row, check_column
from sparse_probing.errors import InputError

Labeller = str | Callable[[str], object]
"""A regular expression, which labels its matches; or a function of a text that returns True, False or None (not eligible)
for the whole text, or the `(start, end)` of each stretch to be labelled."""
Spanned = tuple[str, tuple[Span, ...]]

OF_STRETCHES = {"skip_first": 1}
"""Labelled words often begin a text; only the first token, on which attention rests, is left out."""


def labelled_documents(
    data: Data,
    *,
    labels: Sequence[str] = (),
    numbers: Sequence[str] = (),
    text_column: str = "text",
    pair_column: str | None = None,
    positive: Sequence[str] = (),
    **reading: Unpack[Reading],
) -> LabelledText:
    """Documents labelled whole by one or more columns (see `label_columns.label_column`).

    Args:
        data: a file or rows.
        labels: columns of booleans, categories or numbers.
        numbers: columns to be predicted by regression, whatever their numbers look like.
        text_column: the text.
        pair_column: which rows are minimal pairs: rows of one value stay in one split and are drawn together; near duplicates
            are then no reason to merge pairs.
        positive: for columns of two values, which of them is the feature (see `label_columns.label_columns`); the rarer one when
            not given.
        reading: see `Reading`.

    Raises:
        InputError: no or unknown columns, no text in any row, a text that is no string, labels that cannot be used.
    """
    if pair_column is not None and reading.get("group_column") is not None:
        raise InputError("minimal pairs are groups already: give a pair column or a group column, not both.")
    names = label_names(labels, numbers)

    def parse(row: Row, where: str) -> tuple[str, Row] | None:
        text = cells.text_cell(row, text_column, where)
        return None if text is None else (text, {name: row.get(name) for name in names})

    drawn = draw_rows(data, parse, (text_column, *names), text_column=text_column, pair_column=pair_column, **reading)
    rows = [(row.number, row.content[1]) for row in drawn.rows]
    columns = label_columns(rows, labels, numbers, drawn.where, positive)
    documents = tuple(
        document_of(row, row.content[0], labels=columns.labels[i], numbers=columns.numbers[i])
        for i, row in enumerate(drawn.rows)
    )
    return LabelledText(
        category=drawn.category,
        features=columns.features,
        numbers=columns.targets,
        level="document",
        documents=documents,
        near_duplicates="group" if pair_column is None else "count",
        notes=(*drawn.notes, *columns.notes, *(_pair_notes(documents) if pair_column is not None else ())),
    )


def labelled_spans(
    data: Data,
    *,
    spans_column: str = "spans",
    text_column: str = "text",
    level: Literal["token", "span"] = "token",
    **reading: Unpack[Reading],
) -> LabelledText:
    """Texts with labelled stretches of characters: `[{"start": 0, "end": 5, "label": "city"}, ...]` or `[[0, 5, "city"], ...]`.

    Args:
        data: a file or rows; a cell of a CSV file holds the list as JSON. `[]` is a text without spans; a row with an
            empty cell or null is left out.
        spans_column: the lists of spans; `end` is one past the last character.
        text_column: the text.
        level: `token`: tokens that overlap a span of a label are its positives, all others its negatives. `span`: each
            stretch is a row, and the labels are held against each other.
        reading: see `Reading`.

    Raises:
        InputError: a span that is reversed, empty or out of range, or overlaps another one of its label; no span at all.
    """

    def parse(row: Row, where: str) -> Spanned | None:
        text = cells.text_cell(row, text_column, where)
        if text is None or (spans_column in row and is_blank(row[spans_column])):
            return None  # not labelled, which is not the same as nothing labelled: []
        items = cells.list_cell(row, spans_column, 'spans, objects with "start", "end" and "label"', where)
        return text, cells.disjoint([cells.span_of(item, text, where) for item in items], where)

    drawn = draw_rows(
        data,
        parse,
        (text_column, spans_column),
        lacking="text or list of spans",
        text_column=text_column,
        **reading,
    )
    return _of_stretches(drawn, [row.content for row in drawn.rows], level)


def labelled_tags(
    data: Data,
    *,
    tokens_column: str = "tokens",
    tags_column: str = "ner_tags",
    class_names: Sequence[str] | None = None,
    level: Literal["token", "span"] = "token",
    **reading: Unpack[Reading],
) -> LabelledText:
    """Token classification data: a list of words and a list of tags per row. The text is the words with one blank between them.

    Where every tag but `O` is prefixed, the tags are read as IOB1, IOB2 or BIOES/BILOU: `B-PER I-PER` is one stretch. Otherwise
    every word with another tag than `O` is a stretch of its own.

    Args:
        data: a file or rows; a cell of a CSV file holds the list as JSON.
        tokens_column: the words.
        tags_column: one tag per word, strings or integers.
        class_names: names of integer tags; without them each number is a label.
        level: as in `labelled_spans`; at level `token`, words tagged `O` are negatives.
        reading: see `Reading`.

    Raises:
        InputError: lists of different length, a word or tag of another type, an integer that has no name, no tag but `O`.
    """
    tag_set: set[str] = set()
    unnamed: set[object] = set()

    def parse(row: Row, where: str) -> tuple[list[str], list[str]] | None:
        words = [cells.word_of(word, where) for word in cells.list_cell(row, tokens_column, "words", where)]
        if not "".join(words).strip():
            return None
        check_column(tags_column, row, where)
        tags = cells.list_cell(row, tags_column, "tags", where)
        if len(words) != len(tags):
            raise InputError(f"{where} has {len(words)} words but {len(tags)} tags: give one tag per word.")
        unnamed.update(tag for tag in tags if type(tag) is int and class_names is None)
        named = [cells.tag_of(tag, class_names, where) for tag in tags]
        tag_set.update(named)
        return words, named

    drawn = draw_rows(data, parse, (tokens_column, tags_column), lacking="words", **reading)
    is_prefixed = all(cells.PREFIXED_TAG.fullmatch(tag) for tag in tag_set - {"O"})
    texts: list[Spanned] = []
    strays = 0
    for words, tags in (row.content for row in drawn.rows):
        runs = [(i, i + 1, tag) for i, tag in enumerate(tags) if tag != "O"]
        if is_prefixed:
            runs, stray = cells.decode_tags(tags)
            strays += stray
        starts = list(accumulate((len(word) + 1 for word in words), initial=0))
        spans = (Span(starts[first], starts[end] - 1, label) for first, end, label in runs)  # less the blank behind it
        texts.append((" ".join(words), tuple(span for span in spans if span.start < span.end)))
    notes = list(drawn.notes)
    if strays:
        notes.append(f"{strays:,} stretches begin with an inner tag, such as I- (IOB1, or a slip); they were kept.")
    if unnamed:
        notes.append(f"tags are integers without class names: each of the {len(unnamed)} numbers is a label.")
    return _of_stretches(replace(drawn, notes=tuple(notes)), texts, level)


def labelled_by(
    data: Data,
    labellers: Mapping[str, Labeller],
    *,
    text_column: str = "text",
    level: Literal["token", "span"] = "token",
    **reading: Unpack[Reading],
) -> LabelledText:
    """Texts labelled by regular expressions or functions.

    Args:
        data: a file, rows or texts.
        labellers: feature name to what finds it (see `Labeller`); all of them label either whole texts or stretches.
        text_column: the text.
        level: for stretches, as in `labelled_spans`.
        reading: see `Reading`.

    Raises:
        InputError: an invalid regular expression, a function's answer that is neither, answers of both kinds, nothing found.
    """
    finders = {name: _finder(name, labeller) for name, labeller in labellers.items()}
    kinds: dict[str, str] = {}

    def parse(row: Row, where: str) -> tuple[str, dict[str, bool], tuple[Span, ...]] | None:
        text = cells.text_cell(row, text_column, where)
        if text is None:
            return None
        labels: dict[str, bool] = {}
        spans: list[Span] = []
        for name, find in finders.items():
            found = find(text)
            if isinstance(found, (bool, np.bool_)):
                labels[name] = bool(found)
                kinds.setdefault("whole texts", name)
            elif isinstance(found, Iterable) and not isinstance(found, str):
                given = [(*item, name) if isinstance(item, tuple | list) else item for item in found]
                spans += [cells.span_of(item, text, where) for item in given]
                kinds.setdefault("stretches", name)
            elif found is not None:
                raise InputError(
                    f"{where}: labeller {name!r} returned {found!r}. Return True, False, None or a list of (start, end)."
                )
        return text, labels, cells.disjoint(spans, where)

    drawn = draw_rows(data, parse, (text_column,), text_column=text_column, **reading)
    if len(kinds) > 1:
        told = " and ".join(f"{kind} ({name!r})" for kind, name in kinds.items())
        raise InputError(f"the labellers label {told}: all labellers of one call must do the same.")
    contents = [row.content for row in drawn.rows]
    if not any(spans or any(labels.values()) for _, labels, spans in contents):
        names = ", ".join(map(repr, labellers))
        raise InputError(f"{drawn.where}: nothing in {len(contents):,} texts is labelled {names}: check the labellers.")
    if "stretches" in kinds:
        labelled = _of_stretches(drawn, [(text, spans) for text, _, spans in contents], level)
        nothing = [f"labeller {name!r} matches nothing." for name in labellers if name not in labelled.features]
        return replace(labelled, notes=(*labelled.notes, *nothing))
    documents = tuple(document_of(row, row.content[0], labels=row.content[1]) for row in drawn.rows)
    return LabelledText(
        category=drawn.category, features=tuple(labellers), level="document", documents=documents, notes=drawn.notes
    )


def parse_labeller(text: str) -> tuple[str, str]:
    r"""Name and regular expression of a labeller on the command line, `is_year=\b(19|20)\d\d\b`.

    Raises:
        InputError: no `=`, no name, no or an invalid regular expression.
    """
    name, _, pattern = text.partition("=")
    if not name.strip() or not pattern:
        raise InputError(f"labeller {text!r} is not NAME=REGEX: write, for example, 'is_year=\\b(19|20)\\d\\d\\b'.")
    _finder(name.strip(), pattern)
    return name.strip(), pattern


def _pair_notes(documents: Sequence[Document]) -> list[str]:
    pairs: dict[str, list[Document]] = {}
    for document in documents:
        pairs.setdefault(document.group, []).append(document)
    single = sum(len(members) == 1 for members in pairs.values())
    same = sum(
        len(members) > 1 and all((d.labels, d.numbers) == (members[0].labels, members[0].numbers) for d in members)
        for members in pairs.values()
    )
    counts = ((single, "one member only"), (same, "the same labels on all members: no contrast"))
    return [f"{count:,} of {len(pairs):,} minimal pairs have {what}." for count, what in counts if count]


def _of_stretches(drawn: DrawnRows[Any], texts: Sequence[Spanned], level: Literal["token", "span"]) -> LabelledText:
    """Texts with spans; every label is a feature, all other stretches (or tokens) are its negatives."""
    features = tuple(sorted({span.label for _, spans in texts for span in spans}))
    if not features:
        raise InputError(f"{drawn.where} holds no labelled span in any row: nothing to learn from.")
    if level == "span" and len(features) == 1:
        raise InputError(
            f"{drawn.where} holds one label only ({features[0]!r}); stretches are held against those of other labels. "
            "Use --rows tokens (level='token') to hold it against all other tokens."
        )
    documents = tuple(document_of(row, text, spans=spans) for row, (text, spans) in zip(drawn.rows, texts, strict=True))
    return LabelledText(
        category=drawn.category,
        features=features,
        level=level,
        documents=documents,
        rules=OF_STRETCHES,
        notes=drawn.notes,
    )


def compiled(expression: str, what: str) -> re.Pattern[str]:
    """A user's regular expression.

    Raises:
        InputError: it is none, or one of absurd depth or size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that a later Python may read otherwise
            return re.compile(expression)
    except re.error as error:
        reason = f"{error.msg} at character {(error.pos or 0) + 1}"
    except (RecursionError, OverflowError, MemoryError):
        reason = "it is nested too deeply, or repeats too often"
    raise InputError(f"{what} is no regular expression: {reason} of {expression[:200]!r}.")


def _finder(name: str, labeller: Labeller) -> Callable[[str], object]:
    if not isinstance(labeller, str):
        return labeller
    pattern = compiled(labeller, f"labeller {name!r}")
    return lambda text: [match.span() for match in pattern.finditer(text) if match.end() > match.start()]
