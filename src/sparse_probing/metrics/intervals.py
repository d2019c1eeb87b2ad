"""Bootstrap over documents: rows of one group are resampled together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.metrics.scores import METRICS, Scored, weighted_metrics

REPEATS = 1_000
LEVEL = 0.95


def group_resamples(
    groups: Int[np.ndarray, " row"], repeats: int, rng: np.random.Generator
) -> Float[np.ndarray, "repeat row"]:
    """How often each row occurs in each resample: groups are drawn with replacement, as many as there are."""
    names, member = np.unique(groups, return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=repeats)
    return times[:, member].astype(np.float64)


def bootstrap_intervals(
    scored: Scored, threshold: float, groups: Int[np.ndarray, " row"], rng: np.random.Generator, repeats: int = REPEATS
) -> dict[str, tuple[float, float]]:
    """Percentile intervals (95 %) of all metrics over resampled documents, threshold held fixed.

    Resamples without a positive or without a negative row say nothing about the class and are left out.
    """
    weights = group_resamples(groups, repeats, rng)
    usable = (weights @ scored.positive > 0) & (weights @ ~scored.positive > 0)
    table = weighted_metrics(scored, threshold, weights[usable])
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    ends = {name: np.quantile(table[name], tails) for name in METRICS}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}
