"""Mean difference and ANOVA F from class sums: one matrix product per power for all features at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

VARIANCE_FLOOR = 1e-12
"""Below this variance (float16 activations squared, relative to 1) a unit counts as constant and scores 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMoments:
    """Sufficient statistics of each unit in each feature's positive and negative rows."""

    positives: Float[np.ndarray, " feature"]
    negatives: Float[np.ndarray, " feature"]
    mean_positive: Float[np.ndarray, "feature unit"]
    mean_negative: Float[np.ndarray, "feature unit"]
    within: Float[np.ndarray, "feature unit"]
    """Sum of squared deviations from the class means."""


def class_moments(
    x: Float[np.ndarray, "row unit"],
    positive: Bool[np.ndarray, "row feature"],
    eligible: Bool[np.ndarray, "row feature"],
) -> ClassMoments:
    """Class sums of every unit for every feature, in float64. Cost O(row * unit * feature) in four matrix products.

    Args:
        x: activations; columns are centred first, so that squares lose no digits.
        positive: which rows carry which feature.
        eligible: which rows count for which feature.
    """
    x = np.asarray(x, dtype=np.float64)
    centre = x.mean(axis=0)
    z = x - centre
    p = (positive & eligible).T.astype(np.float64)
    q = (~positive & eligible).T.astype(np.float64)
    n1, n0 = p.sum(axis=1), q.sum(axis=1)
    m1, m0 = p @ z / n1[:, None], q @ z / n0[:, None]
    squares = z * z
    within = (p @ squares - n1[:, None] * m1**2) + (q @ squares - n0[:, None] * m0**2)
    return ClassMoments(
        positives=n1, negatives=n0, mean_positive=m1 + centre, mean_negative=m0 + centre, within=np.maximum(within, 0.0)
    )


def mean_difference(moments: ClassMoments) -> Float[np.ndarray, "feature unit"]:
    """Difference of class means in units of the standard deviation over all rows of the feature; positive = higher in class.

    Standardised form of the paper's default ranking (its section on feature ranking): its |mean difference| of columns divided
    by their standard deviation. Constant units score 0.
    """
    n1, n0 = moments.positives[:, None], moments.negatives[:, None]
    n = n1 + n0
    difference = moments.mean_positive - moments.mean_negative
    variance = moments.within / n + n1 * n0 / n**2 * difference**2
    return np.where(variance > VARIANCE_FLOOR, difference / np.sqrt(np.maximum(variance, VARIANCE_FLOOR)), 0.0)


def anova_f(moments: ClassMoments) -> Float[np.ndarray, "feature unit"]:
    """One-way ANOVA F of two classes: between-class over within-class mean square, 1 and n - 2 degrees of freedom.

    On the same rows it orders units exactly as |mean_difference| does; it is reported because the field knows it, not as a
    second opinion. Constant units score 0.
    """
    n1, n0 = moments.positives[:, None], moments.negatives[:, None]
    n = n1 + n0
    between = n1 * n0 / n * (moments.mean_positive - moments.mean_negative) ** 2
    within = moments.within / np.maximum(n - 2, 1)
    alive = (between + moments.within) / n > VARIANCE_FLOOR
    return np.where(alive, between / np.maximum(within, VARIANCE_FLOOR), 0.0)
