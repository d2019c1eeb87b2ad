"""A stretch of the exact search in compiled code: depth first below one node, with one quadratic model of the loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparse_probing.compiled import compiled, compiled_sums
from sparse_probing.selection.k_support import FREE, INSIDE, OUT, minimise_model, penalty, shares
from sparse_probing.selection.relaxation import bound_of, error_of, fix_columns
from sparse_probing.selection.rows import balanced_point, predict, product

MODEL_STEPS = 30
ONE_BY_ONE = 6
"""So many candidates for a last free choice are tried one by one: each needs the chosen columns only, not a relaxation."""
CANDIDATES = 10
"""Columns, the largest shares first, among which a node chooses what to branch on."""
LEAST_SHARE = 0.02
HALVINGS = 10
RETRIES = 2
"""Further Newton steps of a relaxation that reaches the goal with its value, but not yet with its bound."""
POLISH = 4
"""Newton steps of a full support whose bound does not reach the goal at once; then it is given back, to be fitted with care."""


class Rows(NamedTuple):
    """What the loss needs to know of each row."""

    kind: int
    target: np.ndarray
    weights: np.ndarray
    reach: float
    """Largest |z|."""


class Branches(NamedTuple):
    """Nodes of the tree in the order of their making; the first is the one that was given, and has its dual point already."""

    column: np.ndarray
    """Pool column that a node branches on; -1 for a leaf, or a node that is left open."""
    side_in: np.ndarray
    side_out: np.ndarray
    start: np.ndarray
    """First entry of a node's dual point."""
    entries: np.ndarray
    """Its entries; -1 where a node has no point of its own."""
    intercept: np.ndarray
    entry_column: np.ndarray
    entry_coefficient: np.ndarray


class Open(NamedTuple):
    """Nodes that are left to expand."""

    record: np.ndarray
    lower: np.ndarray
    state: np.ndarray
    theta: np.ndarray


@compiled_sums
def _newton(
    x: np.ndarray, columns: np.ndarray, bend: np.ndarray, pull: np.ndarray, ridge: float, theta: np.ndarray
) -> np.ndarray:
    """One exact Newton step of the probe on these columns; theta is theirs, and the intercept."""
    m, n = len(columns), len(pull)
    hessian, gradient = np.zeros((m + 1, m + 1)), np.zeros(m + 1)
    for i in range(n):
        hessian[m, m] += bend[i]
        gradient[m] -= pull[i]
    hessian[m, m] += 1e-12
    for a in range(m):
        row = x[columns[a]]
        total, pulled = 0.0, 0.0
        for i in range(n):
            total += bend[i] * np.float64(row[i])
            pulled += pull[i] * np.float64(row[i])
        hessian[a, m] = hessian[m, a] = total
        gradient[a] = ridge * theta[a] - pulled
        for b in range(a + 1):
            other, total = x[columns[b]], 0.0
            for i in range(n):
                total += bend[i] * np.float64(row[i]) * np.float64(other[i])
            hessian[a, b] = hessian[b, a] = total
        hessian[a, a] += ridge
    return theta - np.linalg.solve(hessian, gradient)


@compiled
def _at(
    x: np.ndarray,
    rows: Rows,
    columns: np.ndarray,
    theta: np.ndarray,
    role: np.ndarray,
    wanted: int,
    ridge: float,
    eta: np.ndarray,
    pull: np.ndarray,
    bend: np.ndarray,
) -> tuple[float, float, float]:
    """The relaxation's value, the dual point's intercept and its sum of |pull| at theta.

    Rounds the coefficients as they are stored and shifts the intercept so that the pulls balance; fills eta, pull and bend.
    """
    m = len(columns)
    for j in range(m):
        theta[j] = np.float64(np.float32(theta[j]))
    predict(x, columns, theta, eta)
    shift, loss, lines, gross = balanced_point(rows.kind, eta, rows.target, rows.weights, pull, bend)
    theta[m] += shift
    return loss + ridge * penalty(theta, role, wanted), lines, gross


@compiled
def _choose(
    hessian: np.ndarray,
    linear: np.ndarray,
    role: np.ndarray,
    theta: np.ndarray,
    z: np.ndarray,
    wanted: int,
    ridge: float,
    short: float,
    without: np.ndarray,
    within: np.ndarray,
    default: int,
) -> int:
    """The column to branch on: the one whose two sides are expected to gain most, as a product, counted up to what is missing.

    The model is minimised on both sides once per column and search; later nodes scale what was found, the side without by the
    square of the coefficient, the side with by the square of the missing share, as the penalty grows.
    """
    ranked = np.argsort(-np.where(role == FREE, z, -1.0))
    at, best, base, value = default, -1.0, theta, np.nan
    for j in ranked[:CANDIDATES]:
        if role[j] != FREE or z[j] < LEAST_SHARE:
            break
        size, missing = max(theta[j] ** 2, 1e-12), max((1.0 - z[j]) ** 2, 1e-4)
        if without[j] < 0.0:
            if np.isnan(value):
                base = theta.copy()
                value = minimise_model(hessian, linear, role, base, wanted, ridge, MODEL_STEPS)
            trial = base.copy()
            role[j] = OUT
            without[j] = (
                max(minimise_model(hessian, linear, role, trial, wanted, ridge, MODEL_STEPS) - value, 0.0) / size
            )
            trial = base.copy()
            role[j] = INSIDE
            within[j] = (
                max(minimise_model(hessian, linear, role, trial, wanted - 1, ridge, MODEL_STEPS) - value, 0.0) / missing
            )
            role[j] = FREE
        gains = min(without[j] * size, short), min(within[j] * missing, short)
        score = max(gains[0], 1e-9) * max(gains[1], 1e-9)
        if score > best:
            at, best = j, score
    return at


@compiled
def dive(
    x: np.ndarray,
    rows: Rows,
    ridge: float,
    k: int,
    goal: float,
    universe: np.ndarray,
    hessian: np.ndarray,
    first_state: np.ndarray,
    first_theta: np.ndarray,
    first_lower: float,
    budget: int,
    gains: np.ndarray,
) -> tuple[Branches, Open, np.ndarray, np.ndarray, int]:
    """Expand a node until nothing below it has a bound under `goal`, or the budget is spent.

    Children are solved when they are made: one Newton step of the relaxation from their parent, with the model of the first node,
    then the bound of the dual point that comes out, over all columns of the node, in float64.

    Args:
        x: columns of the pool, one per row of the array.
        rows: kind of the loss, targets, weights.
        ridge: of the problem.
        k: size of the support.
        goal: nodes whose bound reaches it are done with.
        universe: pool columns that are in or free here, and those that are out but have a coefficient in the node's dual point;
            the first of them make up the model.
        hessian: of the model's columns and the intercept.
        first_state: of each column of the universe.
        first_theta: coefficients of the model's columns, float32 values, and the intercept.
        first_lower: bound of the node.
        budget: children to make, at most.
        gains: what branching on each pool column brings on its two sides, learnt so far and filled in; see `_choose`.

    Returns:
        The nodes made; those left open; numbers and supports (pool columns) of leaves with a full support whose bound does not
        reach the goal; and the number of bounds taken.
    """
    kind, target, weights = rows.kind, rows.target, rows.weights
    n, m, f = len(target), len(hessian) - 1, len(universe)
    room, here = budget + 4, universe[:m]
    column, side_in, side_out = np.full(room, -1), np.full(room, -1), np.full(room, -1)
    start, count, intercept = np.zeros(room, np.int64), np.full(room, -1), np.zeros(room)
    entry_column, entry_coefficient, entries = np.empty(room * 32 + m, np.int64), np.empty(room * 32 + m), 0
    stack_state, stack_theta, stack_pull = np.empty((room, f), np.uint8), np.empty((room, m + 1)), np.empty((room, m))
    stack_lower, stack_record, top = np.empty(room), np.empty(room, np.int64), 0
    left_state, left_theta = np.empty((room, f), np.uint8), np.empty((room, m + 1))
    left_lower, left_record, n_left = np.empty(room), np.empty(room, np.int64), 0
    complete, members, n_complete = np.empty(room, np.int64), np.empty((room, k), np.int64), 0
    eta, pull, bend = np.empty(n), np.empty(n), np.empty(n)
    products, squares = np.zeros(f), np.zeros(f)

    # the given node once more: pulls, and columns that the present goal decides; its point is the one it was made with
    state, theta = first_state.copy(), first_theta.copy()
    predict(x, here, theta, eta)
    shift, _, lines, gross = balanced_point(kind, eta, target, weights, pull, bend)
    theta[m] += shift
    for j in range(f):
        products[j] = product(x[universe[j]], pull)
        squares[j] = products[j] ** 2
    bound, last, following = bound_of(lines, squares, state, k, ridge, error_of(gross, rows.reach, n))
    fix_columns(bound, last, following, squares, state, k, ridge, goal)
    for j in range(m):
        if theta[j] != 0.0:
            entry_column[entries], entry_coefficient[entries] = here[j], theta[j]
            entries += 1
    intercept[0], count[0], records, taken = theta[m], entries, 1, 1
    bound = max(bound, first_lower)
    if bound < goal:
        stack_state[0], stack_theta[0], stack_pull[0] = state, theta, products[:m]
        stack_lower[0], stack_record[0], top = bound, 0, 1

    linear, role = np.empty(m + 1), np.empty(m, np.uint8)
    without, within = gains[0][here], gains[1][here]
    while top > 0:
        top -= 1
        state, theta, pulls = stack_state[top].copy(), stack_theta[top].copy(), stack_pull[top].copy()
        lower, parent = stack_lower[top], stack_record[top]
        wanted, free, known = k, 0, True
        for j in range(f):
            if state[j] == INSIDE:
                wanted -= 1
                known = known and j < m
            elif state[j] == FREE:
                free += 1
        role[:] = state[:m]
        z = shares(theta, role, wanted)
        at, most = -1, -1.0
        for j in range(m):
            worth = z[j] + 1e-6 * abs(pulls[j])
            if role[j] == FREE and worth > most:
                at, most = j, worth
        if at < 0 or not known or records + 2 > room:  # the model lacks what is needed, or the budget is spent
            left_state[n_left], left_theta[n_left] = state, theta
            left_lower[n_left], left_record[n_left] = lower, parent
            n_left += 1
            continue
        linear[:] = hessian @ theta
        linear[:m] += pulls
        at = _choose(hessian, linear, role, theta, z, wanted, ridge, goal - lower, without, within, at)
        column[parent], side_out[parent], side_in[parent] = universe[at], records, records + 1
        records += 2
        for side in range(2):
            record = side_out[parent] if side == 0 else side_in[parent]
            left = free - 1
            if side == 0 and left < wanted:
                continue  # no support of k columns is left there
            child, new = state.copy(), theta.copy()
            child[at] = OUT if side == 0 else INSIDE
            if side == 0 and wanted == 1 and left <= ONE_BY_ONE:
                new[at] = 0.0
                stack_state[top], stack_theta[top], stack_pull[top] = child, theta, pulls
                stack_lower[top], stack_record[top] = lower, record
                top += 1
                continue
            full = side == 1 and wanted == 1
            if full:
                for j in range(f):
                    if child[j] == FREE:
                        child[j] = OUT
            role[:] = child[:m]
            minimise_model(hessian, linear, role, new, wanted - side, ridge, MODEL_STEPS)
            bound, stale, base_value = -np.inf, False, np.inf
            for attempt in range(POLISH if full else 1 + RETRIES):
                if not np.isfinite(new).all():
                    break
                if attempt > 0 and full:
                    inside = np.flatnonzero(role == INSIDE)
                    some = np.append(inside, m)
                    new[some] = _newton(x, here[inside], bend, pull, ridge, new[some])
                elif attempt > 0:
                    again = hessian @ new
                    again[:m] += products[:m]
                    minimise_model(hessian, again, role, new, wanted - side, ridge, MODEL_STEPS)
                value, lines, gross = _at(x, rows, here, new, role, wanted - side, ridge, eta, pull, bend)
                if not stale and not value - goal <= goal - lower:
                    # Far above all that is asked: the model is no longer true here. Back towards the parent's point, as far
                    # as it is possible here, until that is no better; and the node gets a model of its own.
                    stale, base = True, theta.copy()
                    for j in range(m):
                        if role[j] == OUT or (full and role[j] == FREE):
                            base[j] = 0.0
                    base_value, _, _ = _at(x, rows, here, base, role, wanted - side, ridge, eta, pull, bend)
                    for _ in range(HALVINGS):
                        if value <= base_value:
                            break
                        new[:] = base + 0.5 * (new - base)
                        value, lines, gross = _at(x, rows, here, new, role, wanted - side, ridge, eta, pull, bend)
                    if not value <= base_value:
                        new[:] = base
                    value, lines, gross = _at(x, rows, here, new, role, wanted - side, ridge, eta, pull, bend)
                taken += 1
                for j in range(f):
                    if child[j] == OUT:
                        products[j] = 0.0
                    else:
                        products[j] = product(x[universe[j]], pull)
                    squares[j] = products[j] ** 2
                bound, last, following = bound_of(lines, squares, child, k, ridge, error_of(gross, rows.reach, n))
                if bound >= goal or value < goal or value - bound <= 1e-8 * abs(value) or (stale and not full):
                    break
            if entries + m > len(entry_column):
                entry_column = np.concatenate((entry_column, np.empty_like(entry_column)))
                entry_coefficient = np.concatenate((entry_coefficient, np.empty_like(entry_coefficient)))
            start[record], intercept[record] = entries, new[m]
            for j in range(m):
                if new[j] != 0.0:
                    entry_column[entries], entry_coefficient[entries] = here[j], new[j]
                    entries += 1
            count[record] = entries - start[record]
            if bound >= goal:
                continue
            if full:
                complete[n_complete] = record
                members[n_complete] = universe[child == INSIDE]
                n_complete += 1
                continue
            # with this point's own bound: the better one of the parent says nothing about these u
            fix_columns(bound, last, following, squares, child, k, ridge, goal)
            if stale:
                left_state[n_left], left_theta[n_left] = child, new
                left_lower[n_left], left_record[n_left] = max(bound, lower), record
                n_left += 1
                continue
            stack_state[top], stack_theta[top], stack_pull[top] = child, new, products[:m]
            stack_lower[top], stack_record[top] = max(bound, lower), record
            top += 1
    gains[0][here], gains[1][here] = without, within
    branches = Branches(
        column[:records],
        side_in[:records],
        side_out[:records],
        start[:records],
        count[:records],
        intercept[:records],
        entry_column[:entries],
        entry_coefficient[:entries],
    )
    left_over = Open(left_record[:n_left], left_lower[:n_left], left_state[:n_left], left_theta[:n_left])
    return branches, left_over, complete[:n_complete], members[:n_complete], taken
