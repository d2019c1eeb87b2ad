"""What needs all layers at once: the null of the best unit, how often a unit comes out best, and its stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from sparse_probing.ranking.permutation_null import family_wise_p
from sparse_probing.sweep.plan import Task
from sparse_probing.sweep.run_task import TaskResult

NEAR_TIE = 1e-3
"""Units whose one-unit objective lies within this share of the best one stand in for each other."""

Unit = tuple[int, int]
"""(layer, unit)."""


@dataclass(slots=True, kw_only=True, eq=False)
class Comparison:
    """One feature over all layers."""

    null: Float[np.ndarray, " permutation"] | None = None
    """Largest |correlation| of any unit of any layer, for each permutation of the labels."""
    largest: float | None = None
    """The same statistic for the true labels."""
    resampled: dict[Unit, list[float]] = field(default_factory=dict)
    """Average precision of the finalists of all layers on the same resamples."""
    neurons: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the neuron table."""

    @property
    def p(self) -> float | None:
        """Is there any unit? Chance that the largest |correlation| of all units of all layers is as large on permuted labels;
        null without permutations.
        """
        return None if self.largest is None else self.p_of(self.largest)

    def p_of(self, correlation: float) -> float | None:
        """Family-wise p of one unit with this |correlation|, over all units of all layers; null without permutations."""
        return None if self.null is None else family_wise_p(abs(correlation), self.null)

    def best_shares(self) -> dict[Unit, float]:
        """Share of the resamples in which each finalist has the largest average precision; ties are shared."""
        units = list(self.resampled)
        table = np.array([self.resampled[unit] for unit in units])
        first = table >= table.max(axis=0)
        shares = (first / first.sum(axis=0)).mean(axis=1)
        return dict(zip(units, shares.tolist(), strict=True))

    def stand_ins(self, chosen: Unit) -> list[Unit]:
        """Other units whose objective lies within 0.1 % of the best one's or of the chosen one's, best first."""
        fitted = sorted((r["objective"], r["layer"], r["unit"]) for r in self.neurons if r["objective"] is not None)
        own = {(layer, unit): objective for objective, layer, unit in fitted}
        limit = max(fitted[0][0], own.get(chosen, 0.0)) * (1 + NEAR_TIE)
        return [(layer, unit) for objective, layer, unit in fitted if objective <= limit and (layer, unit) != chosen]


def compare_layers(results: Mapping[Task, TaskResult]) -> dict[tuple[str, str], Comparison]:
    """(category, feature) -> comparison. Fills `p_family` and `best_share` of the neuron rows."""
    found: dict[tuple[str, str], Comparison] = {}
    for task, result in results.items():
        if task.random_model:
            continue
        for feature, values in result.null.items():
            entry = found.setdefault((task.category, feature), Comparison())
            entry.null = np.array(values) if entry.null is None else np.maximum(entry.null, np.array(values))
            entry.largest = max(entry.largest or 0.0, result.largest[feature])
        for feature, units in result.resampled.items():
            entry = found.setdefault((task.category, feature), Comparison())
            entry.resampled |= {(task.layer, int(unit)): values for unit, values in units.items()}
        for row in result.neurons:
            found[row["category"], row["feature"]].neurons.append(row)
    for entry in found.values():
        shares = entry.best_shares()
        for row in entry.neurons:
            row["p_family"] = entry.p_of(row["correlation"])
            row["best_share"] = shares.get((row["layer"], row["unit"]))
    return found
