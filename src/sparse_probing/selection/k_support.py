"""The convex stand-in for "at most k columns" (the squared k-support norm), and the quadratic model that it penalises.

Relaxing `z_j in {0, 1}` in `sum_j b_j^2 / z_j, sum z <= k` to the interval and minimising over z gives half the squared k-support
norm (Argyriou, Foygel, Srebro 2012). Sorted by magnitude, a head of coefficients pays `b^2 / 2` each (z = 1) and the tail pays
`(sum |b|)^2 / (2 (k - head))`: z is shared in proportion to |b|.
"""

from __future__ import annotations

import numpy as np

from sparse_probing.compiled import compiled, compiled_sums

LEAST_DAMPING, TRIES = 1e-8, 12
"""Of the Newton steps, in units of the curvature; raised where a step leads upwards, as with more columns than rows."""
LARGE = 64
"""Equations from which LAPACK is faster than a loop."""
FREE, INSIDE, OUT = 0, 1, 2
"""What a node of the search says about a column."""


@compiled
def head_and_tail(magnitudes: np.ndarray, k: int) -> tuple[int, float]:
    """How many of the largest magnitudes (given in descending order) form the head, and the sum of the others."""
    head = min(k - 1, len(magnitudes))
    tail = 0.0
    for j in range(head, len(magnitudes)):
        tail += magnitudes[j]
    while head > 0 and magnitudes[head - 1] <= tail / (k - head):
        head -= 1
        tail += magnitudes[head]
    return head, tail


@compiled
def _shape(theta: np.ndarray, role: np.ndarray, k: int) -> tuple[float, int, float]:
    """Largest magnitude in the tail's regime (`limit`), size of the head, and the penalty per unit of ridge."""
    free = np.empty(len(role))
    count, penalty = 0, 0.0
    for j in range(len(role)):
        if role[j] == INSIDE:
            penalty += 0.5 * theta[j] ** 2
        elif theta[j] != 0.0:
            free[count] = abs(theta[j])
            count += 1
    if k <= 0:
        return 0.0, 0, penalty
    free = np.sort(free[:count])[::-1]
    head, tail = head_and_tail(free, k)
    for j in range(head):
        penalty += 0.5 * free[j] ** 2
    return tail / (k - head), head, penalty + 0.5 * tail**2 / (k - head)


@compiled
def penalty(theta: np.ndarray, role: np.ndarray, k: int) -> float:
    """Half the squared norm of the columns that are in, plus half the squared k-support norm of the free ones.

    Args:
        theta: coefficients, and the intercept, which costs nothing, at the end; 0 for columns that are out.
        role: `FREE`, `INSIDE` or `OUT` for each column.
        k: how many free columns may be chosen.
    """
    return _shape(theta, role, k)[2]


@compiled
def limit_of(theta: np.ndarray, role: np.ndarray, k: int) -> float:
    """Size above which a free coefficient pays a ridge of its own; times the ridge, the pull above which a zero comes in."""
    return _shape(theta, role, k)[0]


@compiled
def shares(theta: np.ndarray, role: np.ndarray, k: int) -> np.ndarray:
    """The relaxed choice z in [0, 1] of each column."""
    limit = _shape(theta, role, k)[0]
    z = np.ones(len(role))
    for j in range(len(role)):
        if role[j] != INSIDE:
            size = abs(theta[j])
            z[j] = 0.0 if size == 0.0 else 1.0 if size >= limit else size / limit
    return z


@compiled_sums
def _quadratic(
    hessian: np.ndarray, linear: np.ndarray, theta: np.ndarray, live: np.ndarray, product: np.ndarray
) -> float:
    """`theta' H theta / 2 - linear' theta` over the live entries; fills `product` with H theta there."""
    value = 0.0
    for j in live:
        product[j] = 0.0
    for i in live:
        size = theta[i]
        if size != 0.0:
            for j in live:
                product[j] += size * hessian[i, j]
    for j in live:
        value += theta[j] * (0.5 * product[j] - linear[j])
    return float(value)


@compiled_sums
def _solve(matrix: np.ndarray, right: np.ndarray) -> bool:
    """Cholesky in place; the solution replaces `right`. False where the matrix is not positive definite."""
    n = len(right)
    if n > LARGE:
        right[:] = np.linalg.solve(matrix, right)
        return bool(np.isfinite(right).all())
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for t in range(j):
                total -= matrix[i, t] * matrix[j, t]
            if i > j:
                matrix[i, j] = total / matrix[j, j]
            elif total > 0.0:
                matrix[i, i] = np.sqrt(total)
            else:
                return False
        for t in range(i):
            right[i] -= matrix[i, t] * right[t]
        right[i] /= matrix[i, i]
    for i in range(n - 1, -1, -1):
        right[i] /= matrix[i, i]
        for t in range(i):
            right[t] -= matrix[i, t] * right[i]
    return True


@compiled
def minimise_model(
    hessian: np.ndarray, linear: np.ndarray, role: np.ndarray, theta: np.ndarray, k: int, ridge: float, most: int
) -> float:
    """Minimise `theta' H theta / 2 - linear' theta + ridge * penalty(theta)` in place; returns the value.

    Newton on the present pieces of the penalty: head and chosen columns pay a ridge, the tail pays a rank-one quadratic, zeros
    come in where the gradient exceeds the tail's slope. A tail member that changes its sign becomes zero. Steps are damped until
    they lower the value; an early stop is harmless, since any theta gives a valid bound.

    Args:
        hessian: [m + 1, m + 1], the intercept last.
        linear: [m + 1].
        role: [m], `FREE`, `INSIDE` or `OUT`.
        theta: [m + 1], where to begin.
        k: how many free columns may be chosen.
        ridge: weight of the penalty.
        most: steps at most.
    """
    m = len(role)
    live, n_live = np.empty(m + 1, np.int64), 0  # most columns are out deep in a search: nothing below looks at them
    for j in range(m):
        if role[j] == OUT or (k <= 0 and role[j] == FREE):
            theta[j] = 0.0
        else:
            live[n_live] = j
            n_live += 1
    live[n_live] = m
    live = live[: n_live + 1]
    product, new_product = np.zeros(m + 1), np.zeros(m + 1)
    value = _quadratic(hessian, linear, theta, live, product)
    limit, head, cost = _shape(theta, role, k)
    value += ridge * cost
    active, sign, extra = np.empty(n_live + 1, np.int64), np.empty(n_live + 1), np.empty(n_live + 1)
    trial = theta.copy()
    damping, idle = LEAST_DAMPING, 0
    for _ in range(most):
        slope, count = ridge * limit, 0
        for j in live[:-1]:
            if role[j] == INSIDE or abs(theta[j]) > limit:
                active[count], sign[count], extra[count] = j, 0.0, ridge
            elif theta[j] != 0.0:
                active[count], sign[count], extra[count] = j, np.sign(theta[j]), 0.0
            elif abs(linear[j] - product[j]) > slope * (1 + 1e-7) + 1e-13:
                active[count], sign[count], extra[count] = j, np.sign(linear[j] - product[j]), 0.0
            else:
                continue
            count += 1
        active[count], sign[count], extra[count] = m, 0.0, 0.0
        count += 1
        matrix, gradient = np.empty((count, count)), np.empty(count)
        shared = ridge / (k - head) if k > 0 else 0.0
        for a in range(count):
            j = active[a]
            gradient[a] = product[j] - linear[j] + extra[a] * theta[j] + slope * sign[a]
            for b in range(count):
                matrix[a, b] = hessian[j, active[b]] + shared * sign[a] * sign[b]
            matrix[a, a] += extra[a]
        if not np.isfinite(matrix).all() or not np.isfinite(gradient).all():
            return value
        new, new_limit, new_head, flipped = np.inf, limit, head, 0
        for _ in range(TRIES):  # damped steps until one lowers the value
            damped, step = matrix.copy(), gradient.copy()
            for a in range(count):
                damped[a, a] += damping * (hessian[active[a], active[a]] + 1e-3 * ridge)
            if _solve(damped, step):
                flipped = 0
                for a in range(count):
                    j = active[a]
                    trial[j] = theta[j] - step[a]
                    if trial[j] * sign[a] < 0.0:
                        trial[j] = 0.0
                        flipped += 1
                new = _quadratic(hessian, linear, trial, live, new_product)
                new_limit, new_head, new_cost = _shape(trial, role, k)
                new += ridge * new_cost
                if new <= value:
                    break
            damping *= 30.0
        gain = value - new
        if not gain >= 0.0:
            return value
        idle = idle + 1 if gain <= 1e-9 * abs(value) else 0
        theta[:], product[:], limit, head, value = trial, new_product, new_limit, new_head, new
        if idle > 2 or (idle > 0 and flipped == 0):
            return value
        damping = max(damping * 0.1, LEAST_DAMPING)
    return value
