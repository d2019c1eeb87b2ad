"""The charts of interventions: a neuron among its placebos, dose curves, the matrix of effects."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sparse_probing.pages.palette import IN_CLASS, OUT_OF_CLASS

PLACEBO = "#8a949e"


def among_placebos(points: pl.DataFrame) -> dict[str, Any]:
    """Effect in class against effect out of class: the neuron and its placebos.

    Args:
        points: columns `what` (*neuron* or *placebo*), `name`, `effect_in`, `effect_out`.
    """
    base = alt.Chart(points).encode(
        x=alt.X("effect_out:Q", title="out of class, nats per token"),
        y=alt.Y("effect_in:Q", title="in class, nats per token"),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=["neuron", "placebo"], range=[IN_CLASS, PLACEBO]),
            legend=alt.Legend(title=None, orient="top"),
        ),
        tooltip=["name:N", alt.Tooltip("effect_in:Q", format="+.4f"), alt.Tooltip("effect_out:Q", format="+.4f")],
    )
    placebos = base.transform_filter("datum.what == 'placebo'").mark_point(filled=True, size=40, opacity=0.85)
    neuron = base.transform_filter("datum.what == 'neuron'").mark_point(
        filled=True, size=130, shape="diamond", opacity=1
    )
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]}))
    lines = zero.mark_rule(color="#c8ced4").encode(x="zero:Q") + zero.mark_rule(color="#c8ced4").encode(y="zero:Q")
    return (lines + placebos + neuron).properties(width=300, height=190).to_dict()


def dose_curve(points: pl.DataFrame) -> dict[str, Any]:
    """Change of the loss against the height of the clamp.

    Args:
        points: columns `value` (activation), `rows` (*in class* or *out of class*), `what` (*neuron* or *placebos, mean*),
            `effect`, `low`, `high` (null for placebos).
    """
    y = alt.Y("effect:Q", title="loss, nats per token")
    base = alt.Chart(points).encode(
        x=alt.X("value:Q", title="activation that it is set to"),
        color=alt.Color(
            "rows:N",
            scale=alt.Scale(domain=["in class", "out of class"], range=[IN_CLASS, OUT_OF_CLASS]),
            legend=alt.Legend(title=None, orient="top"),
        ),
    )
    lines = base.mark_line(point=True).encode(
        y=y,
        strokeDash=alt.StrokeDash(
            "what:N", legend=alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeColor="#333")
        ),
        tooltip=["what:N", "rows:N", alt.Tooltip("value:Q", format=".3f"), alt.Tooltip("effect:Q", format="+.4f")],
    )
    known = points.filter(pl.col("low").is_not_null())
    if not len(known):
        return lines.properties(width=300, height=190).to_dict()
    bars = base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title="loss, nats per token"), y2="high:Q")
    return (bars.transform_filter("isValid(datum.low)") + lines).properties(width=300, height=190).to_dict()


def effect_matrix(cells: pl.DataFrame, columns: list[str]) -> dict[str, Any]:
    """Whose neurons are switched off (rows) against whose texts are read (columns).

    Args:
        cells: columns `switched_off`, `affected`, `effect`, `neurons` (text), `effect_low`, `effect_high`.
        columns: order of both axes.
    """
    largest = max((abs(value) for value in cells["effect"].to_list()), default=1.0) or 1.0
    return (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=alt.X("affected:N", sort=columns, title="texts of", axis=alt.Axis(labelAngle=-40)),
            y=alt.Y("switched_off:N", sort=columns, title="neuron of"),
            color=alt.Color(
                "effect:Q",
                scale=alt.Scale(domain=[-largest, 0, largest], range=["#2166ac", "#f7f7f7", "#b2182b"]),
                title="nats per token",
            ),
            tooltip=[
                "neurons:N",
                "switched_off:N",
                "affected:N",
                alt.Tooltip("effect:Q", format="+.4f"),
                alt.Tooltip("effect_low:Q", format="+.4f"),
                alt.Tooltip("effect_high:Q", format="+.4f"),
            ],
        )
        .properties(width=max(120, 34 * len(columns)), height=max(60, 22 * len(columns)))
        .to_dict()
    )
