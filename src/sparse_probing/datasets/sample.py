"""Which candidate rows a feature gets: how many, and which share of positives."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from sparse_probing.datasets.rules import SamplingRules


def sample_rows(
    positive: Bool[np.ndarray, " row"],
    negative: Bool[np.ndarray, " row"],
    hard: Bool[np.ndarray, " row"],
    rules: SamplingRules,
) -> Int[np.ndarray, " chosen"]:
    """Rows of one feature among tokens or spans in random order: the first ones of each class.

    Args:
        positive: rows of the class.
        negative: rows that may be its negatives.
        hard: negatives that half of the chosen ones should be; none marked: all negatives are alike.
        rules: rows, share of positives.
    """
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(negative)
    most = len(positives) + len(negatives) if rules.max_rows is None else rules.max_rows
    found = len(positives) / max(1, len(positives) + len(negatives))
    share = {"natural": found, "balanced": 0.5}.get(
        rules.sampling, float(np.clip(found, rules.positive_share, rules.most_positive))
    )
    positives = positives[: round(share * most)]
    if rules.sampling != "filled" and share < 1:  # negatives may be too few for their share
        positives = positives[: round(len(negatives) * share / (1 - share))]
    if rules.sampling == "filled":
        wanted = most - len(positives)
    elif len(positives):
        wanted = min(round(len(positives) / share), most) - len(positives)
    else:
        wanted = 0
    first = np.flatnonzero(negative & hard)[: wanted // 2]
    rest = np.setdiff1d(negatives, first, assume_unique=True)
    return np.concatenate([positives, first, rest[: wanted - len(first)]])


def sample_documents(
    positive: Bool[np.ndarray, "row feature"],
    eligible: Bool[np.ndarray, "row feature"],
    rules: SamplingRules,
    rng: np.random.Generator,
) -> Bool[np.ndarray, "row feature"]:
    """All labelled documents, or with `balanced` sampling as many negatives as positives."""
    if rules.sampling != "balanced":
        return eligible
    order = rng.permutation(len(positive))
    kept = np.zeros_like(eligible)
    for f in range(positive.shape[1]):
        classes = [order[(positive[order, f] == side) & eligible[order, f]] for side in (True, False)]
        for rows in classes:
            kept[rows[: min(len(c) for c in classes)], f] = True
    return kept
