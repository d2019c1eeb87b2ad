"""`sprobe demo`."""

from __future__ import annotations

from pathlib import Path

from sparse_probing.cli.run import execute
from sparse_probing.config import make_config


def demo(*, out: Path = Path("runs/demo"), seed: int = 0, workers: int | None = None) -> None:
    """The whole method on the bundled model and the bundled texts: 4 categories of features, no network.

    Args:
        out: Run folder.
        seed: Seed of split, sampling, controls and bootstrap.
        workers: Processes that fit probes; one per core by default.
    """
    rows = {"windows_per_document": 2, "max_rows": 2_000}
    options = {"out": out, "seed": seed, "workers": workers}
    execute(make_config({"model": "demo", "source": "demo"} | rows | options))
