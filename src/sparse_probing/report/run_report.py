"""The report of a run: its record in one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_probing.files import write_text
from sparse_probing.pages.render import render
from sparse_probing.results.run_folder import readable
from sparse_probing.studies.datasheet.view import dataset_charts
from sparse_probing.studies.evidence import evidence_charts, study_macros
from sparse_probing.views.run_view import run_view


def write_report(folder: Path) -> Path:
    """Write `report.html` into a finished run folder and return its path.

    Raises:
        InputError: no finished run, or one that is damaged or was written by a newer version.
    """
    with readable(folder):
        view = run_view(folder)
        page = render("report/page.html", _charts(view), view=view, macros=study_macros())
    path = folder / "report.html"
    write_text(path, page)
    return path


def _charts(view: dict[str, Any]) -> dict[str, Any]:
    """Chart id in the page -> specification."""
    charts = dataset_charts(view["sheets"]) | evidence_charts(view)
    for c, category in enumerate(view["categories"]):
        charts[f"heatmap-{c}"] = category["heatmap"]
        for f, feature in enumerate(category["features"]):
            charts[f"curve-{c}-{f}"] = feature["curve"]
            charts[f"histogram-{c}-{f}"] = feature["histogram"]
    for c, category in enumerate(view["numbers"]):
        charts[f"number-heatmap-{c}"] = category["heatmap"]
        for f, number in enumerate(category["numbers"]):
            charts[f"number-curve-{c}-{f}"] = number["curve"]
            charts[f"number-profile-{c}-{f}"] = number["profile"]
    return charts
