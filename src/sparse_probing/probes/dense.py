"""Probes on all columns, for many labels at once: Newton with conjugate gradients, every product shared by the labels.

No column^2 and no row^2 matrix is formed, so a layer may be wider than it has rows or the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparse_probing.errors import SolverError
from sparse_probing.probes.losses import LOGISTIC, Loss
from sparse_probing.probes.newton import LinearFits

DENSE_TOLERANCE = 1e-5
"""Largest entry of the gradient, per standardised column."""
MOST_NEWTON_STEPS = 100
MOST_CG_STEPS = 500
BLOCK = 1_024
"""Rows that are converted to float64 at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedColumns:
    """Standardised columns of several problems over one float32 matrix, never written out: `(x - mean_f) / scale_f`."""

    x: Float[np.ndarray, "row column"]
    """Centred roughly, so that subtracting the means loses no digits."""
    mean: Float[np.ndarray, "problem column"]
    scale: Float[np.ndarray, "problem column"]

    def forward(self, b: Float[np.ndarray, "problem column"], *, exact: bool) -> Float[np.ndarray, "problem row"]:
        """Standardised columns times coefficients."""
        raw = b / self.scale
        shift = (raw * self.mean).sum(axis=1)[:, None]
        if not exact:
            return (raw.astype(np.float32) @ self.x.T).astype(np.float64) - shift
        return np.concatenate([raw @ block.T for block in self._blocks()], axis=1) - shift

    def adjoint(self, r: Float[np.ndarray, "problem row"], *, exact: bool) -> Float[np.ndarray, "problem column"]:
        """Row values times standardised columns."""
        if exact:
            total = np.zeros((len(r), self.x.shape[1]))
            for number, block in enumerate(self._blocks()):
                total += r[:, number * BLOCK : (number + 1) * BLOCK] @ block
        else:
            total = (r.astype(np.float32) @ self.x).astype(np.float64)
        return (total - r.sum(axis=1)[:, None] * self.mean) / self.scale

    def _blocks(self) -> Iterator[np.ndarray]:
        for at in range(0, len(self.x), BLOCK):
            yield self.x[at : at + BLOCK].astype(np.float64)


def fit_dense(
    columns: SharedColumns,
    target: Float[np.ndarray, "problem row"],
    weights: Float[np.ndarray, "problem row"],
    ridge: float,
    loss: Loss = LOGISTIC,
    start: tuple[Float[np.ndarray, "problem column"], Float[np.ndarray, " problem"]] | None = None,
) -> LinearFits:
    """Minimise `sum_i c_i l(z_i b + b0, t_i) + ridge/2 |b|^2` for every problem, the intercept free.

    Curvature products run in float32: they only steer. Values and gradients, which decide, are float64.
    Cost O(problem * row * column) per conjugate-gradient step, as matrix products over all problems.

    Args:
        columns: the standardised columns.
        target: 0 or 1 for classes, any number for regression.
        weights: sum to 1 per problem; 0 leaves a row out.
        ridge: above 0.
        loss: what to minimise.
        start: coefficients and intercepts to begin from.

    Raises:
        SolverError: a gradient did not fall below the tolerance (1e-5) within 100 Newton steps.
    """
    n_problems, p = len(target), columns.x.shape[1]
    b = np.zeros((n_problems, p)) if start is None else start[0].copy()
    b0 = np.zeros(n_problems) if start is None else start[1].copy()
    if start is None and not loss.classes:
        b0 = (weights * target).sum(axis=1)

    def value(eta: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        return (weights * loss.value(eta, target)).sum(axis=1) + 0.5 * ridge * (coefficients**2).sum(axis=1)

    eta = columns.forward(b, exact=True) + b0[:, None]
    now = value(eta, b)
    norm = np.full(n_problems, np.inf)
    for iteration in range(1, MOST_NEWTON_STEPS + 1):
        pull = weights * loss.slope(eta, target)
        gradient, gradient0 = columns.adjoint(pull, exact=True) + ridge * b, pull.sum(axis=1)
        norm = np.maximum(np.abs(gradient).max(axis=1), np.abs(gradient0))
        if (norm <= DENSE_TOLERANCE).all():
            return LinearFits(coefficients=b, intercept=b0, objective=now, gradient_norm=norm, iterations=iteration)
        going = norm > DENSE_TOLERANCE
        curvature = weights * loss.curvature(eta, target)
        step, step0 = _conjugate_gradients(columns, curvature, ridge, gradient, gradient0, going)
        step_eta = columns.forward(step, exact=True) + step0[:, None]
        slope = (gradient * step).sum(axis=1) + gradient0 * step0
        size = going.astype(float)
        while True:
            trial, trial_eta = b - size[:, None] * step, eta - size[:, None] * step_eta
            new = value(trial_eta, trial)
            short = (new > now - 1e-4 * size * slope + 1e-14) & (size > 1e-10)
            if not short.any():
                break
            size[short] *= 0.5
        b, b0, eta, now = trial, b0 - size * step0, trial_eta, new
    raise SolverError(
        f"dense {loss.name} fit stopped at gradient {norm.max():.1e}, above {DENSE_TOLERANCE}: raise the ridge."
    )


def _conjugate_gradients(
    columns: SharedColumns,
    curvature: np.ndarray,
    ridge: float,
    gradient: np.ndarray,
    gradient0: np.ndarray,
    going: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Newton direction of each problem, as exact as it pays: the residual falls to a tenth, later to less (Nocedal & Wright, 7.1).

    The intercept is eliminated: for given coefficients the best intercept step follows from one division.
    """
    total = curvature.sum(axis=1) + 1e-12

    def product(v: np.ndarray) -> np.ndarray:
        rows = columns.forward(v, exact=False)
        rows -= ((curvature * rows).sum(axis=1) / total)[:, None]
        return columns.adjoint(curvature * rows, exact=False) + ridge * v

    mean = columns.adjoint(curvature, exact=False) / total[:, None]
    residual = np.where(going[:, None], gradient - gradient0[:, None] * mean, 0.0)
    size = np.linalg.norm(residual, axis=1)
    goal = size * np.minimum(0.1, np.sqrt(size))
    step, direction, square = np.zeros_like(residual), residual.copy(), size**2
    for _ in range(MOST_CG_STEPS):
        open_ = np.sqrt(square) > goal
        if not open_.any():
            break
        curved = product(direction)
        along = (direction * curved).sum(axis=1)
        rate = np.where(open_ & (along > 0), square / np.where(along > 0, along, 1.0), 0.0)
        step += rate[:, None] * direction
        residual -= rate[:, None] * curved
        following = np.where(open_, (residual**2).sum(axis=1), square)
        direction = residual + (following / np.where(square > 0, square, 1.0))[:, None] * direction
        square = following
    step0 = gradient0 / total - (mean * step).sum(axis=1)
    return step, np.where(going, step0, 0.0)
