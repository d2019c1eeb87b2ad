"""The main job, room after room: labelled text -> rows -> activations -> probes -> test scores -> examples -> report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from sparse_probing.activations.extract import extract, find_units
from sparse_probing.activations.forecast import Forecast, forecast
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import outline_model
from sparse_probing.activations.pace import estimated_pace, measured_pace
from sparse_probing.activations.store import Activations
from sparse_probing.config import RunConfig, to_toml
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.rows_used import RowsUsed, rows_used_of
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.files import is_partial, read_json, remove_partials, write_json, write_table, write_text
from sparse_probing.inputs import build_dataset, labelled_text_of
from sparse_probing.open_run import memory_of, model_of
from sparse_probing.progress import Reporter, Silent
from sparse_probing.records import Site
from sparse_probing.report.run_report import write_report
from sparse_probing.results import tables as schema
from sparse_probing.results.dataset_tables import write_dataset
from sparse_probing.results.findings import named_neurons
from sparse_probing.results.manifest import git_state, versions
from sparse_probing.results.run_folder import EVIDENCE_FOLDER, FORMAT, finished_identity, read_run
from sparse_probing.selection.schedule import checked_ks
from sparse_probing.studies.datasheet.datasheet import datasheet
from sparse_probing.studies.examples.examples import (
    activation_histograms,
    choose_examples,
    show_examples,
)
from sparse_probing.sweep.evaluate import RunTables, evaluate
from sparse_probing.sweep.evaluate_numbers import NumberTables, evaluate_numbers
from sparse_probing.sweep.local_runner import CERTIFICATES, run_tasks
from sparse_probing.sweep.number_probes import NumberTask
from sparse_probing.sweep.numbers import plan_numbers, run_numbers
from sparse_probing.sweep.pace import probing_seconds
from sparse_probing.sweep.plan import ExactPlan, Method, Plan, plan_tasks

UNTRAINED_SEED = 0
PLACES = ("tasks", "dataset", CERTIFICATES, EVIDENCE_FOLDER)
"""Folders in a run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run."""

    folder: Path
    findings: pl.DataFrame
    """One row per feature: best neuron, its test F1 with interval, how few are enough, controls, verdict."""
    numbers: pl.DataFrame
    """One row per number (regression target): the same with R2."""
    report: Path
    used: tuple[RowsUsed, ...] = ()
    """What became of the labelled text, one account per category; none in folders of versions that kept none."""


def run(
    config: RunConfig, labelled: Sequence[LabelledText] | None = None, reporter: Reporter | None = None
) -> RunResult:
    """Run everything and leave a complete run folder; a stopped run is continued, a finished one is only read.

    Args:
        config: options.
        labelled: labelled text made in Python, instead of what `config.data` names.
        reporter: told about progress; silent when null.

    Raises:
        InputError: data, options or model cannot be used as given; nothing was written.
        PrerequisiteError: the run folder or the cache cannot be written.
    """
    reporter = reporter or Silent()
    folder = config.folder()
    started = time.monotonic()
    texts = list(labelled) if labelled is not None else labelled_text_of(config, reporter)
    if (memory := memory_of(config)) is not None and (warning := memory.warning()):
        reporter.note(warning)
    with reporter.stage("load model", 1, "model") as done:
        model = model_of(config)
        done(1)
    sites = find_units(model, config.site, config.layers)
    layers = [site.layer for site in sites]
    ks, exact = sizes_of(config, sites)
    with reporter.stage("build rows", sum(len(text.documents) for text in texts), "text") as done:
        dataset = build_dataset(config, texts, model, done)
    for warning in (*model.remarks, *(warning for used in dataset.used.values() for warning in used.warnings())):
        reporter.note(warning)
    identity = config.identity() | {
        "dataset": dataset.content_hash(),
        "weights": model.fingerprint,
        "version": versions()["sparse-probing"],  # another version's finished tasks are not mixed with ours
    }
    number_tasks = plan_numbers(dataset, layers, random_model=config.random_model)
    if _begin(folder, config, identity):
        _rename(folder, config.name)
        return _result(folder)
    with reporter.stage("calibrate", 1, "pass") as done:
        plan_of_time = _timed(config, dataset, sites, measured_pace(model, dataset, sites))
        done(1)
    reporter.note(forecast_words(config, plan_of_time))
    stores = _activations(config, model, dataset, sites, reporter)
    plan = _plan(config, ks, exact)
    tables = _probes(config, plan, dataset, stores, layers, folder, reporter)
    numbers = _numbers(config, plan, number_tasks, dataset, stores, folder, reporter)
    with reporter.stage("datasheets", len(texts), "category") as done:
        write_dataset(folder / "dataset", dataset)
        sheets = []
        for text in texts:
            sheets.append(datasheet(text, dataset, text_only=False) | {"tokenizer": config.model})
            done(1)
        write_json(folder / "dataset" / "datasheet.json", sheets)
    _write_tables(folder, tables, numbers)
    _write_examples(folder, tables, model, dataset, sites, stores[False], reporter)
    manifest = {
        "format": FORMAT,
        "options": json.loads(config.model_dump_json()),
        "identity": identity,
        "versions": versions(),
        "git": git_state(),
        "model": {
            "name": model.name,
            "layers": model.sites.n_layers,
            "site": sites[0].name,
            "width": sites[0].width,
            "probed_layers": layers,
            "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        },
        "ks": list(ks),
        "rows": dataset.n_rows,
        "tokens": len(dataset.tokens),
        "counts": dataset.counts_by_name(),
        "numbers": [f"{target.category}/{target.name}" for target in dataset.targets],
        "rows_used": [asdict(used) for used in dataset.used.values()],
        "audits": {name: asdict(audit) for name, audit in dataset.audits.items()},
        "wall_time_s": round(time.monotonic() - started, 1),
    }
    write_json(folder / "manifest.json", manifest)
    shutil.rmtree(folder / "tasks", ignore_errors=True)
    return _result(folder)


def _result(folder: Path) -> RunResult:
    manifest, tables = read_run(folder)
    return RunResult(
        folder=folder,
        findings=tables["findings"],
        numbers=tables["number_findings"],
        report=write_report(folder),
        used=tuple(rows_used_of(manifest.get("rows_used", ()))),
    )


def dry_run(config: RunConfig, labelled: Sequence[LabelledText] | None = None) -> Forecast:
    """What `run` would need, without loading weights or writing anything. Its time is estimated from the model's size and the speed
    of this machine's CPU.

    Raises:
        InputError: data, options or model cannot be used as given.
    """
    model = outline_model(
        config.model, config.text_format(), base=config.base, trust_remote_code=config.trust_remote_code
    )
    sites = find_units(model, config.site, config.layers)
    if not all(site.width for site in sites):
        raise InputError(
            f"the size of {config.site!r} needs the weights: leave out --dry-run, or name a site that `sprobe sites` lists."
        )
    dataset = build_dataset(config, list(labelled) if labelled is not None else labelled_text_of(config), model)
    plan = _timed(config, dataset, sites, estimated_pace(model, dataset, sites))
    return replace(plan, memory=memory_of(config))


def forecast_words(config: RunConfig, plan: Forecast) -> str:
    """Tokens, models and time, in a sentence; the time is that of a run that finds nothing stored."""
    models = "2 models (the second untrained)" if config.random_model else "1 model"
    return (
        f"{plan.tokens:,} tokens through {models}: {plan.time(1 + config.random_model)}, less what is stored already."
    )


def _timed(config: RunConfig, dataset: FeatureDataset, sites: Sequence[Site], pace: float) -> Forecast:
    plan = forecast(dataset, list(sites) * (1 + config.random_model), config.store_dtype)
    probing = probing_seconds(
        dataset, len(sites), sites[0].width, random_model=config.random_model, workers=config.workers
    )
    return replace(plan, seconds_per_token=pace, probing_seconds=probing)


def sizes_of(config: RunConfig, sites: Sequence[Site]) -> tuple[tuple[int, ...], ExactPlan | None]:
    """Sizes to try, and what to prove. Sizes that are proved are tried by the other methods, too.

    Raises:
        InputError: a size that a layer does not have, an exact layer that is not probed.
    """
    width, layers = min(site.width for site in sites), [site.layer for site in sites]
    ks = checked_ks(config.ks, width)
    if Method.EXACT.value not in config.methods:
        return ks, None
    wanted = checked_ks(config.exact_ks, width)
    chosen = layers if config.exact_layers is None else sorted(set(config.exact_layers))
    strange = [layer for layer in chosen if layer not in layers]
    if strange:
        raise InputError(
            f"layer {strange[0]} of --exact-layers is not probed: choose from {', '.join(map(str, layers))}."
        )
    exact = ExactPlan(ks=wanted, layers=tuple(chosen), gap=config.exact_gap, nodes=config.exact_nodes)
    return tuple(sorted({*ks, *wanted})), exact


def _begin(folder: Path, config: RunConfig, identity: dict[str, Any]) -> bool:
    """Claim the run folder; true when it already holds this very run, finished.

    Raises:
        InputError: the folder holds something else.
        PrerequisiteError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file, a run needs a folder: choose another --out.")
    finished = finished_identity(folder, f"run {str(folder)!r}")
    if finished not in (None, identity):
        raise InputError(
            f"{str(folder)!r} holds the results of another run: choose another --out, or delete that folder."
        )
    record = folder / "tasks" / "identity.json"
    if finished is None and not _only_beginnings(folder):
        _check_same(folder, record, identity)
    try:
        for place in (folder, *(folder / name for name in PLACES)):
            remove_partials(place)
        if finished is not None:
            shutil.rmtree(folder / "tasks", ignore_errors=True)  # where the run was stopped after its last file
            return True
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, identity)  # first: with it the folder is ours, whatever stops us
        write_text(folder / "config.toml", to_toml(config.identity()))
    except OSError as error:
        raise PrerequisiteError(
            f"run folder {str(folder)!r} cannot be written ({error.strerror}): choose another --out."
        ) from None
    return False


def _rename(folder: Path, name: str | None) -> None:
    """Give a finished run another name. No number depends on it, so nothing is computed again."""
    manifest = read_json(folder / "manifest.json")
    if name is not None and name != manifest["options"].get("name"):
        manifest["options"]["name"] = name
        write_json(folder / "manifest.json", manifest)


def _only_beginnings(folder: Path) -> bool:
    """Whether a folder is absent, empty, or holds nothing but what a run leaves that is stopped before it says which one it is."""
    if not folder.is_dir():
        return True
    tasks = folder / "tasks"
    ours = {"tasks", "config.toml"} if tasks.is_dir() else set()
    within = [path for path in tasks.iterdir() if not is_partial(path)] if ours else []
    if any(path.name != "identity.json" for path in within):
        return False
    if within and _known_identity(within[0]) is not None:
        return False
    return all(path.name in ours or is_partial(path) for path in folder.iterdir())


def _known_identity(record: Path) -> dict[str, Any] | None:
    try:
        known = read_json(record)
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def _check_same(folder: Path, record: Path, identity: dict[str, Any]) -> None:
    known = _known_identity(record)
    if known == identity:
        return
    if known is not None:
        raise InputError(
            f"{str(folder)!r} holds an unfinished run with other options or data: choose another --out, or delete that folder."
        )
    if record.exists():
        raise InputError(
            f"{str(folder)!r} holds an unfinished run, but {record.name} in its tasks is damaged and no longer says which one: "
            "choose another --out, or delete that folder."
        )
    raise InputError(f"{str(folder)!r} is not empty and holds no run: choose another --out.")


def _activations(
    config: RunConfig, model: LoadedModel, dataset: FeatureDataset, sites: Sequence[Site], reporter: Reporter
) -> dict[bool, Activations]:
    def activations(name: str, model: LoadedModel) -> Activations:
        with reporter.stage(name, len(dataset.tokens), "tok") as done:
            found = extract(model, dataset, sites, dtype=config.store_dtype, progress=done, notify=reporter.note)
        return found[sites[0].name]

    stores = {False: activations("activations", model)}
    if config.random_model:
        with reporter.stage("make twin", 1, "model") as done:
            twin = model_of(config, random_weights_seed=UNTRAINED_SEED)
            done(1)
        stores[True] = activations("untrained twin", twin)
    return stores


def _plan(config: RunConfig, ks: tuple[int, ...], exact: ExactPlan | None) -> Plan:
    return Plan(
        ks=ks,
        methods=tuple(Method(name) for name in config.methods),
        permutations=config.permutations,
        seed=config.seed,
        selection_ridge=config.selection_ridge,
        exact=exact,
    )


def _probes(
    config: RunConfig,
    plan: Plan,
    dataset: FeatureDataset,
    stores: dict[bool, Activations],
    layers: list[int],
    folder: Path,
    reporter: Reporter,
) -> RunTables:
    if not dataset.features:
        return RunTables()
    exact_layers = plan.exact.layers if plan.exact else ()
    tasks = plan_tasks(layers, dataset.categories, random_model=config.random_model, exact_layers=exact_layers)
    with reporter.stage("probes", sum(len(task.features) for task in tasks), "feature x layer") as done:
        results = run_tasks(tasks, dataset, stores, folder / "tasks", plan=plan, workers=config.workers, progress=done)
    with reporter.stage("test scores", len(dataset.features), "feature") as done:
        return evaluate(dataset, {task: results[task] for task in tasks}, stores, config.seed, done)


def _numbers(
    config: RunConfig,
    plan: Plan,
    tasks: list[NumberTask],
    dataset: FeatureDataset,
    stores: dict[bool, Activations],
    folder: Path,
    reporter: Reporter,
) -> NumberTables:
    if not tasks:
        return NumberTables()
    with reporter.stage("numbers", len(tasks), "number x layer") as done:
        results = run_numbers(
            tasks, dataset, stores, folder / "tasks", plan=plan, workers=config.workers, progress=done
        )
    with reporter.stage("number scores", len(dataset.targets), "number") as done:
        return evaluate_numbers(dataset, results, stores, config.seed, done)


def _write_tables(folder: Path, tables: RunTables, numbers: NumberTables) -> None:
    for name, rows, columns in (
        ("probes", tables.probes, schema.PROBES),
        ("neurons", tables.neurons, schema.NEURONS),
        ("differences", tables.differences, schema.DIFFERENCES),
        ("baselines", tables.baselines, schema.BASELINES),
        ("numbers", numbers.numbers, schema.NUMBERS),
        ("number_profiles", numbers.profiles, schema.NUMBER_PROFILES),
        ("number_findings", numbers.findings, schema.NUMBER_FINDINGS),
        ("findings", tables.findings, schema.FINDINGS),
    ):
        write_table(folder / f"{name}.parquet", schema.table(rows, columns))


def _write_examples(
    folder: Path,
    tables: RunTables,
    model: LoadedModel,
    dataset: FeatureDataset,
    sites: Sequence[Site],
    store: Activations,
    reporter: Reporter,
) -> None:
    neurons = named_neurons(dataset, pl.DataFrame(tables.findings))
    with reporter.stage("choose examples", 2 * len(neurons), "step") as done:
        histograms = activation_histograms(dataset, store, neurons)
        done(len(neurons))
        chosen = choose_examples(dataset, store, neurons)
        done(len(neurons))
    with reporter.stage("examples", len({dataset.row_sequence[c.row] for c in chosen}), "text") as done:
        examples = show_examples(model, dataset, sites, chosen, done)
    write_table(folder / "histograms.parquet", schema.table(histograms, schema.HISTOGRAMS))
    write_table(folder / "examples.parquet", schema.table(examples, schema.EXAMPLES))
