"""Scores against scikit-learn, thresholds by brute force, bootstrap by its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from sparse_probing.metrics import intervals
from sparse_probing.metrics.intervals import (
    Bootstrap,
    bca_interval,
    group_resamples,
    paired_difference,
    percentile_interval,
)
from sparse_probing.metrics.multiple_testing import benjamini_hochberg
from sparse_probing.metrics.scores import METRICS, Scored, best_f1_threshold, metrics_at, weighted_metrics

scored_rows = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for _, label in rows) < len(rows)
)


def bootstrap_intervals(scored, threshold, groups, rng, repeats=1_000):
    bootstrap = Bootstrap(groups, scored.positive, rng, repeats)
    return bootstrap.intervals(scored, threshold, bootstrap.table(scored, threshold))


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


def test_interval_of_a_noisy_probe_contains_the_estimate():
    rng = np.random.default_rng(1)
    positive = np.arange(200) % 4 == 0
    noisy = Scored(score=positive + rng.normal(size=200), positive=positive)
    low, high = bootstrap_intervals(noisy, 0.5, np.arange(200), rng)["roc_auc"]
    assert low < metrics_at(noisy, 0.5)["roc_auc"] < high
    assert 0.02 < high - low < 0.3


@pytest.mark.parametrize("n", [50, 200])
def test_interval_of_a_perfect_probe_is_about_the_rule_of_three(n):
    positive = np.arange(4 * n) % 4 == 0
    perfect = Scored(score=positive + np.linspace(0, 0.1, 4 * n), positive=positive)
    found = bootstrap_intervals(perfect, 0.5, np.arange(4 * n), np.random.default_rng(0), 4_000)
    assert [high for _, high in found.values()] == pytest.approx([1.0] * len(METRICS))
    # 97.5 % of the draws: at most 3 wrong rows of one class, 5 of both
    by_hand = {
        "recall": n / (n + 3),
        "precision": n / (n + 3),
        "f1": 2 * n / (2 * n + 5),
        # at the median of the other class a row loses half; a negative row counts a third, and the sum is at most 11 / 3
        "roc_auc": 1 - 0.5 * (11 / 3) / (n + 3),
    }
    for name, low in by_hand.items():
        assert 1 - found[name][0] == pytest.approx(1 - low, rel=0.2), name


def noisy_rows(documents: int, seed: int = 0) -> tuple[Scored, np.ndarray]:
    """Documents of one to four rows, every third row positive, scores that help a little."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(documents) * 7 - 3, rng.integers(1, 5, size=documents))
    positive = np.arange(len(groups)) % 3 == 0
    return Scored(score=positive + rng.normal(size=len(groups)), positive=positive), groups


def test_bootstrap_table_is_the_metrics_of_group_resamples():
    scored, groups = noisy_rows(20)
    table = Bootstrap(groups, scored.positive, np.random.default_rng(5), 50).table(scored, 0.4)
    weights = group_resamples(groups, 50, np.random.default_rng(5))
    for name, values in weighted_metrics(scored, 0.4, weights).items():
        assert (table[name] == values).all(), name


def test_added_rows_are_wrong_and_look_like_the_other_class():
    scored, groups = noisy_rows(20)
    bootstrap = Bootstrap(groups, scored.positive, np.random.default_rng(5), 50)
    rng = np.random.default_rng(5)
    weights = group_resamples(groups, 50, rng)
    weights = np.hstack([weights, rng.poisson(1.0, size=(50, 2))])
    medians = np.median(scored.score[~scored.positive]), np.median(scored.score[scored.positive])
    for threshold, added in (
        (0.4, medians),
        (-9.0, (-9.0, medians[1])),
        (9.0, (medians[0], np.nextafter(9.0, 10.0))),
    ):
        rows = Scored(score=np.append(scored.score, added), positive=np.append(scored.positive, [True, False]))
        found = bootstrap.with_wrong_rows(scored, threshold)
        for name, values in weighted_metrics(rows, threshold, weights).items():
            assert (found[name] == values).all(), name


def test_only_the_low_end_moves_and_hardly_where_errors_are_many():
    for documents, least in ((30, 0.5), (600, 0.95)):
        scored, groups = noisy_rows(documents)
        bootstrap = Bootstrap(groups, scored.positive, np.random.default_rng(0))
        table, left_out = bootstrap.table(scored, 0.5), bootstrap.left_out(scored, 0.5)
        found, wrong = bootstrap.intervals(scored, 0.5, table), bootstrap.with_wrong_rows(scored, 0.5)
        for name, estimate in metrics_at(scored, 0.5).items():
            low, high = bca_interval(table[name], estimate, left_out[name])
            assert found[name] == (min(low, percentile_interval(wrong[name])[0]), high)
            assert (high - low) / (high - found[name][0]) > least, name


def test_small_chunks_give_the_same_values(monkeypatch):
    scored, groups = noisy_rows(20)
    found = []
    for cells in (10**9, 100):
        monkeypatch.setattr(intervals, "CELLS", cells)
        bootstrap = Bootstrap(groups, scored.positive, np.random.default_rng(5), 50)
        found.append([f(scored, 0.4) for f in (bootstrap.table, bootstrap.left_out, bootstrap.with_wrong_rows)])
    for whole, pieces in zip(*found, strict=True):
        for name in METRICS:
            assert whole[name] == pytest.approx(pieces[name], abs=1e-14), name


def test_resamples_of_one_class_are_left_out_for_all_probes_alike():
    groups, positive = np.arange(4), np.array([True, False, False, False])
    bootstrap = Bootstrap(groups, positive, np.random.default_rng(0), 200)
    usable = (group_resamples(groups, 200, np.random.default_rng(0))[:, 0] % 4 > 0).sum()
    assert bootstrap.repeats == usable < 200
    scored = Scored(score=np.arange(4.0), positive=positive)
    assert len(bootstrap.table(scored, 0.5)["f1"]) == usable
    assert len(bootstrap.left_out(scored, 0.5)["f1"]) == 3
    with pytest.raises(ValueError, match="other labels"):
        bootstrap.table(Scored(score=np.arange(4.0), positive=~positive), 0.5)
    with pytest.raises(ValueError, match="both classes"):
        Bootstrap(groups, np.ones(4, dtype=bool), np.random.default_rng(0), 10)


def test_jackknife_leaves_out_one_document_in_turn(monkeypatch):
    scored, groups = noisy_rows(12)
    bootstrap = Bootstrap(groups, scored.positive, np.random.default_rng(0), 10)
    left_out = bootstrap.left_out(scored, 0.4)
    for i, group in enumerate(np.unique(groups)):
        rest = Scored(score=scored.score[groups != group], positive=scored.positive[groups != group])
        for name, value in metrics_at(rest, 0.4).items():
            assert left_out[name][i] == pytest.approx(value, abs=1e-12)
    monkeypatch.setattr(intervals, "MAX_BLOCKS", 5)
    blocks = Bootstrap(groups, scored.positive, np.random.default_rng(0), 10).left_out(scored, 0.4)
    assert len(blocks["f1"]) == 5


def test_bca_of_a_mean_equals_scipy():
    x = np.random.default_rng(3).exponential(size=(1, 25))
    found = stats.bootstrap(x, np.mean, n_resamples=2_000, rng=np.random.default_rng(0), method="BCa")
    left_out = (x.sum() - x[0]) / 24
    low, high = bca_interval(found.bootstrap_distribution, float(x.mean()), left_out)
    assert (low, high) == pytest.approx(tuple(found.confidence_interval), abs=1e-3)
    plain = percentile_interval(found.bootstrap_distribution)
    assert low > plain[0]
    assert high > plain[1]


def test_bca_is_the_percentile_interval_where_nothing_is_skewed():
    values = np.linspace(-1, 1, 1_001)
    assert bca_interval(values, 0.0, np.array([-0.1, 0.1])) == pytest.approx(percentile_interval(values))
    assert bca_interval(values + 2, 0.0, np.zeros(0))[0] == 0.0  # even a hopeless interval holds the estimate


def test_paired_difference_by_hand():
    a, b = np.array([3.0, 3.0, 3.0, 3.0, 1.0]), np.array([1.0, 1.0, 1.0, 3.0, 2.0])
    found = paired_difference(a, b, 1.5)
    assert (found.estimate, found.p) == (1.5, 1.0)  # two differences at or below 0: 2 * 3 / 6
    assert (found.low, found.high) == percentile_interval(a - b)
    assert paired_difference(a + 9, b, 10.5).p == 2 / 6
    assert paired_difference(b, a, -1.5).p == found.p


def test_a_probe_does_not_differ_from_itself_and_a_better_one_does():
    scored, groups = noisy_rows(80)
    bootstrap = Bootstrap(groups, scored.positive, np.random.default_rng(0), 500)
    values = bootstrap.table(scored, 0.5)["roc_auc"]
    assert paired_difference(values, values, 0.0).p == 1.0
    better = Scored(score=scored.score + scored.positive, positive=scored.positive)
    gain = metrics_at(better, 0.5)["roc_auc"] - metrics_at(scored, 0.5)["roc_auc"]
    found = paired_difference(bootstrap.table(better, 0.5)["roc_auc"], values, gain)
    assert 0 < found.low < found.estimate < found.high
    assert found.p == 2 / 501


p_values = st.lists(st.integers(0, 20), min_size=1, max_size=30).map(lambda p: np.array(p) / 20)


@given(p_values)
def test_adjusted_p_values_equal_scipy(p):
    q = benjamini_hochberg(p)
    assert q == pytest.approx(stats.false_discovery_control(p, method="bh"), abs=1e-12)
    assert (np.diff(q[np.argsort(p, kind="stable")]) >= 0).all()


def test_adjusted_p_values_by_hand():
    assert benjamini_hochberg(np.array([0.04, 0.01, 0.03, 0.5])) == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.5])
    with_gap = benjamini_hochberg(np.array([0.5, np.nan, 0.01]))
    assert with_gap == pytest.approx([0.5, np.nan, 0.02], nan_ok=True)
    assert len(benjamini_hochberg(np.zeros(0))) == 0
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        benjamini_hochberg(np.array([1.5]))
