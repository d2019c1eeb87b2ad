"""The charts of a data sheet."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sparse_probing.pages.palette import IN_CLASS, OUT_OF_CLASS

COLOURS = {"in class": IN_CLASS, "rest": OUT_OF_CLASS, "all rows": "#5b6570"}


def class_histograms(bins: pl.DataFrame, title: str, first: str) -> dict[str, Any]:
    """Share of rows per bin, for one feature at a time, which is chosen from a list below the chart.

    Args:
        bins: columns `feature`, `rows` (`in class`, `rest` or `all rows`), `bin_low`, `bin_high`, `share`; empty bins may lack.
        title: of the axis.
        first: the feature that is shown first.
    """
    names = bins["feature"].unique(maintain_order=True).to_list()
    series = [name for name in COLOURS if name in bins["rows"].unique().to_list()]
    chart = (
        alt.Chart(bins)
        .mark_bar(opacity=0.6)
        .encode(
            x=alt.X("bin_low:Q", bin="binned", title=title, axis=alt.Axis(format="d", tickMinStep=1)),
            x2="bin_high:Q",
            y=alt.Y("share:Q", stack=None, title="share of rows", axis=alt.Axis(format="%")),
            color=alt.Color(
                "rows:N", scale=alt.Scale(domain=series, range=[COLOURS[name] for name in series]), title=None
            ),
            tooltip=["rows:N", alt.Tooltip("share:Q", format=".1%"), alt.Tooltip("bin_low:Q", title="from")],
        )
        .properties(width=330, height=170)
    )
    if len(names) > 1:
        chosen = alt.param(name="feature", value=first, bind=alt.binding_select(options=names, name="feature: "))
        chart = chart.add_params(chosen).transform_filter(alt.datum.feature == chosen)
    return chart.to_dict()
