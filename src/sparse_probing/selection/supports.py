"""What a selector returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import floor, log10

import numpy as np
from jaxtyping import Float, Int

Supports = dict[int, Int[np.ndarray, " _"]]
"""k -> chosen columns, ascending."""


class Status(StrEnum):
    """How a search ended."""

    OPTIMAL = "optimal"
    """No support of k columns is better by more than the gap that was asked for."""
    TIME = "time limit"
    NODES = "node limit"
    STOPPED = "stopped"
    """By Ctrl-C. As with the limits, support and bound are valid; the gap between them is what remains open."""
    HEURISTIC = "heuristic"
    """There was no search: the bound is the relaxation's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """A support of k columns, and how far from the best one it can be."""

    support: Int[np.ndarray, " k"]
    """Ascending."""
    coefficients: Float[np.ndarray, " k"]
    """Of the standardised columns."""
    intercept: float
    objective: float
    """Mean loss plus ridge, at these coefficients."""
    lower_bound: float
    """No support of k columns has a smaller objective."""
    status: Status
    nodes: int
    """Bounds that were computed."""
    seconds: float

    @property
    def gap(self) -> float:
        """By how much of the objective the optimum may lie below it."""
        return gap_between(self.objective, self.lower_bound)


def rounded_down(bound: float) -> float:
    """A bound to 12 significant digits, still a bound: further digits depend on where arrays happen to lie in memory."""
    if bound <= 0:
        return bound
    scale = 10.0 ** (11 - floor(log10(bound)))
    return floor(bound * scale) / scale


def gap_between(objective: float, bound: float) -> float:
    """`(objective - bound) / objective`, never below 0; 0 where the objective is 0."""
    return max(0.0, (objective - bound) / abs(objective)) if objective else 0.0
