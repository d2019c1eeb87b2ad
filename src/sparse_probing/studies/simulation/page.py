"""The page of a simulation: what was planted, who found it, and how to read that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from sparse_probing.files import read_json, read_table, write_text
from sparse_probing.pages.palette import whole_tables
from sparse_probing.pages.render import render
from sparse_probing.studies.simulation.charts import recall_against_rows
from sparse_probing.studies.simulation.planted import STAND_IN

TITLES = {
    "recall": "Recall: planted units found",
    "recall_or_stand_in": "Recall, with stand-ins",
    "average_precision": "Average precision on fresh rows",
}


def shown_measures(options: dict[str, Any]) -> list[str]:
    """Measures that say something: recall with stand-ins only where there are any."""
    stand_ins = options["correlated"] > 0 and options["correlation"] >= STAND_IN
    return [name for name in TITLES if stand_ins or name != "recall_or_stand_in"]


def story(options: dict[str, Any]) -> str:
    """What was planted, in words."""
    many = options["k"] != 1
    parts = [
        f"{options['k']} of {options['units']:,} units {'were' if many else 'was'} made to carry a feature: in class, "
        f"{'each' if many else 'it'} is shifted by {options['shift']:g} standard deviations, up or down; "
        f"{100 * options['positive_share']:g} % of the rows are in class.",
        f"Each selector is then asked for {options['k']} unit{'s' if many else ''}.",
    ]
    if options["correlated"]:
        followers = f"{options['correlated']} distractor{'s' if options['correlated'] != 1 else ''}"
        parts.append(f"Each planted unit has {followers}, correlated with it by {options['correlation']:g}.")
    if options["features"] > 1:
        parts.append(f"{options['features']:,} such features share the units; the first one is looked for.")
    if options["label_noise"]:
        parts.append(f"{100 * options['label_noise']:g} % of the labels are wrong.")
    if options["activation"] == "gelu":
        parts.append("Activations have passed a quick-GELU.")
    return " ".join(parts)


def _meaning(measure: str, options: dict[str, Any]) -> str:
    if measure == "recall":
        return "Share of the planted units among the chosen ones. A distractor is a miss."
    if measure == "recall_or_stand_in":
        return (
            "Share of the planted units that were chosen themselves or through a distractor: with correlation "
            f"{options['correlation']:g}, at least {STAND_IN:g}, a distractor may stand in. Each planted unit counts once."
        )
    return (
        "The probe on the chosen units, refitted, on rows that no selector saw, labelled with the same noise. "
        f"Chance is {_noisy_share(options):.2f}, the share of rows that are labelled in class."
    )


def _noisy_share(options: dict[str, Any]) -> float:
    share, noise = options["positive_share"], options["label_noise"]
    return share * (1 - noise) + (1 - share) * noise


@whole_tables()
def write_simulation_report(folder: Path) -> Path:
    """Write `report.html` into a finished simulation folder, from its `config.json` and `recall.parquet`, and return its path."""
    config = read_json(folder / "config.json")
    table = read_table(folder / "recall.parquet")
    options = config["options"]
    measures = shown_measures(options)
    view = {
        "story": story(options),
        "rows": table["rows"].unique().sort().to_list(),
        "repeats": config["repeats"],
        "chance": options["k"] / options["units"],
        "version": config["version"],
        "seed": options["seed"],
        "measures": [
            {"name": name, "title": TITLES[name], "meaning": _meaning(name, options), "lines": lines(table, name)}
            for name in measures
        ],
    }
    charts = {
        name: recall_against_rows(
            table.select("method", "rows", pl.col(name).alias("value"), pl.col(f"{name}_se").alias("se")),
            TITLES[name].split(":")[0].split(" on ")[0].lower(),
        )
        for name in measures
    }
    page = render("studies/simulation/page.html", charts, view=view)
    path = folder / "report.html"
    write_text(path, page)
    return path


def lines(table: pl.DataFrame, measure: str) -> list[dict[str, Any]]:
    """One line per method, its cells by number of rows."""
    return [
        {
            "method": method,
            "cells": [{"value": row[measure], "se": row[f"{measure}_se"]} for row in block.sort("rows").to_dicts()],
        }
        for (method,), block in table.group_by("method", maintain_order=True)
    ]
