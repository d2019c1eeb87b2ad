"""`sprobe demo`."""

from __future__ import annotations

from pathlib import Path

from sparse_probing.cli.run import execute
from sparse_probing.config import RunConfig


def demo(*, out: Path = Path("runs/demo"), seed: int = 0, workers: int | None = None) -> None:
    """The whole method on the bundled model and the bundled texts: 4 categories of features, no network.

    Args:
        out: Run folder.
        seed: Seed of split, sampling, controls and bootstrap.
        workers: Processes that fit probes; one per core by default.
    """
    execute(
        RunConfig(
            model="demo",
            source="demo",
            windows_per_document=2,
            max_rows=2_000,
            out=out,
            seed=seed,
            workers=workers,
        )
    )
