"""`sprobe run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sparse_probing.config import RunConfig, make_config, read_config

DEFAULTS = RunConfig()


FLAT = Parameter(name="*", consume_multiple=True, negative_iterable=())


def run(*, config: Path | None = None, dry_run: bool = False, options: Annotated[RunConfig, FLAT] = DEFAULTS) -> None:
    """Probe a model for the features of your own labelled text, and write a report.

    Args:
        config: TOML file with the same options; options on the command line win.
        dry_run: Only say what the run would need: tokens, disk space, memory, and about how long. No weights are loaded.
        options: What to probe, with which data, and how.
    """
    from sparse_probing.cli.terminal import warn_of_model_code

    given = {name: getattr(options, name) for name in options.model_fields_set}
    made = make_config((read_config(config) if config else {}) | given)
    warn_of_model_code(trusted=made.trust_remote_code)
    if dry_run:
        show_forecast(made)
    else:
        execute(made)


def show_forecast(config: RunConfig) -> None:
    """What the activations of a run need, and whether there is room for them."""
    from sparse_probing.activations.forecast import gigabytes
    from sparse_probing.activations.store import cache_folder
    from sparse_probing.cli.rows import print_rows_used
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.jobs.run import dry_run

    plan = dry_run(config)
    console = Terminal(soft_wrap=True)
    passes = "2 models (the second untrained)" if config.random_model else "1 model"
    console.print(f"model      {config.model}, site {config.site}, {passes}")
    console.print(f"rows       {plan.rows:,} from {plan.tokens:,} tokens per model")
    console.print(
        f"on disk    {gigabytes(plan.bytes_needed)} as {config.store_dtype}, less what is in the cache already"
    )
    console.print(f"free       {gigabytes(plan.bytes_free)} in {cache_folder()}")
    if plan.memory is not None:
        console.print(f"memory     {plan.memory.warning() or plan.memory.words()}")
    console.print(f"time       {plan.time(1 + config.random_model)}, less what is in the cache already")
    print_rows_used(plan.used, console)
    plan.check(cache_folder())


def execute(config: RunConfig) -> None:
    """Run with progress bars, print the findings and where the report lies."""
    from sparse_probing.cli.progress import Bars, print_findings
    from sparse_probing.cli.rows import print_rows_used
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.jobs.run import run as run_experiment  # torch is imported here, not for --help

    result = run_experiment(config, reporter=Bars())
    console = Terminal(soft_wrap=True)
    if config.name:
        console.print(config.name, style="bold underline")
    print_rows_used(result.used)
    print_findings(result.findings, result.numbers)
    console.print(f"report: {result.report}")
    if len(result.findings):
        console.print(f"Does the model use these neurons? Next: sprobe verify {result.folder}")
