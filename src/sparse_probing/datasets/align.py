"""Characters to tokens: which tokens does a stretch of text touch?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer

from sparse_probing.datasets.labelled_text import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """A fast tokenizer and the special tokens that the model expects around a sequence."""

    backend: Tokenizer
    """The Rust tokenizer: it reports the characters that each token covers."""
    bos_id: int | None
    """Put in front of every sequence (BOS, or an encoder's [CLS]); null for models without one."""
    closing_id: int | None = None
    """Put behind every sequence (an encoder's [SEP]); null for causal models."""

    @property
    def n_front(self) -> int:
        """Special tokens in front of a text."""
        return int(self.bos_id is not None)

    def room(self, window: int) -> int:
        """Tokens of text that fit into a window beside the special tokens."""
        return window - self.n_front - int(self.closing_id is not None)

    def fingerprint(self) -> str:
        """The tokenizer as text: two tokenizers are the same when this is the same."""
        return f"{self.bos_id}:{self.closing_id}:{self.backend.to_str()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedText:
    """Tokens of one text, without special tokens."""

    ids: Int[np.ndarray, " token"]
    starts: Int[np.ndarray, " token"]
    """First character of each token."""
    ends: Int[np.ndarray, " token"]
    """One past the last character of each token."""


def tokenize(tokenizer: TextTokenizer, texts: list[str]) -> list[TokenizedText]:
    """Token ids and character offsets of each text."""
    encodings = tokenizer.backend.encode_batch(texts, add_special_tokens=False)
    result: list[TokenizedText] = []
    for encoding in encodings:
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        result.append(
            TokenizedText(ids=np.array(encoding.ids, dtype=np.int32), starts=offsets[:, 0], ends=offsets[:, 1])
        )
    return result


def tokens_in(tokens: TokenizedText, start: int, end: int) -> Bool[np.ndarray, " token"]:
    """Tokens whose characters overlap `[start, end)`; tokens that cover no character overlap nothing."""
    return (tokens.starts < end) & (tokens.ends > start) & (tokens.ends > tokens.starts)


def label_tokens(
    tokens: TokenizedText, spans: Iterable[Span], features: tuple[str, ...]
) -> tuple[Bool[np.ndarray, "token feature"], Bool[np.ndarray, " token"]]:
    """Which tokens carry which feature, and which tokens touch any span.

    A token that overlaps several spans of *different* labels keeps all of them, except that spans that do not overlap
    each other (words of a treebank) give a token only the first one it touches (paper, section on EWT alignment).
    """
    number = {feature: i for i, feature in enumerate(features)}
    positive = np.zeros((len(tokens.ids), len(features)), dtype=bool)
    touched = np.zeros(len(tokens.ids), dtype=bool)
    covered_to = 0
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        inside = tokens_in(tokens, span.start, span.end)
        if span.start >= covered_to:
            inside &= ~touched
        covered_to = max(covered_to, span.end)
        touched |= inside
        if span.label in number:
            positive[inside, number[span.label]] = True
    return positive, touched


def label_by_pattern(
    tokens: TokenizedText, text: str, patterns: Mapping[str, str]
) -> Bool[np.ndarray, "token feature"]:
    """Which tokens match which regular expression.

    The text of a token begins where the token before it ended: tokenizers disagree on whether the blank before a word belongs
    to the word's offsets, and this makes them agree. (For WordPiece, *leading space* thus means *begins a word*.)
    """
    found: dict[str, list[bool]] = {}
    compiled = [re.compile(pattern) for pattern in patterns.values()]
    begins = np.minimum(np.concatenate([[0], tokens.ends[:-1]]), tokens.starts)
    rows = []
    for begin, end in zip(begins, tokens.ends, strict=True):
        token = text[begin:end]
        if token not in found:
            found[token] = [bool(pattern.search(token)) for pattern in compiled]
        rows.append(found[token])
    return np.array(rows, dtype=bool).reshape(len(tokens.ids), len(patterns))
