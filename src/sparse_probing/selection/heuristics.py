"""Supports of size k by ranking, by the paper's shrinking elastic net, and at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from sparse_probing.errors import SolverError
from sparse_probing.probes.logistic import balanced_weights

Supports = dict[int, Int[np.ndarray, " _"]]
"""k -> chosen columns, ascending."""

STEP_TOLERANCE = 1e-5
"""Elastic net: largest change of a coefficient in a proximal step, relative to the largest coefficient. The coefficients only order
units; two units that differ by less than this are equally good."""
MOST_STEPS = 20_000


def top_by_score(score: Float[np.ndarray, " unit"], ks: Sequence[int]) -> Supports:
    """The k units of largest |score|; ties go to the lower index."""
    order = np.argsort(-np.abs(score), kind="stable")
    return {k: np.sort(order[:k]) for k in ks}


def at_random(width: int, ks: Sequence[int], rng: np.random.Generator) -> Supports:
    """Nested random supports: the baseline for *any k units would do*."""
    order = rng.permutation(width)
    return {k: np.sort(order[:k]) for k in ks}


def shrinking_elastic_net(
    x: Float[np.ndarray, "row unit"],
    positive: Bool[np.ndarray, " row"],
    score: Float[np.ndarray, " unit"],
    ks: Sequence[int],
) -> Supports:
    """The paper's adaptive thresholding: fit, keep the largest coefficients, fit again on fewer columns.

    Begins with the `max(ks)` units of largest |score|. For each k from large to small: keep the k columns of largest
    |coefficient| of the previous fit, then fit an elastic-net logistic regression on them with C = k/20 and
    l1_ratio = clip(exp(-k/20), 0.1, 0.9). Supports are nested. Source: paper, section on feature selection
    (`telescopic_sparsity_sweep` in its repository); its columns have standard deviation 0.1, and so have ours here.

    Args:
        x: standardised columns (mean 0, standard deviation 1) of the training rows.
        positive: labels.
        score: ranking that chooses the first support.
        ks: sizes wanted.
    """
    ks = sorted(set(ks), reverse=True)
    columns = top_by_score(score, [ks[0]])[ks[0]]
    coefficients = np.abs(score[columns])
    intercept, warm = 0.0, np.zeros(len(columns))
    supports: Supports = {}
    for k in ks:
        kept = np.sort(np.argsort(-np.abs(coefficients), kind="stable")[:k])
        columns, warm = columns[kept], warm[kept]
        supports[k] = columns
        if k == ks[-1]:
            break
        strength = 20.0 / k
        l1_ratio = float(np.clip(np.exp(-k / 20.0), 0.1, 0.9))
        warm, intercept = fit_elastic_net(0.1 * x[:, columns], positive, strength, l1_ratio, (warm, intercept))
        # columns that the penalty emptied are ordered by their ranking score, behind all others
        coefficients = np.where(warm != 0, 1.0 + np.abs(warm), np.abs(score[columns]) / (1.0 + np.abs(score).max()))
    return supports


def fit_elastic_net(
    x: Float[np.ndarray, "row column"],
    positive: Bool[np.ndarray, " row"],
    strength: float,
    l1_ratio: float,
    start: tuple[Float[np.ndarray, " column"], float],
) -> tuple[Float[np.ndarray, " column"], float]:
    """Minimise `sum_i n c_i loss_i + strength * (l1_ratio |b|_1 + (1 - l1_ratio)/2 |b|^2)`, intercept free.

    scikit-learn's `LogisticRegression(C=1/strength, l1_ratio=l1_ratio, class_weight="balanced")` in other words. Accelerated
    proximal gradient with restart; the intercept is a column of its own scale, without penalty.
    """
    n, k = x.shape
    scale = 0.3  # of the intercept's column: near the size of the others, so that one step length suits all
    design = np.column_stack([np.asarray(x, dtype=np.float64), np.full(n, scale)])
    weights = n * balanced_weights(positive)
    target = positive.astype(np.float64)
    lipschitz = 0.25 * _largest_eigenvalue(design, weights) + strength * (1.0 - l1_ratio)
    l1 = np.append(np.full(k, strength * l1_ratio / lipschitz), 0.0)
    l2 = np.append(np.full(k, strength * (1.0 - l1_ratio)), 0.0)
    beta = np.append(start[0], start[1] / scale)
    look, momentum = beta.copy(), 1.0
    for _ in range(MOST_STEPS):
        gradient = design.T @ (weights * (expit(design @ look) - target)) + l2 * look
        trial = look - gradient / lipschitz
        trial = np.sign(trial) * np.maximum(np.abs(trial) - l1, 0.0)
        change = trial - beta
        if np.abs(trial - look).max() <= STEP_TOLERANCE * max(1e-3, float(np.abs(trial).max())):
            return trial[:k], float(scale * trial[k])
        if (look - trial) @ change > 0:  # momentum points uphill: start it afresh
            momentum, look = 1.0, trial.copy()
        else:
            following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
            look = trial + (momentum - 1.0) / following * change
            momentum = following
        beta = trial
    raise SolverError(f"elastic net on {k} columns did not settle within {MOST_STEPS} steps.")


def _largest_eigenvalue(design: np.ndarray, weights: np.ndarray) -> float:
    gram = design.T @ (weights[:, None] * design)
    return float(np.linalg.eigvalsh(gram)[-1])
