"""Lower bounds: the perspective relaxation of "at most k columns", and the bound that any dual point proves.

For pulls `a_i` (minus slopes of the loss, one per row) with `sum_i c_i a_i = 0`, and `u_j = sum_i c_i a_i z_ij`, no support S of k
columns has an objective below `sum_i c_i intercept(a_i) - sum_{j in S} u_j^2 / (2 ridge)`: the loss lies above the lines that touch
it, and the ridge limits what each column can gain along them. The k largest `u_j^2` give the bound for all supports together. The
best such bound is the value of the relaxation with the squared k-support norm in place of the choice (`k_support`), which is solved
here by Newton steps on a working set of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.compiled import compiled
from sparse_probing.selection.k_support import FREE, INSIDE, OUT, limit_of, minimise_model, penalty
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.rows import KINDS, ROUNDING, balanced_point

TOLERANCE = 1e-4
"""Relative distance between the relaxation's value and its bound at which the root is solved."""
FIRST_COLUMNS = 40
"""Columns of the first working set, at least; 2 k + 16 for large k."""
MOST_STEPS = 100
MODEL_STEPS = 60


@compiled
def bound_of(
    intercept: float, squares: np.ndarray, state: np.ndarray, k: int, ridge: float, error: float
) -> tuple[float, float, float]:
    """Lower bound over all supports in a node, rounded down, and the k'-th and next largest free squares.

    Args:
        intercept: of the dual point.
        squares: `u_j^2`.
        state: `FREE`, `INSIDE` or `OUT` for each column.
        k: size of the support.
        ridge: of the problem.
        error: by how much each u may be off, see `error_of`.
    """
    taken, inside, count = 0.0, 0, 0
    free = np.empty(len(state))
    for j in range(len(state)):
        if state[j] == INSIDE:
            taken += squares[j]
            inside += 1
        elif state[j] == FREE:
            free[count] = squares[j]
            count += 1
    wanted = k - inside
    if count < wanted:
        return np.inf, 0.0, 0.0
    last, following = np.inf, 0.0
    if wanted > 0:
        ordered = np.partition(free[:count], count - wanted)
        last = ordered[count - wanted]
        for j in range(count - wanted, count):
            taken += ordered[j]
        following = -1.0
        for j in range(count - wanted):
            following = max(following, ordered[j])
    elif count > 0:
        following = free[:count].max()
    # the sum of k squares of numbers that are off by the error grows by at most 2 * error * sqrt(k * sum) + k * error^2
    gain = (taken + 2.0 * error * np.sqrt(k * taken) + k * error**2) / (2.0 * ridge)
    return intercept - gain - 1e-15 * k * gain, last, following


@compiled
def error_of(gross: float, reach: float, rows: int) -> float:
    """By how much a float64 sum of `pull_i z_ij` over the rows may be off.

    Args:
        gross: sum of |pull|.
        reach: largest |z|.
        rows: number of terms.
    """
    return ROUNDING * rows * gross * reach


@compiled
def fix_columns(
    lower: float,
    last: float,
    following: float,
    squares: np.ndarray,
    state: np.ndarray,
    k: int,
    ridge: float,
    goal: float,
) -> None:
    """Force columns out (in) with which (without which) no support of the node has a bound below `goal`.

    One choice is always left open, so that a node stays something to branch on.
    """
    wanted = k
    for j in range(len(state)):
        if state[j] == INSIDE:
            wanted -= 1
    for j in range(len(state)):
        if state[j] != FREE:
            continue
        if squares[j] < last:
            if lower + (last - squares[j]) / (2.0 * ridge) >= goal:
                state[j] = OUT
        elif wanted > 1 and following >= 0.0 and lower + (squares[j] - following) / (2.0 * ridge) >= goal:
            state[j] = INSIDE
            wanted -= 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relaxed:
    """The relaxation over all columns, solved."""

    lower: float
    """No support of k columns has an objective below; from float64 sums, rounded down."""
    value: float
    """Of the relaxation at `coefficients`, from float32 predictors: right to about 1e-6."""
    columns: Int[np.ndarray, " column"]
    """The working set."""
    coefficients: Float[np.ndarray, " column"]
    """On the working set, float32 values: the dual point can be made again from them."""
    intercept: float
    squares: Float[np.ndarray, " all"]
    """`u_j^2` of every column."""
    reach: float
    """Largest |z|."""

    def rounded(self, k: int) -> Int[np.ndarray, " k"]:
        """The k columns with the largest coefficients; filled up by `u_j^2` where fewer are not zero."""
        score = self.squares / (1.0 + self.squares.max())
        score[self.columns] += 1e6 * np.abs(self.coefficients)
        return np.sort(np.argsort(-score, kind="stable")[:k])


def relax(
    problem: Problem,
    k: int,
    start: Relaxed | None = None,
    excluded: Int[np.ndarray, " _"] | None = None,
    tolerance: float = TOLERANCE,
) -> Relaxed:
    """Solve the relaxation of *at most k columns* to a relative accuracy.

    Cost: about eight passes over the columns; 15 ms for 5,000 rows and 1,536 columns. Memory: the working set.

    Args:
        problem: with a ridge above 0, from which all strength of the bound comes.
        k: from 1 to the number of columns.
        start: solution for another k.
        excluded: columns that must not be chosen.
        tolerance: the bound ends at most so far below the relaxation's value, relatively, if the steps suffice; it is a valid
            bound in any case.
    """
    n, ridge = len(problem.target), problem.ridge
    kind, target = KINDS[problem.loss.name], problem.target.astype(np.float64)
    if start is None:
        columns, theta = np.array([], dtype=np.int64), np.array([problem.fit(np.array([], dtype=int)).intercept])
    else:
        columns, theta = start.columns, np.append(start.coefficients, start.intercept)
    state = np.zeros(problem.width, dtype=np.uint8)
    state[[] if excluded is None else excluded] = OUT
    possible = state[columns] != OUT
    columns, theta = columns[possible], np.append(theta[:-1][possible], theta[-1])
    design = _gathered(problem, columns)
    best: tuple[float, np.ndarray, np.ndarray, float] | None = None
    lowest, eta, pull, bend = np.inf, _predictor(design, theta), np.empty(n), np.empty(n)
    for _ in range(MOST_STEPS):
        shift, loss, lines, gross = balanced_point(kind, eta, target, problem.weights, pull, bend)
        theta[-1] += shift
        role = np.zeros(len(columns), dtype=np.uint8)
        value = loss + ridge * penalty(theta, role, k)
        lowest = min(lowest, value)
        u = (pull.astype(np.float32) @ problem.z).astype(np.float64)
        u[state == OUT] = 0.0
        lower = bound_of(lines, u**2, state, k, ridge, 0.0)[0]
        if best is None or lower > best[0]:
            best = lower, columns, theta.copy(), value
        if lowest - best[0] <= tolerance * abs(lowest):
            break
        columns, theta, design = _working_set(problem, u, columns, theta, design, k, ridge * limit_of(theta, role, k))
        role = np.zeros(len(columns), dtype=np.uint8)
        hessian = gram(design, bend)
        new = theta.copy()
        minimise_model(hessian, hessian @ theta + np.append(u[columns], 0.0), role, new, k, ridge, MODEL_STEPS)
        move, size = _predictor(design, new - theta), 1.0
        while size > 1e-3:
            trial = theta + size * (new - theta)
            trial_loss = float(problem.loss.value(eta + size * move, target) @ problem.weights)
            if trial_loss + ridge * penalty(trial, role, k) <= value * (1 + 1e-12):
                break
            size *= 0.5
        theta, eta = theta + size * (new - theta), eta + size * move
    assert best is not None
    _, columns, theta, value = best
    # the bound once more, from coefficients as they are stored, with float64 products
    theta[:-1] = theta[:-1].astype(np.float32)
    eta = problem.z[:, columns].astype(np.float64) @ theta[:-1] + theta[-1]
    shift, _, lines, gross = balanced_point(kind, eta, target, problem.weights, pull, bend)
    squares = column_products(problem.z, pull) ** 2
    reach = max(float(problem.z.max(initial=0.0)), -float(problem.z.min(initial=0.0)))
    lower, _, _ = bound_of(lines, squares, state, k, ridge, error_of(gross, reach, n))
    squares[state == OUT] = 0.0
    return Relaxed(
        lower=float(lower),
        value=float(value),
        columns=columns,
        coefficients=theta[:-1],
        intercept=float(theta[-1] + shift),
        squares=squares,
        reach=reach,
    )


def _working_set(
    problem: Problem,
    u: np.ndarray,
    columns: np.ndarray,
    theta: np.ndarray,
    design: np.ndarray,
    k: int,
    slope: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drop zeros that are far from coming in, add the columns with the largest pull that are not there yet."""
    size = np.abs(u)
    kth = np.partition(size, -k)[-k]
    floor = kth if slope == 0.0 else min(kth, slope)
    keep = (theta[:-1] != 0) | (size[columns] > 0.7 * floor)
    outside = size.copy()
    outside[columns] = -1.0  # an excluded column has u = 0 and stays below every limit
    room = max(FIRST_COLUMNS, 2 * k + 16, len(columns))
    wanted = np.argsort(-outside, kind="stable")[: min(room, len(outside) - len(columns))]
    wanted = wanted[(outside[wanted] > 0.9 * floor) & (outside[wanted] > 0.0)]
    if keep.all() and not len(wanted):
        return columns, theta, design
    design = np.concatenate([design[keep], _gathered(problem, wanted)])
    columns = np.concatenate([columns[keep], wanted])
    theta = np.concatenate([theta[:-1][keep], np.zeros(len(wanted)), theta[-1:]])
    return columns, theta, design


def _gathered(problem: Problem, columns: np.ndarray) -> Float[np.ndarray, "column row"]:
    return np.ascontiguousarray(problem.z[:, columns].T)


def _predictor(design: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return (theta[:-1].astype(np.float32) @ design).astype(np.float64) + theta[-1]


def gram(design: Float[np.ndarray, "column row"], curvature: Float[np.ndarray, " row"]) -> Float[np.ndarray, "m1 m1"]:
    """Curvature of the loss in the columns and the intercept (last); float32 products, it only steers."""
    root = np.sqrt(curvature).astype(np.float32)
    scaled = design * root
    m = len(design)
    result = np.empty((m + 1, m + 1))
    result[:m, :m] = scaled @ scaled.T
    result[m, :m] = result[:m, m] = scaled @ root
    result[m, m] = curvature.sum() + 1e-12
    return result


def column_products(
    z: Float[np.ndarray, "row column"], pull: Float[np.ndarray, " row"]
) -> Float[np.ndarray, " column"]:
    """`pull @ z` in float64, in tiles of rows."""
    result = np.zeros(z.shape[1])
    tile = max(1, (1 << 20) // max(1, z.shape[1]))
    for at in range(0, len(z), tile):
        result += pull[at : at + tile] @ np.asarray(z[at : at + tile], dtype=np.float64)
    return result


def relaxation_path(problem: Problem, ks: Sequence[int], tolerance: float = TOLERANCE) -> dict[int, Relaxed]:
    """The relaxation for several k, each begun from the one before."""
    found: dict[int, Relaxed] = {}
    last = None
    for k in sorted(set(ks)):
        found[k] = last = relax(problem, k, last, tolerance=tolerance)
    return found
