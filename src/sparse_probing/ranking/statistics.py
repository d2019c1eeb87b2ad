"""Scores from class moments: one pass over the activations in blocks, two matrix products per block for all features at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

VARIANCE_FLOOR = 1e-12
"""Below this variance, relative to the mean square, a unit counts as constant and scores 0: float16 knows no smaller step."""
BLOCK = 1_024
"""Rows and columns of the tile that is converted to float64 at a time: 8 MB, and no copy of the layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMoments:
    """Sufficient statistics of each unit in each feature's positive and negative rows."""

    positives: Float[np.ndarray, " feature"]
    """Rows (or their weight) in class."""
    negatives: Float[np.ndarray, " feature"]
    mean_positive: Float[np.ndarray, "feature unit"]
    mean_negative: Float[np.ndarray, "feature unit"]
    squares_positive: Float[np.ndarray, "feature unit"]
    """Sum of squared deviations from the class mean."""
    squares_negative: Float[np.ndarray, "feature unit"]
    mean_square: Float[np.ndarray, " unit"]
    """Mean square over all rows: what counts as *no variance* is relative to it."""

    @property
    def within(self) -> Float[np.ndarray, "feature unit"]:
        """Sum of squared deviations from the class means."""
        return self.squares_positive + self.squares_negative

    @property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Positives and negatives as columns."""
        return self.positives[:, None], self.negatives[:, None]

    @property
    def mean(self) -> Float[np.ndarray, "feature unit"]:
        """Mean over each feature's rows."""
        n1, n0 = self.counts
        return (n1 * self.mean_positive + n0 * self.mean_negative) / (n1 + n0)

    @property
    def variance(self) -> Float[np.ndarray, "feature unit"]:
        """Variance over each feature's rows (divided by their number)."""
        n1, n0 = self.counts
        n = n1 + n0
        return self.within / n + n1 * n0 / n**2 * (self.mean_positive - self.mean_negative) ** 2

    @property
    def alive(self) -> Bool[np.ndarray, "feature unit"]:
        """Units that are not constant over a feature's rows."""
        return self.variance > VARIANCE_FLOOR * np.maximum(self.mean_square, 1e-30)


def class_moments(
    x: Float[np.ndarray, "row unit"],
    positive: Bool[np.ndarray, "row feature"],
    eligible: Bool[np.ndarray, "row feature"],
    weight: Float[np.ndarray, " row"] | None = None,
) -> ClassMoments:
    """Class sums of every unit for every feature, in float64.

    Cost O(row * unit * feature) as matrix products; features that share their eligible rows share the sums over them.
    Memory O(unit * (feature + 1,024)) beyond the arguments: `x` may be memory-mapped and of any float type.

    Args:
        x: activations.
        positive: which rows carry which feature.
        eligible: which rows count for which feature; each feature needs rows of both classes.
        weight: of each row; 1 when null.
    """
    n, p = x.shape
    w = np.ones(n) if weight is None else weight.astype(np.float64)
    masks, mask_of = _distinct_columns(eligible)
    left = np.concatenate([(positive & eligible).T * w, masks * w])
    n_features = positive.shape[1]
    sums, squares = np.zeros((len(left), p)), np.zeros((len(left), p))
    shift = np.asarray(x[:BLOCK], dtype=np.float64).mean(axis=0)  # squares about a point near the mean lose no digits
    for column in range(0, p, BLOCK):
        columns = slice(column, column + BLOCK)
        for at in range(0, n, BLOCK):
            part = np.ascontiguousarray(left[:, at : at + BLOCK])
            z = np.asarray(x[at : at + BLOCK, columns], dtype=np.float64) - shift[columns]
            sums[:, columns] += part @ z
            np.multiply(z, z, out=z)
            squares[:, columns] += part @ z
    total = left.sum(axis=1)
    n1, n = total[:n_features], total[n_features:][mask_of]
    n0 = n - n1
    with np.errstate(invalid="ignore", divide="ignore"):
        s1, s0 = sums[:n_features], sums[n_features:][mask_of] - sums[:n_features]
        m1, m0 = s1 / n1[:, None], s0 / n0[:, None]
        q1 = squares[:n_features] - n1[:, None] * m1**2
        q0 = squares[n_features:][mask_of] - squares[:n_features] - n0[:, None] * m0**2
    everyone = sums[n_features:].sum(axis=0), squares[n_features:].sum(axis=0), max(total[n_features:].sum(), 1e-300)
    return ClassMoments(
        positives=n1,
        negatives=n0,
        mean_positive=m1 + shift,
        mean_negative=m0 + shift,
        squares_positive=np.maximum(q1, 0.0),
        squares_negative=np.maximum(q0, 0.0),
        mean_square=np.maximum((everyone[1] + 2 * shift * everyone[0]) / everyone[2] + shift**2, 0.0),
    )


def _distinct_columns(eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different columns as rows, and which of them each column is."""
    first: dict[bytes, int] = {}
    mask_of = np.array([first.setdefault(column.tobytes(), len(first)) for column in eligible.T], dtype=int)
    return eligible.T[[int(np.argmax(mask_of == m)) for m in range(len(first))]], mask_of


def _over(numerator: np.ndarray, denominator: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=where & (denominator > 0))


def raw_difference(moments: ClassMoments) -> Float[np.ndarray, "feature unit"]:
    """Difference of class means in the units' own scale; positive = higher in class. Constant units score 0."""
    return np.where(moments.alive, moments.mean_positive - moments.mean_negative, 0.0)


def mean_difference(moments: ClassMoments) -> Float[np.ndarray, "feature unit"]:
    """Difference of class means in units of the standard deviation over all rows of the feature; positive = higher in class.

    Standardised form of the paper's default ranking (its section on feature ranking): its |mean difference| of columns divided
    by their standard deviation. Constant units score 0.
    """
    return _over(raw_difference(moments), np.sqrt(moments.variance), moments.alive)


def point_biserial(moments: ClassMoments) -> Float[np.ndarray, "feature unit"]:
    """Correlation of the unit with the label, -1 to 1. Constant units score 0."""
    n1, n0 = moments.counts
    return mean_difference(moments) * np.sqrt(n1 * n0) / (n1 + n0)


def welch_t(moments: ClassMoments) -> Float[np.ndarray, "feature unit"]:
    """Welch's t: the class means' difference over its standard error with unequal variances. Constant units score 0."""
    n1, n0 = moments.counts
    error = moments.squares_positive / (n1 * np.maximum(n1 - 1, 1)) + moments.squares_negative / (
        n0 * np.maximum(n0 - 1, 1)
    )
    floor = VARIANCE_FLOOR * moments.variance  # both classes constant: large, but finite
    return _over(raw_difference(moments), np.sqrt(np.maximum(error, floor)), moments.alive)


def anova_f(moments: ClassMoments) -> Float[np.ndarray, "feature unit"]:
    """One-way ANOVA F of two classes: between-class over within-class mean square, 1 and n - 2 degrees of freedom.

    On the same rows it orders units exactly as |mean_difference| does; it is reported because the field knows it, not as a
    second opinion. Constant units score 0.
    """
    n1, n0 = moments.counts
    n = n1 + n0
    between = n1 * n0 / n * raw_difference(moments) ** 2
    within = np.maximum(moments.within, VARIANCE_FLOOR * moments.variance * n) / np.maximum(n - 2, 1)
    return _over(between, within, moments.alive)


MOMENT_SCORES = {
    "mean_difference": mean_difference,
    "raw_difference": raw_difference,
    "welch_t": welch_t,
    "anova_f": anova_f,
    "point_biserial": point_biserial,
}
"""Signed scores (but F): the sign tells whether a unit is higher or lower in class; units are ranked by |score|."""


def number_correlations(
    x: Float[np.ndarray, "row unit"], values: Float[np.ndarray, " row"]
) -> Float[np.ndarray, " unit"]:
    """Correlation of every unit with a number, in float64; 0 where either is constant.

    Args:
        x: activations, any float type.
        values: number of each row.
    """
    centred = values - values.mean()
    length = np.sqrt((centred**2).sum())
    result = np.zeros(x.shape[1])
    for at in range(0, x.shape[1], BLOCK):
        part = x[:, at : at + BLOCK].astype(np.float64)
        square = (part**2).sum(axis=0)
        part -= part.mean(axis=0)
        own = (part**2).sum(axis=0)
        alive = own > VARIANCE_FLOOR * np.maximum(square, 1e-30)
        np.divide(centred @ part, length * np.sqrt(own), out=result[at : at + BLOCK], where=alive & (length > 0))
    return result
