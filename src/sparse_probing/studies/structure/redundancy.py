"""How redundantly a feature is written: what is left without its best neurons, which of them go together, how many layers hold it.

Source: Gurnee et al. 2023 (arXiv 2305.01610), iterative pruning, to tell one dedicated neuron from an ensemble. There the neuron to
delete was picked by its test score; here neurons are picked by merit on training and validation rows, and test rows only score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.probes.newton import SMALL_RIDGE
from sparse_probing.ranking.single_units import SingleUnitScores, single_unit_scores
from sparse_probing.ranking.statistics import class_moments
from sparse_probing.records import Split, unit_name
from sparse_probing.results.findings import named_neurons
from sparse_probing.selection.defaults import SELECTION_RIDGE
from sparse_probing.selection.greedy_swap import greedy_swap
from sparse_probing.selection.heuristics import top_by_score
from sparse_probing.selection.single_column import best_single_columns
from sparse_probing.sweep.choose import ENOUGH, Probe, best, merit
from sparse_probing.sweep.feature_view import STANDARD_DEVIATION_FLOOR, FeatureView
from sparse_probing.sweep.local_runner import task_data
from sparse_probing.sweep.plan import SELECTED, Method, Task
from sparse_probing.sweep.run_task import FINALISTS, feature_view

STEPS = 10
"""Neurons that are taken away, one at a time."""
SUPPORT = 5
"""Size of the small support that is chosen anew after each of them, as in the paper."""
LINKED = 0.5
"""Average correlation from which groups of neurons go together."""
RELATED = 0.5
"""Features are nested or opposite where knowing one label moves the chance of the other by at least this much."""
LAYER, ALL_LAYERS = "layer", "all layers"


def redundancy(
    dataset: FeatureDataset,
    store: Activations,
    tables: Mapping[str, pl.DataFrame],
    *,
    features: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the tables `pruning`, `stand_ins` and `readable_layers`.

    Args:
        dataset: rows and labels of the run.
        store: its activations, all probed layers.
        tables: `findings` and `probes` of the run.
        features: indices into the dataset's features; all when null.
        progress: called with the number of (feature, layer) pairs done, `len(features) * len(store.layers)` in all.

    Raises:
        InputError: a feature that the dataset or the run does not have.
    """
    neurons = named_neurons(dataset, tables["findings"], features)
    rows: dict[str, list[dict[str, Any]]] = {"pruning": [], "stand_ins": [], "readable_layers": []}
    for category in dict.fromkeys(dataset.categories[neuron.feature] for neuron in neurons):
        members = [neuron for neuron in neurons if dataset.categories[neuron.feature] == category]
        pools: list[dict[int, _Pool]] = [{} for _ in members]
        supports: list[list[Probe]] = [[] for _ in members]
        for layer in store.layers:
            task = Task(layer=layer, category=category, features=tuple(neuron.feature for neuron in members))
            for i, (view, single) in enumerate(_views(task, dataset, store)):
                own = [members[i].unit] if members[i].layer == layer else []
                pools[i][layer] = _Pool.of(view, single, own)
                if own:
                    removed = [probe["columns"][0] for probe in prune({layer: pools[i][layer]})]
                    supports[i] = _supports(view, removed)
            progress(len(members))
        for neuron, pool, small in zip(members, pools, supports, strict=True):
            chosen = {LAYER: prune({neuron.layer: pool[neuron.layer]}), ALL_LAYERS: prune(pool)}
            rows["pruning"].extend(_pruning_rows(dataset, store, neuron.feature, chosen, small))
            rows["stand_ins"].extend(_stand_ins(dataset, store, neuron.feature, chosen))
            where = {"category": category, "feature": dataset.features[neuron.feature]}
            rows["readable_layers"].extend(readable_layers(tables["probes"].filter(**where)))
    return rows


def label_relation(dataset: FeatureDataset, own: int, other: int) -> dict[str, Any]:
    """What the labels of two features have to do with each other, on the rows (of all splits) where both are eligible.

    `label_difference` is the larger one (by size) of P(other | own) - P(other | not own) and the same with the features exchanged.
    From `RELATED` on they are `nested` (or the same), from minus `RELATED` down `opposite`, else `different`; features without
    common rows of both classes are `not comparable`.

    Args:
        dataset: labels.
        own: first feature.
        other: second feature.
    """
    rows = np.flatnonzero(dataset.eligible[:, own] & dataset.eligible[:, other])
    a, b = dataset.positive[rows, own], dataset.positive[rows, other]
    relation: dict[str, Any] = {"common_rows": len(rows), "relation": "itself" if own == other else "not comparable"}
    relation |= {"own_in_other": float(b[a].mean())} if a.any() else {}
    relation |= {"other_in_own": float(a[b].mean())} if b.any() else {}
    if own != other and a.any() and b.any() and not a.all() and not b.all():
        difference = max(float(b[a].mean() - b[~a].mean()), float(a[b].mean() - a[~b].mean()), key=abs)
        related = "nested" if difference > 0 else "opposite"
        relation["label_difference"] = difference
        relation["relation"] = related if abs(difference) >= RELATED else "different"
    return relation


def _views(
    task: Task, dataset: FeatureDataset, store: Activations
) -> Iterable[tuple[FeatureView, tuple[SingleUnitScores, int]]]:
    """Each feature of a task with the scores of all units; one sort of the units serves all features."""
    data = task_data(task, dataset, store)
    train = data.x[data.train], data.positive[data.train], data.eligible[data.train]
    moments = class_moments(*train)
    single = single_unit_scores(*train, moments=moments, scale_floor=STANDARD_DEVIATION_FLOOR, ridge=SMALL_RIDGE)
    for f in range(len(task.features)):
        yield feature_view(task, data, f, moments, SELECTION_RIDGE), (single, f)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """Units of one layer that may come out best after some were taken away, and their probes."""

    orders: list[list[int]]
    """Best first, one list per criterion: objective, F1, average precision on training rows."""
    probes: dict[int, Probe]

    @classmethod
    def of(cls, view: FeatureView, scores: tuple[SingleUnitScores, int], own: list[int]) -> _Pool:
        """As many units as the search can reach in `STEPS` removals, and the run's own choice."""
        single, f = scores
        assert single.loss_floor is not None
        count = min(FINALISTS + STEPS, single.loss_floor.shape[1])
        orders = [best_single_columns(view.problem, single.loss_floor[f], count)[0].tolist()]
        for table in (single.f1, single.average_precision):
            score = table[:, f].max(axis=0)
            top = top_by_score(score, [count])[count]
            orders.append(top[np.argsort(-score[top], kind="stable")].tolist())
        units = np.unique(np.concatenate([*orders, own])).astype(np.int64)
        records = view.records(Method.SINGLE, units[:, None])
        return cls(orders=[*orders, own], probes=dict(zip(units.tolist(), records, strict=True)))

    def left(self, removed: set[int]) -> list[Probe]:
        """What the run's search for the best neuron would compare without some units."""
        units = {unit for order in self.orders for unit in [u for u in order if u not in removed][:FINALISTS]}
        return [self.probes[unit] for unit in sorted(units)]


def prune(pools: Mapping[int, _Pool]) -> list[Probe]:
    """The best single neuron, the best one without it, and so on: `STEPS` + 1 of them, or as many as there are.

    Args:
        pools: layer -> units that compete.
    """
    chosen: list[Probe] = []
    removed: dict[int, set[int]] = {layer: set() for layer in pools}
    for _ in range(STEPS + 1):
        candidates = [probe for layer, pool in pools.items() for probe in pool.left(removed[layer])]
        if not candidates:
            break
        chosen.append(best(candidates))
        removed[chosen[-1]["layer"]].add(chosen[-1]["columns"][0])
    return chosen


def _supports(view: FeatureView, removed: Sequence[int]) -> list[Probe]:
    """The best small support without the first 0, 1, ... of the removed units."""
    probes: list[Probe] = []
    problem = replace(view.problem, z=view.problem.z.copy())
    for step, unit in enumerate(removed):
        if problem.width - step < SUPPORT:
            break
        support = greedy_swap(problem, [SUPPORT])[SUPPORT]
        probes.append(view.records(Method.GREEDY_SWAP, support[None])[0])
        problem.z[:, unit] = 0.0  # as a constant column it cannot help
    return probes


def scores_on_test(dataset: FeatureDataset, store: Activations, f: int, probe: Probe) -> dict[str, float]:
    """Scores of a sparse probe on the feature's test rows."""
    rows = dataset.rows_of(f, Split.TEST)
    x = np.stack([store.column(probe["layer"], column, rows) for column in probe["columns"]], axis=1)
    score = x.astype(np.float64) @ np.array(probe["coefficients"]) + probe["intercept"]
    return metrics_at(Scored(score=score, positive=dataset.positive[rows, f]), probe["threshold"])


def _pruning_rows(
    dataset: FeatureDataset, store: Activations, f: int, chosen: dict[str, list[Probe]], supports: list[Probe]
) -> Iterable[dict[str, Any]]:
    for scope, probes in chosen.items():
        for step, probe in enumerate(probes):
            tested = scores_on_test(dataset, store, f, probe)
            row = _place(dataset, store, f, probe) | {
                "scope": scope,
                "removed": step,
                "merit": merit(probe),
                "as_good": merit(probe) >= ENOUGH * merit(probes[0]),
                **{name: tested[name] for name in ("f1", "mcc", "average_precision")},
            }
            if scope == LAYER and step < len(supports):
                small = supports[step]
                f1 = scores_on_test(dataset, store, f, small)["f1"]
                row |= {"k": small["k"], "support": small["columns"], "support_f1": f1}
            yield row


def _place(dataset: FeatureDataset, store: Activations, f: int, probe: Probe) -> dict[str, Any]:
    layer, unit = probe["layer"], probe["columns"][0]
    return {
        "category": dataset.categories[f],
        "feature": dataset.features[f],
        "neuron": unit_name(store.site, layer, unit),
        "layer": layer,
        "unit": unit,
    }


def _stand_ins(
    dataset: FeatureDataset, store: Activations, f: int, chosen: dict[str, list[Probe]]
) -> Iterable[dict[str, Any]]:
    """Clusters of the pruned neurons of both scopes, by their correlation within the classes."""
    probes = {(p["layer"], p["columns"][0]): p for scope in (LAYER, ALL_LAYERS) for p in chosen[scope]}
    rows = dataset.rows_of(f, Split.TRAIN)
    positive = dataset.positive[rows, f]
    values = np.stack([store.column(*unit, rows) for unit in probes], axis=1).astype(np.float64)
    inside, outside = correlations(values[positive]), correlations(values[~positive])
    clusters = correlation_clusters(inside, outside)
    first = merit(chosen[LAYER][0])
    for i, probe in enumerate(probes.values()):
        yield _place(dataset, store, f, probe) | {
            "f1": scores_on_test(dataset, store, f, probe)["f1"],
            "as_good": merit(probe) >= ENOUGH * first,
            "cluster": int(clusters[i]),
            "in_class_correlation": None if np.isnan(inside[0, i]) else float(inside[0, i]),
            "out_of_class_correlation": None if np.isnan(outside[0, i]) else float(outside[0, i]),
            "n_positive": int(positive.sum()),
            "n_negative": int((~positive).sum()),
        }


def correlations(values: Float[np.ndarray, "row unit"]) -> Float[np.ndarray, "unit unit"]:
    """Correlation of every unit with every other; NaN where one of them is constant."""
    centred = values - values.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    length[length <= 1e-6 * np.sqrt((values**2).sum(axis=0))] = np.nan
    return np.clip((centred / length).T @ (centred / length), -1.0, 1.0)


def correlation_clusters(
    inside: Float[np.ndarray, "unit unit"], outside: Float[np.ndarray, "unit unit"]
) -> Int[np.ndarray, " unit"]:
    """Groups of units that go together whatever the class, numbered from 1 in the order of their first member.

    Units are as close as the size of the mean of their two correlations, in class and out of class: what the class itself does to
    both of them does not count. Average linkage; groups join while their average closeness is at least `LINKED`.

    Args:
        inside: correlations among rows in class, NaN for constant units (which are close to none).
        outside: the same out of class.
    """
    if len(inside) == 1:
        return np.ones(1, dtype=np.int64)
    distance = 1.0 - np.abs(np.nan_to_num(inside) + np.nan_to_num(outside)) / 2.0
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform((distance + distance.T) / 2.0, checks=False), method="average")
    found = fcluster(tree, t=1.0 - LINKED, criterion="distance")
    number = {name: i for i, name in enumerate(dict.fromkeys(found.tolist()), 1)}
    return np.array([number[name] for name in found.tolist()], dtype=np.int64)


def readable_layers(probes: pl.DataFrame) -> list[dict[str, Any]]:
    """In which layers one feature can be read: by one neuron, by few, by all.

    Args:
        probes: rows of the probe table on one feature.
    """
    keys = ["category", "feature", "layer", "method", "k"]
    seen = probes.filter(pl.col("split").is_in([Split.TRAIN.value, Split.VALIDATION.value]))
    fitted = seen.group_by(keys, maintain_order=True).agg(
        merit=((pl.col("f1") + pl.col("average_precision")) / 2).min(),
        f1=pl.col("f1").filter(pl.col("split") == Split.VALIDATION.value).first(),
    )
    chosen = fitted.filter(pl.col("method").is_in([*(m.value for m in SELECTED), Method.SINGLE.value]))
    kinds = {
        "single": chosen.filter(k=1),
        "sparse": chosen.filter(pl.col("k") > 1),
        "dense": fitted.filter(method=Method.DENSE.value),
    }
    rows = []
    for layer in sorted(fitted["layer"].unique().to_list()):
        row: dict[str, Any] = {}
        for kind, table in kinds.items():
            here = table.filter(layer=layer).sort("merit", "k", descending=[True, False], maintain_order=True)
            for found in here.head(1).iter_rows(named=True):
                row |= {"category": found["category"], "feature": found["feature"], "layer": layer}
                row |= {f"{kind}_f1": found["f1"], f"{kind}_merit": found["merit"]}
                row |= {f"{kind}_readable": found["merit"] >= ENOUGH * float(np.max(table["merit"].to_numpy()))}
                row |= {"sparse_k": found["k"]} if kind == "sparse" else {}
        if row.get("dense_merit") is not None:
            enough = chosen.filter(pl.col("merit") >= ENOUGH * row["dense_merit"], layer=layer)["k"].to_list()
            row["k_enough"] = min(enough, default=None)
        if row:
            rows.append(row)
    return rows
