"""One feature's eligible rows, and the fits and scores of probes on them. Never sees test rows."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.metrics.scores import Scored, best_f1_threshold, metrics_at
from sparse_probing.probes.newton import SMALL_RIDGE, LinearFit, fit_batch
from sparse_probing.probes.weights import balanced_weights
from sparse_probing.selection.defaults import SELECTION_RIDGE
from sparse_probing.selection.problem import Problem, standardise
from sparse_probing.selection.supports import Selection
from sparse_probing.sweep.plan import Method, Task

STANDARD_DEVIATION_FLOOR = 1e-3
"""Units that move less than this are scaled as if they moved this much (paper, section on preprocessing)."""


class FeatureView:
    """Training and validation rows of one feature at one layer."""

    def __init__(
        self,
        x: Float[np.ndarray, "row unit"],
        train: Bool[np.ndarray, " row"],
        positive: Bool[np.ndarray, " row"],
        eligible: Bool[np.ndarray, " row"],
        mean: Float[np.ndarray, " unit"],
        scale: Float[np.ndarray, " unit"],
        feature: str,
        task: Task,
        selection_ridge: float = SELECTION_RIDGE,
    ) -> None:
        self.raw, self.feature, self.task, self.selection_ridge = x, feature, task, selection_ridge
        self.mean, self.scale = mean, np.maximum(scale, STANDARD_DEVIATION_FLOOR)
        self.rows = {part: np.flatnonzero(eligible & (train == part)) for part in (True, False)}
        """Training rows (True) and validation rows (False)."""
        self.labels = {part: positive[rows] for part, rows in self.rows.items()}
        self.weights = balanced_weights(self.labels[True])

    @cached_property
    def problem(self) -> Problem:
        """The training rows as a selection problem."""
        z, _, _ = standardise(self.raw[self.rows[True]], floor=STANDARD_DEVIATION_FLOOR)
        target = self.labels[True].astype(np.float64)
        return Problem(z=z, target=target, weights=self.weights, ridge=self.selection_ridge)

    def relabelled(self, positive: Bool[np.ndarray, " row"]) -> FeatureView:
        """The same rows with other labels (of all rows of the task)."""
        other = copy(self)
        other.labels = {part: positive[rows] for part, rows in self.rows.items()}
        other.weights = balanced_weights(other.labels[True])
        target = other.labels[True].astype(np.float64)
        other.__dict__["problem"] = replace(self.problem, target=target, weights=other.weights)
        return other

    def columns(self, support: Int[np.ndarray, "*problem k"], *, train: bool) -> Float[np.ndarray, "row *problem k"]:
        """Standardised columns of a support, in float64 from the stored values."""
        rows = self.rows[train]
        part = self.raw[rows.reshape(-1, *(1,) * support.ndim), support].astype(np.float64)
        return (part - self.mean[support]) / self.scale[support]

    def fit_all(self, supports: Int[np.ndarray, "problem k"]) -> list[LinearFit]:
        """Probes on supports of equal size, at a small ridge."""
        x = self.columns(supports, train=True).transpose(1, 0, 2)
        shape = (len(supports), len(self.weights))
        target = np.broadcast_to(self.labels[True].astype(np.float64), shape)
        fits = fit_batch(x, target, np.broadcast_to(self.weights, shape), SMALL_RIDGE)
        return [fits[i] for i in range(len(supports))]

    def records(self, method: Method, supports: Int[np.ndarray, "problem k"]) -> list[dict[str, Any]]:
        """Rows of the probe table for supports of equal size."""
        fits = self.fit_all(supports)
        return [self.record(method, columns, fit) for columns, fit in zip(supports, fits, strict=True)]

    def selected(self, method: Method, selection: Selection, certificate: str | None = None) -> dict[str, Any]:
        """Row of the probe table for a support that was selected; says how good the choice is proved to be."""
        return self.records(method, selection.support[None])[0] | {
            "selection_objective": selection.objective,
            "lower_bound": selection.lower_bound,
            "gap": selection.gap,
            "status": selection.status.value,
            "certificate": certificate,
        }

    def record(
        self,
        method: Method,
        columns: Int[np.ndarray, " k"],
        fit: LinearFit,
        ridge: float = SMALL_RIDGE,
    ) -> dict[str, Any]:
        """One row of the probe table; the threshold is the best one on validation."""
        scored = {
            part: Scored(
                score=self.columns(columns, train=part) @ fit.coefficients + fit.intercept, positive=self.labels[part]
            )
            for part in (True, False)
        }
        threshold = best_f1_threshold(scored[False])
        raw = fit.coefficients / self.scale[columns]
        row: dict[str, Any] = {
            "category": self.task.category,
            "feature": self.feature,
            "layer": self.task.layer,
            "method": method.value,
            "k": len(columns),
            "columns": None if method is Method.DENSE else [int(c) for c in columns],
            "coefficients": [float(c) for c in raw],
            "intercept": float(fit.intercept - raw @ self.mean[columns]),
            "threshold": threshold,
            "ridge": ridge,
            "objective": fit.objective,
        }
        for split, part in (("train", True), ("validation", False)):
            row |= {f"{split}_{name}": value for name, value in metrics_at(scored[part], threshold).items()}
        return row
