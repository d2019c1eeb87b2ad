"""Which kind of text, from which sort of place: the paper's data source category."""

from __future__ import annotations

from pathlib import Path

from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.readers import Row
from sparse_probing.datasets.sources.corpus import PAPER_FRACTIONS, labelled_by_field
from sparse_probing.datasets.sources.source import BuildOptions

PAPER_KINDS = {
    "latex": "arxiv",
    "web_email": "enron",
    "legal": "freelaw",
    "github": "github",
    "hackernews": "hackernews",
    "biomedical": "pubmed_abstracts",
    "stackexchange": "stack_exchange",
    "patents": "uspto",
    "wikipedia": "wikipedia",
}
"""Kind of text -> the paper's feature that comes nearest."""
MOST = 500
RULES = {"split_by": "group"}
PAPER_RULES = {
    "window": 512,
    "skip_first": 25,
    "full_windows_only": True,
    "split_by": "row",
    "fractions": PAPER_FRACTIONS,
}


def kind_of_text(place: Path, options: BuildOptions) -> LabelledText:
    """English rows of a corpus, and code, by `distribution`.

    Differs from the paper: every kind of text in the corpus; short texts take part (D1: the paper lost almost all of its
    abstracts that way); the split is by document (D10); the first 10 tokens are skipped instead of 25. `paper_rules` restores
    the nine kinds that come nearest to the paper's, full windows of 512 tokens and rows split at random.
    """
    paper = options.paper_rules
    return labelled_by_field(
        place,
        options,
        category="kind of text",
        class_of=_kind,
        most=MOST,
        rules=PAPER_RULES if paper else RULES,
        only=tuple(PAPER_KINDS) if paper else (),
    )


def _kind(row: Row) -> object:
    english_or_code = row.get("natural_language") in (None, "en")
    return row.get("distribution") if english_or_code else None
