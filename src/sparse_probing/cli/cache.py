"""`sprobe cache`."""

from __future__ import annotations

import re
import time

from cyclopts import App

from sparse_probing.cli.terminal import Terminal
from sparse_probing.errors import InputError

cache = App(name="cache", help="Stored activations: what is there, how large, and how to make room.")

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@cache.command
def ls() -> None:
    """List the stores, last used first: one per model and dataset."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    from sparse_probing.activations.cache import list_stores
    from sparse_probing.activations.forecast import gigabytes
    from sparse_probing.activations.store import cache_folder

    stores = list_stores(cache_folder())
    console = Terminal()
    if not stores:
        console.print(f"nothing is stored in {cache_folder()}", soft_wrap=True)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "model", "rows", "tokens", "sites", "size", "last used"):
        right = name in ("rows", "tokens", "size")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "sites", overflow="ellipsis")
    for store in stores:
        table.add_row(
            store.address[:8],
            store.model,
            f"{store.rows:,}",
            f"{store.tokens:,}",
            "of another version" if store.stale else Group(*store.sites),
            gigabytes(store.bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(store.last_used)),
        )
    console.print(table)
    total = gigabytes(sum(store.bytes for store in stores))
    console.print(f"{len(stores)} stores, {total}, in {cache_folder()}", soft_wrap=True)


@cache.command
def size() -> None:
    """Print where the cache lies, how large it is and how much room its disk has."""
    from sparse_probing.activations.cache import list_stores
    from sparse_probing.activations.forecast import free_bytes, gigabytes
    from sparse_probing.activations.store import cache_folder

    folder = cache_folder()
    total = sum(store.bytes for store in list_stores(folder))
    free = gigabytes(free_bytes(folder))
    Terminal(soft_wrap=True).print(f"{gigabytes(total)} in {folder}, {free} free on its disk")


@cache.command
def prune(
    *names: str,
    older_than: float | None = None,
    keep: str | None = None,
    stale: bool = False,
    all: bool = False,
    dry_run: bool = False,
) -> None:
    """Remove stores. What is removed is computed again when it is needed.

    Args:
        names: Stores by name; the beginning is enough.
        older_than: Remove what was not used for so many days.
        keep: Remove the longest unused stores until the rest takes no more than this: 20GB, 500MB.
        stale: Remove what another version wrote.
        all: Remove everything.
        dry_run: Only say what would be removed.
    """
    from sparse_probing.activations.cache import choose_to_prune, list_stores, remove, remove_leftovers
    from sparse_probing.activations.forecast import gigabytes
    from sparse_probing.activations.store import cache_folder

    if not (names or stale or all or older_than is not None or keep is not None):
        raise InputError("nothing named: give names of stores, --older-than DAYS, --keep SIZE, --stale or --all.")
    chosen = choose_to_prune(
        list_stores(cache_folder()),
        addresses=names,
        older_than_days=older_than,
        keep_bytes=None if keep is None else parse_size(keep),
        stale=stale,
        everything=all,
    )
    console = Terminal(soft_wrap=True)
    freed = sum(store.bytes for store in chosen)
    for store in chosen:
        console.print(f"{store.address[:8]}  {gigabytes(store.bytes):>9}  {store.model}")
        if not dry_run:
            remove(store)
    if not dry_run:
        freed += remove_leftovers(cache_folder())
    console.print(f"{gigabytes(freed)} {'would be ' if dry_run else ''}freed, {len(chosen)} stores")


def parse_size(text: str) -> int:
    """`20GB`, `500 MB`, `0` as bytes.

    Raises:
        InputError: not a size.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    if match is None:
        raise InputError(f"{text!r} is no size: write it like 20GB or 500MB.")
    return int(float(match[1]) * UNITS[match[2].upper()])
