"""The best k columns with a proof: heuristics, root bound, branch and bound, certificate."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from sparse_probing.errors import InputError
from sparse_probing.selection.branch_and_bound import Search
from sparse_probing.selection.certificate import Certificate, problem_hash
from sparse_probing.selection.defaults import SMALLEST_GAP
from sparse_probing.selection.greedy_swap import greedy_swap
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.relaxation import Relaxed, relax
from sparse_probing.selection.supports import Selection, Status, gap_between

SMALLEST_RIDGE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When an exact search may stop."""

    gap: float = 1e-3
    """Relative distance between objective and bound that counts as proved."""
    seconds: float | int | None = None
    """Time for the search, after heuristics and root bound, which always come back; results then depend on the machine."""
    nodes: int | None = None
    """Bounds to compute, at most about; results do not depend on the machine."""

    def __post_init__(self) -> None:
        if not SMALLEST_GAP <= self.gap < 1:
            raise InputError(
                f"a gap of {self.gap:g} is not possible: choose one from {SMALLEST_GAP:g} to 1, 0.001 for 0.1 %."
            )
        for name, value in (("time", self.seconds), ("node", self.nodes)):
            if value is not None and not value >= 0:
                raise InputError(f"a {name} limit of {value:g} is not possible: choose 0 or more, or leave it out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a search stands."""

    objective: float
    bound: float
    nodes: int
    left: int
    """Nodes that wait."""
    seconds: float

    def __str__(self) -> str:
        gap, speed = 100 * gap_between(self.objective, self.bound), self.nodes / max(self.seconds, 1e-9)
        return (
            f"best {self.objective:.5f}, bound {self.bound:.5f}, gap {gap:.2f} %, {self.nodes:,} nodes ({speed:,.0f}/s), "
            f"{self.left:,} open"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proof:
    """What an exact search returns."""

    selection: Selection
    certificate: Certificate | None
    """The tree that proves the bound; null where none was wanted."""


def best_subset(
    problem: Problem,
    k: int,
    limits: Limits | None = None,
    *,
    start: Int[np.ndarray, " k"] | None = None,
    excluded: Int[np.ndarray, " _"] | None = None,
    relaxed: Relaxed | None = None,
    certify: bool = True,
    progress: Callable[[Progress], object] = lambda _: None,
) -> Proof:
    """The support of k columns with the smallest objective, among all columns, and a proof of how good it is.

    Source of the problem: Gurnee et al. 2023 (arXiv 2305.01610), *optimal sparse probing*; of the bound: the perspective
    relaxation. Deterministic, unless a time limit or Ctrl-C ends the search: then the best support so far and a valid bound come
    back. Cost: a bound takes 0.1 to 0.5 ms for 5,000 rows and 1,536 columns; their number grows steeply with k and with 1 / ridge
    (see `docs/benchmarks.md`).

    Args:
        problem: what to minimise; its ridge is what the bound lives on (0.3: fast; 0.1: k up to about 5; less: rarely closes).
        k: size of the support.
        limits: gap that counts as proved, time, nodes.
        start: a support to begin with; heuristics find one when null.
        excluded: columns that must not be chosen.
        relaxed: the relaxation for this k, if it is known already.
        certify: keep what a certificate needs (200 bytes per node).
        progress: called about twice a second.

    Raises:
        InputError: a problem or a k for which there is no such search, in one sentence.
    """
    limits = limits or Limits()
    problem = checked_problem(problem)
    excluded = np.array([], dtype=np.int64) if excluded is None else np.unique(excluded)
    _check_k(k, problem.width - len(excluded), len(excluded))
    started = time.monotonic()
    relaxed = relaxed or relax(problem, k, excluded=excluded)
    if start is None:
        start = _heuristic(problem, k, excluded, relaxed)
    first = problem.fit(start)
    search = Search(
        problem, k, relaxed, np.sort(start), first.objective, gap=limits.gap, excluded=excluded, record=certify
    )
    status = run_search(search, limits, progress, started)
    return _proof(search, status, excluded, time.monotonic() - started, certify=certify)


def run_search(
    search: Search, limits: Limits, progress: Callable[[Progress], object], started: float, until: float = -np.inf
) -> Status:
    """Advance until nothing is left to do, a limit is reached, or an objective below `until` is found."""
    begun = shown = time.monotonic()
    with _interrupts() as asked:
        while search.objective > until:
            now = time.monotonic()
            if now - shown > 0.5:
                shown = now
                progress(
                    Progress(
                        objective=search.objective,
                        bound=search.bound,
                        nodes=search.nodes,
                        left=len(search.heap),
                        seconds=now - started,
                    )
                )
            if asked():
                return Status.STOPPED
            if limits.seconds is not None and now - begun >= limits.seconds:
                return _status(search, Status.TIME)
            if limits.nodes is not None and search.nodes >= limits.nodes:
                return _status(search, Status.NODES)
            if not search.advance():
                return Status.OPTIMAL
    return Status.OPTIMAL


def _status(search: Search, limit: Status) -> Status:
    """A limit does not matter where the proof is complete."""
    done = not search.heap or search.heap[0][0] >= search.goal
    return Status.OPTIMAL if done else limit


def checked_problem(problem: Problem) -> Problem:
    """The problem with columns as the search reads them: float32, row by row.

    Raises:
        InputError: nothing can be proved about it; the sentence says why.
    """
    z, target, weights = problem.z, problem.target, problem.weights
    if not np.isfinite(problem.ridge) or problem.ridge <= 0:
        raise InputError(
            f"ridge = {problem.ridge:g}, but an exact search needs one above 0: without it a column's gain has no limit, and no "
            "bound can be proved. 0.1 is a good value, 0.3 proves faster."
        )
    if len(target) != len(z) or len(weights) != len(z):
        raise InputError(
            f"{len(z)} rows, but {len(target)} targets and {len(weights)} weights: give one of each per row."
        )
    total = float(weights.sum()) if len(weights) else 0.0
    if not np.isfinite(weights).all() or (weights < 0).any() or not total > 0:
        raise InputError("weights must be finite, not negative, and not all zero: mend them, or leave them out.")
    if not np.isfinite(target).all():
        raise InputError("the target holds NaN or infinity: drop those rows.")
    if problem.ridge < SMALLEST_RIDGE:
        raise InputError(
            f"ridge = {problem.ridge:g} is too small for a proof (below {SMALLEST_RIDGE:g} stored coefficients round too much, and "
            "bounds are far from any objective): 0.1 is a good value, 0.3 proves faster."
        )
    if not problem.loss.classes and np.ptp(target[weights > 0]) <= 1e-12 * np.abs(target).max():
        raise InputError("the target is constant: there is nothing to select columns for.")
    if problem.loss.classes:
        seen = np.unique(target[weights > 0])
        if not np.isin(seen, (0.0, 1.0)).all():
            raise InputError(
                f"the loss {problem.loss.name} needs targets 0 and 1, not {seen[:5].tolist()}: encode the classes."
            )
        if len(seen) < 2:
            raise InputError("all rows with weight belong to one class: nothing can be told apart. Give rows of both.")
    largest = np.finfo(np.float32).max
    bad = sum(int((~(np.abs(z[at : at + 4096]) <= largest)).any(axis=1).sum()) for at in range(0, len(z), 4096))
    if bad:
        raise InputError(
            f"{bad} of {len(z)} rows hold NaN, infinity or numbers beyond float32: drop them, or the columns that hold them."
        )
    z = np.ascontiguousarray(z, dtype=np.float32)
    weights = weights if abs(total - 1) <= 1e-12 else weights / total
    return problem if z is problem.z and weights is problem.weights else replace(problem, z=z, weights=weights)


def _check_k(k: int, width: int, n_excluded: int) -> None:
    if not 1 <= k <= width:
        left = f" (without {n_excluded} excluded ones)" if n_excluded else ""
        raise InputError(f"k = {k} is not possible with {width} columns{left}: k goes from 1 to {width}.")


def _heuristic(problem: Problem, k: int, excluded: np.ndarray, relaxed: Relaxed) -> np.ndarray:
    """The best support that the heuristics find; with its neighbour k + 1, from which the way back may lead lower."""
    kept = np.setdiff1d(np.arange(problem.width), excluded)
    if not len(excluded):
        ks = [k, k + 1] if k + 1 <= problem.width else [k]
        return greedy_swap(
            problem, ks, {k: relaxed} | ({k + 1: relax(problem, k + 1, relaxed)} if len(ks) == 2 else {})
        )[k]
    return kept[greedy_swap(replace(problem, z=np.ascontiguousarray(problem.z[:, kept])), [k])[k]]


def _proof(search: Search, status: Status, excluded: np.ndarray, seconds: float, *, certify: bool) -> Proof:
    problem, fit = search.problem, search.problem.fit(search.support)
    search.objective = min(search.objective, fit.objective)
    bound = search.bound
    selection = Selection(
        support=search.support,
        coefficients=fit.coefficients,
        intercept=fit.intercept,
        objective=fit.objective,
        lower_bound=bound,
        status=Status.OPTIMAL if gap_between(fit.objective, bound) <= search.gap + 1e-9 else status,
        nodes=search.nodes,
        seconds=seconds,
    )
    if not certify:
        return Proof(selection=selection, certificate=None)
    branch, start, column, coefficient, intercept = recorded_tree(search)
    certificate = Certificate(
        k=search.k,
        ridge=float(problem.ridge),
        loss=problem.loss.name,
        rows=len(problem.target),
        columns=problem.width,
        data=problem_hash(problem),
        excluded=excluded,
        support=selection.support,
        coefficients=fit.coefficients,
        intercept=fit.intercept,
        objective=fit.objective,
        bound=bound,
        branch=branch,
        dual_start=start,
        dual_column=column,
        dual_coefficient=coefficient,
        dual_intercept=intercept,
        about={},
    )
    return Proof(selection=selection, certificate=certificate)


def recorded_tree(search: Search) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The search tree in preorder: branching columns, and dual points as rows of a sparse matrix."""
    size, pool = search.tree.size, search.pool
    branch, sides = np.full(size, -1, dtype=np.int64), np.full((size, 2), -1)
    points: list[tuple[np.ndarray, np.ndarray, float] | None] = [None] * size
    root = search.root
    points[0] = (root.columns, root.coefficients.astype(np.float32), root.intercept)
    offset = 0
    for node, piece in search.tree.pieces:
        place = np.arange(len(piece.column)) + offset
        place[0] = node
        split = piece.column >= 0
        branch[place[split]] = pool[piece.column[split]]
        sides[place[split], 0], sides[place[split], 1] = place[piece.side_in[split]], place[piece.side_out[split]]
        for i in np.flatnonzero(piece.entries >= 0).tolist():
            if i == 0 and points[node] is not None:
                continue
            entries = slice(piece.start[i], piece.start[i] + piece.entries[i])
            points[place[i]] = (
                pool[piece.entry_column[entries]],
                piece.entry_coefficient[entries],
                float(piece.intercept[i]),
            )
        offset += len(piece.column) - 1
    for record, (support, fit) in search.tree.fits.items():
        points[record] = support, fit.coefficients.astype(np.float32), fit.intercept
    for (
        _,
        record,
        node,
    ) in search.heap:  # a node that waits unsolved has no point of its own, but its parent's bounds it, too
        if points[record] is None:
            points[record] = (pool[node.columns], node.theta[:-1].astype(np.float32), float(node.theta[-1]))
    order, stack = [], [0]
    while stack:
        node = stack.pop()
        order.append(node)
        if branch[node] >= 0:
            stack += [int(sides[node, 1]), int(sides[node, 0])]
    some = [points[node] for node in order]
    counts = [0 if point is None else len(point[0]) for point in some]
    column = np.concatenate([point[0] for point in some if point is not None]).astype(np.int64)
    coefficient = np.concatenate([point[1] for point in some if point is not None]).astype(np.float32)
    intercept = np.array([np.nan if point is None else point[2] for point in some])
    return branch[order], np.append(0, np.cumsum(counts)), column, coefficient, intercept


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C becomes a question that the search asks itself between two dives, so that no node is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
