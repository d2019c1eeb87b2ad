"""All probes of one layer and category: rank every unit, choose supports, refit, score on train and validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.metrics.intervals import group_resamples
from sparse_probing.metrics.scores import Scored, weighted_metrics
from sparse_probing.probes.dense import SharedColumns, fit_dense
from sparse_probing.probes.newton import SMALL_RIDGE
from sparse_probing.ranking.mutual_information import mutual_information
from sparse_probing.ranking.permutation_null import largest_correlations, permuted_labels
from sparse_probing.ranking.single_units import SingleUnitScores, single_unit_scores
from sparse_probing.ranking.statistics import (
    ClassMoments,
    anova_f,
    class_moments,
    mean_difference,
    point_biserial,
    welch_t,
)
from sparse_probing.records import task_rng
from sparse_probing.selection.certificate import Certificate
from sparse_probing.selection.exact import Limits
from sparse_probing.selection.heuristics import at_random, top_by_score
from sparse_probing.selection.methods import bounded_selections
from sparse_probing.selection.relaxation import relaxation_path
from sparse_probing.selection.single_column import best_single_columns
from sparse_probing.sweep.choose import best
from sparse_probing.sweep.controls import control_labels, shuffled_labels
from sparse_probing.sweep.feature_view import STANDARD_DEVIATION_FLOOR, FeatureView
from sparse_probing.sweep.plan import Method, Plan, Task

FINALISTS = 10
"""Units per criterion (objective, F1, average precision; all on training rows) that go on to validation for k = 1."""
LISTED_NEURONS = 20
"""Best-ranked units per feature and layer that go into the neuron table, beside the finalists."""
DENSE_RIDGES = (0.3, 0.03)
"""The dense probe takes the better one, by merit."""
RESAMPLES = 100
"""Resamples of documents that show how often a unit comes out best."""
LEAST_CONTROL_ROWS = 2
"""Rows of each class and split without which there is no control task."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskData:
    """Train and validation rows of one category at one layer."""

    x: Float[np.ndarray, "row unit"]
    train: Bool[np.ndarray, " row"]
    """Training rows; the others are validation rows."""
    positive: Bool[np.ndarray, "row feature"]
    eligible: Bool[np.ndarray, "row feature"]
    groups: Int[np.ndarray, " row"]
    """Document of each row."""
    tokens: Int[np.ndarray, " row"]
    """Token id of rows that are single tokens, -1 for the others."""
    feature_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """Rows for the probe table and the neuron table, and what is compared across layers."""

    probes: list[dict[str, Any]]
    neurons: list[dict[str, Any]]
    null: dict[str, list[float]]
    """Feature -> largest |correlation| of any unit of the layer, for each permutation of the labels."""
    largest: dict[str, float]
    """Feature -> the same statistic for the true labels: what `null` is the null of."""
    resampled: dict[str, dict[str, list[float]]]
    """Feature -> unit -> average precision on training rows, for each resample of the documents; finalists only. See
    `_resampled` for how equals are told apart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ranked:
    """Training-row statistics of all units for some labels."""

    moments: ClassMoments
    single: SingleUnitScores


Keep = Callable[[str, Certificate], object]
"""Stores a certificate under a name."""


def _drop(name: str, certificate: Certificate) -> None:  # noqa: ARG001 - where nobody stores certificates
    return


def run_task(task: Task, data: TaskData, plan: Plan, keep: Keep = _drop) -> TaskResult:
    """Fit every probe of the task.

    Args:
        task: layer and features.
        data: their activations and labels, without test rows.
        plan: sizes, methods, permutations and seed; controls depend on the seed, the task's and the feature's name only.
        keep: given the certificates of exact searches.
    """
    if task.exact:
        return _exact(task, data, plan, keep)
    result = TaskResult(probes=[], neurons=[], null={}, largest={}, resampled={})
    true = _rank(data, data.positive)
    if task.random_model:
        for f in range(len(data.feature_names)):
            view = feature_view(task, data, f, true.moments, plan.selection_ridge)
            result.probes.append(best(view.records(Method.RANDOM_MODEL, _finalists(view, true, f)[0][:, None])))
        return result
    information = mutual_information(data.x[data.train], data.positive[data.train], data.eligible[data.train])
    dense = _dense(
        data, [feature_view(task, data, f, true.moments, plan.selection_ridge) for f in range(len(data.feature_names))]
    )
    blind = _blind_labels(task, data, plan)
    ranked = {method: _rank(data, labels) for method, labels in blind.items()}
    for f, name in enumerate(data.feature_names):
        view = feature_view(task, data, f, true.moments, plan.selection_ridge)
        rng = task_rng(plan.seed, task.name, name)
        units, objectives = _finalists(view, true, f)
        result.probes.append(best(view.records(Method.SINGLE, units[:, None])))
        relaxed = relaxation_path(view.problem, plan.ks)
        for method in plan.methods:
            if method is not Method.EXACT:  # a task of its own
                chosen = bounded_selections(view.problem, method.value, plan.ks, rng, relaxed=relaxed)
                result.probes.extend(view.selected(method, selection) for selection in chosen.values())
        for columns in at_random(data.x.shape[1], plan.ks, rng).values():
            result.probes.append(view.records(Method.RANDOM, columns[None])[0])
        result.probes.append(dense[f])
        for method, labels in blind.items():
            if _both_classes(data, f, labels[:, f]):
                other = view.relabelled(labels[:, f])
                result.probes.append(best(other.records(method, _finalists(other, ranked[method], f)[0][:, None])))
        result.neurons.extend(_neuron_rows(task, name, true, information[f], f, objectives))
        result.resampled[name] = _resampled(data, view, true, f, units, plan.seed, task.category)
        if plan.permutations:
            result.largest[name], *result.null[name] = _correlations_and_null(data, view, plan, task.category, name)
    return result


def feature_view(task: Task, data: TaskData, f: int, moments: ClassMoments, selection_ridge: float) -> FeatureView:
    """One feature of the task.

    Args:
        task: for the name.
        data: of the task.
        f: which feature.
        moments: of its training rows.
        selection_ridge: while supports are chosen.
    """
    mean, scale = moments.mean[f], np.sqrt(moments.variance[f])
    return FeatureView(
        data.x,
        data.train,
        data.positive[:, f],
        data.eligible[:, f],
        mean,
        scale,
        data.feature_names[f],
        task,
        selection_ridge,
    )


def _exact(task: Task, data: TaskData, plan: Plan, keep: Keep) -> TaskResult:
    """The best supports of one feature, proved."""
    assert plan.exact is not None
    moments = class_moments(data.x[data.train], data.positive[data.train], data.eligible[data.train])
    view, exact = feature_view(task, data, 0, moments, plan.selection_ridge), plan.exact
    where = {"category": task.category, "feature": view.feature, "layer": task.layer}
    rng = task_rng(plan.seed, task.name)
    chosen = bounded_selections(
        view.problem,
        Method.EXACT.value,
        exact.ks,
        rng,
        Limits(gap=exact.gap, nodes=exact.nodes),
        keep=lambda k, certificate: keep(_file(task, k), replace(certificate, about=where)),
    )
    probes = [view.selected(Method.EXACT, selection, _file(task, k)) for k, selection in chosen.items()]
    return TaskResult(probes=probes, neurons=[], null={}, largest={}, resampled={})


def _file(task: Task, k: int) -> str:
    return f"{task.file.removeprefix('exact-')}-k{k}.npz"


def _rank(data: TaskData, labels: Bool[np.ndarray, "row feature"]) -> _Ranked:
    x, positive, eligible = data.x[data.train], labels[data.train], data.eligible[data.train]
    moments = class_moments(x, positive, eligible)
    single = single_unit_scores(
        x, positive, eligible, moments=moments, scale_floor=STANDARD_DEVIATION_FLOOR, ridge=SMALL_RIDGE
    )
    return _Ranked(moments=moments, single=single)


def _finalists(view: FeatureView, ranked: _Ranked, f: int) -> tuple[Int[np.ndarray, " unit"], dict[int, float]]:
    """Units that go on to validation: the best by objective, by F1 and by average precision, out of all units of the layer.

    Also the objectives of the best by objective.
    """
    assert ranked.single.loss_floor is not None
    count = min(FINALISTS, ranked.single.loss_floor.shape[1])
    units, objectives = best_single_columns(view.problem, ranked.single.loss_floor[f], count)
    tops = [units]
    for score in (ranked.single.f1, ranked.single.average_precision):
        tops.append(top_by_score(score[:, f].max(axis=0), [count])[count])
    return np.unique(np.concatenate(tops)), dict(zip(units.tolist(), objectives.tolist(), strict=True))


def _dense(data: TaskData, views: list[FeatureView]) -> list[dict[str, Any]]:
    """The better of two ridges for each feature; all features share every product with the activations."""
    rows = np.flatnonzero(data.train)
    x = data.x[rows]
    centre = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    shared = SharedColumns(
        x=x.astype(np.float32, copy=False) - centre,
        mean=np.stack([view.mean for view in views]) - centre,
        scale=np.stack([view.scale for view in views]),
    )
    target, weights = np.zeros((len(views), len(rows))), np.zeros((len(views), len(rows)))
    for f, view in enumerate(views):
        at = np.searchsorted(rows, view.rows[True])
        target[f, at], weights[f, at] = view.labels[True], view.weights
    records: list[list[dict[str, Any]]] = [[] for _ in views]
    start, columns = None, np.arange(x.shape[1])
    for ridge in DENSE_RIDGES:
        fits = fit_dense(shared, target, weights, ridge, start=start)
        start = fits.coefficients, fits.intercept
        for f, view in enumerate(views):
            records[f].append(view.record(Method.DENSE, columns, fits[f], ridge))
    return [best(two) for two in records]


def _blind_labels(task: Task, data: TaskData, plan: Plan) -> dict[Method, Bool[np.ndarray, "row feature"]]:
    """Labels that mean nothing, for each control; no control task where rows are not single tokens."""
    shuffled = data.positive.copy()
    control = data.positive.copy()
    for f, name in enumerate(data.feature_names):
        rows = np.flatnonzero(data.eligible[:, f])
        labels = data.positive[rows, f]
        rng = task_rng(plan.seed, "shuffled", task.category, name)
        shuffled[rows, f] = shuffled_labels(labels, data.groups[rows], data.train[rows], rng)
        if (data.tokens >= 0).all():
            share = float(labels[data.train[rows]].mean())
            control[rows, f] = control_labels(data.tokens[rows], share, plan.seed, task.category, name)
    return {Method.SHUFFLED: shuffled} | ({Method.CONTROL_TASK: control} if (data.tokens >= 0).all() else {})


def _both_classes(data: TaskData, f: int, labels: Bool[np.ndarray, " row"]) -> bool:
    """Whether train and validation hold rows of both classes; a control task on few token types may not."""
    sides = [labels[data.eligible[:, f] & (data.train == part)] for part in (True, False)]
    return min(min(int(side.sum()), int((~side).sum())) for side in sides) >= LEAST_CONTROL_ROWS


def _correlations_and_null(data: TaskData, view: FeatureView, plan: Plan, category: str, feature: str) -> list[float]:
    """Largest |correlation| of any unit of the layer: with the true labels, then with each permutation.

    One call for all of them, so that the same rounding meets the true labels and a permutation that equals them. The same
    permutations at every layer, so that the largest correlation of all layers can be taken for each of them.
    """
    rows, labels = view.rows[True], view.labels[True]
    rng = task_rng(plan.seed, "null", category, feature)
    permuted = permuted_labels(labels, data.groups[rows], plan.permutations, rng)
    return [float(f"{r:.7g}") for r in largest_correlations(data.x[rows], np.vstack([labels[None], permuted]))]


def _resampled(
    data: TaskData, view: FeatureView, ranked: _Ranked, f: int, units: np.ndarray, seed: int, category: str
) -> dict[str, list[float]]:
    """Average precision of each finalist over resamples of the training documents, the same ones at every layer.

    A millionth of the |correlation| is added: it decides between units whose order of the rows is equally good.
    """
    rows, positive = view.rows[True], view.labels[True]
    rng = task_rng(seed, "stability", category, view.feature)
    weights = group_resamples(data.groups[rows], RESAMPLES, rng)
    weights = weights[(weights @ positive > 0) & (weights @ ~positive > 0)]
    sign = np.where(np.subtract(*ranked.single.average_precision[:, f]) >= 0, 1.0, -1.0)
    result = {}
    for unit in units.tolist():
        x = data.x[rows, unit].astype(np.float64)
        table = weighted_metrics(Scored(score=sign[unit] * x, positive=positive), np.inf, weights)
        value = table["average_precision"] + 1e-6 * np.abs(_correlations(x, positive, weights))
        result[str(unit)] = [float(f"{v:.10g}") for v in value]
    return result


def _correlations(
    x: Float[np.ndarray, " row"], positive: Bool[np.ndarray, " row"], weights: Float[np.ndarray, "repeat row"]
) -> Float[np.ndarray, " repeat"]:
    """Correlation of a unit with the label under each set of row weights; 0 where the unit is constant."""
    n = weights.sum(axis=1)
    x = x - x.mean()
    mean, share = weights @ x / n, weights @ positive / n
    covariance = weights @ (x * positive) / n - mean * share
    spread = np.sqrt(np.maximum(weights @ x**2 / n - mean**2, 0.0) * share * (1 - share))
    return np.divide(covariance, spread, out=np.zeros_like(mean), where=spread > 1e-12)


def _neuron_rows(
    task: Task, feature: str, ranked: _Ranked, information: np.ndarray, f: int, objectives: dict[int, float]
) -> list[dict[str, Any]]:
    """Statistics of the best-ranked units and of the finalists by objective, strongest mean difference first."""
    moments, single = ranked.moments, ranked.single
    scores = {
        "mean_difference": mean_difference(moments)[f],
        "correlation": point_biserial(moments)[f],
        "welch_t": welch_t(moments)[f],
        "anova_f": anova_f(moments)[f],
        "mutual_information": information,
        "roc_auc": single.roc_auc[0, f],
        "average_precision": single.average_precision[:, f].max(axis=0),
        "best_f1": single.f1[:, f].max(axis=0),
        "mean_in_class": moments.mean_positive[f],
        "mean_out_of_class": moments.mean_negative[f],
    }
    difference = scores["mean_difference"]
    count = min(LISTED_NEURONS, len(difference))
    listed = np.union1d(top_by_score(difference, [count])[count], np.array(list(objectives), dtype=int))
    order = listed[np.lexsort((listed, -np.abs(difference[listed])))]
    where = {"category": task.category, "feature": feature, "layer": task.layer}
    return [
        where
        | {"unit": unit, "objective": objectives.get(unit)}
        | {name: float(score[unit]) for name, score in scores.items()}
        for unit in order.tolist()
    ]
