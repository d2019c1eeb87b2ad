"""Scores against scikit-learn, thresholds by brute force, bootstrap by its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from sparse_probing.metrics.intervals import bootstrap_intervals, group_resamples
from sparse_probing.metrics.scores import METRICS, Scored, best_f1_threshold, metrics_at, weighted_metrics

scored_rows = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for _, label in rows) < len(rows)
)


def as_scored(rows) -> Scored:
    return Scored(score=np.array([s / 2 for s, _ in rows]), positive=np.array([label for _, label in rows]))


@pytest.mark.filterwarnings("ignore:Precision is ill-defined")
@given(scored_rows, st.integers(-4, 4))
def test_metrics_equal_scikit_learn(rows, cut):
    scored, threshold = as_scored(rows), cut / 2 + 0.1
    found = metrics_at(scored, threshold)
    called = scored.score > threshold
    expected = {
        "f1": sk.f1_score(scored.positive, called, zero_division="warn"),
        "precision": sk.precision_score(scored.positive, called, zero_division="warn"),
        "recall": sk.recall_score(scored.positive, called),
        "mcc": sk.matthews_corrcoef(scored.positive, called),
        "balanced_accuracy": sk.balanced_accuracy_score(scored.positive, called),
        "roc_auc": sk.roc_auc_score(scored.positive, scored.score),
        "average_precision": sk.average_precision_score(scored.positive, scored.score),
    }
    assert set(expected) == set(METRICS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@given(scored_rows)
def test_threshold_has_the_best_f1_of_all_thresholds(rows):
    scored = as_scored(rows)
    best = max(metrics_at(scored, t)["f1"] for t in [*(scored.score - 0.1), 99.0])
    assert metrics_at(scored, best_f1_threshold(scored))["f1"] == pytest.approx(best, abs=1e-12)


@given(scored_rows, st.data())
def test_a_weight_is_a_repetition(rows, data):
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    scored = as_scored(rows)
    repeated = Scored(score=np.repeat(scored.score, weights), positive=np.repeat(scored.positive, weights))
    if not 0 < repeated.positive.sum() < len(repeated.positive):
        return
    found = weighted_metrics(scored, 0.1, weights[None, :].astype(float))
    for name, value in metrics_at(repeated, 0.1).items():
        assert found[name][0] == pytest.approx(value, abs=1e-12), name


def test_resamples_move_whole_groups_and_keep_the_number_of_groups():
    groups = np.array([4, 4, 7, 9, 9, 9])
    weights = group_resamples(groups, 500, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.15)


def test_interval_of_a_perfect_probe_is_a_point_and_of_a_noisy_one_contains_the_estimate():
    rng = np.random.default_rng(1)
    positive = np.arange(200) % 4 == 0
    perfect = Scored(score=positive * 1.0, positive=positive)
    assert bootstrap_intervals(perfect, 0.5, np.arange(200), rng)["f1"] == (1.0, 1.0)
    noisy = Scored(score=positive + rng.normal(size=200), positive=positive)
    low, high = bootstrap_intervals(noisy, 0.5, np.arange(200), rng)["roc_auc"]
    assert low < metrics_at(noisy, 0.5)["roc_auc"] < high
    assert 0.02 < high - low < 0.3
