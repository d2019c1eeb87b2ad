"""How much of a planted support does each selector find, by number of rows? Cells of a grid, in a pool, each kept as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int
from joblib import delayed
from threadpoolctl import threadpool_limits

from sparse_probing.errors import InputError
from sparse_probing.files import write_json
from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.probes.newton import SMALL_RIDGE
from sparse_probing.probes.weights import balanced_weights
from sparse_probing.records import task_rng
from sparse_probing.selection.methods import SELECTORS, select
from sparse_probing.selection.problem import Problem, standardise
from sparse_probing.selection.schedule import DEFAULT_KS
from sparse_probing.studies.simulation.planted import STAND_IN, Planted, Wiring, activate, wire
from sparse_probing.sweep.pool import in_pool

HELD_OUT = 2_000
"""Fresh rows on which the refitted probe is scored; as many as it was fitted on, where those are more."""
MEASURES = ("recall", "recall_or_stand_in", "average_precision")
FROM_MANY = ("shrinking_elastic_net",)
"""Selectors that come down from larger sizes: they get the default schedule of k, too. Asked for the true k alone, the shrinking
elastic net would have nothing to shrink and be the mean difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One planted data set: all selectors see the same rows."""

    rows: int
    repeat: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"rows-{self.rows}-repeat-{self.repeat}"


Found = dict[str, dict[str, float]]
"""Method -> measure -> value."""


def recall_curve(
    options: Planted,
    rows: Sequence[int],
    *,
    methods: Sequence[str] = tuple(SELECTORS),
    repeats: int = 10,
    workers: int | None = None,
    folder: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> pl.DataFrame:
    """Share of the planted support that each selector returns when it is told the true k, against the number of rows.

    The first feature is the one that is looked for; others, where there are any, only share its units. Data depend on seed, rows
    and repeat alone, so results do not depend on the number of workers, and more rows or repeats leave the others as they are.

    Args:
        options: what to plant; its `rows` are not used.
        rows: sizes of the data set.
        methods: names of selectors.
        repeats: data sets per size.
        workers: processes; one per core when null.
        folder: keeps each finished cell as a JSON file and reads those that are there; see
            `studies.simulation.folder.claim`.
        progress: called with the number of cells done since the last call.

    Returns:
        One row per method and number of rows: `method`, `rows`, `repeats`, and each of `MEASURES` with its standard error `_se`
        over the repeats (null for a single one).

    Raises:
        InputError: sizes, methods or counts that cannot be used.
    """
    sizes, methods = checked_grid(options, rows, methods, repeats, workers)
    cells = [Cell(rows=n, repeat=repeat) for n in sizes for repeat in range(repeats)]
    found: dict[Cell, Found] = {}
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for cell in cells:
            path = folder / f"{cell.name}.json"
            if path.exists():
                found[cell] = _read_cell(path, methods)
                progress(1)

    def finish(pair: tuple[Cell, Found]) -> None:
        cell, result = pair
        found[cell] = result
        if folder:
            write_json(folder / f"{cell.name}.json", result)
        progress(1)

    # the largest ones first, so that no worker is left with one at the end
    missing = sorted((cell for cell in cells if cell not in found), key=lambda cell: -cell.rows)
    if missing:
        jobs = (delayed(run_cell)(cell, options, methods) for cell in missing)
        in_pool(jobs, min(workers or os.cpu_count() or 1, len(missing)), finish)
    return _summary(found, sizes, methods, repeats)


def checked_grid(
    options: Planted, rows: Sequence[int], methods: Sequence[str], repeats: int, workers: int | None
) -> tuple[list[int], list[str]]:
    """Sizes, ascending, and methods in the order of `SELECTORS`, each once.

    Raises:
        InputError: none of them, an unknown method, a size that cannot be planted, no repeat or no worker.
    """
    for method in methods:
        if method not in SELECTORS:
            raise InputError(f"there is no selector {method!r}: choose among {', '.join(SELECTORS)}.")
    if not rows or not methods:
        raise InputError("nothing to simulate: give at least one number of rows and one method.")
    for name, count in (("repeats", repeats), ("workers", workers)):
        if count is not None and count < 1:
            raise InputError(f"{name} must be at least 1, got {count}.")
    for n in rows:
        replace(options, rows=n)
    return sorted(set(rows)), [method for method in SELECTORS if method in methods]


def _read_cell(path: Path, methods: Sequence[str]) -> Found:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {method: {measure: float(known[method][measure]) for measure in MEASURES} for method in methods}
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{str(path)!r} is damaged: delete that file, and the same command computes it again."
        ) from None


def run_cell(cell: Cell, options: Planted, methods: Sequence[str]) -> tuple[Cell, Found]:
    """Plant, select with every method, refit, score on fresh rows."""
    with threadpool_limits(
        1
    ):  # a single worker runs in this process, where joblib sets no limit: same threads, same bytes
        rng = task_rng(options.seed, "plant", cell.rows, cell.repeat)
        train = replace(options, rows=cell.rows)
        wiring = wire(train, rng)
        x, positive = activate(wiring, train, rng)
        fresh_x, fresh_positive = activate(wiring, replace(options, rows=max(HELD_OUT, cell.rows)), rng)
        z, mean, scale = standardise(x)
        y, fresh_y = positive[:, 0], fresh_positive[:, 0]
        problem = Problem(z=z, target=y.astype(np.float64), weights=balanced_weights(y))
        found: Found = {}
        for method in methods:
            ks = {options.k, *(k for k in DEFAULT_KS if method in FROM_MANY and k <= options.units)}
            chosen = select(problem, method, sorted(ks), task_rng(options.seed, "select", cell.rows, cell.repeat))[
                options.k
            ]
            fit = problem.fit(chosen, ridge=SMALL_RIDGE)
            score = (fresh_x[:, chosen] - mean[chosen]) / scale[chosen] @ fit.coefficients + fit.intercept
            precision = metrics_at(Scored(score=score, positive=fresh_y), 0.0)["average_precision"]
            recall, lenient = recalls(chosen, wiring, options)
            found[method] = {"recall": recall, "recall_or_stand_in": lenient, "average_precision": precision}
    return cell, found


def recalls(chosen: Int[np.ndarray, " k"], wiring: Wiring, options: Planted) -> tuple[float, float]:
    """Share of the first feature's planted units that were chosen, and that were chosen or stood in for.

    A distractor stands in for its planted unit when their correlation is at least `STAND_IN`. A planted unit counts once, whatever
    else of its group was chosen.
    """
    planted = wiring.supports[0]
    covered = chosen
    if options.correlation >= STAND_IN:
        covered = np.concatenate([chosen, wiring.leader[chosen]])
    return float(np.isin(planted, chosen).mean()), float(np.isin(planted, covered).mean())


def _summary(found: dict[Cell, Found], sizes: Sequence[int], methods: Sequence[str], repeats: int) -> pl.DataFrame:
    records = []
    for method in methods:
        for n in sizes:
            record: dict[str, str | int | float | None] = {"method": method, "rows": n, "repeats": repeats}
            for measure in MEASURES:
                values = np.array([found[Cell(rows=n, repeat=i)][method][measure] for i in range(repeats)])
                record[measure] = float(values.mean())
                record[f"{measure}_se"] = float(values.std(ddof=1) / np.sqrt(repeats)) if repeats > 1 else None
            records.append(record)
    kinds = {name: pl.Float64 for measure in MEASURES for name in (measure, f"{measure}_se")}
    return pl.DataFrame(records, schema={"method": pl.String, "rows": pl.Int64, "repeats": pl.Int64, **kinds})
