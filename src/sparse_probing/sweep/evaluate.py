"""The one reading of the test split: scores and intervals of the probes that were chosen before, baselines beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.intervals import Bootstrap, Difference, paired_difference
from sparse_probing.metrics.multiple_testing import benjamini_hochberg
from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.records import Split, task_rng, unit_name
from sparse_probing.results.verdict import Evidence, Rival, Rivals, verdict
from sparse_probing.selection.supports import gap_between
from sparse_probing.sweep.across_layers import Comparison, compare_layers
from sparse_probing.sweep.choose import CONTROLS, choose
from sparse_probing.sweep.controls import control_labels
from sparse_probing.sweep.local_runner import row_tokens
from sparse_probing.sweep.plan import Method, Task
from sparse_probing.sweep.run_task import TaskResult
from sparse_probing.sweep.surface_baselines import LastToken, PositionAndLength, TokenIdentity
from sparse_probing.sweep.text_baseline import TextOnly

COMPARED = ("f1", "average_precision")
"""Metrics whose paired differences are reported."""
BASELINE_ROLES = (*CONTROLS, Method.CONTROL_TASK, "dense")
Probe = dict[str, Any]
Surface = Callable[[int], tuple[Scored, float] | None]
"""Feature -> test scores and threshold of a baseline without a model; null where it does not apply to the feature's rows."""


@dataclass(slots=True)
class RunTables:
    """Rows of the result tables while they are collected."""

    probes: list[Probe] = field(default_factory=list)
    neurons: list[dict[str, Any]] = field(default_factory=list)
    baselines: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    dataset: FeatureDataset,
    results: Mapping[Task, TaskResult],
    stores: dict[bool, Activations],
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> RunTables:
    """Test scores of every chosen probe, and the headline row of each feature.

    Args:
        dataset: rows and labels.
        results: what the tasks produced, in the order of the plan.
        stores: activations of the model (`False`) and of its untrained twin (`True`).
        seed: seed of the run, for the bootstrap.
        progress: called with the number of features done since the last call.
    """
    tables = RunTables()
    by_feature: dict[tuple[str, str], list[Probe]] = {}
    share_bounds(row for result in results.values() for row in result.probes)
    for probe in (row for result in results.values() for row in result.probes):
        by_feature.setdefault((probe["category"], probe["feature"]), []).append(probe)
        tables.probes.extend(_fitted_rows(probe))
    comparisons = compare_layers(results)
    tables.neurons = [row for result in results.values() for row in result.neurons]
    keys = list(zip(dataset.categories, dataset.features, strict=True))
    chosen = {key: choose(by_feature[key]) for key in keys}
    chance = _chance(dataset, chosen, comparisons, stores[False])
    blocks, surfaces = _TestRows(dataset, stores), _surfaces(dataset)
    for f, key in enumerate(keys):
        _Feature(dataset, f, seed, chosen[key], blocks, tables).evaluate(surfaces, chance[key], comparisons[key])
        progress(1)
    return tables


def _chance(
    dataset: FeatureDataset,
    chosen: dict[tuple[str, str], dict[str, Probe]],
    comparisons: dict[tuple[str, str], Comparison],
    store: Activations,
) -> dict[tuple[str, str], dict[str, float | None]]:
    """Per feature: p that there is any neuron, q over features, and the named neuron's correlation with its family-wise p.

    The neuron is chosen by merit, so its correlation need not be the largest: its own p is that or more.
    """
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for f, (key, roles) in enumerate(chosen.items()):
        rows, single = dataset.rows_of(f, Split.TRAIN), roles["single"]
        values = store.column(single["layer"], single["columns"][0], rows).astype(np.float64)
        flat = values.std() == 0
        r = 0.0 if flat else float(np.corrcoef(values, dataset.positive[rows, f])[0, 1])
        found[key] = {"correlation": r, "p": comparisons[key].p, "p_family": comparisons[key].p_of(r)}
    tested = [key for key, row in found.items() if row["p"] is not None]
    p = np.array([found[key]["p"] for key in tested], dtype=np.float64)
    for key, q in zip(tested, benjamini_hochberg(p).tolist(), strict=True):
        found[key]["q"] = q
    return found


def _surfaces(dataset: FeatureDataset) -> dict[Method, Surface]:
    """Baselines without a model."""
    return {
        Method.TEXT: TextOnly(dataset).score,
        Method.TOKEN: TokenIdentity(dataset).score,
        Method.LAST_TOKEN: LastToken(dataset).score,
        Method.POSITION: PositionAndLength(dataset).score,
        Method.MAJORITY: lambda f: _majority(dataset, f),
    }


class _TestRows:
    """Test rows of one category at one layer, kept while its features are read."""

    def __init__(self, dataset: FeatureDataset, stores: dict[bool, Activations]) -> None:
        self.dataset, self.stores = dataset, stores
        self.site = stores[False].site
        self.kept: dict[tuple[str, bool, int], tuple[np.ndarray, np.ndarray]] = {}

    def scores(self, feature: int, probe: Probe) -> np.ndarray:
        rows = self.dataset.rows_of(feature, Split.TEST)
        twin = probe["method"] == Method.RANDOM_MODEL
        known, block = self._block(self.dataset.categories[feature], probe["layer"], twin=twin)
        x = block[np.searchsorted(known, rows)]
        if probe["columns"] is not None:
            x = x[:, probe["columns"]]
        return x.astype(np.float64) @ np.array(probe["coefficients"]) + probe["intercept"]

    def _block(self, category: str, layer: int, *, twin: bool) -> tuple[np.ndarray, np.ndarray]:
        key = (category, twin, layer)
        if key not in self.kept:
            self.kept = {k: v for k, v in self.kept.items() if k[0] == category}
            features = [i for i, c in enumerate(self.dataset.categories) if c == category]
            rows = np.unique(np.concatenate([self.dataset.rows_of(i, Split.TEST) for i in features]))
            self.kept[key] = rows, self.stores[twin].read(layer, rows)
        return self.kept[key]


class _Feature:
    """One feature: every score of it is measured on the same resamples, so that differences are paired."""

    def __init__(
        self, dataset: FeatureDataset, f: int, seed: int, roles: dict[str, Probe], blocks: _TestRows, tables: RunTables
    ) -> None:
        self.dataset, self.f, self.seed, self.roles, self.blocks, self.tables = dataset, f, seed, roles, blocks, tables
        self.rows = dataset.rows_of(f, Split.TEST)
        self.positive = dataset.positive[self.rows, f]
        self.where = {"category": dataset.categories[f], "feature": dataset.features[f]}
        self.bootstrap = self._bootstrap(self.positive)
        self.results: dict[str, dict[str, float]] = {}
        self.resampled: dict[str, dict[str, np.ndarray]] = {}
        self.leads: dict[str, Difference] = {}
        """F1 of the single neuron minus that of each baseline."""

    def evaluate(
        self,
        surfaces: dict[Method, Surface],
        chance: dict[str, float | None],
        comparison: Comparison,
    ) -> None:
        """Fill the tables."""
        seen: dict[int, str] = {}
        for role, probe in self.roles.items():
            if role == Method.CONTROL_TASK:
                self.results[role] = self._control_task(probe)
            elif id(probe) in seen:
                self.results[role], self.resampled[role] = (
                    self.results[seen[id(probe)]],
                    self.resampled[seen[id(probe)]],
                )
            else:
                seen[id(probe)] = role
                scored = Scored(score=self.blocks.scores(self.f, probe), positive=self.positive)
                self._measure(role, scored, probe["threshold"])
            self.tables.probes.append(_common(probe) | {"split": Split.TEST.value, "role": role} | self.results[role])
            if role in BASELINE_ROLES or role.startswith("random_neurons"):
                place = {"layer": probe["layer"], "k": probe["k"]}
                self.tables.baselines.append(self.where | {"baseline": role.split(" ")[0]} | place | self.results[role])
        for name, score in surfaces.items():
            scored_by_text = score(self.f)
            if scored_by_text is None:
                continue
            self._measure(name.value, *scored_by_text)
            self.tables.baselines.append(self.where | {"baseline": name.value} | self.results[name])
        self._differences()
        self.tables.findings.append(self.where | self._headline(chance, comparison))

    def _bootstrap(self, positive: np.ndarray) -> Bootstrap:
        rng = task_rng(self.seed, "bootstrap", *self.where.values())
        return Bootstrap(self.dataset.row_group[self.rows], positive, rng)

    def _measure(self, role: str, scored: Scored, threshold: float) -> None:
        self.resampled[role] = self.bootstrap.table(scored, threshold)
        self.results[role] = _with_intervals(self.bootstrap, scored, threshold, self.resampled[role])

    def _control_task(self, probe: Probe) -> dict[str, float]:
        """Scores against the control labels; null where the test rows hold one class only."""
        rows = self.dataset.rows_of(self.f, Split.TRAIN)
        share = float(self.dataset.positive[rows, self.f].mean())
        tokens = row_tokens(self.dataset, self.rows)
        labels = control_labels(tokens, share, self.seed, self.where["category"], self.where["feature"])
        if labels.all() or not labels.any():
            return {}
        scored = Scored(score=self.blocks.scores(self.f, probe), positive=labels)
        bootstrap = self._bootstrap(labels)
        return _with_intervals(bootstrap, scored, probe["threshold"], bootstrap.table(scored, probe["threshold"]))

    def _differences(self) -> None:
        """One neuron against every baseline, and each of the larger probes against the smaller ones."""
        pairs = [("single", name) for name in self._rivals()]
        sizes = [role for role in ("single", "enough", "dense") if role in self.roles]
        pairs += [(large, small) for i, small in enumerate(sizes) for large in sizes[i + 1 :]]
        for first, second in pairs:
            if self.roles.get(first) is self.roles.get(second, ()):
                continue
            for metric in COMPARED:
                estimate = self.results[first][metric] - self.results[second][metric]
                found = paired_difference(self.resampled[first][metric], self.resampled[second][metric], estimate)
                if (metric, first) == ("f1", "single"):
                    self.leads[second] = found
                values = {"difference": found.estimate, "low": found.low, "high": found.high, "p": found.p}
                self.tables.differences.append(
                    self.where | {"metric": metric, "first": first, "second": second} | values
                )

    def _rivals(self) -> list[str]:
        """Baselines that are scored against the true labels and should be beaten."""
        surfaces = (Method.TEXT, Method.TOKEN, Method.LAST_TOKEN, Method.POSITION, Method.MAJORITY)
        names = (*CONTROLS, "random_neurons", *surfaces)
        return [str(name) for name in names if name in self.results]

    def _headline(self, chance: dict[str, float | None], comparison: Comparison) -> dict[str, Any]:
        results, single, enough = self.results, self.roles["single"], self.roles.get("enough")
        rivals = Rivals(
            tuple(
                Rival(name=name, score=results[name]["f1"], lead=lead.estimate, low=lead.low, high=lead.high)
                for name, lead in ((name, self.leads[name]) for name in self._rivals())
            )
        )
        strongest = rivals.strongest
        positives, negatives = self.dataset.counts(self.f)[Split.TEST]
        short, why = verdict(
            Evidence(
                single_f1=results["single"]["f1"],
                dense_f1=results["dense"]["f1"],
                k_enough=enough["k"] if enough else None,
                k_enough_f1=results["enough"]["f1"] if enough else None,
                rivals=rivals,
                always_yes_f1=2 * positives / (2 * positives + negatives),
                q=chance.get("q"),
            )
        )
        layer, unit = single["layer"], single["columns"][0]
        control = results.get(Method.CONTROL_TASK, {})
        return {
            "neuron": unit_name(self.blocks.site, layer, unit),
            "layer": layer,
            "unit": unit,
            "fires": "more in class" if single["coefficients"][0] > 0 else "less in class",
            **{name: results["single"][name] for name in ("f1", "f1_low", "f1_high", "average_precision")},
            "validation_f1": single["validation_f1"],
            **chance,
            "stability": comparison.best_shares().get((layer, unit), 0.0),
            "stand_ins": [unit_name(self.blocks.site, *other) for other in comparison.stand_ins((layer, unit))],
            "k_enough": enough["k"] if enough else None,
            "k_enough_layer": enough["layer"] if enough else None,
            "k_enough_method": enough["method"] if enough else None,
            "k_enough_f1": results["enough"]["f1"] if enough else None,
            "dense_f1": results["dense"]["f1"],
            "dense_layer": self.roles["dense"]["layer"],
            "best_baseline": strongest.name,
            "best_baseline_f1": strongest.score,
            "over_baseline": strongest.lead,
            "over_baseline_low": strongest.low,
            "over_baseline_high": strongest.high,
            "text_f1": results[Method.TEXT]["f1"],
            "selectivity": results["single"]["f1"] - control["f1"] if control else None,
            "n_test_positive": positives,
            "n_test_negative": negatives,
            "verdict": short,
            "explanation": why,
        }


def _with_intervals(
    bootstrap: Bootstrap, scored: Scored, threshold: float, table: dict[str, np.ndarray]
) -> dict[str, float]:
    ends = bootstrap.intervals(scored, threshold, table)
    lows, highs = ({f"{n}_{end}": pair[i] for n, pair in ends.items()} for i, end in enumerate(("low", "high")))
    return metrics_at(scored, threshold) | lows | highs


def _majority(dataset: FeatureDataset, f: int) -> tuple[Scored, float]:
    """Always the class that is more frequent among the training rows: a constant score, above or below the threshold."""
    train, test = (dataset.positive[dataset.rows_of(f, split), f] for split in (Split.TRAIN, Split.TEST))
    return Scored(score=np.full(len(test), float(train.mean() > 0.5)), positive=test), 0.5


_COMMON = ("category", "feature", "layer", "method", "k", "threshold", "ridge", "objective", "columns", "intercept")


_CHOICE = ("selection_objective", "lower_bound", "gap", "status", "certificate")


def _common(probe: Probe) -> Probe:
    return {name: probe[name] for name in (*_COMMON, "coefficients")} | {name: probe.get(name) for name in _CHOICE}


def share_bounds(probes: Iterable[Probe]) -> None:
    """A bound that an exact search proved holds for every support of that size in that layer, heuristic ones included."""
    best: dict[tuple[Any, ...], float] = {}
    some = [probe for probe in probes if probe.get("lower_bound") is not None]
    for probe in some:
        key = tuple(probe[name] for name in ("category", "feature", "layer", "k"))
        best[key] = max(best.get(key, -np.inf), probe["lower_bound"])
    for probe in some:
        key = tuple(probe[name] for name in ("category", "feature", "layer", "k"))
        probe["lower_bound"] = min(best[key], probe["selection_objective"])
        probe["gap"] = gap_between(probe["selection_objective"], probe["lower_bound"])


def _fitted_rows(probe: Probe) -> list[Probe]:
    """Train and validation rows of a probe; coefficients of dense probes are kept for the chosen one only (its test row)."""
    shared = _common(probe) | ({"coefficients": None} if probe["columns"] is None else {})
    return [
        shared
        | {"split": split}
        | {k.removeprefix(f"{split}_"): v for k, v in probe.items() if k.startswith(f"{split}_")}
        for split in (Split.TRAIN.value, Split.VALIDATION.value)
    ]
