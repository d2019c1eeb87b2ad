"""Progress bars with rates and remaining time, and the table of findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from rich.box import SIMPLE_HEAD
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

from sparse_probing.cli.log_lines import LogLines
from sparse_probing.cli.terminal import Terminal
from sparse_probing.pages.visible import harmless
from sparse_probing.results.verdict import SHORT_NAMES


class RateColumn(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        """Rate so far, blank at the start."""
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        return Text("" if speed is None else f"{speed:,.0f} {unit}/s" if speed >= 10 else f"{speed:.1f} {unit}/s")


class Bars:
    """Draws one bar per stage on standard error; where that is a file or a pipe, prints lines (`cli.log_lines`)."""

    def __init__(self) -> None:
        self.console = Terminal(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar for one stage; see `progress.Reporter`."""
        if not self.console.is_terminal:
            with LogLines(name, total, unit, self.console) as lines:
                yield lines.step
            return
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
            if not total:  # how much there was is known now
                all_of_it = max(1, progress.tasks[task].completed)
                progress.update(task, total=all_of_it, completed=all_of_it)

    def note(self, text: str) -> None:
        """A remark above the bars; see `progress.Reporter`."""
        self.console.print(Text.assemble(("note:", "yellow"), " ", harmless(text)), soft_wrap=True)


OTHER_COLUMNS, LONGEST_BASELINE = 70, 19
"""Room that the columns beside the feature need: when it is tight, the feature's name is shortened, never a number."""
NARROW = 110
"""Below this width the name of the best baseline is left out."""


def print_findings(findings: pl.DataFrame, numbers: pl.DataFrame) -> None:
    """The headline tables, one block per category: features, then numbers.

    Args:
        findings: of a run, one row per feature.
        numbers: its number findings, one row per number.
    """
    console = Terminal()
    _print_blocks(console, findings, ("feature", "neuron", "F1 and interval"), "f1", lambda row: row["neuron"])
    if len(findings):
        console.print(
            "F1 of the best single neuron on the test split; k: neurons that come within 5 % of all neurons of a layer; "
            "all: F1 of these; baseline: F1 of the best control.",
        )
    _print_blocks(
        console,
        numbers,
        ("number", "neuron", "R² and interval"),
        "r2",
        lambda row: f"{row['neuron']} {'↑' if row['sign'] > 0 else '↓'}",
    )
    if len(numbers):
        console.print(
            "R² of the best single neuron on the test split, which rises (↑) or falls (↓) with the number; k: neurons that come "
            "within 5 % of all neurons of a layer; all: R² of these; baseline: R² of the best control.",
        )


def _print_blocks(
    console: Terminal,
    rows: pl.DataFrame,
    heads: tuple[str, str, str],
    score: str,
    neuron: Callable[[dict[str, Any]], str],
) -> None:
    """One table per category; `heads` name what is probed, the neuron and the score."""
    for (category,), block in rows.group_by("category", maintain_order=True):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        rest = OTHER_COLUMNS + (0 if console.width < NARROW else LONGEST_BASELINE)
        table.add_column(heads[0], overflow="ellipsis", no_wrap=True, max_width=max(10, console.width - rest))
        for name in heads[1:]:
            table.add_column(name, no_wrap=True, min_width=8)
        for name in ("k", "all"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("baseline", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for row in block.to_dicts():
            name = SHORT_NAMES.get(row["best_baseline"], row["best_baseline"])
            baseline = "" if console.width < NARROW else f" {name}"
            table.add_row(
                row[heads[0]],
                neuron(row),
                Text(f"{row[score]:.2f} [{row[f'{score}_low']:.2f}, {row[f'{score}_high']:.2f}]"),
                "–" if row["k_enough"] is None else str(row["k_enough"]),
                f"{row[f'dense_{score}']:.2f}",
                f"{row[f'best_baseline_{score}']:.2f}{baseline}",
                row["verdict"],
            )
        console.print(str(category), style="bold")
        console.print(table)
        for row in block.to_dicts():
            console.print(f"{row[heads[0]]}: {row['explanation']}", style="dim")
        console.print()
