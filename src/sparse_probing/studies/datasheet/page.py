"""Pages about a data set before any model is run: its data sheet, and a preview of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparse_probing.files import write_json, write_text
from sparse_probing.pages.render import render
from sparse_probing.results.verdict import AS_GOOD, FOUND_F1
from sparse_probing.studies.datasheet.confounds import ALONE_AUC
from sparse_probing.studies.datasheet.preview import PreviewRow
from sparse_probing.studies.datasheet.preview_view import legend, share_words, where_words
from sparse_probing.studies.datasheet.view import dataset_charts, dataset_view


def write_datasheet(folder: Path, sheets: Sequence[dict[str, Any]]) -> Path:
    """Write `datasheet.json`, a list with one object per category, and the page `datasheet.html`; returns the page's path.

    Args:
        folder: must exist.
        sheets: from `datasheet`.
    """
    write_json(folder / "datasheet.json", list(sheets))
    path = folder / "datasheet.html"
    write_datasheet_page(path, sheets)
    return path


def write_datasheet_page(path: Path, sheets: Sequence[dict[str, Any]]) -> None:
    """Write the page alone, under any name."""
    view = dataset_view(sheets)
    constants = {"alone": ALONE_AUC, "found": FOUND_F1, "as_good": AS_GOOD}
    write_text(path, render("studies/datasheet/page.html", dataset_charts(view), sheets=view, **constants))


def write_preview(path: Path, rows: Sequence[PreviewRow]) -> None:
    """Write rows with their tokens marked, one page."""
    page = render(
        "studies/datasheet/preview.html",
        rows=rows,
        legend=legend(rows, "in boxes, one for each"),
        where=where_words,
        share=share_words,
    )
    write_text(path, page)
