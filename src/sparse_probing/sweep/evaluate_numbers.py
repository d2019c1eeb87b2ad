"""The one reading of the test split for numbers: the probes that were chosen before, with intervals, and baselines beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.intervals import paired_difference
from sparse_probing.metrics.regression import NumberBootstrap, number_metrics
from sparse_probing.ranking.permutation_null import family_wise_p
from sparse_probing.records import Split, task_rng, unit_name
from sparse_probing.results.number_verdict import NumberEvidence, number_verdict
from sparse_probing.results.verdict import Rival, Rivals
from sparse_probing.sweep.choose import ENOUGH
from sparse_probing.sweep.number_baselines import MEAN, surface_predictions
from sparse_probing.sweep.number_probes import (
    UNTRAINED_DENSE,
    NumberResult,
    NumberTask,
    Probe,
    best,
    merit,
    predictions,
)
from sparse_probing.sweep.numbers import rows_with_number
from sparse_probing.sweep.plan import Method

PROFILE_BINS = 20
"""Bins of equally many rows that show how the best unit goes with the number."""
RIVALS = (
    *(Method.SHUFFLED, Method.RANDOM_MODEL, "random_neurons"),
    *(Method.TEXT, Method.TOKEN, Method.LAST_TOKEN, Method.POSITION, MEAN),
)
"""What the best unit should beat."""


@dataclass(slots=True)
class NumberTables:
    """Rows of the result tables while they are collected."""

    numbers: list[dict[str, Any]] = field(default_factory=list)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)


def choose_number_probes(probes: list[Probe]) -> dict[str, Probe]:
    """The probes of one number whose test scores are reported: role -> probe. Test rows play no part.

    Roles: `single` (best unit of all layers), `sparse k=K` (best layer for each k), `dense`, `enough` (smallest k whose merit
    reaches 95 % of the dense probe's; absent when none does), `random_neurons` (one), `random_neurons k=K` (as many as were
    enough), `shuffled_labels`, and the untrained model's best unit and all of its units.
    """
    of: dict[str, list[Probe]] = {}
    for probe in probes:
        of.setdefault(probe["method"], []).append(probe)
    ks = sorted({probe["k"] for probe in of[Method.GREEDY_SWAP]})
    roles = {"single": best(of[Method.SINGLE]), "dense": best(of[Method.DENSE])}
    for k in ks:
        roles[f"sparse k={k}"] = best([p for p in of[Method.GREEDY_SWAP] if p["k"] == k]) if k > 1 else roles["single"]
    goal = ENOUGH * merit(roles["dense"])
    enough = [k for k in ks if goal > 0 and merit(roles[f"sparse k={k}"]) >= goal]
    roles["random_neurons"] = best([p for p in of[Method.RANDOM] if p["k"] == ks[0]])
    if enough:
        roles["enough"] = roles[f"sparse k={enough[0]}"]
        if enough[0] > ks[0]:
            same = [p for p in of[Method.RANDOM] if p["k"] == enough[0]]
            roles[f"random_neurons k={enough[0]}"] = best(same)
    for control in (Method.SHUFFLED, Method.RANDOM_MODEL, UNTRAINED_DENSE):
        if control in of:
            roles[str(control)] = best(of[control])
    return roles


def evaluate_numbers(
    dataset: FeatureDataset,
    results: Mapping[NumberTask, NumberResult],
    stores: dict[bool, Activations],
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> NumberTables:
    """Test scores of every chosen probe, and the headline row of each number.

    Args:
        dataset: rows and numbers.
        results: what the tasks produced, in the order of the plan.
        stores: activations of the model (`False`) and of its untrained twin (`True`).
        seed: seed of the run, for the bootstrap.
        progress: called with the number of numbers done since the last call.
    """
    tables = NumberTables()
    for t in range(len(dataset.targets)):
        mine = {task: result for task, result in results.items() if task.target == t}
        probes = [probe for result in mine.values() for probe in result.probes]
        nulls = [result.null for result in mine.values() if result.null]
        null = np.max(np.array(nulls), axis=0) if nulls else None
        largest = max((result.largest for result in mine.values() if result.largest is not None), default=0.0)
        for probe in probes:
            tables.numbers.extend(_fitted_rows(probe))
        _Number(dataset, t, stores, seed, choose_number_probes(probes), tables).evaluate(largest, null)
        progress(1)
    return tables


class _Number:
    """One number: every score of it is measured on the same resamples, so that differences are paired."""

    def __init__(
        self,
        dataset: FeatureDataset,
        t: int,
        stores: dict[bool, Activations],
        seed: int,
        roles: dict[str, Probe],
        tables: NumberTables,
    ) -> None:
        self.dataset, self.t, self.stores, self.roles, self.tables = dataset, t, stores, roles, tables
        self.rows = rows_with_number(dataset, t, Split.TEST)
        target = dataset.targets[t]
        self.where = {"category": target.category, "number": target.name}
        self.truth = target.values[self.rows]
        rng = task_rng(seed, "bootstrap of numbers", *self.where.values())
        self.bootstrap = NumberBootstrap(dataset.row_group[self.rows], self.truth, rng)
        self.results: dict[str, dict[str, float]] = {}
        self.resampled: dict[str, dict[str, np.ndarray]] = {}

    def evaluate(self, largest: float, null: Float[np.ndarray, " permutation"] | None) -> None:
        """Fill the tables.

        Args:
            largest: largest |correlation| of any unit of any layer.
            null: largest |correlation| of any unit of any layer, for each permutation.
        """
        blocks: dict[tuple[bool, int], np.ndarray] = {}
        measured: dict[int, str] = {}
        for role, probe in self.roles.items():
            if (first := measured.setdefault(id(probe), role)) != role:
                self.results[role], self.resampled[role] = self.results[first], self.resampled[first]
            else:
                key = probe["method"] in (Method.RANDOM_MODEL, UNTRAINED_DENSE), probe["layer"]
                if key not in blocks:
                    blocks[key] = self.stores[key[0]].read(probe["layer"], self.rows)
                self._measure(role, predictions(blocks[key], np.arange(len(self.rows)), probe))
            self._row(role, _common(probe))
        for name, prediction in surface_predictions(self.dataset, self.t).items():
            self._measure(name, prediction)
            self._row(name, {"method": name})
        self.tables.findings.append(self.where | self._headline(largest, null))
        self.tables.profiles.extend(self._profile())

    def _measure(self, role: str, prediction: Float[np.ndarray, " row"]) -> None:
        table = self.bootstrap.table(prediction)
        ends = self.bootstrap.intervals(prediction, table)
        lows, highs = ({f"{n}_{end}": pair[i] for n, pair in ends.items()} for i, end in enumerate(("low", "high")))
        self.resampled[role] = table
        self.results[role] = number_metrics(prediction, self.truth) | lows | highs

    def _row(self, role: str, about: Probe) -> None:
        place = {"split": Split.TEST.value, "role": role, "n_rows": len(self.rows)}
        self.tables.numbers.append(self.where | about | place | self.results[role])

    def _headline(self, largest: float, null: Float[np.ndarray, " permutation"] | None) -> dict[str, Any]:
        results, single, enough = self.results, self.roles["single"], self.roles.get("enough")
        rivals = Rivals(tuple(self._rival(str(name)) for name in RIVALS if name in results))
        strongest = rivals.strongest
        layer, unit = single["layer"], single["columns"][0]
        r, values = self._training_correlation(layer, unit)
        p, p_unit = (None if null is None else family_wise_p(value, null) for value in (largest, abs(r)))
        untrained = results[UNTRAINED_DENSE]["r2"] if UNTRAINED_DENSE in results else None
        short, why = number_verdict(
            NumberEvidence(
                single=results["single"]["r2"],
                dense=results["dense"]["r2"],
                k_enough=enough["k"] if enough else None,
                enough=results["enough"]["r2"] if enough else None,
                rivals=rivals,
                untrained=untrained,
                p=p,
            )
        )
        reported = ("r2", "r2_low", "r2_high", "pearson", "spearman", "spearman_low", "spearman_high", "mae")
        return {
            "neuron": unit_name(self.stores[False].site, layer, unit),
            "layer": layer,
            "unit": unit,
            "sign": 1 if single["coefficients"][0] > 0 else -1,
            **{name: results["single"][name] for name in reported},
            "validation_r2": single["validation_r2"],
            "correlation": r,
            "p": p,
            "p_family": p_unit,
            "k_enough": enough["k"] if enough else None,
            "k_enough_layer": enough["layer"] if enough else None,
            "k_enough_r2": results["enough"]["r2"] if enough else None,
            **{f"dense_{name}": results["dense"][name] for name in ("r2", "r2_low", "r2_high", "mae")},
            "dense_layer": self.roles["dense"]["layer"],
            "untrained_dense_r2": untrained,
            "best_baseline": strongest.name,
            "best_baseline_r2": strongest.score,
            "over_baseline": strongest.lead,
            "over_baseline_low": strongest.low,
            "over_baseline_high": strongest.high,
            "mean": float(values.mean()),
            "standard_deviation": float(values.std()),
            "n_train": len(values),
            "n_test": len(self.rows),
            "verdict": short,
            "explanation": why,
        }

    def _rival(self, name: str) -> Rival:
        score = self.results[name]["r2"]
        lead = paired_difference(
            self.resampled["single"]["r2"], self.resampled[name]["r2"], self.results["single"]["r2"] - score
        )
        return Rival(name=name, score=score, lead=lead.estimate, low=lead.low, high=lead.high)

    def _training_correlation(self, layer: int, unit: int) -> tuple[float, Float[np.ndarray, " row"]]:
        rows = rows_with_number(self.dataset, self.t, Split.TRAIN)
        x = self.stores[False].column(layer, unit, rows).astype(np.float64)
        values = self.dataset.targets[self.t].values[rows]
        return 0.0 if x.std() == 0 else float(np.corrcoef(x, values)[0, 1]), values

    def _profile(self) -> list[dict[str, Any]]:
        """The best unit's activation along the number, in bins of about equally many test rows; equal numbers share a bin."""
        single = self.roles["single"]
        x = self.stores[False].column(single["layer"], single["columns"][0], self.rows).astype(np.float64)
        edges = np.unique(np.quantile(self.truth, np.linspace(0, 1, PROFILE_BINS + 1)[1:-1]))
        place = np.searchsorted(edges, self.truth, side="left")
        result = []
        for b in np.unique(place).tolist():
            inside = place == b
            low, middle, high = np.quantile(x[inside], [0.1, 0.5, 0.9]).tolist()
            result.append(
                self.where
                | {"value": float(self.truth[inside].mean()), "rows": int(inside.sum())}
                | {"activation": middle, "activation_low": low, "activation_high": high}
            )
        return result


_COMMON = ("category", "number", "layer", "method", "k", "ridge", "columns", "coefficients", "intercept")


def _common(probe: Probe) -> Probe:
    return {name: probe[name] for name in _COMMON} | {"gap": probe.get("gap")}


def _fitted_rows(probe: Probe) -> list[Probe]:
    """Train and validation rows of a probe; coefficients of dense probes are kept for the chosen one only (its test row)."""
    shared = _common(probe) | ({"coefficients": None} if probe["columns"] is None else {})
    return [
        shared
        | {"split": split.value}
        | {k.removeprefix(f"{split}_"): v for k, v in probe.items() if k.startswith(f"{split}_")}
        for split in (Split.TRAIN, Split.VALIDATION)
    ]
