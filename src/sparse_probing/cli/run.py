"""`sprobe run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sparse_probing.config import RunConfig, make_config, read_config

DEFAULTS = RunConfig()


FLAT = Parameter(name="*", consume_multiple=True, negative_iterable=())


def run(*, config: Path | None = None, options: Annotated[RunConfig, FLAT] = DEFAULTS) -> None:
    """Probe a model for the features of your own labelled text, and write a report.

    Args:
        config: TOML file with the same options; options on the command line win.
        options: What to probe, with which data, and how.
    """
    given = {name: getattr(options, name) for name in options.model_fields_set}
    execute(make_config((read_config(config) if config else {}) | given))


def execute(config: RunConfig) -> None:
    """Run with progress bars, print the findings and where the report lies."""
    from rich.console import Console

    from sparse_probing.cli.progress import Bars, print_findings
    from sparse_probing.experiment import run as run_experiment  # torch is imported here, not for --help

    result = run_experiment(config, reporter=Bars())
    print_findings(result.findings)
    Console(soft_wrap=True).print(f"report: {result.report}", highlight=False)
