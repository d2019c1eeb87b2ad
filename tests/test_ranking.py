"""Rankings: by hand, against scikit-learn, and invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind
from sklearn import metrics as sk
from sklearn.feature_selection import f_classif
from sklearn.metrics import mutual_info_score

from sparse_probing.ranking.mutual_information import mutual_information
from sparse_probing.ranking.permutation_null import family_wise_p, largest_correlations, permuted_labels
from sparse_probing.ranking.single_units import single_unit_scores
from sparse_probing.ranking.statistics import (
    BLOCK,
    MOMENT_SCORES,
    anova_f,
    class_moments,
    mean_difference,
    point_biserial,
    raw_difference,
    welch_t,
)


def problem(seed: int, rows: int = 60, units: int = 7, features: int = 3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, units)) * rng.lognormal(size=units) + rng.normal(size=units)
    positive = rng.random((rows, features)) < 0.4
    eligible = rng.random((rows, features)) < 0.8
    positive[:2], eligible[:4] = True, True
    positive[2:4] = False
    return x, positive, eligible


def test_mean_difference_by_hand():
    # class means 3 and 0; over all four rows mean 1.5, variance (2.25 + 0.25 + 2.25 + 2.25 + ...) worked out below
    x = np.array([[2.0], [4.0], [0.0], [0.0]])
    positive = np.array([[True], [True], [False], [False]])
    # deviations from 1.5: .5, 2.5, -1.5, -1.5 -> squares .25 + 6.25 + 2.25 + 2.25 = 11 -> variance 2.75
    found = mean_difference(class_moments(x, positive, np.ones_like(positive)))
    assert found[0, 0] == pytest.approx(3 / np.sqrt(2.75), rel=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_anova_f_equals_scikit_learn_on_the_eligible_rows(seed):
    x, positive, eligible = problem(seed)
    found = anova_f(class_moments(x, positive, eligible))
    for f in range(3):
        rows = eligible[:, f]
        np.testing.assert_allclose(found[f], f_classif(x[rows], positive[rows, f])[0], rtol=1e-8, atol=1e-10)


@given(st.integers(0, 2**32 - 1))
def test_mean_difference_and_f_order_units_alike(seed):
    moments = class_moments(*problem(seed))
    difference, f = np.abs(mean_difference(moments)), anova_f(moments)
    for row in range(3):
        assert (np.argsort(difference[row]) == np.argsort(f[row])).all()


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-10, 10))
def test_mean_difference_ignores_scale_and_shift_and_flips_with_the_label(seed, scale, shift):
    x, positive, eligible = problem(seed)
    first = mean_difference(class_moments(x, positive, eligible))
    np.testing.assert_allclose(mean_difference(class_moments(scale * x + shift, positive, eligible)), first, atol=1e-8)
    np.testing.assert_allclose(mean_difference(class_moments(x, ~positive, eligible)), -first, atol=1e-10)


def test_constant_units_score_zero():
    x, positive, eligible = problem(0)
    x[:, 2] = 3.5
    moments = class_moments(x, positive, eligible)
    assert (mean_difference(moments)[:, 2] == 0).all()
    assert (anova_f(moments)[:, 2] == 0).all()
    assert mutual_information(x, positive, eligible)[:, 2] == pytest.approx(0, abs=1e-12)


def test_mutual_information_by_hand():
    # two bins, label equal to the bin: information = entropy of the label, 3 of 4 rows positive
    x = np.array([[1.0], [1.0], [1.0], [0.0]])
    positive = x > 0.5
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert mutual_information(x, positive, np.ones_like(positive), bins=4)[0, 0] == pytest.approx(entropy, rel=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_mutual_information_equals_scikit_learn_on_the_same_bins(seed):
    x, positive, eligible = problem(seed)
    edges = np.quantile(x, np.arange(1, 16) / 16, axis=0, method="lower")
    found = mutual_information(x, positive, eligible)
    for f in range(3):
        rows = eligible[:, f]
        for unit in range(x.shape[1]):
            code = (x[rows, unit][:, None] > edges[:, unit]).sum(axis=1)
            assert found[f, unit] == pytest.approx(mutual_info_score(code, positive[rows, f]), abs=1e-10)


@given(st.integers(0, 2**32 - 1))
def test_welch_t_and_point_biserial_equal_scipy_and_numpy_on_the_eligible_rows(seed):
    x, positive, eligible = problem(seed)
    moments = class_moments(x, positive, eligible)
    for f in range(3):
        inside, outside = x[eligible[:, f] & positive[:, f]], x[eligible[:, f] & ~positive[:, f]]
        expected = np.asarray(ttest_ind(inside, outside, equal_var=False)[0])
        np.testing.assert_allclose(welch_t(moments)[f], expected, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(raw_difference(moments)[f], inside.mean(axis=0) - outside.mean(axis=0), atol=1e-10)
        rows = eligible[:, f]
        r = [float(np.corrcoef(x[rows, u], positive[rows, f].astype(float))[0, 1]) for u in range(x.shape[1])]
        np.testing.assert_allclose(point_biserial(moments)[f], r, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_weight_is_a_repetition(seed):
    x, positive, eligible = problem(seed)
    counts = np.random.default_rng(seed).integers(0, 3, len(x))
    counts[:4] = 1
    weighted = class_moments(x, positive, eligible, counts.astype(float))
    repeated = class_moments(*(np.repeat(part, counts, axis=0) for part in (x, positive, eligible)))
    np.testing.assert_allclose(mean_difference(weighted), mean_difference(repeated), atol=1e-10)
    one = single_unit_scores(x, positive, eligible, counts.astype(float))
    two = single_unit_scores(*(np.repeat(part, counts, axis=0) for part in (x, positive, eligible)))
    for name in ("roc_auc", "average_precision", "f1"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-12)
    rows = np.repeat(np.arange(len(x)), counts)
    np.testing.assert_allclose(
        mutual_information(x, positive, eligible, weight=counts.astype(float)),
        mutual_information(x[rows], positive[rows], eligible[rows]),
        atol=1e-9,
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tiles_memory_maps_and_types_change_nothing(tmp_path, dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(BLOCK + 70, BLOCK + 30)) + 5).astype(dtype)
    positive, eligible = rng.random((len(x), 2)) < 0.3, rng.random((len(x), 2)) < 0.9
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = mean_difference(class_moments(mapped, positive, eligible))
    rows = eligible[:, 1]
    z = x[rows].astype(float)
    label = positive[rows, 1]
    expected = (z[label].mean(axis=0) - z[~label].mean(axis=0)) / z.std(axis=0)
    np.testing.assert_allclose(found[1], expected, atol=1e-11)


def test_a_far_away_unit_keeps_its_digits():
    rng = np.random.default_rng(1)
    x, positive = rng.normal(size=(3_000, 1)), rng.random((3_000, 1)) < 0.4
    everyone = np.ones_like(positive)
    near, far = (mean_difference(class_moments(x + shift, positive, everyone)) for shift in (0.0, 1e4))
    np.testing.assert_allclose(far, near, rtol=1e-6)


def test_every_moment_score_of_a_perfect_unit_is_finite():
    positive = np.array([[True], [True], [False], [False]])
    x = np.where(positive, 1.0, 0.0)
    moments = class_moments(x, positive, np.ones_like(positive))
    for name, score in MOMENT_SCORES.items():
        assert np.isfinite(score(moments)).all(), name
        assert score(moments)[0, 0] > 0, name


@settings(deadline=None, max_examples=30)  # the first call compiles
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 8]))
def test_single_unit_scores_equal_scikit_learn(seed, decimals):
    x, positive, eligible = problem(seed)
    x = x.round(decimals)  # few decimals make many ties
    found = single_unit_scores(x, positive, eligible)
    for f in range(3):
        rows = eligible[:, f]
        for u in range(x.shape[1]):
            for d, sign in enumerate((1, -1)):
                label, score = positive[rows, f], sign * x[rows, u]
                assert found.roc_auc[d, f, u] == pytest.approx(sk.roc_auc_score(label, score), abs=1e-12)
                assert found.average_precision[d, f, u] == pytest.approx(
                    sk.average_precision_score(label, score), abs=1e-12
                )
                calls = [score >= t for t in np.unique(score)]
                best = max(2 * (label & call).sum() / (label.sum() + call.sum()) for call in calls)
                assert found.f1[d, f, u] == pytest.approx(best, abs=1e-12)


def test_single_unit_scores_of_a_feature_do_not_depend_on_the_others():
    x, positive, eligible = problem(5)
    together = single_unit_scores(x.astype(np.float16), positive, eligible)
    alone = single_unit_scores(x.astype(np.float16), positive[:, 1:2], eligible[:, 1:2])
    assert together.f1[:, 1].tobytes() == alone.f1[:, 0].tobytes()


def test_permuted_labels_keep_documents_together():
    rng = np.random.default_rng(0)
    groups = np.repeat([7, 3, 9, 4, 5], [2, 3, 2, 4, 4])
    positive = np.array([1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0], dtype=bool)  # 4 and 5 hold both classes
    labels = permuted_labels(positive, groups, 400, rng)
    for group in (7, 3, 9):
        inside = labels[:, groups == group]
        assert (inside == inside[:, :1]).all()
    for group in (4, 5):
        assert (labels[:, groups == group].sum(axis=1) == positive[groups == group].sum()).all()
    first = np.stack([labels[:, groups == g][:, 0] for g in (7, 3, 9)])
    assert (first.sum(axis=0) == 2).all()  # two of the three pure documents are in class, whichever
    assert first.mean(axis=1) == pytest.approx([2 / 3] * 3, abs=0.1)
    assert labels[:, groups == 4].mean(axis=0) == pytest.approx([0.5] * 4, abs=0.1)


@given(st.integers(0, 2**32 - 1))
def test_largest_correlation_is_what_numpy_gives(seed):
    x, positive, _ = problem(seed)
    x[:, 1] = 2.5  # a constant unit correlates with nothing
    labels = permuted_labels(positive[:, 0], np.arange(len(x)), 6, np.random.default_rng(seed))
    others = [u for u in range(x.shape[1]) if u != 1]
    expected = [max(abs(float(np.corrcoef(x[:, u], row.astype(float))[0, 1])) for u in others) for row in labels]
    np.testing.assert_allclose(largest_correlations(x, labels), expected, atol=2e-6)
    moments = class_moments(x, positive[:, :1], np.ones((len(x), 1), dtype=bool))
    assert largest_correlations(x, positive[:, 0][None])[0] == pytest.approx(
        np.abs(point_biserial(moments)).max(), abs=1e-6
    )


def test_family_wise_p_by_hand_and_on_noise():
    assert family_wise_p(0.5, np.array([0.1, 0.5, 0.7, 0.2])) == pytest.approx(3 / 5)
    assert family_wise_p(0.9, np.zeros(999)) == pytest.approx(1 / 1000)
    rng = np.random.default_rng(0)
    p = []
    for _ in range(60):
        x, label = rng.normal(size=(40, 30)), rng.random(40) < 0.5
        label[:2] = [True, False]
        null = largest_correlations(x, permuted_labels(label, np.arange(40), 99, rng))
        p.append(family_wise_p(float(largest_correlations(x, label[None])[0]), null))
    assert 0.35 < np.mean(p) < 0.65  # uniform under the null
