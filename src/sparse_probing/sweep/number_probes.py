"""Regression probes of one layer and number: the best unit, k units, all units, and the controls; everything before test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.metrics.regression import number_metrics
from sparse_probing.probes.dense import SharedColumns, fit_dense
from sparse_probing.probes.losses import SQUARED_ERROR
from sparse_probing.probes.newton import SMALL_RIDGE, fit_batch
from sparse_probing.ranking.permutation_null import largest_number_correlations, permuted_numbers
from sparse_probing.ranking.statistics import number_correlations
from sparse_probing.records import Split, task_rng
from sparse_probing.selection.heuristics import at_random, top_by_score
from sparse_probing.selection.methods import bounded_selections
from sparse_probing.selection.problem import Problem, standardise
from sparse_probing.sweep.feature_view import STANDARD_DEVIATION_FLOOR
from sparse_probing.sweep.plan import Method, Plan

FINALISTS = 10
"""Units of largest |correlation| on training rows that go on to validation for k = 1."""
DENSE_RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""The dense probe takes the one that does best on validation."""
UNTRAINED_DENSE = "random_weights_dense"
"""Control: all units of the same architecture with untrained weights."""
NULL_CELLS = 8_000_000
"""Permuted numbers that are held at once: 64 MB."""
BLOCK = 1_024
"""Rows that are converted to float64 at a time."""

Probe = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTask:
    """The unit of work, of resuming and of parallelism."""

    layer: int
    target: int
    """Index into the dataset's targets."""
    random_model: bool = False
    """Run on the activations of the untrained twin: the best unit and all units only."""

    @property
    def name(self) -> str:
        """Stem of its file."""
        return f"numbers-{'random-' if self.random_model else ''}L{self.layer:03d}-number{self.target:03d}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NumberData:
    """Training and validation rows of one number at one layer."""

    category: str
    number: str
    x: Float[np.ndarray, "row unit"]
    values: Float[np.ndarray, " row"]
    train: Bool[np.ndarray, " row"]
    """Training rows; the others are validation rows."""
    groups: Int[np.ndarray, " row"]
    """Document of each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberResult:
    """Probes of one task, and its part of the null."""

    probes: list[Probe]
    null: list[float]
    """Largest |correlation| of any unit of the layer, for each permutation of the numbers."""
    largest: float | None = None
    """The same statistic for the true numbers; null without permutations."""


def merit(probe: Probe) -> float:
    """What choices go by: R2 on training or on validation rows, whichever is lower (compare `choose.merit`)."""
    return min(probe["train_r2"], probe["validation_r2"])


def best(probes: Sequence[Probe]) -> Probe:
    """The probe with the most merit; ties go to the earlier layer."""
    return max(probes, key=lambda p: (merit(p), -p["layer"]))


def run_number(task: NumberTask, data: NumberData, plan: Plan) -> NumberResult:
    """Fit every probe of the task.

    Args:
        task: layer and number.
        data: activations and numbers, without test rows.
        plan: sizes, permutations and seed; controls depend on the seed, the task's and the number's name only.
    """
    view = _View(task, data, data.values)
    if task.random_model:
        return NumberResult(probes=[view.single(Method.RANDOM_MODEL), view.dense(UNTRAINED_DENSE)], null=[])
    key = data.category, data.number
    rng = task_rng(plan.seed, "random numbers", task.layer, *key)
    probes = [view.single(Method.SINGLE), view.dense(Method.DENSE)]
    chosen = bounded_selections(view.problem(plan.selection_ridge), Method.GREEDY_SWAP.value, plan.ks, rng)
    for selection in chosen.values():
        probes.append(view.records(Method.GREEDY_SWAP, selection.support[None])[0] | {"gap": round(selection.gap, 12)})
    for columns in at_random(data.x.shape[1], plan.ks, rng).values():
        probes.append(view.records(Method.RANDOM, columns[None])[0])
    shuffled, rng = data.values.copy(), task_rng(plan.seed, "shuffled numbers", *key)
    for part in (data.train, ~data.train):
        shuffled[part] = permuted_numbers(data.values[part], data.groups[part], 1, rng)[0]
    if all(np.ptp(shuffled[part]) > 0 for part in (data.train, ~data.train)):
        probes.append(_View(task, data, shuffled).single(Method.SHUFFLED))
    if not plan.permutations:
        return NumberResult(probes=probes, null=[])
    largest, *null = _correlations_and_null(data, plan)
    return NumberResult(probes=probes, null=null, largest=largest)


def _correlations_and_null(data: NumberData, plan: Plan) -> list[float]:
    """Largest |correlation| of any unit of the layer: with the true numbers, then with each permutation.

    The same permutations at every layer, so that the largest correlation of all layers can be taken for each of them.
    """
    rng = task_rng(plan.seed, "null of numbers", data.category, data.number)
    x, values, groups = (part[data.train] for part in (data.x, data.values, data.groups))
    step = max(100, NULL_CELLS // len(values))
    found = largest_number_correlations(x, values[None]).tolist()
    for done in range(0, plan.permutations, step):
        orders = permuted_numbers(values, groups, min(step, plan.permutations - done), rng)
        found += largest_number_correlations(x, orders).tolist()
    return [float(f"{r:.7g}") for r in found]


class _View:
    """One number's rows at one layer, and the fits and scores of probes on them. Columns and number are standardised."""

    def __init__(self, task: NumberTask, data: NumberData, values: Float[np.ndarray, " row"]) -> None:
        self.task, self.data, self.values = task, data, values
        self.z, self.mean, self.scale = standardise(data.x[data.train], floor=STANDARD_DEVIATION_FLOOR)
        self.centre, self.spread = float(values[data.train].mean()), float(values[data.train].std())
        self.target = (values[data.train] - self.centre) / self.spread
        self.weights = np.full(len(self.target), 1 / len(self.target))

    def problem(self, ridge: float) -> Problem:
        """The training rows as a selection problem."""
        return Problem(z=self.z, target=self.target, weights=self.weights, loss=SQUARED_ERROR, ridge=ridge)

    def single(self, method: str) -> Probe:
        """The best single unit, out of all."""
        r = number_correlations(self.data.x[self.data.train], self.values[self.data.train])
        count = min(FINALISTS, len(r))
        probes = self.records(method, top_by_score(r, [count])[count][:, None])
        # of equally good ones the stronger correlation
        return max(probes, key=lambda p: (merit(p), abs(r[p["columns"][0]])))

    def records(self, method: str, supports: Int[np.ndarray, "problem k"]) -> list[Probe]:
        """Rows of the table for supports of equal size, fitted at a small ridge in float64 from the stored values."""
        part = self.data.x[np.flatnonzero(self.data.train)[:, None, None], supports].astype(np.float64)
        x = ((part - self.mean[supports]) / self.scale[supports]).transpose(1, 0, 2)
        shape = (len(supports), len(self.target))
        target, weights = np.broadcast_to(self.target, shape), np.broadcast_to(self.weights, shape)
        fits = fit_batch(x, target, weights, SMALL_RIDGE, SQUARED_ERROR)
        return [
            self._record(method, columns, fits.coefficients[i], float(fits.intercept[i]), SMALL_RIDGE)
            for i, columns in enumerate(supports)
        ]

    def dense(self, method: str) -> Probe:
        """All units, at the ridge that does best on validation."""
        rough = self.mean.astype(np.float32)
        shared = SharedColumns(
            x=self.data.x[self.data.train].astype(np.float32, copy=False) - rough,
            mean=(self.mean - rough)[None],
            scale=self.scale[None],
        )
        columns, start, probes = np.arange(len(self.mean)), None, []
        for ridge in DENSE_RIDGES:
            fits = fit_dense(shared, self.target[None], self.weights[None], ridge, SQUARED_ERROR, start)
            start = fits.coefficients, fits.intercept
            probes.append(self._record(method, columns, fits.coefficients[0], float(fits.intercept[0]), ridge))
        return max(probes, key=lambda p: p["validation_r2"]) | {"columns": None}

    def _record(
        self, method: str, columns: Int[np.ndarray, " k"], standard: Float[np.ndarray, " k"], shift: float, ridge: float
    ) -> Probe:
        raw = self.spread * standard / self.scale[columns]
        intercept = float(self.centre + self.spread * shift - raw @ self.mean[columns])
        row: Probe = {
            "category": self.data.category,
            "number": self.data.number,
            "layer": self.task.layer,
            "method": str(method),
            "k": len(columns),
            "columns": [int(c) for c in columns],
            "coefficients": [float(c) for c in raw],
            "intercept": intercept,
            "ridge": ridge,
        }
        for split, part in ((Split.TRAIN, self.data.train), (Split.VALIDATION, ~self.data.train)):
            said = predictions(self.data.x, np.flatnonzero(part), row)
            row |= {f"{split}_{name}": value for name, value in number_metrics(said, self.values[part]).items()}
        return row


def predictions(
    x: Float[np.ndarray, "all unit"], rows: Int[np.ndarray, " row"], probe: Probe
) -> Float[np.ndarray, " row"]:
    """What a probe says about some rows, in float64."""
    coefficients = np.array(probe["coefficients"])
    parts = [np.zeros(0)]
    for at in range(0, len(rows), BLOCK):
        block = x[rows[at : at + BLOCK]]
        block = block if probe["columns"] is None else block[:, probe["columns"]]
        parts.append(block.astype(np.float64) @ coefficients + probe["intercept"])
    return np.concatenate(parts)
