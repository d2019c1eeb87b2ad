"""The selectors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sparse_probing.errors import InputError
from sparse_probing.ranking.mutual_information import mutual_information
from sparse_probing.selection.certificate import Certificate
from sparse_probing.selection.elastic_net import l1_path, shrinking_elastic_net
from sparse_probing.selection.exact import Limits, best_subset
from sparse_probing.selection.greedy_swap import greedy_swap
from sparse_probing.selection.heuristics import (
    at_random,
    orthogonal_matching_pursuit,
    recursive_elimination,
    top_by_score,
)
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.relaxation import Relaxed, relaxation_path
from sparse_probing.selection.supports import Selection, Status, Supports, rounded_down

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


def _exact(problem: Problem, ks: Sequence[int], _: np.random.Generator) -> Supports:
    limits = Limits(nodes=EXACT_NODES)
    return {k: best_subset(problem, k, limits, certify=False).selection.support for k in ks}


EXACT_NODES = 20_000
"""Bounds after which an exact search gives up unless told otherwise: about ten seconds for 5,000 rows and 1,536 columns."""

SELECTORS: dict[str, Selector] = {
    "greedy_swap": lambda problem, ks, _: greedy_swap(problem, ks),
    "exact": _exact,
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
    _check(problem, method, ks)
    return SELECTORS[method](problem, ks, rng)


def bounded_selections(
    problem: Problem,
    method: str,
    ks: Sequence[int],
    rng: np.random.Generator,
    limits: Limits | None = None,
    relaxed: Mapping[int, Relaxed] | None = None,
    keep: Callable[[int, Certificate], object] | None = None,
) -> dict[int, Selection]:
    """Supports of every size in `ks` by one selector, each with a lower bound on what any support of its size can reach.

    Args:
        problem: what to minimise.
        method: a name in `SELECTORS`.
        ks: sizes from 1 to the number of columns.
        rng: used by `random` only.
        limits: of `exact`, for each size; `EXACT_NODES` when null.
        relaxed: the relaxation for every size, if it is known already.
        keep: given the certificate of each size, for `exact`.

    Raises:
        InputError: no such selector, a size that is not possible, or a selector that cannot handle the target.
    """
    _check(problem, method, ks)
    relaxed = relaxation_path(problem, ks) if relaxed is None else relaxed
    if method == "exact":
        found = {}
        for k in ks:
            proof = best_subset(
                problem, k, limits or Limits(nodes=EXACT_NODES), relaxed=relaxed[k], certify=keep is not None
            )
            if proof.selection.status is Status.STOPPED:
                raise KeyboardInterrupt
            if keep is not None and proof.certificate is not None:
                keep(k, proof.certificate)
            found[k] = proof.selection
        return found
    supports = greedy_swap(problem, ks, relaxed) if method == "greedy_swap" else SELECTORS[method](problem, ks, rng)
    return {k: _bounded(problem, supports[k], relaxed[k]) for k in ks}


def _bounded(problem: Problem, support: np.ndarray, relaxed: Relaxed) -> Selection:
    fit = problem.fit(support)
    return Selection(
        support=support,
        coefficients=fit.coefficients,
        intercept=fit.intercept,
        objective=fit.objective,
        lower_bound=min(rounded_down(max(relaxed.lower, 0.0)), fit.objective),  # no loss is negative
        status=Status.HEURISTIC,
        nodes=1,
        seconds=0.0,
    )


def _check(problem: Problem, method: str, ks: Sequence[int]) -> None:
    if method not in SELECTORS:
        raise InputError(f"there is no selector {method!r}: choose one of {', '.join(SELECTORS)}.")
    for k in ks:
        if not 1 <= k <= problem.width:
            raise InputError(f"k = {k} is not possible with {problem.width} columns: k goes from 1 to {problem.width}.")
    if method in CLASSES_ONLY and not problem.loss.classes:
        raise InputError(f"selector {method!r} needs classes, not a continuous target: choose another one.")
