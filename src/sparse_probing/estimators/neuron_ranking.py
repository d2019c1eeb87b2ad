"""Ranking of columns one by one, as a scikit-learn feature selector."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sparse_probing.estimators.columns import ColumnSelector, one_of
from sparse_probing.ranking.mutual_information import mutual_information
from sparse_probing.ranking.single_units import single_unit_scores
from sparse_probing.ranking.statistics import MOMENT_SCORES, ClassMoments, class_moments

SINGLE_SCORES = ("roc_auc", "average_precision", "f1")
"""Each column as a classifier of its own, at its best direction."""
STATISTICS = (*MOMENT_SCORES, *SINGLE_SCORES, "mutual_information")


class NeuronRanking(ColumnSelector):
    """Each column's own score against the labels; the k best are the support.

    With two classes the sign tells whether a column is higher (+) or lower (-) in `classes_[1]`; `anova_f` and
    `mutual_information` have none. With more classes each is held against the rest, and a column gets the score that is largest in
    size. Columns are ordered by |score|, ties go to the lower index.

    Args:
        statistic: `mean_difference` (in standard deviations), `raw_difference`, `welch_t`, `anova_f`, `point_biserial`; `roc_auc`
            (the area minus 1/2), `average_precision` and `f1` (at the best threshold), in the better direction; or
            `mutual_information` (nats, 16 bins).
        k: number of columns.
        bad_columns: with NaN or infinity: `error`, or `drop` to choose none of them.

    Attributes:
        scores_: of each column; 0 for constant columns, NaN for dropped ones.
        support_: the k best columns, ascending.
        classes_: labels, sorted.
        n_constant_columns_: without variance; chosen only if k leaves no other choice.
        n_dropped_columns_: left out for NaN or infinity.
        n_features_in_: width of the matrix.
        feature_names_in_: names of its columns, where it has some.
    """

    def __init__(self, statistic="mean_difference", k=10, *, bad_columns="error"):
        self.statistic = statistic
        self.k = k
        self.bad_columns = bad_columns

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NeuronRanking:
        """Score all columns.

        Args:
            X: array or data frame [row, column] of numbers; not sparse.
            y: label of each row.
            sample_weight: of each row, not negative; a row of weight 2 counts twice.

        Raises:
            InputError: (a ValueError) data or parameters that cannot be used, in one sentence.
        """
        one_of("statistic", self.statistic, STATISTICS)
        rows = self._read(X, y, sample_weight)
        k = self._checked_k(self.k, rows)
        self.classes_, codes = self._classes(rows.y)
        features = np.arange(1, 2) if len(self.classes_) == 2 else np.arange(len(self.classes_))
        positive = codes[:, None] == features
        x = rows.x if len(rows.usable) == rows.x.shape[1] else rows.x[:, rows.usable]
        moments = class_moments(x, positive, np.ones_like(positive), rows.weight)
        varies = moments.alive.any(axis=0)
        each = _scores(self.statistic, x, positive, rows.weight, moments)
        best = np.take_along_axis(each, np.abs(each).argmax(axis=0)[None], axis=0)[0]
        scores = np.where(varies, best, 0.0)
        order = np.lexsort((-np.abs(scores), ~varies))
        self.scores_ = np.full(rows.x.shape[1], np.nan)
        self.scores_[rows.usable] = scores
        self.support_ = np.sort(rows.usable[order[:k]])
        self.n_constant_columns_ = int((~varies).sum())
        return self


def _scores(
    name: str,
    x: Float[np.ndarray, "row column"],
    positive: Bool[np.ndarray, "row class"],
    weight: Float[np.ndarray, " row"],
    moments: ClassMoments,
) -> Float[np.ndarray, "class column"]:
    if name in MOMENT_SCORES:
        return MOMENT_SCORES[name](moments)
    everyone = np.ones_like(positive)
    if name == "mutual_information":
        return mutual_information(x, positive, everyone, weight=weight)
    higher, lower = getattr(single_unit_scores(x, positive, everyone, weight), name)
    return higher - 0.5 if name == "roc_auc" else np.where(higher >= lower, higher, -lower)
