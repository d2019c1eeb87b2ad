"""Activations on disk: content-addressed folders of shards, written atomically, resumable, read by rows or by columns.

CACHE/activations/ADDRESS/manifest.json                      model, size of the data, bounds of the shards
CACHE/activations/ADDRESS/SITE/L003-float16/00000.safetensors    see `shards`; there means complete

The address is a hash of model weights, tokenizer, tokens, rows and poolings; site, layer and type are folders, so that a later run
on more layers computes only those. No torch here: workers that fit probes read, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.activations.shards import (
    DamagedShard,
    Rows,
    StoredType,
    check_shard,
    read_column,
    read_header,
    read_rows,
    shard_bytes,
)
from sparse_probing.errors import InputError, PrerequisiteError, StaleCacheError
from sparse_probing.files import write_json
from sparse_probing.records import Site

FORMAT = 2
MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """`$SPROBE_CACHE`, or `~/.cache/sparse-probing`."""
    return Path(os.environ.get("SPROBE_CACHE") or Path.home() / ".cache" / "sparse-probing")


def address(*parts: object) -> str:
    """Name of a store: hash of everything that its numbers depend on."""
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=16).hexdigest()


def stores_folder(cache: Path) -> Path:
    """Where all stores of a cache lie."""
    return cache / "activations"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerArray:
    """One site at one layer, [row, unit], in shards."""

    site: Site
    folder: Path
    row_bounds: tuple[int, ...]
    dtype: StoredType

    def path(self, shard: int) -> Path:
        """File of a shard."""
        return self.folder / f"{shard:05d}.safetensors"

    def rows_of(self, shard: int) -> int:
        """Rows in a shard."""
        return self.row_bounds[shard + 1] - self.row_bounds[shard]

    def damage(self, shard: int) -> str | None:
        """Why a shard that is there cannot be used; null when it can, or when there is none."""
        if not self.path(shard).exists():
            return None
        try:
            check_shard(self.path(shard), rows=self.rows_of(shard), width=self.site.width)
        except DamagedShard as reason:
            return f"damaged shard {str(self.path(shard))!r}: {reason}."
        return None

    def bytes_missing(self) -> int:
        """Bytes that the shards which are not there will take."""
        missing = (s for s in range(len(self.row_bounds) - 1) if not self.path(s).exists())
        return sum(shard_bytes(self.rows_of(s), self.site.width, self.dtype) for s in missing)


class Activations:
    """All stored layers of one site: arrays [row, unit] on disk, rows in the order of the dataset."""

    def __init__(self, arrays: dict[int, LayerArray]) -> None:
        first = next(iter(arrays.values()))
        self.site = first.site.name
        self._arrays = arrays
        self._bounds = np.array(first.row_bounds)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that are stored."""
        return tuple(sorted(self._arrays))

    @property
    def n_rows(self) -> int:
        """Rows per layer."""
        return int(self._bounds[-1])

    def width(self, layer: int) -> int:
        """Units of a layer."""
        return self._array(layer).site.width

    def shard_files(self, layer: int) -> list[Path]:
        """The files of a layer, in the order of rows."""
        array = self._array(layer)
        return [array.path(shard) for shard in range(len(self._bounds) - 1)]

    def read(
        self, layer: int, rows: Int[np.ndarray, " row"] | None = None, dtype: type[np.floating] = np.float32
    ) -> Float[np.ndarray, "row unit"]:
        """Rows of one layer, in the order asked for; only these are read from disk.

        Args:
            layer: a stored layer.
            rows: row numbers of the dataset; null for all.
            dtype: floating type of the result.

        Raises:
            InputError: layer or rows that are not stored.
            PrerequisiteError: the shards were removed meanwhile.
        """
        array, (count, parts) = self._array(layer), self._parts(rows)
        result = np.empty((count, array.site.width), dtype=dtype)
        for shard, local, here in parts:
            if isinstance(here, slice):
                _guarded(read_rows, array.path(shard), local, result[here])
            else:
                piece = np.empty((len(here), array.site.width), dtype=dtype)
                _guarded(read_rows, array.path(shard), local, piece)
                result[here] = piece
        return result

    def column(self, layer: int, unit: int, rows: Int[np.ndarray, " row"] | None = None) -> Float[np.ndarray, " row"]:
        """One unit over all rows or some of them, as float32; its neighbours are not loaded.

        Raises:
            InputError: layer, unit or rows that are not stored.
            PrerequisiteError: the shards were removed meanwhile.
        """
        array, (count, parts) = self._array(layer), self._parts(rows)
        if not 0 <= unit < array.site.width:
            raise InputError(
                f"unit {unit} does not exist: {self.site} of layer {layer} has units 0 to {array.site.width - 1}."
            )
        result = np.empty(count, dtype=np.float32)
        for shard, local, here in parts:
            result[here] = _guarded(read_column, array.path(shard), unit, local)
        return result

    def stored_type(self, layer: int, shard: int) -> str:
        """Type of a shard, as safetensors names it: F32 in a float16 store where float16 did not suffice."""
        return read_header(self._array(layer).path(shard)).parts["activations"].code

    def _array(self, layer: int) -> LayerArray:
        if layer not in self._arrays:
            raise InputError(f"layer {layer} of {self.site} is not stored here: layers {list(self.layers)} are.")
        return self._arrays[layer]

    def _parts(self, rows: Int[np.ndarray, " row"] | None) -> tuple[int, list[tuple[int, Rows, Rows]]]:
        """Number of rows, and per shard: rows within it, and their places in the result."""
        bounds = self._bounds
        if rows is None:
            shards = range(len(bounds) - 1)
            return self.n_rows, [(s, slice(None), slice(bounds[s], bounds[s + 1])) for s in shards]
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.n_rows:
            raise InputError(
                f"rows {rows.min()} to {rows.max()} were asked for, rows 0 to {self.n_rows - 1} are stored."
            )
        shard_of = np.searchsorted(bounds, rows, side="right") - 1
        parts: list[tuple[int, Rows, Rows]] = []
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            local = rows[here] - bounds[shard]
            parts.append((int(shard), _as_slice(local), _as_slice(here)))
        return len(rows), parts


def _as_slice(numbers: Int[np.ndarray, " row"]) -> Rows:
    """Consecutive numbers as a slice: a view, no copy."""
    begin, end = int(numbers[0]), int(numbers[-1]) + 1
    return slice(begin, end) if end - begin == len(numbers) and (np.diff(numbers) == 1).all() else numbers


def _guarded(read: Any, path: Path, *arguments: Any) -> Any:
    try:
        return read(path, *arguments)
    except FileNotFoundError:
        raise PrerequisiteError(f"{str(path)!r} was removed from the cache: run the same command again.") from None
    except DamagedShard as reason:
        raise StaleCacheError(
            f"{str(path)!r} is damaged ({reason}): run the same command again, it is repaired."
        ) from None


class ActivationStore:
    """The folder of one model on one dataset."""

    def __init__(
        self,
        folder: Path,
        sequence_bounds: Int[np.ndarray, " bound"],
        row_bounds: Int[np.ndarray, " bound"],
        facts: dict[str, Any],
    ) -> None:
        """Open or create. An existing store keeps the bounds that it was made with.

        Args:
            folder: its name is the content address.
            sequence_bounds: first sequence of each shard, and the end.
            row_bounds: first row of each shard, and the end.
            facts: model name and sizes, for people who look into the cache.

        Raises:
            StaleCacheError: the folder was written by another version.
            PrerequisiteError: the folder cannot be created.
        """
        self.folder = folder
        path = folder / MANIFEST
        bounds = {"sequence_bounds": sequence_bounds.tolist(), "row_bounds": row_bounds.tolist()}
        try:
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_json(path, {"format": FORMAT} | facts | bounds)
            manifest = read_manifest(folder)
            os.utime(path)  # last use, for pruning
        except OSError as error:
            raise unwritable(folder, error) from None
        if manifest is None or manifest.get("format") != FORMAT:
            raise StaleCacheError(
                f"{str(folder)!r} was written by another version (format {manifest and manifest.get('format')}, this one writes "
                f"{FORMAT}): remove it with `sprobe cache prune --stale`."
            )
        self.sequence_bounds, self.row_bounds = (tuple(manifest.get(name, ())) for name in bounds)
        if (self.sequence_bounds[-1:], self.row_bounds[-1:]) != ((sequence_bounds[-1],), (row_bounds[-1],)):
            raise StaleCacheError(
                f"{str(path)!r} does not fit its data: remove it with `sprobe cache prune {folder.name[:8]}`."
            )

    def array(self, site: Site, dtype: StoredType) -> LayerArray:
        """Where a site is stored, whether or not it is there already."""
        folder = self.folder / quote(site.name, safe="") / f"L{site.layer:03d}-{dtype}"
        return LayerArray(site=site, folder=folder, row_bounds=self.row_bounds, dtype=dtype)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a store; null where it is unreadable."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def unwritable(folder: Path, error: OSError) -> PrerequisiteError:
    """A full disk or a folder without permission, as a sentence."""
    return PrerequisiteError(
        f"activation cache {str(folder)!r} cannot be written ({error.strerror or error}): free some space, or set SPROBE_CACHE to "
        "a writable folder. What is already stored is kept; the same command goes on from there."
    )
