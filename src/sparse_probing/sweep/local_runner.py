"""Run tasks in a pool of processes on this machine; each finished task is a file, so that a killed run goes on from there."""

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
from sparse_probing.files import write_json
from sparse_probing.records import POOLINGS, SPLITS, Pooling, Split
from sparse_probing.selection.certificate import write_certificate
from sparse_probing.sweep.plan import Plan, Task
from sparse_probing.sweep.pool import in_pool
from sparse_probing.sweep.run_task import TaskData, TaskResult, run_task
from sparse_probing.sweep.task_folder import read_finished

CERTIFICATES = "certificates"
"""Folder of a run."""


def run_tasks(
    tasks: Sequence[Task],
    dataset: FeatureDataset,
    stores: dict[bool, Activations],
    folder: Path,
    *,
    plan: Plan,
    workers: int | None,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[Task, TaskResult]:
    """Results of all tasks, computed or read from `folder`.

    One BLAS thread per worker: the tasks are many small products, and threads inside threads cost a factor of four.

    Args:
        tasks: from `plan_tasks`.
        dataset: rows and labels.
        stores: activations of the model (`False`) and of its untrained twin (`True`).
        folder: one JSON file per finished task; certificates go into the folder of that name beside it.
        plan: sizes, methods, permutations, seed.
        workers: processes; as many as there are cores when null. Results do not depend on it.
        progress: called with the number of features done since the last call.

    Raises:
        PrerequisiteError: memory ran out, or a worker was killed; finished tasks are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[Task, TaskResult] = {}
    open_tasks: list[Task] = []
    for task in tasks:
        result = read_finished(folder / f"{task.file}.json", TaskResult)
        if result is not None:
            results[task] = result
            progress(len(task.features))
        else:
            open_tasks.append(task)
    if not open_tasks:
        return results
    certificates = folder.parent / CERTIFICATES
    if any(task.exact for task in open_tasks):
        certificates.mkdir(exist_ok=True)
    jobs = (
        delayed(_run)(task, task_data(task, dataset, stores[task.random_model]), plan, certificates)
        for task in open_tasks
    )

    def finish(pair: tuple[Task, TaskResult]) -> None:
        task, result = pair
        results[task] = result
        write_json(folder / f"{task.file}.json", asdict(result))
        progress(len(task.features))

    in_pool(jobs, min(workers or os.cpu_count() or 1, len(open_tasks)), finish)
    return results


def _run(task: Task, data: TaskData, plan: Plan, certificates: Path) -> tuple[Task, TaskResult]:
    # also where the only worker is this process: sums must not depend on the number of threads
    with threadpool_limits(1):
        return task, run_task(task, data, plan, lambda name, made: write_certificate(certificates / name, made))


def task_data(task: Task, dataset: FeatureDataset, store: Activations) -> TaskData:
    """Train and validation rows of a task; test rows stay on disk."""
    features = np.array(task.features)
    seen = dataset.row_split != SPLITS.index(Split.TEST)
    rows = np.flatnonzero(dataset.eligible[:, features].any(axis=1) & seen)
    return TaskData(
        x=store.read(task.layer, rows),
        train=dataset.row_split[rows] == SPLITS.index(Split.TRAIN),
        positive=dataset.positive[np.ix_(rows, features)],
        eligible=dataset.eligible[np.ix_(rows, features)],
        groups=dataset.row_group[rows],
        tokens=row_tokens(dataset, rows),
        feature_names=tuple(dataset.features[f] for f in task.features),
    )


def row_tokens(dataset: FeatureDataset, rows: Int[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
    """Token id of each row that is a single token, -1 for pooled rows."""
    single = dataset.row_pooling[rows] == POOLINGS.index(Pooling.TOKEN)
    at = dataset.sequence_starts[dataset.row_sequence[rows]] + dataset.row_first[rows]
    return np.where(single, dataset.tokens[at], -1).astype(np.int64)
