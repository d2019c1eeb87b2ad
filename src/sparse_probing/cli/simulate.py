"""`sprobe simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sparse_probing.studies.simulation.planted import Activation, Planted

if TYPE_CHECKING:
    import polars as pl

SEVERAL = Parameter(consume_multiple=True, negative_iterable=())
USUAL = Planted()


def simulate(
    *,
    out: Path = Path("runs/simulate"),
    rows: Annotated[tuple[int, ...], SEVERAL] = (100, 300, 1_000, 3_000),
    units: int = USUAL.units,
    k: int = USUAL.k,
    shift: float = USUAL.shift,
    positive_share: float = USUAL.positive_share,
    label_noise: float = USUAL.label_noise,
    correlated: int = USUAL.correlated,
    correlation: float = USUAL.correlation,
    features: int = USUAL.features,
    activation: Activation = USUAL.activation,
    methods: Annotated[tuple[str, ...] | None, SEVERAL] = None,
    repeats: int = 10,
    seed: int = USUAL.seed,
    workers: int | None = None,
) -> None:
    """Plant a feature in made-up activations and count how much of it each selector finds. No model, no data, no network.

    Args:
        out: Folder of the results. A stopped simulation in it is continued, and more rows or repeats are added to what is there.
        rows: Sizes of the data set.
        units: Units to choose from.
        k: Units that carry the feature; the selectors are told this number.
        shift: Effect of the class on a planted unit, in standard deviations.
        positive_share: Share of the rows in class.
        label_noise: Share of the labels that are wrong.
        correlated: Distractors per planted unit: they follow it, and know nothing else about the feature.
        correlation: Of a distractor with its planted unit.
        features: Features that share the units (superposition); the first one is looked for.
        activation: gaussian, or gelu for activations that have passed a quick-GELU.
        methods: Selectors: greedy_swap, shrinking_elastic_net, l1_path, recursive_elimination, orthogonal_matching_pursuit,
            mean_difference, mutual_information, random. Default: all.
        repeats: Data sets per number of rows.
        seed: Same seed, same bytes.
        workers: Processes. Default: one per core. Results do not depend on it.
    """
    from sparse_probing.cli.progress import Bars
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.files import write_atomically, write_table
    from sparse_probing.selection.methods import SELECTORS
    from sparse_probing.studies.simulation.folder import claim
    from sparse_probing.studies.simulation.page import write_simulation_report
    from sparse_probing.studies.simulation.simulation import checked_grid, recall_curve

    options = Planted(
        rows=max(rows, default=USUAL.rows),
        units=units,
        k=k,
        shift=shift,
        positive_share=positive_share,
        label_noise=label_noise,
        correlated=correlated,
        correlation=correlation,
        features=features,
        activation=activation,
        seed=seed,
    )
    sizes, names = checked_grid(options, rows, tuple(SELECTORS) if methods is None else methods, repeats, workers)
    cells = claim(out, options, sizes, names, repeats)
    with Bars().stage("simulate", len(sizes) * repeats, "data set") as done:
        table = recall_curve(
            options, sizes, methods=names, repeats=repeats, workers=workers, folder=cells, progress=done
        )
    write_table(out / "recall.parquet", table)
    write_atomically(out / "recall.csv", lambda partial: table.write_csv(partial))
    report = write_simulation_report(out)
    print_recall(table, options)
    Terminal(soft_wrap=True).print(f"report: {report}")


def print_recall(table: pl.DataFrame, options: Planted) -> None:
    """What was planted, then one table per kind of recall."""
    from dataclasses import asdict

    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.studies.simulation.page import TITLES, lines, shown_measures, story

    console = Terminal()
    console.print(story(asdict(options)))
    for measure in shown_measures(asdict(options)):
        if measure == "average_precision":
            continue  # in the report and the tables; a screenful is enough here
        shown = Table(title=TITLES[measure], title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        shown.add_column("rows", no_wrap=True)
        for n in table["rows"].unique().sort():
            shown.add_column(f"{n:,}", justify="right", no_wrap=True)
        for line in lines(table, measure):
            cells = [f"{c['value']:.2f}" + ("" if c["se"] is None else f" ± {c['se']:.2f}") for c in line["cells"]]
            shown.add_row(line["method"], *cells)
        console.print(shown)
    console.print("Mean and standard error over the repeats; the report also shows the held-out score.")
