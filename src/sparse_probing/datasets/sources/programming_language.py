"""Which programming language a file is written in: the paper's code language data."""

from __future__ import annotations

from pathlib import Path

from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.sources.corpus import PAPER_FRACTIONS, labelled_by_field
from sparse_probing.datasets.sources.source import BuildOptions

PAPER_LANGUAGES = ("c", "cpp", "go", "html", "java", "javascript", "php", "python", "xml")
MOST = 500
RULES = {"split_by": "group"}
PAPER_RULES = {
    "window": 512,
    "skip_first": 100,
    "full_windows_only": True,
    "split_by": "row",
    "fractions": PAPER_FRACTIONS,
}


def programming_language(place: Path, options: BuildOptions) -> LabelledText:
    """Rows of a corpus by `code_language`.

    Differs from the paper: the language is that of the file's repository or ending, not a classifier's guess (D4); every
    language of the corpus; short files take part (D1); the split is by file (D10); the first 10 tokens are skipped instead of
    100. `paper_rules` restores nine languages, full windows of 512 tokens, 100 skipped tokens, and rows split at random.
    """
    paper = options.paper_rules
    return labelled_by_field(
        place,
        options,
        category="programming language",
        class_of=lambda row: row.get("code_language"),
        most=MOST,
        rules=PAPER_RULES if paper else RULES,
        only=PAPER_LANGUAGES if paper else (),
    )
