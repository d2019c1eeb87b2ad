"""Data sheets as the page shows them: five questions answered at a glance, then tables and charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sparse_probing.pages.palette import whole_tables
from sparse_probing.results.run_folder import read_sheets
from sparse_probing.studies.datasheet.charts import class_histograms
from sparse_probing.studies.datasheet.confounds import TEXT, warnings_of
from sparse_probing.studies.datasheet.words import checks, glance, warned

AXES = {
    "text_length": "tokens of the text (at most a window)",
    "row_length": "tokens of the row",
    "position": "position of the row's first token",
}


@whole_tables()
def dataset_view(sheets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page shows of each sheet (from `datasheet`): the sheet itself, words and charts."""
    return [
        sheet
        | {
            "glance": glance(sheet),
            "checks": checks(sheet),
            "warned": warned(sheet),
            "charts": {name: _chart(sheet, name) for name in AXES if name in sheet["histograms"]},
        }
        for sheet in sheets
    ]


def dataset_charts(view: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Chart id in the page -> specification."""
    return {f"data-{c}-{name}": chart for c, sheet in enumerate(view) for name, chart in sheet["charts"].items()}


def _chart(sheet: dict[str, Any], measure: str) -> dict[str, Any]:
    histogram = sheet["histograms"][measure]
    width = histogram["bin_width"]
    series = [
        (feature["name"], rows, feature[key])
        for feature in histogram["features"]
        for rows, key in (("in class", "class"), ("rest", "rest"))
    ]
    bins = [
        {
            "feature": name,
            "rows": rows,
            "bin_low": i * width,
            "bin_high": (i + 1) * width,
            "share": round(count / sum(counts), 4),
        }
        for name, rows, counts in series or [("all", "all rows", histogram["rows"])]
        for i, count in enumerate(counts)
        if count
    ]

    def telling(feature: dict[str, Any]) -> float:
        found = feature["confounds"][measure]
        return 0.0 if found is None else found["roc_auc"]

    first = max(sheet["features"], key=telling, default={"name": "all"})["name"]
    return class_histograms(pl.DataFrame(bins), AXES[measure], first)


def read_run_sheets(folder: Path, baselines: pl.DataFrame) -> list[dict[str, Any]]:
    """The data sheets of a run folder; empty for runs of versions that wrote none.

    The run has fitted the classifiers that read the text for its own comparisons: where the sheets lack them, they are taken from
    there.

    Args:
        folder: of the run.
        baselines: its table of that name.

    Raises:
        InputError: the file cannot be read.
    """
    path = folder / "dataset" / "datasheet.json"
    if not path.is_file():
        return []
    sheets = read_sheets(path, f"run {str(folder)!r}")
    of_text = baselines.filter(pl.col("baseline").is_in(list(TEXT)))
    scores = {(row["category"], row["feature"], row["baseline"]): row for row in of_text.to_dicts()}
    for sheet in sheets:
        for feature in sheet["features"]:
            for name in TEXT:
                found = scores.get((sheet["category"], feature["name"], name))
                if feature["confounds"].get(name) is None and found is not None:
                    feature["confounds"][name] = {metric: found[metric] for metric in ("f1", "roc_auc")}
            feature["warnings"] = warnings_of(feature)
    return sheets
