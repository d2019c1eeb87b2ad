"""The charts of a comparison of runs: small panels, one per feature, all on the same scale."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sparse_probing.pages.palette import IN_CLASS, OUT_OF_CLASS

PANELS = 4
"""In a row of the page."""
PROBES = {"one neuron": IN_CLASS, "all neurons": OUT_OF_CLASS}
F1 = alt.Scale(domain=[0, 1])


def f1_against_size(points: pl.DataFrame, unit: str | None) -> dict[str, Any]:
    """Test F1 of the best single neuron and of all neurons, run by run, bars of the 95 % interval.

    Args:
        points: columns `panel`, `run`, `size`, `probe` (`one neuron` or `all neurons`), `f1`, `low`, `high`; panels and runs in
            their order.
        unit: what `size` counts, for a logarithmic axis; null where sizes are no axis, then runs stand side by side.
    """
    if unit is None:
        x = alt.X("run:N", sort=_in_order(points, "run"), title=None, axis=alt.Axis(labelAngle=-35, labelLimit=90))
    else:
        sizes = sorted(set(points["size"].to_list()))
        axis = alt.Axis(values=sizes, format=".2~s", grid=False)
        x = alt.X("size:Q", scale=alt.Scale(type="log", nice=False, padding=10), title=unit, axis=axis)
    colour = alt.Color(
        "probe:N", scale=alt.Scale(domain=list(PROBES), range=list(PROBES.values())), title=None, legend=_TOP
    )
    layers = []
    for probe, width, aside in (
        ("all neurons", 4.0, 3),
        ("one neuron", 1.8, -3),
    ):  # equal lines and bars: both are seen
        base = alt.Chart().transform_filter(alt.datum.probe == probe).encode(x=x, color=colour)
        layers += [
            base.mark_rule(strokeWidth=1.3, xOffset=aside).encode(
                y=alt.Y("low:Q", scale=F1, title="F1 (test)"), y2="high:Q"
            ),
            base.mark_line(point={"size": 26}, strokeWidth=width).encode(
                y=alt.Y("f1:Q", scale=F1, title="F1 (test)"),
                tooltip=[
                    "run:N",
                    "probe:N",
                    *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("f1", "low", "high")),
                ],
            ),
        ]
    return _panels(alt.layer(*layers), points).to_dict()


def f1_against_depth(points: pl.DataFrame) -> dict[str, Any]:
    """Validation F1 of each layer's best probe against relative depth, one line per run; buttons choose the kind of probe.

    Args:
        points: columns `panel`, `run`, `layer`, `relative_depth`, `probe`, `f1`, `k`; panels, runs and probes in their order. The
            first probe is shown first.
    """
    order, probes = _in_order(points, "run"), _in_order(points, "probe")
    chosen = alt.param(name="probe", value=probes[0], bind=alt.binding_radio(options=probes, name=" "))
    lines = (
        alt.Chart()
        .mark_line(point={"size": 22}, strokeWidth=1.6)
        .encode(
            x=alt.X("relative_depth:Q", scale=alt.Scale(domain=[0, 1]), title="relative depth"),
            y=alt.Y("f1:Q", scale=F1, title="F1 (validation)"),
            color=alt.Color(
                "run:N", sort=order, scale=alt.Scale(domain=order, scheme="viridis"), title=None, legend=_TOP
            ),
            tooltip=["run:N", "layer:O", alt.Tooltip("f1:Q", format=".3f"), alt.Tooltip("k:Q", title="neurons")],
        )
        .transform_filter(alt.datum.probe == chosen)
    )
    return _panels(lines, points).add_params(chosen).to_dict()


def run_heatmap(cells: pl.DataFrame) -> dict[str, Any]:
    """Test F1 of the best single neuron, features x runs.

    Args:
        cells: columns `feature`, `run`, `f1`, `neuron`; features and runs in their order.
    """
    features, runs = _in_order(cells, "feature"), _in_order(cells, "run")
    base = alt.Chart(cells).encode(
        x=alt.X("run:N", sort=runs, title=None, axis=alt.Axis(labelAngle=-35, orient="top", labelLimit=140)),
        y=alt.Y("feature:N", sort=features, title=None),
    )
    squares = base.mark_rect().encode(
        color=alt.Color("f1:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1], clamp=True), title="F1"),
        tooltip=["feature:N", "run:N", "neuron:N", alt.Tooltip("f1:Q", format=".3f")],
    )
    numbers = base.mark_text(fontSize=10).encode(
        text=alt.Text("f1:Q", format=".2f"), color=alt.condition("datum.f1 > 0.6", alt.value("#111"), alt.value("#fff"))
    )
    return (squares + numbers).properties(width=60 * len(runs), height=18 * len(features)).to_dict()


_TOP = alt.Legend(orient="top", labelLimit=240)


def _in_order(table: pl.DataFrame, column: str) -> list[str]:
    return table[column].unique(maintain_order=True).to_list()


def _panels(chart: Any, points: pl.DataFrame) -> alt.FacetChart:
    header = alt.Header(labelFontWeight="bold", labelLimit=230)
    facet = alt.Facet("panel:N", sort=_in_order(points, "panel"), title=None, header=header)
    return chart.properties(width=210, height=110).facet(facet, columns=PANELS, data=points)
