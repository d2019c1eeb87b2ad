"""What a source of features is: a builder from source text to labelled text, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.readers import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How a source is read."""

    seed: int = 0
    """Which documents are drawn where there are more than are needed."""
    paper_rules: bool = False
    """Reproduce the paper's rules, defects included, instead of ours."""
    most: int | None = None
    """Documents to draw per class (or in all, where there are no classes); null: the source's own number."""
    window: int = 256
    """Tokens that a window will hold: long texts are cut into pieces that fill one."""
    rows: Callable[[], Iterator[tuple[str | None, Row]]] | None = None
    """Split and row of a Hugging Face data set under the names of our layout, instead of the files of a folder."""
    progress: Callable[[int], None] = lambda _: None
    """Told how many source rows (documents, sentences, names) were read since the last call."""


class Source(NamedTuple):
    """One feature category of the paper."""

    name: str
    build: Callable[[Path, BuildOptions], LabelledText]
    layout: str
    """Name of the folder layout in docs/datasets.md."""
    features: tuple[str, ...]
    """The paper's features, as this source names them."""
    also: str = ""
    """What it builds besides, or instead."""
