"""Supports that several classes share: each selector weighs a column by what it does for all classes together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from sparse_probing.errors import InputError
from sparse_probing.probes.multinomial import MultinomialFit, fit_multinomial
from sparse_probing.selection.greedy_swap import LEAST_GAIN, ONE_BY_ONE, SEARCH_TOLERANCE, SWAPS, TRIED, path_sizes
from sparse_probing.selection.heuristics import ELIMINATED, at_random, top_by_score
from sparse_probing.selection.supports import Supports

BLOCK = 1_024
"""Columns that are squared at a time."""
_NONE = np.array([], dtype=int)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Task:
    """`min over |support| <= k` of the multinomial objective of `probes.multinomial`."""

    z: Float[np.ndarray, "row column"]
    classes: Int[np.ndarray, " row"]
    weights: Float[np.ndarray, " row"]
    ridge: float

    def fit(self, support: Int[np.ndarray, " k"], start: MultinomialFit | None = None) -> MultinomialFit:
        return fit_multinomial(self.z[:, support], self.classes, self.weights, self.ridge, start, SEARCH_TOLERANCE)

    def shares(self) -> Float[np.ndarray, "row class"]:
        """Weight of each row in the column of its class."""
        return self.weights[:, None] * np.eye(int(self.classes.max()) + 1)[self.classes]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """A support in the order in which it grew, and its probe."""

    support: Int[np.ndarray, " k"]
    fit: MultinomialFit


def select_multiclass(
    z: Float[np.ndarray, "row column"],
    classes: Int[np.ndarray, " row"],
    weights: Float[np.ndarray, " row"],
    ridge: float,
    method: str,
    ks: Sequence[int],
    rng: np.random.Generator,
) -> Supports:
    """Supports of every size in `ks`, each shared by all classes.

    `greedy_swap`: the four best additions by the summed quadratic gain over classes are fitted, the best one stays; then the
    cheapest members are exchanged for the best other columns as long as the objective improves. Beyond 16 columns a quarter of
    the size comes at a time, and exchanges are made at the wanted sizes only. `orthogonal_matching_pursuit` adds the column with
    the largest gradient over classes, `recursive_elimination` drops the fifth of the columns with the smallest norm of the
    coefficients over classes, `mean_difference` takes the largest one-versus-rest |difference of means|, `random` draws.
    All but `greedy_swap` give nested supports. Deterministic, but for `random`.

    Args:
        z: columns standardised over the rows, float32.
        classes: 0 .. C-1, each present.
        weights: not negative, sum to 1.
        ridge: weight of half the sum of squared coefficients, above 0.
        method: a name in `MULTICLASS_SELECTORS`.
        ks: sizes from 1 to the number of columns.
        rng: used by `random` only.

    Raises:
        InputError: no such selector for more than two classes, or a size that is not possible.
    """
    if method not in MULTICLASS_SELECTORS:
        raise InputError(
            f"there is no selector {method!r} for more than two classes: choose one of {', '.join(MULTICLASS_SELECTORS)}."
        )
    for k in ks:
        if not 1 <= k <= z.shape[1]:
            raise InputError(f"k = {k} is not possible with {z.shape[1]} columns: k goes from 1 to {z.shape[1]}.")
    task = _Task(z=z, classes=classes, weights=weights, ridge=ridge)
    return MULTICLASS_SELECTORS[method](task, ks, rng)


def _greedy_swap(task: _Task, ks: Sequence[int]) -> Supports:
    state = _State(support=_NONE, fit=task.fit(_NONE))
    supports: Supports = {}
    for size in path_sizes(ks):
        state = _larger(task, state, size - len(state.support))
        if size <= ONE_BY_ONE or size in ks:
            state = _swapped(task, state)
        if size in ks:
            supports[size] = np.sort(state.support)
    return supports


def _moves(task: _Task, state: _State) -> tuple[Float[np.ndarray, "column class"], Float[np.ndarray, "column class"]]:
    """Gradient and curvature of each column's coefficients, one per class; what columns and classes share is ignored."""
    eta = task.z[:, state.support].astype(np.float64) @ state.fit.coefficients.T + state.fit.intercepts
    chance = softmax(eta, axis=1)
    pull = (task.weights[:, None] * chance - task.shares()).astype(np.float32)
    spread = (task.weights[:, None] * chance * (1.0 - chance)).astype(np.float32)
    shape = (task.z.shape[1], chance.shape[1])
    gradient, curvature = np.empty(shape), np.empty(shape)
    for at in range(0, shape[0], BLOCK):
        part = task.z[:, at : at + BLOCK].T
        gradient[at : at + BLOCK] = part @ pull
        curvature[at : at + BLOCK] = part**2 @ spread
    return gradient, curvature + task.ridge


def _gain(task: _Task, state: _State, banned: Int[np.ndarray, " _"]) -> Float[np.ndarray, " column"]:
    """What the quadratic model promises for each column; below 0 for those that cannot come."""
    gradient, curvature = _moves(task, state)
    gain = (gradient**2 / (2.0 * curvature)).sum(axis=1)
    gain[state.support] = gain[banned] = -1.0
    return gain


def _with(task: _Task, state: _State, columns: Int[np.ndarray, " _"]) -> _State:
    """The support with these columns, fitted."""
    support = np.append(state.support, columns)
    start = np.column_stack([state.fit.coefficients, np.zeros((len(state.fit.coefficients), len(columns)))])
    return _State(support=support, fit=task.fit(support, _started(state.fit, start)))


def _larger(task: _Task, state: _State, step: int) -> _State:
    """The support with `step` more columns; a single one is the best of the four that promise most."""
    order = np.argsort(-_gain(task, state, _NONE), kind="stable")
    if step > 1:
        return _with(task, state, order[:step])
    best = order[: min(TRIED, len(order) - len(state.support))]
    return min((_with(task, state, best[i : i + 1]) for i in range(len(best))), key=_objective)


def _swapped(task: _Task, state: _State) -> _State:
    """Exchange one of the four cheapest members for another column as long as that improves the objective."""
    if len(state.support) == task.z.shape[1]:
        return state
    for _ in range(SWAPS if len(state.support) <= ONE_BY_ONE else SWAPS // 4):
        better = _exchanged(task, state)
        if better is None:
            return state
        state = better
    return state


def _exchanged(task: _Task, state: _State) -> _State | None:
    """The best of the four exchanges that promise most, if it improves the objective."""
    curvature = _moves(task, state)[1][state.support]
    loss = (state.fit.coefficients.T**2 * curvature).sum(axis=1)
    smaller, expected = [], []
    for member in np.argsort(loss, kind="stable")[:TRIED]:
        kept = np.delete(np.arange(len(state.support)), member)
        start = _started(state.fit, state.fit.coefficients[:, kept])
        rest = _State(support=state.support[kept], fit=task.fit(state.support[kept], start))
        gain = _gain(task, rest, state.support[member : member + 1])
        smaller.append(rest)
        expected.append(np.where(gain < 0, np.inf, rest.fit.objective - gain))
    table = np.stack(expected)
    order = np.argsort(table, axis=None, kind="stable")[:TRIED]
    moves = zip(*np.unravel_index(order[np.isfinite(table.ravel()[order])], table.shape), strict=True)
    best = min((_with(task, smaller[m], np.array([column])) for m, column in moves), key=_objective)
    return best if best.fit.objective < state.fit.objective * (1 - LEAST_GAIN) else None


def _objective(state: _State) -> float:
    return state.fit.objective


def _started(fit: MultinomialFit, coefficients: Float[np.ndarray, "class column"]) -> MultinomialFit:
    """A point to begin from: the fit with other columns."""
    return MultinomialFit(
        coefficients=coefficients,
        intercepts=fit.intercepts,
        objective=fit.objective,
        gradient_norm=fit.gradient_norm,
        iterations=0,
    )


def _matching_pursuit(task: _Task, ks: Sequence[int]) -> Supports:
    state = _State(support=_NONE, fit=task.fit(_NONE))
    supports: Supports = {}
    for k in range(1, max(ks) + 1):
        gradient = (_moves(task, state)[0] ** 2).sum(axis=1)
        gradient[state.support] = -1.0
        state = _with(task, state, np.argmax(gradient, keepdims=True))
        if k in ks:
            supports[k] = np.sort(state.support)
    return supports


def _recursive_elimination(task: _Task, ks: Sequence[int]) -> Supports:
    supports: Supports = {}
    columns = np.arange(task.z.shape[1])
    fit = task.fit(columns)
    for k in sorted(set(ks), reverse=True):
        while len(columns) > k:
            size = (fit.coefficients**2).sum(axis=0)
            count = max(k, int(len(columns) * (1 - ELIMINATED)))
            kept = np.sort(np.argsort(-size, kind="stable")[:count])
            columns = columns[kept]
            fit = task.fit(columns, _started(fit, fit.coefficients[:, kept]))
        supports[k] = columns
    return supports


def _by_difference(task: _Task, ks: Sequence[int]) -> Supports:
    inside = task.shares()
    outside = task.weights[:, None] - inside
    contrast = inside / inside.sum(axis=0) - outside / outside.sum(axis=0)
    return top_by_score(np.abs(contrast.T.astype(np.float32) @ task.z).max(axis=0).astype(np.float64), ks)


MULTICLASS_SELECTORS: dict[str, Callable[[_Task, Sequence[int], np.random.Generator], Supports]] = {
    "greedy_swap": lambda task, ks, _: _greedy_swap(task, ks),
    "orthogonal_matching_pursuit": lambda task, ks, _: _matching_pursuit(task, ks),
    "recursive_elimination": lambda task, ks, _: _recursive_elimination(task, ks),
    "mean_difference": lambda task, ks, _: _by_difference(task, ks),
    "random": lambda task, ks, rng: at_random(task.z.shape[1], ks, rng),
}
"""Name -> selector for more than two classes; the first one is the default."""
