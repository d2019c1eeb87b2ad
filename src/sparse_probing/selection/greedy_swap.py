"""Greedy forward selection with swaps, second starts from the relaxation, and sweeps back and forth: the default.

A quadratic model of the objective prices every addition, removal and exchange at once; the most promising moves are then tried
for real. All columns compete at every size, through a pool of those that the gradient favours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.probes.newton import LinearFit, fit_batch
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.relaxation import Relaxed, relaxation_path
from sparse_probing.selection.supports import Supports

TRIED = 4
"""Moves of each kind that are fitted for real."""
POOL = 256
"""Columns that compete in the quadratic model: the best by the gradient of the empty probe, and more at every size."""
FRESH = 16
"""Columns that join the pool at every size: the best outside by the gradient of the present probe."""
ONE_BY_ONE = 16
"""Up to this size columns come one by one and are swapped at every size; beyond, a quarter of the size comes at a time, and
exchanges are made at the wanted sizes only."""
SWAPS = 40
"""Exchanges at one size, at most; fewer beyond 25 columns, where they cost most and change least."""
PATH = 32
"""Sizes up to here are reached step by step; larger supports begin at the relaxation, which is nearly tight there."""
SWEEPS = 3
"""Rounds back and forth, at most."""
WORTH_SWAPPING = 0.01
"""A support from a neighbouring size may be so much worse, relatively, and is still tried with exchanges."""
SEARCH_TOLERANCE = 1e-5
"""Of the gradient while searching: the objective is then right to 1e-9."""
LEAST_GAIN = 1e-7
"""Relative improvement of the objective that is worth a move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A support of pool columns and its probe."""

    support: Int[np.ndarray, " k"]
    fit: LinearFit


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """The quadratic model about a fitted support: what each move is expected to change in the objective."""

    add: Float[np.ndarray, " pool"]
    """Gain of adding a column; below 0 for members, which cannot be added."""
    drop: Float[np.ndarray, " k"]
    """Loss of dropping a member."""
    inverse: Float[np.ndarray, "k1 k1"]
    coupling: Float[np.ndarray, "pool k1"]
    own: Float[np.ndarray, " pool"]
    gradient: Float[np.ndarray, " pool"]


def greedy_swap(problem: Problem, ks: Sequence[int], relaxed: Mapping[int, Relaxed] | None = None) -> Supports:
    """Supports for every k on one path.

    Forward: the four best additions by the quadratic model are fitted, the best one stays; then exchanges as long as one of the
    four best improves the objective. A second start at each wanted size: the largest coefficients of the relaxation, with
    exchanges. Then sweeps: backward, a support that the next larger one contains, and forward, one that contains the next smaller
    one, take the place of a worse one and are swapped again, until nothing improves. Supports need not be nested.
    Cost O(row * pool * k) per step. Deterministic.

    Args:
        problem: what to minimise.
        ks: sizes wanted.
        relaxed: the relaxation for every wanted size, if it is known already.
    """
    search, sizes = _Search(problem, max(ks)), path_sizes([k for k in ks if k <= PATH])
    relaxed = relaxation_path(problem, ks) if relaxed is None else relaxed
    found: dict[int, _State] = {}
    state = search.nothing
    for size in sizes:
        state = search.larger(state, size - len(state.support))
        if size <= ONE_BY_ONE or size in ks:
            state = search.swapped(state)
        found[size] = state
    for k in ks:
        state = search.started(relaxed[k].rounded(k))
        found[k] = search.better(found[k], state) if k in found else search.swapped(state)
    for _ in range(SWEEPS):
        before = {size: found[size].fit.objective for size in sizes}
        for size, next_size in pairwise(reversed(sizes)):
            smaller = search.smaller(found[size], next_size)
            found[next_size] = search.better(found[next_size], smaller)
        for size, next_size in pairwise(sizes):
            if before[size] > found[size].fit.objective * (1 + LEAST_GAIN):
                larger = search.larger(found[size], next_size - size)
                found[next_size] = search.better(found[next_size], larger)
        if all(found[size].fit.objective >= value * (1 - LEAST_GAIN) for size, value in before.items()):
            break
    return {k: np.sort(search.pool[found[k].support]) for k in ks}


def path_sizes(ks: Sequence[int]) -> list[int]:
    """Every size up to `ONE_BY_ONE`, then steps of a quarter that do not jump over a wanted size."""
    if not ks:
        return []
    sizes, largest = [1], max(ks)
    while sizes[-1] < largest:
        size = sizes[-1]
        jump = size + 1 if size < ONE_BY_ONE else size + size // 4
        sizes.append(min(jump, min(k for k in ks if k > size)))
    return sizes


class _Search:
    """The pool and the moves."""

    def __init__(self, problem: Problem, largest: int) -> None:
        self.whole = problem
        empty = problem.fit(np.array([], dtype=int))
        eta = np.full(len(problem.target), empty.intercept)
        order = np.argsort(-self._first_order(eta), kind="stable")
        self.pool = order[: max(POOL, 2 * largest)]
        room = min(problem.width, len(self.pool) + FRESH * (len(path_sizes([largest])) + 2))
        self.columns = np.empty((room, len(eta)), dtype=np.float32)  # one pool column per row
        self.squares = np.empty_like(self.columns)
        self._copy(0)
        self.bending = (-1, 0), np.array([])
        """Curvature of each pool column, and the size of the support and of the pool for which it was taken."""
        self.nothing = _State(support=np.array([], dtype=int), fit=empty)

    def _copy(self, known: int) -> None:
        end = len(self.pool)
        np.copyto(self.columns[known:end], self.whole.z[:, self.pool[known:]].T)
        np.square(self.columns[known:end], out=self.squares[known:end])

    def _first_order(self, eta: np.ndarray) -> np.ndarray:
        """Squared gradient of each column: its gain in the model that ignores the support, up to the curvature."""
        problem = self.whole
        pull = (problem.weights * problem.loss.slope(eta, problem.target)).astype(np.float32)
        return (pull @ problem.z).astype(np.float64) ** 2

    def eta(self, state: _State) -> np.ndarray:
        """Linear predictor."""
        return state.fit.coefficients @ self.columns[state.support].astype(np.float64) + state.fit.intercept

    def refresh(self, eta: np.ndarray) -> None:
        """Let the columns with the largest gradient at this predictor compete too."""
        room = len(self.columns) - len(self.pool)
        if not room:
            return
        gain = self._first_order(eta)
        gain[self.pool] = -1.0
        fresh = np.argsort(-gain, kind="stable")[: min(FRESH, room)]
        known, self.pool = len(self.pool), np.concatenate([self.pool, fresh])
        self._copy(known)

    def _curvature(self, state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Curvature and slope per row, the weighted members, and the inverse curvature matrix of the fit."""
        problem, k = self.whole, len(state.support)
        members = np.vstack([self.columns[state.support].astype(np.float64), np.ones(len(problem.target))])
        eta = self.eta(state)
        curvature = problem.weights * problem.loss.curvature(eta, problem.target)
        weighted = members * curvature
        hessian = weighted @ members.T
        hessian[np.arange(k), np.arange(k)] += problem.ridge
        hessian[k, k] += 1e-12
        return curvature, problem.weights * problem.loss.slope(eta, problem.target), weighted, np.linalg.inv(hessian)

    def started(self, columns: np.ndarray) -> _State:
        """The probe on any columns of the problem; they join the pool."""
        new = np.setdiff1d(columns, self.pool)
        if len(self.pool) + len(new) > len(self.columns):
            more = np.empty((len(new) + FRESH, self.columns.shape[1]), dtype=np.float32)
            self.columns, self.squares = np.concatenate([self.columns, more]), np.concatenate([self.squares, more])
        known, self.pool = len(self.pool), np.concatenate([self.pool, new])
        self._copy(known)
        place = np.argsort(self.pool, kind="stable")
        support = place[np.searchsorted(self.pool, columns, sorter=place)]
        return self._fitted(support, np.zeros(len(support)), self.nothing)

    def better(self, best: _State, other: _State) -> _State:
        """Exchanges from another support of the same size; the best stays if they do not lead below it."""
        if other.fit.objective > best.fit.objective * (1 + WORTH_SWAPPING) or set(other.support) == set(best.support):
            return best
        other = self.swapped(other)
        return other if other.fit.objective < best.fit.objective * (1 - LEAST_GAIN) else best

    def model(self, state: _State) -> _Model:
        """Price all moves: one matrix product of the pool with the support's weighted columns."""
        curvature, pull, weighted, inverse = self._curvature(state)
        n_pool = len(self.pool)
        products = self.columns[:n_pool] @ np.vstack([weighted, pull]).T.astype(np.float32)
        cross, gradient = products[:, :-1].astype(np.float64), products[:, -1].astype(np.float64)
        coupling = cross @ inverse
        ridge = self.whole.ridge
        if self.bending[0] != (
            len(state.support),
            n_pool,
        ):  # exchanges at one size hardly change it, and it only prices moves
            diagonal = (self.squares[:n_pool] @ curvature.astype(np.float32)).astype(np.float64)
            self.bending = (len(state.support), n_pool), diagonal
        own = self.bending[1] + ridge
        own = np.maximum(own - (coupling * cross).sum(axis=1), ridge)
        add = gradient**2 / (2.0 * own)
        add[state.support] = -1.0
        drop = _drop_losses(state, inverse)
        return _Model(add=add, drop=drop, inverse=inverse, coupling=coupling, own=own, gradient=gradient)

    def larger(self, state: _State, step: int) -> _State:
        """The support with `step` more columns."""
        self.refresh(self.eta(state))
        model = self.model(state)
        if step > 1:
            new = np.argsort(-model.add, kind="stable")[:step]
            return self._fitted(np.append(state.support, new), np.append(state.fit.coefficients, np.zeros(step)), state)
        best = np.argsort(-model.add, kind="stable")[: min(TRIED, len(self.pool) - len(state.support))]
        supports = np.array([np.append(state.support, j) for j in best])
        guess = -model.gradient[best] / model.own[best]
        start = np.array([np.append(state.fit.coefficients, g) for g in guess])
        return self._best(supports, start, state.fit.intercept)

    def smaller(self, state: _State, size: int) -> _State:
        """The support without its cheapest columns, down to `size`."""
        kept = np.sort(np.argsort(-_drop_losses(state, self._curvature(state)[3]), kind="stable")[:size])
        return self._fitted(state.support[kept], state.fit.coefficients[kept], state)

    def swapped(self, state: _State) -> _State:
        """Exchange a member for another column as long as that improves the objective."""
        k = len(state.support)
        for _ in range(min(SWAPS, max(4, 1_024 // k))):
            model = self.model(state)
            diagonal = np.diag(model.inverse)[:k]
            ratio = state.fit.coefficients / diagonal
            coupling = model.coupling[:, :k]
            gradient = model.gradient[:, None] - coupling * ratio  # of each column once that member is gone
            change = model.drop - gradient**2 / (2.0 * (model.own[:, None] + coupling**2 / diagonal))
            change[state.support] = 0.0
            flat = _smallest(change.ravel(), TRIED if k <= ONE_BY_ONE else 1)
            flat = flat[change.ravel()[flat] < -LEAST_GAIN * state.fit.objective]
            if not len(flat):
                return state
            column, member = np.unravel_index(flat, change.shape)
            supports = np.tile(state.support, (len(flat), 1))
            supports[np.arange(len(flat)), member] = column
            start = np.tile(state.fit.coefficients, (len(flat), 1))
            start[np.arange(len(flat)), member] = 0.0
            trial = self._best(supports, start, state.fit.intercept)
            if trial.fit.objective >= state.fit.objective * (1 - LEAST_GAIN):
                return state
            state = trial
        return state

    def _best(self, supports: np.ndarray, start: np.ndarray, intercept: float) -> _State:
        shape = (len(supports), len(self.whole.target))
        fits = fit_batch(
            self.columns[supports].transpose(0, 2, 1),
            np.broadcast_to(self.whole.target, shape),
            np.broadcast_to(self.whole.weights, shape),
            self.whole.ridge,
            self.whole.loss,
            (start, np.full(len(supports), intercept)),
            SEARCH_TOLERANCE,
        )
        best = int(np.argmin(fits.objective))
        return _State(support=supports[best], fit=fits[best])

    def _fitted(self, support: np.ndarray, start: np.ndarray, state: _State) -> _State:
        return self._best(support[None], start[None], state.fit.intercept)


def _drop_losses(state: _State, inverse: np.ndarray) -> np.ndarray:
    return state.fit.coefficients**2 / (2.0 * np.diag(inverse)[: len(state.support)])


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the smallest values, ascending; ties go to the lower position."""
    limit = np.partition(values, min(count, len(values)) - 1)[min(count, len(values)) - 1]
    among = np.flatnonzero(values <= limit)
    return among[np.argsort(values[among], kind="stable")][:count]
