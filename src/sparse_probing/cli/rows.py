"""Rows used, rows dropped, features left out: printed before anything is concluded from them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from sparse_probing.cli.terminal import Terminal
from sparse_probing.datasets.rows_used import RowsUsed

LINES = 12
"""Per category; the report has all of them."""


def print_rows_used(accounts: Sequence[RowsUsed], console: Terminal | None = None) -> None:
    """One block per category: how many rows, what was lost and why; warnings in yellow."""
    console = console or Terminal(soft_wrap=True)
    for used in accounts:
        console.print(used.headline())
        for warning in used.warnings():
            console.print(Text(f"  warning: {warning}", style="yellow"))
        lines = used.lines()
        for line in lines[:LINES]:
            console.print(f"  {line}")
        if len(lines) > LINES:
            console.print(f"  and {len(lines) - LINES} more lines (the report has them all)")
