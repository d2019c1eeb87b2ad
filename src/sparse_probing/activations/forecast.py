"""How much an extraction will need, and whether there is room for it. No torch: a dry run and `sprobe cache` are quick."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparse_probing.activations.shards import StoredType, shard_bytes
from sparse_probing.activations.store import cache_folder
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.rows_used import RowsUsed
from sparse_probing.errors import PrerequisiteError
from sparse_probing.progress import duration
from sparse_probing.records import Site

ROOM_TO_SPARE = 64 * 2**20
"""Bytes that must stay free on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a run will hold in the memory of its device, about; the program itself needs some 0.6 GB of main memory beside it."""

    weights: int
    """Bytes of all models that are loaded at once."""
    activations: int
    """Bytes of one batch and of the values that wait to be written."""
    free: int | None
    """Bytes that are free on the device; null where that is unknown."""
    precision: str

    def words(self) -> str:
        """`weights 540 MB (float32), activations about 300 MB, free 20.1 GB`."""
        free = "" if self.free is None else f", free {gigabytes(self.free)}"
        return f"weights {gigabytes(self.weights)} ({self.precision}), activations about {gigabytes(self.activations)}{free}"

    def warning(self) -> str | None:
        """What to do where it will probably not fit; null where it will."""
        if self.free is None or self.weights + self.activations <= self.free:
            return None
        return (
            f"the model will probably not fit into memory ({self.words()}): use --dtype bfloat16, --no-random-model, or "
            "--device-map auto to spread it over several devices."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an extraction will need, known before the first forward pass."""

    tokens: int
    """Tokens that go through the model."""
    rows: int
    bytes_needed: int
    """On disk, beside what is there already."""
    bytes_free: int
    seconds_per_token: float | None = None
    """Of one model's passes on this machine, about; null where it was not estimated."""
    probing_seconds: float | None = None
    """Of the probes, about."""
    memory: Memory | None = None
    """Null where it was not estimated."""
    used: tuple[RowsUsed, ...] = ()
    """What became of the labelled text, one account per category."""

    def time(self, models: int) -> str:
        """How long it will take, in words.

        Args:
            models: that read the tokens: 2 with the untrained twin.
        """
        assert self.seconds_per_token is not None
        assert self.probing_seconds is not None
        passes = models * self.tokens * self.seconds_per_token
        return (
            f"about {duration(passes + self.probing_seconds)} on this machine (activations {duration(passes)}, probes "
            f"{duration(self.probing_seconds)})"
        )

    def check(self, cache: Path) -> None:
        """Refuse what will not fit.

        Raises:
            PrerequisiteError: too little room on the disk.
        """
        if self.bytes_needed + ROOM_TO_SPARE > self.bytes_free:
            raise PrerequisiteError(
                f"the activations need {gigabytes(self.bytes_needed)} and {gigabytes(ROOM_TO_SPARE)} in reserve, "
                f"{gigabytes(self.bytes_free)} are free in {str(cache)!r}: "
                "take fewer --layers or --max-rows, --store-dtype int8, or set SPROBE_CACHE to a larger disk (`sprobe cache ls` "
                "shows what is in the cache)."
            )


def gigabytes(size: int) -> str:
    """`1.23 GB`, `45 MB`."""
    return (
        f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"
    )


def forecast(
    dataset: FeatureDataset,
    sites: Sequence[Site],
    dtype: StoredType = "float16",
    cache: Path | None = None,
    bytes_needed: int | None = None,
) -> Forecast:
    """Size of an extraction, and the room for it.

    Args:
        dataset: the rows.
        sites: what is read.
        dtype: type on disk.
        cache: folder that holds all stores; `$SPROBE_CACHE` or `~/.cache/sparse-probing` when null.
        bytes_needed: what is still missing; null when nothing is stored yet.
    """
    if bytes_needed is None:
        bytes_needed = sum(shard_bytes(dataset.n_rows, site.width, dtype) for site in sites)
    return Forecast(
        tokens=int(dataset.sequence_lengths()[np.unique(dataset.row_sequence)].sum()),
        rows=dataset.n_rows,
        bytes_needed=bytes_needed,
        bytes_free=free_bytes(cache or cache_folder()),
        used=tuple(dataset.used.values()),
    )


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk where a folder lies or will lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
