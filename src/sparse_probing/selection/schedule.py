"""The sizes k that a sweep tries."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_probing.errors import InputError

DEFAULT_KS: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64, 128, 256)
"""The paper's schedule for classification (section on the k schedule)."""


def checked_ks(ks: Sequence[int] | None, width: int) -> tuple[int, ...]:
    """The wanted sizes, ascending; the default schedule is cut at the width, an explicit k beyond it is an error.

    Raises:
        InputError: a k below 1 or larger than the number of units.
    """
    if ks is None:
        return tuple(k for k in DEFAULT_KS if k <= width)
    for k in ks:
        if not 1 <= k <= width:
            raise InputError(
                f"k = {k} is not possible: a layer of this model has {width} units, so k goes from 1 to {width}."
            )
    return tuple(sorted(set(ks)))
