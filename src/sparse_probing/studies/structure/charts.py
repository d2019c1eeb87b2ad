"""Charts about redundancy and about the neuron basis."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sparse_probing.pages.palette import IN_CLASS, OUT_OF_CLASS

WIDTH, HEIGHT = 330, 190
THIRD = "#009e73"
"""Okabe-Ito bluish green."""
SOFT = "#5b6570"


def f1_against_removed(points: pl.DataFrame) -> dict[str, Any]:
    """Test F1 of what is left against the number of neurons that were taken away, one line per kind of probe.

    Args:
        points: columns `removed`, `f1`, `probe`, `neuron` (text of the tooltip); kinds are drawn in the order in which they come.
    """
    kinds = points["probe"].unique(maintain_order=True).to_list()
    scale = alt.Scale(domain=kinds, range=[IN_CLASS, OUT_OF_CLASS, THIRD][: len(kinds)])
    chart = (
        alt.Chart(points)
        .mark_line(point={"size": 26})
        .encode(
            x=alt.X("removed:Q", title="best neurons taken away", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("f1:Q", scale=alt.Scale(domain=[0, 1]), title="F1 (test)"),
            color=alt.Color(
                "probe:N", scale=scale, legend=alt.Legend(title=None, orient="bottom", columns=2, labelLimit=200)
            ),
            tooltip=["probe:N", "removed:Q", "neuron:N", alt.Tooltip("f1:Q", format=".3f")],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    return chart.to_dict()


def f1_against_rank(points: pl.DataFrame) -> dict[str, Any]:
    """Test F1 of the best neurons and of the best random directions, rank by rank; the band spans the random bases.

    Args:
        points: columns `rank`, `neuron_f1`, `direction_f1`, `direction_f1_low`, `direction_f1_high`.
    """
    x = alt.X("rank:Q", title="rank", scale=alt.Scale(domain=[1, max(2, points.height)]), axis=alt.Axis(tickMinStep=1))
    y = alt.Y("f1:Q", scale=alt.Scale(domain=[0, 1]), title="F1 (test)")
    band = (
        alt.Chart(points)
        .mark_area(opacity=0.2, color=OUT_OF_CLASS)
        .encode(x=x, y=alt.Y("direction_f1_low:Q", title="F1 (test)"), y2="direction_f1_high:Q")
    )
    names = {"neuron_f1": "neurons", "direction_f1": "random directions"}
    long = points.select("rank", *names).rename(names).unpivot(index="rank", variable_name="basis", value_name="f1")
    lines = (
        alt.Chart(long)
        .mark_line()
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "basis:N",
                scale=alt.Scale(domain=list(names.values()), range=[IN_CLASS, OUT_OF_CLASS]),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            tooltip=["basis:N", "rank:Q", alt.Tooltip("f1:Q", format=".3f")],
        )
    )
    return (band + lines).properties(width=WIDTH, height=HEIGHT).to_dict()


def neuron_against_direction(points: pl.DataFrame) -> dict[str, Any]:
    """One point per feature: F1 of the best neuron over that of the best random direction; the bar spans the bases.

    Args:
        points: columns `feature`, `category`, `neuron_f1`, `direction_f1`, `direction_f1_low`, `direction_f1_high`.
    """
    scale = alt.Scale(domain=[0, 1])
    diagonal = (
        alt.Chart(pl.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0]}))
        .mark_line(strokeDash=[5, 4], color=SOFT)
        .encode(x="x:Q", y="y:Q")
    )
    base = alt.Chart(points).encode(y=alt.Y("neuron_f1:Q", scale=scale, title="best neuron, F1 (test)"))
    bars = base.mark_rule(opacity=0.45, color=OUT_OF_CLASS).encode(
        x=alt.X("direction_f1_low:Q", scale=scale, title="best random direction, F1 (test)"), x2="direction_f1_high:Q"
    )
    dots = base.mark_point(filled=True, size=45, color=IN_CLASS, opacity=0.8).encode(
        x=alt.X("direction_f1:Q", scale=scale, title="best random direction, F1 (test)"),
        tooltip=[
            "category:N",
            "feature:N",
            alt.Tooltip("neuron_f1:Q", format=".3f", title="best neuron"),
            alt.Tooltip("direction_f1:Q", format=".3f", title="best random direction"),
        ],
    )
    return (diagonal + bars + dots).properties(width=WIDTH, height=260).to_dict()
