"""The whole path of sizes k, and the size that cross-validation calls enough."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils.validation import check_consistent_length, column_or_1d

from sparse_probing.errors import InputError
from sparse_probing.estimators.columns import Rows
from sparse_probing.estimators.fitting import FittedProbe, Settings, Task, class_row_weights, fit_probes
from sparse_probing.estimators.probe import LinearClassifier, SparseProbe, linear_predictor, predicted
from sparse_probing.selection.schedule import DEFAULT_KS


class SparseProbePath(LinearClassifier):
    """Probes of many sizes from one selection, and the smallest size that is about as good as the best.

    For each fold columns are chosen, standardised and fitted anew on the rows outside, then scored on those inside: by average
    precision for `classes_[1]` with two classes, by balanced accuracy with more. `k_` is the smallest size whose mean score lies
    within one standard error (of the best size's mean, over folds) of the best mean (Breiman et al. 1984). The mean score of `k_`
    has seen the choice: for a figure to report, score on rows that were not in `fit`.

    Args:
        ks: sizes; None: the paper's schedule (1 to 256) as far as the usable columns go.
        method: as in `SparseProbe`.
        loss: as in `SparseProbe`.
        ridge: as in `SparseProbe`.
        selection_ridge: as in `SparseProbe`.
        class_weight: as in `SparseProbe`; scores use the sample weights only.
        cv: number of folds, a scikit-learn splitter, or pairs of training and test rows. A number means stratified folds in
            random order, of whole groups where `fit` gets groups; fewer folds where a class has fewer rows, or groups.
        bad_columns: as in `SparseProbe`.
        random_state: of the folds, and for method `random`.

    Attributes:
        ks_: sizes, ascending.
        k_: the chosen one.
        cv_scores_: shape (size, fold); NaN where training or test rows of a fold lack a class.
        probes_: size -> `SparseProbe`, fitted on all rows.
        classes_: labels, sorted. This and the other attributes of `SparseProbe` are those of `probes_[k_]`.
    """

    def __init__(
        self,
        ks: Any = None,
        *,
        method="greedy_swap",
        loss="logistic",
        ridge=1e-3,
        selection_ridge=0.1,
        class_weight: Any = "balanced",
        cv: Any = 5,
        bad_columns="error",
        random_state: Any = 0,
    ):
        self.ks = ks
        self.method = method
        self.loss = loss
        self.ridge = ridge
        self.selection_ridge = selection_ridge
        self.class_weight = class_weight
        self.cv = cv
        self.bad_columns = bad_columns
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> SparseProbePath:
        """Fit all sizes, and choose one.

        Args:
            X: array or data frame [row, column] of numbers; not sparse.
            y: label of each row.
            sample_weight: of each row, not negative; 0 is as if the row were absent.
            groups: of each row (document, author): rows of one group stay in one fold.

        Raises:
            InputError: (a ValueError) data or parameters that cannot be used, in one sentence.
        """
        rows = self._read(X, y, sample_weight)
        ks, settings, task = self._sizes(rows), self._settings(), self._task(rows)
        probes, n_constant = fit_probes(task, ks, settings)
        folds = list(self._folds(rows, y, groups, settings.seed))
        scores = [self._fold_scores(task, rows, ks, settings, train, test) for train, test in folds]
        self.ks_, self.cv_scores_ = np.array(ks), np.column_stack(scores)
        self.k_ = int(self.ks_[smallest_good_enough(self.cv_scores_)])
        width = rows.x.shape[1]
        self.probes_ = {k: self._record(k, probe, width, n_constant) for k, probe in probes.items()}
        self._take(probes[self.k_], width, n_constant)
        return self

    def _sizes(self, rows: Rows) -> tuple[int, ...]:
        if self.ks is None:
            return tuple(k for k in DEFAULT_KS if k <= len(rows.usable)) or (self._checked_k(1, rows),)
        if isinstance(self.ks, numbers.Integral) or not len(self.ks):
            raise InputError(f"ks = {self.ks!r} is not possible: give a list of sizes, or None.")
        return tuple(sorted({self._checked_k(k, rows) for k in self.ks}))

    def _record(self, k: int, probe: FittedProbe, width: int, n_constant: int) -> SparseProbe:
        names = ("method", "loss", "ridge", "selection_ridge", "class_weight", "bad_columns", "random_state")
        record = SparseProbe(k, **{name: getattr(self, name) for name in names})
        for name in ("classes_", "n_features_in_", "feature_names_in_", "n_dropped_columns_"):
            if hasattr(self, name):
                setattr(record, name, getattr(self, name))
        record._take(probe, width, n_constant)
        return record

    def _folds(self, rows: Rows, y: Any, groups: Any, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Training and test rows, as places in `rows`: those of weight 0 belong nowhere."""
        if groups is not None:
            check_consistent_length(y, groups)
            groups = column_or_1d(groups)
        if isinstance(self.cv, numbers.Integral):
            own = None if groups is None else groups[rows.kept]
            yield from _stratified(int(self.cv), rows.y, own, seed)
            return
        labels = column_or_1d(y)  # a splitter, or pairs, speak of the rows that were given
        place = np.full(len(labels), -1)
        place[rows.kept] = np.arange(len(rows.kept))
        splitter: Any = check_cv(self.cv, labels, classifier=True)
        for train, test in splitter.split(np.zeros(len(labels)), labels, groups):
            yield place[train][place[train] >= 0], place[test][place[test] >= 0]

    def _fold_scores(
        self,
        task: Task,
        rows: Rows,
        ks: tuple[int, ...],
        settings: Settings,
        train: Int[np.ndarray, " train"],
        test: Int[np.ndarray, " test"],
    ) -> Float[np.ndarray, " size"]:
        n_classes = len(self.classes_)
        codes, truth = task.target[train], task.target[test]
        if min(len(np.unique(codes)), len(np.unique(truth))) < n_classes:
            return np.full(len(ks), np.nan)
        weights = class_row_weights(codes, self.classes_, rows.weight[train], self.class_weight)
        inner = replace(task, x=task.x[train], target=codes, weights=weights, spread=rows.weight[train])
        probes, _ = fit_probes(inner, ks, settings)
        scores = []
        for k in ks:
            x = task.x[np.ix_(test, probes[k].support)].astype(np.float64)
            eta = linear_predictor(x, probes[k].coefficients, probes[k].intercepts)
            if n_classes == 2:
                scores.append(average_precision_score(truth, eta, sample_weight=rows.weight[test]))
            else:
                hit = np.bincount(truth, weights=rows.weight[test] * (predicted(eta) == truth))
                scores.append(float((hit / np.bincount(truth, weights=rows.weight[test])).mean()))
        return np.array(scores)


def smallest_good_enough(scores: Float[np.ndarray, "size fold"]) -> int:
    """Place of the first size whose mean lies within one standard error of the best mean.

    Raises:
        InputError: no fold has a score.
    """
    scored = scores[:, ~np.isnan(scores).any(axis=0)]
    n_folds = scored.shape[1]
    if not n_folds:
        raise InputError(
            "no fold has rows of every class on both sides: use fewer folds, or give more groups per class."
        )
    mean = scored.mean(axis=1)
    best = int(np.argmax(mean))
    error = scored[best].std(ddof=1) / np.sqrt(n_folds) if n_folds > 1 else 0.0
    return int(np.argmax(mean >= mean[best] - error))


def _stratified(
    n_folds: int, labels: np.ndarray, groups: np.ndarray | None, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if n_folds < 2:
        raise InputError(f"cv = {n_folds} is not possible: cross-validation needs at least 2 folds.")
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    what = "row"
    if groups is not None:
        what = "group"
        counts = np.array([len(np.unique(groups[codes == c])) for c in range(len(names))])
    if counts.min() < 2:
        raise InputError(
            f"class {names.tolist()[int(counts.argmin())]!r} has one {what} only: cross-validation needs at least 2 per class."
        )
    n_folds = min(n_folds, int(counts.min()))
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    yield from splitter(n_folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels, groups)
