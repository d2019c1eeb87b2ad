"""What lies in the cache, and how to make room."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

from sparse_probing.activations.store import FORMAT, MANIFEST, read_manifest, stores_folder
from sparse_probing.errors import InputError
from sparse_probing.files import PARTIAL

DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedStore:
    """One model on one dataset."""

    folder: Path
    model: str
    rows: int
    tokens: int
    sites: tuple[str, ...]
    """Site and number of layers with their type: `mlp.neurons 6 x float16`."""
    bytes: int
    last_used: float
    """Seconds since the epoch."""
    stale: bool
    """Written by another version, or unreadable: this version will not use it."""

    @property
    def address(self) -> str:
        """Name of the store."""
        return self.folder.name


def list_stores(cache: Path) -> list[CachedStore]:
    """All stores of a cache, last used first."""
    folder = stores_folder(cache)
    stores = [_describe(path) for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted(stores, key=lambda store: (-store.last_used, store.address))


def choose_to_prune(
    stores: Sequence[CachedStore],
    *,
    addresses: Sequence[str] = (),
    older_than_days: float | None = None,
    keep_bytes: int | None = None,
    stale: bool = False,
    everything: bool = False,
    now: float | None = None,
) -> list[CachedStore]:
    """Stores to remove: those that any of the rules names.

    Args:
        stores: last used first, as from `list_stores`.
        addresses: stores by name; a unique beginning is enough.
        older_than_days: not used for so long.
        keep_bytes: the longest unused ones, until the rest is no larger.
        stale: written by another version.
        everything: all.
        now: seconds since the epoch.

    Raises:
        InputError: an address that names no store, or several.
    """
    now = time.time() if now is None else now
    chosen = {_named(stores, address).address for address in addresses}
    if everything:
        chosen |= {store.address for store in stores}
    if stale:
        chosen |= {store.address for store in stores if store.stale}
    if older_than_days is not None:
        chosen |= {store.address for store in stores if now - store.last_used > older_than_days * DAY}
    if keep_bytes is not None:
        kept = 0
        for store in (store for store in stores if store.address not in chosen):
            kept += store.bytes
            if kept > keep_bytes:
                chosen.add(store.address)
    return [store for store in stores if store.address in chosen]


def remove(store: CachedStore) -> None:
    """Delete a store; it disappears at once, so that no other process finds half of it."""
    gone = store.folder.with_name(f".{store.folder.name}.{uuid4().hex}{PARTIAL}")
    store.folder.rename(gone)
    shutil.rmtree(gone)


def remove_leftovers(cache: Path, now: float | None = None) -> int:
    """Delete what killed processes left half written more than a day ago; returns the bytes."""
    now, freed = time.time() if now is None else now, 0
    for path in list(stores_folder(cache).rglob(f"*{PARTIAL}")):
        if path.exists() and now - path.stat().st_mtime > DAY:
            freed += _size(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return freed


def _named(stores: Sequence[CachedStore], address: str) -> CachedStore:
    found = [store for store in stores if store.address.startswith(address)]
    if len(found) != 1:
        raise InputError(f"{len(found)} stores begin with {address!r}: `sprobe cache ls` shows the names.")
    return found[0]


def _describe(folder: Path) -> CachedStore:
    manifest = read_manifest(folder) or {}
    current = manifest.get("format") == FORMAT
    path = folder / MANIFEST
    return CachedStore(
        folder=folder,
        model=str(manifest.get("model", "?")),
        rows=int(manifest.get("rows", 0)) if current else 0,
        tokens=int(manifest.get("tokens", 0)) if current else 0,
        sites=_stored_sites(folder) if current else (),
        bytes=_size(folder),
        last_used=(path if path.exists() else folder).stat().st_mtime,
        stale=not current,
    )


def _stored_sites(folder: Path) -> tuple[str, ...]:
    lines = []
    for site in sorted(path for path in folder.iterdir() if path.is_dir()):
        types = [path.name.partition("-")[2] for path in site.iterdir()]
        lines += [f"{unquote(site.name)} {types.count(dtype)} x {dtype}" for dtype in sorted(set(types))]
    return tuple(lines)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
