"""Progress bars with rates and remaining time, and the table of findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text


class RateColumn(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        """Rate so far, blank at the start."""
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        return Text("" if speed is None else f"{speed:,.0f} {unit}/s" if speed >= 10 else f"{speed:.1f} {unit}/s")


class Bars:
    """Draws one bar per stage on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar for one stage; see `experiment.Reporter`."""
        columns = (
            TextColumn("{task.description:<15}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task: TaskID = progress.add_task(name, total=total, unit=unit)
            yield lambda count: progress.advance(task, count)

    def note(self, text: str) -> None:
        """A remark above the bars; see `experiment.Reporter`."""
        self.console.print(f"[yellow]note:[/] {escape(text)}", highlight=False, soft_wrap=True)


SHORT_BASELINES = {
    "majority_class": "majority",
    "shuffled_labels": "shuffled",
    "random_neurons": "random neuron",
    "random_weights_model": "untrained",
    "text_only": "text only",
    "token_identity": "token identity",
    "position_and_length": "position",
}
WIDTH_WITHOUT_TERMINAL = 132
"""Columns for files and pipes, where there is no window to fit into."""
OTHER_COLUMNS, LONGEST_BASELINE = 70, 14
"""Room that the columns beside the feature need: when it is tight, the feature's name is shortened, never a number."""
NARROW = 110
"""Below this width the name of the best baseline is left out."""


def print_findings(findings: pl.DataFrame) -> None:
    """The headline table, one block per category."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_WITHOUT_TERMINAL)
    for (category,), block in findings.group_by("category", maintain_order=True):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        rest = OTHER_COLUMNS + (0 if console.width < NARROW else LONGEST_BASELINE)
        table.add_column("feature", overflow="ellipsis", no_wrap=True, max_width=max(10, console.width - rest))
        for name in ("neuron", "F1 and interval"):
            table.add_column(name, no_wrap=True, min_width=8)
        for name in ("k", "all"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("baseline", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for row in block.to_dicts():
            baseline = "" if console.width < NARROW else f" {SHORT_BASELINES[row['best_baseline']]}"
            table.add_row(
                Text(row["feature"]),
                row["neuron"],
                Text(f"{row['f1']:.2f} [{row['f1_low']:.2f}, {row['f1_high']:.2f}]"),
                "–" if row["k_enough"] is None else str(row["k_enough"]),
                f"{row['dense_f1']:.2f}",
                f"{row['best_baseline_f1']:.2f}{baseline}",
                row["verdict"],
            )
        console.print(Text(category, style="bold"))
        console.print(table)
    console.print(
        "F1 of the best single neuron on the test split; k: neurons that come within 5 % of all neurons of a layer; "
        "all: F1 of these; baseline: F1 of the best control.",
        highlight=False,
    )
