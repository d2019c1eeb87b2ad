"""Properties of the token string itself (paper, text features): capitals, digits, leading space, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sparse_probing.datasets.draw import Draw
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.sources.corpus import PAPER_FRACTIONS, corpus_document, corpus_rows
from sparse_probing.datasets.sources.source import BuildOptions

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

MOST = 1_200
RULES = {"split_by": "group"}
PAPER_RULES = {
    "window": 256,
    "skip_first": 10,
    "max_rows": 10_000,
    "positive_share": 0.2,
    "sampling": "filled",
    "split_by": "row",
    "fractions": PAPER_FRACTIONS,
}


def text_features(place: Path, options: BuildOptions) -> LabelledText:
    """Documents of every kind from a corpus, to be labelled by the tokenizer's own tokens.

    Differs from the paper: documents are drawn from the whole corpus, not the first 10,000 of a file ordered by kind (D2); the
    split is by document (D10). `paper_rules` restores 10,000 rows per feature, 20 to 50 % of them positive, in windows of 256
    tokens, rows split at random; D2 is not brought back.
    """
    draw: Draw[None, Document] = Draw(options.most or MOST, options.seed)
    for number, (split, row) in enumerate(corpus_rows(place, options)):
        document = corpus_document(row, split, number)
        draw.offer(None, document.id, document)
    documents = [document for _, document in draw.drawn()]
    return replace(token_text(documents), rules=PAPER_RULES if options.paper_rules else RULES)


def token_text(documents: Sequence[Document]) -> LabelledText:
    """Documents whose tokens are labelled by their own spelling."""
    return LabelledText(
        category=CATEGORY,
        features=tuple(PATTERNS),
        level="token",
        documents=tuple(documents),
        token_patterns=PATTERNS,
    )
