"""Where a long text is cut: windows of tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np

from sparse_probing.datasets.backends import TokenizedText
from sparse_probing.datasets.rules import SamplingRules


def document_windows(
    length: int, room: int, rules: SamplingRules, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Windows of a text that is labelled whole: `windows_per_document` at random, none overlapping another.

    Args:
        length: tokens of the text.
        room: tokens of text that fit into a window.
        rules: number of windows, anchor.
        rng: chooses.

    Yields:
        First token and one past the last.
    """
    if rules.full_windows_only and length < room:
        return
    if rules.anchor == "end":
        yield max(0, length - room), length
        return
    possible = max(1, length // room)
    offset = int(rng.integers(max(0, length - possible * room) + 1))
    for piece in np.sort(rng.permutation(possible)[: rules.windows_per_document]):
        begin = offset + int(piece) * room
        yield begin, min(begin + room, length)


def windows_of(
    text: TokenizedText, breaks: Sequence[int], room: int, rules: SamplingRules
) -> Iterator[tuple[int, int]]:
    """Windows of a text whose tokens or stretches are labelled: all of it, in order, cut at `breaks` where there are any.

    Args:
        text: the tokens.
        breaks: characters at which a window may begin.
        room: tokens of text that fit into a window.
        rules: anchor, packing.

    Yields:
        First token and one past the last.
    """
    length = len(text.ids)
    if rules.full_windows_only and length < room:
        return
    if rules.anchor == "end":
        yield max(0, length - room), length
        return
    cuts = _cuts(text, breaks)
    bounds = _packed_by_length(cuts, length, room) if rules.cut_by_length else _packed(cuts, length, room)
    for begin, end in bounds:
        if not (rules.full_windows_only and end - begin < room):
            yield begin, end
        if rules.anchor == "first":
            return


def _cuts(text: TokenizedText, breaks: Sequence[int]) -> list[int]:
    """Tokens at which a window may begin: the first that ends behind a break. Null breaks: any token, told by an empty list."""
    inner = (
        np.searchsorted(np.maximum.accumulate(text.ends), np.asarray(breaks, dtype=int), side="right")
        if len(text.ids)
        else []
    )
    return sorted({int(cut) for cut in inner if 0 < cut < len(text.ids)})


def _packed(cuts: list[int], length: int, room: int) -> Iterator[tuple[int, int]]:
    """As many whole pieces as fit; a piece longer than a window is cut."""
    begin = 0
    while begin < length:
        last = bisect_right(cuts, begin + room) - 1  # a list comprehension takes minutes for a book of 10 MB
        whole = cuts[last] if last >= 0 and cuts[last] > begin else begin + room
        end = length if length - begin <= room else whole
        yield begin, end
        begin = end


def _packed_by_length(cuts: list[int], length: int, room: int) -> Iterator[tuple[int, int]]:
    """The paper's packing: a piece that ends before token n belongs to window n // room; what exceeds a window is lost."""
    pieces = pairwise([0, *cuts, length])
    for _, group in groupby(pieces, key=lambda piece: piece[1] // room):
        members = list(group)
        yield members[0][0], min(members[-1][1], members[0][0] + room)
