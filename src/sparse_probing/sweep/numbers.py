"""Numbers x layers: planned, run in the pool of the binary features, kept in the same folder of tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Int
from joblib import delayed
from threadpoolctl import threadpool_limits

from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError
from sparse_probing.files import write_json
from sparse_probing.records import SPLITS, Split
from sparse_probing.sweep.number_probes import NumberData, NumberResult, NumberTask, run_number
from sparse_probing.sweep.plan import Plan
from sparse_probing.sweep.pool import in_pool
from sparse_probing.sweep.task_folder import read_finished


def plan_numbers(dataset: FeatureDataset, layers: Sequence[int], *, random_model: bool) -> list[NumberTask]:
    """One task per layer and number, for the model and for its untrained twin.

    Raises:
        InputError: a number that is infinite.
    """
    for target in dataset.targets:
        known = ~np.isnan(target.values)
        if not np.isfinite(target.values[known]).all():
            raise InputError(f"number {target.name!r} of {target.category} is infinite in some row: mend or empty it.")
    return [
        NumberTask(layer=layer, target=t, random_model=twin)
        for twin in ([False, True] if random_model else [False])
        for t in range(len(dataset.targets))
        for layer in layers
    ]


def run_numbers(
    tasks: Sequence[NumberTask],
    dataset: FeatureDataset,
    stores: dict[bool, Activations],
    folder: Path,
    *,
    plan: Plan,
    workers: int | None,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[NumberTask, NumberResult]:
    """Results of all tasks in their order, computed or read from `folder`; see `local_runner.run_tasks`.

    Args:
        tasks: from `plan_numbers`.
        dataset: rows and numbers.
        stores: activations of the model (`False`) and of its untrained twin (`True`).
        folder: one JSON file per finished task.
        plan: sizes, permutations, seed.
        workers: processes; as many as there are cores when null. Results do not depend on it.
        progress: called with the number of tasks done since the last call.
    """
    results: dict[NumberTask, NumberResult] = {}

    def finish(pair: tuple[NumberTask, NumberResult]) -> None:
        task, result = pair
        results[task] = result
        write_json(folder / f"{task.name}.json", asdict(result))
        progress(1)

    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        result = read_finished(folder / f"{task.name}.json", NumberResult)
        if result is not None:
            results[task] = result
            progress(1)
    remaining = [task for task in tasks if task not in results]
    if remaining:
        jobs = (delayed(_run)(task, number_data(task, dataset, stores[task.random_model]), plan) for task in remaining)
        in_pool(jobs, min(workers or os.cpu_count() or 1, len(remaining)), finish)
    return {task: results[task] for task in tasks}


def _run(task: NumberTask, data: NumberData, plan: Plan) -> tuple[NumberTask, NumberResult]:
    with threadpool_limits(1):  # sums must not depend on the number of threads
        return task, run_number(task, data, plan)


def rows_with_number(dataset: FeatureDataset, target: int, *splits: Split) -> Int[np.ndarray, " row"]:
    """Rows of some splits that have a number."""
    wanted = np.isin(dataset.row_split, [SPLITS.index(split) for split in splits])
    return np.flatnonzero(wanted & ~np.isnan(dataset.targets[target].values))


def number_data(task: NumberTask, dataset: FeatureDataset, store: Activations) -> NumberData:
    """What a task reads; test rows stay on disk."""
    target = dataset.targets[task.target]
    rows = rows_with_number(dataset, task.target, Split.TRAIN, Split.VALIDATION)
    return NumberData(
        category=target.category,
        number=target.name,
        x=store.read(task.layer, rows),
        values=target.values[rows],
        train=dataset.row_split[rows] == SPLITS.index(Split.TRAIN),
        groups=dataset.row_group[rows],
    )
