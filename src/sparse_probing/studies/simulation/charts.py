"""The chart of a simulation."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import altair as alt
import polars as pl

from sparse_probing.pages.palette import OKABE_ITO, SHAPES

SIDESTEP = 0.05
"""Octaves between the points of neighbouring methods, at most: at equal places their error bars would cover each other."""


def recall_against_rows(points: pl.DataFrame, title: str) -> dict[str, Any]:
    """A measure of selectors against the number of rows, one line per selector, bars of one standard error.

    A click on the legend brings a selector to the front. Points of one size stand side by side.

    Args:
        points: columns `method`, `rows`, `value`, `se` (null where there is one repeat); methods in the order of the legend.
        title: of the axis.
    """
    methods = points["method"].unique(maintain_order=True).to_list()
    place = pl.col("method").replace_strict({name: i - (len(methods) - 1) / 2 for i, name in enumerate(methods)})
    sizes = sorted(set(points["rows"].to_list()))
    gaps = [math.log2(b / a) for a, b in pairwise(sizes)]
    step = min(SIDESTEP, 0.6 * min(gaps, default=1.0) / len(methods))
    spread = pl.col("se").fill_null(0.0)
    placed = points.with_columns(
        x=pl.col("rows") * pl.lit(2.0).pow(step * place),
        low=(pl.col("value") - spread).clip(0, 1),
        high=(pl.col("value") + spread).clip(0, 1),
    )
    front = alt.selection_point(fields=["method"], bind="legend")
    order = alt.Scale(domain=methods, range=[OKABE_ITO[i % len(OKABE_ITO)] for i in range(len(methods))])
    shapes = alt.Scale(domain=methods, range=[SHAPES[i % len(SHAPES)] for i in range(len(methods))])
    base = alt.Chart(placed).encode(
        x=alt.X(
            "x:Q",
            scale=alt.Scale(type="log", base=2, nice=False, padding=18),
            title="rows",
            axis=alt.Axis(values=sizes, format=",d"),
        ),
        color=alt.Color("method:N", scale=order, title="selector"),
        opacity=alt.condition(front, alt.value(1.0), alt.value(0.12)),
    )
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, 1]), title=title)
    bars = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    marks = base.mark_point(filled=True, size=60).encode(
        y=y,
        shape=alt.Shape("method:N", scale=shapes, title="selector"),
        tooltip=[
            alt.Tooltip("method:N", title="selector"),
            alt.Tooltip("rows:Q", format=","),
            alt.Tooltip("value:Q", format=".3f", title=title),
            alt.Tooltip("se:Q", format=".3f", title="standard error"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.6).encode(y=y)
    return (lines + bars + marks).add_params(front).properties(width=560, height=300).to_dict()
