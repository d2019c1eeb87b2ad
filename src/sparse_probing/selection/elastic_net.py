"""Elastic-net probes by proximal Newton, and the two selectors made of them: the paper's shrinking schedule and the L1 path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.compiled import compiled
from sparse_probing.errors import SolverError
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.schedule import DEFAULT_KS
from sparse_probing.selection.supports import Supports

KKT_TOLERANCE = 1e-6
"""Largest violation of the optimality conditions, in the gradient of the mean loss per standardised column."""
MOST_STEPS = 100
PATH_RATIO = 0.9
"""Each penalty of the L1 path over the one before."""
PATH_END = 1e-4
"""Smallest penalty of the L1 path over the one that empties the probe; columns that it never admits follow by their gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticNetFit:
    """Minimiser of `sum_i c_i l(z_i b + b0, t_i) + l1 |b|_1 + l2/2 |b|^2` on some columns."""

    columns: Int[np.ndarray, " column"]
    coefficients: Float[np.ndarray, " column"]
    intercept: float
    violation: float
    """Largest violation of the optimality conditions."""
    steps: int


def fit_elastic_net(
    problem: Problem,
    columns: Int[np.ndarray, " column"],
    l1: float,
    l2: float,
    start: tuple[Float[np.ndarray, " column"], float] | None = None,
) -> ElasticNetFit:
    """Proximal Newton: coordinate descent on the quadratic model, a line search on the objective itself.

    The model's curvature is summed in float32; the optimality conditions, which decide, are float64.

    Args:
        problem: rows, loss and weights; its ridge is not used.
        columns: that may enter.
        l1: weight of the sum of |b|.
        l2: weight of half the sum of b^2.
        start: coefficients and intercept to begin from.

    Raises:
        SolverError: the optimality conditions were not met to 1e-6 within 100 steps.
    """
    k = len(columns)
    z32 = np.ascontiguousarray(problem.z[:, columns])
    z = z32.astype(np.float64)
    loss, weights, target = problem.loss, problem.weights, problem.target
    beta, intercept = (np.zeros(k), 0.0) if start is None else (start[0].copy(), start[1])
    eta = z @ beta + intercept

    def value(eta: np.ndarray, b: np.ndarray) -> float:
        return float(weights @ loss.value(eta, target) + l1 * np.abs(b).sum() + 0.5 * l2 * b @ b)

    now, violation = value(eta, beta), np.inf
    for step in range(1, MOST_STEPS + 1):
        pull = weights * loss.slope(eta, target)
        gradient, gradient0 = z.T @ pull + l2 * beta, float(pull.sum())
        at_zero = np.maximum(np.abs(gradient) - l1, 0.0)
        violation = max(
            abs(gradient0), float(np.where(beta == 0, at_zero, np.abs(gradient + l1 * np.sign(beta))).max(initial=0.0))
        )
        if violation <= KKT_TOLERANCE:
            return ElasticNetFit(
                columns=columns, coefficients=beta, intercept=intercept, violation=violation, steps=step
            )
        curvature = weights * loss.curvature(eta, target)
        total = curvature.sum() + 1e-12
        mean = z.T @ curvature / total
        root = np.sqrt(curvature).astype(np.float32)[:, None] * z32
        hessian = (root.T @ root).astype(np.float64) - total * np.outer(
            mean, mean
        )  # the intercept follows the coefficients
        hessian[np.arange(k), np.arange(k)] += l2 + 1e-9
        move = np.zeros(k)
        _coordinate_descent(hessian, gradient - gradient0 * mean, beta, l1, move, 0.1 * violation)
        move0 = -gradient0 / total - float(mean @ move)
        move_eta = z @ move + move0
        promise = float(gradient @ move + gradient0 * move0 + l1 * (np.abs(beta + move).sum() - np.abs(beta).sum()))
        size = 1.0
        while (
            trial := value(eta + size * move_eta, beta + size * move)
        ) > now + 1e-4 * size * promise + 1e-15 and size > 1e-10:
            size *= 0.5
        beta, intercept, eta, now = beta + size * move, intercept + size * move0, eta + size * move_eta, trial
    raise SolverError(
        f"elastic net on {k} columns stopped at violation {violation:.1e}, above {KKT_TOLERANCE}: use a stronger penalty."
    )


@compiled
def _coordinate_descent(hessian, gradient, beta, l1, move, tolerance):
    """Minimise `g d + d H d / 2 + l1 |beta + d|` over d, one coordinate at a time, until no coordinate's slope moves by more."""
    k = len(beta)
    slope = gradient.copy()
    for _ in range(1_000):
        largest = 0.0
        for j in range(k):
            curve = hessian[j, j]
            old = beta[j] + move[j]
            raw = old - slope[j] / curve
            new = np.sign(raw) * max(abs(raw) - l1 / curve, 0.0)
            change = new - old
            if change != 0.0:
                move[j] += change
                largest = max(largest, abs(change) * curve)
                for i in range(k):
                    slope[i] += hessian[i, j] * change
        if largest <= tolerance:
            return


def shrinking_fits(
    problem: Problem, score: Float[np.ndarray, " column"], ks: Sequence[int]
) -> dict[int, ElasticNetFit]:
    """The paper's adaptive thresholding, with its own fits: from many columns to few, the survivors of each fit enter the next.

    Begins with the 256 columns of largest |score| (all, where there are fewer), whatever sizes are wanted, and follows the
    default schedule and the wanted sizes. For each k from large to small: keep the k columns of largest
    |coefficient| of the previous fit, then fit an elastic-net logistic regression on them with C = k/20 and
    l1_ratio = clip(exp(-k/20), 0.1, 0.9). Supports are nested. Source: paper, section on feature selection
    (`telescopic_sparsity_sweep` in its repository). Its columns have standard deviation 0.1 and its loss is a sum over rows;
    the penalties here are the same in units of standardised columns and the mean loss.

    Args:
        problem: rows, labels and weights.
        score: ranking that chooses the first support.
        ks: sizes wanted.
    """
    n = len(problem.target)
    fits: dict[int, ElasticNetFit] = {}
    columns, size = np.arange(problem.width), np.abs(score).astype(np.float64)
    tie_break = np.abs(score) / (1.0 + np.abs(score).max(initial=0.0))
    warm, intercept = np.zeros(problem.width), 0.0
    schedule = {k for k in DEFAULT_KS if min(ks) < k <= problem.width}
    for k in sorted(schedule | set(ks), reverse=True):
        kept = np.sort(np.argsort(-size, kind="stable")[:k])
        columns, warm = columns[kept], warm[kept]
        ratio = float(np.clip(np.exp(-k / 20.0), 0.1, 0.9))
        strength = 20.0 / k / n
        fit = fit_elastic_net(problem, columns, 10 * strength * ratio, 100 * strength * (1 - ratio), (warm, intercept))
        if k in ks:
            fits[k] = fit
        warm, intercept = fit.coefficients, fit.intercept
        # columns that the penalty emptied are ordered by their ranking score, behind all others
        size = np.where(warm != 0, 1.0 + np.abs(warm), tie_break[columns])
    return fits


def shrinking_elastic_net(problem: Problem, score: Float[np.ndarray, " column"], ks: Sequence[int]) -> Supports:
    """Supports of `shrinking_fits`."""
    return {k: fit.columns for k, fit in shrinking_fits(problem, score, ks).items()}


def l1_path(problem: Problem, ks: Sequence[int]) -> Supports:
    """For each k, the k largest coefficients at the strongest L1 penalty that admits k columns.

    Penalties fall by a tenth at a time from the one that empties the probe. Columns are screened by the sequential strong rule and
    the optimality conditions of all columns are checked at each penalty (Tibshirani et al. 2012), so nothing is missed.

    Args:
        problem: what to minimise; its ridge stays as the l2 penalty.
        ks: sizes wanted.
    """
    wanted = sorted(set(ks))
    empty = problem.fit(np.array([], dtype=int))
    pull = problem.weights * problem.loss.slope(np.full(len(problem.target), empty.intercept), problem.target)
    gradient = np.abs(pull.astype(np.float32) @ problem.z).astype(np.float64)
    largest = before = float(gradient.max(initial=0.0))
    beta, intercept = np.zeros(problem.width), empty.intercept
    supports: Supports = {}
    penalty = before * PATH_RATIO
    while wanted and penalty > PATH_END * largest:
        working = np.flatnonzero((beta != 0) | (gradient > 2 * penalty - before))
        while True:
            fit = fit_elastic_net(problem, working, penalty, problem.ridge, (beta[working], intercept))
            beta[:] = 0.0
            beta[working], intercept = fit.coefficients, fit.intercept
            eta = problem.z[:, working].astype(np.float64) @ fit.coefficients + intercept
            pull = problem.weights * problem.loss.slope(eta, problem.target)
            gradient = np.abs(pull.astype(np.float32) @ problem.z).astype(np.float64)
            missed = np.setdiff1d(np.flatnonzero(gradient > penalty + 2 * KKT_TOLERANCE), working)
            if not len(missed):
                break
            working = np.union1d(working, missed)
        while wanted and np.count_nonzero(beta) >= wanted[0]:
            supports[wanted[0]] = np.sort(np.argsort(-np.abs(beta), kind="stable")[: wanted[0]])
            wanted.pop(0)
        before, penalty = penalty, penalty * PATH_RATIO
    order = np.lexsort((-gradient, -np.abs(beta)))
    return supports | {k: np.sort(order[:k]) for k in wanted}
