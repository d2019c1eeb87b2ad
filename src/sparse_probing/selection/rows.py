"""One pass over the rows: loss, pulls, curvature and dual point of a linear predictor, fast enough for a search tree.

The exponential and the logarithm are series of our own, exact to 1e-15, because a loop over library calls does not use the
processor's vectors: 10 instead of 100 microseconds for 5,000 rows.
"""

from __future__ import annotations

import numpy as np

from sparse_probing.compiled import compiled_sums

KINDS = {"logistic": 0, "squared_hinge": 1, "squared_error": 2}
"""Losses by number."""
BALANCE = 1e-10
"""Largest imbalance of the pulls, of their absolute sum, that is left to the exact rescaling."""

STEPS = 30
ROUNDING = 2.0**-52
"""A float64 sum of n terms is off by at most n times this, of the sum of their sizes."""


@compiled_sums
def predict(x: np.ndarray, columns: np.ndarray, theta: np.ndarray, eta: np.ndarray) -> None:
    """`eta = theta[:-1] @ x[columns] + theta[-1]`, x one column per row of the array."""
    eta[:] = theta[-1]
    for j in range(len(columns)):
        if theta[j] != 0.0:
            size, row = theta[j], x[columns[j]]
            for i in range(len(eta)):
                eta[i] += size * np.float64(row[i])


@compiled_sums
def product(row: np.ndarray, pull: np.ndarray) -> float:
    """`row @ pull` in float64."""
    total = 0.0
    for i in range(len(pull)):
        total += np.float64(row[i]) * pull[i]
    return total


@compiled_sums
def _logistic(
    eta: np.ndarray, shift: float, target: np.ndarray, weights: np.ndarray, pull: np.ndarray, bend: np.ndarray
) -> tuple[float, float, float, float, float]:
    bits = np.empty(len(eta), np.int64)
    power, series = bits.view(np.float64), np.empty(len(eta))
    for i in range(
        len(eta)
    ):  # exp(-|eta|) = 2^k * (Taylor series on [-log(2)/2, log(2)/2]), in two loops: bits, then product
        t = max(-abs(eta[i] + shift), -700.0)
        k = np.floor(t * 1.4426950408889634 + 0.5)
        r = (t - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
        p = 1.0 / 6227020800.0
        p = p * r + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        series[i] = p * r + 1.0
        bits[i] = (np.int64(k) + 1023) << 52
    loss, excess, gross, curvature, lines = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(eta)):
        e = series[i] * power[i]
        sign = 2.0 * target[i] - 1.0
        margin = sign * (eta[i] + shift)
        inverse = 1.0 / (1.0 + e)
        share = e * inverse if margin > 0.0 else inverse
        s = e / (2.0 + e)  # log(1 + e) = 2 artanh(s), s at most 1/3
        q = s * s
        a = 1.0 / 27.0
        a = a * q + 1.0 / 25.0
        a = a * q + 1.0 / 23.0
        a = a * q + 1.0 / 21.0
        a = a * q + 1.0 / 19.0
        a = a * q + 1.0 / 17.0
        a = a * q + 1.0 / 15.0
        a = a * q + 1.0 / 13.0
        a = a * q + 1.0 / 11.0
        a = a * q + 1.0 / 9.0
        a = a * q + 1.0 / 7.0
        a = a * q + 1.0 / 5.0
        a = a * q + 1.0 / 3.0
        a = a * q + 1.0
        weighted = weights[i] * share
        loss += weights[i] * (2.0 * s * a - min(margin, 0.0))
        pull[i] = weighted * sign
        bend[i] = weighted * (1.0 - share)
        excess += pull[i]
        gross += weighted
        curvature += bend[i]
        lines += weighted * margin
    return loss, excess, gross, curvature, loss + lines


@compiled_sums
def _squared_hinge(
    eta: np.ndarray, shift: float, target: np.ndarray, weights: np.ndarray, pull: np.ndarray, bend: np.ndarray
) -> tuple[float, float, float, float, float]:
    loss, excess, gross, curvature, lines = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(eta)):
        sign = 2.0 * target[i] - 1.0
        margin = sign * (eta[i] + shift)
        short = max(1.0 - margin, 0.0)
        loss += weights[i] * short * short
        pull[i] = 2.0 * weights[i] * sign * short
        bend[i] = 2.0 * weights[i] if short > 0.0 else 0.0
        excess += pull[i]
        gross += abs(pull[i])
        curvature += bend[i]
        lines += 2.0 * weights[i] * short * margin
    return loss, excess, gross, curvature, loss + lines


@compiled_sums
def _squared_error(
    eta: np.ndarray, shift: float, target: np.ndarray, weights: np.ndarray, pull: np.ndarray, bend: np.ndarray
) -> tuple[float, float, float, float, float]:
    loss, excess, gross, curvature, lines = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(eta)):
        away = target[i] - eta[i] - shift
        loss += 0.5 * weights[i] * away * away
        pull[i] = weights[i] * away
        bend[i] = weights[i]
        excess += pull[i]
        gross += abs(pull[i])
        curvature += weights[i]
        lines += weights[i] * away * (eta[i] + shift)
    return loss, excess, gross, curvature, loss + lines


@compiled_sums
def balanced_point(
    kind: int, eta: np.ndarray, target: np.ndarray, weights: np.ndarray, pull: np.ndarray, bend: np.ndarray
) -> tuple[float, float, float, float]:
    """The dual point of a predictor, shifted so that the pulls balance.

    Newton on a common shift; what is left is removed by scaling the heavier class down, for regression by subtracting the mean,
    which keeps every pull possible.

    Args:
        kind: of the loss, see `KINDS`.
        eta: predictor; the shift is added.
        target: of each row.
        weights: sum to 1.
        pull: filled with `c_i a_i`, minus the weighted slopes; they sum to 0.
        bend: filled with the weighted curvature.

    Returns:
        The shift, the mean loss at the shifted predictor, the `sum_i c_i intercept(a_i)`, never overstated, and the sum of |pull|.
    """
    shift, loss, excess, gross, lines = 0.0, 0.0, 0.0, 0.0, 0.0
    for attempt in range(STEPS):
        if kind == 0:
            loss, excess, gross, curvature, lines = _logistic(eta, shift, target, weights, pull, bend)
        elif kind == 1:
            loss, excess, gross, curvature, lines = _squared_hinge(eta, shift, target, weights, pull, bend)
        else:
            loss, excess, gross, curvature, lines = _squared_error(eta, shift, target, weights, pull, bend)
        if abs(excess) <= BALANCE * gross or attempt == STEPS - 1:
            break
        step = excess / max(curvature, 1e-12)
        shift += step if kind == 2 else min(max(step, -2.0), 2.0)
    turning = 0.0  # loss and pull * eta cancel: what rounding may take is of the size of their absolute sum
    for i in range(len(eta)):
        eta[i] += shift
        turning += abs(pull[i] * eta[i])
    lines -= ROUNDING * len(eta) * (loss + turning)
    if kind == 2:
        mean = 0.0
        for i in range(len(eta)):
            pull[i] -= excess * weights[i]
            mean += weights[i] * target[i]
        return shift, loss, lines - excess * mean + 0.5 * excess * excess, gross
    up, down = 0.0, 0.0
    for i in range(len(eta)):
        if target[i] > 0.5:
            up += pull[i]
        else:
            down -= pull[i]
    for i in range(len(eta)):
        if target[i] > 0.5:
            pull[i] *= min(down / max(up, 1e-300), 1.0)
        else:
            pull[i] *= min(up / max(down, 1e-300), 1.0)
    # shares scaled by 1 - d keep at least 1 - d of their (concave) intercepts, and these are at most 1 per row for both losses
    return shift, loss, lines - abs(excess) / max(up, down, 1e-300), gross
