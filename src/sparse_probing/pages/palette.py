"""Colours, shapes and settings of every chart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import altair as alt

IN_CLASS, OUT_OF_CLASS = "#d55e00", "#0072b2"
"""Okabe-Ito vermilion and blue: told apart by colour-blind readers and in print."""
OKABE_ITO = ("#0072b2", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#000000", "#999999")
"""Its eight colours for lines on white: grey in place of yellow."""
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-right", "triangle-left")


@contextmanager
def whole_tables() -> Iterator[None]:
    """Charts hold all of their rows: Altair stops at 5,000, which 155 features of 33 layers exceed. What a notebook has set comes
    back.
    """
    with alt.data_transformers.enable("default", max_rows=None):
        yield
