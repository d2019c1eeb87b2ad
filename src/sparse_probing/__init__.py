"""Find which neurons of a language model carry a feature, how few are enough, and how sure you can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_probing.config import RunConfig as RunConfig
    from sparse_probing.datasets.labelled_text import document_level_text as document_level_text
    from sparse_probing.experiment import RunResult as RunResult
    from sparse_probing.experiment import run as run

_HOMES = {
    "RunConfig": "sparse_probing.config",
    "document_level_text": "sparse_probing.datasets.labelled_text",
    "RunResult": "sparse_probing.experiment",
    "run": "sparse_probing.experiment",
}
__all__ = ["RunConfig", "RunResult", "document_level_text", "run"]


def __getattr__(name: str) -> Any:
    """Public names are imported on first use: torch takes seconds, `sprobe --help` must not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sparse_probing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
