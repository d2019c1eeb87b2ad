"""Charts of weight statistics."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sparse_probing.pages.palette import IN_CLASS, OUT_OF_CLASS


def layer_boxes(quantiles: pl.DataFrame, named: pl.DataFrame, title: str) -> dict[str, Any]:
    """A statistic of all neurons per layer: whisker 0.5 to 99.5 %, box 20 to 80 %, median; the run's neurons as points.

    Args:
        quantiles: columns `layer`, `q005`, `q20`, `q50`, `q80`, `q995`.
        named: columns `layer`, `neuron`, `features`, `value`.
        title: of the axis.
    """
    hints = [
        alt.Tooltip(f"{name}:Q", format=".3g", title=words)
        for name, words in (("q20", "20 %"), ("q50", "median"), ("q80", "80 %"))
    ]
    base = alt.Chart(quantiles).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)), tooltip=["layer:O", *hints]
    )
    y = alt.Y("q005:Q", title=title, scale=alt.Scale(zero=False))
    whiskers = base.mark_rule(color=OUT_OF_CLASS).encode(y=y, y2="q995:Q")
    boxes = base.mark_bar(size=14, color="#9fc5de").encode(y=alt.Y("q20:Q", title=title), y2="q80:Q")
    medians = base.mark_tick(size=14, thickness=2, color=OUT_OF_CLASS).encode(y=alt.Y("q50:Q", title=title))
    points = (
        alt.Chart(named)
        .mark_point(filled=True, size=26, color=IN_CLASS, opacity=0.75, xOffset=11)
        .encode(
            x="layer:O",
            y=alt.Y("value:Q", title=title),
            tooltip=["neuron:N", "features:N", alt.Tooltip("value:Q", format=".3g", title=title)],
        )
    )
    return (whiskers + boxes + medians + points).properties(width=330, height=190).to_dict()
