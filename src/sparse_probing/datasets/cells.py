"""What the cells of a user's file hold beside labels: texts, lists of spans, words and tags."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sparse_probing.datasets.labelled_text import Span
from sparse_probing.datasets.readers import check_whole
from sparse_probing.errors import InputError

PREFIXED_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)


def is_blank(value: object) -> bool:
    """Null, white space, or not a number (how tables in memory write an empty cell)."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def text_cell(row: Mapping[str, object], column: str, where: str) -> str | None:
    """Text of a row; null where it has none.

    Raises:
        InputError: the cell holds something else, or half of a surrogate pair.
    """
    value = row.get(column)
    if is_blank(value):
        return None
    if not isinstance(value, str):
        raise InputError(f"{where}: column {column!r} holds {str(value)[:60]!r}, a {type(value).__name__} and no text.")
    return value


def list_cell(row: Mapping[str, object], column: str, what: str, where: str) -> list[Any]:
    """A list of things, written out as JSON or not; an empty one for an empty cell.

    Raises:
        InputError: the cell holds something else.
    """
    value = row.get(column)
    if is_blank(value):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: column {column!r} is not a JSON list of {what}.") from None
        check_whole(value, where)
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{where}: column {column!r} is not a list of {what}.")
    return list(value)


def span_of(item: Any, text: str, where: str) -> Span:
    """A span of a text, from an object or a list of start, end and label.

    Raises:
        InputError: it is neither, is reversed or empty, or lies outside the text.
    """
    try:
        start, end, label = (item["start"], item["end"], item["label"]) if isinstance(item, Mapping) else item
        start, end = operator.index(start), operator.index(end)
    except (TypeError, KeyError, ValueError):
        raise InputError(
            f'{where}: a span needs "start", "end" and "label", the first two whole numbers, got {item!r}.'
        ) from None
    if is_blank(label):
        raise InputError(f"{where}: span {start}..{end} has no label: name one or remove the span.")
    if end <= start:
        problem = "is empty" if end == start else "is reversed"
        raise InputError(f"{where}: span {start}..{end} {problem}: the end is one past the last character.")
    if start < 0 or end > len(text):
        raise InputError(
            f"{where}: span {start}..{end} lies outside the text, which has {len(text)} characters "
            "(0 <= start < end <= length is needed)."
        )
    return Span(start, end, str(label))


def disjoint(spans: Sequence[Span], where: str) -> tuple[Span, ...]:
    """The spans of a text.

    Raises:
        InputError: two of one label overlap.
    """
    last: dict[str, Span] = {}
    for span in sorted(spans):
        before = last.get(span.label)
        if before is not None and span.start < before.end:
            raise InputError(
                f"{where}: spans {before.start}..{before.end} and {span.start}..{span.end} of {span.label!r} overlap: merge them."
            )
        last[span.label] = span
    return tuple(spans)


def word_of(word: object, where: str) -> str:
    """A word of a list of words."""
    if not isinstance(word, str):
        raise InputError(f"{where}: {word!r} is among the words and is no text.")
    return word


def tag_of(tag: object, names: Sequence[str] | None, where: str) -> str:
    """A tag, by its name where it is an integer and names are given."""
    if type(tag) is int and names is not None:
        if not 0 <= tag < len(names):
            raise InputError(f"{where}: tag {tag} has no name: {len(names)} class names are given.")
        return names[tag]
    if type(tag) is not int and not (isinstance(tag, str) and tag):
        raise InputError(f"{where}: {tag!r} is no tag: give a word or a whole number.")
    return str(tag)


def decode_tags(tags: Sequence[str]) -> tuple[list[tuple[int, int, str]], int]:
    """Stretches `(first word, one past the last, label)` of prefixed tags, and how many of them begin with an inner tag.

    `B` and `S` (`U`) begin a stretch; `I` and `E` (`L`) continue one of their label or else begin one; `S`, `U`, `E`, `L` end it.
    """
    found: list[tuple[int, int, str]] = []
    is_open, strays = False, 0
    for i, tag in enumerate(tags):
        match = PREFIXED_TAG.fullmatch(tag)
        if match is None:
            is_open = False
            continue
        prefix, label = match.groups()
        if is_open and prefix in "IEL" and found[-1][2] == label:
            found[-1] = (found[-1][0], i + 1, label)
        else:
            found.append((i, i + 1, label))
            strays += prefix in "IEL"
        is_open = prefix in "BI"
    return found, strays
