"""What units are set to: zero, their mean, values from elsewhere, or a clamp."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparse_probing.activations.token_statistics import UnitStatistics
from sparse_probing.errors import InputError

ZERO, MEAN, RESAMPLE, CLAMP = "zero", "mean", "resample", "clamp"


@dataclass(frozen=True, slots=True)
class Dose:
    """Height of a clamp."""

    text: str
    """As it was given."""
    number: float
    of: str
    """`value`: the number itself. `mean`: times the mean in class. `quantile`: that quantile of the values in class."""

    def level(self, in_class: Float[np.ndarray, " token"]) -> float:
        """The activation that it stands for, given the unit's activations at the tokens of the class.

        Raises:
            InputError: no such token, for a multiple or a quantile.
        """
        if self.of != "value" and not len(in_class):
            raise InputError(
                f"the level {self.text!r} needs tokens in class, and there are none: give a number such as 8."
            )
        values = in_class.astype(np.float64)
        if self.of == "mean":
            return float(self.number * values.mean())
        return float(np.quantile(values, self.number)) if self.of == "quantile" else self.number


def parse_dose(text: str) -> Dose:
    """`8` (a value), `2x` (times the mean in class) or `q0.95` (a quantile of the values in class).

    Raises:
        InputError: anything else, or a number that is not finite.
    """
    found = re.fullmatch(r"(?P<q>q)?(?P<number>[+-]?[\d.]+(?:e[+-]?\d+)?)(?P<x>x)?", text.strip(), re.I)
    try:
        number = float(found["number"]) if found else np.nan
    except ValueError:
        number = np.nan
    if found is None or not np.isfinite(number) or (found["q"] and (found["x"] or not 0 <= number <= 1)):
        raise InputError(
            f"{text!r} is no level for a clamp: give a number such as 8, a multiple of the mean in class such as 2x, or a quantile "
            "in class such as q0.95."
        )
    return Dose(text.strip(), number, "quantile" if found["q"] else "mean" if found["x"] else "value")


def new_values(
    kind: str,
    dose: Dose | None,
    units: Sequence[int],
    statistics: UnitStatistics,
    in_class: Float[np.ndarray, "token unit"],
) -> Float[np.ndarray, "sample unit"]:
    """Values for `Intervention`.

    Args:
        kind: zero, mean, resample or clamp.
        dose: of a clamp.
        units: what is changed; for a placebo its own units.
        statistics: of the layer.
        in_class: activations of the *support's* units at tokens of the class: a placebo is clamped to the same heights.
    """
    if kind == MEAN:
        return statistics.mean[None, list(units)]
    if kind == RESAMPLE:
        return statistics.donors[:, list(units)].astype(np.float64)
    if kind == CLAMP:
        assert dose is not None
        return np.array([[dose.level(in_class[:, i]) for i in range(len(units))]])
    return np.zeros((1, len(units)))
