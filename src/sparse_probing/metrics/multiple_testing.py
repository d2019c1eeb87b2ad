"""Correction of p values when many features are tested at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjusted p values q: calling all tests with q <= x significant keeps the expected share of false calls at x or below.

    q of the i-th smallest of m values is the smallest p_j m / j with j >= i. Holds for independent and for positively dependent
    tests. A NaN is a test that was not made: it stays NaN and is not counted.

    Args:
        p: p values in any order, each in [0, 1] or NaN.

    Returns:
        q in the order of `p`; it never orders two tests otherwise than `p` does.

    Raises:
        ValueError: a value outside [0, 1].

    Source: Benjamini and Hochberg 1995, *Journal of the Royal Statistical Society B* 57, 289-300.
    """
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p values must lie in [0, 1]")
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    raw = p[order] * len(order) / np.arange(1, len(order) + 1)
    q = np.full(p.shape, np.nan)
    q[order] = np.minimum.accumulate(raw[::-1])[::-1]
    return q
