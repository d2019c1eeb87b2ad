"""`sprobe compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from sparse_probing.studies.comparison.comparison import Comparison

SEVERAL = Parameter(consume_multiple=True, negative_iterable=())


def compare(
    *runs: Path,
    out: Path = Path("comparison"),
    order: Literal["size", "given"] = "size",
    names: Annotated[tuple[str, ...] | None, SEVERAL] = None,
) -> None:
    """Compare the same features over models of a family, or over checkpoints of one model.

    Args:
        runs: Folders of finished runs, at least two; three or more show how features change.
        out: Folder of the tables and the page. A comparison in it is replaced.
        order: By number of parameters, or as given (checkpoints).
        names: Names of the runs, in the order given. Default: the run's --name, else the model's; the folder's where they repeat.
    """
    from sparse_probing.cli.progress import Bars
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.studies.comparison.comparison import compare_runs
    from sparse_probing.studies.comparison.page import check_place, read_runs, write_comparison

    check_place(out)
    found = compare_runs(read_runs(runs), order=order, names=names)
    page = write_comparison(out, found)
    print_comparison(found)
    bars = Bars()
    for note in found.notes:
        bars.note(note)
    Terminal(soft_wrap=True).print(f"comparison: {page}")


def print_comparison(found: Comparison) -> None:
    """One table per category: features x runs, then what becomes of each feature."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.studies.comparison.view import comparison_view

    console = Terminal()
    view = comparison_view(found)
    for category in view["categories"]:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("feature", overflow="ellipsis", no_wrap=True, min_width=10)
        for run in view["runs"]:
            table.add_column(run["run"], min_width=9, overflow="fold")
        table.add_column("verdict")
        table.add_column("change", no_wrap=True)
        for row in category["features"]:
            cells = ["–" if cell is None else f"{cell['f1']:.2f} {_k(cell['k_enough'])}" for cell in row["cells"]]
            table.add_row(row["feature"], *cells, row["verdicts"], row["dynamic"])
        means = ["–" if mean is None else f"{mean['f1']:.2f}" for mean in category["means"]]
        table.add_row(Text("mean", style="italic"), *means, "", "")
        console.print(category["name"], style="bold")
        console.print(table)
    console.print(
        "F1 of the best single neuron on the test split, then k: neurons that come within 5 % of all neurons of a layer; "
        "mean: over the features that all runs have; change: where differences exceed the intervals (docs/compare.md).",
    )


def _k(k: int | None) -> str:
    return "k –" if k is None else f"k{k}"
