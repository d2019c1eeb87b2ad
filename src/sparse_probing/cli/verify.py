"""`sprobe verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import polars as pl
from cyclopts import Parameter

from sparse_probing.config import VerifyConfig

if TYPE_CHECKING:
    from rich.table import Table

DEFAULTS = VerifyConfig()
LEAST = {"interval": 18, "p": 5, "verdict": 14}
"""Narrowest columns; in a narrow window words wrap, numbers never do."""
FLAT = Parameter(name="*", consume_multiple=True, negative_iterable=())


def verify(run: Path, *, options: Annotated[VerifyConfig, FLAT] = DEFAULTS) -> None:
    """Look a second time at the neurons that a run names: what happens without them, in class, out of class, beside placebos.

    Writes RUN/evidence/ and the report anew. Stopped work is continued by the same command.

    Args:
        run: Folder of a finished run.
        options: What is done to the neurons, and on how many texts.
    """
    from sparse_probing.cli.progress import Bars
    from sparse_probing.cli.terminal import Terminal, warn_of_model_code
    from sparse_probing.jobs.verify import verify as verify_run  # torch is imported here, not for --help

    warn_of_model_code(trusted=options.trust_remote_code)
    result = verify_run(run, options, reporter=Bars())
    print_evidence(result.evidence, result.matrix)
    Terminal(soft_wrap=True).print(f"report: {result.report}")


def print_evidence(evidence: pl.DataFrame, matrix: pl.DataFrame) -> None:
    """Two tables per category: effect of each feature's neuron with the verdict, and whose texts suffer without it.

    Args:
        evidence: table `evidence` of the second look.
        matrix: table `effect_matrix`.
    """
    from sparse_probing.cli.terminal import Terminal

    console = Terminal()
    for (category,), block in evidence.group_by("category", maintain_order=True):
        console.print(str(category), style="bold")
        table = _table("feature", "neuron", "in class", "beyond placebos", "exceeds, in class", "p", "verdict")
        for row in block.to_dicts():
            table.add_row(
                row["feature"],
                row["neuron"],
                _signed(row["effect_in"]),
                _signed(row["over_placebo"]),
                "–" if row["exceeded_in"] is None else f"{100 * row['exceeded_in']:.0f} %",
                "–" if row["p"] is None else f"{row['p']:.3f}",
                row["verdict"],
            )
        console.print(table)
        for remark in block["remark"].drop_nulls().unique(maintain_order=True):
            console.print(f"note: {remark}", style="dim")
        cells = matrix.filter(pl.col("category") == category)
        if cells["affected"].n_unique() > 1:
            console.print(_whose_texts(cells.filter(size=cells["size"].min())))
    kinds = evidence["ablation"].drop_nulls().unique().to_list()
    what = {"zero": "is set to 0", "mean": "is set to its mean", "resample": "takes values of other tokens"}
    if kinds:
        console.print(
            f"Change of the loss per token (nats) when the neuron {what[kinds[0]]}; beyond placebos: in class minus out of class, "
            "less the mean of matched random neurons (p: how many of these lie as far out); exceeds: placebos that do less in "
            "class. "
            "Own texts: the neuron set to 0 on the texts of every feature. All else is in the report.",
        )


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns:
        words = name in ("feature", "neuron", "neuron of", "verdict", "the largest")
        table.add_column(name, justify="left" if words else "right", min_width=LEAST.get(name, 8), overflow="fold")
    return table


def _whose_texts(cells: pl.DataFrame) -> Table:
    """One line per feature whose neuron is switched off."""
    table = _table("neuron of", "own texts", "per cent", "interval", "mean of the others", "the largest")
    for (name,), block in cells.group_by("switched_off", maintain_order=True):
        others = block.filter(pl.col("affected") != name).sort("effect", descending=True).to_dicts()
        for own in block.filter(affected=name).to_dicts():
            ends = own["effect_low"], own["effect_high"]
            table.add_row(
                str(name),
                _signed(own["effect"]),
                f"{own['percent']:+.2f} %",
                "–" if None in ends else f"[{ends[0]:+.4f}, {ends[1]:+.4f}]",
                _signed(sum(row["effect"] for row in others) / len(others)) if others else "–",
                f"{others[0]['effect']:+.4f} {others[0]['affected']}" if others else "–",
            )
    return table


def _signed(value: float | None) -> str:
    text = "–" if value is None else f"{value:+.4f}"
    return text[1:] if text in ("-0.0000", "+0.0000") else text
