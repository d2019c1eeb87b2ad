"""Which natural language a text is written in: the paper's EuroParl language data."""

from __future__ import annotations

from pathlib import Path

from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.readers import Row
from sparse_probing.datasets.sources.corpus import PAPER_FRACTIONS, labelled_by_field
from sparse_probing.datasets.sources.source import BuildOptions

PAPER_LANGUAGES = ("en", "es", "nl", "pt", "sv", "de", "el", "fr", "it")
MOST = 500
RULES = {"split_by": "group"}
PAPER_RULES = {
    "window": 512,
    "skip_first": 1,
    "full_windows_only": True,
    "split_by": "row",
    "fractions": PAPER_FRACTIONS,
}


def natural_language(place: Path, options: BuildOptions) -> LabelledText:
    """Rows of a corpus by `natural_language`; where rows name their kind of text, fiction only, so that the language differs and
    not the kind of text.

    Differs from the paper: every language of the corpus (not nine), texts shorter than a window take part (D1), the split is by
    document and stratified (D10), the first 10 tokens are skipped (the paper skips BOS). `paper_rules` restores the paper's:
    nine languages, full windows of 512 tokens, rows split at random. The paper's text is EuroParl, where all languages say the
    same; here it is whatever the corpus holds.
    """
    paper = options.paper_rules
    return labelled_by_field(
        place,
        options,
        category="natural language",
        class_of=_language,
        most=MOST,
        rules=PAPER_RULES if paper else RULES,
        only=PAPER_LANGUAGES if paper else (),
    )


def _language(row: Row) -> object:
    return row.get("natural_language") if row.get("distribution") in (None, "fiction") else None
