"""At which position of its sequence does a token stand? A regression (paper, position data set)."""

from __future__ import annotations

import heapq
from pathlib import Path

from sparse_probing.datasets.draw import Draw
from sparse_probing.datasets.labelled_text import TOKEN_NUMBERS, Document, LabelledText
from sparse_probing.datasets.sources.corpus import PAPER_FRACTIONS, corpus_document, corpus_rows
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.records import Split

MOST_PER_SPLIT = 1_000
RULES = {"full_windows_only": True, "skip_first": 0}
PAPER_MOST = 10_000
PAPER_RULES = {
    **RULES,
    "window": 1_024,
    "max_rows": 50_000,
    "split_by": "row",
    "fractions": PAPER_FRACTIONS,
}


def sequence_position(place: Path, options: BuildOptions) -> LabelledText:
    """Texts of a corpus folder whose tokens carry their position, and its logarithm to base 2, as numbers.

    Only texts that fill a window are used: every position is then equally common, and no position means *a short text*.
    The paper's five targets are these two: absolute, absolute / standard deviation, centred, and centred / standard deviation
    differ by an affine map, which changes no R2 and no ranking of neurons; log2(position + 1) is the other one.

    Differs from the paper: texts are drawn from the whole corpus, `options.most` (default 1,000) per split, so that all kinds of
    text occur; the corpus's own split is kept, and the window is the user's. `paper_rules` restores the first 10,000 documents
    in the alphabetical order of their kinds (D2), windows of 1,024 tokens, 50,000 tokens and random rows (D10); texts are not
    joined to fill windows.

    Raises:
        InputError: no corpus in the folder, or a row without text.
    """
    rows = enumerate(corpus_rows(place, options))
    if options.paper_rules:
        alphabetical = heapq.nsmallest(
            options.most or PAPER_MOST, rows, key=lambda entry: (str(entry[1][1].get("distribution")), entry[0])
        )
        documents = [corpus_document(row, None, number) for number, (_, row) in alphabetical]
    else:
        draw: Draw[Split | None, Document] = Draw(options.most or MOST_PER_SPLIT, options.seed)
        for number, (split, row) in rows:
            document = corpus_document(row, split, number)
            draw.offer(split, document.id, document)
        documents = [document for _, document in draw.drawn()]
    return LabelledText(
        category="sequence position",
        features=(),
        level="token",
        documents=tuple(documents),
        numbers=TOKEN_NUMBERS,
        rules=PAPER_RULES if options.paper_rules else RULES,
    )
