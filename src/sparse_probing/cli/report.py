"""`sprobe report`."""

from __future__ import annotations

from pathlib import Path


def report(run: Path, /) -> None:
    """Write the report of a finished run again, from its folder alone.

    Args:
        run: Run folder.
    """
    from rich.console import Console

    from sparse_probing.report.html import write_report

    Console(soft_wrap=True).print(f"report: {write_report(run)}", highlight=False)
