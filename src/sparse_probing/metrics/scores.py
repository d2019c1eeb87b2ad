"""Scores of a binary classifier at a threshold and over all thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

THRESHOLDED = ("f1", "precision", "recall", "mcc", "balanced_accuracy")
RANKING = ("roc_auc", "average_precision")
METRICS = (*THRESHOLDED, *RANKING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Rows of one split as a classifier sees them."""

    score: Float[np.ndarray, " row"]
    """Larger means more likely positive."""
    positive: Bool[np.ndarray, " row"]


def best_f1_threshold(scored: Scored) -> float:
    """Threshold with the largest F1 among the midpoints between neighbouring scores; the lowest one among equals.

    A row is called positive when its score is *above* the threshold.
    """
    order = np.argsort(-scored.score, kind="stable")
    sorted_scores, hits = scored.score[order], np.cumsum(scored.positive[order])
    cut = np.append(sorted_scores[:-1] > sorted_scores[1:], True)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + scored.positive.sum())
    best = int(np.flatnonzero(cut)[np.lexsort((-np.flatnonzero(cut), -f1[cut]))[0]])
    if best == len(sorted_scores) - 1:
        return float(sorted_scores[-1] - max(1.0, abs(sorted_scores[-1])))
    return float(0.5 * (sorted_scores[best] + sorted_scores[best + 1]))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where the denominator is 0: no call of the class is no success."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator, dtype=float), where=denominator > 0)


def counts_to_metrics(
    tp: Float[np.ndarray, ...],
    fp: Float[np.ndarray, ...],
    fn: Float[np.ndarray, ...],
    tn: Float[np.ndarray, ...],
) -> dict[str, Float[np.ndarray, ...]]:
    """Thresholded metrics from confusion counts of any shape (float, so that bootstrap weights work too)."""
    recall, precision = _ratio(tp, tp + fn), _ratio(tp, tp + fp)
    spread = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return {
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "precision": precision,
        "recall": recall,
        "mcc": _ratio(tp * tn - fp * fn, spread),
        "balanced_accuracy": 0.5 * (recall + _ratio(tn, tn + fp)),
    }


def weighted_metrics(
    scored: Scored, threshold: float, weights: Float[np.ndarray, "repeat row"]
) -> dict[str, Float[np.ndarray, " repeat"]]:
    """All metrics under each set of row weights (a bootstrap resample is a set of counts).

    Average precision is the sum of precision times the step in recall, ROC-AUC the Mann-Whitney probability with ties counting
    one half; both group equal scores, as scikit-learn does. Cost O(repeat * row).
    """
    called = scored.score > threshold
    parts = [weights[:, mask].sum(axis=1) for mask in _cells(called, scored.positive)]
    result = counts_to_metrics(*parts)
    order = np.argsort(-scored.score, kind="stable")
    last_of_tie = np.append(scored.score[order][:-1] > scored.score[order][1:], True)
    hits = np.cumsum(weights[:, order] * scored.positive[order], axis=1)[:, last_of_tie]
    misses = np.cumsum(weights[:, order] * ~scored.positive[order], axis=1)[:, last_of_tie]
    new_hits = np.diff(hits, axis=1, prepend=0.0)
    new_misses = np.diff(misses, axis=1, prepend=0.0)
    p, q = hits[:, -1], misses[:, -1]
    result["average_precision"] = _ratio((new_hits * _ratio(hits, hits + misses)).sum(axis=1), p)
    result["roc_auc"] = _ratio((new_misses * (hits - 0.5 * new_hits)).sum(axis=1), p * q)
    return result


def _cells(called: np.ndarray, positive: np.ndarray) -> list[np.ndarray]:
    return [called & positive, called & ~positive, ~called & positive, ~called & ~positive]


def metrics_at(scored: Scored, threshold: float) -> dict[str, float]:
    """All metrics on the rows as they are."""
    table = weighted_metrics(scored, threshold, np.ones((1, len(scored.score))))
    return {name: float(table[name][0]) for name in METRICS}
