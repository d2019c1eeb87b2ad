"""A comparison of runs as a folder: tables, and one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.files import write_atomically, write_json, write_table, write_text
from sparse_probing.pages.render import render
from sparse_probing.results.manifest import versions
from sparse_probing.results.run_folder import read_run
from sparse_probing.results.verdict import FEW
from sparse_probing.studies.comparison import dynamics as rules
from sparse_probing.studies.comparison.comparison import Comparison, FinishedRun
from sparse_probing.studies.comparison.view import comparison_charts, comparison_view

PROGRAM = "sprobe compare"


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Finished runs from their folders.

    Raises:
        InputError: a folder is no run, or the run has not finished or is damaged.
    """
    runs = []
    for folder in folders:
        manifest, tables = read_run(folder)
        runs.append(FinishedRun(folder=folder, manifest=manifest, tables=tables))
    return runs


def check_place(folder: Path) -> None:
    """See that `folder` may be written: a comparison that lies there is replaced, nothing else.

    Raises:
        InputError: the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file, a comparison needs a folder: choose another --out.")
    if folder.is_dir() and any(folder.iterdir()) and not _holds_comparison(folder):
        raise InputError(f"{str(folder)!r} holds something else than a comparison: choose another --out.")


def _holds_comparison(folder: Path) -> bool:
    try:
        known = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(known, dict) and known.get("program") == PROGRAM


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write all tables as Parquet, `comparison.csv`, `comparison.json` and the page `comparison.html`; returns the page's path.

    Raises:
        InputError: the folder holds something else.
        PrerequisiteError: it cannot be written.
    """
    check_place(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrerequisiteError(
            f"folder {str(folder)!r} cannot be written ({error.strerror}): choose another --out."
        ) from None
    facts = {"runs": comparison.runs, "size_unit": comparison.size_unit, "notes": comparison.notes}
    version = versions()["sparse-probing"]
    write_json(folder / "comparison.json", {"program": PROGRAM, "version": version} | facts)
    for name, table in comparison.tables.items():
        write_table(folder / f"{name}.parquet", table)
    write_atomically(folder / "comparison.csv", lambda partial: comparison.tables["comparison"].write_csv(partial))
    path = folder / "comparison.html"
    view = comparison_view(comparison)
    page = render(
        "studies/comparison/page.html", comparison_charts(comparison), view=view, rules=rules, few=FEW, version=version
    )
    write_text(path, page)
    return path
