"""LaTeX features: the scanner by hand, by construction and on arbitrary text; the paper's rules; the builder."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.latex_markup import FEATURES, latex_spans, paper_eligible, paper_latex_spans
from sparse_probing.datasets.sources.latex import MIRRORED, latex
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError
from sparse_probing.records import Split


def found(text: str, *labels: str) -> list[str]:
    return [text[span.start : span.end] for span in latex_spans(text) if span.label in labels]


MATH = ("is_inline_math", "is_display_math")


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        (r"a $x+y$ b \(z\) c", MATH, ["x+y", "z"]),
        (r"$$p$$ \[q\] \begin{align*}r\end{align*}", ("is_display_math",), ["p", "q", "r"]),
        (r"\begin{flalign}r\end{flalign} \begin{math}s\end{math}", MATH, ["r", "s"]),
        (r"costs \$5 and \$6, $x$", MATH, ["x"]),
        (r"first\\[2pt] second \\ $x$", MATH, ["x"]),
        ("% a comment with $ in it\n$x$", MATH, ["x"]),
        ("5\\% and 7% of $x$ and $y$", MATH, ["x", "y"]),
        ("a 5% share of $x$", MATH, ["x"]),
        (r"\begin{verbatim}$no$\end{verbatim} $x$", MATH, ["x"]),
        (r"\begin{lstlisting} $no$ and so on $x$", MATH, []),
        (r"\verb|$| $x$ \url{http://a.b/$%20} $y$", MATH, ["x", "y"]),
        ("It costs $5.\n\nBut $x$ is free.", MATH, ["x"]),
        (r"It costs $5: \[y\] and $x$", MATH, ["y", "x"]),
        (r"It costs $5 and \(y\)", MATH, ["y"]),
        ("\\[ x\n\n and prose $y$", MATH, [" x", "y"]),
        ("cut in the middle: $x + y", MATH, ["x + y"]),
        ("$a$$b$", MATH, ["a", "b"]),
        ("$$a$$$$b$$", MATH, ["a", "b"]),
        (r"$a \text{ if $b$} c$ and $d$", MATH, [r"a \text{ if $b$} c", "d"]),
        (r"\[a \mbox{ for \(b\)} c\] d \) e", MATH, [r"a \mbox{ for \(b\)} c"]),
        (r"\begin{equation}\begin{align}a\end{align}\end{equation}", MATH, [r"\begin{align}a\end{align}"]),
        (r"\end{equation} \] \) } $x$", MATH, ["x"]),
        (r"\[\begin{tikzpicture} \node {$q_0$}; \end{tikzpicture}\]", MATH, ["q_0"]),
        (r"see \[eq:1\], then \[y\]", MATH, ["y"]),
        ("$$", MATH, []),
        (r"$x^2 + y^{a_{10}} + z_i$", ("is_superscript",), ["2", "a_{10}"]),
        (r"$x^2 + y^{a_{10}} + z_i$", ("is_subscript",), ["10", "i"]),
        (r"$A^\mathrm{T} b^\alpha c^ 3$", ("is_superscript",), [r"\mathrm{T}", r"\alpha", "3"]),
        (r"snake_case 2^3 \^o \_ $a\_b\label{eq:a_b}$", ("is_subscript", "is_superscript"), []),
        (r"$a_{b$ and c} d", ("is_subscript",), []),
        (r"$\frac{a}{b}$ \dfrac12 \tfrac 3{4} \frac\pi2", ("is_numerator",), ["a", "1", "3", r"\pi"]),
        (r"$\frac{a}{b}$ \dfrac12 \tfrac 3{4} \frac\pi2", ("is_denominator",), ["b", "2", "4", "2"]),
        (r"$\frac{a}{b}$ \dfrac12 \tfrac 3{4}", ("is_frac",), [r"\frac{a}{b}", r"\dfrac12", r"\tfrac 3{4}"]),
        (r"$\frac{\frac{a}{b}}{\sqrt{c}}$", ("is_numerator",), [r"\frac{a}{b}", "a"]),
        (r"$\frac{\frac{a}{b}}{\sqrt{c}}$", ("is_denominator",), ["b", r"\sqrt{c}"]),
        (r"\frac{a} } \frac}b \fraction{a}{b} \frac", ("is_frac",), []),
        (r"\frac{}{b}", ("is_frac", "is_numerator", "is_denominator"), [r"\frac{}{b}", "b"]),
        (r"\cite{a,b} \citep[p.~3][see]{c} \eqref{d} \autoref*{e}", ("is_reference",), ["a,b", "c", "d", "e"]),
        (r"\href{x}{y} \hyperref{x} \refl{x} \reflect{x} \nocite{z}", ("is_reference",), ["x", "z"]),
        ("as in [@knuth84; @lamport] and [-@doe, p. 3]", ("is_reference",), ["knuth84; @lamport", "doe, p. 3"]),
        (r"\title[short]{A {nested} title} \section*{One} \intersection{no}", ("is_title",), ["A {nested} title", "One"]),
        (r"% \title{no}" + "\n" + r"\title{yes} \titlepage{no}", ("is_title",), ["yes"]),
        (r"\author{Ann \and Bob}", ("is_author",), [r"Ann \and Bob"]),
        (r"\begin{abstract}We $x$.\end{abstract} more", ("is_abstract",), ["We $x$."]),
        (r"\begin{abstract}We were cut", ("is_abstract",), ["We were cut"]),
        (r"\abstract{Short.}", ("is_abstract",), ["Short."]),
        (r"\title{never closed", FEATURES, []),
    ],
)  # fmt: skip
def test_by_hand(text: str, labels: tuple[str, ...], expected: list[str]) -> None:
    assert found(text, *labels) == expected


def test_every_formula_is_either_inline_or_display_and_is_math() -> None:
    text = r"$a$ \[b\] \begin{gather}c\end{gather} \(d\)"
    assert found(text, "is_inline_math") == ["a", "d"]
    assert found(text, "is_display_math") == ["b", "c"]
    assert found(text, "is_math") == ["a", "b", "c", "d"]


PANDOC = """---
abstract: |
    We count herons $n^{2}$ times.

    Then we rest.
author:
- Ada Marsh
- 'Ben Reed'
bibliography:
- birds.bib
title: 'On herons: a study'
---

Introduction
============

title: not in the header. See [@marsh].
"""


def test_header_of_pandoc() -> None:
    assert found(PANDOC, "is_title") == ["On herons: a study"]
    assert found(PANDOC, "is_author") == ["Ada Marsh\n- 'Ben Reed"]
    assert found(PANDOC, "is_abstract") == ["We count herons $n^{2}$ times.\n\n    Then we rest."]
    assert found(PANDOC, "is_reference") == ["marsh"]
    assert found(PANDOC, "is_superscript") == ["2"]
    assert found("title: Alone", "is_title") == ["Alone"]
    assert found("Some prose.\ntitle: late", "is_title") == []
    assert found("title:\nauthor: \n", "is_title", "is_author") == []


TERMS = st.recursive(
    st.sampled_from(["a", "+b", "\\alpha ", "\\{c\\}", "\\text{if $d$}", "e\\_f"]).map(lambda text: (text, [])),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: shift("\\frac{", two, ("is_numerator", "is_denominator"))),
        inner.map(lambda one: shift("x^{", (one,), ("is_superscript",))),
        inner.map(lambda one: shift("x_{", (one,), ("is_subscript",))),
        st.tuples(inner, inner).map(lambda two: shift("", two, None)),
    ),
    max_leaves=6,
)


def shift(head: str, parts: tuple, labels: tuple[str, ...] | None) -> tuple[str, list[tuple[int, int, str]]]:
    """Text of a term that is made of others, and its spans: the expected answer is written together with the question."""
    text, spans = head, []
    for i, (inner, inner_spans) in enumerate(parts):
        if labels and i:
            text += "{"
        spans += [(start + len(text), end + len(text), label) for start, end, label in inner_spans]
        if labels:
            spans.append((len(text), len(text) + len(inner), labels[i]))
        text += inner + ("}" if labels else "")
    if head == "\\frac{":
        spans.append((0, len(text), "is_frac"))
    return text, spans


FORMULA = st.sampled_from(
    [
        ("$", "$"),
        ("\\(", "\\)"),
        ("$$", "$$"),
        ("\\[", "\\]"),
        ("\\begin{align*}", "\\end{align*}"),
        ("\\begin{gather}", "\\end{gather}"),
    ]
)
FILLER = st.sampled_from(
    [
        "",
        "words, ",
        "\\$3 \\% \\{ \\\\[2pt] ",
        "% a $ comment {\n",
        "\\verb+$+",
        "\n\n",
        "} ",
        "\\begin{verbatim}$ {\\end{verbatim}",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FILLER, FORMULA, TERMS), max_size=5))
def test_by_construction(parts: list) -> None:
    text, expected = "", []
    for filler, (opener, closer), (inner, spans) in parts:
        text += filler + " " + opener
        begin, end = len(text), len(text) + len(inner)
        kind = "is_inline_math" if opener in ("$", "\\(") else "is_display_math"
        expected += [(begin, end, kind), (begin, end, "is_math")]
        expected += [(begin + start, begin + stop, label) for start, stop, label in spans]
        text += inner + closer
    assert latex_spans(text) == sorted(set(expected))


COMMANDS = (
    "$$ \\( \\) \\[ \\] \\frac \\cite \\ref{ \\title{ \\author \\section*{ \\begin{abstract} \\end{abstract} \\begin{align} "
    "\\end{align} \\begin{equation*} \\end{equation*} \\begin{verbatim} \\end{verbatim} \\verb| \\text{ title: author: [@"
)
MARKUP = st.lists(
    st.sampled_from([*"{}$^_%\\ \n[]()@:-a1'é\x00\ud800", "\n\n", "---\n", *COMMANDS.split()]), max_size=60
).map("".join)


@settings(max_examples=400, deadline=None)
@given(MARKUP)
def test_any_text(text: str) -> None:
    spans = latex_spans(text)
    assert all(0 <= start < end <= len(text) and label in FEATURES for start, end, label in spans)
    assert spans == sorted(set(spans))
    of = {label: [(s.start, s.end) for s in spans if s.label == label] for label in FEATURES}

    def inside(span: tuple[int, int], label: str) -> bool:
        return any(start <= span[0] and span[1] <= end for start, end in of[label])

    assert all(inside(span, "is_frac") for span in of["is_numerator"] + of["is_denominator"])
    assert all(inside(span, "is_math") for span in of["is_superscript"] + of["is_subscript"])
    formulas = sorted(of["is_inline_math"] + of["is_display_math"])
    assert formulas == of["is_math"]
    assert all(a[1] <= b[0] for a, b in pairwise(formulas))
    assert all(0 <= s.start < s.end <= len(text) and s.label in FEATURES for s in paper_latex_spans(text))


@pytest.mark.parametrize(
    "piece",
    ["$", "{", "\\frac{", "\\text{$", "\\cite[", "\\cite{", "\\[a:", "[@", "^\\a", "\\begin{align}", "\\verb|a", "title:\n", "\n ",
     "\\begin{verbatim}", "$$a$", "author:", "\\ref", "a%", "\\end{x", "^{", "_{"],
)  # fmt: skip
def test_long_text_of_one_piece(piece: str) -> None:
    text = piece * 10_000  # hangs if anything is quadratic
    assert all(span.end <= len(text) for span in latex_spans(text))
    assert all(span.end <= len(text) for span in paper_latex_spans(text))


def paper_found(text: str, label: str) -> list[str]:
    return [text[span.start : span.end] for span in paper_latex_spans(text) if span.label == label]


def test_paper_rules_of_labels() -> None:
    assert paper_found(PANDOC, "is_title") == ["On herons: a study"]
    assert paper_found(PANDOC, "is_author") == ["\n- Ada Marsh\n- 'Ben Reed'\n"]
    assert paper_found(PANDOC, "is_abstract")[0].startswith(" |\n    We count")
    assert paper_found(PANDOC, "is_reference") == ["marsh"]
    text = r"x_{a_{b}} \frac{c}{d} \frac{\sqrt{e}}{f} $g$ \$ $$h$$ \[i\] \cite{j}"
    assert paper_found(text, "is_subscript") == ["a_{b"]  # the first closing brace ends it, formula or not
    assert paper_found(text, "is_frac") == ["{c}{d}"]
    assert (paper_found(text, "is_numerator"), paper_found(text, "is_denominator")) == (["c"], ["d"])
    assert (paper_found(text, "is_inline_math"), paper_found(text, "is_display_math")) == (["g"], ["h"])
    assert paper_found(text, "is_math") == ["g", "h"]
    assert paper_found(text, "is_reference") == []
    assert not paper_eligible("one $") and paper_eligible("two $$")


@pytest.mark.parametrize(
    ("label", "length", "kept"),
    [
        ("title", 49, 49),
        ("title", 51, 50),
        ("author", 199, 199),
        ("author", 200, 75),
        ("abstract", 399, 399),
        ("abstract", 400, 250),
    ],
)
def test_paper_caps(label: str, length: int, kept: int) -> None:
    blank = 1 if label == "title" else 0  # a title begins behind its blank, a block with it
    text = f"{label}: ".removesuffix(" " * (1 - blank)) + "v" * length + ("\ndate: today" if label == "title" else "")
    assert [len(value) for value in paper_found(text, f"is_{label}")] == [kept]


SECTIONS = ("Herons", "Reeds", "Mud", "Tides", "Eggs", "Nests", "Wind", "Salt", "Frost", "Silt", "Ice", "Fog")


def book(number: int, name: str) -> str:
    return (
        f"\\section{{{name}}} Let $x_{{{number}}} = y^{{{number}}}$ as in \\cite{{key{number}}}, so that\n"
        f"\\[ \\frac{{a_{number}}}{{b + {number}}} \\]\nholds by \\author{{Ada Marsh}}."
    )


def write(folder: Path, file: str, rows: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"r{i}",
            "doc": f"d{i // 2}",
            "text": book(i, name),
            "distribution": "latex",
            "source": "marsh/book",
            "license": "CC0",
        }
        for i, name in enumerate(SECTIONS)
    ]
    rows.append({"id": "p", "doc": "p", "text": "prose with $x$", "distribution": "fiction"})
    rows.append({"id": "odd", "doc": "odd", "text": "It cost $3.\n\n\\section{Price} $x$", "distribution": "latex"})
    write(tmp_path / "c", "train.jsonl", rows[:6])
    write(tmp_path / "c", "test.jsonl", rows[6:])
    return tmp_path / "c"


def test_builder(corpus: Path) -> None:
    seen: list[int] = []
    labelled = latex(corpus, BuildOptions(progress=seen.append))
    assert sum(seen) == 14
    assert labelled.level == "token" and not labelled.only_spanned_tokens
    assert [d.id for d in labelled.documents] == [*(f"r{i}" for i in range(12)), "odd"]
    assert [d.split for d in labelled.documents[5:7]] == [Split.TRAIN, Split.TEST]
    assert (labelled.documents[3].group, labelled.documents[3].source, labelled.documents[3].licence) == (
        "d1",
        "marsh/book",
        "CC0",
    )
    assert set(FEATURES) - set(labelled.features) == {"is_author", "is_abstract"}
    assert [note.split()[0] for note in labelled.notes] == ["is_author", "is_abstract"]
    assert "1 different text" in labelled.notes[0]
    assert labelled.hard_negatives == MIRRORED and all(MIRRORED[MIRRORED[f]] == f for f in MIRRORED)
    first = labelled.documents[0]
    assert {first.text[s.start : s.end] for s in first.spans if s.label == "is_title"} == {"Herons"}


def test_builder_draws_the_same_rows_for_a_seed(corpus: Path) -> None:
    def ids(seed: int) -> list[str]:
        return [d.id for d in latex(corpus, BuildOptions(seed=seed, most=11)).documents]

    assert ids(0) == ids(0) and len(ids(0)) == 11
    assert len({tuple(ids(seed)) for seed in range(8)}) > 1


def test_builder_with_the_papers_rules(corpus: Path) -> None:
    labelled = latex(corpus, BuildOptions(paper_rules=True))
    assert "odd" not in [d.id for d in labelled.documents]  # three dollars
    assert {d.split for d in labelled.documents} == {None}
    assert (
        labelled.rules["max_rows"] == 20_000
        and labelled.rules["full_windows_only"]
        and labelled.rules["skip_first"] == 6
    )
    assert "is_title" not in labelled.features and "is_subscript" in labelled.features
    assert "is_display_math" not in labelled.features and "is_display_math" not in labelled.hard_negatives


def test_corpus_that_does_not_say_what_is_latex(tmp_path: Path) -> None:
    rows = [{"text": book(i, name)} for i, name in enumerate(SECTIONS)] + [
        {"text": "It costs $3 or $4."},
        {"text": "x"},
    ]
    write(tmp_path / "c", "texts.jsonl", rows)
    assert len(latex(tmp_path / "c", BuildOptions()).documents) == len(SECTIONS)


def test_corpus_without_latex(tmp_path: Path) -> None:
    write(tmp_path / "c", "train.jsonl", [{"id": "1", "doc": "1", "text": "It costs $3 or $4."}])
    with pytest.raises(InputError, match=r"holds no LaTeX \(0 rows"):
        latex(tmp_path / "c", BuildOptions())


def count(labelled: LabelledText) -> Counter[str]:
    return Counter(span.label for document in labelled.documents for span in document.spans)


@pytest.mark.real_data
def test_real_books(real_data: Path) -> None:
    labelled = latex(real_data / "corpus", BuildOptions(most=400))
    assert len(labelled.documents) == 400
    assert set(FEATURES) - set(labelled.features) == {
        "is_author",
        "is_abstract",
    }  # one author's name; books have no abstracts
    counts = count(labelled)
    assert all(counts[feature] >= 250 for feature in labelled.features)
    long = [s for d in labelled.documents for s in d.spans if s.label == "is_inline_math" and s.end - s.start > 500]
    assert len(long) <= 2  # a scanner that has lost its way labels prose between formulas
