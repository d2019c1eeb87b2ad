"""The mathematical object that every selector works on: loss, weights, ridge and standardised columns. No algorithm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from sparse_probing.errors import InputError
from sparse_probing.probes.losses import LOGISTIC, LOSSES, Loss
from sparse_probing.probes.newton import GRADIENT_TOLERANCE, LinearFit, LinearFits, fit_batch, fit_one
from sparse_probing.probes.weights import row_weights
from sparse_probing.selection.defaults import SELECTION_RIDGE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """`min over |support| <= k of sum_i c_i l(z_i b + b0, t_i) + ridge/2 |b|^2`, z the columns standardised over the rows."""

    z: Float[np.ndarray, "row column"]
    """Standardised, float32, row by row. Constant columns are 0 and cannot help."""
    target: Float[np.ndarray, " row"]
    """0 and 1 for classes."""
    weights: Float[np.ndarray, " row"]
    """Sum to 1."""
    loss: Loss = LOGISTIC
    ridge: float = SELECTION_RIDGE

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.z.shape[1]

    def fit(
        self,
        support: Int[np.ndarray, " k"],
        start: LinearFit | None = None,
        tolerance: float = GRADIENT_TOLERANCE,
        ridge: float | None = None,
    ) -> LinearFit:
        """The probe on one support."""
        x = self.z[:, support].astype(np.float64)
        return fit_one(x, self.target, self.weights, ridge or self.ridge, self.loss, start, tolerance)

    def fit_supports(
        self,
        supports: Int[np.ndarray, "problem k"],
        start: tuple[Float[np.ndarray, "problem k"], Float[np.ndarray, " problem"]] | None = None,
        tolerance: float = GRADIENT_TOLERANCE,
        ridge: float | None = None,
    ) -> LinearFits:
        """Probes on several supports of equal size, as one batch."""
        x = np.ascontiguousarray(self.z[:, supports].transpose(1, 0, 2)).astype(np.float64)
        shape = (len(supports), len(self.target))
        target, weights = np.broadcast_to(self.target, shape), np.broadcast_to(self.weights, shape)
        return fit_batch(x, target, weights, ridge or self.ridge, self.loss, start, tolerance)


def make_problem(
    x: Shaped[np.ndarray, "row column"],
    y: Shaped[np.ndarray, " row"],
    *,
    ridge: float = SELECTION_RIDGE,
    loss: str = "logistic",
    sample_weight: Shaped[np.ndarray, " row"] | None = None,
    balanced: bool = True,
) -> Problem:
    """A selection problem from a matrix and labels.

    Args:
        x: numbers; columns are standardised (a float32 copy), with sample weights, without class weights.
        y: for classes booleans, or 0 and 1; for `squared_error` numbers, as they are.
        ridge: above 0; see `paper_ridge` for the paper's parameter.
        loss: `logistic`, `squared_hinge` or `squared_error`.
        sample_weight: of each row, not negative.
        balanced: both classes weigh the same.

    Raises:
        InputError: shapes, labels or weights that cannot be used.
    """
    if loss not in LOSSES:
        raise InputError(f"there is no loss {loss!r}: choose one of {', '.join(LOSSES)}.")
    n = len(x)
    weight = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if len(y) != n or len(weight) != n:
        raise InputError(f"{n} rows, but {len(y)} labels and {len(weight)} weights: give one of each per row.")
    if not (np.isfinite(ridge) and ridge > 0):
        raise InputError(f"ridge = {ridge:g} is not possible: it must be above 0.")
    if y.dtype.kind not in "biuf":
        raise InputError(f"labels must be booleans or numbers, not {y.dtype}: encode the classes as 0 and 1.")
    target = y.astype(np.float64)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    if LOSSES[loss].classes and not np.isin(target, (0.0, 1.0)).all():
        seen = np.unique(target)[:5].tolist()
        raise InputError(f"the loss {loss} needs labels 0 and 1 (or booleans), not {seen}: encode the classes.")
    if not np.isfinite(weight).all() or (weight < 0).any() or weight.sum() <= 0:
        raise InputError("weights must be finite, not negative, and not all zero: mend them, or leave them out.")
    if balanced and LOSSES[loss].classes and min(weight @ target, weight @ (1 - target)) <= 0:
        raise InputError("all rows with weight belong to one class: nothing can be told apart. Give rows of both.")
    weights = row_weights(target, weight, balance_classes=balanced and LOSSES[loss].classes)
    z, _, _ = standardise(x, weight)
    return Problem(z=z, target=target, weights=weights, loss=LOSSES[loss], ridge=float(ridge))


def paper_ridge(gamma: float, rows: int) -> float:
    """The ridge that equals the paper's regularisation parameter gamma.

    The paper (Gurnee et al. 2023, optimal sparse probing) divides columns by ten standard deviations, sums the loss over the rows
    and adds `|b|^2 / (2 gamma)`; here columns have deviation 1 and the loss is a mean, which makes it `100 / (gamma * rows)`.

    Args:
        gamma: the paper's parameter, above 0.
        rows: number of rows.

    Raises:
        InputError: a parameter that is not above 0.
    """
    if not (gamma > 0 and rows > 0):
        raise InputError(f"gamma = {gamma:g} with {rows} rows is not possible: both must be above 0.")
    return 100.0 / (gamma * rows)


def standardise(
    x: Float[np.ndarray, "row column"],
    weights: Float[np.ndarray, " row"] | None = None,
    floor: float = 0.0,
) -> tuple[Float[np.ndarray, "row column"], Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Columns with (weighted) mean 0 and standard deviation 1 as float32, and the mean and scale that were used.

    A column whose deviation is below `floor` is divided by the floor; a constant one (below 1e-6 of its root mean square,
    finer than float32 tells apart) becomes 0 and has scale 1. Works in tiles: beyond the result, memory stays flat.
    """
    n, p = x.shape
    w = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    z = np.empty((n, p), dtype=np.float32)
    mean, scale = np.empty(p), np.empty(p)
    for at in range(0, p, 1_024):
        tile = slice(at, at + 1_024)
        part = np.asarray(x[:, tile], dtype=np.float64)
        mean[tile] = w @ part
        part = part - mean[tile]
        deviation = np.sqrt(w @ part**2)
        constant = deviation <= 1e-6 * np.sqrt(deviation**2 + mean[tile] ** 2)
        scale[tile] = np.where(constant, 1.0, np.maximum(deviation, floor))
        part[:, constant] = 0.0
        z[:, tile] = part / scale[tile]
    return z, mean, scale
