"""Readers, alignment, audit, rows: by hand and by property."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sparse_probing.datasets.align import label_by_pattern, label_tokens, stretches_of, tokens_in
from sparse_probing.datasets.audit import remove_duplicates
from sparse_probing.datasets.backends import FastBackend
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.feature_dataset import FeatureDataset, concatenate
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span, document_level_text
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.splits import split_groups
from sparse_probing.datasets.text_tokenizer import TextTokenizer, tokenize
from sparse_probing.errors import InputError
from sparse_probing.records import SPLITS, Pooling, Split


@pytest.fixture(scope="module")
def bpe(tokenizer: PreTrainedTokenizerFast) -> TextTokenizer:
    return TextTokenizer(backend=FastBackend(tokenizer.backend_tokenizer), front=(0,))


@pytest.fixture(scope="module")
def words() -> TextTokenizer:
    """One token per word: rows can be worked out by hand."""
    vocabulary = {f"w{i}": i + 1 for i in range(200)} | {"?": 0}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TextTokenizer(backend=FastBackend(backend), front=(199,))


# ---- alignment -----------------------------------------------------------------------------------------------------

some_text = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc éßñ 漢字かな مرحبا \u0301\u200d🏽🧑🚀\t\n"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
    ),
    min_size=1,
    max_size=40,
)


@given(text=some_text, data=st.data())
def test_tokens_of_a_span_are_exactly_those_that_overlap_it(bpe: TextTokenizer, text: str, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    tokens = tokenize(bpe, [text])[0]
    chosen = tokens_in(tokens, start, end)
    for i in range(len(tokens.ids)):
        covered = set(range(tokens.starts[i], tokens.ends[i]))
        assert chosen[i] == bool(covered & set(range(start, end)))
    assert chosen.any()  # byte-level tokens cover every character


def test_first_touching_word_labels_a_token_and_overlapping_spans_both_count(words: TextTokenizer):
    tokens = tokenize(words, ["w1 w2 w3"])[0]
    spans = [Span(0, 4, "a"), Span(4, 5, "b"), Span(6, 8, "a"), Span(6, 8, "b")]
    positive, touched = label_tokens(tokens, stretches_of(tokens, spans), {"a": 0, "b": 1})
    # w2 covers characters 3..5: the span of a touches it first, so b, which does not overlap a, does not get it
    assert positive.tolist() == [[True, False], [True, False], [True, True]]
    assert touched.tolist() == [True, True, True]


def test_token_patterns_see_the_blank_before_a_word_with_any_tokenizer(bpe: TextTokenizer, words: TextTokenizer):
    for tokenizer in (bpe, words):
        tokens = tokenize(tokenizer, ["w1 w22 w3"])[0]
        spaced = label_by_pattern(tokens, "w1 w22 w3", {"space": r"\A "})[:, 0]
        begins = [
            i for i, start in enumerate(np.minimum(tokens.starts, np.append(0, tokens.ends[:-1]))) if start in (2, 6)
        ]
        assert np.flatnonzero(spaced).tolist() == begins


# ---- audit ---------------------------------------------------------------------------------------------------------


def documents(*rows: tuple[str, str, bool]) -> LabelledText:
    items = [Document(id=str(i), text=t, group=g, labels={"y": y}) for i, (t, g, y) in enumerate(rows)]
    return LabelledText(category="c", features=("y",), level="document", documents=tuple(items))


def test_duplicates_collapse_and_contradictions_go():
    kept, audit = remove_duplicates(
        documents(
            ("One two", "a", True),
            ("one  TWO ", "b", True),
            ("three", "c", True),
            ("three", "d", False),
            ("four", "e", False),
        )
    )
    assert [d.text for d in kept.documents] == ["One two", "four"]
    assert (audit.documents_read, audit.duplicates_removed, audit.conflicts_removed) == (5, 1, 2)


def test_leak_count_is_zero_for_singletons_and_counts_all_sides_of_a_torn_group():
    alone = remove_duplicates(documents(*[(f"t{i}", str(i), True) for i in range(50)]))[1].random_split
    assert (alone.torn, alone.fewest, alone.most, alone.draws) == (0, 0, 0, 20)
    together = remove_duplicates(documents(*[(f"t{i}", "same", True) for i in range(50)]))[1].random_split
    assert (together.torn, together.fewest, together.most) == (50, 50, 50)


def test_leak_count_is_that_of_the_split_in_use():
    """Pairs: the chance that two documents lie in different splits is 1 - sum of squared shares, nearly."""
    pairs = documents(*[(f"t{i}", str(i // 2), True) for i in range(2_000)])
    for shares in ((0.5, 0.25, 0.25), (0.7, 0.0, 0.3)):
        found = remove_duplicates(pairs, shares=shares)[1].random_split
        assert found.shares == shares and found.fewest <= found.torn <= found.most
        assert found.torn / 2_000 == pytest.approx(1 - sum(share**2 for share in shares), abs=0.02)
    given = tuple(replace(d, split=(Split.TRAIN, Split.TEST)[i % 10 == 0]) for i, d in enumerate(pairs.documents))
    found = remove_duplicates(replace(pairs, documents=given))[1].random_split
    assert found.shares == pytest.approx((0.6, 0.3, 0.1)), "validation is a third of what the source trains on"


@given(st.integers(0, 2**32 - 1), st.integers(12, 60))
def test_split_keeps_class_shares_over_single_row_groups(seed, groups):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, groups)
    counts = np.eye(3)[label]
    split = split_groups(counts, (0.5, 0.25, 0.25), rng)
    assert set(split) <= {0, 1, 2}
    for c in range(3):
        members = (label == c).sum()
        for s, share in enumerate((0.5, 0.25, 0.25)):
            assert abs(((split == s) & (label == c)).sum() - share * members) <= 1


# ---- rows ----------------------------------------------------------------------------------------------------------


def text_of(n: int, first: int = 0) -> str:
    """Words of a random order: texts of different `first` share none of their shingles."""
    return " ".join(f"w{word}" for word in np.random.default_rng(first).integers(0, 190, n))


def test_document_rows_by_hand(words: TextTokenizer):
    texts = [text_of(12, i) for i in range(12)]
    labelled = document_level_text("c", texts, {"y": [i % 2 == 0 for i in range(12)]})
    rules = SamplingRules(pooling=Pooling.MEAN, window=8, windows_per_document=1, skip_first=3, min_rows=1)
    dataset = build_feature_dataset(labelled, words, rules, np.random.default_rng(0))
    assert dataset.n_rows == 12
    assert (dataset.sequence_lengths() == 8).all()  # BOS and seven words
    assert (dataset.tokens[dataset.sequence_starts[:-1]] == 199).all()
    assert (dataset.row_first == 3).all()
    assert (dataset.row_last == 8).all()
    for row in range(12):
        begin = dataset.sequence_starts[row]
        text = dataset.texts[dataset.sequence_document[row]]
        for position in range(1, 8):
            start, end = dataset.char_starts[begin + position], dataset.char_ends[begin + position]
            assert text[start:end] == f"w{dataset.tokens[begin + position] - 1}"


@given(seed=st.integers(0, 1_000))
def test_no_group_and_no_text_is_in_two_splits(seed, words: TextTokenizer):
    rng = np.random.default_rng(seed)
    texts = [text_of(int(rng.integers(5, 40)), int(rng.integers(190))) for _ in range(60)]
    groups = [str(g) for g in rng.integers(0, 15, 60)]
    labelled = document_level_text("c", texts, {"y": (rng.random(60) < 0.4).tolist()}, groups)
    rules = SamplingRules(window=16, windows_per_document=3, skip_first=2, min_rows=1)
    try:
        dataset = build_feature_dataset(labelled, words, rules, rng)
    except InputError as error:
        assert "are needed in every split" in str(error)
        return
    for group in np.unique(dataset.row_group):
        assert len(set(dataset.row_split[dataset.row_group == group])) == 1
    assert len(set(dataset.texts)) == len(dataset.texts)


def token_dataset(words: TextTokenizer, rules: SamplingRules) -> FeatureDataset:
    items = []
    for i in range(30):
        text = text_of(30, 3 * i)
        spans = tuple(Span(m.start(), m.end(), "low") for m in re.finditer(r"\bw[37]\b", text))
        items.append(Document(id=str(i), text=text, group=str(i), spans=spans))
    labelled = LabelledText(category="t", features=("low",), level="token", documents=tuple(items))
    return build_feature_dataset(labelled, words, rules, np.random.default_rng(1))


def test_token_rows_carry_the_label_of_their_span(words: TextTokenizer):
    dataset = token_dataset(words, SamplingRules(window=16, skip_first=2, max_rows=40, positive_share=0.25, min_rows=1))
    for row in range(dataset.n_rows):
        token = dataset.tokens[dataset.sequence_starts[dataset.row_sequence[row]] + dataset.row_first[row]]
        assert dataset.positive[row, 0] == (token - 1 in (3, 7))
        assert dataset.row_first[row] >= 2
    assert dataset.positive.mean() == pytest.approx(0.25, abs=0.03)


def test_concatenation_keeps_rows_and_hides_foreign_labels(words: TextTokenizer):
    rules = SamplingRules(window=16, skip_first=2, max_rows=40, min_rows=1)
    first = token_dataset(words, rules)
    labelled = document_level_text("c", [text_of(12, i) for i in range(12)], {"y": [i % 2 == 0 for i in range(12)]})
    second = build_feature_dataset(labelled, words, rules, np.random.default_rng(0))
    both = concatenate([first, second])
    assert both.features == ("low", "y")
    assert both.counts(0) == first.counts(0)
    assert both.counts(1) == second.counts(0)
    row = first.n_rows + 4
    sequence = both.row_sequence[row]
    assert (
        both.texts[both.sequence_document[sequence]] == second.texts[second.sequence_document[second.row_sequence[4]]]
    )
    assert not (both.eligible[: first.n_rows, 1].any() or both.eligible[first.n_rows :, 0].any())
    assert set(both.row_group[: first.n_rows]).isdisjoint(both.row_group[first.n_rows :])


def test_same_seed_same_rows_and_another_seed_other_rows(words: TextTokenizer):
    labelled = document_level_text("c", [text_of(40, i) for i in range(40)], {"y": [i % 2 == 0 for i in range(40)]})
    rules = SamplingRules(window=16, skip_first=2, min_rows=1)
    build: Callable[[int], FeatureDataset] = lambda seed: build_feature_dataset(  # noqa: E731
        labelled, words, rules, np.random.default_rng(seed)
    )
    assert build(3).fingerprint() == build(3).fingerprint()
    assert (build(3).row_split == build(3).row_split).all()
    assert build(3).fingerprint() != build(4).fingerprint()


def test_given_splits_are_kept(words: TextTokenizer):
    items = tuple(
        Document(id=str(i), text=text_of(12, i), group=str(i), labels={"y": i % 2 == 0}, split=SPLITS[i % 3])
        for i in range(12)
    )
    labelled = LabelledText(category="c", features=("y",), level="document", documents=items)
    dataset = build_feature_dataset(labelled, words, SamplingRules(window=16, min_rows=1), np.random.default_rng(0))
    assert dataset.row_split.tolist() == [i % 3 for i in range(12)]
    assert dataset.counts(0)[Split.TEST] == (2, 2)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([text_of(12, i) for i in range(2)], [True, False], r"2 distinct document"),
        (
            [text_of(2, i) for i in range(20)],
            [i % 2 == 0 for i in range(20)],
            r"no labelled token lies behind the first 10 tokens",
        ),
        (
            [text_of(12, i) for i in range(20)],
            [i == 0 for i in range(20)],
            r"at least 5 of each are needed in every split",
        ),
        (["a b", "  "], [True, False], r"document 1 has no text"),
    ],
)
def test_data_that_cannot_be_probed_are_refused(words: TextTokenizer, texts, labels, message):
    with pytest.raises(InputError, match=message):
        build_feature_dataset(
            document_level_text("c", texts, {"y": labels}), words, SamplingRules(), np.random.default_rng(0)
        )


def test_unicode_composition_does_not_hide_a_duplicate():
    decomposed = unicodedata.normalize("NFD", "über alle Maßen schön")
    kept, audit = remove_duplicates(documents(("über alle Maßen schön", "a", True), (decomposed, "b", True)))
    assert len(kept.documents) == 1
    assert audit.duplicates_removed == 1


def test_a_missing_label_is_no_contradiction_and_copies_complete_each_other():
    items = (
        Document(id="0", text="one two", group="a", labels={"y": True}),
        Document(id="1", text="One  two", group="b", labels={"z": False}),
        Document(id="2", text="three", group="b", labels={"y": False}),
        Document(id="3", text="four", group="c", labels={"y": False}),
    )
    labelled = LabelledText(category="c", features=("y", "z"), level="document", documents=items)
    kept, audit = remove_duplicates(labelled)
    assert [dict(d.labels) for d in kept.documents] == [{"y": True, "z": False}, {"y": False}, {"y": False}]
    assert audit.conflicts_removed == 0
    assert kept.documents[0].group == kept.documents[1].group, "a text that two groups share binds their other texts"
    assert audit.groups == 2


def test_near_duplicates_stay_together_when_the_prescribed_split_is_not_used(words: TextTokenizer):
    items = []
    for i in range(60):
        text = text_of(60, i)
        for j, split in enumerate((Split.TRAIN, Split.TEST)):
            twin = text if j == 0 else f"w{i} {text}"
            items.append(Document(id=f"{i}/{j}", text=twin, group=f"{i}/{j}", labels={"y": i % 2 == 0}, split=split))
    labelled = LabelledText(category="c", features=("y",), level="document", documents=tuple(items))
    for split_by in ("group", "given"):
        rules = SamplingRules(window=32, min_rows=1, split_by=split_by)
        dataset = build_feature_dataset(labelled, words, rules, np.random.default_rng(0))
        sides: dict[str, set[int]] = {}
        for row in range(dataset.n_rows):
            name = dataset.document_ids[dataset.sequence_document[dataset.row_sequence[row]]].split("/")[0]
            sides.setdefault(name, set()).add(int(dataset.row_split[row]))
        torn = sum(len(found) > 1 for found in sides.values())
        assert torn == (0 if split_by == "group" else 60), "the source's own split is kept as it is, and reported"
        assert dataset.audits["c"].near_duplicates_across_splits == (0 if split_by == "group" else 120)


def test_balanced_documents_are_balanced_in_every_given_split(words: TextTokenizer):
    rng = np.random.default_rng(0)
    items = tuple(
        Document(
            id=str(i),
            text=text_of(14, i),
            group=str(i),
            split=SPLITS[i % 3],
            labels={"y": bool(rng.random() < (0.8 if i % 3 == 2 else 0.2))},
        )
        for i in range(300)
    )
    labelled = LabelledText(category="c", features=("y",), level="document", documents=items)
    rules = SamplingRules(window=16, skip_first=2, min_rows=1, sampling="balanced")
    counts = build_feature_dataset(labelled, words, rules, rng).counts(0)
    assert all(positive == negative >= 10 for positive, negative in counts.values())
