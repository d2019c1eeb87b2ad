"""Mutual information between a unit's binned activation and a binary label."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import xlogy

BINS = 16


def mutual_information(
    x: Float[np.ndarray, "row unit"],
    positive: Bool[np.ndarray, "row feature"],
    eligible: Bool[np.ndarray, "row feature"],
    bins: int = BINS,
    weight: Float[np.ndarray, " row"] | None = None,
) -> Float[np.ndarray, "feature unit"]:
    """Plug-in mutual information in nats, over equal-frequency bins of each unit.

    Bin edges are quantiles over all rows, the counts are per feature; ties fall into one bin, so a constant unit scores 0. The
    plug-in estimate is biased upwards by about (bins - 1) / (2 n) for every unit alike, which leaves the order unharmed.
    The paper uses the k-nearest-neighbour estimate (section on feature ranking); binning treats all units in one pass.
    """
    edges = _edges(x, bins, weight)
    w = np.float32(1.0) if weight is None else weight.astype(np.float32)
    code = np.zeros(x.shape, dtype=np.int8)
    for edge in edges:
        code += x > edge
    p = (positive & eligible).T * w
    e = eligible.T * w
    n = e.sum(axis=1, dtype=np.float64)[:, None]
    n1 = p.sum(axis=1, dtype=np.float64)[:, None]
    total = np.zeros((p.shape[0], x.shape[1]))
    for value in range(bins):
        member = (code == value).astype(np.float32)  # counts below 2**24 are exact in float32
        in_bin = (e @ member).astype(np.float64)
        in_class = (p @ member).astype(np.float64)
        total += _term(in_class, in_bin, n1, n) + _term(in_bin - in_class, in_bin, n - n1, n)
    return np.maximum(total, 0.0)


def _edges(x: np.ndarray, bins: int, weight: np.ndarray | None) -> np.ndarray:
    """Quantiles of each unit over the rows, without interpolation; a row of weight 2 counts as two."""
    if weight is None:
        return np.quantile(x, np.arange(1, bins) / bins, axis=0, method="lower")
    order = np.argsort(x, axis=0, kind="stable")
    reached = np.cumsum(weight[order], axis=0)
    at = np.floor((weight.sum() - 1) * np.arange(1, bins) / bins)
    first = np.stack([(reached <= a).sum(axis=0) for a in at])
    return np.take_along_axis(np.take_along_axis(x, order, axis=0), np.minimum(first, len(x) - 1), axis=0)


def _term(joint: np.ndarray, in_bin: np.ndarray, in_class: np.ndarray, n: np.ndarray) -> np.ndarray:
    return (xlogy(joint, joint) - xlogy(joint, in_bin) - xlogy(joint, in_class) + xlogy(joint, n)) / n
