"""A comparison of runs as one record for its page and for the terminal."""

from __future__ import annotations

from typing import Any

import polars as pl

from sparse_probing.pages.palette import whole_tables
from sparse_probing.results.verdict import FEW
from sparse_probing.studies.comparison.charts import f1_against_depth, f1_against_size, run_heatmap
from sparse_probing.studies.comparison.comparison import Comparison
from sparse_probing.studies.comparison.dynamics import DYNAMICS, NO_TREND

SHORT = {"dedicated neuron": "dedicated", "readable from the text alone": "text alone"}


def comparison_view(comparison: Comparison) -> dict[str, Any]:
    """Everything that is shown, without charts: runs, dynamics with their features, and per category means and features.

    A feature's `cells` and a category's `means` hold one entry per run, in order; null where a run does not have the feature.
    """
    tables, names = comparison.tables, [run["run"] for run in comparison.runs]
    dynamics = tables["dynamics"]
    return {
        "runs": [run | {"size_words": size_words(run["size"])} for run in comparison.runs],
        "size_unit": comparison.size_unit,
        "notes": comparison.notes,
        "n_features": len(dynamics),
        "dynamics": [
            {"name": name, "features": dynamics.filter(dynamic=name).select("category", "feature").rows()}
            for name in DYNAMICS
            if name in dynamics["dynamic"]
        ],
        "categories": [
            {
                "name": category,
                "means": _by_run(tables["categories"].filter(category=category), names),
                "features": [
                    row
                    | {
                        "cells": (
                            cells := _by_run(tables["summary"].filter(category=category, feature=row["feature"]), names)
                        )
                    }
                    | {"verdicts": verdict_path([cell["verdict"] for cell in cells if cell])}
                    for row in dynamics.filter(category=category).to_dicts()
                ],
            }
            for category in dynamics["category"].unique(maintain_order=True)
        ],
    }


@whole_tables()
def comparison_charts(comparison: Comparison) -> dict[str, Any]:
    """Chart id -> specification: `size-C`, `depth-C` and `heatmap-C` for category number C."""
    tables, charts = comparison.tables, {}
    sizes = pl.DataFrame([{"run": run["run"], "size": run["size"]} for run in comparison.runs])
    for c, category in enumerate(tables["dynamics"]["category"].unique(maintain_order=True)):
        dynamics = tables["dynamics"].filter(category=category)
        label = pl.when(dynamic=NO_TREND).then("feature").otherwise(pl.format("{} · {}", "feature", "dynamic"))
        panels = dynamics.select("category", "feature", label.alias("panel"))
        mine = {
            name: tables[name].join(panels, on=["category", "feature"], maintain_order="left")
            for name in tables
            if name != "categories"
        }
        probe = pl.col("probe").replace_strict({"single": "one neuron", "dense": "all neurons"})
        points = mine["comparison"].filter(pl.col("probe") != "sparse").join(sizes, on="run", maintain_order="left")
        ends = {"f1": "test_f1", "low": "test_f1_low", "high": "test_f1_high"}
        charts[f"size-{c}"] = f1_against_size(
            points.select("panel", "run", "size", probe, **{name: pl.col(column) for name, column in ends.items()}),
            comparison.size_unit if comparison.by_size else None,
        )
        place = mine["depths"].select("panel", "run", "layer", "relative_depth", "single_f1", "sparse_f1", "sparse_k")
        depth = [
            place.select("panel", "run", "layer", "relative_depth", pl.lit(name).alias("probe"), f1=f1, k=k)
            for name, f1, k in (
                ("one neuron", "single_f1", pl.lit(1, pl.Int32)),
                (f"up to {FEW} neurons", "sparse_f1", "sparse_k"),
            )
        ]
        charts[f"depth-{c}"] = f1_against_depth(pl.concat(depth))
        charts[f"heatmap-{c}"] = run_heatmap(mine["summary"].select("feature", "run", "f1", "neuron"))
    return charts


def size_words(size: int) -> str:
    """`6,144`, `70.4 M`, `1.2 G`."""
    for power, letter in ((9, "G"), (6, "M")):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {letter}"
    return f"{size:,}"


def verdict_path(verdicts: list[str]) -> str:
    """Verdicts from run to run, shortened, repeats left out: `not found → few → dedicated`."""
    short = [
        SHORT.get(verdict, verdict.removesuffix(")").split(" neurons (")[0].split(" (")[0]) for verdict in verdicts
    ]
    return " → ".join(word for i, word in enumerate(short) if i == 0 or word != short[i - 1])


def _by_run(table: pl.DataFrame, names: list[str]) -> list[dict[str, Any] | None]:
    rows = {row["run"]: row for row in table.to_dicts()}
    return [rows.get(name) for name in names]
