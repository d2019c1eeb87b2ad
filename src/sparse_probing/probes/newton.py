"""Ridge-penalised linear probes on few columns: damped Newton for a batch of problems of equal size, with a certified gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparse_probing.errors import SolverError
from sparse_probing.probes.losses import LOGISTIC, Loss

SMALL_RIDGE = 1e-3
"""Ridge of the refit on a chosen support: just enough to keep the coefficients of separable data finite."""
GRADIENT_TOLERANCE = 1e-8
"""Largest entry of the gradient of the mean loss, per standardised column (for regression: times the target's spread)."""
MOST_STEPS = 200
SINGLE_FROM = 24
"""From so many columns the curvature is summed in float32 at half the cost: it only steers, the float64 gradient decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearFit:
    """Minimiser of `sum_i c_i l(x_i b + b0, t_i) + ridge/2 |b|^2`; the weights c sum to 1."""

    coefficients: Float[np.ndarray, " column"]
    intercept: float
    objective: float
    """Value at the minimum."""
    gradient_norm: float
    """Largest absolute entry of the gradient at the returned point."""
    iterations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearFits:
    """Minimisers of several problems of equal size."""

    coefficients: Float[np.ndarray, "problem column"]
    intercept: Float[np.ndarray, " problem"]
    objective: Float[np.ndarray, " problem"]
    gradient_norm: Float[np.ndarray, " problem"]
    iterations: int

    def __getitem__(self, problem: int) -> LinearFit:
        """One of them."""
        return LinearFit(
            coefficients=self.coefficients[problem],
            intercept=float(self.intercept[problem]),
            objective=float(self.objective[problem]),
            gradient_norm=float(self.gradient_norm[problem]),
            iterations=self.iterations,
        )


def fit_batch(
    x: Float[np.ndarray, "problem row column"],
    target: Float[np.ndarray, "problem row"],
    weights: Float[np.ndarray, "problem row"],
    ridge: float,
    loss: Loss = LOGISTIC,
    start: tuple[Float[np.ndarray, "problem column"], Float[np.ndarray, " problem"]] | None = None,
    tolerance: float = GRADIENT_TOLERANCE,
) -> LinearFits:
    """Minimise all problems together; the intercept is free and not penalised.

    Cost O(problem * row * column^2) per step, about 6 steps from zero, 2 to 3 from a good start. Problems that have converged
    take no further part. Memory: a float64 copy of `x` with one more column.

    Args:
        x: columns of each problem; standardised ones give the tolerance its meaning.
        target: 0 or 1 for classes, any number for regression.
        weights: not negative; each problem's sum to 1. A row of weight 0 does not exist.
        ridge: weight of `|b|^2 / 2`, above 0: it keeps separable data finite.
        loss: what to minimise.
        start: coefficients and intercepts to begin from.
        tolerance: of the gradient.

    Raises:
        SolverError: a gradient did not fall below the tolerance within 200 steps.
    """
    n_problems, _, k = x.shape
    design = np.empty((n_problems, x.shape[1], k + 1))
    design[:, :, :k], design[:, :, k] = x, 1.0
    coarse = design.astype(np.float32) if k >= SINGLE_FROM else design
    if start is None:
        beta = np.zeros((n_problems, k + 1))
        beta[:, k] = _first_intercepts(target, weights, loss)
    else:
        beta = np.column_stack([start[0], start[1]]).astype(float)
    penalty = np.append(np.full(k, ridge), 0.0)
    spread = np.ones(n_problems) if loss.classes else np.maximum(_spread(target, weights), 1e-300)
    objective, norm = np.full(n_problems, np.inf), np.full(n_problems, np.inf)
    open_ = np.arange(n_problems)
    d, rough, t, c = design, coarse, target, weights
    eta = _matvec(d, beta)
    value = _value(eta, t, c, beta, penalty, loss)
    for iteration in range(1, MOST_STEPS + 1):
        b = beta[open_]
        gradient = _transposed(d, c * loss.slope(eta, t)) + penalty * b
        objective[open_], norm[open_] = value, np.abs(gradient).max(axis=1)
        going = norm[open_] > tolerance * spread[open_]
        if not going.any():
            return LinearFits(
                coefficients=beta[:, :k],
                intercept=beta[:, k],
                objective=objective,
                gradient_norm=norm,
                iterations=iteration,
            )
        if not going.all():
            open_, d, rough, t, c = open_[going], d[going], rough[going], t[going], c[going]
            eta, value, b, gradient = eta[going], value[going], b[going], gradient[going]
        steering = d if iteration > MOST_STEPS // 4 else rough
        step = _newton_step(steering, c * loss.curvature(eta, t), gradient, penalty)
        step_eta = _matvec(d, step)
        slope = (gradient * step).sum(axis=1)
        slack = 1e-15 * spread[open_] ** 2
        size = np.ones(len(open_))
        while True:
            trial, trial_eta = b - size[:, None] * step, eta - size[:, None] * step_eta
            new = _value(trial_eta, t, c, trial, penalty, loss)
            short = (new > value - 1e-4 * size * slope + slack) & (size > 1e-10)
            if not short.any():
                break
            size[short] *= 0.5
        beta[open_], value, eta = trial, new, trial_eta
    worst = float((norm / spread).max())
    raise SolverError(
        f"{loss.name} fit on {k} columns stopped at gradient {worst:.1e}, above {tolerance:.0e}, after {MOST_STEPS} steps: "
        "raise the ridge, or standardise the columns."
    )


def fit_one(
    x: Float[np.ndarray, "row column"],
    target: Float[np.ndarray, " row"],
    weights: Float[np.ndarray, " row"],
    ridge: float,
    loss: Loss = LOGISTIC,
    start: LinearFit | None = None,
    tolerance: float = GRADIENT_TOLERANCE,
) -> LinearFit:
    """One problem; see `fit_batch`."""
    first = None if start is None else (start.coefficients[None], np.array([start.intercept]))
    return fit_batch(x[None], target[None], weights[None], ridge, loss, first, tolerance)[0]


def _matvec(design: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return np.matmul(design, beta[:, :, None])[:, :, 0]


def _transposed(design: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.matmul(rows[:, None, :], design)[:, 0, :]


def _value(
    eta: np.ndarray, t: np.ndarray, c: np.ndarray, beta: np.ndarray, penalty: np.ndarray, loss: Loss
) -> np.ndarray:
    return (c * loss.value(eta, t)).sum(axis=1) + 0.5 * (penalty * beta**2).sum(axis=1)


def _newton_step(design: np.ndarray, curvature: np.ndarray, gradient: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    k = design.shape[2]
    root = np.sqrt(curvature).astype(design.dtype)[:, :, None] * design
    hessian = np.matmul(root.transpose(0, 2, 1), root).astype(np.float64)
    hessian[:, np.arange(k), np.arange(k)] += (
        penalty + 1e-12
    )  # the intercept has no curvature where every margin is satisfied
    return np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]


def _first_intercepts(target: np.ndarray, weights: np.ndarray, loss: Loss) -> np.ndarray:
    return np.zeros(len(target)) if loss.classes else (weights * target).sum(axis=1)


def _spread(target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = (weights * target).sum(axis=1, keepdims=True)
    return np.sqrt((weights * (target - mean) ** 2).sum(axis=1))
