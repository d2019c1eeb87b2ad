"""Tokens in titles, references, formulas, scripts, fractions, by the markup of LaTeX (paper, LaTeX features)."""

from __future__ import annotations

import re
from pathlib import Path

from sparse_probing.datasets.draw import Draw
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.latex_markup import FEATURES, latex_spans, paper_eligible, paper_latex_spans
from sparse_probing.datasets.readers import Row
from sparse_probing.datasets.sources.corpus import PAPER_FRACTIONS, corpus_document, corpus_rows
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError

MOST = 5_000
"""Rows of the corpus; the paper had 4,486."""
LEAST = 10
"""Different stretches that a feature needs: an author who signs every text is a name, not a feature."""
MIRRORED = {
    "is_numerator": "is_denominator",
    "is_denominator": "is_numerator",
    "is_subscript": "is_superscript",
    "is_superscript": "is_subscript",
    "is_inline_math": "is_display_math",
    "is_display_math": "is_inline_math",
}
NEEDS = {
    "is_title": r"\title, \chapter or \section (title: at the head of pandoc's text)",
    "is_author": r"\author of several people (author: at the head of pandoc's text)",
    "is_abstract": r"an abstract environment (abstract: at the head of pandoc's text), that is articles",
    "is_reference": r"\cite or \ref ([@key] in pandoc's text)",
}
RULES = {"positive_share": 0.25, "split_by": "group"}
PAPER_RULES = {
    "positive_share": 0.25,
    "max_rows": 20_000,
    "window": 1_024,
    "anchor": "first",
    "sampling": "filled",
    "most_positive": 0.25,
    "full_windows_only": True,
    "skip_first": 6,
    "split_by": "row",
    "fractions": PAPER_FRACTIONS,
}
LATEX = re.compile(
    r"\\begin\{(?:document|abstract|equation|align|gather|eqnarray)\*?\}|\\[dt]?frac\{|\$[^$\n]{0,200}\\[A-Za-z]+[^$\n]{0,200}\$"
)
"""What tells LaTeX from other text where a corpus does not."""


def latex(place: Path, options: BuildOptions) -> LabelledText:
    r"""Rows of a corpus folder whose `distribution` is "latex" or, without that field, that hold LaTeX mathematics.

    Tokens outside every label are negatives too; half of the negatives of numerator, subscript, inline formula and of their
    counterparts come from the counterpart. A feature with fewer than 10 different stretches of text is left out, and a note
    says what it needs.

    Differs from the paper: LaTeX source is read as well as pandoc's text of it, by a scanner that knows nested braces, comments,
    verbatim text, `\[..\]` and display environments, where the paper has regular expressions (see `latex_spans`); titles of
    chapters and sections count as titles; nothing is cut to a number of characters; every window of a text is used, not its first
    1,023 tokens; short texts and texts with a stray dollar take part; the split is by document (D10). With `paper_rules` labels
    and eligibility follow the paper (see `paper_latex_spans`; defect D6 is not reproduced) and positives, too, stand behind the
    first 5 positions, which the paper asks of negatives only.
    """
    draw: Draw[str, Document] = Draw(options.most or MOST, options.seed)
    for number, (split, row) in enumerate(corpus_rows(place, options)):
        if _is_latex(row) and (not options.paper_rules or paper_eligible(str(row["text"]))):
            document = corpus_document(row, None if options.paper_rules else split, number)
            draw.offer("latex", document.id, document)
    read = paper_latex_spans if options.paper_rules else latex_spans
    documents = []
    stretches: dict[str, set[str]] = {feature: set() for feature in FEATURES}
    for _, document in draw.drawn():
        spans = tuple(read(document.text))
        for start, end, label in spans:
            if len(stretches[label]) < LEAST:
                stretches[label].add(document.text[start:end])
        documents.append(
            Document(
                id=document.id, text=document.text, group=document.group, spans=spans, split=document.split,
                source=document.source, licence=document.licence,
            )
        )  # fmt: skip
    features = tuple(feature for feature in FEATURES if len(stretches[feature]) >= LEAST)
    if not features:
        raise InputError(
            f"folder {str(place)!r} holds no LaTeX ({len(documents)} rows look like it): name a corpus with rows whose "
            "distribution is 'latex'."
        )
    return LabelledText(
        category="latex",
        features=features,
        level="token",
        documents=tuple(documents),
        hard_negatives={feature: mirror for feature, mirror in MIRRORED.items() if feature in features},
        rules=PAPER_RULES if options.paper_rules else RULES,
        notes=tuple(
            f"{feature} is left out: {len(found)} different text(s) so labelled, at least {LEAST} are needed; it takes "
            f"{NEEDS.get(feature, 'more formulas')}."
            for feature, found in stretches.items()
            if feature not in features
        ),
    )


def _is_latex(row: Row) -> bool:
    if row.get("distribution") is not None:
        return row["distribution"] == "latex"
    return bool(LATEX.search(str(row["text"])))
