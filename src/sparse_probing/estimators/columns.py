"""What all estimators share: reading a matrix and its rows, columns that cannot be used, the chosen columns as a transformer."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,  # pyright: ignore[reportPrivateImportUsage]
    check_is_fitted,
    validate_data,
)

from sparse_probing.errors import InputError
from sparse_probing.probes.weights import row_weights

FEW_ROWS = 20
"""Below so many rows of positive weight a fit warns."""
FLOATS = [np.float64, np.float32, np.float16]
"""Types that are read as they are; everything else becomes the first. Sums are float64 in any case."""
TILE = 1_024
"""Columns that are checked at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """What a fit sees: rows of positive weight only."""

    x: Float[np.ndarray, "row column"]
    y: Shaped[np.ndarray, " row"]
    weight: Float[np.ndarray, " row"]
    """Positive; 1 where none was given."""
    kept: Int[np.ndarray, " row"]
    """Their places among the rows that were given."""
    usable: Int[np.ndarray, " usable"]
    """Columns without NaN and infinity."""


class ColumnSelector(SelectorMixin, BaseEstimator):
    """Base of the estimators: `support_` as a scikit-learn feature selector."""

    bad_columns: str
    support_: Int[np.ndarray, " k"]
    n_features_in_: int
    n_dropped_columns_: int

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = self.bad_columns == "drop"
        return tags

    def _get_support_mask(self) -> Any:
        check_is_fitted(self)
        mask = np.zeros(self.n_features_in_, dtype=bool)
        mask[self.support_] = True
        return mask

    def _read(self, x: Any, y: Any, sample_weight: Any = None, *, y_numeric: bool = False) -> Rows:
        """The data of a fit, checked; sets `n_features_in_`, `feature_names_in_` and `n_dropped_columns_`."""
        one_of("bad_columns", self.bad_columns, ("error", "drop"))
        x, y = validate_data(self, x, y, dtype=FLOATS, ensure_all_finite=False, y_numeric=y_numeric)
        if not y_numeric:
            check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, x, dtype=np.float64)
        row_weights(weight, weight, balance_classes=False)  # complains about negative ones
        kept = np.flatnonzero(weight)
        if len(kept) < len(x):
            x, y, weight = x[kept], y[kept], weight[kept]
        if len(x) < FEW_ROWS:
            warnings.warn(
                f"{type(self).__name__} is fitted on {len(x)} rows: what a probe finds in fewer than {FEW_ROWS} is mostly luck.",
                UserWarning,
                stacklevel=3,
            )
        bad = bad_columns(x)
        if len(bad) and self.bad_columns == "error":
            raise InputError(self._complaint(bad) + ' Clean them, or leave them out with bad_columns="drop".')
        self.n_dropped_columns_ = len(bad)
        return Rows(x=x, y=y, weight=weight, kept=kept, usable=np.setdiff1d(np.arange(x.shape[1]), bad))

    def _chosen_columns(self, x: Any) -> Float[np.ndarray, "row k"]:
        """The support of new rows, in float64."""
        check_is_fitted(self)
        x = validate_data(self, x, dtype=FLOATS, ensure_all_finite=False, reset=False)
        asked = self.support_ if self.bad_columns == "drop" else np.arange(x.shape[1])
        bad = asked[bad_columns(x if len(asked) == x.shape[1] else x[:, asked])]
        if len(bad):
            raise InputError(self._complaint(bad) + " Clean them before you predict.")
        return x[:, self.support_].astype(np.float64)

    def _complaint(self, bad: np.ndarray) -> str:
        names = getattr(self, "feature_names_in_", None)
        listed = ", ".join(str(j) if names is None else repr(names[j]) for j in bad[:5].tolist())
        others = f" and {len(bad) - 5} others" if len(bad) > 5 else ""
        return f"NaN or infinity in {len(bad)} of {self.n_features_in_} columns: {listed}{others}."

    def _checked_k(self, k: Any, rows: Rows) -> int:
        """A size that the usable columns allow.

        Raises:
            InputError: it is none.
        """
        width = rows.x.shape[1]
        if not isinstance(k, numbers.Integral) or not 1 <= int(k) <= len(rows.usable):
            bad = f", of which {self.n_dropped_columns_} hold NaN or infinity" if self.n_dropped_columns_ else ""
            raise InputError(
                f"k = {k!r} is not possible: n_features = {width}{bad}, so k goes from 1 to {len(rows.usable)}."
            )
        return int(k)

    def _classes(self, y: np.ndarray) -> tuple[np.ndarray, Int[np.ndarray, " row"]]:
        """The classes, sorted, and the number of each row's class."""
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"{type(self).__name__} needs samples of at least 2 classes in the data, but the data contains only one class: "
                f"{classes.tolist()[0]!r}."
            )
        return classes, codes


def bad_columns(x: Float[np.ndarray, "row column"]) -> Int[np.ndarray, " bad"]:
    """Columns that hold NaN or infinity; in tiles, so that a wide matrix needs no mask of its own size."""
    tiles = [np.isfinite(x[:, at : at + TILE]).all(axis=0) for at in range(0, x.shape[1], TILE)]
    return np.flatnonzero(~np.concatenate(tiles)) if tiles else np.array([], dtype=int)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Complain about a parameter that is none of the names.

    Raises:
        InputError: it is none of them.
    """
    if value not in allowed:
        raise InputError(f"{name} = {value!r} is not possible: choose one of {', '.join(allowed)}.")


def positive_number(name: str, value: Any) -> float:
    """A parameter above 0.

    Raises:
        InputError: it is no finite number, or not above 0.
    """
    if not isinstance(value, numbers.Real) or not 0 < float(value) < float("inf"):
        raise InputError(f"{name} = {value!r} is not possible: it is a finite number above 0.")
    return float(value)
