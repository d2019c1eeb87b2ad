"""Progress bars with rates and remaining time, and the table of findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import polars as pl
from rich.console import Console
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


def print_findings(findings: pl.DataFrame) -> None:
    """The headline table, one block per category."""
    console = Console()
    for (category,), block in findings.group_by("category", maintain_order=True):
        table = Table(
            title=f"{category}: best single neuron per feature, scores on the test split", title_justify="left"
        )
        for name, right in (
            ("feature", False),
            ("neuron", False),
            ("F1 [95 %]", True),
            ("k for 95 %", True),
            ("dense F1", True),
            ("best baseline", False),
            ("verdict", False),
        ):
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for row in block.to_dicts():
            table.add_row(
                Text(row["feature"]),
                row["neuron"],
                f"{row['f1']:.2f} [{row['f1_low']:.2f}, {row['f1_high']:.2f}]",
                "–" if row["k_enough"] is None else str(row["k_enough"]),
                f"{row['dense_f1']:.2f}",
                f"{row['best_baseline_f1']:.2f} {row['best_baseline'].replace('_', ' ')}",
                row["verdict"],
            )
        console.print(table)
