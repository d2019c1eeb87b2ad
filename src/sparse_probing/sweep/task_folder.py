"""Finished tasks as files: what a stopped run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from sparse_probing.files import read_json

T = TypeVar("T")


def read_finished(path: Path, kind: type[T]) -> T | None:
    """Result of a finished task; null where there is none, and where the file is cut off or holds something else.

    A file is a result that was paid for already, nothing more: one that cannot be used is computed again.

    Args:
        path: JSON file.
        kind: the dataclass that it must hold.
    """
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except (FileNotFoundError, ValueError):
        return None
