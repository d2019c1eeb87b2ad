"""What stands beside the best support: equals within a tolerance, stand-ins for each member, and the smallest size that will do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from sparse_probing.errors import InputError
from sparse_probing.selection.branch_and_bound import MARGIN, Search
from sparse_probing.selection.exact import Limits, Progress, best_subset, checked_problem, run_search
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.relaxation import relax
from sparse_probing.selection.supports import Selection, Status

LARGEST_ENUMERATED = 3
"""Supports within a tolerance are listed up to this size; beyond, their number explodes and stand-ins say more."""


def _silent(_: Progress) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NearOptimal:
    """All supports of a size whose objective lies within a tolerance of the best one."""

    supports: Int[np.ndarray, "support k"]
    """Best first; ties by column."""
    objectives: list[float]
    limit: float
    """Largest objective that was asked for."""
    status: Status
    """`optimal`: the list is complete. Otherwise others may exist with an objective of at least `lower_bound`."""
    lower_bound: float
    """No support outside the list has a smaller objective."""


def near_optimal(
    problem: Problem,
    k: int,
    tolerance: float = 0.01,
    limits: Limits | None = None,
    progress: Callable[[Progress], object] = _silent,
) -> NearOptimal:
    """Every support of k columns whose objective is at most `1 + tolerance` times the best, proved complete.

    For correlated columns the honest answer to *which neurons?* is such a set, not one list.

    Args:
        problem: what to minimise.
        k: 1, 2 or 3.
        tolerance: relative, from 0 to 1.
        limits: time and nodes.
        progress: called about twice a second.

    Raises:
        InputError: a size, a tolerance or a problem for which there is no such list.
    """
    if not 1 <= k <= LARGEST_ENUMERATED:
        raise InputError(
            f"k = {k} has too many supports near the best to list: list them for k = 1 to {LARGEST_ENUMERATED}, "
            "and ask for stand-ins of single columns beyond."
        )
    if not 0 <= tolerance <= 1:
        raise InputError(f"a tolerance of {tolerance:g} is not possible: choose one from 0 to 1, 0.01 for 1 %.")
    problem, limits, started = checked_problem(problem), limits or Limits(), time.monotonic()
    best = best_subset(
        problem, k, Limits(gap=1e-5, seconds=limits.seconds, nodes=limits.nodes), certify=False
    ).selection
    if best.status is Status.STOPPED:
        raise KeyboardInterrupt
    limit = best.objective * (1 + tolerance)
    search = Search(
        problem,
        k,
        relax(problem, k),
        best.support,
        best.objective,
        goal=limit * (1 + 2 * MARGIN) + 1e-300,
        record=False,
    )
    status = run_search(search, limits, progress, started)
    rows = sorted(
        (objective, support) for support, objective in search.found.items() if objective <= limit * (1 + 1e-9)
    )
    return NearOptimal(
        supports=np.array([support for _, support in rows], dtype=np.int64),
        objectives=[objective for objective, _ in rows],
        limit=limit,
        status=status if best.status is Status.OPTIMAL else best.status,
        lower_bound=min(search.bound, limit),
    )


def without_each(
    problem: Problem,
    selection: Selection,
    limits: Limits | None = None,
    columns: Iterable[int] | None = None,
    progress: Callable[[Progress], object] = _silent,
) -> dict[int, Selection]:
    """For each member of a support, the best support of the same size that does without it.

    `found[j].lower_bound - selection.objective` is how much worse it must get without j; where that is little, others stand in.

    Args:
        problem: what to minimise.
        selection: whose members are taken away, one at a time.
        limits: of each search.
        columns: some of the members; all when null.
        progress: called about twice a second.

    Raises:
        InputError: a column that is no member, or no column left to take its place.
    """
    members = selection.support.tolist()
    chosen = members if columns is None else list(columns)
    for column in chosen:
        if column not in members:
            raise InputError(f"column {column} is not in the support {members}: choose some of these.")
    found: dict[int, Selection] = {}
    for j in chosen:
        proof = best_subset(problem, len(members), limits, excluded=np.array([j]), certify=False, progress=progress)
        if proof.selection.status is Status.STOPPED:
            raise KeyboardInterrupt
        found[j] = proof.selection
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fewest:
    """The smallest size that reaches an objective."""

    k: int
    selection: Selection
    """A support of k columns below the target."""
    proved: bool
    """Every smaller support is proved to stay above the target."""
    bounds: dict[int, float]
    """Size -> what no support of that size can go below, for the sizes below k that were looked at."""


def fewest_columns(
    problem: Problem,
    target: float,
    limits: Limits | None = None,
    largest: int = 64,
    progress: Callable[[Progress], object] = _silent,
) -> Fewest:
    """The smallest k with a support whose objective is at most `target`, and the proof that k - 1 columns do not reach it.

    Sizes are tried from 1 on; the root bound alone rules most of them out. The best support of one size is the start of the next.

    Args:
        problem: what to minimise.
        target: objective to reach.
        limits: of the search at each size; one that ends by a limit leaves `proved` false.
        largest: size at which to give up.
        progress: called about twice a second.

    Raises:
        InputError: no support of the largest size reaches the target.
    """
    if not np.isfinite(target):
        raise InputError(f"a target of {target:g} is not possible: give the objective to reach.")
    problem, limits = checked_problem(problem), limits or Limits()
    largest = min(largest, problem.width)
    bounds: dict[int, float] = {}
    proved, relaxed = True, None
    for k in range(1, largest + 1):
        relaxed = relax(problem, k, relaxed)
        if relaxed.lower > target:
            bounds[k] = relaxed.lower
            continue
        found = best_subset(problem, k, Limits(gap=1e-5, seconds=0.0), relaxed=relaxed, certify=False).selection
        if found.objective > target:
            started = time.monotonic()
            search = Search(
                problem,
                k,
                relaxed,
                found.support,
                found.objective,
                goal=target * (1 + 2 * MARGIN),
                record=False,
            )
            status = run_search(search, limits, progress, started, until=target)
            if search.objective > target:
                bounds[k] = min(search.bound, search.objective)
                proved = proved and (status is Status.OPTIMAL and bounds[k] >= target)
                if status is Status.STOPPED:
                    raise KeyboardInterrupt
                continue
            found = best_subset(
                problem, k, Limits(gap=1e-5, seconds=0.0), start=search.support, relaxed=relaxed, certify=False
            ).selection
        return Fewest(k=k, selection=found, proved=proved, bounds=bounds)
    raise InputError(
        f"no support of up to {largest} columns was found below {target:g}: raise the target, or the largest size."
    )
