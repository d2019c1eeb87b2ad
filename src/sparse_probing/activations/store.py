"""Activations on disk: content-addressed folders of safetensors shards, written atomically, resumable, memory-mapped.

CACHE/activations/ADDRESS/manifest.json
CACHE/activations/ADDRESS/shard-00000.safetensors    one tensor [row, unit] per layer, name `L3`
CACHE/activations/ADDRESS/shard-00000.json           rows and checksum; written last, so its presence means *complete*
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.numpy import save_file

from sparse_probing.errors import InputError, PrerequisiteError, StaleCacheError
from sparse_probing.files import write_json

FORMAT = 1
FLOAT16_LARGEST = float(np.finfo(np.float16).max)


def cache_folder() -> Path:
    """`$SPROBE_CACHE`, or `~/.cache/sparse-probing`."""
    return Path(os.environ.get("SPROBE_CACHE") or Path.home() / ".cache" / "sparse-probing")


def address(*parts: object) -> str:
    """Name of a store: hash of everything that its numbers depend on."""
    return hashlib.blake2b(json.dumps([FORMAT, *parts], default=str).encode(), digest_size=16).hexdigest()


class ActivationStore:
    """The activations of one model on one dataset, all stored layers."""

    def __init__(self, folder: Path, shard_rows: Sequence[int], layers: Sequence[int]) -> None:
        """Open or create.

        Args:
            folder: where the shards lie; its name is the content address.
            shard_rows: number of rows of each shard.
            layers: layers that every shard holds.

        Raises:
            StaleCacheError: the folder was written with another layout.
            PrerequisiteError: the folder cannot be created.
        """
        self.folder = folder
        self.layers = tuple(layers)
        self.starts = np.concatenate([[0], np.cumsum(shard_rows)]).astype(int)
        manifest = {"format": FORMAT, "shard_rows": [int(n) for n in shard_rows], "layers": list(self.layers)}
        path = folder / "manifest.json"
        if path.exists():
            if json.loads(path.read_text()) != manifest:
                raise StaleCacheError(f"{str(folder)!r} holds activations of another layout: delete that folder.")
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, manifest)
        except OSError as error:
            raise PrerequisiteError(
                f"activation cache {str(folder)!r} cannot be written ({error.strerror}): set SPROBE_CACHE to a writable folder."
            ) from None

    @property
    def n_shards(self) -> int:
        """Number of shards when complete."""
        return len(self.starts) - 1

    def is_complete(self, shard: int) -> bool:
        """Whether a shard is there and unharmed; a damaged one counts as missing and is written again."""
        path = self._path(shard)
        record = path.with_suffix(".json")
        if not (record.exists() and path.exists()):
            return False
        return json.loads(record.read_text())["blake2b"] == _checksum(path)

    def write(self, shard: int, layers: dict[int, Float[np.ndarray, "row unit"]]) -> None:
        """Store one shard as float16.

        Raises:
            InputError: a value does not fit into float16 (names the layer and unit).
            PrerequisiteError: the disk is full or not writable.
        """
        for layer, values in layers.items():
            _check_range(layer, values)
        path = self._path(shard)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            save_file({f"L{layer}": np.ascontiguousarray(v, dtype=np.float16) for layer, v in layers.items()}, partial)
            checksum = _checksum(partial)
            partial.replace(path)
            write_json(path.with_suffix(".json"), {"blake2b": checksum})
        except Exception as error:  # safetensors reports a full disk with its own exception type
            partial.unlink(missing_ok=True)
            raise PrerequisiteError(
                f"activation cache {str(self.folder)!r} cannot be written ({error}): free some space or set SPROBE_CACHE. "
                "What is already stored is kept; the same command goes on from there."
            ) from None

    def read(self, layer: int, rows: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row unit"]:
        """Rows of one layer as float32, in the order asked for."""
        shard_of = np.searchsorted(self.starts, rows, side="right") - 1
        parts: np.ndarray | None = None
        for shard in np.unique(shard_of):
            with safe_open(self._path(int(shard)), "np") as file:
                block = file.get_tensor(f"L{layer}")
            if parts is None:
                parts = np.empty((len(rows), block.shape[1]), dtype=np.float32)
            here = shard_of == shard
            parts[here] = block[rows[here] - self.starts[shard]]
        if parts is None:
            raise InputError("no rows were asked for.")
        return parts

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.safetensors"


def _check_range(layer: int, values: Float[np.ndarray, "row unit"]) -> None:
    largest = np.abs(values).max(axis=0, initial=0.0)
    if not np.isfinite(largest).all():
        unit = int(np.flatnonzero(~np.isfinite(largest))[0])
        raise InputError(
            f"the model gives NaN or infinite activations, first in layer {layer}, unit {unit}: try --dtype float32."
        )
    if largest.max(initial=0.0) > FLOAT16_LARGEST:
        unit = int(largest.argmax())
        raise InputError(
            f"unit {unit} of layer {layer} reaches {largest[unit]:.3g}, beyond float16 (65504): leave that layer out with --layers."
        )


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
