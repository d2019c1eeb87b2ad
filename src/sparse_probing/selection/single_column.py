"""The best single columns by objective, out of all of them, without fitting all of them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.probes.newton import SMALL_RIDGE
from sparse_probing.selection.problem import Problem

AT_A_TIME = 64


def best_single_columns(
    problem: Problem, floor: Float[np.ndarray, " column"], count: int, ridge: float = SMALL_RIDGE
) -> tuple[Int[np.ndarray, " best"], Float[np.ndarray, " best"]]:
    """The `count` columns whose one-column probes have the smallest objective, and those objectives, best first.

    Columns are fitted in the order of a floor under their objective (`ranking.single_units`), and no longer than the floor lies
    below the worst objective kept: none is left out that could be among the best.

    Args:
        problem: rows, labels and weights.
        floor: no probe on that column alone, with this ridge, has a smaller objective.
        count: how many.
        ridge: of the one-column probes.
    """
    order = np.argsort(floor, kind="stable")
    columns, objectives = np.array([], dtype=int), np.array([])
    for at in range(0, len(order), AT_A_TIME):
        chunk = order[at : at + AT_A_TIME]
        if len(columns) == count and floor[chunk[0]] > objectives[-1]:
            break
        fits = problem.fit_supports(chunk[:, None], ridge=ridge)
        columns, objectives = np.append(columns, chunk), np.append(objectives, fits.objective)
        kept = np.lexsort((columns, objectives))[:count]
        columns, objectives = columns[kept], objectives[kept]
    return columns, objectives
