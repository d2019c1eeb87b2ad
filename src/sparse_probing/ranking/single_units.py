"""Every unit as a classifier of its own: exact ROC-AUC, average precision and best F1, and a floor under its logistic loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from sparse_probing.compiled import compiled
from sparse_probing.ranking.statistics import ClassMoments

BINS = 64
"""Groups of rows by rank, for the floor under the loss."""
UNITS = 256
"""Units sorted at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleUnitScores:
    """Scores of each unit alone, over all thresholds, in both directions; axis 0: higher in class, lower in class."""

    roc_auc: Float[np.ndarray, "2 feature unit"]
    """Chance that a positive row lies on the right side of a negative one; ties count one half. The directions sum to 1."""
    average_precision: Float[np.ndarray, "2 feature unit"]
    """Sum of precision times the step in recall; equal values form one step."""
    f1: Float[np.ndarray, "2 feature unit"]
    """F1 at the best threshold."""
    loss_floor: Float[np.ndarray, "feature unit"] | None
    """No logistic probe on this unit alone has a smaller objective."""


def single_unit_scores(
    x: Float[np.ndarray, "row unit"],
    positive: Bool[np.ndarray, "row feature"],
    eligible: Bool[np.ndarray, "row feature"],
    weight: Float[np.ndarray, " row"] | None = None,
    *,
    moments: ClassMoments | None = None,
    scale_floor: float = 0.0,
    ridge: float = 0.0,
) -> SingleUnitScores:
    """One sort per unit serves all features. Cost O(unit * row * (log row + feature)); nothing is sampled or binned for the scores.

    With `moments` also a floor under the class-balanced logistic objective of each unit alone: rows are grouped by rank into 64
    bins, and within a bin each class is replaced by its mean. The loss is convex in the activation, so that (Jensen) the
    objective on the means lies below the objective on the rows at every coefficient, hence at the best one.

    Args:
        x: activations, any float type.
        positive: which rows carry which feature.
        eligible: which rows count for which feature; each feature needs rows of both classes.
        weight: of each row, not negative; 1 when null.
        moments: of the same rows, for the floor.
        scale_floor: smallest standard deviation used to standardise a unit, for the floor.
        ridge: of the objective, on the standardised unit, above 0 with `moments`.
    """
    n, p = x.shape
    n_features = positive.shape[1]
    w = np.ones(n) if weight is None else weight.astype(np.float64)
    side = (
        np.where(eligible, np.where(positive, 1, 2), 0).astype(np.int8).T.copy()
    )  # per feature: 1 in class, 2 not, 0 no row
    roc, precision, f1 = (np.zeros((2, n_features, p)) for _ in range(3))
    floor = None if moments is None else np.zeros((n_features, p))
    for at in range(0, p, UNITS):
        columns = np.ascontiguousarray(np.asarray(x[:, at : at + UNITS]).T)
        keys = columns.astype(np.float32) if columns.dtype == np.float16 else columns
        order = np.argsort(keys, axis=1)[:, ::-1].astype(np.int32)
        values = np.take_along_axis(columns, order, axis=1).astype(np.float64)
        end = at + len(columns)
        _scan(order, values, side, w, roc[:, :, at:end], precision[:, :, at:end], f1[:, :, at:end])
        if moments is not None and floor is not None:
            mean = np.ascontiguousarray(moments.mean[:, at:end])
            scale = np.maximum(np.sqrt(moments.variance[:, at:end]), max(scale_floor, 1e-300))
            _floors(order, values, side, w, mean, scale, ridge, floor[:, at:end])
    return SingleUnitScores(roc_auc=roc, average_precision=precision, f1=f1, loss_floor=floor)


@compiled
def _totals(side, weight):
    p, q = 0.0, 0.0
    for row in range(len(side)):
        if side[row] == 1:
            p += weight[row]
        elif side[row] == 2:
            q += weight[row]
    return p, q


@compiled
def _scan(order, values, side, weight, roc, precision, f1):
    """From the largest value down; a step ends where the value changes. What is *called* in the other direction is the rest."""
    n_units, n = order.shape
    last = np.ones(n, dtype=np.bool_)
    for f in range(len(side)):
        p, q = _totals(side[f], weight)
        for u in range(n_units):
            for i in range(n - 1):
                last[i] = values[u, i] != values[u, i + 1]
            tp, fp, dp, dq, area = 0.0, 0.0, 0.0, 0.0, 0.0
            down, up, best_down, best_up = 0.0, 0.0, 0.0, 0.0
            for i in range(n):
                row = order[u, i]
                if side[f, row] == 1:
                    dp += weight[row]
                elif side[f, row] == 2:
                    dq += weight[row]
                if not last[i]:
                    continue
                area += dq * (tp + 0.5 * dp)
                if dp > 0.0:
                    rest_p, rest = p - tp, p - tp + q - fp
                    up += dp * rest_p / rest
                    best_up = max(best_up, rest_p / (rest + p))
                    tp += dp
                    called = tp + fp + dq
                    down += dp * tp / called
                    best_down = max(best_down, tp / (called + p))
                    dp = 0.0
                fp += dq
                dq = 0.0
            roc[0, f, u] = area / (p * q)
            roc[1, f, u] = 1.0 - area / (p * q)
            precision[0, f, u], precision[1, f, u] = down / p, up / p
            f1[0, f, u], f1[1, f, u] = 2.0 * best_down, 2.0 * best_up


@compiled
def _floors(order, values, side, weight, mean, scale, ridge, floor):
    """Newton on the bin means, until a full step could gain less than 1e-10; the floor lies 1e-9 lower."""
    n_units, n = order.shape
    count, centre = np.zeros(2 * BINS), np.zeros(2 * BINS)
    for f in range(len(side)):
        p, q = _totals(side[f], weight)
        for u in range(n_units):
            count[:] = 0.0
            centre[:] = 0.0
            for i in range(n):
                row = order[u, i]
                if side[f, row] != 0:
                    b = 2 * (i * BINS // n) + side[f, row] - 1
                    count[b] += weight[row]
                    centre[b] += weight[row] * values[u, i]
            for b in range(2 * BINS):
                if count[b] > 0.0:
                    centre[b] = (centre[b] / count[b] - mean[f, u]) / scale[f, u]
                    count[b] /= 2.0 * (p if b % 2 == 0 else q)
            floor[f, u] = _smallest(count, centre, ridge)


@compiled
def _smallest(count, centre, ridge):
    slope, shift = 0.0, 0.0
    for _ in range(60):
        value = 0.5 * ridge * slope * slope
        g1, g0, h11, h10, h00 = ridge * slope, 0.0, ridge, 0.0, 1e-12
        for b in range(len(count)):
            if count[b] > 0.0:
                sign = 1.0 if b % 2 == 0 else -1.0
                margin = sign * (slope * centre[b] + shift)
                e = np.exp(-abs(margin))
                value += count[b] * (max(-margin, 0.0) + np.log1p(e))
                miss = (e if margin > 0 else 1.0) / (1.0 + e)
                g = -count[b] * sign * miss
                h = count[b] * miss * (1.0 - miss)
                g1 += g * centre[b]
                g0 += g
                h11 += h * centre[b] * centre[b]
                h10 += h * centre[b]
                h00 += h
        determinant = h11 * h00 - h10 * h10
        d1, d0 = (h00 * g1 - h10 * g0) / determinant, (h11 * g0 - h10 * g1) / determinant
        decrement = g1 * d1 + g0 * d0  # twice what a full step gains where the curvature stays
        if decrement < 1e-10:
            return value - 1e-9
        size = 1.0 / (1.0 + np.sqrt(decrement)) if decrement > 0.25 else 1.0
        slope -= size * d1
        shift -= size * d0
    return -np.inf  # no floor is better than a wrong one
