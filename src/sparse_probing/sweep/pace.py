"""How long the probes will take: a rule of thumb whose constants are guesses. It tells minutes from hours, no more."""

from __future__ import annotations

import os

from sparse_probing.datasets.feature_dataset import FeatureDataset

# Guessed from a few runs of the demo on one laptop-like machine, not fitted to measurements.
PER_TASK = 0.25
"""Core seconds per feature and layer that do not depend on the number of rows."""
PER_CELL = 4.0e-7
"""Core seconds per row and unit, for each feature and layer: ranking, null, relaxation, the dense probe."""
TWIN = 0.35
"""Share of it that the untrained twin takes: its single-neuron search only."""
START = 8.0
"""Seconds until the workers have loaded what they need."""


def probing_seconds(
    dataset: FeatureDataset, layers: int, width: int, *, random_model: bool, workers: int | None
) -> float:
    """About how long the probes of a run will take on cores like those of a laptop; proofs (`exact`) are not counted.

    Args:
        dataset: its eligible rows count, per feature.
        layers: layers that are probed.
        width: units per layer.
        random_model: whether the untrained twin is probed, too.
        workers: processes; as many as there are cores when null.
    """
    rows = int(dataset.eligible.sum()) + dataset.n_rows * len(dataset.targets)
    fits = len(dataset.features) + len(dataset.targets)
    core_seconds = layers * (fits * PER_TASK + rows * width * PER_CELL) * (1 + TWIN * random_model)
    return START + core_seconds / min(workers or os.cpu_count() or 1, max(1, layers))
