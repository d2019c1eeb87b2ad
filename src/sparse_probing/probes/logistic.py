"""Class-balanced logistic regression with a ridge, solved to a certified gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit

from sparse_probing.errors import SolverError

SMALL_RIDGE = 1e-3
"""Ridge of the refit on a chosen support: just enough to keep the coefficients of separable data finite."""
GRADIENT_TOLERANCE = 1e-8
"""Largest entry of the gradient of the mean loss, per standardised column."""
DENSE_TOLERANCE = 1e-5
"""The same for probes on all columns, where L-BFGS is used and Newton steps would cost column^3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticFit:
    """Minimiser of `sum_i c_i log(1 + exp(-s_i (x_i b + b0))) + ridge/2 |b|^2`."""

    coefficients: Float[np.ndarray, " column"]
    intercept: float
    objective: float
    """Value at the minimum, nats; each class has total weight 1/2."""
    gradient_norm: float
    """Largest absolute entry of the gradient at the returned point."""
    iterations: int


def balanced_weights(positive: Bool[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Weight of each row, n_class-balanced: both classes sum to 1/2."""
    n1 = positive.sum()
    return np.where(positive, 0.5 / n1, 0.5 / (len(positive) - n1))


def fit_logistic(
    x: Float[np.ndarray, "row column"],
    positive: Bool[np.ndarray, " row"],
    ridge: float,
    start: tuple[Float[np.ndarray, " column"], float] | None = None,
) -> LogisticFit:
    """Damped Newton in float64; the intercept is free and not penalised. Cost O(row * column^2) per step, about 6 steps.

    Args:
        x: standardised columns.
        positive: labels; both classes must be present.
        ridge: weight of `|b|^2 / 2`, above 0.
        start: coefficients and intercept to begin from.

    Raises:
        SolverError: the gradient did not fall below the tolerance (1e-8) within 100 steps.
    """
    n, k = x.shape
    design = np.column_stack([np.asarray(x, dtype=np.float64), np.ones(n)])
    penalty = np.append(np.full(k, ridge), 0.0)
    weights, sign = balanced_weights(positive), np.where(positive, 1.0, -1.0)
    beta = np.zeros(k + 1) if start is None else np.append(start[0], start[1])

    def value_at(b: np.ndarray) -> float:
        return float(weights @ np.logaddexp(0.0, -sign * (design @ b)) + 0.5 * penalty @ b**2)

    value, norm = value_at(beta), np.inf
    for iteration in range(1, 101):
        chance = expit(design @ beta)
        gradient = design.T @ (weights * (chance - positive)) + penalty * beta
        norm = float(np.abs(gradient).max())
        if norm <= GRADIENT_TOLERANCE:
            return LogisticFit(
                coefficients=beta[:k],
                intercept=float(beta[k]),
                objective=value,
                gradient_norm=norm,
                iterations=iteration,
            )
        curvature = design.T @ ((weights * chance * (1.0 - chance))[:, None] * design)
        curvature[np.diag_indices(k + 1)] += penalty + 1e-12
        step = cho_solve(cho_factor(curvature), gradient)
        size, slope = 1.0, float(gradient @ step)
        while (trial := value_at(beta - size * step)) > value - 1e-4 * size * slope + 1e-15 and size > 1e-10:
            size *= 0.5
        beta, value = beta - size * step, trial
    raise SolverError(
        f"logistic fit on {k} columns stopped at gradient {norm:.1e}, above {GRADIENT_TOLERANCE}: raise the ridge."
    )


def fit_dense_logistic(
    x: Float[np.ndarray, "row column"],
    positive: Bool[np.ndarray, " row"],
    ridge: float,
    start: tuple[Float[np.ndarray, " column"], float] | None = None,
) -> LogisticFit:
    """The same problem on all columns of a layer by L-BFGS: no column^2 matrix is formed. Cost O(row * column) per step.

    Raises:
        SolverError: the gradient did not fall below the tolerance (1e-5).
    """
    x = np.asarray(x, dtype=np.float64)
    weights, sign = balanced_weights(positive), np.where(positive, 1.0, -1.0)

    def value_and_gradient(b: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ b[:-1] + b[-1])
        pull = -weights * sign * expit(-margin)
        value = weights @ np.logaddexp(0.0, -margin) + 0.5 * ridge * b[:-1] @ b[:-1]
        return float(value), np.append(x.T @ pull + ridge * b[:-1], pull.sum())

    first = np.zeros(x.shape[1] + 1) if start is None else np.append(start[0], start[1])
    options = {"maxiter": 5_000, "maxfun": 10_000, "gtol": DENSE_TOLERANCE / 2, "ftol": 0.0, "maxcor": 20}
    found = minimize(value_and_gradient, first, jac=True, method="L-BFGS-B", options=options)
    norm = float(np.abs(found.jac).max())
    if norm > DENSE_TOLERANCE:
        raise SolverError(
            f"dense logistic fit stopped at gradient {norm:.1e}, above {DENSE_TOLERANCE}: raise the ridge."
        )
    return LogisticFit(
        coefficients=found.x[:-1],
        intercept=float(found.x[-1]),
        objective=float(found.fun),
        gradient_norm=norm,
        iterations=int(found.nit),
    )
