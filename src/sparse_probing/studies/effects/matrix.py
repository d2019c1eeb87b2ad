"""Sets of a feature's neurons, switched off one after the other: the effect on its own texts and on those of every other feature.

The design of relation-specific neuron sets: the effect grows with the set (cumulativity), a neuron may serve several relations
(versatility), and relations may be each other's noise (interference). Here for all features of a category: languages, kinds of
text, relations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool

from sparse_probing.studies.effects.ablation import EffectBootstrap, RowLosses, interval


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronSet:
    """The first neurons of a feature."""

    feature: str
    size: int
    neurons: tuple[tuple[int, int], ...]
    """(layer, unit), best first."""


def ranked_neurons(
    findings: pl.DataFrame, neurons: pl.DataFrame, category: str, feature: str, count: int
) -> list[tuple[int, int]]:
    """The finding's neuron, then those that come out best most often over resampled documents, of all layers; (layer, unit)."""
    first = findings.filter(category=category, feature=feature).select("layer", "unit").row(0)
    others = (
        neurons.filter(category=category, feature=feature)
        .sort(
            pl.col("best_share").fill_null(-1.0),
            "average_precision",
            "layer",
            "unit",
            descending=[True, True, False, False],
        )
        .select("layer", "unit")
        .rows()
    )
    return list(dict.fromkeys([first, *others]))[:count]


def neuron_sets(
    findings: pl.DataFrame, neurons: pl.DataFrame, category: str, features: Sequence[str], sizes: Sequence[int]
) -> list[NeuronSet]:
    """Nested sets of every feature; sizes that a feature has not enough ranked neurons for are left out."""
    result = []
    for feature in features:
        ranked = ranked_neurons(findings, neurons, category, feature, max(sizes))
        fitting = [n for n in sorted(set(sizes)) if n <= len(ranked)]
        result += [NeuronSet(feature=feature, size=n, neurons=tuple(ranked[:n])) for n in fitting]
    return result


def matrix_rows(
    rows: RowLosses,
    sets: Sequence[NeuronSet],
    carried: Mapping[str, Bool[np.ndarray, " row"]],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Change of the mean loss per token on the texts of each feature, for each set.

    With one neuron it is the paper's table of its French neuron by part of the Pile (section 5).

    Args:
        rows: losses; intervention i is set i switched off.
        sets: what was switched off.
        carried: name of a feature -> rows that carry it.
        rng: of the bootstrap.
    """
    bootstrap = EffectBootstrap(rows, rng)
    result = []
    for name, mask in carried.items():
        here = mask & (rows.tokens > 0)
        if not here.any():
            continue
        effect, resampled = bootstrap.means(here)
        documents, loss = bootstrap.documents(here), rows.total[0][here].sum()
        for i, switched_off in enumerate(sets):
            low, high = interval(resampled[:, i], documents)
            result.append(
                {
                    "switched_off": switched_off.feature,
                    "size": switched_off.size,
                    "affected": name,
                    "effect": float(effect[i]),
                    "effect_low": low,
                    "effect_high": high,
                    "percent": float(100 * rows.change[i][here].sum() / loss),
                    "loss": float(loss / rows.tokens[here].sum()),
                    "documents": documents,
                    "tokens": int(rows.tokens[here].sum()),
                }
            )
    return result


def summary_rows(matrix: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per feature and size: effect on itself, mean effect on the others, and on how many others it is at least half as large.

    `cumulative`: whether the effect on its own texts grows with the set, never falling; null for a single size.
    """
    result = []
    for feature in dict.fromkeys(row["switched_off"] for row in matrix):
        mine = [row for row in matrix if row["switched_off"] == feature]
        own = {row["size"]: row["effect"] for row in mine if row["affected"] == feature}
        grows = [own[size] for size in sorted(own)]
        for size in sorted(own):
            others = [row["effect"] for row in mine if row["size"] == size and row["affected"] != feature]
            result.append(
                {
                    "switched_off": feature,
                    "size": size,
                    "own": own[size],
                    "others_mean": float(np.mean(others)) if others else None,
                    "others_largest": max(others, default=None),
                    "shared_by": sum(effect >= 0.5 * own[size] for effect in others) if own[size] > 0 else None,
                    "cumulative": _grows(grows),
                }
            )
    return result


def _grows(effects: Sequence[float]) -> bool | None:
    if len(effects) < 2:
        return None
    return effects[-1] > effects[0] and all(after >= before for before, after in pairwise(effects))
