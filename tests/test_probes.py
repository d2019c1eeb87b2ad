"""Fits: against scikit-learn, optimality conditions, batches, bad weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from sparse_probing.errors import InputError, SolverError
from sparse_probing.probes import newton
from sparse_probing.probes.dense import DENSE_TOLERANCE, SharedColumns, fit_dense
from sparse_probing.probes.losses import LOGISTIC, LOSSES, SQUARED_ERROR, SQUARED_HINGE
from sparse_probing.probes.multinomial import fit_multinomial
from sparse_probing.probes.newton import GRADIENT_TOLERANCE, fit_batch, fit_one
from sparse_probing.probes.weights import balanced_weights, row_weights


def problem(seed: int, rows: int = 80, columns: int = 5, separation: float = 1.0):
    rng = np.random.default_rng(seed)
    positive = rng.random(rows) < 0.3
    positive[:3], positive[3:6] = True, False
    x = rng.normal(size=(rows, columns))
    x[:, 0] += separation * positive
    return (x - x.mean(axis=0)) / x.std(axis=0), positive


def fit_logistic(x, positive, ridge):
    return fit_one(x, positive.astype(float), balanced_weights(positive), ridge)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1e-2, 0.3]))
def test_newton_equals_scikit_learn(seed, ridge):
    x, positive = problem(seed)
    found = fit_logistic(x, positive, ridge)
    # scikit-learn sums the loss with weights n / (2 n_class); ours has total weight 1, so C = 1 / (n ridge)
    reference = LogisticRegression(C=1 / (len(x) * ridge), class_weight="balanced", tol=1e-10, max_iter=10_000).fit(
        x, positive
    )
    np.testing.assert_allclose(found.coefficients, reference.coef_[0], atol=1e-6)
    assert found.intercept == pytest.approx(reference.intercept_[0], abs=1e-6)
    assert found.gradient_norm <= GRADIENT_TOLERANCE


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_squared_hinge_equals_linear_svc_and_squared_error_equals_ridge(seed):
    x, positive = problem(seed)
    weights, n = balanced_weights(positive), len(x)
    found = fit_one(x, positive.astype(float), weights, 0.05, SQUARED_HINGE)
    # liblinear penalises the intercept unless its column is scaled up
    reference = LinearSVC(
        C=1 / (n * 0.05),
        class_weight="balanced",
        dual=False,  # pyright: ignore[reportArgumentType]
        tol=1e-12,
        intercept_scaling=1_000,
        max_iter=100_000,
    ).fit(x, positive)
    np.testing.assert_allclose(found.coefficients, reference.coef_[0], atol=1e-4)
    target = x[:, 0] * 3 + positive
    plain = fit_one(x, target, np.full(n, 1 / n), 0.05, SQUARED_ERROR)
    ridge = Ridge(alpha=0.05 * n).fit(x, target)
    np.testing.assert_allclose(plain.coefficients, ridge.coef_, atol=1e-10)
    assert plain.intercept == pytest.approx(ridge.intercept_, abs=1e-10)


@pytest.mark.parametrize("name", list(LOSSES))
def test_slopes_and_curvatures_are_derivatives(name):
    loss, eta = LOSSES[name], np.array([-3.0, -0.4, 0.0, 0.3, 0.9, 2.5])
    step = 1e-5
    for target in (np.zeros(6), np.ones(6)):
        slope = (loss.value(eta + step, target) - loss.value(eta - step, target)) / (2 * step)
        np.testing.assert_allclose(loss.slope(eta, target), slope, atol=1e-8)
        curvature = (loss.slope(eta + step, target) - loss.slope(eta - step, target)) / (2 * step)
        np.testing.assert_allclose(loss.curvature(eta, target), curvature, atol=1e-6)


@pytest.mark.parametrize("loss", [LOGISTIC, SQUARED_HINGE])
def test_a_batch_gives_what_each_problem_gives_alone_from_any_start(loss):
    parts = [problem(seed, separation=seed) for seed in range(6)]
    x = np.stack([part[0] for part in parts])
    target = np.stack([part[1] for part in parts]).astype(float)
    weights = np.stack([balanced_weights(part[1]) for part in parts])
    rng = np.random.default_rng(0)
    batch = fit_batch(x, target, weights, 0.01, loss)
    warm = fit_batch(x, target, weights, 0.01, loss, (rng.normal(size=(6, 5)), rng.normal(size=6)))
    for i in range(6):
        alone = fit_one(x[i], target[i], weights[i], 0.01, loss)
        np.testing.assert_allclose(batch[i].coefficients, alone.coefficients, atol=1e-6)
        np.testing.assert_allclose(warm[i].coefficients, alone.coefficients, atol=1e-5)
        assert warm[i].objective == pytest.approx(alone.objective, abs=1e-10)
    assert (batch.gradient_norm <= GRADIENT_TOLERANCE).all()


def test_no_column_gives_the_best_intercept():
    positive = np.array([True, False, False, False])
    plain = fit_one(np.zeros((4, 0)), positive.astype(float), np.full(4, 0.25), 0.1)
    assert plain.intercept == pytest.approx(np.log(1 / 3), abs=1e-7)


def test_many_columns_are_as_exact_as_few():
    x, positive = problem(1, rows=200, columns=newton.SINGLE_FROM + 20)
    found = fit_logistic(x, positive, 1e-3)
    reference = LogisticRegression(C=1 / (200 * 1e-3), class_weight="balanced", tol=1e-11, max_iter=50_000).fit(
        x, positive
    )
    np.testing.assert_allclose(found.coefficients, reference.coef_[0], atol=1e-5)
    assert found.gradient_norm <= GRADIENT_TOLERANCE


def test_no_convergence_is_an_error_not_a_number(monkeypatch):
    monkeypatch.setattr(newton, "MOST_STEPS", 2)
    x, positive = problem(0, separation=5.0)
    with pytest.raises(SolverError, match=r"logistic fit on 5 columns stopped at gradient .* raise the ridge"):
        fit_logistic(x, positive, 1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(120, 12), (40, 300)])
def test_dense_probes_of_several_labels_equal_newton_on_each(rows, columns):
    rng = np.random.default_rng(3)
    raw = rng.normal(size=(rows, columns)).astype(np.float32) * 3 + 1
    eligible = rng.random((3, rows)) < 0.8
    labels = rng.random((3, rows)) < 0.4
    mean = np.stack([raw[e].mean(axis=0, dtype=float) for e in eligible])
    scale = np.stack([raw[e].std(axis=0, dtype=float) for e in eligible])
    weights = np.zeros((3, rows))
    for f in range(3):
        weights[f, eligible[f]] = balanced_weights(labels[f, eligible[f]])
    shared = SharedColumns(x=raw - np.float32(1), mean=mean - 1, scale=scale)
    found = fit_dense(shared, labels.astype(float), weights, 0.05)
    assert (found.gradient_norm <= DENSE_TOLERANCE).all()
    for f in range(3):
        z = (raw[eligible[f]].astype(float) - mean[f]) / scale[f]
        alone = fit_logistic(z, labels[f, eligible[f]], 0.05)
        np.testing.assert_allclose(found.coefficients[f], alone.coefficients, atol=5e-4)
        assert found.objective[f] == pytest.approx(alone.objective, abs=1e-7)


@pytest.mark.parametrize(("columns", "classes"), [(3, 3), (8, 5), (40, 4)])
def test_multinomial_equals_scikit_learn(columns, classes):
    rng = np.random.default_rng(columns)
    x = rng.normal(size=(300, columns))
    labels = (x @ rng.normal(size=(columns, classes)) + 2 * rng.gumbel(size=(300, classes))).argmax(axis=1)
    weights = row_weights(labels.astype(float), balance_classes=True)
    found = fit_multinomial(x, labels, weights, 1e-2)
    reference = LogisticRegression(C=1 / (300 * 1e-2), class_weight="balanced", tol=1e-10, max_iter=10_000).fit(
        x, labels
    )
    np.testing.assert_allclose(found.coefficients, reference.coef_, atol=1e-6)
    assert found.intercepts.sum() == pytest.approx(0, abs=1e-9)
    assert found.gradient_norm <= GRADIENT_TOLERANCE


def test_multinomial_of_two_classes_equals_logistic_with_half_the_ridge():
    x, positive = problem(9)
    # softmax of (+b/2, -b/2) is the logistic of b, and |b/2|^2 twice is half of |b|^2
    two = fit_multinomial(x, positive.astype(int), balanced_weights(positive), 0.02)
    one = fit_logistic(x, positive, 0.01)
    np.testing.assert_allclose(two.coefficients[1] - two.coefficients[0], one.coefficients, atol=1e-6)


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


def test_a_weight_is_a_repetition_and_zero_is_absence():
    x, positive = problem(4)
    counts = np.arange(len(x)) % 3
    target = positive.astype(float)
    weights = row_weights(target, counts.astype(float), balance_classes=True)
    weighted = fit_one(x, target, weights, 0.1)
    repeated = fit_logistic(np.repeat(x, counts, axis=0), np.repeat(positive, counts), 0.1)
    np.testing.assert_allclose(weighted.coefficients, repeated.coefficients, atol=1e-7)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -1.0, 1.0], "sample weight of row 1 is -1.0"),
        ([1.0, np.nan, 1.0], "sample weight of row 1 is nan"),
        ([0.0, 0.0, 0.0], "all sample weights are 0"),
        ([1.0, 1.0, 0.0], "class 1.0 has weight 0"),
    ],
)
def test_bad_weights_are_named(weight, message):
    with pytest.raises(InputError, match=message):
        row_weights(np.array([0.0, 0.0, 1.0]), np.array(weight), balance_classes=True)
