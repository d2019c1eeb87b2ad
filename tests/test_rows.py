"""Windows, sampling, splits, rows: against slow second opinions on small cases of every kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tokenizers import Tokenizer, models, pre_tokenizers

from sparse_probing.datasets.backends import FastBackend, TokenizedText
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.draw import Draw
from sparse_probing.datasets.feature_dataset import FeatureDataset, NumberTarget, concatenate
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span, document_level_text
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.sample import sample_documents, sample_rows
from sparse_probing.datasets.splits import enough_rows, split_rows
from sparse_probing.datasets.text_tokenizer import TextTokenizer
from sparse_probing.datasets.windows import document_windows, windows_of
from sparse_probing.errors import InputError
from sparse_probing.records import POOLINGS, SPLITS, Pooling, Split

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def letters() -> TextTokenizer:
    """One token per letter, blanks are dropped: a word is a span of several tokens. BOS 26, closing token 27."""
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)} | {"<s>": 26, "</s>": 27, "?": 28}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    return TextTokenizer(backend=FastBackend(backend), front=(26,), behind=(27,))


def words_of(seed: int, n: int) -> list[str]:
    """Random words of one to six letters."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(LETTERS), rng.integers(1, 7))) for _ in range(n)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- windows -------------------------------------------------------------------------------------------------------


def tokens_of_lengths(lengths: Sequence[int]) -> TokenizedText:
    """Tokens of the given lengths in characters, one behind the other; 0 makes a token that covers nothing."""
    ends = np.cumsum(lengths, dtype=np.int32)
    return TokenizedText(ids=np.arange(len(ends)), starts=ends - np.array(lengths, dtype=np.int32), ends=ends)


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[TokenizedText, list[int], int]:
    lengths = draw(st.lists(st.integers(0, 3), max_size=40))
    breaks = draw(st.sets(st.integers(0, sum(lengths)), max_size=12))
    return tokens_of_lengths(lengths), sorted(breaks), draw(st.integers(1, 12))


def slow_cuts(text: TokenizedText, breaks: Sequence[int]) -> list[int]:
    """Tokens that hold the character of a break, or, where none does, the first behind it; not the first token of the text."""
    found = (next((i for i, end in enumerate(text.ends) if end > at), len(text.ids)) for at in breaks)
    return sorted({i for i in found if 0 < i < len(text.ids)})


@settings(deadline=None)
@given(cut_texts())
def test_without_breaks_windows_hold_every_token_once(case):
    text, _, room = case
    windows = list(windows_of(text, (), room, SamplingRules()))
    assert [t for begin, end in windows for t in range(begin, end)] == list(range(len(text.ids)))
    assert all(end - begin == room for begin, end in windows[:-1])


@settings(deadline=None)
@given(cut_texts())
def test_with_breaks_windows_hold_every_token_once_and_begin_at_breaks(case):
    text, breaks, room = case
    cuts = slow_cuts(text, breaks)
    pieces = list(pairwise([0, *cuts, len(text.ids)]))
    windows = list(windows_of(text, breaks, room, SamplingRules()))
    assert [t for begin, end in windows for t in range(begin, end)] == list(range(len(text.ids)))
    assert all(0 < end - begin <= room for begin, end in windows)
    for begin, _ in windows[1:]:
        if begin not in cuts:  # then it lies in a piece that no window could hold
            assert any(a < begin < b and b - a > room for a, b in pieces)
    for (begin, end), (_, following) in pairwise(windows):
        nearest = min((cut for cut in cuts if cut > end), default=len(text.ids))
        assert following == end or nearest - begin > room or end not in cuts  # no whole piece more would have fitted
        assert end - begin == room or end in cuts


@settings(deadline=None)
@given(cut_texts())
def test_packing_by_length_equals_the_papers(case):
    """A piece that ends before token n goes to window n // room; what exceeds the window is cropped."""
    text, breaks, room = case
    held: dict[int, list[int]] = {}
    for begin, end in pairwise([0, *slow_cuts(text, breaks), len(text.ids)]):
        held.setdefault(end // room, []).extend(range(begin, end))
    slow = [window[:room] for _, window in sorted(held.items()) if window]
    fast = list(windows_of(text, breaks, room, SamplingRules(cut_by_length=True)))
    assert [list(range(*window)) for window in fast if window[1] > window[0]] == slow


@settings(deadline=None)
@given(case=cut_texts(), by_length=st.booleans())
def test_full_windows_and_the_end_of_a_text(case, by_length: bool):
    text, breaks, room = case
    rules = SamplingRules(cut_by_length=by_length)
    every = list(windows_of(text, breaks, room, rules))
    full = list(windows_of(text, breaks, room, replace(rules, full_windows_only=True)))
    assert full == [window for window in every if window[1] - window[0] == room]
    assert list(windows_of(text, breaks, room, replace(rules, anchor="first"))) == every[:1]
    length = len(text.ids)
    for anchored in (replace(rules, anchor="end"), replace(rules, anchor="end", full_windows_only=True)):
        expected = [] if anchored.full_windows_only and length < room else [(max(0, length - room), length)]
        assert list(windows_of(text, breaks, room, anchored)) == expected
        assert list(document_windows(length, room, anchored, rng())) == expected


@settings(deadline=None)
@given(length=st.integers(0, 60), room=st.integers(1, 12), most=st.integers(1, 6), seed=st.integers(0, 99))
def test_windows_of_a_document_are_apart_and_full(length: int, room: int, most: int, seed: int):
    rules = SamplingRules(windows_per_document=most)
    windows = list(document_windows(length, room, rules, rng(seed)))
    assert len(windows) == max(1, min(most, length // room))
    assert all(a[1] <= b[0] for a, b in pairwise(windows))
    assert all(0 <= begin <= end <= length and end - begin == min(room, length) for begin, end in windows)
    assert windows == list(document_windows(length, room, rules, rng(seed)))
    full = list(document_windows(length, room, replace(rules, full_windows_only=True), rng(seed)))
    assert full == (windows if length >= room else [])


def test_every_token_of_a_document_can_be_in_its_window():
    windows = {next(document_windows(9, 4, SamplingRules(), rng(seed))) for seed in range(200)}
    assert {t for begin, end in windows for t in range(begin, end)} == set(range(9))


# ---- sampling ------------------------------------------------------------------------------------------------------


def sampled(positives: int, negatives: int, hard: int = 0, **rules: Any) -> tuple[int, int, int]:
    """Positives, negatives and hard ones among them that are drawn."""
    order = rng(1).permutation(positives + negatives + 5)  # five rows are neither
    positive = np.isin(order, range(positives))
    negative = np.isin(order, range(positives, positives + negatives))
    is_hard = np.isin(
        order, range(positives + negatives - hard, positives + negatives + 3)
    )  # rows that are no negatives, too
    chosen = sample_rows(positive, negative, is_hard, SamplingRules(**rules))
    assert len(set(chosen.tolist())) == len(chosen)
    assert (positive | negative)[chosen].all()
    return int(positive[chosen].sum()), int(negative[chosen].sum()), int((negative & is_hard)[chosen].sum())


SAMPLES = [  # positives, negatives, rules, drawn
    (400, 1600, {"sampling": "natural", "max_rows": 100}, (20, 80)),
    (30, 70, {"sampling": "natural", "max_rows": 1000}, (30, 70)),
    (15, 85, {"sampling": "natural", "max_rows": 10}, (2, 8)),  # 2 positives stand for 13 rows: more than the most
    (100, 900, {"sampling": "balanced", "max_rows": 100}, (50, 50)),
    (20, 900, {"sampling": "balanced", "max_rows": 100}, (20, 20)),
    (900, 20, {"sampling": "balanced", "max_rows": 100}, (20, 20)),
    (100, 900, {"sampling": "clipped", "max_rows": 100}, (25, 75)),  # 10 % is raised to 25 %
    (400, 600, {"sampling": "clipped", "max_rows": 100}, (40, 60)),  # as found
    (700, 300, {"sampling": "clipped", "max_rows": 100}, (50, 50)),  # 70 % is lowered to 50 %
    (90, 10, {"sampling": "clipped", "max_rows": 1000}, (10, 10)),  # also where the negatives run out
    (10, 900, {"sampling": "clipped", "max_rows": 100}, (10, 30)),
    (10, 900, {"sampling": "clipped", "max_rows": 100, "positive_share": 0.1}, (10, 90)),
    (10, 900, {"sampling": "filled", "max_rows": 100}, (10, 90)),
    (400, 900, {"sampling": "filled", "max_rows": 100, "most_positive": 0.2, "positive_share": 0.2}, (20, 80)),
    (5000, 30, {"sampling": "filled", "max_rows": 100}, (50, 30)),  # the paper's Tense_Past: 0.51 positive
]


@pytest.mark.parametrize(("positives", "negatives", "rules", "drawn"), SAMPLES)
def test_shares_and_counts_of_each_way_to_sample(positives, negatives, rules, drawn):
    assert sampled(positives, negatives, **rules)[:2] == drawn


@pytest.mark.parametrize("sampling", ["natural", "balanced", "clipped"])
def test_a_class_that_is_missing_gives_no_rows_of_the_other(sampling):
    assert sampled(0, 50, sampling=sampling, max_rows=20)[:2] == (0, 0)
    positives, negatives, _ = sampled(50, 0, sampling=sampling, max_rows=20)
    assert (positives, negatives) == ((20, 0) if sampling == "natural" else (0, 0))
    assert sampled(0, 0, sampling=sampling, max_rows=20)[:2] == (0, 0)


@settings(deadline=None)
@given(
    positives=st.integers(0, 60), negatives=st.integers(0, 60), most=st.integers(1, 80), least=st.floats(0.05, 0.5),
    sampling=st.sampled_from(["natural", "balanced", "clipped", "filled"]),
)  # fmt: skip
def test_never_more_rows_than_asked_for_and_the_share_is_kept(positives, negatives, most, least, sampling):
    p, n, _ = sampled(positives, negatives, max_rows=most, sampling=sampling, positive_share=least)
    assert p + n <= most
    if sampling == "balanced":
        assert abs(p - n) <= most % 2
    if sampling == "clipped" and p:  # to the nearest row
        assert least * (p + n) - 1 <= p <= max(0.5, least) * (p + n) + 1
    if sampling == "natural" and positives + negatives <= most and positives:
        assert (p, n) == (positives, negatives)
    if sampling == "filled":
        assert n == min(negatives, most - p)


def test_half_of_the_negatives_are_hard_and_the_rest_fill_what_is_missing():
    assert sampled(100, 900, hard=300, sampling="balanced", max_rows=100)[0:2] == (50, 50)
    assert sampled(100, 900, hard=300, sampling="balanced", max_rows=100)[2] >= 25
    assert sampled(100, 900, hard=7, sampling="balanced", max_rows=100) == (50, 50, 7)
    assert sampled(100, 60, hard=60, sampling="balanced", max_rows=100) == (50, 50, 50)
    assert sampled(100, 900, hard=0, sampling="balanced", max_rows=100) == (50, 50, 0)


@settings(deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(0, 40))
def test_documents_are_all_kept_or_balanced(seed: int, n: int):
    positive, eligible = rng(seed).random((2, n, 3)) < 0.5
    for sampling in ("natural", "clipped", "filled"):
        assert (sample_documents(positive, eligible, SamplingRules(sampling=sampling), rng(seed)) == eligible).all()
    kept = sample_documents(positive, eligible, SamplingRules(sampling="balanced"), rng(seed))
    assert not (kept & ~eligible).any()
    for f in range(3):
        counts = [int((positive[:, f] == side)[eligible[:, f]].sum()) for side in (True, False)]
        assert [int((positive[:, f] == side)[kept[:, f]].sum()) for side in (True, False)] == [min(counts)] * 2


# ---- split ---------------------------------------------------------------------------------------------------------


def plain_dataset(groups: Sequence[int], labels: np.ndarray, numbers: np.ndarray | None = None) -> FeatureDataset:
    """One sequence `group, row` for each row, so that tokens say where they come from."""
    n = len(groups)
    return FeatureDataset(
        features=tuple("fgh"[: labels.shape[1]]), categories=("c",) * labels.shape[1],
        document_ids=tuple(map(str, range(n))), texts=tuple(f"text {i}" for i in range(n)),
        tokens=np.stack([groups, np.arange(n)], axis=1).ravel(),
        char_starts=np.arange(2 * n), char_ends=np.arange(2 * n) + 1, sequence_starts=2 * np.arange(n + 1),
        sequence_document=np.arange(n), row_sequence=np.arange(n), row_first=np.ones(n, dtype=int),
        row_last=np.full(n, 2), row_pooling=np.zeros(n, dtype=int), row_group=np.array(groups, dtype=int),
        row_split=np.zeros(n, dtype=int), positive=labels > 0, eligible=labels >= 0, audits={},
        targets=() if numbers is None else (NumberTarget(name="size", category="c", values=numbers),),
    )  # fmt: skip


@settings(deadline=None)
@given(n=st.integers(1, 200), seed=st.integers(0, 99))
def test_split_by_row_has_the_share_of_the_paper_rounded_up(n: int, seed: int):
    dataset = plain_dataset([0] * n, np.zeros((n, 1)))
    rules = SamplingRules(split_by="row", fractions=(0.5, 0.2, 0.3))
    split = split_rows(dataset, [Split.TRAIN] * n, rules, rng(seed))
    assert (split == 2).sum() == ceil(0.3 * n)
    assert (split == 1).sum() == min(round(0.2 * n), n - ceil(0.3 * n))
    assert (split == split_rows(dataset, [None] * n, rules, rng(seed))).all()
    if n > 20:
        assert (split != split_rows(dataset, [None] * n, rules, rng(seed + 1))).any()


def grouped_dataset(seed: int) -> tuple[FeatureDataset, np.ndarray, np.ndarray]:
    """200 rows in 60 groups, two features at random; groups and labels."""
    groups = np.unique(rng(seed).integers(0, 60, 200), return_inverse=True)[1]
    labels = rng(seed + 1).integers(-1, 2, (200, 2))
    return plain_dataset(groups.tolist(), labels), groups, labels


@pytest.mark.parametrize("by", ["given", "group"])
def test_no_group_is_in_two_splits_and_shares_are_near(by: Any):
    given_splits = [Split.TEST] * 199 + [None]  # one row without: by group
    rules = SamplingRules(split_by=by)
    worst = []
    for seed in range(40):
        dataset, groups, labels = grouped_dataset(seed)
        split = split_rows(dataset, given_splits, rules, rng(seed))
        assert all(len(set(split[groups == g])) == 1 for g in groups)
        assert (split == split_rows(dataset, given_splits, rules, rng(seed))).all()
        shares = [
            np.bincount(split[labels[:, f] == side], minlength=3) / (labels[:, f] == side).sum()
            for f in range(2)
            for side in (0, 1)
        ]
        worst.append(np.abs(np.array(shares) - rules.fractions).max())
    assert np.median(worst) < 0.08  # groups split at random: 0.14
    assert max(worst) < 0.25


def test_validation_is_taken_from_a_prescribed_training_split():
    dataset, groups, _ = grouped_dataset(0)
    prescribed = [Split.TEST if g % 4 == 0 else Split.TRAIN for g in groups]
    split = split_rows(dataset, prescribed, SamplingRules(), rng())
    assert ((split == 2) == (groups % 4 == 0)).all()
    assert all(len(set(split[groups == g])) == 1 for g in groups)
    assert 0.2 < (split == 1).sum() / (split < 2).sum() < 0.45  # a third is wanted


@pytest.mark.parametrize(
    ("prescribed", "begins"),
    [
        ((Split.TEST,), "the data of c has rows in the test split only, by the names of its files"),
        ((Split.TRAIN, Split.VALIDATION), "the data of c has rows in the train and validation split only"),
    ],
)
def test_data_of_one_split_is_refused_with_the_cure(prescribed, begins):
    dataset, groups, _ = grouped_dataset(0)
    given = [prescribed[g % len(prescribed)] for g in groups]
    with pytest.raises(InputError, match=f"^{begins}.*--split-by group"):
        split_rows(dataset, given, SamplingRules(), rng())


def test_given_splits_win_unless_another_way_is_asked_for():
    dataset = plain_dataset(list(range(12)), np.tile([0, 1], 6)[:, None])
    prescribed = [SPLITS[i % 3] for i in range(12)]
    assert split_rows(dataset, prescribed, SamplingRules(), rng()).tolist() == [i % 3 for i in range(12)]
    by_group = split_rows(dataset, prescribed, SamplingRules(split_by="group"), rng())
    assert np.bincount(by_group).tolist() == [6, 3, 3]


def test_numbers_alone_are_balanced_over_splits():
    numbers = np.where(np.arange(80) % 2, np.nan, np.arange(80.0))
    dataset = plain_dataset(list(range(80)), np.zeros((80, 0)), numbers)
    split = split_rows(dataset, [None] * 80, SamplingRules(), rng())
    assert np.bincount(split[~np.isnan(numbers)]).tolist() == [20, 10, 10]


def test_features_and_numbers_with_too_few_rows_are_named():
    labels = np.stack([np.tile([0, 1], 30), np.repeat([1, 0], [2, 58]), np.full(60, -1)], axis=1)
    numbers = np.where(np.arange(60) < 55, np.nan, 1.0)
    dataset = replace(plain_dataset(list(range(60)), labels, numbers), row_split=np.arange(60) % 3)
    features, targets, said = enough_rows(dataset, 5)
    assert (features, targets) == ([0], [])
    assert (
        said[0]
        == "feature 'g' has 1 positive and 19 negative rows in the train split; at least 5 are needed: left out."
    )
    assert said[1].startswith("feature 'h' has 0 positive and 0 negative rows in the train split")
    assert said[2].startswith("number 'size' has 1 rows in the train split")
    with pytest.raises(
        InputError, match=r"feature 'g' has 1 positive .* \(c\); at least 5 of each are needed in every split"
    ):
        enough_rows(dataset.only(np.ones(60, dtype=bool), [1, 2], [0]), 5)
    assert enough_rows(dataset, 10)[0] == [0]
    with pytest.raises(InputError, match="feature 'f' has 10 positive and 10 negative"):
        enough_rows(dataset, 11)
    full = replace(dataset, targets=(replace(dataset.targets[0], values=np.arange(60.0)),))
    assert enough_rows(full, 10)[1] == [0]  # 20 rows in each split: as many as 10 of each class
    with pytest.raises(InputError, match="has 20 rows in the train split, which counts as 10 of each class"):
        enough_rows(full.only(np.ones(60, dtype=bool), [], [0]), 11)
    flat = replace(
        dataset, targets=(replace(dataset.targets[0], values=np.where(np.arange(60) % 3 == 2, 4.0, np.arange(60))),)
    )
    features, targets, said = enough_rows(flat, 10)
    assert targets == [] and "number 'size' is the same in all rows of the test split" in said[-1]


# ---- data sets: parts and sums -------------------------------------------------------------------------------------


def row_contents(dataset: FeatureDataset) -> list[tuple[Any, ...]]:
    """Text, tokens and the characters of every row, whatever the arrays look like."""
    found = []
    for row in range(dataset.n_rows):
        begin = dataset.sequence_starts[dataset.row_sequence[row]]
        own = slice(begin + dataset.row_first[row], begin + dataset.row_last[row])
        text = dataset.texts[dataset.sequence_document[dataset.row_sequence[row]]]
        starts, ends = dataset.char_starts[own].tolist(), dataset.char_ends[own].tolist()
        found.append((text, dataset.tokens[own].tolist(), [text[a:b] for a, b in zip(starts, ends, strict=True)]))
    return found


def spans_dataset(letters: TextTokenizer, seed: int = 0, category: str = "spans", **rules: Any) -> FeatureDataset:
    """20 texts of 12 words; each word is a span, by its first letter."""
    documents = []
    for i in range(20):
        words = words_of(100 * seed + i, 12)
        text = " ".join(words)
        spans = tuple(
            Span(m.start(), m.end(), "early" if m.group() < "h" else "late") for m in re.finditer(r"\w+", text)
        )
        documents.append(
            Document(id=f"{category}{i}", text=text, group=str(i // 2), spans=spans, numbers={"n": float(i)})
        )
    labelled = LabelledText(
        category=category, features=("early", "late"), level="span", documents=tuple(documents), numbers=("n",),
        notes=(f"note of {category}",), near_duplicates="count",
    )  # fmt: skip
    chosen = SamplingRules(window=64, skip_first=3, min_rows=1, **rules)
    return build_feature_dataset(labelled, letters, chosen, rng(seed))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 9999))
def test_some_rows_still_point_at_the_same_characters(letters: TextTokenizer, seed: int):
    dataset = spans_dataset(letters)
    rows = rng(seed).random(dataset.n_rows) < rng(seed).random()
    part = dataset.only(rows, [1], [0])
    assert row_contents(part) == [c for c, yes in zip(row_contents(dataset), rows, strict=True) if yes]
    assert part.features == ("late",)
    assert part.categories == ("spans",)
    assert (part.positive[:, 0] == dataset.positive[rows, 1]).all()
    assert (part.eligible[:, 0] == dataset.eligible[rows, 1]).all()
    assert (part.row_split == dataset.row_split[rows]).all()
    assert (part.row_pooling == dataset.row_pooling[rows]).all()
    np.testing.assert_array_equal(part.targets[0].values, dataset.targets[0].values[rows])
    assert sorted(set(part.row_sequence.tolist())) == list(range(part.n_sequences))
    groups = dict(zip(part.row_group.tolist(), dataset.row_group[rows].tolist(), strict=True))
    assert [groups[g] for g in part.row_group.tolist()] == dataset.row_group[rows].tolist()
    assert len(set(groups.values())) == len(groups)


def test_a_sum_keeps_rows_numbers_notes_and_counts_of_its_parts(letters: TextTokenizer):
    first, second = spans_dataset(letters), spans_dataset(letters, seed=1, category="others")
    both = concatenate([first, second])
    assert concatenate([first]) is first
    assert row_contents(both) == row_contents(first) + row_contents(second)
    assert both.features == ("early", "late", "early", "late")
    assert both.categories == ("spans", "spans", "others", "others")
    assert [both.counts(f) for f in range(4)] == [p.counts(f) for p in (first, second) for f in range(2)]
    assert both.notes == {**first.notes, **second.notes}
    assert set(both.notes) == set(both.alignments) == set(both.audits) == {"spans", "others"}
    assert both.alignments["others"] == second.alignments["others"]
    assert [t.category for t in both.targets] == ["spans", "others"]
    for target, own, begin in zip(both.targets, (first, second), (0, first.n_rows), strict=True):
        expected = np.full(both.n_rows, np.nan)
        expected[begin : begin + own.n_rows] = own.targets[0].values
        np.testing.assert_array_equal(target.values, expected)
    assert set(both.row_group[: first.n_rows].tolist()).isdisjoint(both.row_group[first.n_rows :].tolist())
    assert row_contents(concatenate([both, first])) == row_contents(both) + row_contents(first)


# ---- rows of spans -------------------------------------------------------------------------------------------------


def test_a_row_of_a_span_is_all_of_its_tokens(letters: TextTokenizer):
    dataset = spans_dataset(letters, sampling="natural")
    for (text, _, characters), labels in zip(row_contents(dataset), dataset.positive.tolist(), strict=True):
        word = "".join(characters)
        assert word in text.split()
        assert labels == [word < "h", word >= "h"]
    assert (dataset.row_pooling == POOLINGS.index(Pooling.MEAN)).all()
    alignment = dataset.alignments["spans"]
    words = [word for text in dataset.texts for word in text.split()]
    assert (alignment.stretches, alignment.tokens) == (240, sum(map(len, words)))
    assert alignment.several_tokens == sum(len(word) > 1 for word in words)
    assert (alignment.ragged, alignment.without_token, alignment.unknown_tokens) == (0, 0, 0)
    skipped = sum(  # BOS and two letters
        start < 2 for text in dataset.texts for start in np.cumsum([0, *map(len, text.split())])[:-1]
    )
    assert alignment.in_skipped_tokens == skipped
    assert dataset.n_rows == 240 - skipped - alignment.cut_by_window
    assert any(note.startswith(f"{skipped} of 240 labelled stretches: they stand") for note in dataset.notes["spans"])


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 9999),
    window=st.integers(5, 30),
    anchor=st.sampled_from(["start", "end"]),
    skip=st.integers(0, 4),
)
def test_every_span_is_a_row_or_counted(letters: TextTokenizer, seed: int, window: int, anchor: Any, skip: int):
    documents = []
    rows, cut, skipped = [], 0, 0
    room = window - 2
    for i in range(8):
        words = words_of(seed * 8 + i, 14)
        text, spans, at = " ".join(words), [], 0
        length = sum(map(len, words))
        shift = max(0, length - room) if anchor == "end" else 0
        for n, word in enumerate(words):
            begin = text.index(word, at) if n == 0 else at
            spans.append(Span(begin, begin + len(word), "ab"[n % 2]))
            first = sum(map(len, words[:n])) - shift
            last = first + len(word)
            if first < 0 or (first // room != (last - 1) // room):
                cut += 1
            elif first % room + 1 < skip:
                skipped += 1
            else:
                rows.append((text, word, n % 2))
            at = begin + len(word) + 1
        documents.append(Document(id=str(i), text=text, group=str(i), spans=tuple(spans)))
    labelled = LabelledText(
        category="c", features=("a", "b"), level="span", documents=tuple(documents), near_duplicates="count"
    )
    rules = SamplingRules(
        window=window, skip_first=skip, anchor=anchor, min_rows=0, sampling="natural", max_rows=10_000
    )
    if not rows:
        with pytest.raises(InputError, match="no labelled token lies behind"):
            build_feature_dataset(labelled, letters, rules, rng(seed))
        return
    dataset = build_feature_dataset(labelled, letters, rules, rng(seed))
    alignment = dataset.alignments["c"]
    assert (alignment.stretches, alignment.cut_by_window, alignment.in_skipped_tokens) == (8 * 14, cut, skipped)
    built = [
        (text, "".join(c), int(b))
        for (text, _, c), (_, b) in zip(row_contents(dataset), dataset.positive.tolist(), strict=True)
    ]
    assert Counter(built) == Counter(rows)
    assert (dataset.sequence_lengths() <= window).all()


def test_negatives_of_a_contrast_carry_its_label(letters: TextTokenizer):
    def labelled(level: Any) -> LabelledText:
        documents = []
        for i in range(30):
            text = " ".join(words_of(i, 12))
            names = ("Tense_Past", "Tense_Pres", "Mood_Ind", "Noun")
            spans = [Span(m.start(), m.end(), names[n % 4]) for n, m in enumerate(re.finditer(r"\w+", text))]
            documents.append(Document(id=str(i), text=text, group=str(i), spans=tuple(spans)))
        return LabelledText(
            category="tense", features=("Tense_Past", "Noun"), level=level, documents=tuple(documents),
            contrasts={"Tense_Past": ("Tense_Pres",)},
        )  # fmt: skip

    for level in ("token", "span"):
        source = labelled(level)
        dataset = build_feature_dataset(
            source, letters, SamplingRules(window=100, skip_first=0, min_rows=1, max_rows=300), rng()
        )
        label_of = {(d.text, s.start): s.label for d in source.documents for s in d.spans}
        negatives: list[set[str]] = []
        for f in range(2):
            met = set()
            for row in dataset.rows_of(f):
                begin = dataset.sequence_starts[dataset.row_sequence[row]] + dataset.row_first[row]
                text = dataset.texts[dataset.sequence_document[dataset.row_sequence[row]]]
                at = max(start for t, start in label_of if t == text and start <= dataset.char_starts[begin])
                assert dataset.positive[row, f] == (label_of[text, at] == dataset.features[f])
                met.add(label_of[text, at])
            negatives.append(met - {dataset.features[f]})
        assert negatives == [{"Tense_Pres"}, {"Tense_Past", "Tense_Pres", "Mood_Ind"}]


def test_hard_negatives_are_half_end_to_end(letters: TextTokenizer):
    documents = []
    for i in range(40):
        text = " ".join(words_of(i, 20))
        spans = [Span(m.start(), m.end(), "top" if m.group() == "a" else "bottom") for m in re.finditer("[ab]", text)]
        documents.append(Document(id=str(i), text=text, group=str(i), spans=tuple(spans)))
    labelled = LabelledText(
        category="c", features=("top",), level="token", documents=tuple(documents), hard_negatives={"top": "bottom"}
    )
    rules = SamplingRules(window=128, skip_first=0, min_rows=1, max_rows=80, sampling="balanced")
    dataset = build_feature_dataset(labelled, letters, rules, rng())
    tokens = [row[1][0] for row in row_contents(dataset)]
    assert Counter(tokens)[0] == 40  # every a
    assert sum(t == 1 for t in tokens) >= 20  # every second negative is a b
    assert sum(t > 1 for t in tokens) > 10


# ---- rows of tokens and documents, numbers -------------------------------------------------------------------------


def numbered(level: Any, **fields: Any) -> LabelledText:
    documents = tuple(
        Document(id=str(i), text=" ".join(words_of(i, 14)), group=str(i), numbers={"n": float(i)} if i % 4 else {})
        for i in range(24)
    )
    return LabelledText(category="c", features=(), level=level, documents=documents, **fields)


def test_the_number_of_a_token_is_its_position(letters: TextTokenizer):
    rules = SamplingRules(window=12, skip_first=4, min_rows=2, max_rows=100)
    dataset = build_feature_dataset(numbered("token", numbers=("position", "log2_position")), letters, rules, rng())
    position, log2 = (target.values for target in dataset.targets)
    assert dataset.n_rows == 100
    assert (position == dataset.row_first).all()
    np.testing.assert_allclose(2**log2, dataset.row_first + 1)
    assert set(position) == set(range(4, 11))  # 12 tokens: BOS, ten letters of which three are skipped, closing token
    assert (dataset.row_last == dataset.row_first + 1).all()
    assert (dataset.row_pooling == POOLINGS.index(Pooling.TOKEN)).all()


@pytest.mark.parametrize("level", ["document", "token"])
def test_the_number_of_a_document_is_that_of_its_rows(letters: TextTokenizer, level):
    rules = SamplingRules(window=40, skip_first=0, min_rows=1, max_rows=10_000)
    dataset = build_feature_dataset(numbered(level, numbers=("n",)), letters, rules, rng())
    ids = [int(dataset.document_ids[d]) for d in dataset.sequence_document[dataset.row_sequence]]
    assert dataset.targets[0].values.tolist() == [float(i) for i in ids]
    assert set(ids) == {i for i in range(24) if i % 4}  # rows without a number are gone
    assert dataset.audits["c"].unused == 6


def test_pooled_tokens_of_a_document_leave_out_special_tokens(letters: TextTokenizer):
    labelled = document_level_text(
        "c", [" ".join(words_of(i, 9)) for i in range(12)], {"y": [i % 2 == 0 for i in range(12)]}
    )
    for skip, first in ((0, 1), (1, 1), (5, 5)):
        rules = SamplingRules(window=16, skip_first=skip, min_rows=1)
        dataset = build_feature_dataset(labelled, letters, rules, rng())
        assert (dataset.row_first == first).all()
        assert (dataset.row_last == dataset.sequence_lengths() - 1).all()


def test_documents_that_only_a_dropped_feature_needs_are_counted_as_unused(letters: TextTokenizer):
    documents = tuple(
        Document(
            id=str(i),
            text=" ".join(words_of(i, 9)),
            group=str(i),
            labels={"y": i % 2 == 0} if i < 24 else {"rare": i == 24},
        )
        for i in range(30)
    )
    labelled = LabelledText(category="c", features=("y", "rare"), level="document", documents=documents)
    dataset = build_feature_dataset(labelled, letters, SamplingRules(window=16, skip_first=2, min_rows=2), rng())
    assert dataset.features == ("y",)
    assert dataset.notes["c"][0].startswith("feature 'rare' has")
    assert dataset.audits["c"].unused == 6
    assert dataset.n_rows == dataset.n_sequences == 24


def test_a_window_without_room_is_refused(letters: TextTokenizer):
    with pytest.raises(InputError, match="a window of 2 tokens has no room for text beside the 2 that stand around it"):
        spans = numbered("document", numbers=("n",))
        build_feature_dataset(spans, letters, SamplingRules(window=2, skip_first=0), rng())


def test_near_duplicates_share_a_group_or_are_only_counted(letters: TextTokenizer):
    stem = " ".join(words_of(0, 40))
    documents = tuple(
        Document(id=str(i), text=f"{stem} {word}", group=f"g{i // 2}", labels={"y": i % 2 == 0})
        for i, word in enumerate(dict.fromkeys(words_of(7, 40)))
    )
    labelled = LabelledText(category="c", features=("y",), level="document", documents=documents)
    rules = SamplingRules(window=256, skip_first=0, min_rows=1)
    with pytest.raises(InputError, match=r"has 1 distinct document\(s\) or group\(s\).*Near duplicates"):
        build_feature_dataset(labelled, letters, rules, rng())
    dataset = build_feature_dataset(replace(labelled, near_duplicates="count"), letters, rules, rng())
    assert dataset.audits["c"].near_duplicates == len(documents)
    assert dataset.audits["c"].groups == len({d.group for d in documents})
    pairs = dataset.row_split[: 2 * (len(documents) // 2)].reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert len(set(dataset.row_split.tolist())) == 3


# ---- rules ---------------------------------------------------------------------------------------------------------


def test_a_users_choice_beats_a_recommendation_beats_the_default():
    base = SamplingRules()
    recommended = {
        "window": 512,
        "skip_first": 5,
        "pooling": "max",
        "fractions": [0.5, 0.2, 0.3],
        "full_windows_only": True,
    }
    chosen = {"window": 64, "skip_first": None, "full_windows_only": False, "max_rows": None, "min_rows": 0}
    rules = base.adapted(recommended, chosen)
    assert rules == replace(
        base,
        window=64,
        skip_first=5,
        pooling=Pooling.MAX,
        fractions=(0.5, 0.2, 0.3),
        full_windows_only=False,
        min_rows=0,
    )
    assert base.adapted({}, {}) == base
    assert base.adapted(recommended, {"pooling": Pooling.LAST}).pooling is Pooling.LAST


# ---- drawing from a stream -----------------------------------------------------------------------------------------


def drawn(
    most: int | None, seed: int, items: Sequence[int], key: Callable[[int], str] = lambda _: "k"
) -> list[tuple[str, int]]:
    draw: Draw[str, int] = Draw(most, seed)
    for item in items:
        draw.offer(key(item), f"id {item}", item)
    return list(draw.drawn())


@settings(deadline=None)
@given(
    items=st.lists(st.integers(), unique=True, max_size=40),
    most=st.integers(0, 12),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_the_sample_depends_on_the_seed_and_the_items_alone(items, most, seed, data):
    parity = lambda item: "odd" if item % 2 else "even"  # noqa: E731
    sample = drawn(most, seed, items, parity)
    shuffled = data.draw(st.permutations(items))
    again = drawn(most, seed, shuffled, parity)
    assert set(again) == set(sample)
    assert [i for _, i in again if i % 2] == [i for i in shuffled if ("odd", i) in sample]  # in the order of the stream
    for key in ("odd", "even"):
        assert sum(k == key for k, _ in sample) == min(most, sum(parity(i) == key for i in items))
    assert [i for _, i in drawn(None, seed, items)] == items


def test_the_sample_is_uniform_and_its_memory_bounded():
    counts = Counter(item for seed in range(600) for _, item in drawn(5, seed, range(30)))
    assert chisquare([counts[i] for i in range(30)]).pvalue > 0.01  # 100 each; seeds are fixed
    draw: Draw[str, int] = Draw(7, 0)
    for i in range(5_000):
        draw.offer("k", str(i), i)
        assert len(draw._kept["k"]) <= 7
    assert draw.offered == {"k": 5_000}
