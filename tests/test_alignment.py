"""Characters to tokens: seven families of tokenizers, random Unicode, and a slow second opinion on every rule."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from sparse_probing.datasets.align import label_by_pattern, label_tokens, stretches_of, tokens_in
from sparse_probing.datasets.backends import FastBackend, TokenizedText
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.labelled_text import Document, LabelledText, Level, Span
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.text_tokenizer import TextTokenizer, tokenize
from sparse_probing.records import POOLINGS, Pooling

LINES = [
    "A grey heron stood in the shallows, and 42 minnows swam past its feet.",
    "Über den Dächern lag Nebel; die Straße war leer.",
    "L’été dernier, nous avons mangé des crêpes à la plage.",
    "Старый мост скрипел, когда по нему шёл поезд.",
    "雨が降る前に、傘を持って出かけた。",
    "今天下午我们在河边喝茶。",
    "كان البيت هادئا في الصباح",
    "הספר היה על השולחן",
    "Café 🧑🏽‍🚀 and naïve résumé 👍🏿 \t done\n",
]

# ---- tokenizers ----------------------------------------------------------------------------------------------------


def _byte_level(*, prefix: bool, trim: bool, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    return backend


def _with_byte_tokens(backend: Tokenizer) -> Tokenizer:
    """Byte fallback, as SentencePiece writes it: 256 tokens `<0xNN>` in the vocabulary, none of them special."""
    written = json.loads(backend.to_str())
    vocabulary = written["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    written["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(written))


def _llama(*, legacy: bool) -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], limit_alphabet=40, show_progress=False
    )
    backend.train_from_iterator(LINES, trainer)
    return _with_byte_tokens(backend)


def _unigram() -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(LINES, trainer)
    return backend


def _wordpiece() -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    backend.train_from_iterator(
        LINES, trainers.WordPieceTrainer(vocab_size=250, special_tokens=special, show_progress=False)
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return backend


def _word_level() -> Tokenizer:
    backend = Tokenizer(models.WordLevel(unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(LINES, trainers.WordLevelTrainer(special_tokens=["?"], show_progress=False))
    return backend


def _digits_apart() -> Tokenizer:
    backend = _byte_level(prefix=False, trim=False, normalizer=normalizers.NFC())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}|\s+(?!\S)|\s?\p{L}+|\s+|[^\s\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.add_tokens([AddedToken("  ", normalized=False), AddedToken("<|x|>", special=True, rstrip=True)])
    return backend


BUILDERS: dict[str, tuple[Callable[[], Tokenizer], int | None, int | None]] = {
    "byte-level BPE": (lambda: _byte_level(prefix=False, trim=False), 0, None),
    "byte-level BPE, prefix space, trimmed": (lambda: _byte_level(prefix=True, trim=True), 0, 1),
    "byte-level BPE, prefix space": (lambda: _byte_level(prefix=True, trim=False), None, None),
    "byte-level BPE, trimmed": (lambda: _byte_level(prefix=False, trim=True), None, 1),
    "byte-level BPE, NFC, digits apart": (_digits_apart, None, None),
    "Llama, legacy normalizer": (lambda: _llama(legacy=True), 1, None),
    "Llama, Metaspace": (lambda: _llama(legacy=False), 1, 2),
    "Unigram": (_unigram, None, 1),
    "WordPiece": (_wordpiece, 1, 2),
    "WordLevel": (_word_level, None, None),
}
"""Tokenizer, BOS, closing token."""


@cache
def tokenizer_called(name: str) -> TextTokenizer:
    build, bos, closing = BUILDERS[name]
    front, behind = (() if token is None else (token,) for token in (bos, closing))
    return TextTokenizer(backend=FastBackend(build()), front=front, behind=behind)


UNKNOWN = {"Llama": "<unk>", "Unigram": "<unk>", "WordPiece": "[UNK]", "WordLevel": "?"}

every_tokenizer = pytest.mark.parametrize("name", list(BUILDERS))

some_text = st.one_of(
    st.text(
        alphabet=st.one_of(
            st.sampled_from(
                "abc éßñÅ ﬁ½ 漢字かなヴ مرحبا שלום \u0301\u0323\u200d\u200f🏽🧑🚀\ufe0f\t\n\r  .,'\u00a0\u2028\x07"
            ),
            st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
        ),
        min_size=1,
        max_size=30,
    ),
    st.lists(
        st.sampled_from(
            [*LINES[0].split(), *LINES[1].split(), "  ", "\n", "a\u0323\u0301", "🧑🏽‍🚀", "👍🏿", "<|x|>", "漢字"]
        ),
        min_size=1,
        max_size=8,
    ).map(" ".join),
)


@st.composite
def labelled_texts(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """A text with spans that overlap, nest, touch, or are equal."""
    text = draw(some_text)
    places = st.integers(0, len(text))
    bounds = draw(st.lists(st.tuples(places, places, st.sampled_from("xyz")), max_size=6))
    cuts = sorted(draw(st.sets(places, max_size=5)))
    spans = [Span(min(a, b), max(a, b), label) for a, b, label in bounds if a != b]
    spans += [Span(a, b, "word") for a, b in pairwise(cuts)]  # adjacent, as in a treebank
    return text, spans


# ---- a slow second opinion -----------------------------------------------------------------------------------------


def characters(tokens: TokenizedText, i: int) -> set[int]:
    return set(range(int(tokens.starts[i]), int(tokens.ends[i])))


def overlapping(tokens: TokenizedText, span: tuple[int, int]) -> list[int]:
    return [i for i in range(len(tokens.ids)) if characters(tokens, i) & set(range(*span))]


def slow_labels(tokens: TokenizedText, spans: Sequence[Span], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """A token carries the labels of every stretch that it overlaps, unless it also overlaps one that ends before that begins."""
    carried = np.zeros((len(tokens.ids), len(labels)), dtype=bool)
    touched = np.zeros(len(tokens.ids), dtype=bool)
    for i in range(len(tokens.ids)):
        met = [span for span in spans if characters(tokens, i) & set(range(span.start, span.end))]
        for span in met:
            if not any(other.end <= span.start for other in met):
                touched[i] = True
                if span.label in labels:
                    carried[i, labels.index(span.label)] = True
    return carried, touched


def slow_ragged(tokens: TokenizedText, span: tuple[int, int], text: str) -> bool:
    own = overlapping(tokens, span)
    outside = set().union(*(characters(tokens, i) for i in (own[0], own[-1]))) - set(range(*span)) if own else set()
    return any(text[c].strip() for c in outside)


def in_order(tokens: TokenizedText) -> bool:
    seen = tokens.ends > tokens.starts
    return bool((np.diff(tokens.starts[seen]) >= 0).all() and (np.diff(tokens.ends[seen]) >= 0).all())


def check_alignment(tokenizer: TextTokenizer, text: str, spans: list[Span]) -> None:
    (tokens,) = tokenize(tokenizer, [text])
    assert tokens.ends.max(initial=0) <= len(text)
    stretches = stretches_of(tokens, spans)
    bounds = sorted({(s.start, s.end) for s in spans})
    assert [tuple(b) for b in stretches.bounds.tolist()] == bounds
    for i, bound in enumerate(bounds):
        own = overlapping(tokens, bound)
        assert np.flatnonzero(tokens_in(tokens, *bound)).tolist() == own
        between = range(stretches.first[i], stretches.last[i])
        assert not in_order(tokens) or [t for t in between if characters(tokens, t)] == own
        if own:
            assert (stretches.first[i], stretches.last[i]) == (own[0], own[-1] + 1)
        else:
            assert stretches.first[i] == stretches.last[i]
        assert set(stretches.labels[i]) == {s.label for s in spans if (s.start, s.end) == bound}
    assert stretches.ragged(tokens, text) == sum(slow_ragged(tokens, bound, text) for bound in bounds)
    if not in_order(tokens):
        return  # see test_blanks_that_two_added_tokens_claim
    labels = ("x", "word", "y")
    carried, touched = label_tokens(tokens, stretches, {name: i for i, name in enumerate(labels)})
    slow_carried, slow_touched = slow_labels(tokens, spans, labels)
    np.testing.assert_array_equal(carried, slow_carried)
    np.testing.assert_array_equal(touched, slow_touched)


@every_tokenizer
@settings(max_examples=60, deadline=None)
@given(case=labelled_texts())
def test_tokens_labels_and_ragged_stretches_equal_the_slow_rule(name: str, case: tuple[str, list[Span]]):
    check_alignment(tokenizer_called(name), *case)


@cache
def _pythia(folder: Path) -> TextTokenizer:
    return TextTokenizer(
        backend=FastBackend(Tokenizer.from_file(str(folder / "pythia_tokenizer" / "20B_tokenizer.json"))), front=(0,)
    )


@pytest.mark.real_data
@settings(max_examples=200, deadline=None)
@given(case=labelled_texts())
def test_the_same_with_the_pythia_tokenizer(real_data: Path, case: tuple[str, list[Span]]):
    check_alignment(_pythia(real_data), *case)


def test_the_families_are_what_they_claim():
    """Byte fallback, unknown tokens, dropped characters, leading blanks: each occurs in the matrix."""

    def tokens_of(name: str, text: str) -> list[str]:
        return BUILDERS[name][0]().encode(text, add_special_tokens=False).tokens

    assert tokens_of("Llama, legacy normalizer", "ﷺ")[-3:] == ["<0xEF>", "<0xB7>", "<0xBA>"]
    assert tokens_of("Llama, Metaspace", "a")[0].startswith("▁")
    assert tokens_of("Unigram", "ﬀ") == tokens_of("Unigram", "ff")  # NFKC: one character, two of the normalized text
    assert "".join(tokens_of("WordPiece", "ÜBER\x07")).replace("##", "") == "uber"
    assert tokens_of("WordLevel", "heron ᚠ") == ["heron", "?"]
    for name in BUILDERS:
        unknown = next((word for family, word in UNKNOWN.items() if name.startswith(family)), None)
        tokenizer = tokenizer_called(name)
        assert tokenizer.unknown_id() == (None if unknown is None else tokenizer.backend.id_of(unknown))


def test_blanks_that_two_added_tokens_claim():
    """An added token with `rstrip` (Phi-3's) before an added token of two blanks (Pythia's): offsets that go backwards.

    The stretch then runs from the first to the last token that overlaps: nothing is lost, a token between them comes along.
    """
    tokenizer = replace(tokenizer_called("byte-level BPE, NFC, digits apart"), control=True)
    (tokens,) = tokenize(tokenizer, ["<|x|>    st"])
    assert list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True))[:3] == [(0, 9), (5, 7), (7, 9)]
    stretches = stretches_of(tokens, [Span(5, 6, "x"), Span(8, 10, "y"), Span(2, 4, "z"), Span(9, 11, "x")])
    assert stretches.bounds[:, 0].tolist() == [2, 5, 8, 9]
    assert stretches.first.tolist() == [0, 0, 0, 3]
    assert stretches.last.tolist() == [1, 2, 4, len(tokens.ids)]


def test_a_nested_stretch_does_not_give_its_token_back():
    """`ab` belongs to the first word; the second word and the phrase that begins with it do not overlap that one."""
    tokens = TokenizedText(
        ids=np.arange(2), starts=np.array([0, 2], dtype=np.int32), ends=np.array([2, 3], dtype=np.int32)
    )
    spans = [Span(0, 1, "word"), Span(1, 2, "word"), Span(1, 3, "phrase")]
    carried, _ = label_tokens(tokens, stretches_of(tokens, spans), {"word": 0, "phrase": 1})
    assert carried.tolist() == [[True, False], [False, True]]


def test_a_tokenizer_file_that_asks_for_truncation_loses_no_text():
    backend = _word_level()
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    (tokens,) = tokenize(TextTokenizer(backend=FastBackend(backend), front=()), [LINES[0]])
    assert len(tokens.ids) == len(_word_level().encode(LINES[0]).ids) > 10


@every_tokenizer
@settings(max_examples=30, deadline=None)
@given(text=some_text)
def test_patterns_see_each_character_that_a_token_covers_and_the_gap_before(name: str, text: str):
    (tokens,) = tokenize(tokenizer_called(name), [text])
    patterns = {"blank": r"\A\s", "long": r"\A.{2,}\Z", "capital": r"[A-Z]"}
    found = label_by_pattern(tokens, text, patterns)
    for i in range(len(tokens.ids)):
        begin = min(int(tokens.ends[i - 1]) if i else 0, int(tokens.starts[i]))
        own = text[begin : int(tokens.ends[i])]
        assert found[i].tolist() == [re.search(pattern, own) is not None for pattern in patterns.values()]


# ---- whole data sets -----------------------------------------------------------------------------------------------


def labelled_lines(level: Level) -> LabelledText:
    """Every stretch between blanks is a span, and so is the tab, a control character and two words at once."""
    documents = []
    for i in range(24):
        text = " ".join([LINES[i % 8], f"{i}\x07", LINES[(i * 3 + i // 8 + 1) % 9], f"ᚠ{i}"])
        spans = [Span(at, at + 1, "odd") for at, c in enumerate(text) if c in "\t\x07"]
        begin = 0
        for n, word in enumerate(text.split(" ")):
            if word.strip():
                spans.append(Span(begin, begin + len(word), "even" if n % 2 else "odd"))
                if n % 7 == 0:
                    spans.append(Span(begin, min(len(text), begin + len(word) + 3), "more"))
            begin += len(word) + 1
        documents.append(Document(id=str(i), text=text, group=str(i), spans=tuple(spans)))
    return LabelledText(
        category="c", features=("odd", "even"), level=level, documents=tuple(documents), near_duplicates="count",
        contrasts={"odd": ("even",), "even": ("odd",)},
    )  # fmt: skip


WHOLE = SamplingRules(window=400, skip_first=0, max_rows=10_000, sampling="natural", min_rows=1)


def slow_counts(tokenizer: TextTokenizer, labelled: LabelledText) -> Counter[str]:
    counts: Counter[str] = Counter()
    for document in labelled.documents:
        (tokens,) = tokenize(tokenizer, [document.text])
        counts["tokens"] += len(tokens.ids)
        counts["unknown_tokens"] += tokens.ids.tolist().count(tokenizer.unknown_id())
        for bound in {(s.start, s.end) for s in document.spans}:
            own = overlapping(tokens, bound)
            counts["stretches"] += 1
            counts["without_token"] += not own
            counts["several_tokens"] += len(own) > 1
            counts["ragged"] += slow_ragged(tokens, bound, document.text)
    return counts


def tokens_of_row(dataset: FeatureDataset, row: int) -> tuple[str, list[int]]:
    """Text of the row's document; positions of its tokens in the arrays."""
    sequence = int(dataset.row_sequence[row])
    begin = int(dataset.sequence_starts[sequence])
    assert begin + dataset.row_last[row] <= dataset.sequence_starts[sequence + 1]
    text = dataset.texts[dataset.sequence_document[sequence]]
    return text, [begin + p for p in range(dataset.row_first[row], dataset.row_last[row])]


@every_tokenizer
def test_rows_of_spans_hold_the_tokens_of_a_span_and_nothing_is_lost_in_silence(name: str):
    tokenizer, labelled = tokenizer_called(name), labelled_lines("span")
    dataset = build_feature_dataset(labelled, tokenizer, WHOLE, np.random.default_rng(0))
    alignment = dataset.alignments["c"]
    slow = slow_counts(tokenizer, labelled)
    assert {count: getattr(alignment, count) for count in slow} == slow
    assert alignment.several_tokens > 0
    assert alignment.without_token > 0 or name != "WordPiece"  # which drops control characters
    assert any("no token covers them" in note for note in dataset.notes.get("c", ())) == (alignment.without_token > 0)
    labels: dict[tuple[str, tuple[int, ...]], set[str]] = {}  # text, ids of tokens of a stretch -> labels
    for document in labelled.documents:
        (tokens,) = tokenize(tokenizer, [document.text])
        for span in document.spans:
            if own := overlapping(tokens, span[:2]):
                labels.setdefault((document.text, tuple(range(own[0], own[-1] + 1))), set()).add(span.label)
    met = set()
    for row in range(dataset.n_rows):
        text, places = tokens_of_row(dataset, row)
        (tokens,) = tokenize(tokenizer, [text])
        shift = int(dataset.sequence_starts[dataset.row_sequence[row]]) + len(tokenizer.front)
        own = [place - shift for place in places]
        assert dataset.tokens[places].tolist() == tokens.ids[own].tolist()
        assert dataset.char_starts[places].tolist() == tokens.starts[own].tolist()
        assert dataset.char_ends[places].tolist() == tokens.ends[own].tolist()
        met.add((text, tuple(own)))
        assert {f for f, yes in zip(dataset.features, dataset.positive[row], strict=True) if yes} <= labels[
            text, tuple(own)
        ]
    assert met == {key for key, names in labels.items() if names & {"odd", "even"}}
    assert (dataset.row_pooling == POOLINGS.index(Pooling.MEAN)).all()


@every_tokenizer
def test_rows_of_tokens_carry_the_labels_of_the_slow_rule(name: str):
    tokenizer, labelled = tokenizer_called(name), labelled_lines("token")
    dataset = build_feature_dataset(labelled, tokenizer, WHOLE, np.random.default_rng(0))
    lengths = {d.text: len(tokenize(tokenizer, [d.text])[0].ids) for d in labelled.documents}
    assert dataset.sequence_lengths().tolist() == [
        lengths[dataset.texts[d]] + len(tokenizer.front) + len(tokenizer.behind) for d in dataset.sequence_document
    ]
    rows = {}
    for row in range(dataset.n_rows):
        text, (place,) = tokens_of_row(dataset, row)
        number = place - int(dataset.sequence_starts[dataset.row_sequence[row]]) - len(tokenizer.front)
        rows[text, number] = dataset.positive[row]
    for document in labelled.documents:
        (tokens,) = tokenize(tokenizer, [document.text])
        carried, _ = slow_labels(tokens, document.spans, dataset.features)
        expected = {(document.text, int(i)): carried[i].tolist() for i in np.flatnonzero(carried.any(axis=1))}
        assert {key: value.tolist() for key, value in rows.items() if key[0] == document.text} == expected
    front, back = dataset.sequence_starts[:-1], dataset.sequence_starts[1:] - 1
    if tokenizer.front:
        assert (dataset.tokens[front] == tokenizer.front[0]).all()
        assert (dataset.char_starts[front] == -1).all()
    if tokenizer.behind:
        assert (dataset.tokens[back] == tokenizer.behind[0]).all()
        assert (dataset.char_ends[back] == -1).all()
