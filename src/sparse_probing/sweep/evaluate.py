"""The one reading of the test split: scores and intervals of the probes that validation chose, controls beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.intervals import bootstrap_intervals
from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.records import Split, task_rng, unit_name
from sparse_probing.results.verdict import Evidence, verdict
from sparse_probing.sweep.choose import CONTROLS, choose
from sparse_probing.sweep.plan import Method
from sparse_probing.sweep.text_baseline import TextOnly


@dataclass(slots=True)
class RunTables:
    """Rows of the result tables while they are collected."""

    probes: list[dict[str, Any]] = field(default_factory=list)
    baselines: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    dataset: FeatureDataset,
    probes: list[dict[str, Any]],
    stores: dict[bool, Activations],
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> RunTables:
    """Test scores of every chosen probe, and the headline row of each feature.

    Args:
        dataset: rows and labels.
        probes: all rows that the tasks produced.
        stores: activations of the model (`False`) and of its untrained twin (`True`).
        seed: seed of the run, for the bootstrap.
        progress: called with the number of features done since the last call.
    """
    tables = RunTables()
    by_feature: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for probe in probes:
        by_feature.setdefault((probe["category"], probe["feature"]), []).append(probe)
        tables.probes.extend(_fitted_rows(probe))
    blocks, text = _TestRows(dataset, stores), TextOnly(dataset)
    for f, key in enumerate(zip(dataset.categories, dataset.features, strict=True)):
        _evaluate_feature(dataset, f, choose(by_feature[key]), blocks, text, seed, tables)
        progress(1)
    return tables


class _TestRows:
    """Test rows of one category at one layer, kept while its features are read."""

    def __init__(self, dataset: FeatureDataset, stores: dict[bool, Activations]) -> None:
        self.dataset, self.stores = dataset, stores
        self.site = stores[False].site
        self.kept: dict[tuple[str, bool, int], tuple[np.ndarray, np.ndarray]] = {}

    def scored(self, feature: int, probe: dict[str, Any]) -> Scored:
        rows = self.dataset.rows_of(feature, Split.TEST)
        twin = probe["method"] == Method.RANDOM_MODEL
        known, block = self._block(self.dataset.categories[feature], probe["layer"], twin=twin)
        x = block[np.searchsorted(known, rows)].astype(np.float64)
        if probe["columns"] is not None:
            x = x[:, probe["columns"]]
        return Scored(
            score=x @ np.array(probe["coefficients"]) + probe["intercept"],
            positive=self.dataset.positive[rows, feature],
        )

    def _block(self, category: str, layer: int, *, twin: bool) -> tuple[np.ndarray, np.ndarray]:
        key = (category, twin, layer)
        if key not in self.kept:
            self.kept = {k: v for k, v in self.kept.items() if k[0] == category}
            features = [i for i, c in enumerate(self.dataset.categories) if c == category]
            rows = np.unique(np.concatenate([self.dataset.rows_of(i, Split.TEST) for i in features]))
            self.kept[key] = rows, self.stores[twin].read(layer, rows)
        return self.kept[key]


def _evaluate_feature(
    dataset: FeatureDataset,
    f: int,
    roles: dict[str, dict[str, Any]],
    blocks: _TestRows,
    text: TextOnly,
    seed: int,
    tables: RunTables,
) -> None:
    groups = dataset.row_group[dataset.rows_of(f, Split.TEST)]
    where = {"category": dataset.categories[f], "feature": dataset.features[f]}

    def measured(scored: Scored, threshold: float) -> dict[str, float]:
        # the same resamples for every probe of a feature, so that their differences are paired
        rng = task_rng(seed, "bootstrap", *where.values())
        scores = metrics_at(scored, threshold)
        ends = bootstrap_intervals(scored, threshold, groups, rng)
        return (
            scores | {f"{n}_low": low for n, (low, _) in ends.items()} | {f"{n}_high": h for n, (_, h) in ends.items()}
        )

    results: dict[str, dict[str, float]] = {}
    done: dict[int, dict[str, float]] = {}
    for role, probe in roles.items():
        if id(probe) not in done:
            done[id(probe)] = measured(blocks.scored(f, probe), probe["threshold"])
        results[role] = done[id(probe)]
        tables.probes.append(_common(probe) | {"split": Split.TEST.value, "role": role} | results[role])
        if role in (*CONTROLS, "random_neurons"):
            place = {"layer": probe["layer"], "k": probe["k"]}
            tables.baselines.append(where | {"baseline": role} | place | results[role])
    for name, scored, threshold in (
        (Method.TEXT.value, *text.score(f)),
        (Method.MAJORITY.value, *_majority(dataset, f)),
    ):
        results[name] = measured(scored, threshold)
        tables.baselines.append(where | {"baseline": name} | results[name])
    tables.findings.append(where | _headline(dataset, f, blocks.site, roles, results))


def _majority(dataset: FeatureDataset, f: int) -> tuple[Scored, float]:
    """Always the class that is more frequent among the training rows: a constant score, above or below the threshold."""
    train, test = (dataset.positive[dataset.rows_of(f, split), f] for split in (Split.TRAIN, Split.TEST))
    return Scored(score=np.full(len(test), float(train.mean() > 0.5)), positive=test), 0.5


def _headline(
    dataset: FeatureDataset, f: int, site: str, roles: dict[str, dict[str, Any]], results: dict[str, dict[str, float]]
) -> dict[str, Any]:
    single, enough = roles["single"], roles.get("enough")
    controls = {
        name: results[name]["f1"]
        for name in (*CONTROLS, "random_neurons", Method.TEXT, Method.MAJORITY)
        if name in results
    }
    best_control = max(controls, key=lambda name: controls[name])
    short, why = verdict(
        Evidence(
            single_f1=results["single"]["f1"],
            single_low=results["single"]["f1_low"],
            dense_f1=results["dense"]["f1"],
            k_enough=enough["k"] if enough else None,
            k_enough_f1=results["enough"]["f1"] if enough else None,
            control_f1=max(results[name]["f1"] for name in CONTROLS if name in results),
            text_f1=results[Method.TEXT]["f1"],
        )
    )
    unit, (positives, negatives) = single["columns"][0], dataset.counts(f)[Split.TEST]
    return {
        "neuron": unit_name(site, single["layer"], unit),
        "layer": single["layer"],
        "unit": unit,
        "fires": "more in class" if single["coefficients"][0] > 0 else "less in class",
        **{name: results["single"][name] for name in ("f1", "f1_low", "f1_high", "average_precision")},
        "validation_f1": single["validation_f1"],
        "k_enough": enough["k"] if enough else None,
        "k_enough_layer": enough["layer"] if enough else None,
        "k_enough_f1": results["enough"]["f1"] if enough else None,
        "dense_f1": results["dense"]["f1"],
        "dense_layer": roles["dense"]["layer"],
        "best_baseline": str(best_control),
        "best_baseline_f1": controls[best_control],
        "text_f1": results[Method.TEXT]["f1"],
        "n_test_positive": positives,
        "n_test_negative": negatives,
        "verdict": short,
        "explanation": why,
    }


_COMMON = ("category", "feature", "layer", "method", "k", "threshold", "ridge", "objective", "columns", "intercept")


def _common(probe: dict[str, Any]) -> dict[str, Any]:
    return {name: probe[name] for name in (*_COMMON, "coefficients")}


def _fitted_rows(probe: dict[str, Any]) -> list[dict[str, Any]]:
    """Train and validation rows of a probe; coefficients of dense probes are kept for the chosen one only (its test row)."""
    shared = _common(probe) | ({"coefficients": None} if probe["columns"] is None else {})
    return [
        shared
        | {"split": split}
        | {k.removeprefix(f"{split}_"): v for k, v in probe.items() if k.startswith(f"{split}_")}
        for split in (Split.TRAIN.value, Split.VALIDATION.value)
    ]
