"""One file per feature category: a folder of source text in, `LabelledText` out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.sources import (
    corpus_classes,
    demo_corpus,
    part_of_speech,
    text_features,
)

SOURCES: dict[str, Callable[[Path, int], LabelledText]] = {
    "natural-language": corpus_classes.natural_language,
    "programming-language": corpus_classes.programming_language,
    "kind-of-text": corpus_classes.kind_of_text,
    "text-features": text_features.text_features,
    "part-of-speech": part_of_speech.part_of_speech,
}
"""Name on the command line -> builder(folder, seed). The folder layouts are described in docs/datasets.md."""

__all__ = ["SOURCES", "demo_corpus"]
