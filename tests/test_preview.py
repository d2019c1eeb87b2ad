"""The preview marks exactly the tokens of a row, whatever stands in the text, in the terminal and as a page."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from sparse_probing.activations.models import outline_model
from sparse_probing.cli.preview import print_preview
from sparse_probing.datasets.backends import FastBackend
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.feature_dataset import FeatureDataset, concatenate
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.sources.demo_corpus import demo_categories
from sparse_probing.datasets.text_tokenizer import TextTokenizer, tokenize
from sparse_probing.pages.visible import END_ISOLATE, ISOLATE, isolated, visible
from sparse_probing.studies.datasheet.page import write_preview
from sparse_probing.studies.datasheet.preview import MARKED, Piece, PreviewRow, pieces_of, preview_rows, visible_bounds

EVIL = "<script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def bpe(tokenizer: PreTrainedTokenizerFast) -> TextTokenizer:
    return TextTokenizer(backend=FastBackend(tokenizer.backend_tokenizer), front=(0,))


@pytest.fixture(scope="module")
def demo() -> FeatureDataset:
    tokenizer, rng = outline_model("demo").tokenizer, np.random.default_rng(0)
    return concatenate(
        [build_feature_dataset(t, tokenizer, SamplingRules(window=128), rng) for t in demo_categories()[1:]]
    )


def spanned(
    tokenizer: TextTokenizer, texts: list[str], marked: list[str], level: Literal["span", "token"]
) -> FeatureDataset:
    """Each text with one span per marked word, labelled by its number."""
    documents = tuple(
        Document(
            id=f"[red]{i}",
            text=text,
            group=str(i),
            spans=tuple(Span(text.index(m), text.index(m) + len(m), f"[b]{j}") for j, m in enumerate(marked)),
        )
        for i, text in enumerate(texts)
    )
    features = tuple(f"[b]{j}" for j in range(len(marked)))
    labelled = LabelledText(
        category=f"c {EVIL}", features=features, level=level, documents=documents, near_duplicates="count"
    )
    rules = SamplingRules(window=128, skip_first=0, min_rows=1)
    return build_feature_dataset(labelled, tokenizer, rules, np.random.default_rng(0))


def number_words(n: int) -> list[str]:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    return [names[int(d)] for d in str(n)]


def some_texts(middle: str) -> list[str]:
    return [f"{' '.join(number_words(i * 37))} {middle} and {' '.join(number_words(i * 91))}." for i in range(30)]


def printed(rows: list[PreviewRow], *, terminal: bool = False) -> str:
    file = io.StringIO()
    color = "standard" if terminal else None
    print_preview(rows, Console(file=file, force_terminal=terminal, width=80, color_system=color))
    return file.getvalue()


def test_marked_text_is_the_text_between_the_offsets(demo):
    for row in preview_rows(demo, n=200, rng=np.random.default_rng(1)):
        text = demo.texts[demo.document_ids.index(row.document)]
        marked = "".join(piece.text for piece in row.pieces)
        shown = row.before + marked + row.after
        assert shown in text
        found = [
            r
            for r in range(demo.n_rows)
            if demo.document_ids[demo.sequence_document[demo.row_sequence[r]]] == row.document
            and demo.row_group[r] == row.group
        ]
        ends = set()
        for r in found:
            begin = demo.sequence_starts[demo.row_sequence[r]]
            first, last = begin + demo.row_first[r], begin + demo.row_last[r] - 1
            ends.add(text[demo.char_starts[first] : demo.char_ends[last]])
        assert any(end.startswith(marked) and len(end) == len(marked) + row.hidden for end in ends)
        assert len(marked) <= MARKED + 40
        assert all(1 <= piece.tokens <= piece.of for piece in row.pieces)


def test_bytes_of_an_emoji_are_one_piece(bpe):
    dataset = spanned(bpe, some_texts("x🙂y"), ["🙂", "and"], "span")
    rows = preview_rows(dataset, n=60, rng=np.random.default_rng(0))
    emoji = [row for row in rows if ("[b]0", True) in row.labels]
    assert len(emoji) == 30
    assert {row.pieces for row in emoji} == {(Piece(text="🙂", tokens=4, of=4),)}
    assert all(row.before.endswith("x") and row.after.startswith("y") for row in emoji)
    assert "⟦🙂×4⟧" in printed(emoji[:1])


def test_one_byte_of_an_emoji_says_so(bpe):
    dataset = spanned(bpe, some_texts("x🙂y"), ["🙂", "and"], "token")
    rows = [r for r in preview_rows(dataset, n=500, rng=np.random.default_rng(0)) if ("[b]0", True) in r.labels]
    assert {row.pieces for row in rows} == {(Piece(text="🙂", tokens=1, of=4),)}
    assert "⟦🙂×1/4⟧" in printed(rows[:1])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(0, 40), st.integers(1, 8))
def test_pieces_join_to_the_text_between_the_offsets(tokenizer, text, first, many):
    backend = TextTokenizer(backend=FastBackend(tokenizer.backend_tokenizer), front=())
    (tokens,) = tokenize(backend, [text])
    window = np.stack([tokens.starts, tokens.ends], axis=1).astype(int)
    row = visible_bounds(window[first : first + many])
    pieces = list(pieces_of(text, row, visible_bounds(window)))
    assert "".join(p.text for p in pieces) == (text[row[:, 0].min() : row[:, 1].max()] if len(row) else "")
    assert sum(p.tokens for p in pieces) == len(row)
    assert all(p.of >= p.tokens for p in pieces)


def test_characters_without_token_are_shown_but_not_marked():
    row = np.array([[0, 2], [3, 5]])
    assert list(pieces_of("ab cd ef", row, np.array([[0, 2], [3, 5], [6, 8]]))) == [
        Piece(text="ab", tokens=1, of=1),
        Piece(text=" ", tokens=0, of=0),
        Piece(text="cd", tokens=1, of=1),
    ]


def test_features_take_turns_and_labels_alternate(demo):
    rows = preview_rows(demo, n=2 * len(demo.features), rng=np.random.default_rng(2))
    drawn = [row.labels[0] for row in rows]
    assert len(set(drawn)) == len(drawn) == 2 * len(demo.features)  # each feature once positive, once negative
    assert [value for _, value in drawn[: len(demo.features)]] == [i % 2 == 0 for i in range(len(demo.features))]
    for row in rows:
        assert all(value is True for _, value in row.labels[1:])
    again = preview_rows(demo, n=2 * len(demo.features), rng=np.random.default_rng(2))
    assert again == rows


def test_no_row_twice_and_all_rows_at_most(bpe):
    dataset = spanned(bpe, some_texts("red"), ["red", "and"], "span")
    rows = preview_rows(dataset, n=500, rng=np.random.default_rng(0))
    assert len(rows) == len({(row.document, row.before) for row in rows}) == dataset.n_rows
    assert preview_rows(dataset, n=0, rng=np.random.default_rng(0)) == []


def test_numbers_are_shown(bpe):
    documents = tuple(
        Document(id=str(i), text=t, group=str(i), numbers={"x": i / 4}) for i, t in enumerate(some_texts("red"))
    )
    labelled = LabelledText(
        category="c", features=(), numbers=("x",), level="document", documents=documents, near_duplicates="count"
    )
    dataset = build_feature_dataset(labelled, bpe, SamplingRules(skip_first=2, min_rows=1), np.random.default_rng(0))
    rows = preview_rows(dataset, n=3, rng=np.random.default_rng(0))
    assert [row.labels for row in rows] == [(("x", int(row.document) / 4),) for row in rows]
    assert rows[0].category == "c"
    assert f"x = {int(rows[0].document) / 4:g}" in printed(rows)


def test_visible_text():
    assert visible("a\tb\r\nc\x00\x7f\x85\u202e\u2028\ufeff\ud800 é שלום 👩\u200d👧") == (
        "a␉b␍⏎c␀␡\\u0085\\u202e\\u2028\\ufeff\\ud800 é שלום 👩\u200d👧"
    )
    assert isolated("plain é") == "plain é"
    assert isolated("a שלום") == f"{ISOLATE}a שלום{END_ISOLATE}"


def test_terminal_shows_markup_as_it_is_and_isolates_right_to_left(bpe):
    dataset = spanned(bpe, some_texts("[bold]red[/bold] :smile:\n[/] שלום"), ["red", "and"], "span")
    rows = [r for r in preview_rows(dataset, n=60, rng=np.random.default_rng(0)) if r.labels == (("[b]0", True),)]
    for terminal in (False, True):
        out = printed(rows[:1], terminal=terminal)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
        assert "[b]0: yes" in plain
        assert "document [red]" in plain
        text_line = plain.splitlines()[-1]
        assert text_line.strip().startswith(ISOLATE)
        assert text_line.endswith(END_ISOLATE)
        assert "[/bold] :smile:⏎[/] שלום" in text_line
        assert ("⟦" in text_line) is not terminal
        assert ("\x1b[" in out) is terminal
    assert "[bold]⟦" in printed(rows[:1])


def test_page_escapes_and_marks(bpe, tmp_path):
    dataset = spanned(bpe, some_texts(f"{EVIL} red"), ["red", "and"], "span")
    rows = preview_rows(replace(dataset, features=(f"{EVIL}", "<b>g</b>")), n=4, rng=np.random.default_rng(0))
    path = tmp_path / "preview.html"
    write_preview(path, rows)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;g&lt;/b&gt;" in page
    for row in rows:
        for piece in row.pieces:
            assert f"<mark>{piece.text}</mark>" in page
    chromium = shutil.which("chromium")
    if chromium is None:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 420, "height": 800})
        problems: list[str] = []
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda message: problems.append(message.text))
        tab.goto(path.as_uri())
        assert tab.locator(".preview li").count() == 4
        assert tab.locator("mark").count() == sum(len(row.pieces) for row in rows)
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
    assert problems == []
