"""Labels that mean nothing: shuffled ones, and the control task. The same search on them shows what searching alone finds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from sparse_probing.ranking.permutation_null import permuted_labels
from sparse_probing.records import task_rng


def shuffled_labels(
    positive: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    parts: Bool[np.ndarray, " row"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, " row"]:
    """One permutation within each of two parts (train, validation), documents kept together (see `permuted_labels`)."""
    result = positive.copy()
    for part in (parts, ~parts):
        result[part] = permuted_labels(positive[part], groups[part], 1, rng)[0]
    return result


def control_labels(tokens: Int[np.ndarray, " row"], share: float, seed: int, *key: str) -> Bool[np.ndarray, " row"]:
    """A label for each token type, drawn once: every row of that token has it, in every split (Hewitt & Liang 2019).

    A probe that does well on it remembers tokens. Task score minus control score is the *selectivity*.

    Args:
        tokens: token id of each row.
        share: chance of a type to be in class.
        seed: seed of the run.
        key: name of the feature.
    """
    # the n-th draw of a generator does not depend on how many are drawn: the same label in every split
    drawn = task_rng(seed, "control task", *key).random(int(tokens.max(initial=0)) + 1)
    return drawn[tokens] < share
