"""Row weights of a fit: class balance, sample weights, and what is wrong with them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from sparse_probing.errors import InputError


def balanced_weights(positive: Bool[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Weight of each row, n_class-balanced: both classes sum to 1/2."""
    n1 = positive.sum()
    return np.where(positive, 0.5 / n1, 0.5 / (len(positive) - n1))


def row_weights(
    target: Float[np.ndarray, " row"],
    sample_weight: Float[np.ndarray, " row"] | None = None,
    *,
    balance_classes: bool,
) -> Float[np.ndarray, " row"]:
    """Weights that sum to 1; with `balance_classes` each class of the target sums to the same share.

    Raises:
        InputError: a weight that is negative or not finite, or a class (or everything) without weight.
    """
    weight = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(weight) | (weight < 0))
    if len(bad):
        raise InputError(
            f"sample weight of row {bad[0]} is {weight[bad[0]]}: weights must be finite and not negative; use 0 to leave a row out."
        )
    if weight.sum() <= 0:
        raise InputError("all sample weights are 0: nothing to fit. Leave sample_weight out to count every row once.")
    if not balance_classes:
        return weight / weight.sum()
    names, member = np.unique(target, return_inverse=True)
    totals = np.bincount(member, weights=weight)
    if (totals <= 0).any():
        raise InputError(f"class {names[totals <= 0][0]} has weight 0 in total: a probe needs rows of every class.")
    return weight / totals[member] / len(names)
