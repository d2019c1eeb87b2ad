"""Datasheets in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sparse_probing.cli.terminal import Terminal
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.pages.visible import visible
from sparse_probing.records import SPLITS
from sparse_probing.studies.datasheet.words import glance

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


def print_contents(labelled: LabelledText, place: Path) -> None:
    """What can be said of labelled text without a tokenizer: its documents, and how many carry each feature."""
    console = Terminal()
    documents = labelled.documents
    prescribed = Counter(document.split.value for document in documents if document.split is not None)
    splits = ", ".join(f"{n:,} {name}" for name, n in prescribed.items())
    console.print(Text(visible(labelled.category), style="bold"))
    console.print(
        f"{len(documents):,} documents in {len({d.group for d in documents}):,} groups; level: {labelled.level}"
    )
    console.print(f"prescribed splits: {splits or 'none'}")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("feature", overflow="fold")
    for name in ("documents: yes", "documents: no", "spans"):
        table.add_column(name, justify="right", no_wrap=True)
    yes, no, spans, numbers = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for document in documents:
        inside = {span.label for span in document.spans}
        yes.update(inside | {name for name, value in document.labels.items() if value})
        no.update(name for name, value in document.labels.items() if not value)
        spans.update(span.label for span in document.spans)
        numbers.update(document.numbers)
    of_documents = labelled.level == "document"
    for name in labelled.features:
        without = no[name] if of_documents else len(documents) - yes[name]
        table.add_row(visible(name), f"{yes[name]:,}", f"{without:,}", "–" if of_documents else f"{spans[name]:,}")
    for name in labelled.numbers:
        table.add_row(visible(f"{name} (number)"), f"{numbers[name]:,}" if numbers[name] else "–", "–", "–")
    console.print(table)
    for note in labelled.notes[:NOTES]:
        console.print(Text(f"note: {visible(note)}", style="yellow"))
    Terminal(soft_wrap=True).print(
        f"An export has no datasheet: rows, balance and confounds depend on a tokenizer. sprobe datasets audit {place}"
    )


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
