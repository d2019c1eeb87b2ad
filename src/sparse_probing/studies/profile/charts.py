"""Charts of what a neuron does token by token."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sparse_probing.pages.palette import IN_CLASS, OKABE_ITO, OUT_OF_CLASS

SIDES = alt.Scale(domain=["in class", "out of class"], range=[IN_CLASS, OUT_OF_CLASS])
WIDTH, HEIGHT = 330, 190
ABOVE = alt.Legend(orient="top")
BOX_HEIGHT = 14
"""Pixels of one line of a box plot."""


def token_histogram(bins: pl.DataFrame) -> dict[str, Any]:
    """Share of tokens per activation bin, in class and out of class, logarithmic: most tokens lie near zero.

    Args:
        bins: columns `series` (`in class`, `out of class`), `bin_low`, `bin_high`, `tokens`.
    """
    shares = bins.with_columns(share=pl.col("tokens") / pl.col("tokens").sum().over("series")).filter(
        pl.col("tokens") > 0
    )
    floor = 0.5 / max(1, sum(bins["tokens"].to_list()))  # below one token
    chart = (
        alt.Chart(shares)
        .mark_bar(opacity=0.6)
        .encode(
            x=alt.X("bin_low:Q", bin="binned", title="activation at a token"),
            x2="bin_high:Q",
            y=alt.Y(
                "share:Q",
                stack=None,
                title="share of tokens (log)",
                scale=alt.Scale(type="log", domain=[floor, 1], nice=False),
                axis=alt.Axis(format="~%", tickCount=5),
            ),
            y2=alt.Y2Datum(floor),
            color=alt.Color("series:N", scale=SIDES, title=None, legend=ABOVE),
            tooltip=[
                alt.Tooltip("series:N", title="tokens"),
                alt.Tooltip("share:Q", format=".3~%"),
                alt.Tooltip("tokens:Q", format=","),
                alt.Tooltip("bin_low:Q", format=".3f", title="from"),
                alt.Tooltip("bin_high:Q", format=".3f", title="to"),
            ],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    return chart.to_dict()


def group_boxes(groups: pl.DataFrame) -> dict[str, Any]:
    """Activation by group: line from 5 to 95 %, box from 25 to 75 %, median; the largest median on top.

    Args:
        groups: columns `series`, `side` (`in class` or `out of class`), `tokens`, `q05`, `q25`, `q50`, `q75`, `q95`.
    """
    order = groups.sort("q50", descending=True)["series"].to_list()
    base = alt.Chart(groups).encode(y=alt.Y("series:N", sort=order, title=None, axis=alt.Axis(labelLimit=130)))
    return (
        _boxes(base, ["series:N", alt.Tooltip("tokens:Q", format=",")])
        .properties(width=WIDTH, height=BOX_HEIGHT * max(4, len(order)))
        .to_dict()
    )


def token_boxes(tokens: pl.DataFrame) -> dict[str, Any]:
    """Activation at the same tokens in class and out of class, one line per token and side.

    Args:
        tokens: columns `label`, `side`, `count`, `q05`, `q25`, `q50`, `q75`, `q95`; in the order in which they are drawn.
    """
    order = tokens["label"].unique(maintain_order=True).to_list()
    base = alt.Chart(tokens).encode(
        y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=130), scale=alt.Scale(paddingInner=0.35)),
        yOffset=alt.YOffset("side:N", sort=["in class", "out of class"]),
    )
    return (
        _boxes(base, [alt.Tooltip("label:N", title="token"), "side:N", alt.Tooltip("count:Q", format=",")], thick=5)
        .properties(width=WIDTH, height=BOX_HEIGHT * max(4, len(order)))
        .to_dict()
    )


def _boxes(base: alt.Chart, said: list[Any], thick: int = 8) -> Any:
    quantiles = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("q05", "q25", "q50", "q75", "q95")]
    colour = alt.Color("side:N", scale=SIDES, title=None, legend=ABOVE)
    coloured = base.encode(color=colour, tooltip=[*said, *quantiles])
    line, box, median = (alt.X(f"{name}:Q", title="activation at a token") for name in ("q05", "q25", "q50"))
    return (
        coloured.mark_rule().encode(x=line, x2="q95:Q")
        + coloured.mark_bar(size=thick, opacity=0.75).encode(x=box, x2="q75:Q")
        + coloured.mark_tick(thickness=2, size=thick + 2).encode(x=median, color=alt.value("#111"))
    )


def threshold_curve(points: pl.DataFrame) -> dict[str, Any]:
    """Precision, recall and F1 of the rows against the threshold.

    Args:
        points: columns `threshold`, `precision`, `recall`, `f1`.
    """
    names = ["precision", "recall", "F1"]
    long = points.rename({"f1": "F1"}).unpivot(names, index="threshold", variable_name="score")
    return (
        alt.Chart(long)
        .mark_line()
        .encode(
            x=alt.X("threshold:Q", title="threshold on the row's activation", scale=alt.Scale(zero=False)),
            y=alt.Y("value:Q", title="score, test rows", scale=alt.Scale(domain=[0, 1])),
            color=alt.Color(
                "score:N", scale=alt.Scale(domain=names, range=list(OKABE_ITO[1:4])), title=None, legend=ABOVE
            ),
            tooltip=["score:N", alt.Tooltip("threshold:Q", format=".4f"), alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(width=WIDTH, height=HEIGHT)
        .to_dict()
    )
