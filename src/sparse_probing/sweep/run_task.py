"""All probes of one layer and category: rank, choose supports, refit, score on train and validation. Never sees test rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.metrics.scores import Scored, best_f1_threshold, metrics_at
from sparse_probing.probes.logistic import SMALL_RIDGE, LogisticFit, fit_dense_logistic, fit_logistic
from sparse_probing.ranking.mutual_information import mutual_information
from sparse_probing.ranking.statistics import anova_f, class_moments, mean_difference
from sparse_probing.records import task_rng
from sparse_probing.selection.heuristics import Supports, at_random, shrinking_elastic_net, top_by_score
from sparse_probing.sweep.choose import best
from sparse_probing.sweep.plan import Method, Task

CANDIDATES_PER_RANKING = 10
"""Units per ranking that are tried one by one for k = 1."""
LISTED_NEURONS = 20
"""Best-ranked units per feature and layer that go into the neuron table."""
DENSE_RIDGES = (0.3, 0.03)
"""The dense probe takes the better one, by merit."""
STANDARD_DEVIATION_FLOOR = 1e-3
"""Units that move less than this are scaled as if they moved this much (paper, section on preprocessing)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskData:
    """Train and validation rows of one category at one layer."""

    x: Float[np.ndarray, "row unit"]
    train: Bool[np.ndarray, " row"]
    """Training rows; the others are validation rows."""
    positive: Bool[np.ndarray, "row feature"]
    eligible: Bool[np.ndarray, "row feature"]
    feature_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """Rows for the probe table and the neuron table."""

    probes: list[dict[str, Any]]
    neurons: list[dict[str, Any]]


def run_task(task: Task, data: TaskData, ks: tuple[int, ...], seed: int) -> TaskResult:
    """Fit every probe of the task.

    Args:
        task: layer and features.
        data: their activations and labels, without test rows.
        ks: sizes to try.
        seed: seed of the run; random controls depend on it and on the task's and the feature's name only.
    """
    rows = data.train
    moments = class_moments(data.x[rows], data.positive[rows], data.eligible[rows])
    rankings = {
        "mean_difference": mean_difference(moments),
        "anova_f": anova_f(moments),
        "mutual_information": mutual_information(data.x[rows], data.positive[rows], data.eligible[rows]),
    }
    probes: list[dict[str, Any]] = []
    neurons: list[dict[str, Any]] = []
    for f, name in enumerate(data.feature_names):
        view = _FeatureView(data, f, task)
        scores = {ranking: table[f] for ranking, table in rankings.items()}
        rng = task_rng(seed, task.name, name)
        if task.random_model:
            probes.append(view.best_single(Method.RANDOM_MODEL, scores))
            continue
        probes.append(view.best_single(Method.SINGLE, scores))
        for method, supports in _supports(view, scores["mean_difference"], ks, rng):
            probes.extend(view.record(method, columns, view.fit(columns)) for columns in supports.values())
        probes.append(view.dense())
        probes.append(view.shuffled(rng))
        neurons.extend(_neuron_rows(task, name, scores, moments.mean_positive[f], moments.mean_negative[f]))
    return TaskResult(probes=probes, neurons=neurons)


def _supports(
    view: _FeatureView, score: Float[np.ndarray, " unit"], ks: tuple[int, ...], rng: np.random.Generator
) -> Iterator[tuple[Method, Supports]]:
    x, positive = view.x[True], view.labels[True]
    yield Method.SHRINKING, shrinking_elastic_net(x, positive, score, ks)
    yield Method.MEAN_DIFFERENCE, top_by_score(score, ks)
    yield Method.RANDOM, at_random(x.shape[1], ks, rng)


class _FeatureView:
    """One feature's eligible rows, standardised on its training rows."""

    def __init__(self, data: TaskData, feature: int, task: Task) -> None:
        rows = data.eligible[:, feature]
        raw = data.x[rows].astype(np.float64)
        train, positive = data.train[rows], data.positive[rows, feature]
        self.mean = raw[train].mean(axis=0)
        self.scale = np.maximum(raw[train].std(axis=0), STANDARD_DEVIATION_FLOOR)
        x = (raw - self.mean) / self.scale
        self.x = {True: x[train], False: x[~train]}
        """Training rows (True) and validation rows (False)."""
        self.labels = {True: positive[train], False: positive[~train]}
        self.name = data.feature_names[feature]
        self.task = task

    def fit(self, columns: Int[np.ndarray, " k"]) -> LogisticFit:
        return fit_logistic(self.x[True][:, columns], self.labels[True], SMALL_RIDGE)

    def scored(self, columns: Int[np.ndarray, " k"], fit: LogisticFit, *, train: bool) -> Scored:
        return Scored(score=self.x[train][:, columns] @ fit.coefficients + fit.intercept, positive=self.labels[train])

    def best_single(self, method: Method, scores: dict[str, Float[np.ndarray, " unit"]]) -> dict[str, Any]:
        """The probe on the best of the top-ranked units, each tried alone."""
        tops = [top_by_score(score, [CANDIDATES_PER_RANKING])[CANDIDATES_PER_RANKING] for score in scores.values()]
        candidates = (np.array([unit]) for unit in np.unique(np.concatenate(tops)))
        return best(self.record(method, columns, self.fit(columns)) for columns in candidates)

    def dense(self) -> dict[str, Any]:
        columns = np.arange(self.x[True].shape[1])
        records, start = [], None
        for ridge in DENSE_RIDGES:
            fit = fit_dense_logistic(self.x[True], self.labels[True], ridge, start)
            start = fit.coefficients, fit.intercept
            records.append(self.record(Method.DENSE, columns, fit, ridge))
        return best(records)

    def shuffled(self, rng: np.random.Generator) -> dict[str, Any]:
        """The single-neuron search, threshold included, with labels permuted within train and within validation.

        Its validation scores are those on the permuted labels, by which it is chosen; the test split tells what it is worth.
        """
        blind = copy(self)
        blind.labels = {part: rng.permutation(labels) for part, labels in self.labels.items()}
        everyone = np.ones((len(blind.labels[True]), 1), dtype=bool)
        moments = class_moments(self.x[True], blind.labels[True][:, None], everyone)
        return blind.best_single(Method.SHUFFLED, {"mean_difference": mean_difference(moments)[0]})

    def record(
        self,
        method: Method,
        columns: Int[np.ndarray, " k"],
        fit: LogisticFit,
        ridge: float = SMALL_RIDGE,
    ) -> dict[str, Any]:
        """One row of the probe table; the threshold is the best one on validation."""
        train, held = (self.scored(columns, fit, train=part) for part in (True, False))
        threshold = best_f1_threshold(held)
        raw = fit.coefficients / self.scale[columns]
        row: dict[str, Any] = {
            "category": self.task.category,
            "feature": self.name,
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
        for split, scored in (("train", train), ("validation", held)):
            row |= {f"{split}_{name}": value for name, value in metrics_at(scored, threshold).items()}
        return row


def _neuron_rows(
    task: Task,
    feature: str,
    scores: dict[str, Float[np.ndarray, " unit"]],
    mean_positive: Float[np.ndarray, " unit"],
    mean_negative: Float[np.ndarray, " unit"],
) -> Iterable[dict[str, Any]]:
    order = top_by_score(scores["mean_difference"], [LISTED_NEURONS])[LISTED_NEURONS]
    for unit in order[np.argsort(-np.abs(scores["mean_difference"][order]), kind="stable")]:
        yield {
            "category": task.category,
            "feature": feature,
            "layer": task.layer,
            "unit": int(unit),
            **{name: float(score[unit]) for name, score in scores.items()},
            "mean_in_class": float(mean_positive[unit]),
            "mean_out_of_class": float(mean_negative[unit]),
        }
