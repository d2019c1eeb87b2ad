"""Fits against scikit-learn, optimality conditions, planted supports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from sparse_probing.errors import InputError
from sparse_probing.probes.logistic import GRADIENT_TOLERANCE, fit_dense_logistic, fit_logistic
from sparse_probing.selection.heuristics import at_random, fit_elastic_net, shrinking_elastic_net, top_by_score
from sparse_probing.selection.schedule import DEFAULT_KS, checked_ks


def problem(seed: int, rows: int = 80, columns: int = 5, separation: float = 1.0):
    rng = np.random.default_rng(seed)
    positive = rng.random(rows) < 0.3
    positive[:3], positive[3:6] = True, False
    x = rng.normal(size=(rows, columns))
    x[:, 0] += separation * positive
    return (x - x.mean(axis=0)) / x.std(axis=0), positive


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1e-2, 0.3]))
def test_newton_equals_scikit_learn(seed, ridge):
    x, positive = problem(seed)
    found = fit_logistic(x, positive, ridge)
    # scikit-learn sums the loss with weights n / (2 n_class); ours has total weight 1, so C = 1 / (n ridge)
    reference = LogisticRegression(C=1 / (len(x) * ridge), class_weight="balanced", tol=1e-10, max_iter=10_000).fit(
        x, positive
    )
    np.testing.assert_allclose(found.coefficients, reference.coef_[0], atol=2e-6)
    assert found.intercept == pytest.approx(reference.intercept_[0], abs=2e-6)
    assert found.gradient_norm <= GRADIENT_TOLERANCE


def test_dense_equals_newton():
    x, positive = problem(3, columns=12)
    newton, dense = fit_logistic(x, positive, 0.05), fit_dense_logistic(x, positive, 0.05)
    np.testing.assert_allclose(dense.coefficients, newton.coefficients, atol=2e-4)
    assert dense.objective == pytest.approx(newton.objective, abs=1e-8)


def test_separable_data_stay_finite_and_are_separated():
    x, positive = problem(5, separation=50.0)
    fit = fit_logistic(x, positive, 1e-3)
    assert np.isfinite(fit.coefficients).all()
    assert ((x @ fit.coefficients + fit.intercept > 0) == positive).all()


def test_by_hand_intercept_only_balances_the_classes():
    # a column without information gets coefficient 0 by symmetry, and balanced classes put the intercept at 0
    x = np.array([[1.0], [-1.0], [1.0], [-1.0], [1.0], [-1.0]])
    fit = fit_logistic(x, np.array([True, True, False, False, False, False]), 0.1)
    assert fit.coefficients[0] == pytest.approx(0, abs=1e-9)
    assert fit.intercept == pytest.approx(0, abs=1e-9)
    assert fit.objective == pytest.approx(np.log(2), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 32]))
def test_elastic_net_meets_its_optimality_conditions(seed, k):
    x, positive = problem(seed, columns=8)
    x, strength, ratio = 0.1 * x, 20.0 / k, float(np.clip(np.exp(-k / 20), 0.1, 0.9))
    beta, intercept = fit_elastic_net(x, positive, strength, ratio, (np.zeros(8), 0.0))
    weights = np.where(positive, len(x) / (2 * positive.sum()), len(x) / (2 * (~positive).sum()))
    residual = weights * (1 / (1 + np.exp(-(x @ beta + intercept))) - positive)
    gradient = x.T @ residual + strength * (1 - ratio) * beta
    bound, slack = strength * ratio, 2e-3 * max(1.0, strength)
    assert abs(residual.sum()) < 2e-2
    assert (np.abs(gradient[beta == 0]) <= bound + slack).all()
    np.testing.assert_allclose(gradient[beta != 0], -bound * np.sign(beta[beta != 0]), atol=slack)


def test_shrinking_supports_are_nested_and_find_the_planted_units():
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.4
    x = rng.normal(size=(400, 60))
    planted = [7, 21, 40]
    x[:, planted] += 1.2 * positive[:, None]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    score = x[positive].mean(axis=0) - x[~positive].mean(axis=0)
    supports = shrinking_elastic_net(x, positive, score, [1, 2, 3, 8, 32])
    assert supports[3].tolist() == planted
    for small, large in [(1, 2), (2, 3), (3, 8), (8, 32)]:
        assert set(supports[small]) < set(supports[large])
        assert len(supports[small]) == small


def test_top_by_score_breaks_ties_by_index():
    assert top_by_score(np.array([1.0, -3.0, 1.0, 2.0]), [3])[3].tolist() == [0, 1, 3]


def test_random_supports_are_nested_and_seeded():
    first, again = (at_random(50, [1, 5], np.random.default_rng(3)) for _ in range(2))
    assert first[5].tolist() == again[5].tolist()
    assert first[1][0] in first[5]


def test_schedule_is_the_papers_and_is_cut_at_the_width():
    assert checked_ks(None, 20) == (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
    assert checked_ks(None, 2_000) == DEFAULT_KS
    assert checked_ks([4, 1, 4], 10) == (1, 4)
    with pytest.raises(InputError, match=r"k = 99 is not possible: .* 48 units"):
        checked_ks([1, 99], 48)
    with pytest.raises(InputError, match="k = 0"):
        checked_ks([0], 48)
