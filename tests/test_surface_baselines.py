"""Surface baselines by hand: token log-odds, positions and lengths, the split they may read."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.scores import metrics_at
from sparse_probing.records import POOLINGS, SPLITS, Pooling, Split
from sparse_probing.sweep import surface_baselines
from sparse_probing.sweep.surface_baselines import LastToken, PositionAndLength, TokenIdentity

TRAIN, VALIDATION, TEST = (SPLITS.index(s) for s in (Split.TRAIN, Split.VALIDATION, Split.TEST))


def rows_in(
    sequences: list[np.ndarray], place: np.ndarray, split: np.ndarray, positive: np.ndarray, pooling: Pooling
) -> FeatureDataset:
    """Rows (sequence, first, last) of one feature; each sequence is a document of its own."""
    lengths = [len(s) for s in sequences]
    tokens = np.concatenate(sequences)
    return FeatureDataset(
        features=("f",),
        categories=("c",),
        document_ids=tuple(str(i) for i in range(len(sequences))),
        texts=("",) * len(sequences),
        tokens=tokens,
        char_starts=np.zeros_like(tokens),
        char_ends=np.zeros_like(tokens),
        sequence_starts=np.concatenate([[0], np.cumsum(lengths)]),
        sequence_document=np.arange(len(sequences)),
        row_sequence=place[:, 0],
        row_first=place[:, 1],
        row_last=place[:, 2],
        row_pooling=np.full(len(place), POOLINGS.index(pooling)),
        row_group=place[:, 0],
        row_split=split,
        positive=positive[:, None],
        eligible=np.ones((len(place), 1), dtype=bool),
        audits={},
    )


def single_tokens() -> FeatureDataset:
    """Training tokens 5 5 5 6 6 7 with classes + + - - - +; then tokens 5 6 7 8 in validation and in test."""
    tokens = np.array([5, 5, 5, 6, 6, 7, 5, 6, 7, 8, 5, 6, 7, 8])
    return rows_in(
        [tokens],
        np.stack([np.zeros(14, dtype=int), np.arange(14), np.arange(14) + 1], axis=1),
        np.array([TRAIN] * 6 + [VALIDATION] * 4 + [TEST] * 4),
        np.array([1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0], dtype=bool),
        Pooling.TOKEN,
    )


def windows(rng: np.random.Generator, rows: int = 300) -> FeatureDataset:
    """Ragged sequences of 4 to 30 tokens; positive ones hold token 3 more often. The window leaves out the first two tokens."""
    positive = np.arange(rows) % 4 == 0
    lengths = rng.integers(4, 31, size=rows)
    sequences = [
        np.where(rng.random(n) < (0.4 if label else 0.05), 3, rng.integers(4, 50, size=n))
        for n, label in zip(lengths, positive, strict=True)
    ]
    place = np.stack([np.arange(rows), np.full(rows, 2), lengths], axis=1)
    return rows_in(sequences, place, rng.integers(0, 3, size=rows), positive, Pooling.MEAN)


def test_single_tokens_score_smoothed_log_odds_by_hand():
    test, threshold = TokenIdentity(single_tokens()).score(0)
    # one token of average share (one half) is added to each id: (2 + .5) / (1 + .5), .5 / 2.5, 1.5 / .5, unseen
    assert test.score == pytest.approx(np.log([2.5 / 1.5, 0.5 / 2.5, 1.5 / 0.5, 1.0]))
    assert test.positive.tolist() == [True, False, True, False]
    assert 0 < threshold < np.log(2.5 / 1.5)  # of the three gaps between validation scores, the only one with F1 1
    assert metrics_at(test, threshold)["f1"] == 1.0


def test_pooled_rows_score_the_mean_over_their_window(monkeypatch):
    dataset = windows(np.random.default_rng(0))
    rows = {split: dataset.rows_of(0, split) for split in SPLITS}
    inside, outside = np.zeros(50), np.zeros(50)
    for row in rows[Split.TRAIN]:
        begin, end = (
            dataset.sequence_starts[dataset.row_sequence[row]] + x[row] for x in (dataset.row_first, dataset.row_last)
        )
        np.add.at(inside if dataset.positive[row, 0] else outside, dataset.tokens[begin:end], 1)
    share = inside.sum() / (inside + outside).sum()
    log_odds = np.log((inside + share) / (outside + 1 - share)) - np.log(share / (1 - share))
    expected = []
    for row in rows[Split.TEST]:
        begin = dataset.sequence_starts[dataset.row_sequence[row]]
        expected.append(log_odds[dataset.tokens[begin + 2 : begin + dataset.row_last[row]]].mean())
    test, threshold = TokenIdentity(dataset).score(0)
    assert test.score == pytest.approx(np.array(expected))
    assert metrics_at(test, threshold)["f1"] > 0.8
    monkeypatch.setattr(surface_baselines, "TOKENS_AT_ONCE", 40)
    assert TokenIdentity(dataset).score(0)[0].score == pytest.approx(test.score, abs=1e-12)


def test_position_and_length_finds_what_stands_late_and_not_a_token():
    rng = np.random.default_rng(1)
    place = np.stack([np.repeat(np.arange(60), 10), np.tile(np.arange(0, 20, 2), 60)], axis=1)
    place = np.concatenate([place, place[:, 1:] + 1], axis=1)
    sequences = [rng.integers(0, 9, size=20) for _ in range(60)]
    late = place[:, 1] >= 14
    split = rng.integers(0, 3, size=60)[place[:, 0]]
    dataset = rows_in(sequences, place, split, late, Pooling.TOKEN)
    test, threshold = PositionAndLength(dataset).score(0)
    assert metrics_at(test, threshold)["f1"] > 0.99
    token, token_threshold = TokenIdentity(dataset).score(0)
    assert metrics_at(token, token_threshold)["roc_auc"] < 0.7
    by_token = rows_in(
        sequences, place, split, np.concatenate(sequences)[place[:, 0] * 20 + place[:, 1]] < 3, Pooling.TOKEN
    )
    assert metrics_at(*PositionAndLength(by_token).score(0))["roc_auc"] < 0.7
    assert metrics_at(*TokenIdentity(by_token).score(0))["f1"] == 1.0


def test_position_and_length_reads_lengths_of_windows():
    rng = np.random.default_rng(2)
    lengths = rng.integers(4, 60, size=400)
    place = np.stack([np.arange(400), np.full(400, 2), lengths], axis=1)
    dataset = rows_in(
        [np.ones(n, dtype=int) for n in lengths], place, rng.integers(0, 3, size=400), lengths < 20, Pooling.MEAN
    )
    baseline = PositionAndLength(dataset)
    assert baseline.columns[0, :3].tolist() == [2, lengths[0] - 2, lengths[0]]
    assert baseline.columns[0, 3:] == pytest.approx(np.log1p([2, lengths[0] - 2, lengths[0]]))
    assert metrics_at(*baseline.score(0))["f1"] > 0.95


def endings(rng: np.random.Generator, rows: int = 300) -> FeatureDataset:
    """Texts of random tokens, a character each; the class ends on `?`, the rest on `.` or on a letter."""
    positive = np.arange(rows) % 3 == 0
    texts = [
        "".join(rng.choice(list("abcdefgh"), size=9)) + end
        for end in np.where(positive, "?", rng.choice(["a", "."], rows))
    ]
    place = np.stack([np.arange(rows), np.full(rows, 2), np.full(rows, 10)], axis=1)
    # the same mark has many token ids, as with byte-pair encodings that join it with what stands before
    sequences = [np.append(rng.integers(3, 90, size=9), rng.integers(100, 4_000)) for _ in range(rows)]
    dataset = rows_in(sequences, place, rng.integers(0, 3, size=rows), positive, Pooling.MEAN)
    at = np.tile(np.arange(10), rows)
    return replace(dataset, texts=tuple(texts), char_starts=at, char_ends=at + 1)


def test_final_punctuation_is_found_where_tokens_say_nothing():
    dataset = endings(np.random.default_rng(7))
    scored = LastToken(dataset).score(0)
    assert scored is not None
    assert metrics_at(*scored)["f1"] == 1.0
    assert metrics_at(*TokenIdentity(dataset).score(0))["roc_auc"] < 0.7
    blind = replace(dataset, texts=("a" * 10,) * len(dataset.texts))
    scored = LastToken(blind).score(0)
    assert scored is not None
    assert metrics_at(*scored)["roc_auc"] < 0.7


def test_last_token_is_found_and_single_tokens_are_left_to_token_identity():
    dataset = endings(np.random.default_rng(8))
    last = dataset.sequence_starts[1:] - 1
    dataset.tokens[last] = np.where(dataset.positive[:, 0], 7, 8)
    scored = LastToken(replace(dataset, texts=("a" * 10,) * len(dataset.texts))).score(0)
    assert scored is not None
    assert metrics_at(*scored)["f1"] == 1.0
    assert LastToken(single_tokens()).score(0) is None


@pytest.mark.parametrize("baseline", [TokenIdentity, PositionAndLength, LastToken])
def test_fit_and_threshold_read_no_test_label_and_no_row_of_another_feature(baseline):
    dataset = windows(np.random.default_rng(4))
    test, threshold = baseline(dataset).score(0)
    is_test = dataset.row_split == TEST
    dataset.positive[is_test] = ~dataset.positive[is_test]
    turned, same_threshold = baseline(dataset).score(0)
    assert (turned.score == test.score).all()
    assert same_threshold == threshold
    dataset.eligible[:150] = False
    assert len(baseline(dataset).score(0)[0].score) == (is_test[150:]).sum()


@pytest.mark.parametrize("baseline", [TokenIdentity, PositionAndLength, LastToken])
def test_training_rows_of_one_class_are_refused(baseline):
    dataset = windows(np.random.default_rng(5))
    dataset.positive[dataset.row_split == TRAIN] = False
    with pytest.raises(ValueError, match="class"):
        baseline(dataset).score(0)


def test_a_hundred_thousand_rows_take_seconds():
    rng = np.random.default_rng(6)
    place = np.stack([np.repeat(np.arange(1_000), 100), np.tile(np.arange(100), 1_000)], axis=1)
    place = np.concatenate([place, place[:, 1:] + 1], axis=1)
    sequences = [rng.integers(0, 50_000, size=100) for _ in range(1_000)]
    positive = rng.random(100_000) < 0.2
    dataset = rows_in(sequences, place, rng.integers(0, 3, size=1_000)[place[:, 0]], positive, Pooling.TOKEN)
    for baseline in (TokenIdentity, PositionAndLength):
        started = time.monotonic()
        baseline(dataset).score(0)
        assert time.monotonic() - started < 10
