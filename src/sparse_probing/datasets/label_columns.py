"""What the cells of a user's file say: labels (boolean, categories one against the rest, numbers), texts, spans, tags."""

from __future__ import annotations

import json
import math
import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparse_probing.datasets.labelled_text import Span
from sparse_probing.errors import InputError

MAX_CATEGORIES = 200
MAX_NUMBER_CATEGORIES = 10
"""Whole numbers with more different values than this are predicted by regression."""
TRUE_WORDS = frozenset({"1", "true", "yes", "y", "t", "1.0"})
FALSE_WORDS = frozenset({"0", "false", "no", "n", "f", "0.0"})
MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null"})
MAX_SPELLING_NOTES = 10
PREFIXED_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumn:
    """Labels of one column, row by row: either binary features or one number."""

    features: tuple[str, ...] = ()
    """The column's name for a boolean column, `column=category` for each category; none for a number."""
    labels: Sequence[Mapping[str, bool]] = ()
    """Per row: every feature, or nothing where the row is not eligible. Rows of equal value share one mapping."""
    numbers: Sequence[float | None] = ()
    """Per row, null where the row is not eligible; empty for a column of binary features."""
    notes: tuple[str, ...] = ()
    """Cells that are not eligible, spellings that were merged, types that were mixed."""


def is_blank(value: object) -> bool:
    """Null, white space, or not a number (how tables in memory write an empty cell)."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def label_column(
    name: str, values: Sequence[object], *, number: bool = False, rows: Sequence[int] | None = None
) -> LabelColumn:
    """Read a label column.

    Words that mean *missing* (empty, `NA`, `n/a`, `NaN`, `null`) are not eligible. Boolean words (`1/0`, `true/false`, `yes/no`,
    `y/n`, `t/f`) make one feature. Numbers make a regression target where one of them is not whole or more than ten differ.
    All else is categories. Spellings that differ in case, white space or Unicode width and composition are one label, under
    its most frequent spelling.

    Args:
        name: of the column, for features and messages.
        values: one per row: strings, numbers, booleans or null.
        number: read numbers as a regression target even where they could be classes.
        rows: the number that messages give to each value; from 1 when not given.

    Raises:
        InputError: no label at all, one class only, more than 200 categories, a list or object in a cell, or, with
            `number`, a value that is none.
    """
    rows = range(1, len(values) + 1) if rows is None else rows
    words = [_word(name, value, row) for value, row in zip(values, rows, strict=True)]
    counts = Counter(words)
    keys = {word: _key(word) for word in counts}
    numeric = [key for key in keys.values() if key not in MISSING_WORDS]
    if all(_number(key) is not None for key in numeric) and not all(key in TRUE_WORDS | FALSE_WORDS for key in numeric):
        keys = {
            word: key if key in MISSING_WORDS else f"{float(key):.15g}" for word, key in keys.items()
        }  # 1 and 1.0 are one
    missing = {word: count for word, count in counts.items() if keys[word] in MISSING_WORDS}
    present = {word: count for word, count in counts.items() if word not in missing}
    kinds = {keys[word] for word in present}
    if not kinds:
        raise InputError(f"label column {name!r} is empty in every row: nothing to learn from.")
    if len(kinds) == 1 or kinds <= TRUE_WORDS or kinds <= FALSE_WORDS:
        raise InputError(
            f"label column {name!r} holds one class only ({' or '.join(map(repr, sorted(kinds)))} in every labelled row): "
            "a probe needs at least two."
        )
    notes = _missing_notes(name, missing, len(words))
    value_of = {word: value for word in present if (value := _number(keys[word])) is not None}
    is_boolean = kinds <= TRUE_WORDS | FALSE_WORDS
    if number or (len(value_of) == len(present) and not is_boolean and _is_continuous(set(value_of.values()))):
        for word, row in zip(words, rows, strict=True):
            if word not in value_of and word not in missing:
                raise InputError(
                    f"row {row}: column {name!r} holds {word!r}, which is no number. Mend or empty the cell."
                )
        if not number:
            notes.append(
                f"label column {name!r} holds {len(kinds):,} different numbers and is read as a regression target."
            )
        return LabelColumn(numbers=[value_of.get(word) for word in words], notes=tuple(notes))
    if is_boolean:
        of_word = {word: {name: keys[word] in TRUE_WORDS} for word in present}
        return LabelColumn(features=(name,), labels=[of_word.get(word, {}) for word in words], notes=tuple(notes))
    if len(kinds) > MAX_NUMBER_CATEGORIES and len(kinds) > sum(present.values()) / 2:
        raise InputError(
            f"label column {name!r} has {len(kinds):,} values in {sum(present.values()):,} labelled rows: it names rows and is "
            "no label. Name another column."
        )
    if len(kinds) > MAX_CATEGORIES:
        raise InputError(
            f"label column {name!r} has {len(kinds):,} different values; at most {MAX_CATEGORIES} categories are probed "
            "one against the rest. Name another column or merge rare categories."
        )
    if value_of and len(value_of) < len(present):
        rest = f"{sum(present[word] for word in value_of):,} rows, such as {next(iter(value_of))!r}"
        notes.append(f"label column {name!r} holds numbers among words ({rest}): all of them are read as categories.")
    spelling = _most_frequent_spellings(present, keys)
    notes += _spelling_notes(name, present, {word: spelling[keys[word]] for word in present})
    features = tuple(f"{name}={category}" for category in sorted(spelling.values()))
    of_kind = {kind: {feature: feature == f"{name}={spelling[kind]}" for feature in features} for kind in kinds}
    return LabelColumn(features=features, labels=[of_kind.get(keys[word], {}) for word in words], notes=tuple(notes))


def _word(name: str, value: object, row: int) -> str:
    if isinstance(value, (Mapping, Collection)) and not isinstance(value, str):
        kind = "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"
        raise InputError(
            f"row {row}: label column {name!r} holds {kind}, {str(value)[:60]}. Give a word, a number, true, false or null."
        )
    return "" if value is None else str(value)


def _key(word: str) -> str:
    """Equal for spellings of one label."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold()).split())


def _number(key: str) -> float | None:
    value = float(key) if NUMBER.fullmatch(key) else math.inf
    return value if math.isfinite(value) else None


def _is_continuous(values: set[float]) -> bool:
    return len(values) > MAX_NUMBER_CATEGORIES or any(not value.is_integer() for value in values)


def _missing_notes(name: str, missing: Mapping[str, int], total: int) -> list[str]:
    if not missing:
        return []
    empty = sum(count for word, count in missing.items() if not word.strip())
    words = [f"{empty:,} empty"] if empty else []
    words += [f"{count:,} {word!r}" for word, count in missing.items() if word.strip()]
    count = sum(missing.values())
    return [
        f"label column {name!r}: {count:,} of {total:,} rows have no label and are not eligible ({', '.join(words)})."
    ]


def _most_frequent_spellings(present: Mapping[str, int], keys: Mapping[str, str]) -> dict[str, str]:
    counts: dict[str, Counter[str]] = {}
    for word, count in present.items():
        counts.setdefault(keys[word], Counter())[" ".join(word.split())] += count
    return {key: spellings.most_common(1)[0][0] for key, spellings in counts.items()}


def _spelling_notes(name: str, present: Mapping[str, int], read_as: Mapping[str, str]) -> list[str]:
    strange: dict[str, list[str]] = {}
    for word, spelling in read_as.items():
        if word != spelling:
            strange.setdefault(spelling, []).append(f"{word!r} ({present[word]:,})")
    notes = [
        f"label column {name!r}: {', '.join(words)} were read as {spelling!r} ({present.get(spelling, 0):,})."
        for spelling, words in sorted(strange.items())
    ]
    rest = len(notes) - MAX_SPELLING_NOTES
    return notes if rest <= 0 else [*notes[:-rest], f"label column {name!r}: {rest} more labels had several spellings."]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumns:
    """Labels of several columns, row by row."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    """Columns that are predicted by regression."""
    labels: Sequence[Mapping[str, bool]]
    """Per row, as `Document.labels`."""
    numbers: Sequence[Mapping[str, float]]
    """Per row, as `Document.numbers`."""
    rivals: Mapping[str, tuple[str, ...]]
    """For each feature, the other categories of its column; none for a boolean column."""
    notes: tuple[str, ...]


def label_columns(
    rows: Sequence[tuple[int, Mapping[str, object]]], labels: Sequence[str], numbers: Sequence[str], where: str
) -> LabelColumns:
    """Read label columns (see `label_column`).

    Args:
        rows: the number that messages give to each row, and its cells by the name of their column.
        labels: columns to be read as they look.
        numbers: columns to be read as numbers.
        where: name of the file, for messages.

    Raises:
        InputError: as `label_column`; two columns that make the same feature.
    """
    shown = [number for number, _ in rows]
    try:
        columns = {
            name: label_column(name, [cells.get(name) for _, cells in rows], number=name in numbers, rows=shown)
            for name in dict.fromkeys((*labels, *numbers))
        }
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    features = [feature for column in columns.values() for feature in column.features]
    if len(set(features)) < len(features):
        raise InputError(f"{where}: two label columns make a feature of the same name: rename one of them.")
    binary = [column.labels for column in columns.values() if column.features]
    targets = {name: column.numbers for name, column in columns.items() if not column.features}
    return LabelColumns(
        features=tuple(features),
        targets=tuple(targets),
        labels=binary[0]
        if len(binary) == 1
        else [dict(pair for each in binary for pair in each[i].items()) for i in range(len(rows))],
        numbers=[
            {name: value for name, values in targets.items() if (value := values[i]) is not None}
            for i in range(len(rows))
        ],
        rivals={f: tuple(g for g in column.features if g != f) for column in columns.values() for f in column.features},
        notes=tuple(note for column in columns.values() for note in column.notes),
    )


def unbroken(value: str, where: str) -> str:
    """The text itself.

    Raises:
        InputError: it holds half of a surrogate pair, which no tokenizer takes.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: {value[error.start]!a} is half of a character: write the text as UTF-8.") from None
    return value


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
    return unbroken(value, where)


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
    return unbroken(word, where)


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
