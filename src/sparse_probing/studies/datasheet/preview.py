"""A readable sample of rows: what exactly is labelled, token by token, before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.records import SPLITS

CONTEXT = 60
"""Characters shown on either side of a row."""
MARKED = 120
"""Characters of a row after which the rest of it is not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Characters of a row that belong to one token, or to several that share a character, as the bytes of an emoji do."""

    text: str
    tokens: int
    """Tokens of the row that cover these characters; 0 for characters that no token covers, as blanks for some tokenizers."""
    of: int
    """Tokens of the whole sequence that cover them: more than `tokens` where the row holds a part of a character only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewRow:
    """One row with its text and labels."""

    category: str
    labels: tuple[tuple[str, bool | float], ...]
    """The feature (or number) that the row was drawn for, then the others that it is positive for, then other numbers."""
    split: str
    document: str
    group: int
    before: str
    """Text of the same window in front of the row."""
    pieces: tuple[Piece, ...]
    """Joined: the text from the first to the last character of the row's tokens, less the hidden ones at its end."""
    hidden: int
    """Characters of the row that are not shown; `after` is empty then."""
    after: str
    """Text of the same window behind the row."""
    more_before: bool
    """The document begins before `before`."""
    more_after: bool
    """The document goes on behind `after`."""


def preview_rows(dataset: FeatureDataset, *, n: int = 20, rng: np.random.Generator) -> list[PreviewRow]:
    """Rows at random, one feature (or number) after the other, positive and negative in turn; no row twice.

    Args:
        dataset: the rows, of any number of categories.
        n: rows wanted; there are fewer only where the data set has fewer.
        rng: chooses the order of the features, and the rows.
    """
    return [_preview(dataset, row, name) for row, name in _drawn(dataset, n, rng).items()]


def _drawn(dataset: FeatureDataset, n: int, rng: np.random.Generator) -> dict[int, int]:
    """Row -> feature or number (counted behind the features) that it was drawn for."""
    names = rng.permutation(len(dataset.features) + len(dataset.targets)).tolist()
    queues: dict[tuple[int, bool], Iterator[int]] = {}
    drawn: dict[int, int] = {}
    for turn in range(2 * n):  # two turns of all names draw at least one row as long as there are any
        for place, name in enumerate(names):
            wanted = name, (place + turn) % 2 == 0
            if wanted not in queues:
                queues[wanted] = iter(rng.permutation(_candidates(dataset, *wanted)).tolist())
            row = next((row for row in queues[wanted] if row not in drawn), None)
            if row is not None:
                drawn[row] = name
            if len(drawn) == n:
                return drawn
    return drawn


def _candidates(dataset: FeatureDataset, name: int, positive: bool) -> Int[np.ndarray, " row"]:  # noqa: FBT001
    """Rows of a feature with that label; rows that have a number, whatever `positive` is."""
    if name < len(dataset.features):
        return np.flatnonzero(dataset.eligible[:, name] & (dataset.positive[:, name] == positive))
    return np.flatnonzero(~np.isnan(dataset.targets[name - len(dataset.features)].values))


def _labels(dataset: FeatureDataset, row: int, name: int) -> tuple[tuple[str, bool | float], ...]:
    found: list[tuple[str, bool | float]] = []
    others = np.flatnonzero(dataset.eligible[row] & dataset.positive[row]).tolist()
    for f in [name, *others] if name < len(dataset.features) else others:
        found.append((dataset.features[f], bool(dataset.positive[row, f])))
    numbers = [(t.name, float(t.values[row])) for t in dataset.targets if not np.isnan(t.values[row])]
    first = name - len(dataset.features)
    if first >= 0:
        found.insert(0, (dataset.targets[first].name, float(dataset.targets[first].values[row])))
    return tuple(dict.fromkeys((*found, *numbers)))  # what came first is not said twice


def _preview(dataset: FeatureDataset, row: int, name: int) -> PreviewRow:
    sequence = int(dataset.row_sequence[row])
    document = int(dataset.sequence_document[sequence])
    text = dataset.texts[document]
    begin, end = dataset.sequence_starts[sequence : sequence + 2].tolist()
    bounds = np.stack([dataset.char_starts[begin:end], dataset.char_ends[begin:end]], axis=1).astype(int)
    window = visible_bounds(bounds)
    inside = visible_bounds(bounds[int(dataset.row_first[row]) : int(dataset.row_last[row])])
    low, high = (int(window[:, 0].min()), int(window[:, 1].max())) if len(window) else (0, 0)
    if len(inside):
        start, stop = int(inside[:, 0].min()), int(inside[:, 1].max())
    else:  # tokens without characters: show where they stand
        start = stop = min(max(low, int(bounds[int(dataset.row_first[row]), 0])), high)
    pieces, shown = [], start
    for piece in pieces_of(text, inside, window):
        if shown - start >= MARKED:
            break
        pieces.append(piece)
        shown += len(piece.text)
    first = max(low, start - CONTEXT)
    last = min(high, stop + CONTEXT) if shown == stop else shown
    categories = (*dataset.categories, *(target.category for target in dataset.targets))
    return PreviewRow(
        category=categories[name],
        labels=_labels(dataset, row, name),
        split=SPLITS[int(dataset.row_split[row])].value,
        document=dataset.document_ids[document],
        group=int(dataset.row_group[row]),
        before=text[first:start],
        pieces=tuple(pieces),
        hidden=stop - shown,
        after=text[shown:last],
        more_before=first > 0,
        more_after=last < len(text),
    )


def visible_bounds(bounds: Int[np.ndarray, "token 2"]) -> Int[np.ndarray, "visible 2"]:
    """First and one past the last character of the tokens that have any, in the order of the text."""
    bounds = bounds[bounds[:, 1] > bounds[:, 0]]
    return bounds[np.lexsort((bounds[:, 1], bounds[:, 0]))]


def pieces_of(text: str, row: Int[np.ndarray, "token 2"], window: Int[np.ndarray, "other 2"]) -> Iterator[Piece]:
    """The text between the first and the last character of a row's tokens, cut where tokens meet.

    Args:
        text: of the document.
        row: from `visible_bounds`, of the row's tokens.
        window: the same of all tokens of its sequence.
    """
    merged: list[list[int]] = []  # first character, one past the last, tokens
    for a, b in row.tolist():
        if merged and a < merged[-1][1]:
            merged[-1] = [merged[-1][0], max(b, merged[-1][1]), merged[-1][2] + 1]
        else:
            merged.append([a, b, 1])
    cursor = merged[0][0] if merged else 0
    for a, b, tokens in merged:
        if a > cursor:
            yield Piece(text=text[cursor:a], tokens=0, of=0)
        yield Piece(text=text[a:b], tokens=tokens, of=int(((window[:, 0] < b) & (window[:, 1] > a)).sum()))
        cursor = b
