"""Placebos: random units of the same layer, as near as it has in activity and in how strongly they write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from sparse_probing.activations.token_statistics import UnitStatistics

CANDIDATES = 2
"""Placebos of a unit are drawn from so many times as many units as are wanted: the nearest of the layer."""


def draw_placebos(
    units: Sequence[int], statistics: UnitStatistics, count: int, rng: np.random.Generator
) -> Int[np.ndarray, "placebo unit"]:
    """Random supports of equal size from the same layer, matched member by member.

    Distance is Euclidean in the ranks of mean absolute activation and of output-weight norm, scaled to 0..1: ranks, because a
    few units of a layer are far more active than all others.

    Args:
        units: the support.
        statistics: of its layer.
        count: placebos wanted.
        rng: draws them.

    Returns:
        Distinct supports without any of `units`; fewer than `count` where the layer has not so many.
    """
    width = len(statistics.mean)
    others = np.setdiff1d(np.arange(width), units)
    if len(others) < len(units):
        return np.zeros((0, len(units)), dtype=int)
    places = np.stack([rankdata(v) / width for v in (statistics.size, statistics.output_norm)], axis=1)
    size = CANDIDATES * max(count, len(units))
    nearest = [_nearest(places, unit, others)[:size] for unit in units]
    if len(units) == 1:
        drawn = rng.permutation(nearest[0])[:count, None]
        return drawn.astype(int)
    found: dict[tuple[int, ...], list[int]] = {}
    for _ in range(20 * count):  # small layers repeat themselves before they have `count` different supports
        support: list[int] = []
        for candidates in nearest:
            free = candidates[~np.isin(candidates, support)]
            support.append(int(rng.choice(free)))
        found.setdefault(tuple(sorted(support)), support)
        if len(found) == count:
            break
    return np.array(list(found.values()), dtype=int).reshape(-1, len(units))


def _nearest(places: Float[np.ndarray, "unit 2"], unit: int, others: Int[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
    distance = ((places[others] - places[unit]) ** 2).sum(axis=1)
    return others[np.argsort(distance, kind="stable")]
