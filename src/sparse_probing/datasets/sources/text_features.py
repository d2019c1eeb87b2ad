"""Properties of the token string itself (paper, text features): capitals, digits, leading space, ..."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.sources.corpus_classes import corpus_rows

CATEGORY = "text feature"
PATTERNS: dict[str, str] = {
    "contains_digit": r"\d",
    "all_digits": r"\A\s?\d+\Z",
    "contains_capital": r"[A-Z]",
    "leading_capital": r"\A ?[A-Z]",
    "all_capitals": r"\A(?!\s?[AI]\Z)\s?[A-Z]+\Z",
    "contains_whitespace": r"\s",
    "has_leading_space": r"\A ",
    "no_leading_space_and_loweralpha": r"\A[^\W\d_A-Z]+\Z",
    "contains_all_whitespace": r"\A\s+\Z",
    "is_not_alphanumeric": r"\A\W+\Z",
    "is_not_ascii": r"[^\x00-\x7f]",
}
"""Feature -> regular expression that a token's text must contain."""

MOST_DOCUMENTS_PER_SPLIT = 400


def text_features(folder: Path, seed: int) -> LabelledText:
    """Documents of every kind from a corpus folder, to be labelled by the tokenizer's own tokens."""
    by_split: dict[object, list[Document]] = {}
    for split, row in corpus_rows(folder):
        document = Document(id=str(row["id"]), text=str(row["text"]), group=str(row["doc"]), split=split)
        by_split.setdefault(split, []).append(document)
    rng = np.random.default_rng(seed)
    documents = [
        documents[i]
        for documents in by_split.values()
        for i in sorted(rng.permutation(len(documents))[:MOST_DOCUMENTS_PER_SPLIT])
    ]
    return token_text(documents)


def token_text(documents: Sequence[Document]) -> LabelledText:
    """Documents whose tokens are labelled by their own spelling."""
    return LabelledText(
        category=CATEGORY,
        features=tuple(PATTERNS),
        level="token",
        documents=tuple(documents),
        token_patterns=PATTERNS,
    )
