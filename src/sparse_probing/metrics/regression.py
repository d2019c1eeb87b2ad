"""Scores of a predicted number, and their intervals: bootstrap over documents, as for classes (`intervals`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.metrics.intervals import CELLS, MAX_BLOCKS, REPEATS, Table, bca_interval, group_resamples

NUMBER_METRICS = ("r2", "pearson", "spearman", "mae")
"""Share of the variance that is explained (of the scored rows; below 0 where their mean would do better), the correlation of the
values and of their ranks, and the mean absolute error in the unit of the number."""


def weighted_number_metrics(
    prediction: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"], weights: Float[np.ndarray, "repeat row"]
) -> dict[str, Float[np.ndarray, " repeat"]]:
    """All metrics under each set of row weights (a bootstrap resample is a set of counts). Cost O(repeat * row).

    A correlation with something constant is 0, and so is R2 where the target is constant. Equal values share their rank.

    Args:
        prediction: what a probe says.
        target: what is true.
        weights: not negative, of each row.
    """
    error = target - prediction
    n = weights.sum(axis=1)
    y = target - target.mean()
    total = weights @ y**2 - (weights @ y) ** 2 / n
    return {
        "r2": _share(total - weights @ error**2, total),
        "pearson": _correlation(prediction[None], target[None], weights),
        "spearman": _correlation(_ranks(prediction, weights), _ranks(target, weights), weights),
        "mae": weights @ np.abs(error) / n,
    }


def number_metrics(prediction: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> dict[str, float]:
    """All metrics on the rows as they are."""
    table = weighted_number_metrics(prediction, target, np.ones((1, len(target))))
    return {name: float(table[name][0]) for name in NUMBER_METRICS}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    share = weights / weights.sum(axis=1, keepdims=True)
    a, b = (values - (share * values).sum(axis=1, keepdims=True) for values in (a, b))
    spread = np.sqrt((share * a**2).sum(axis=1)) * np.sqrt((share * b**2).sum(axis=1))
    # a constant differs from its mean by rounding only
    least = 1e-12 * (1e-300 + np.abs(a).max(axis=1) * np.abs(b).max(axis=1))
    return np.where(spread > least, _share((share * a * b).sum(axis=1), spread), 0.0)


def _ranks(values: Float[np.ndarray, " row"], weights: Float[np.ndarray, "repeat row"]) -> np.ndarray:
    """Mean rank of each row under each set of weights, up to a constant."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place, minlength=len(distinct))) - 1
    upto = np.cumsum(weights[:, order], axis=1)[:, ends]
    return (upto - 0.5 * np.diff(upto, axis=1, prepend=0.0))[:, place]


class NumberBootstrap:
    """The resamples of one set of rows; rows of one group are drawn or left out together.

    Predictions of the same rows share one object: repeat i is then the same draw for each of them, and the difference of two
    tables a paired one. Resamples in which all rows have the same number are left out, for all predictions alike.
    """

    def __init__(
        self,
        groups: Int[np.ndarray, " row"],
        target: Float[np.ndarray, " row"],
        rng: np.random.Generator,
        repeats: int = REPEATS,
    ) -> None:
        """Draw the resamples.

        Args:
            groups: document of each row, any whole numbers.
            target: number of each row.
            rng: the draws are those of `group_resamples`.
            repeats: number of resamples before the unusable ones are left out.

        Raises:
            ValueError: no resample holds two different numbers.
        """
        names, self._member = np.unique(groups, return_inverse=True)
        self._target = target
        times = group_resamples(np.arange(len(names)), repeats, rng).astype(np.uint8)  # 255 is out of reach
        self._times = times[self._varied(repeats, lambda chunk: times[chunk][:, self._member])]
        if len(self._times) == 0:
            raise ValueError("no resample holds two different numbers")
        blocks, self._block = np.unique(self._member % MAX_BLOCKS, return_inverse=True)
        self._kept = np.flatnonzero(self._varied(len(blocks), lambda chunk: self._block != chunk[:, None]))

    def table(self, prediction: Float[np.ndarray, " row"]) -> Table:
        """All metrics on each resample.

        Args:
            prediction: of the rows in the order of `groups`.
        """
        return self._metrics(prediction, len(self._times), lambda chunk: self._times[chunk][:, self._member])

    def intervals(self, prediction: Float[np.ndarray, " row"], table: Table) -> dict[str, tuple[float, float]]:
        """95 % intervals (low, high) of all metrics, see `bca_interval`.

        Args:
            prediction: of the rows in the order of `groups`.
            table: what `table` gave for it.
        """
        estimate = number_metrics(prediction, self._target)
        left_out = self._metrics(prediction, len(self._kept), lambda chunk: self._block != self._kept[chunk, None])
        return {name: bca_interval(table[name], estimate[name], left_out[name]) for name in NUMBER_METRICS}

    def _varied(self, repeats: int, weights: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Whether the rows that are drawn hold two different numbers."""
        found = [np.zeros(0, dtype=bool)]
        for chunk in self._chunks(repeats):
            drawn = weights(chunk) > 0
            low = np.where(drawn, self._target, np.inf).min(axis=1, initial=np.inf)
            found.append(low < np.where(drawn, self._target, -np.inf).max(axis=1, initial=-np.inf))
        return np.concatenate(found)

    def _metrics(self, prediction: np.ndarray, repeats: int, weights: Callable[[np.ndarray], np.ndarray]) -> Table:
        parts = [
            weighted_number_metrics(prediction, self._target, weights(chunk).astype(np.float64))
            for chunk in self._chunks(repeats)
        ]
        return {name: np.concatenate([np.zeros(0), *(part[name] for part in parts)]) for name in NUMBER_METRICS}

    def _chunks(self, repeats: int) -> list[np.ndarray]:
        step = max(1, CELLS // len(self._member))
        return [np.arange(begin, min(begin + step, repeats)) for begin in range(0, repeats, step)]
