"""What a verification asks of its studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_probing.config import VerifyConfig
from sparse_probing.datasets.text_folder import TextSample
from sparse_probing.open_run import OpenRun


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A run opened again, which of its features are studied, and how."""

    run: OpenRun
    features: Sequence[int]
    """Indices into the run's dataset."""
    config: VerifyConfig
    sample: TextSample | None
    """Unlabelled text, where some was given."""
    tasks: Path
    """Folder for what is finished, of a study that keeps its own; `STUDY.json` is written by the verification."""
