"""`sprobe report`."""

from __future__ import annotations

from pathlib import Path


def report(run: Path, /) -> None:
    """Write the report of a finished run again, from its folder alone.

    Args:
        run: Run folder.
    """
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.report.run_report import write_report

    Terminal(soft_wrap=True).print(f"report: {write_report(run)}")
