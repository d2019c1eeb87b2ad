"""Atomic files: written under a temporary name, then renamed, so that a reader never sees half a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

PARTIAL = ".partial"
"""Ending of files that are being written; one that is left over belongs to a killed process."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}{PARTIAL}")  # unique on a shared file system, too
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Strict JSON, atomically; a NaN or infinity in `value` is a bug and raises ValueError."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Parquet, atomically; same table, same bytes."""
    write_atomically(path, lambda partial: table.write_parquet(partial, compression="zstd", statistics=False))
