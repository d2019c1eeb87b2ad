"""Datasheets in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sparse_probing.cli.terminal import Terminal
from sparse_probing.records import SPLITS
from sparse_probing.views.dataset_words import glance
from sparse_probing.views.visible import visible

STATES = {"fine": ("ok", "green"), "mended": ("mended", "yellow"), "look": ("LOOK", "bold yellow")}
NOTES = 12
"""Notes that are printed; datasheet.json has all of them."""


def print_datasheets(sheets: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """For each category five answers, its rows per feature and split, and its notes."""
    console = console or Terminal()
    for sheet in sheets:
        console.print(Text(visible(sheet["category"]), style="bold"))
        for line in glance(sheet):
            word, style = STATES.get(line["state"], ("", ""))
            console.print(
                Text.assemble((f"{line['question']:<31}", "dim"), (f"{word:<7}", style), visible(line["text"]))
            )
        console.print(_rows(sheet))
        for note in sheet["notes"][:NOTES]:
            console.print(Text(f"note: {visible(note)}", style="yellow"))
        if len(sheet["notes"]) > NOTES:
            console.print(f"and {len(sheet['notes']) - NOTES} more notes")


def _rows(sheet: dict[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("feature", overflow="fold")
    for split in SPLITS:
        table.add_column(f"{split.value}: yes / no", justify="right", no_wrap=True)
    table.add_column("test share", justify="right", no_wrap=True)
    table.add_column("words alone: F1", justify="right", no_wrap=True)
    table.add_column("look at", overflow="fold")
    for feature in sheet["features"]:
        splits, words = feature["splits"], feature["confounds"]["text_only"]
        share = splits["test"]["share"]
        table.add_row(
            Text(visible(feature["name"])),
            *(f"{splits[s.value]['positive']:,} / {splits[s.value]['negative']:,}" for s in SPLITS),
            "–" if share is None else f"{100 * share:.0f} %",
            "–" if words is None else f"{words['f1']:.2f}",
            ", ".join(dict.fromkeys(w["kind"] for w in feature["warnings"])),
        )
    for number in sheet["numbers"]:
        table.add_row(
            Text(visible(f"{number['name']} (number)")), *(f"{number['splits'][s.value]['n']:,}" for s in SPLITS)
        )
    return table
