"""The selectors by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparse_probing.errors import InputError
from sparse_probing.ranking.mutual_information import mutual_information
from sparse_probing.selection.elastic_net import l1_path, shrinking_elastic_net
from sparse_probing.selection.greedy_swap import greedy_swap
from sparse_probing.selection.heuristics import (
    at_random,
    orthogonal_matching_pursuit,
    recursive_elimination,
    top_by_score,
)
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.supports import Supports

Selector = Callable[[Problem, Sequence[int], np.random.Generator], Supports]


def difference_score(problem: Problem) -> np.ndarray:
    """Mean difference of standardised columns between the classes; for regression the covariance with the target."""
    centred = problem.target - problem.weights @ problem.target
    if not problem.loss.classes:
        return ((problem.weights * centred).astype(np.float32) @ problem.z).astype(np.float64)
    positive = problem.target > 0.5
    inside, outside = (problem.weights * side for side in (positive, ~positive))
    both = np.stack([inside / inside.sum(), outside / outside.sum()]).astype(np.float32) @ problem.z
    return (both[0] - both[1]).astype(np.float64)


def _by_difference(problem: Problem, ks: Sequence[int], _: np.random.Generator) -> Supports:
    return top_by_score(difference_score(problem), ks)


def _by_information(problem: Problem, ks: Sequence[int], _: np.random.Generator) -> Supports:
    positive = (problem.target > 0.5)[:, None]
    return top_by_score(mutual_information(problem.z, positive, np.ones_like(positive))[0], ks)


SELECTORS: dict[str, Selector] = {
    "greedy_swap": lambda problem, ks, _: greedy_swap(problem, ks),
    "shrinking_elastic_net": lambda problem, ks, _: shrinking_elastic_net(problem, difference_score(problem), ks),
    "l1_path": lambda problem, ks, _: l1_path(problem, ks),
    "recursive_elimination": lambda problem, ks, _: recursive_elimination(problem, ks),
    "orthogonal_matching_pursuit": lambda problem, ks, _: orthogonal_matching_pursuit(problem, ks),
    "mean_difference": _by_difference,
    "mutual_information": _by_information,
    "random": lambda problem, ks, rng: at_random(problem.width, ks, rng),
}
"""Name -> selector; the first one is the default."""

CLASSES_ONLY = ("mutual_information",)
"""Selectors that need a target of two classes."""


def select(problem: Problem, method: str, ks: Sequence[int], rng: np.random.Generator) -> Supports:
    """Supports of every size in `ks` by one selector.

    Args:
        problem: what to minimise.
        method: a name in `SELECTORS`.
        ks: sizes from 1 to the number of columns.
        rng: used by `random` only.

    Raises:
        InputError: no such selector, a size that is not possible, or a selector that cannot handle the target.
    """
    if method not in SELECTORS:
        raise InputError(f"there is no selector {method!r}: choose one of {', '.join(SELECTORS)}.")
    for k in ks:
        if not 1 <= k <= problem.width:
            raise InputError(f"k = {k} is not possible with {problem.width} columns: k goes from 1 to {problem.width}.")
    if method in CLASSES_ONLY and not problem.loss.classes:
        raise InputError(f"selector {method!r} needs classes, not a continuous target: choose another one.")
    return SELECTORS[method](problem, ks, rng)
