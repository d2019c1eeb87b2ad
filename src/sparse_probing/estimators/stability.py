"""Would another sample have given other columns?"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import clone, is_classifier

from sparse_probing.errors import InputError
from sparse_probing.metrics.intervals import group_resamples


def selection_stability(
    estimator: Any, X: Any, y: Any, *, groups: Any = None, repeats: int = 50, random_state: int = 0
) -> Float[np.ndarray, " column"]:
    """Share of document resamples in which each column is chosen (Meinshausen & Buehlmann 2010, with bootstrap resamples).

    A copy of the estimator is fitted to each resample, whole documents drawn with replacement, as sample weights. A column near 1
    is chosen whatever the sample; columns that share 1 among them stand in for each other.

    Args:
        estimator: any of this package's, fitted or not; it is left as it is.
        X: array or data frame [row, column].
        y: labels or targets.
        groups: document of each row; each row its own when null.
        repeats: resamples; those that lack a class are drawn again.
        random_state: seed.

    Raises:
        InputError: too few documents of a class to resample, or groups that do not fit the rows.
    """
    labels = np.asarray(y)
    names = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if len(names) != len(labels):
        raise InputError(f"groups has {len(names)} entries for {len(labels)} rows: give the document of each row.")
    rng, member = np.random.default_rng(random_state), np.unique(names, return_inverse=True)[1]
    classes = np.unique(labels) if is_classifier(estimator) or labels.dtype.kind in "bOUS" else None
    chosen: list[np.ndarray] = []
    for _ in range(10 * repeats):
        weight = group_resamples(member, 1, rng)[0]
        if classes is None or len(np.unique(labels[weight > 0])) == len(classes):
            copy: Any = clone(estimator)
            chosen.append(copy.fit(X, y, sample_weight=weight).get_support())
        if len(chosen) == repeats:
            return np.mean(chosen, axis=0)
    raise InputError("most resamples of the documents lack a class: label more documents of the rare class.")
