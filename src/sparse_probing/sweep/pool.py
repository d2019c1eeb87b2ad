"""A pool of processes on this machine that ends as one: with its results, with the first error, or with its parent."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import BrokenExecutor
from typing import Any

from joblib import Parallel, parallel_config

from sparse_probing.errors import PrerequisiteError

KEPT = "use fewer --workers (1 needs least memory); what is done is kept, and the same command goes on from there."


def in_pool(jobs: Iterable[Any], count: int, finish: Callable[[Any], None]) -> None:
    """Run joblib's delayed jobs in `count` processes (1: in this one), one BLAS thread each.

    Whatever ends the work early, an exception of `finish` included, ends the workers.

    Args:
        jobs: made when a worker is free, so that few of them are held at once.
        count: processes.
        finish: given each result as it comes.

    Raises:
        PrerequisiteError: memory ran out, or a worker was killed.
    """
    with parallel_config(backend="loky", inner_max_num_threads=1, initializer=_end_with, initargs=(os.getpid(),)):
        pool = Parallel(n_jobs=count, return_as="generator_unordered", pre_dispatch="n_jobs")
        finished: Generator[Any, None, None] | None = None
        try:
            finished = pool(jobs)  # pyright: ignore[reportAssignmentType]
            assert finished is not None
            for result in finished:
                finish(result)
        except BaseException as error:
            if finished is not None:
                with warnings.catch_warnings():  # joblib warns that it cancels what is no longer wanted
                    warnings.simplefilter("ignore")
                    finished.close()
            if isinstance(error, BrokenExecutor):
                raise PrerequisiteError(
                    f"a worker process was killed, most likely because memory ran out: {KEPT}"
                ) from None
            if isinstance(error, MemoryError):
                raise PrerequisiteError(f"memory ran out: {KEPT}") from None
            raise


def _end_with(parent: int) -> None:
    """Let this worker end when its parent does, killed or not; else it would work on for nobody.

    A thread that looks, and no signal of the kernel: that one comes when the *thread* of the parent ends that made the worker, and
    exists on Linux only.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()
