"""Characters to tokens: which tokens does a stretch of text touch?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int

from sparse_probing.datasets.backends import TokenizedText
from sparse_probing.datasets.labelled_text import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """How well labels on characters met the tokenizer's tokens, and what windows left out. Counts."""

    tokens: int
    """Tokens of all texts, special tokens aside."""
    unknown_tokens: int
    """Tokens for characters that the vocabulary lacks."""
    stretches: int = 0
    """Distinct labelled stretches of characters."""
    without_token: int = 0
    """Stretches that no token covers (their characters were dropped by the tokenizer)."""
    ragged: int = 0
    """Stretches whose first or last token holds characters beyond the stretch, blanks aside."""
    several_tokens: int = 0
    """Stretches of more than one token."""
    cut_by_window: int = 0
    """Stretches that no window holds entirely."""
    in_skipped_tokens: int = 0
    """Stretches that begin among the skipped first tokens of a window."""


def tokens_in(tokens: TokenizedText, start: int, end: int) -> Bool[np.ndarray, " token"]:
    """Tokens whose characters overlap `[start, end)`; tokens that cover no character overlap nothing."""
    return (tokens.starts < end) & (tokens.ends > start) & (tokens.ends > tokens.starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """The distinct labelled stretches of a text, in the order of the text, with the tokens that they overlap."""

    bounds: Int[np.ndarray, "stretch 2"]
    """First character and one past the last."""
    first: Int[np.ndarray, " stretch"]
    """First token that overlaps; equal to `last` where none does."""
    last: Int[np.ndarray, " stretch"]
    """One past the last token that overlaps."""
    labels: tuple[tuple[str, ...], ...]

    def ragged(self, tokens: TokenizedText, text: str) -> int:
        """Stretches whose outer tokens hold characters beyond the stretch, blanks aside."""
        found = self.last > self.first
        (start, end), first, last = self.bounds[found].T, self.first[found], self.last[found] - 1
        edges = np.stack([tokens.starts[first], start, end, tokens.ends[last]], axis=1).tolist()
        return sum(bool(text[a:b].strip() or text[c:d].strip()) for a, b, c, d in edges)


def stretches_of(tokens: TokenizedText, spans: Iterable[Span]) -> Stretches:
    """Group spans by their characters and find the tokens of each group."""
    grouped: dict[tuple[int, int], list[str]] = {}
    for span in sorted(spans):
        grouped.setdefault((span.start, span.end), []).append(span.label)
    bounds = np.array(list(grouped), dtype=np.int64).reshape(-1, 2)
    first, last = np.zeros(len(bounds), dtype=np.int64), np.zeros(len(bounds), dtype=np.int64)
    visible = np.flatnonzero(tokens.ends > tokens.starts)  # a token that covers no character overlaps nothing
    starts, ends = tokens.starts[visible], tokens.ends[visible]
    if (np.diff(starts) >= 0).all() and (np.diff(ends) >= 0).all():
        low = np.searchsorted(ends, bounds[:, 0], side="right")
        high = np.searchsorted(starts, bounds[:, 1], side="left")
        found = high > low
        first[found], last[found] = visible[low[found]], visible[high[found] - 1] + 1
    else:  # a normaliser that reorders characters: the stretch from the first to the last overlapping token
        for i, (start, end) in enumerate(bounds):
            inside = np.flatnonzero(tokens_in(tokens, int(start), int(end)))
            if len(inside):
                first[i], last[i] = inside[0], inside[-1] + 1
    return Stretches(bounds=bounds, first=first, last=last, labels=tuple(tuple(v) for v in grouped.values()))


def label_tokens(
    tokens: TokenizedText, stretches: Stretches, labels: Mapping[str, int]
) -> tuple[Bool[np.ndarray, "token label"], Bool[np.ndarray, " token"]]:
    """Which tokens carry which label, and which tokens lie in any stretch.

    A token that overlaps several stretches carries the labels of all of them, except that stretches that do not overlap each
    other (words of a treebank) give a token only to the first one that it touches (paper, alignment of EWT).
    """
    carried = np.zeros((len(tokens.ids), len(labels)), dtype=bool)
    touched = np.zeros(len(tokens.ids), dtype=bool)
    visible = tokens.ends > tokens.starts
    by_end = np.argsort(stretches.bounds[:, 1])
    ended = np.searchsorted(stretches.bounds[by_end, 1], stretches.bounds[:, 0], side="right")
    taken = np.maximum.accumulate(np.append(0, stretches.last[by_end]))[ended]  # by stretches that end before this one
    firsts = np.maximum(stretches.first, taken)
    for first, last, names in zip(firsts.tolist(), stretches.last.tolist(), stretches.labels, strict=True):
        if first < last:
            touched[first:last] = True
            for name in names:
                if name in labels:
                    carried[first:last, labels[name]] = True
    return carried & visible[:, None], touched & visible


def label_by_pattern(
    tokens: TokenizedText, text: str, patterns: Mapping[str, str]
) -> Bool[np.ndarray, "token feature"]:
    """Which tokens match which regular expression.

    The text of a token begins where the token before it ended: tokenizers disagree on whether the blank before a word belongs
    to the word's offsets, and this makes them agree. (For WordPiece, *leading space* thus means *begins a word*.)
    """
    begins = np.minimum(np.concatenate([[0], tokens.ends[:-1]]), tokens.starts)
    own = [text[begin:end] for begin, end in zip(begins.tolist(), tokens.ends.tolist(), strict=True)]
    kinds = {token: number for number, token in enumerate(dict.fromkeys(own))}
    expressions = tuple(patterns.values())
    found = np.array([_matches(token, expressions) for token in kinds], dtype=bool).reshape(len(kinds), len(patterns))
    return found[np.array([kinds[token] for token in own], dtype=int)]


@lru_cache(1 << 16)  # a text repeats the tokens of others
def _matches(token: str, patterns: tuple[str, ...]) -> tuple[bool, ...]:
    return tuple(re.search(pattern, token) is not None for pattern in patterns)
