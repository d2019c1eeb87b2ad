"""Redundancy and superposition of the neurons of a run."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_probing.open_run import OpenRun
from sparse_probing.studies.structure.redundancy import redundancy
from sparse_probing.studies.structure.superposition import BASES, superposition
from sparse_probing.studies.structure.tables import STRUCTURE_TABLES
from sparse_probing.studies.study import Rows


def structure_rows(run: OpenRun, features: Sequence[int], seed: int) -> Rows:
    """Rows of the tables in `STRUCTURE_TABLES`, from stored activations alone."""
    store, empty = run.store, {name: [] for name in STRUCTURE_TABLES}
    with run.reporter.stage("redundancy", len(features) * len(store.layers), "step") as done:
        found = redundancy(run.dataset, store, run.tables, features=features, progress=done)
    with run.reporter.stage("superposition", len(features) * (BASES + 1), "step") as done:
        return (
            empty | found | superposition(run.dataset, store, run.tables, seed=seed, features=features, progress=done)
        )
