"""Class-balanced logistic probes of one boolean label: the fit that a sweep makes thousands of times."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from sparse_probing.probes.newton import LinearFit, fit_one
from sparse_probing.probes.weights import balanced_weights


def fit_logistic(
    x: Float[np.ndarray, "row column"],
    positive: Bool[np.ndarray, " row"],
    ridge: float,
    start: LinearFit | None = None,
) -> LinearFit:
    """Balanced logistic regression with a ridge, in float64 to a gradient of 1e-8.

    Args:
        x: standardised columns.
        positive: labels; both classes must be present.
        ridge: weight of `|b|^2 / 2`, above 0.
        start: fit to begin from.

    Raises:
        SolverError: the gradient did not fall below the tolerance.
    """
    return fit_one(x, positive.astype(np.float64), balanced_weights(positive), ridge, start=start)
