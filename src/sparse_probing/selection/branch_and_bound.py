"""The exact search: best first over forced-in and forced-out columns, bounded by the relaxation, all columns competing.

A node says which columns are in, out, free. A bound also decides single columns: out where even the best support with the column
stays above the goal, in where all supports without it do. The node with the lowest bound is expanded first, a stretch of its
subtree at a time (`dive`), so that the claim can rise whenever the search is stopped.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from sparse_probing.probes.newton import LinearFit
from sparse_probing.selection.dive import Branches, Rows, dive
from sparse_probing.selection.k_support import FREE, INSIDE, OUT
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.relaxation import Relaxed, fix_columns, gram
from sparse_probing.selection.rows import KINDS, balanced_point, predict

NEAR = 0.45
"""A column belongs to a node's model if its `u^2` reaches so much of the k-th largest."""
MOST_NEAR = 96
"""And at most so many free ones do."""
SHORT, LONG = 60, 400
"""Children per dive: few while the columns outside the model are many, since a model of their own serves them better."""
EAGER, SELDOM = 50, 20
"""Supports are rounded from the first nodes, later from every twentieth only."""
MARGIN = 1e-6
"""What is claimed stays so much, relatively, below what the search has found: room for the rounding of stored coefficients."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Node:
    lower: float
    inside: Shaped[np.ndarray, " _"]
    free: Shaped[np.ndarray, " _"]
    columns: Shaped[np.ndarray, " column"]
    """Columns with a coefficient."""
    theta: Float[np.ndarray, " column1"]
    """Coefficients on `columns`, and the intercept."""
    record: int


class Tree:
    """The search tree in the pieces in which it was made; node 0 is the root."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, Branches]] = []
        self.fits: dict[int, tuple[np.ndarray, LinearFit]] = {}
        """Leaves with a full support that were fitted exactly."""
        self.size = 1

    def add(self, node: int, piece: Branches) -> None:
        """What was found below a node; the piece's own nodes, after its first, are numbered from `size`."""
        index = {
            name: getattr(piece, name).astype(np.int32)
            for name in ("column", "side_in", "side_out", "start", "entries", "entry_column")
        }
        self.pieces.append(
            (node, piece._replace(**index, entry_coefficient=piece.entry_coefficient.astype(np.float32)))
        )
        self.size += len(piece.column) - 1


class Search:
    """One search; `advance` makes one dive.

    Args:
        problem: what to minimise.
        k: size of the support.
        root: the relaxation for this k.
        support: a good support to begin with.
        objective: what it costs.
        gap: the search ends when the objective is at most so much, relatively, above the bound.
        goal: ends the search at this bound instead, whatever is found; every full support below it is collected in `found`.
        excluded: columns that must not be chosen.
        record: keep the tree, for a certificate.
    """

    def __init__(
        self,
        problem: Problem,
        k: int,
        root: Relaxed,
        support: np.ndarray,
        objective: float,
        *,
        gap: float = 1e-3,
        goal: float | None = None,
        excluded: np.ndarray | None = None,
        record: bool = True,
    ) -> None:
        self.problem, self.k, self.root, self.gap, self.fixed_goal, self.record = problem, k, root, gap, goal, record
        self.support, self.objective = support, objective
        self.found: dict[tuple[int, ...], float] = {tuple(support.tolist()): objective}
        self.nodes, self.dives, self.tree = 1, 0, Tree()
        self.weakest = np.inf
        """Lowest bound that is proved by a stored point alone."""
        self.heap: list[tuple[float, int, _Node]] = []
        self.tried: set[tuple[int, ...]] = set(self.found)
        self.rows = Rows(KINDS[problem.loss.name], problem.target.astype(np.float64), problem.weights, root.reach)
        self.pool = self.x = np.array([])
        if root.lower < self.goal:
            self._begin(excluded)

    def _begin(self, excluded: np.ndarray | None) -> None:
        """Drop the columns that the root decides, and make the first node."""
        root, k, problem = self.root, self.k, self.problem
        state = np.zeros(problem.width, dtype=np.uint8)
        state[[] if excluded is None else excluded] = OUT
        ordered = np.sort(root.squares[state == FREE])[::-1]
        following = float(ordered[k]) if k < len(ordered) else -1.0
        fix_columns(root.lower, float(ordered[k - 1]), following, root.squares, state, k, problem.ridge, self.goal)
        order = np.argsort(-root.squares, kind="stable")
        spoken = np.isin(np.arange(len(state)), root.columns[root.coefficients != 0])  # part of the root's dual point
        self.pool = order[(state[order] != OUT) | spoken[order]].astype(np.int32)
        self.x = np.ascontiguousarray(problem.z[:, self.pool].T)
        self.gains = np.full((2, len(self.pool)), -1.0)  # of branching, learnt as the search goes on
        position = np.full(problem.width, -1, dtype=np.int32)
        position[self.pool] = np.arange(len(self.pool))
        kept = root.coefficients != 0
        node = _Node(
            lower=root.lower,
            inside=np.flatnonzero(state[self.pool] == INSIDE).astype(np.int32),
            free=np.flatnonzero(state[self.pool] == FREE).astype(np.int32),
            columns=position[root.columns][kept],
            theta=np.append(root.coefficients[kept], root.intercept),
            record=0,
        )
        self._push(node)

    @property
    def goal(self) -> float:
        """Nodes whose bound reaches this are done with."""
        return self.objective * (1 - self.gap) / (1 - 2 * MARGIN) if self.fixed_goal is None else self.fixed_goal

    @property
    def bound(self) -> float:
        """What can be claimed now."""
        lowest = min(self.goal, self.heap[0][0] if self.heap else np.inf)
        return min(lowest, self.weakest) - MARGIN * min(self.objective, self.goal)

    def _push(self, node: _Node) -> None:
        heapq.heappush(self.heap, (node.lower, node.record, node))

    def advance(self) -> bool:
        """Dive below the node with the lowest bound; false when there is none below the goal."""
        if not self.heap or self.heap[0][0] >= self.goal:
            return False
        node = heapq.heappop(self.heap)[2]
        universe, state, theta, hessian = self._model(node)
        m = len(theta) - 1
        budget = SHORT if len(universe) > 2 * m else LONG
        branches, left, complete, members, taken = dive(
            self.x,
            self.rows,
            self.problem.ridge,
            self.k,
            self.goal,
            universe,
            hessian,
            state,
            theta,
            node.lower,
            budget,
            self.gains,
        )
        self.nodes += taken
        self.dives += 1
        offset = self.tree.size - 1
        if self.record:
            self.tree.add(node.record, branches)
        else:
            self.tree.size += len(branches.column) - 1
        for record, support in zip(complete.tolist(), members, strict=True):
            self._complete(record + offset, np.sort(self.pool[support]).astype(np.int64))
        for record, lower, state, theta in zip(
            left.record.tolist(), left.lower.tolist(), left.state, left.theta, strict=True
        ):
            used = np.flatnonzero(theta[:-1])
            self._push(
                _Node(
                    lower=lower,
                    inside=universe[state == INSIDE],
                    free=universe[state == FREE],
                    columns=universe[used],
                    theta=np.append(theta[used], theta[-1]),
                    record=record + offset if record else node.record,
                )
            )
        if self.dives <= EAGER or self.dives % SELDOM == 0:
            self._round(node)
        return True

    def _model(self, node: _Node) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Columns in the order in which a dive wants them, the model's first, and their state; the model's theta and curvature."""
        n = len(self.problem.target)
        eta, pull, bend = np.empty(n), np.empty(n), np.empty(n)
        predict(self.x, node.columns, node.theta, eta)
        shift, _, _, _ = balanced_point(self.rows.kind, eta, self.rows.target, self.rows.weights, pull, bend)
        few = 2 * len(node.free) < len(self.x)
        squares = (self.x[node.free] if few else self.x) @ pull.astype(np.float32)
        squares = (squares if few else squares[node.free]).astype(np.float64) ** 2
        wanted = self.k - len(node.inside)
        kth = np.sort(squares)[::-1][min(wanted, len(squares)) - 1]
        near = min(max(int((squares > NEAR * kth).sum()), wanted + 8), wanted + MOST_NEAR)
        used = np.isin(node.free, node.columns)
        squares[used] += squares.max() + 1.0  # what has a coefficient belongs to the model in any case
        order = np.argsort(-squares, kind="stable")
        out = np.setdiff1d(node.columns, np.concatenate([node.inside, node.free]))
        universe = np.concatenate([node.inside, out, node.free[order]])
        state = np.repeat([INSIDE, OUT, FREE], [len(node.inside), len(out), len(order)]).astype(np.uint8)
        m = len(node.inside) + len(out) + min(len(order), max(int(used.sum()), near))
        place = np.zeros(len(self.x))
        place[node.columns] = node.theta[:-1]
        theta = np.append(place[universe[:m]], node.theta[-1] + shift)
        return universe, state, theta, gram(self.x[universe[:m]], bend)

    def _complete(self, record: int, support: np.ndarray) -> None:
        """A full support whose bound does not reach the goal: a better one, or one whose proof needs the exact fit."""
        fit = self.problem.fit(support)
        self._offer(support, fit.objective)
        if self.fixed_goal is not None and fit.objective < self.fixed_goal:
            return  # it is listed: the claim is about all others
        theta = np.append(fit.coefficients.astype(np.float32).astype(np.float64), fit.intercept)
        eta, pull, bend = (np.empty(len(self.problem.target)) for _ in range(3))
        columns = self.problem.z[:, support].astype(np.float64)
        eta[:] = columns @ theta[:-1] + theta[-1]
        _, _, lines, _ = balanced_point(self.rows.kind, eta, self.rows.target, self.rows.weights, pull, bend)
        self.weakest = min(self.weakest, lines - float(((pull @ columns) ** 2).sum()) / (2 * self.problem.ridge))
        self.tree.fits[record] = support, fit

    def _offer(self, support: np.ndarray, objective: float) -> None:
        if self.fixed_goal is not None and objective < self.fixed_goal:
            self.found[tuple(support.tolist())] = objective
        if objective < self.objective:
            self.support, self.objective = support, objective

    def _round(self, node: _Node) -> None:
        """Fit the support that a node points at."""
        size = np.abs(node.theta[:-1]) + 1e6 * np.isin(node.columns, node.inside)
        support = np.sort(self.pool[node.columns[np.argsort(-size, kind="stable")[: self.k]]]).astype(np.int64)
        key = tuple(support.tolist())
        if len(support) == self.k and key not in self.tried:
            self.tried.add(key)
            self._offer(support, self.problem.fit(support, tolerance=1e-6).objective)
