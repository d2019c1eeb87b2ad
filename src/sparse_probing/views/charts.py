"""The charts of a run: layers, sizes, activations."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sparse_probing.pages.palette import IN_CLASS, OUT_OF_CLASS


def f1_against_k(points: pl.DataFrame) -> dict[str, Any]:
    """F1 on validation against the number of neurons, one line per layer.

    Args:
        points: columns `k`, `layer`, `f1`.
    """
    return _against_k(points, "f1", "F1 (validation)").to_dict()


def r2_against_k(points: pl.DataFrame, dense: float) -> dict[str, Any]:
    """R2 on validation against the number of neurons, one line per layer, and all neurons of the best layer as a dashed line.

    Args:
        points: columns `k`, `layer`, `r2`; what lies below 0 is not drawn.
        dense: R2 of all neurons.
    """
    rule = (
        alt.Chart(pl.DataFrame({"r2": [max(dense, 0.0)], "probe": ["all neurons"]}))
        .mark_rule(strokeDash=[5, 4], color="#5b6570")
        .encode(y="r2:Q", tooltip=["probe:N", alt.Tooltip("r2:Q", format=".3f")])
    )
    lines = _against_k(points.filter(pl.col("r2") >= 0), "r2", "R² (validation)")
    return (rule + lines).properties(width=330, height=190).to_dict()


def _against_k(points: pl.DataFrame, field: str, title: str) -> alt.Chart:
    return (
        alt.Chart(points)
        .mark_line(point={"size": 22})
        .encode(
            x=alt.X(
                "k:Q",
                scale=alt.Scale(type="log", base=2, nice=False),
                title="neurons k",
                axis=alt.Axis(values=[1, 2, 4, 8, 16, 32, 64, 128, 256]),
            ),
            y=alt.Y(f"{field}:Q", scale=alt.Scale(domain=[0, 1]), title=title),
            color=alt.Color("layer:O", scale=alt.Scale(scheme="viridis"), title="layer"),
            tooltip=["layer:O", "k:Q", alt.Tooltip(f"{field}:Q", format=".3f")],
        )
        .properties(width=330, height=190)
    )


def layer_heatmap(cells: pl.DataFrame) -> dict[str, Any]:
    """F1 of the best single neuron per layer and feature, on validation.

    Args:
        cells: columns `feature`, `layer`, `f1`, `neuron`; features are drawn in the order in which they come.
    """
    return _heatmap(cells, "feature", "f1", "F1")


def r2_heatmap(cells: pl.DataFrame) -> dict[str, Any]:
    """R2 of the best single neuron per layer and number, on validation.

    Args:
        cells: columns `number`, `layer`, `r2`, `neuron`; numbers are drawn in the order in which they come.
    """
    return _heatmap(cells, "number", "r2", "R²")


def _heatmap(cells: pl.DataFrame, row: str, field: str, title: str) -> dict[str, Any]:
    order = cells[row].unique(maintain_order=True).to_list()
    base = alt.Chart(cells).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)), y=alt.Y(f"{row}:N", sort=order, title=None)
    )
    squares = base.mark_rect().encode(
        color=alt.Color(f"{field}:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1], clamp=True), title=title),
        tooltip=[f"{row}:N", "layer:O", "neuron:N", alt.Tooltip(f"{field}:Q", format=".3f")],
    )
    numbers = base.mark_text(fontSize=10).encode(
        text=alt.Text(f"{field}:Q", format=".2f"),
        color=alt.condition(f"datum.{field} > 0.6", alt.value("#111"), alt.value("#fff")),
    )
    return (
        (squares + numbers).properties(width=max(180, 44 * cells["layer"].n_unique()), height=18 * len(order)).to_dict()
    )


def number_profile(bins: pl.DataFrame, number: str) -> dict[str, Any]:
    """Activation of one unit along a number: median, and the band from the 10 % to the 90 % quantile.

    Args:
        bins: columns `value`, `rows`, `activation`, `activation_low`, `activation_high`.
        number: its name, for the axis.
    """
    base = alt.Chart(bins).encode(x=alt.X("value:Q", title=number, scale=alt.Scale(zero=False)))
    band = base.mark_area(opacity=0.22, color=OUT_OF_CLASS).encode(
        y=alt.Y("activation_low:Q", title="activation"), y2="activation_high:Q"
    )
    line = base.mark_line(point={"size": 22, "color": OUT_OF_CLASS}, color=OUT_OF_CLASS).encode(
        y=alt.Y("activation:Q", title="activation"),
        tooltip=[
            alt.Tooltip("value:Q", format=".4~g", title=number),
            alt.Tooltip("activation:Q", format=".3f", title="median activation"),
            alt.Tooltip("rows:Q", title="rows"),
        ],
    )
    return (band + line).properties(width=330, height=190).to_dict()


def activation_histogram(bins: pl.DataFrame) -> dict[str, Any]:
    """Share of rows per activation bin, in class and out of class.

    Args:
        bins: columns `bin_low`, `bin_high`, `in_class`, `out_of_class` (row counts).
    """
    shares = bins.select(
        "bin_low",
        "bin_high",
        (pl.col("in_class") / pl.col("in_class").sum()).alias("in class"),
        (pl.col("out_of_class") / pl.col("out_of_class").sum()).alias("out of class"),
    ).unpivot(index=["bin_low", "bin_high"], variable_name="rows", value_name="share")
    chart = (
        alt.Chart(shares)
        .mark_bar(opacity=0.6)
        .encode(
            x=alt.X("bin_low:Q", bin="binned", title="activation"),
            x2="bin_high:Q",
            y=alt.Y("share:Q", stack=None, title="share of rows", axis=alt.Axis(format="%")),
            color=alt.Color(
                "rows:N",
                scale=alt.Scale(domain=["in class", "out of class"], range=[IN_CLASS, OUT_OF_CLASS]),
                title=None,
            ),
            tooltip=["rows:N", alt.Tooltip("share:Q", format=".1%"), alt.Tooltip("bin_low:Q", format=".3f")],
        )
        .properties(width=330, height=190)
    )
    return chart.to_dict()
