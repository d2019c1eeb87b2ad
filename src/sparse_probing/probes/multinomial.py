"""Multinomial logistic probe: several classes read from one shared set of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp, softmax

from sparse_probing.errors import SolverError
from sparse_probing.probes.newton import GRADIENT_TOLERANCE, MOST_STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class MultinomialFit:
    """Minimiser of `-sum_i c_i log softmax(x_i B + b0)[class_i] + ridge/2 |B|^2`."""

    coefficients: Float[np.ndarray, "class column"]
    intercepts: Float[np.ndarray, " class"]
    """Sum to 0: only their differences matter."""
    objective: float
    gradient_norm: float
    iterations: int


def fit_multinomial(
    x: Float[np.ndarray, "row column"],
    classes: Int[np.ndarray, " row"],
    weights: Float[np.ndarray, " row"],
    ridge: float,
    start: MultinomialFit | None = None,
    tolerance: float = GRADIENT_TOLERANCE,
) -> MultinomialFit:
    """Newton with conjugate gradients, in float64 to a certified gradient. Cost O(row * column * class) per product.

    Args:
        x: standardised columns.
        classes: 0 .. C-1, each present.
        weights: not negative, sum to 1.
        ridge: weight of `|B|^2 / 2`, above 0; intercepts are free.
        start: fit to begin from, on the same columns.
        tolerance: of the gradient's largest entry.

    Raises:
        SolverError: the gradient did not fall below the tolerance within 200 steps.
    """
    n, k = x.shape
    design = np.column_stack([np.asarray(x, dtype=np.float64), np.ones(n)])
    n_classes = int(classes.max()) + 1
    truth = np.eye(n_classes)[classes]
    penalty = np.append(np.full(k, ridge), 0.0)[:, None]
    beta = np.zeros((k + 1, n_classes))
    if start is not None:
        beta[:k], beta[k] = start.coefficients.T, start.intercepts

    def value(eta: np.ndarray, b: np.ndarray) -> float:
        return float(weights @ (logsumexp(eta, axis=1) - eta[np.arange(n), classes]) + 0.5 * (penalty * b**2).sum())

    eta = design @ beta
    now, norm = value(eta, beta), np.inf
    for iteration in range(1, MOST_STEPS + 1):
        chance = softmax(eta, axis=1)
        gradient = design.T @ (weights[:, None] * (chance - truth)) + penalty * beta
        norm = float(np.abs(gradient).max())
        if norm <= tolerance:
            return MultinomialFit(
                coefficients=beta[:k].T, intercepts=beta[k], objective=now, gradient_norm=norm, iterations=iteration
            )
        step = _direction(design, weights[:, None] * chance, chance, penalty, gradient)
        step[k] -= step[k].mean()  # a constant added to all intercepts changes nothing
        step_eta = design @ step
        size, slope = 1.0, float((gradient * step).sum())
        while (
            trial := value(eta - size * step_eta, beta - size * step)
        ) > now - 1e-4 * size * slope + 1e-15 and size > 1e-10:
            size *= 0.5
        beta, eta, now = beta - size * step, eta - size * step_eta, trial
    raise SolverError(
        f"multinomial fit on {k} columns stopped at gradient {norm:.1e}, above {tolerance:.0e}: raise the ridge, or "
        "standardise the columns."
    )


def _direction(
    design: np.ndarray, weighted: np.ndarray, chance: np.ndarray, penalty: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """Newton direction by conjugate gradients, each parameter scaled by its own curvature."""
    diagonal = (design**2).T @ (weighted * (1.0 - chance)) + penalty + 1e-10

    def product(v: np.ndarray) -> np.ndarray:
        rows = design @ v
        mixed = (chance * rows).sum(axis=1, keepdims=True)
        return design.T @ (weighted * (rows - mixed)) + (penalty + 1e-10) * v

    step, residual = np.zeros_like(gradient), gradient.copy()
    scaled = residual / diagonal
    direction, square = scaled.copy(), float((residual * scaled).sum())
    size = np.sqrt(square)
    goal = size * min(0.1, float(np.sqrt(size)))
    for _ in range(10 * gradient.size):
        if np.sqrt(square) <= goal:
            break
        curved = product(direction)
        rate = square / float((direction * curved).sum())
        step += rate * direction
        residual -= rate * curved
        scaled = residual / diagonal
        square, before = float((residual * scaled).sum()), square
        direction = scaled + square / before * direction
    return step
