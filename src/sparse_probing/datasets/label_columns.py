"""What the cells of a label column say: booleans, categories, numbers."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparse_probing.errors import InputError

MAX_CATEGORIES = 200
MAX_NUMBER_CATEGORIES = 10
"""Whole numbers with more different values than this are predicted by regression."""
TRUE_WORDS = frozenset({"1", "true", "yes", "y", "t", "1.0"})
FALSE_WORDS = frozenset({"0", "false", "no", "n", "f", "0.0"})
MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null"})
LARGEST_NUMBER = 1e150
"""Its square is about the largest that float64 holds."""
TOO_LARGE = f"Numbers are predicted up to {LARGEST_NUMBER:g}, beyond which their squares overflow: rescale the column."
SMALLEST_SPREAD = 1e-150
"""The square of a smaller one is 0 to float64."""
MAX_SPELLING_NOTES = 10
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumn:
    """Labels of one column, row by row: either binary features or one number."""

    features: tuple[str, ...] = ()
    """The column's name for a boolean column, `column=value` for one of two values, `column=category` for each of several
    categories; none for a number."""
    labels: Sequence[Mapping[str, bool]] = ()
    """Per row: every feature, or nothing where the row is not eligible. Rows of equal value share one mapping."""
    numbers: Sequence[float | None] = ()
    """Per row, null where the row is not eligible; empty for a column of binary features."""
    notes: tuple[str, ...] = ()
    """Cells that are not eligible, spellings that were merged, types that were mixed."""


def label_column(
    name: str,
    values: Sequence[object],
    *,
    number: bool = False,
    positive: str | None = None,
    rows: Sequence[int] | None = None,
) -> LabelColumn:
    """Read a label column.

    Words that mean *missing* (empty, `NA`, `n/a`, `NaN`, `null`) are not eligible. Boolean words (`1/0`, `true/false`, `yes/no`,
    `y/n`, `t/f`) make one feature. Numbers make a regression target where one of them is not whole or more than ten differ.
    Two values of any other kind make one feature, too: the rarer of them. All else is categories. Spellings that differ in case,
    white space or Unicode width and composition are one label, under its most frequent spelling.

    Args:
        name: of the column, for features and messages.
        values: one per row: strings, numbers, booleans or null.
        number: read numbers as a regression target even where they could be classes.
        positive: which of two values is the feature, in any spelling.
        rows: the number that messages give to each value; from 1 when not given.

    Raises:
        InputError: no label at all, one class only, more than 200 categories, a list or object in a cell, with `number` a
            value that is none, or, with `positive`, a column that is not of two values or lacks that one.
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
    large = {word for word in present if NUMBER.fullmatch(keys[word]) and abs(float(keys[word])) > LARGEST_NUMBER}
    if large and (number or all(NUMBER.fullmatch(keys[word]) for word in present)):
        word, row = next((word, row) for word, row in zip(words, rows, strict=True) if word in large)
        raise InputError(f"row {row}: column {name!r} holds {word[:40]!r}. {TOO_LARGE}")
    value_of = {word: value for word in present if (value := _number(keys[word])) is not None}
    is_boolean = kinds <= TRUE_WORDS | FALSE_WORDS
    if number or (len(value_of) == len(present) and not is_boolean and _is_continuous(set(value_of.values()))):
        for word, row in zip(words, rows, strict=True):
            if word not in value_of and word not in missing:
                raise InputError(
                    f"row {row}: column {name!r} holds {word!r}, which is no number. Mend or empty the cell."
                )
        if positive is not None:
            raise InputError(
                f"column {name!r} is read as numbers, of which none is the class: leave out --positive {positive}."
            )
        spread = max(value_of.values()) - min(value_of.values())
        if spread < SMALLEST_SPREAD:
            raise InputError(
                f"the numbers of column {name!r} differ by {spread:.3g} at most, whose square is 0 in float64: rescale the column."
            )
        if not number:
            notes.append(
                f"label column {name!r} holds {len(kinds):,} different numbers and is read as a regression target."
            )
        return LabelColumn(numbers=[value_of.get(word) for word in words], notes=tuple(notes))
    if is_boolean:
        is_true = positive is None or _key(positive) in TRUE_WORDS
        if not (is_true or _key(str(positive)) in FALSE_WORDS):
            raise _no_such_value(name, positive, kinds)
        feature = name if is_true else f"{name}={positive}"
        of_word = {word: {feature: (keys[word] in TRUE_WORDS) == is_true} for word in present}
        return LabelColumn(features=(feature,), labels=[of_word.get(word, {}) for word in words], notes=tuple(notes))
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
    if len(kinds) == 2:
        chosen, note = _one_of_two(name, spelling, Counter(keys[word] for word in words if word in present), positive)
        feature = f"{name}={spelling[chosen]}"
        of_word = {word: {feature: keys[word] == chosen} for word in present}
        said = tuple((*notes, note) if note else notes)
        return LabelColumn(features=(feature,), labels=[of_word.get(word, {}) for word in words], notes=said)
    if positive is not None:
        raise InputError(
            f"label column {name!r} has {len(kinds)} values, each of which is a feature: --positive ({positive!r}) is for columns "
            "of two."
        )
    features = tuple(f"{name}={category}" for category in sorted(spelling.values()))
    of_kind = {kind: {feature: feature == f"{name}={spelling[kind]}" for feature in features} for kind in kinds}
    return LabelColumn(features=features, labels=[of_kind.get(keys[word], {}) for word in words], notes=tuple(notes))


def _one_of_two(
    name: str, spelling: Mapping[str, str], counts: Mapping[str, int], positive: str | None
) -> tuple[str, str | None]:
    """Key of the value that is the feature of a column of two, and, where nobody named it, a note."""
    ranked = sorted(spelling, key=lambda key: (counts[key], spelling[key]))
    if positive is not None:
        wanted = _key(positive)
        number = _number(wanted)
        wanted = wanted if number is None or wanted in spelling else f"{number:.15g}"
        if wanted not in spelling:
            raise _no_such_value(name, positive, spelling.values())
        return wanted, None
    few, many = ranked
    why = "the first of two that are as frequent" if counts[few] == counts[many] else "the rarer value"
    feature, both = f"{name}={spelling[few]}", counts[few] + counts[many]
    return few, (
        f"label column {name!r} has two values and is one feature, {feature!r} ({counts[few]:,} of {both:,} rows, {why}); "
        f"{spelling[many]!r} is its opposite (--positive names another)."
    )


def _no_such_value(name: str, positive: str | None, values: Iterable[str]) -> InputError:
    shown = " or ".join(map(repr, sorted(values)))
    return InputError(f"label column {name!r} has no value {positive!r}: --positive takes {shown}.")


def _word(name: str, value: object, row: int) -> str:
    if isinstance(value, (Mapping, Collection)) and not isinstance(value, str):
        kind = "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"
        raise InputError(
            f"row {row}: label column {name!r} holds {kind}, {str(value)[:60]}. Give a word, a number, true, false or null."
        )
    try:
        return "" if value is None else str(value)
    except ValueError:  # Python writes out no integer of more than 4,300 digits
        raise InputError(f"row {row}: column {name!r} holds a number of thousands of digits. {TOO_LARGE}") from None


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
    rows: Sequence[tuple[int, Mapping[str, object]]],
    labels: Sequence[str],
    numbers: Sequence[str],
    where: str,
    positive: Sequence[str] = (),
) -> LabelColumns:
    """Read label columns (see `label_column`).

    Args:
        rows: the number that messages give to each row, and its cells by the name of their column.
        labels: columns to be read as they look.
        numbers: columns to be read as numbers.
        where: name of the file, for messages.
        positive: for columns of two values, which of them is the feature: `value`, or with several columns `column=value`.

    Raises:
        InputError: as `label_column`; two columns that make the same feature; a value for no column or for several.
    """
    shown = [number for number, _ in rows]
    chosen = _chosen_values(positive, tuple(dict.fromkeys(labels)))
    try:
        columns = {
            name: label_column(
                name,
                [cells.get(name) for _, cells in rows],
                number=name in numbers,
                positive=chosen.get(name),
                rows=shown,
            )
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


def _chosen_values(positive: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Value by label column, of `value` or `column=value`."""
    chosen: dict[str, str] = {}
    for given in positive:
        column = max((name for name in labels if given.startswith(f"{name}=")), key=len, default=None)
        if column is None and len(labels) != 1:
            columns = ", ".join(f"{name}=VALUE" for name in labels) or "with a --label column"
            raise InputError(f"--positive {given} does not say which column it is a value of: write {columns}.")
        name = labels[0] if column is None else column
        if name in chosen:
            raise InputError(f"--positive names two values of the column {name!r}: name one.")
        chosen[name] = given if column is None else given.removeprefix(f"{name}=")
    return chosen
