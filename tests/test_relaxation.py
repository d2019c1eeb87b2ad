"""Lower bounds: the dual point, the k-support penalty, its quadratic model, the relaxation, and the problem they are about."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.optimize import minimize

from sparse_probing.errors import InputError
from sparse_probing.probes.losses import LOSSES, SQUARED_ERROR, Loss
from sparse_probing.selection.exact import Limits
from sparse_probing.selection.k_support import FREE, INSIDE, OUT, limit_of, minimise_model, penalty, shares
from sparse_probing.selection.methods import CLASSES_ONLY, SELECTORS, bounded_selections
from sparse_probing.selection.problem import make_problem, paper_ridge, standardise
from sparse_probing.selection.relaxation import TOLERANCE, Relaxed, relax, relaxation_path
from sparse_probing.selection.rows import KINDS, balanced_point
from sparse_probing.selection.supports import Status, rounded_down
from tests.test_exact import brute_force, random_problem

Point = tuple[float, float, float, float, np.ndarray, np.ndarray, np.ndarray]
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))


def point(loss: Loss, eta: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Point:
    """What `balanced_point` returns, then the predictor that it shifted, the pulls and the curvature."""
    shifted, pull, bend = eta.copy(), np.empty(len(eta)), np.empty(len(eta))
    shift, value, lines, gross = balanced_point(KINDS[loss.name], shifted, target, weights, pull, bend)
    return shift, value, lines, gross, shifted, pull, bend


def rows_of(seed: int, loss: Loss, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A predictor of a given size, targets of both classes, and weights of which some may be 0."""
    rng = np.random.default_rng([seed, int(size)])
    n = int(rng.integers(5, 200))
    target = rng.normal(size=n) * size if not loss.classes else (rng.random(n) < rng.choice([0.5, 0.1])).astype(float)
    weights = rng.random(n) * (rng.random(n) < 0.7 if seed % 3 == 0 else 1.0)
    target[:2], weights[:2] = [0, 1], 0.5
    return rng.normal(size=n) * size, target, weights / weights.sum()


def intercepts(loss: Loss, pull: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    """The weighted sum by its definition; a row without weight has no pull and adds nothing."""
    used = weights > 0
    assert not pull[~used].any()
    share = pull[used] / weights[used]
    if loss.classes:  # a share may be below 0 or above 1 by one rounding: there the definition jumps to -inf
        sign = 2 * target[used] - 1
        share = sign * np.clip(sign * share, 0.0, 1.0 if loss.name == "logistic" else np.inf)
    return float(weights[used] @ loss.intercept_of_pull(share, target[used]))


@EVERY_LOSS
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0, 1e3, 1e4])
def test_pulls_balance_and_the_intercept_is_never_overstated(loss, size):
    for seed in range(30):
        eta, target, weights = rows_of(seed, loss, size)
        shift, value, lines, gross, shifted, pull, bend = point(loss, eta, target, weights)
        np.testing.assert_array_equal(shifted, eta + shift)
        # at 1e4 the shift may not arrive, and of a class that hardly pulls the rescaling leaves what rounding took
        assert abs(pull.sum()) <= 1e-12 * (np.abs(pull).sum() if size <= 1e3 else gross)
        assert value == pytest.approx(float(weights @ loss.value(eta + shift, target)), rel=1e-12, abs=1e-14)
        assert gross == pytest.approx(np.abs(pull).sum(), rel=1e-9) or size > 10
        np.testing.assert_allclose(bend, weights * loss.curvature(shifted, target), rtol=1e-10, atol=1e-15)
        exact = intercepts(loss, pull, target, weights)
        assert lines <= exact + 1e-12 * max(1.0, exact)
        if size <= 10:
            assert lines == pytest.approx(exact, rel=1e-9, abs=1e-9)
            np.testing.assert_allclose(pull, -weights * loss.slope(shifted, target), rtol=1e-8, atol=1e-11)


@EVERY_LOSS
@pytest.mark.parametrize("offset", [-30.0, 30.0, -1e4, 1e4])
def test_margins_that_all_lie_on_one_side_give_a_valid_point(loss, offset):
    """The predictor says the same of every row. For classes the shift goes 2 at a time, so that it may not arrive."""
    for seed in range(10):
        eta, target, weights = rows_of(seed, loss, 1.0)
        _, _, lines, gross, _, pull, _ = point(loss, eta + offset, target, weights)
        assert abs(pull.sum()) <= 1e-12 * (np.abs(pull).sum() if abs(offset) <= 30 else gross)
        exact = intercepts(loss, pull, target, weights)
        assert np.isfinite(lines)
        assert lines <= exact + 1e-12
        if abs(offset) <= 30:
            assert lines == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("name", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("margin", [0.9, 3.0, 100.0, 1e4])
def test_a_predictor_that_makes_no_mistake_gives_a_valid_point(name, margin):
    """No row pulls then, or almost none."""
    loss = LOSSES[name]
    for seed in range(10):
        eta, target, weights = rows_of(seed, loss, 1.0)
        _, value, lines, gross, _, pull, _ = point(loss, (2 * target - 1) * (np.abs(eta) + margin), target, weights)
        assert abs(pull.sum()) <= 1e-12 * np.abs(pull).sum()
        assert np.isfinite([value, lines, gross]).all()
        assert lines <= intercepts(loss, pull, target, weights) + 1e-12


@pytest.mark.parametrize("offset", [0.0, 7.0, -1e3, 1e6])
def test_a_regression_balances_in_one_step_from_any_offset(offset):
    eta, target, weights = rows_of(1, SQUARED_ERROR, 1.0)
    shift, _, lines, gross, _, pull, _ = point(SQUARED_ERROR, eta + offset, target, weights)
    assert shift == pytest.approx(weights @ (target - eta) - offset, abs=1e-12 * max(1.0, abs(offset)))
    assert abs(pull.sum()) <= 1e-12 * gross
    assert lines == pytest.approx(intercepts(SQUARED_ERROR, pull, target, weights), abs=1e-9)


@EVERY_LOSS
def test_rows_without_weight_change_nothing(loss):
    eta, target, weights = rows_of(2, loss, 1.0)
    more = [np.append(eta, [5.0, -5.0]), np.append(target, [0.0, 1.0]), np.append(weights, [0.0, 0.0])]
    plain, padded = point(loss, eta, target, weights), point(loss, *more)
    np.testing.assert_allclose(padded[:4], plain[:4], rtol=1e-12)
    np.testing.assert_allclose(padded[5], np.append(plain[5], [0.0, 0.0]), rtol=1e-12, atol=1e-18)


def shared_penalty(b: np.ndarray, k: int) -> float:
    """Minimum over z in [0, 1], sum z <= k, of sum b^2 / (2 z): z = min(1, |b| / t), t by bisection."""
    size = np.abs(b[b != 0])
    if len(size) <= k:
        return 0.5 * float(size @ size)
    low, high = 0.0, float(size.sum())
    for _ in range(200):
        t = 0.5 * (low + high)
        low, high = (t, high) if np.minimum(1.0, size / t).sum() > k else (low, t)
    return float((size**2 / (2 * np.minimum(1.0, size / high))).sum())


def roles(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8)


def test_the_penalty_is_the_least_cost_of_a_shared_choice():
    rng = np.random.default_rng(0)
    for _ in range(150):
        m, k = int(rng.integers(1, 12)), int(rng.integers(1, 14))
        b = rng.normal(size=m) * np.exp(rng.normal(size=m) * rng.choice([0.1, 1.0, 4.0]))
        b[rng.random(m) < 0.2] = 0.0
        b[rng.integers(m)] = b[0]  # ties
        role = rng.choice([FREE, FREE, FREE, INSIDE, OUT], size=m).astype(np.uint8)
        b[role == OUT] = 0.0
        free, inside = b[role == FREE], b[role == INSIDE]
        theta = np.append(b, rng.normal())  # the intercept costs nothing
        expected = shared_penalty(free, k) + 0.5 * inside @ inside
        assert penalty(theta, role, k) == pytest.approx(expected, rel=1e-10, abs=1e-300)
        z = shares(theta, role, k)
        assert (z[role == INSIDE] == 1).all()
        assert z[role == FREE].sum() <= k * (1 + 1e-12)
        used = b != 0
        assert (b[used] ** 2 / (2 * z[used])).sum() == pytest.approx(expected, rel=1e-10, abs=1e-300)
        limit = limit_of(theta, role, k)
        np.testing.assert_array_equal(z[(role == FREE) & (np.abs(b) >= limit) & used], 1.0)


def test_the_penalty_by_hand():
    b = np.array([3.0, -1.0, 1.0, 0.0, 0.0])  # the last one is the intercept
    free = roles(FREE, FREE, FREE, FREE)
    assert penalty(b, free, 1) == pytest.approx(0.5 * 5.0**2)  # half the squared l1 norm
    assert penalty(b, free, 2) == pytest.approx(0.5 * 9 + 0.5 * 2.0**2)
    for k in (3, 4, 9):
        assert penalty(b, free, k) == pytest.approx(0.5 * 11.0)  # half the squared l2 norm
    assert penalty(b, roles(INSIDE, FREE, FREE, FREE), 1) == pytest.approx(0.5 * 9 + 0.5 * 2.0**2)
    assert penalty(np.zeros(5), free, 2) == 0.0


def test_the_penalty_is_between_its_extremes_and_falls_with_k():
    b = np.random.default_rng(1).normal(size=9)
    theta, free = np.append(b, 4.0), np.full(9, FREE, dtype=np.uint8)
    values = [penalty(theta, free, k) for k in range(1, 12)]
    assert values[0] == pytest.approx(0.5 * np.abs(b).sum() ** 2)
    assert all(larger >= smaller for larger, smaller in pairwise(values))
    assert values[8:] == pytest.approx([0.5 * b @ b] * 3)


def model(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, float]:
    """Curvature, linear part, roles, free columns to choose, ridge: duplicates, and more columns than rows."""
    rng = np.random.default_rng(seed)
    m, rows = int(rng.integers(2, 9)), int(rng.choice([4, 30]))
    x = rng.normal(size=(rows, m)) @ (rng.normal(size=(m, m)) if seed % 2 else np.eye(m))
    if seed % 3 == 0:
        x[:, -1] = x[:, 0]
    one = np.column_stack([x, np.ones(rows)])
    role = np.full(m, FREE) if seed % 4 == 0 else rng.choice([FREE, FREE, INSIDE, OUT], size=m)
    k = int(rng.integers(0 if (role == INSIDE).any() else 1, 4))
    curvature = rng.random(rows) / rows
    linear = one.T @ (curvature * 3 * rng.normal(size=rows))  # in the span of the rows, as a gradient of a loss is
    return (one.T * curvature) @ one, linear, role.astype(np.uint8), k, float(rng.choice([1.0, 0.1, 0.01]))


def least(hessian: np.ndarray, linear: np.ndarray, role: np.ndarray, k: int, ridge: float) -> float:
    """Minimum of the model: convex in the shares z, for each of which theta solves linear equations."""
    free = np.flatnonzero(role == FREE)
    charged = np.append(np.full(len(role), ridge), 0.0)

    def value(shared: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.append(np.where(role == INSIDE, 1.0, 0.0), 1.0)
        z[free] = shared
        root = np.sqrt(np.clip(z, 0.0, 1.0))
        scaled = root * np.linalg.solve(root[:, None] * hessian * root + np.diag(charged), root * linear)
        pull = linear - hessian @ scaled
        return -0.5 * float(linear @ scaled), -(pull[free] ** 2) / (2 * ridge)

    if k == 0 or not len(free):
        return value(np.zeros(len(free)))[0]
    if k >= len(free):
        return value(np.ones(len(free)))[0]
    found = minimize(
        value,
        np.full(len(free), k / len(free)),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(free),
        constraints={"type": "ineq", "fun": lambda z: k - z.sum(), "jac": lambda z: -np.ones(len(z))},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    # below the minimum by at most what the steepest feasible direction promises
    gradient = value(found.x)[1]
    assert gradient @ found.x - np.sort(gradient)[:k].sum() <= 1e-6 * abs(found.fun)
    return float(found.fun)


@pytest.mark.parametrize("begin", ["zero", "anywhere"])
def test_the_model_is_minimised_from_any_start(begin):
    for seed in range(40):
        hessian, linear, role, k, ridge = model(seed)
        m = len(role)
        theta = np.zeros(m + 1) if begin == "zero" else np.random.default_rng(seed).normal(size=m + 1)
        value = minimise_model(hessian, linear, role, theta, k, ridge, 200)
        assert not theta[:m][role == OUT].any()
        if k == 0:
            assert not theta[:m][role == FREE].any()
        again = 0.5 * theta @ hessian @ theta - linear @ theta + ridge * penalty(theta, role, k)
        assert value == pytest.approx(again, rel=1e-9, abs=1e-12)
        expected = least(hessian, linear, role, k, ridge)
        assert value == pytest.approx(expected, rel=2e-6), seed


def test_a_model_that_is_solved_stays_where_it_is():
    hessian, linear, role, k, ridge = model(4)
    theta = np.zeros(len(role) + 1)
    value = minimise_model(hessian, linear, role, theta, k, ridge, 200)
    before = theta.copy()
    assert minimise_model(hessian, linear, role, theta, k, ridge, 200) <= value
    np.testing.assert_allclose(theta, before, atol=1e-5)
    assert minimise_model(hessian, linear, role, np.zeros(len(role) + 1), k, ridge, 0) == 0.0


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_relaxation_brackets_its_own_minimum_and_stays_below_the_optimum(name):
    for seed in range(24):
        ridge = (1.0, 0.1, 0.01, 1e-3)[seed % 4]
        problem = random_problem(seed, name, 8, ridge)
        for k in (1, 2, 4, 8):
            found = relax(problem, k)
            best = brute_force(problem, k)
            assert found.lower <= best
            # float32 sums make the value, hence not the 1e-12 of the bound; the weaker the ridge, the less is left beside them
            assert found.value >= found.lower * (1 - (1e-6 if ridge >= 0.01 else 1e-5))
            assert found.value <= best * (1 + 2 * TOLERANCE)
            if ridge >= 0.01 and name != "squared_hinge":
                assert found.value - found.lower <= 1e-4 * found.value
            if k == 8:  # nothing is left to choose
                assert found.lower >= best * (1 - 2 * TOLERANCE) or ridge < 0.01


@pytest.mark.parametrize("name", ["logistic", "squared_error"])
def test_the_relaxation_is_solved_with_more_columns_than_rows(name):
    for seed in range(12):
        problem = random_problem(seed, name, 150, (0.3, 0.1, 0.01)[seed % 3])
        for k in (1, 3, 20, 150):
            found = relax(problem, k)
            assert -1e-6 * found.value <= found.value - found.lower <= 1e-4 * found.value


@EVERY_LOSS
def test_the_bound_is_the_one_of_the_dual_point_that_is_stored(loss):
    problem = random_problem(7, loss.name, 30, 0.1)
    for k in (1, 3, 30):
        found = relax(problem, k)
        assert (found.coefficients.astype(np.float32) == found.coefficients).all()
        z = problem.z.astype(float)
        eta = z[:, found.columns] @ found.coefficients + found.intercept
        _, _, _, _, _, pull, _ = point(loss, eta, problem.target, problem.weights)
        squares = (pull @ z) ** 2
        np.testing.assert_allclose(found.squares, squares, rtol=1e-7, atol=1e-14)
        exact = intercepts(loss, pull, problem.target, problem.weights) - np.sort(squares)[-k:].sum() / 0.2
        assert exact - 1e-9 <= found.lower <= exact + 1e-12
        assert found.reach == np.abs(problem.z).max()


@EVERY_LOSS
def test_bounds_fall_with_k_and_a_warm_start_gives_the_same(loss):
    for seed in range(6):
        problem = random_problem(seed, loss.name, 60, (0.3, 0.1, 0.03)[seed % 3])
        ks = [1, 2, 3, 5, 10, 60]
        cold, path = [relax(problem, k).lower for k in ks], relaxation_path(problem, ks[::-1])
        assert list(path) == ks
        warm = [path[k].lower for k in ks]
        back = relax(problem, 1, path[60]).lower
        np.testing.assert_allclose(warm, cold, rtol=2 * TOLERANCE)
        assert back == pytest.approx(cold[0], rel=2 * TOLERANCE)
        for bounds in (cold, warm):
            assert all(less <= more * (1 + TOLERANCE) for more, less in pairwise(bounds))


@EVERY_LOSS
def test_excluded_columns_are_as_if_absent(loss):
    for seed in range(8):
        problem = random_problem(seed, loss.name, 25, (0.3, 0.03)[seed % 2])
        for k in (1, 3):
            whole = relax(problem, k)
            excluded = whole.rounded(k + 1)  # what the start holds, among others
            kept = np.setdiff1d(np.arange(25), excluded)
            reduced = relax(replace(problem, z=np.ascontiguousarray(problem.z[:, kept])), k)
            for start in (None, whole):
                found = relax(problem, k, start, excluded)
                assert not set(found.columns) & set(excluded)
                assert not found.squares[excluded].any()
                assert not set(found.rounded(k)) & set(excluded)
                assert found.lower == pytest.approx(reduced.lower, rel=2 * TOLERANCE)
                assert found.lower <= brute_force(problem, k, kept.tolist())


@EVERY_LOSS
def test_rounding_gives_k_different_columns(loss):
    problem = random_problem(3, loss.name, 30, 0.1)
    same = replace(problem, z=np.tile(problem.z[:, :1], (1, 30)))
    empty = replace(problem, z=np.zeros_like(problem.z))
    for one in (problem, same, empty):
        for k in (1, 2, 7, 30):
            columns = relax(one, k).rounded(k)
            assert columns.tolist() == sorted(set(columns.tolist()))
            assert len(columns) == k
    found = relax(problem, 3)
    largest = found.columns[np.argmax(np.abs(found.coefficients))]
    assert found.rounded(1).tolist() == [largest]


def test_rounding_fills_up_by_pull():
    found = Relaxed(
        lower=0.0,
        value=0.0,
        columns=np.array([4, 1]),
        coefficients=np.array([-0.5, 0.0]),
        intercept=0.0,
        squares=np.array([3.0, 1.0, 2.0, 0.0, 0.5]),
        reach=1.0,
    )
    assert [found.rounded(k).tolist() for k in (1, 2, 3)] == [[4], [0, 4], [0, 2, 4]]


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("method", list(SELECTORS))
def test_every_selector_comes_with_a_bound(method, name):
    if method in CLASSES_ONLY and name == "squared_error":
        with pytest.raises(InputError, match="needs classes"):
            bounded_selections(random_problem(0, name, 8, 0.1), method, [2], np.random.default_rng(0))
        return
    kept: list[int] = []
    ks = [3, 1, 8]
    for seed in range(3):
        problem = random_problem(seed, name, 8, (0.3, 0.05)[seed % 2])
        kept.clear()
        found = bounded_selections(
            problem, method, ks, np.random.default_rng(0), keep=lambda k, certificate: kept.append(k + certificate.k)
        )
        assert kept == ([6, 2, 16] if method == "exact" else [])
        assert list(found) == ks
        for k, one in found.items():
            best = brute_force(problem, k)
            assert one.gap >= 0
            assert one.lower_bound <= best * (1 + 1e-12)
            assert one.objective >= best * (1 - 1e-9)
            assert one.objective == pytest.approx(problem.fit(one.support).objective, rel=1e-9)
            assert len(set(one.support.tolist())) == k
            assert one.status is (Status.OPTIMAL if method == "exact" else Status.HEURISTIC)
            if method == "exact":
                assert one.gap <= 1e-3


def test_a_known_relaxation_and_limits_are_used():
    problem = random_problem(1, "logistic", 12, 0.01)
    relaxed, rng = relaxation_path(problem, [2, 4]), np.random.default_rng(0)
    for method in ("greedy_swap", "random"):
        found = bounded_selections(problem, method, [2, 4], rng, relaxed=relaxed)
        assert {k: one.lower_bound for k, one in found.items()} == {
            k: rounded_down(one.lower) for k, one in relaxed.items()
        }
    cut = bounded_selections(problem, "exact", [4], rng, Limits(nodes=1), relaxed)[4]
    assert cut.nodes == 1
    assert cut.status is Status.NODES
    assert cut.lower_bound == pytest.approx(relaxed[4].lower, rel=1e-5)
    with pytest.raises(InputError, match="k = 13 is not possible with 12 columns"):
        bounded_selections(problem, "exact", [13], rng)
    with pytest.raises(InputError, match="there is no selector 'best'"):
        bounded_selections(problem, "best", [1], rng)


def table(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 6)) * np.array([1.0, 10.0, 0.1, 1.0, 1e3, 1.0]) + 5
    return x, rng.random(60) < 0.3, rng.integers(1, 4, size=60).astype(float)


@pytest.mark.parametrize("change", [lambda y: y, lambda y: y.astype(int), lambda y: y.astype(np.float32)], ids=str)
def test_a_problem_is_made_from_booleans_or_0_and_1(change):
    x, y, weight = table()
    problem = make_problem(x, change(y), ridge=0.2, loss="squared_hinge")
    np.testing.assert_array_equal(problem.target, y.astype(float))
    np.testing.assert_allclose(problem.weights[y].sum(), 0.5)
    np.testing.assert_allclose(problem.weights.sum(), 1.0)
    np.testing.assert_allclose(problem.z, (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-5)
    assert (problem.ridge, problem.loss.name, problem.width, problem.z.dtype) == (0.2, "squared_hinge", 6, np.float32)
    weighted = make_problem(x, change(y), sample_weight=weight)
    np.testing.assert_allclose(weighted.weights, weight / np.where(y, weight @ y, weight @ ~y) / 2)
    mean = weight @ x / weight.sum()  # sample weights count in the mean and the deviation, class weights do not
    deviation = np.sqrt(weight @ (x - mean) ** 2 / weight.sum())
    np.testing.assert_allclose(weighted.z, (x - mean) / deviation, atol=1e-5)
    plain = make_problem(x, change(y), sample_weight=weight, balanced=False)
    np.testing.assert_allclose(plain.weights, weight / weight.sum())


def test_weights_are_as_repeated_rows():
    x, y, weight = table()
    again = weight.astype(int)
    for balanced in (True, False):
        weighted = make_problem(x, y, sample_weight=weight, balanced=balanced)
        repeated = make_problem(np.repeat(x, again, axis=0), np.repeat(y, again), balanced=balanced)
        one, other = (problem.fit(np.array([0, 3])) for problem in (weighted, repeated))
        assert one.objective == pytest.approx(other.objective, rel=1e-6)
        np.testing.assert_allclose(one.coefficients, other.coefficients, rtol=1e-5)


def test_a_regression_keeps_its_target_and_is_not_balanced():
    x, _, weight = table()
    target = 3 * x[:, 0] - 7
    problem = make_problem(x, target, loss="squared_error", sample_weight=weight)
    np.testing.assert_array_equal(problem.target, target)
    np.testing.assert_allclose(problem.weights, weight / weight.sum())
    integers = make_problem(x, np.arange(60), loss="squared_error")
    np.testing.assert_array_equal(integers.target, np.arange(60.0))


def test_a_problem_that_cannot_be_made_is_explained():
    x, y, weight = table()
    cases = [
        ({"loss": "hinge"}, "there is no loss 'hinge': choose one of logistic, squared_hinge, squared_error"),
        ({"y": 2.0 * y - 1}, r"logistic needs labels 0 and 1 \(or booleans\), not \[-1.0, 1.0\]: encode"),
        ({"y": np.arange(60)}, r"not \[0.0, 1.0, 2.0, 3.0, 4.0\]: encode the classes"),
        ({"y": np.where(y, 1.0, np.nan)}, r"needs labels 0 and 1 \(or booleans\), not \["),
        ({"sample_weight": -weight}, "weights must be finite, not negative, and not all zero"),
        ({"sample_weight": 0 * weight}, "weights must be finite, not negative, and not all zero"),
        ({"sample_weight": np.where(y, 1.0, np.inf)}, "weights must be finite, not negative, and not all zero"),
        ({"sample_weight": np.where(y, 1.0, np.nan)}, "weights must be finite, not negative, and not all zero"),
        ({"y": np.ones(60)}, "all rows with weight belong to one class"),
        ({"sample_weight": weight * y}, "all rows with weight belong to one class"),
    ]
    for change, match in cases:
        with pytest.raises(InputError, match=match) as caught:
            make_problem(**{"x": x, "y": y, **change})
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("gamma", [0.5, 20.0])
def test_the_papers_objective_has_the_same_optimum(loss, gamma):
    x, y, _ = table()
    n, columns = len(x), [1, 2, 4]
    problem = make_problem(x, y, ridge=paper_ridge(gamma, n), loss=loss, balanced=False)
    scaled, sign = (x / (10 * x.std(axis=0)))[:, columns], 2.0 * y - 1

    def papers(beta: np.ndarray) -> float:
        margin = sign * (scaled @ beta[:3] + beta[3])
        values = np.logaddexp(0.0, -margin) if loss == "logistic" else np.maximum(0.0, 1 - margin) ** 2
        return values.sum() + beta[:3] @ beta[:3] / (2 * gamma)

    found = minimize(papers, np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    fit = problem.fit(np.array(columns))
    assert found.fun == pytest.approx(n * fit.objective, rel=1e-6)
    np.testing.assert_allclose(found.x[:3], 10 * fit.coefficients, atol=1e-3)


def test_the_papers_order_of_supports_is_kept():
    """The best pair by the paper's objective, written out, is the best pair of the problem."""
    x, y, _ = table(3)
    problem = make_problem(x, y, ridge=paper_ridge(2.0, 60), balanced=False)
    scaled, sign = (x - x.mean(axis=0)) / (10 * x.std(axis=0)), 2.0 * y - 1

    def cost(pair: tuple[int, ...]) -> float:
        def papers(beta: np.ndarray) -> float:
            return np.logaddexp(0.0, -sign * (scaled[:, pair] @ beta[:2] + beta[2])).sum() + beta[:2] @ beta[:2] / 4

        return float(minimize(papers, np.zeros(3), method="BFGS").fun)

    best = min(combinations(range(6), 2), key=cost)
    assert 60 * brute_force(problem, 2) == pytest.approx(cost(best), rel=1e-6)
    found = bounded_selections(problem, "exact", [2], np.random.default_rng(0))[2]
    assert found.support.tolist() == list(best)


def test_a_gamma_that_is_no_gamma_is_refused():
    assert paper_ridge(10.0, 1_000) == pytest.approx(0.01)
    for gamma, rows in ((0.0, 10), (-1.0, 10), (np.nan, 10), (1.0, 0)):
        with pytest.raises(
            InputError, match=f"gamma = {gamma:g} with {rows} rows is not possible: both must be above 0"
        ):
            paper_ridge(gamma, rows)


def test_constant_columns_never_help():
    x, y, _ = table()
    x[:, 2] = 4.2
    problem = make_problem(x, y)
    assert not problem.z[:, 2].any()
    assert relax(problem, 2).squares[2] == 0.0
    np.testing.assert_array_equal(problem.z, standardise(x)[0])
