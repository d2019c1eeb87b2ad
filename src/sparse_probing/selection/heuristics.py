"""Simple selectors: top of a ranking, at random, recursive elimination, orthogonal matching pursuit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sparse_probing.probes.dense import SharedColumns, fit_dense
from sparse_probing.selection.problem import Problem
from sparse_probing.selection.supports import Supports

ELIMINATED = 0.2
"""Share of the columns that each step of the recursive elimination drops."""
NEWTON_UP_TO = 300
"""Beyond so many columns the elimination fits by conjugate gradients instead of Newton steps."""


def top_by_score(score: Float[np.ndarray, " unit"], ks: Sequence[int]) -> Supports:
    """The k units of largest |score|; ties go to the lower index."""
    order = np.argsort(-np.abs(score), kind="stable")
    return {k: np.sort(order[:k]) for k in ks}


def at_random(width: int, ks: Sequence[int], rng: np.random.Generator) -> Supports:
    """Nested random supports: the baseline for *any k units would do*."""
    order = rng.permutation(width)
    return {k: np.sort(order[:k]) for k in ks}


def recursive_elimination(problem: Problem, ks: Sequence[int]) -> Supports:
    """Fit on all columns, drop the fifth with the smallest |coefficient|, fit again (Guyon et al. 2002). Supports are nested."""
    supports: Supports = {}
    columns = np.arange(problem.width)
    size = np.abs(_dense(problem))
    for k in sorted(set(ks), reverse=True):
        while len(columns) > k:
            count = max(k, int(len(columns) * (1 - ELIMINATED)))
            kept = np.sort(np.argsort(-size, kind="stable")[:count])
            columns = columns[kept]
            many = len(columns) > NEWTON_UP_TO
            size = np.abs(_dense(problem, columns) if many else problem.fit(columns).coefficients)
        supports[k] = columns
    return supports


def _dense(problem: Problem, columns: np.ndarray | None = None) -> np.ndarray:
    z = problem.z if columns is None else np.ascontiguousarray(problem.z[:, columns])
    shared = SharedColumns(x=z, mean=np.zeros((1, z.shape[1])), scale=np.ones((1, z.shape[1])))
    return fit_dense(shared, problem.target[None], problem.weights[None], problem.ridge, problem.loss).coefficients[0]


def orthogonal_matching_pursuit(problem: Problem, ks: Sequence[int]) -> Supports:
    """Add the column with the largest gradient, refit all, repeat (Pati et al. 1993; other losses: Shalev-Shwartz et al. 2010).

    Supports are nested. Cost O(row * column) per added column, and a refit.
    """
    supports: Supports = {}
    chosen = np.array([], dtype=int)
    fit = problem.fit(chosen)
    eta = np.full(len(problem.target), fit.intercept)
    for k in range(1, max(ks) + 1):
        pull = problem.weights * problem.loss.slope(eta, problem.target)
        gradient = np.abs(pull.astype(np.float32) @ problem.z)
        gradient[chosen] = -1.0
        chosen = np.append(chosen, int(np.argmax(gradient)))
        start = (np.append(fit.coefficients, 0.0)[None], np.array([fit.intercept]))
        fit = problem.fit_supports(chosen[None], start)[0]
        eta = problem.z[:, chosen].astype(np.float64) @ fit.coefficients + fit.intercept
        if k in ks:
            supports[k] = np.sort(chosen)
    return supports
