"""The rows of a user's file that have text: all of them, or a sample drawn while the file streams by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar, cast

from sparse_probing.datasets.cells import is_blank
from sparse_probing.datasets.draw import Draw, priority
from sparse_probing.datasets.labelled_text import Document
from sparse_probing.datasets.readers import Row, check_column, check_whole, iter_rows, stem
from sparse_probing.errors import InputError
from sparse_probing.records import SPLIT_WORDS, Split

Data = Path | str | Iterable[Row | str]
"""Path of a data file, or rows in memory (a row that is a mere string is a text)."""
Content = TypeVar("Content")
SHOWN_ROWS = 5
"""Rows that a note names."""


class Reading(TypedDict, total=False):
    """Options that all functions of `own_labels` take by name."""

    group_column: str | None
    """Rows of one value stay in one split; a row without a value is a group of its own."""
    id_column: str | None
    """Names of the rows, all different; their numbers in the file when not given."""
    split_column: str | None
    """Holds `train`, `validation` (`valid`, `dev`) or `test` in every row."""
    most: int | None
    """Draw at most so many rows."""
    seed: int
    """Another seed, other rows."""
    category: str | None
    """Name under which features appear in results; the name of the file when not given."""


@dataclass(frozen=True, slots=True)
class DrawnRow(Generic[Content]):
    """A row that has text, and was drawn."""

    number: int
    """In the file, from 1."""
    id: str
    group: str | None
    """Null: a group of its own."""
    split: Split | None
    content: Content


@dataclass(frozen=True, slots=True)
class DrawnRows(Generic[Content]):
    """A sample of the rows of a file, in their order."""

    where: str
    """Name of the file, for messages."""
    category: str
    rows: list[DrawnRow[Content]]
    notes: tuple[str, ...]


def draw_rows(  # noqa: D417 - the other arguments are those of Reading
    data: Data,
    parse: Callable[[Row, str], Content | None],
    columns: Sequence[str],
    *,
    lacking: str = "text",
    text_column: str | None = None,
    pair_column: str | None = None,
    group_column: str | None = None,
    id_column: str | None = None,
    split_column: str | None = None,
    most: int | None = None,
    seed: int = 0,
    category: str | None = None,
) -> DrawnRows[Content]:
    """Parse every row, leave out those without content, keep all or a sample of the others.

    Args:
        data: a file or rows.
        parse: content of a row, given the row and its name for messages; null: it has none.
        columns: columns that must exist.
        lacking: what a row without content lacks.
        text_column: which of the columns holds the text, so that a wrong one is answered with `--text-column`.
        pair_column: groups that are drawn together (see `own_labels.labelled_documents`).

    Raises:
        InputError: no row with content, an unknown column, an id that is not unique, a split of another name, half of a
            character; as `iter_rows`.
    """
    path = Path(data) if isinstance(data, (Path, str)) else None
    category = category or (stem(path) if path else "own labels")
    where = str(path) if path else category
    rows = iter_rows(path) if path else cast(Iterable[Row | str], data)
    group_column = group_column or pair_column
    used = list(filter(None, (*columns, group_column, id_column, split_column)))
    check_whole(used, "a column's name")
    known: dict[str, None] = {}
    draw: Draw[None, DrawnRow[Content]] = Draw(most + 1 if most and pair_column else most, seed)
    left_out: list[int] = []
    number = n_left_out = 0
    for number, given in enumerate(rows, 1):
        row: Row = {"text": given} if isinstance(given, str) else given
        known.update(dict.fromkeys(row))
        place = f"{where}, row {number}"
        if path is None:  # the readers of files look themselves
            check_whole([row.get(name) for name in used], place)
        content = parse(row, place)
        if content is None:
            n_left_out += 1
            left_out += [number] if n_left_out <= SHOWN_ROWS else []
            continue
        name, group = (_name(row.get(column)) if column else None for column in (id_column, group_column))
        split = _split(row, split_column, known, place) if split_column else None
        drawn = DrawnRow(number, name or str(number), group, split, content)
        draw.offer(None, (group if pair_column else None) or drawn.id, drawn)
    if not number:
        raise InputError(f"{where} holds no rows.")
    for column_name in used:
        check_column(column_name, known, where, "--text-column" if column_name == text_column else "")
    if n_left_out == number:
        raise InputError(f"{where}: none of the {number:,} rows has {lacking}.")
    kept = [row for _, row in draw.drawn()]
    if pair_column and most is not None and len(kept) > most:  # the last pair that was drawn may be torn
        last = max((row.group or row.id for row in kept), key=lambda name: (priority(seed, name), name))
        kept = [row for row in kept if (row.group or row.id) != last]
        if not kept:
            raise InputError(f"{most} rows hold no whole pair of {where}: draw more.")
    twice = next((name for name, count in Counter(row.id for row in kept).items() if count > 1), None)
    if twice is not None:
        both = ", ".join(str(row.number) for row in kept if row.id == twice)
        raise InputError(f"{where} has the id {twice!r} more than once (rows {both}): name another id column, or none.")
    notes: list[str] = []
    if left_out:
        shown = ", ".join(map(str, left_out)) + (", ..." if n_left_out > len(left_out) else "")
        notes.append(f"{n_left_out:,} of {number:,} rows have no {lacking} and were left out: rows {shown}.")
    if len(kept) < draw.offered[None]:
        notes.append(f"{len(kept):,} of {draw.offered[None]:,} rows with {lacking} were drawn (seed {seed}).")
    alone = sum(row.group is None for row in kept) if group_column else 0
    if alone:
        notes.append(f"{alone:,} rows have no {group_column!r}: each of them is a group of its own.")
    return DrawnRows(where, category, kept, tuple(notes))


def _name(value: object) -> str | None:
    return None if is_blank(value) else str(value)


def _split(row: Row, column: str, known: Collection[str], where: str) -> Split:
    check_column(column, known, where)
    word = str(row.get(column)).strip().lower()
    if word not in SPLIT_WORDS:
        raise InputError(f"{where}: split {word!r} is not train, validation (valid, val, dev) or test (eval).")
    return SPLIT_WORDS[word]


def document_of(row: DrawnRow[Any], text: str, **fields: Any) -> Document:
    """A drawn row as a document; its number is its group where no column says otherwise."""
    return Document(id=row.id, group=row.group or f"row {row.number}", text=text, split=row.split, **fields)


def label_names(labels: Sequence[str], numbers: Sequence[str]) -> tuple[str, ...]:
    """Columns of labels and numbers, each once.

    Raises:
        InputError: none is named.
    """
    if not labels and not numbers:
        raise InputError("no label column named: name at least one column of labels or numbers.")
    return tuple(dict.fromkeys((*labels, *numbers)))
