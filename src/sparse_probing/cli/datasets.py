"""`sprobe datasets`: labelled text before any model is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from sparse_probing.config import DataConfig, make_data_config, read_config
from sparse_probing.errors import InputError

if TYPE_CHECKING:
    from sparse_probing.datasets.feature_dataset import FeatureDataset
    from sparse_probing.datasets.labelled_text import LabelledText

datasets = App(
    name="datasets", help="Labelled text: build it, look at it, audit it, export it. No model weights are loaded."
)

DEFAULTS = DataConfig()
FLAT = Parameter(name="*", consume_multiple=True, negative_iterable=())
Options = Annotated[DataConfig, FLAT]


@datasets.command(name="list")
def list_sources() -> None:
    """List the paper's feature categories: what each needs, and the public data set that serves it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.datasets.hugging_face import HUB
    from sparse_probing.datasets.sources import SOURCES

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    console = Terminal()
    if not console.is_terminal:
        console.width = 160
    wide = console.width >= 140
    for name in ("source", "features", "reads", *(["Hugging Face data set"] if wide else []), "paper's features"):
        last = name == "paper's features"
        table.add_column(name, justify="right" if name == "features" else "left", no_wrap=not last)
    for name, source in SOURCES.items():
        public = HUB.get(name)
        hub = "-" if public is None else public.name + (f":{public.config}" if public.config else "")
        features = ", ".join(source.features) or source.also
        cells = [name, str(len(source.features)), f"{source.layout} folder", hub, features]
        table.add_row(*(cells if wide else [*cells[:3], cells[4]]))
    demo = ["demo", "", "nothing (bundled)", "-", "languages, code, kinds of text, text features"]
    table.add_row(*(demo if wide else [*demo[:3], demo[4]]))
    console.print(table)
    console.print(
        "build one:   sprobe datasets build --source NAME --data FOLDER   (layouts of folders: docs/datasets.md)"
    )
    console.print("your own:    sprobe datasets audit --data reviews.csv --label sentiment")


@datasets.command
def build(*, out: Path | None = None, config: Path | None = None, options: Options = DEFAULTS) -> None:
    """Write a dataset folder: documents with labels on characters, a datasheet and the audit.

    `sprobe run --data FOLDER` takes it for any model. The datasheet counts rows with the tokenizer of --model.

    Args:
        out: Folder to write. Default: datasets/NAME.
        config: TOML file with the same options; options on the command line win.
        options: Which text, which labels.
    """
    from sparse_probing.cli.progress import Bars
    from sparse_probing.jobs.build_dataset import write_built

    made = _config(config, options)
    folder = out or Path("datasets") / made.data_name()
    texts, dataset = _prepared(made)
    with Bars().stage("datasheets", len(texts), "category") as done:
        places = write_built(folder, made, texts, dataset)
        done(len(places))
    for place in places:
        _print_sheet(place)


@datasets.command
def show(folder: Path, /) -> None:
    """Print the datasheet of a dataset folder (or of a run); of an export, which has none, what is in it.

    Args:
        folder: written by `sprobe datasets build` or `export`, or a run folder.
    """
    _print_sheet(folder)


@datasets.command
def audit(
    folder: Path | None = None, /, *, html: Path | None = None, config: Path | None = None, options: Options = DEFAULTS
) -> None:
    """Say whether labelled text is clean: duplicates, leaks, balance, confounds, what the words alone tell.

    Args:
        folder: A dataset folder; or name the text with --data and its options.
        html: Also write a page.
        config: TOML file with the same options; options on the command line win.
        options: Which text, which labels.
    """
    from sparse_probing.cli.datasheet import print_datasheets
    from sparse_probing.cli.progress import Bars
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.studies.datasheet.datasheet import datasheet

    made = _config(config, options, folder)
    texts, dataset = _prepared(made)
    sheets = []
    with Bars().stage("datasheets", len(texts), "category") as done:
        for text in texts:
            sheets.append(datasheet(text, dataset) | {"tokenizer": made.model})
            done(1)
    print_datasheets(sheets)
    if html is not None:
        from sparse_probing.studies.datasheet.page import write_datasheet_page

        write_datasheet_page(html, sheets)
        Terminal(soft_wrap=True).print(f"page: {html}")


@datasets.command
def preview(
    folder: Path | None = None,
    /,
    *,
    n: int = 20,
    html: Path | None = None,
    config: Path | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Show rows with their labelled tokens marked, as the tokenizer of --model cuts them.

    Args:
        folder: A dataset folder; or name the text with --data and its options.
        n: Rows to show.
        html: Also write a page.
        config: TOML file with the same options; options on the command line win.
        options: Which text, which labels.
    """
    from sparse_probing.cli.preview import print_preview
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.records import task_rng
    from sparse_probing.studies.datasheet.preview import preview_rows

    made = _config(config, options, folder)
    _, dataset = _prepared(made)
    rows = preview_rows(dataset, n=n, rng=task_rng(made.seed, "preview"))
    print_preview(rows)
    if html is not None:
        from sparse_probing.studies.datasheet.page import write_preview

        write_preview(html, rows)
        Terminal(soft_wrap=True).print(f"page: {html}")


@datasets.command
def export(folder: Path, out: Path, /, *, to: Literal["jsonl", "hugging-face"] = "jsonl") -> None:
    """Write a dataset folder in a form that others read; `--data OUT` takes it back unchanged.

    Args:
        folder: A dataset folder.
        out: Folder to write, or with --to jsonl a file whose name ends in .jsonl: new, empty, or an export to be replaced.
        to: jsonl: documents.jsonl, one object per line. hugging-face: Parquet per split, for datasets.load_dataset(OUT).
    """
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.datasets.dataset_folder import (
        export_file,
        export_hugging_face,
        export_jsonl,
        read_dataset_folder,
    )
    from sparse_probing.jobs.build_dataset import check_free

    as_file = out.suffix == ".jsonl" and not out.is_dir()
    if as_file and to != "jsonl":
        raise InputError(f"--to {to} writes a folder, and {str(out)!r} names a file: give a name without .jsonl.")
    check_free(out, file=as_file)
    labelled = read_dataset_folder(folder)
    (export_file if as_file else export_jsonl if to == "jsonl" else export_hugging_face)(labelled, out)
    Terminal(soft_wrap=True).print(f"{len(labelled.documents):,} documents: {out}")


def _config(file: Path | None, options: DataConfig, folder: Path | None = None) -> DataConfig:
    given: dict[str, Any] = {name: getattr(options, name) for name in options.model_fields_set}
    if folder is not None:
        if "data" in given or "source" in given:
            raise InputError("a folder and --data or --source are named: leave out one of the two.")
        given["data"] = folder
    return make_data_config((read_config(file) if file else {}) | given)


def _prepared(config: DataConfig) -> tuple[list[LabelledText], FeatureDataset]:
    from sparse_probing.activations.model_text import text_of_model
    from sparse_probing.cli.progress import Bars
    from sparse_probing.cli.terminal import warn_of_model_code
    from sparse_probing.inputs import build_dataset, labelled_text_of

    warn_of_model_code(trusted=config.trust_remote_code)
    bars = Bars()
    texts = labelled_text_of(config, bars)
    model = text_of_model(
        config.model, config.text_format(), base=config.base, trust_remote_code=config.trust_remote_code
    )
    with bars.stage("build rows", sum(len(text.documents) for text in texts), "text") as done:
        return texts, build_dataset(config, texts, model, done)


def _print_sheet(folder: Path) -> None:
    from sparse_probing.cli.datasheet import print_contents, print_datasheets
    from sparse_probing.cli.terminal import Terminal
    from sparse_probing.datasets.dataset_folder import is_dataset_folder, read_dataset_folder
    from sparse_probing.jobs.build_dataset import read_datasheet
    from sparse_probing.results.run_folder import readable

    if is_dataset_folder(folder) and not (folder / "datasheet.json").is_file():
        print_contents(read_dataset_folder(folder), folder)
        return
    with readable(folder):
        print_datasheets(read_datasheet(folder))
    page = folder / "datasheet.html"
    if page.is_file():
        Terminal(soft_wrap=True).print(f"datasheet: {page}")
