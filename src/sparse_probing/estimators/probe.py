"""Sparse probes as scikit-learn estimators: a classifier and a regressor on k columns that they choose themselves."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from sparse_probing.errors import InputError
from sparse_probing.estimators.columns import ColumnSelector, Rows, one_of, positive_number
from sparse_probing.estimators.fitting import (
    FittedProbe,
    Settings,
    Task,
    class_row_weights,
    fit_probes,
    seed_of,
)
from sparse_probing.probes.losses import LOSSES, SQUARED_ERROR
from sparse_probing.probes.weights import row_weights
from sparse_probing.selection.exact import Limits
from sparse_probing.selection.methods import EXACT_NODES


def _has_probabilities(estimator: Any) -> bool:
    return estimator.loss == "logistic"


class LinearClassifier(ClassifierMixin, ColumnSelector):
    """Base of the classifiers: a fitted probe, and what it says about rows."""

    method: str
    loss: str
    ridge: float
    selection_ridge: float
    class_weight: Any
    random_state: Any
    selection_objective_: float | None
    lower_bound_: float | None
    gap_: float | None
    status_: str | None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = self.loss == "logistic"
        return tags

    def _settings(self) -> Settings:
        return Settings(
            method=self.method,
            ridge=positive_number("ridge", self.ridge),
            selection_ridge=positive_number("selection_ridge", self.selection_ridge),
            seed=seed_of(self.random_state),
        )

    def _task(self, rows: Rows) -> Task:
        one_of("loss", self.loss, ("logistic", "squared_hinge"))
        self.classes_, codes = self._classes(rows.y)
        n_classes = len(self.classes_)
        if n_classes > 2 and self.loss != "logistic":
            raise InputError(
                f'Only binary classification is supported with loss="{self.loss}", but y has {n_classes} classes: '
                'use loss="logistic".'
            )
        weights = class_row_weights(codes, self.classes_, rows.weight, self.class_weight)
        loss = None if n_classes > 2 else LOSSES[self.loss]
        return Task(x=rows.x, usable=rows.usable, target=codes, weights=weights, spread=rows.weight, loss=loss)

    def _take(self, probe: FittedProbe, width: int, n_constant: int) -> None:
        self.support_, self.coef_, self.intercept_ = probe.support, probe.wide(width), probe.intercepts
        self.objective_, self.gradient_norm_, self.n_iter_ = probe.objective, probe.gradient_norm, probe.iterations
        self.separable_, self.n_constant_columns_ = probe.separable, n_constant
        take_bound(self, probe)

    def decision_function(self, X: Any) -> Float[np.ndarray, " row"] | Float[np.ndarray, "row class"]:
        """Linear predictor: above 0 speaks for `classes_[1]`; one column per class where there are more than two.

        Args:
            X: array or data frame [row, column].
        """
        return linear_predictor(self._chosen_columns(X), self.coef_[:, self.support_], self.intercept_)

    def predict(self, X: Any) -> np.ndarray:
        """Label of each row.

        Args:
            X: array or data frame [row, column].
        """
        codes = predicted(self.decision_function(X))
        return self.classes_[codes]

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Float[np.ndarray, "row class"]:
        """Chance of each class; with `class_weight="balanced"` as if all classes were equally frequent.

        Args:
            X: array or data frame [row, column].
        """
        eta = self.decision_function(X)
        return np.column_stack([expit(-eta), expit(eta)]) if eta.ndim == 1 else softmax(eta, axis=1)


class SparseProbe(LinearClassifier):
    """Linear classifier on the k columns that it chooses; also a feature selector.

    Minimises `sum_i c_i loss(x_i b + b0, y_i) + ridge/2 |b|^2` over supports of k columns. The columns are standardised with the
    mean and deviation of the training rows (sample weights count, class weights do not), the weights c sum to 1, the intercept is
    free. The support is chosen at `selection_ridge`, then refitted at `ridge` in float64 until no entry of the gradient exceeds
    1e-8. More than two classes: a multinomial probe on one support for all classes. Source: Gurnee et al. 2023 (arXiv 2305.01610),
    k-sparse probing.

    Args:
        k: number of columns.
        method: `greedy_swap`, `exact` (proved, or with the gap that is left at a limit), `shrinking_elastic_net`,
            `l1_path`, `recursive_elimination`, `orthogonal_matching_pursuit`,
            `mean_difference`, `mutual_information` (which ignores weights) or `random`; for more than two classes those of
            `selection.multiclass`.
        loss: `logistic`, or `squared_hinge` for a linear support vector machine: two classes, no `predict_proba`.
        ridge: of the refit; above 0.
        selection_ridge: while columns are chosen; above 0.
        class_weight: `balanced`, None, or a dict from label to factor.
        bad_columns: with NaN or infinity: `error`, or `drop` to choose none of them.
        random_state: for method `random`.
        proof_gap: method `exact`: how much better, relatively, another support may be for this one to count as proved.
        max_seconds: method `exact`: time to search; 20,000 bounds when None, which does not depend on the machine.

    Attributes:
        classes_: labels, sorted.
        support_: chosen columns, ascending.
        coef_: in the units of the columns, 0 outside the support; shape (1, column), or (class, column).
        intercept_: shape (1,) or (class,).
        objective_: value at the minimum, on standardised columns; nats for the logistic loss.
        gradient_norm_: largest absolute entry of the gradient there.
        selection_objective_: of the support at `selection_ridge`; this and the next three are None for more than two classes.
        lower_bound_: no support of k columns has a smaller objective at `selection_ridge`, whatever the method.
        gap_: by how much of `selection_objective_` another support could be better, at most.
        status_: `optimal` (proved to `proof_gap`), `heuristic`, or the limit that ended the search.
        n_iter_: steps of the refit.
        separable_: the probe makes no mistake on the training rows, so that only the ridge keeps its coefficients finite: their
            size tells about the ridge, and a perfect score on these rows tells nothing. Say so where you report them.
        n_constant_columns_: without variance; chosen only if k leaves no other choice, with coefficient 0.
        n_dropped_columns_: left out for NaN or infinity.
        n_features_in_: width of the matrix.
        feature_names_in_: names of its columns, where it has some.
    """

    def __init__(
        self,
        k=5,
        *,
        method="greedy_swap",
        loss="logistic",
        ridge=1e-3,
        selection_ridge=0.1,
        class_weight: Any = "balanced",
        bad_columns="error",
        random_state: Any = 0,
        proof_gap=1e-3,
        max_seconds=None,
    ):
        # no types: scikit-learn sets parameters to anything and expects complaints from fit
        self.k = k
        self.method = method
        self.loss = loss
        self.ridge = ridge
        self.selection_ridge = selection_ridge
        self.class_weight = class_weight
        self.bad_columns = bad_columns
        self.random_state = random_state
        self.proof_gap = proof_gap
        self.max_seconds = max_seconds

    def _settings(self) -> Settings:
        return replace(super()._settings(), limits=limits_of(self.proof_gap, self.max_seconds))

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SparseProbe:
        """Choose k columns and fit.

        Args:
            X: array or data frame [row, column] of numbers; not sparse.
            y: label of each row.
            sample_weight: of each row, not negative; 0 is as if the row were absent, 2 as if it came twice.

        Raises:
            InputError: (a ValueError) data or parameters that cannot be used, in one sentence.
        """
        rows = self._read(X, y, sample_weight)
        k = self._checked_k(self.k, rows)
        probes, n_constant = fit_probes(self._task(rows), (k,), self._settings())
        self._take(probes[k], rows.x.shape[1], n_constant)
        return self


class SparseProbeRegressor(RegressorMixin, ColumnSelector):
    """Ridge regression on the k columns that it chooses; also a feature selector.

    Minimises `sum_i c_i (x_i b + b0 - y_i)^2 / 2 + ridge/2 |b|^2` over supports of k columns; columns and target standardised with
    the training rows, so that both ridges mean the same whatever the units: with equal weights this is scikit-learn's `Ridge` on
    standardised columns with `alpha = ridge * row`. The rest is as in `SparseProbe`.

    Args:
        k: number of columns.
        method: as in `SparseProbe`, without `mutual_information`.
        ridge: of the refit; above 0.
        selection_ridge: while columns are chosen; above 0.
        bad_columns: with NaN or infinity: `error`, or `drop` to choose none of them.
        random_state: for method `random`.
        proof_gap: as in `SparseProbe`.
        max_seconds: as in `SparseProbe`.

    Attributes:
        support_: chosen columns, ascending.
        coef_: in the units of target and columns, 0 outside the support; shape (column,).
        intercept_: in the units of the target.
        objective_: value at the minimum, on standardised columns and target.
        gradient_norm_: largest absolute entry of the gradient there.
        selection_objective_: of the support at `selection_ridge`.
        lower_bound_: no support of k columns has a smaller objective at `selection_ridge`, whatever the method.
        gap_: by how much of `selection_objective_` another support could be better, at most.
        status_: `optimal` (proved to `proof_gap`), `heuristic`, or the limit that ended the search.
        n_iter_: steps of the refit.
        n_constant_columns_: without variance; chosen only if k leaves no other choice, with coefficient 0.
        n_dropped_columns_: left out for NaN or infinity.
        n_features_in_: width of the matrix.
        feature_names_in_: names of its columns, where it has some.
    """

    selection_objective_: float | None
    lower_bound_: float | None
    gap_: float | None
    status_: str | None

    def __init__(
        self,
        k=5,
        *,
        method="greedy_swap",
        ridge=1e-3,
        selection_ridge=0.1,
        bad_columns="error",
        random_state: Any = 0,
        proof_gap=1e-3,
        max_seconds=None,
    ):
        self.k = k
        self.method = method
        self.ridge = ridge
        self.selection_ridge = selection_ridge
        self.bad_columns = bad_columns
        self.random_state = random_state
        self.proof_gap = proof_gap
        self.max_seconds = max_seconds

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SparseProbeRegressor:
        """Choose k columns and fit.

        Args:
            X: array or data frame [row, column] of numbers; not sparse.
            y: number of each row.
            sample_weight: of each row, not negative; 0 is as if the row were absent, 2 as if it came twice.

        Raises:
            InputError: (a ValueError) data or parameters that cannot be used, in one sentence.
        """
        rows = self._read(X, y, sample_weight, y_numeric=True)
        k = self._checked_k(self.k, rows)
        settings = Settings(
            method=self.method,
            ridge=positive_number("ridge", self.ridge),
            selection_ridge=positive_number("selection_ridge", self.selection_ridge),
            seed=seed_of(self.random_state),
            limits=limits_of(self.proof_gap, self.max_seconds),
        )
        weights = row_weights(rows.weight, rows.weight, balance_classes=False)
        target = rows.y.astype(np.float64)
        centre = float(weights @ target)
        spread = float(np.sqrt(weights @ (target - centre) ** 2))
        if spread <= 1e-12 * abs(centre):
            centre, spread = float(target[0]), 1.0  # a constant: what remains of it is 0 exactly
        target = (target - centre) / spread
        task = Task(x=rows.x, usable=rows.usable, target=target, weights=weights, spread=weights, loss=SQUARED_ERROR)
        probes, self.n_constant_columns_ = fit_probes(task, (k,), settings)
        probe = probes[k]
        self.support_, self.coef_ = probe.support, spread * probe.wide(rows.x.shape[1])[0]
        self.intercept_ = centre + spread * float(probe.intercepts[0])
        self.objective_, self.gradient_norm_, self.n_iter_ = probe.objective, probe.gradient_norm, probe.iterations
        take_bound(self, probe)
        return self

    def predict(self, X: Any) -> Float[np.ndarray, " row"]:
        """Expected target of each row.

        Args:
            X: array or data frame [row, column].
        """
        return self._chosen_columns(X) @ self.coef_[self.support_] + self.intercept_


def limits_of(gap: Any, seconds: Any) -> Limits:
    """Limits of an exact search from parameters.

    Raises:
        InputError: a gap or a time that is not possible.
    """
    gap = positive_number("proof_gap", gap)
    if seconds is None:
        return Limits(gap=gap, nodes=EXACT_NODES)
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 <= float(seconds) < float("inf"):
        raise InputError(f"max_seconds = {seconds!r} is not possible: give a number of seconds from 0 on, or None.")
    return Limits(gap=gap, seconds=float(seconds))


def take_bound(estimator: Any, probe: FittedProbe) -> None:
    """Attributes that say how good the choice is proved to be."""
    chosen = probe.selection
    estimator.selection_objective_ = None if chosen is None else chosen.objective
    estimator.lower_bound_ = None if chosen is None else chosen.lower_bound
    estimator.gap_ = None if chosen is None else chosen.gap
    estimator.status_ = None if chosen is None else chosen.status.value


def linear_predictor(
    x: Float[np.ndarray, "row k"], coefficients: Float[np.ndarray, "output k"], intercepts: Float[np.ndarray, " output"]
) -> Float[np.ndarray, " row"] | Float[np.ndarray, "row output"]:
    """One number per row for one output, else one column per output."""
    eta = x @ coefficients.T + intercepts
    return eta[:, 0] if len(intercepts) == 1 else eta


def predicted(eta: np.ndarray) -> np.ndarray:
    """Number of the class that the linear predictor speaks for."""
    return (eta > 0).astype(int) if eta.ndim == 1 else eta.argmax(axis=1)
