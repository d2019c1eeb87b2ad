"""Atomic files: written under a temporary name, flushed to disk, then renamed, so that a reader never sees half a file.

Paths mean what they say: polars would expand `[`, `*` and `?` in a path and read another file, so tables are read here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import polars as pl

PARTIAL = ".partial"
"""Ending of files that are being written; one that is left over belongs to a killed process."""


LONGEST_STEM = 80
"""Bytes of a file name that are left of a long text; file systems take 255 in all."""


def file_name(text: str) -> str:
    """A file name for any text: the beginning of its letters and digits, and a hash, so that no two texts share it; ASCII case and
    the length of names do not matter.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    words = re.sub(r"[^\w-]", "_", text)
    return f"{_cut(words, LONGEST_STEM)}-{digest}"


def _cut(name: str, size: int) -> str:
    return name.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def no_file(path: Path) -> str | None:
    """Why a path cannot be read as a file, in words; null where it can. A pipe is never opened: that might wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return "does not exist: check the path"
    if stat.S_ISREG(mode):
        return None
    return "is a folder: name a file in it" if stat.S_ISDIR(mode) else "is a device or a pipe: save it as a file first"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it to `path`.

    After a power cut the path holds the old content or the new one, never an empty file.
    """
    stem = _cut(path.name, LONGEST_STEM)
    partial = path.with_name(f".{stem}.{uuid4().hex}{PARTIAL}")  # unique on a shared file system, too
    try:
        write(partial)
        _flush(partial)
        partial.replace(path)
        with contextlib.suppress(OSError):  # some file systems cannot flush a folder
            _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> None:
    """Delete what killed processes left half written in a folder that belongs to one process at a time (not in the cache)."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if is_partial(path):
            path.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Whether `write_atomically` made this temporary file."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL) and path.is_file()


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Strict JSON, atomically; a NaN or infinity in `value` is a bug and raises ValueError."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Parquet, atomically; same table, same bytes."""
    write_atomically(path, lambda partial: table.write_parquet(partial, compression="zstd", statistics=False))


def read_json(path: Path) -> Any:
    """Strict JSON.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is cut off or no JSON (NaN, endless nesting, half a surrogate pair are none); the message names no path.
    """
    text = path.read_text(encoding="utf-8")
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\ud" in text or "\\uD" in text:  # only an escape can smuggle in half a pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def read_table(path: Path) -> pl.DataFrame:
    """Parquet, from this very path.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is cut off or no Parquet; the message names no path.
    """
    with path.open("rb") as file:
        try:
            return pl.read_parquet(file)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise ValueError(str(error).splitlines()[0].rstrip(".")) from None
