"""Rankings: by hand, against scikit-learn, and invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_selection import f_classif
from sklearn.metrics import mutual_info_score

from sparse_probing.ranking.mutual_information import mutual_information
from sparse_probing.ranking.statistics import anova_f, class_moments, mean_difference


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
