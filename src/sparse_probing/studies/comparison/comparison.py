"""The same features over several runs: models of a family by size, or checkpoints of one model.

Input are finished runs that were read; nothing is computed anew. After the paper's sweep over model sizes (6.1), its features that
split (6.10) and its curves against relative depth (6.12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import polars as pl

from sparse_probing.errors import InputError
from sparse_probing.records import unit_name
from sparse_probing.results.verdict import FEW
from sparse_probing.studies.comparison.dynamics import Point, Score, dynamic
from sparse_probing.studies.comparison.tables import CATEGORIES, COMPARISON, DEPTHS, DYNAMICS, SUMMARY
from sparse_probing.sweep.plan import SELECTED, Method

KEY = ["category", "feature"]
NOT_METHOD = {"name", "model", "data", "source", "seed", "layers", "out", "workers", "device", "device_map", "dtype"}
"""Options that may differ, or that have a note of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run folder that was read: `results.run_folder.read_run`."""

    folder: Path
    manifest: dict[str, Any]
    tables: dict[str, pl.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `compare_runs` finds; runs are in order."""

    runs: list[dict[str, Any]]
    """Per run: run (its name), model, folder, size, layers, width, site, seed."""
    size_unit: Literal["parameters", "units"]
    """What sizes count. Units (layers x width of the site) where a run does not know its parameters."""
    by_size: bool
    """Whether sizes rise from run to run, so that they can be an axis."""
    tables: dict[str, pl.DataFrame]
    """By the names and schemas of `results.comparison_tables`."""
    notes: list[str]
    """What makes the runs less comparable, in sentences."""


def compare_runs(
    given: Sequence[FinishedRun], *, order: Literal["size", "given"] = "size", names: Sequence[str] | None = None
) -> Comparison:
    """Put finished runs side by side.

    Args:
        given: the runs. By size, runs of equal size (checkpoints, seeds) keep the order in which they are given.
        order: by size or as given.
        names: one per run, in the order given. Default: the run's `--name`, else the model's; the folder's where they repeat.

    Raises:
        InputError: fewer than two runs, the same folder twice, no feature that two runs share, names that do not
            fit.
    """
    if len(given) < 2:
        raise InputError(f"a comparison needs at least 2 runs, got {len(given)}: name more run folders.")
    folders = [run.folder.resolve() for run in given]
    twice = [str(folder) for i, folder in enumerate(folders) if folder in folders[:i]]
    if twice:
        raise InputError(f"run {twice[0]!r} is named twice: name each run folder once.")
    called = _names(given, names)
    known = all(run.manifest["model"].get("parameters") for run in given)
    sizes = [_size(run.manifest["model"], parameters=known) for run in given]
    places = sorted(range(len(given)), key=lambda i: sizes[i] if order == "size" else i)
    runs = {called[i]: given[i] for i in places}
    ordered = [sizes[i] for i in places]
    everywhere, notes = _shared_features(runs)
    notes = _differences(runs) + notes
    if order == "size" and len(set(ordered)) < len(ordered):
        notes.append("Runs of equal size are in the order in which they were given.")
    tables = {
        name: _stacked(runs, part, schema, everywhere)
        for name, part, schema in (
            ("comparison", _chosen, COMPARISON),
            ("summary", _summary, SUMMARY),
            ("depths", _depths, DEPTHS),
        )
    }
    return Comparison(
        runs=[
            {"run": name, "folder": str(run.folder), "size": size, "seed": run.manifest["options"].get("seed")}
            | {"model": _short(run), **{key: run.manifest["model"][key] for key in ("layers", "width", "site")}}
            for (name, run), size in zip(runs.items(), ordered, strict=True)
        ],
        size_unit="parameters" if known else "units",
        by_size=all(a < b for a, b in pairwise(ordered)),
        tables=tables
        | {
            "dynamics": _dynamics(tables["summary"], tables["comparison"]),
            "categories": _categories(runs, tables["summary"], tables["comparison"]),
        },
        notes=notes,
    )


def _size(model: dict[str, Any], *, parameters: bool) -> int:
    return int(model["parameters"]) if parameters else model["layers"] * model["width"]


def _short(run: FinishedRun) -> str:
    return Path(str(run.manifest["model"]["name"])).name


def _names(runs: Sequence[FinishedRun], given: Sequence[str] | None) -> list[str]:
    if given is not None:
        names = [name.strip() for name in given]
        if len(names) != len(runs) or len(set(names)) < len(names) or not all(names):
            raise InputError(f"--names must give {len(runs)} different names, one per run, got {', '.join(names)!r}.")
        return names
    names = [str(run.manifest["options"].get("name") or _short(run)) for run in runs]
    for other in ([run.folder.resolve().name for run in runs], [str(run.folder.resolve()) for run in runs]):
        names = [other[i] if names.count(name) > 1 else name for i, name in enumerate(names)]
    return names


def _shared_features(runs: dict[str, FinishedRun]) -> tuple[pl.DataFrame, list[str]]:
    """Features that at least two runs have, with the number of these runs; notes on the others."""
    having: dict[tuple[str, str], list[str]] = {}
    for name, run in runs.items():
        for category, feature in run.tables["findings"].select(KEY).iter_rows():
            having.setdefault((category, feature), []).append(name)
    shared = {key: names for key, names in having.items() if len(names) > 1}
    if not shared:
        raise InputError(f"the {len(runs)} runs share no feature: compare runs that were made with the same data.")
    notes = []
    for names in dict.fromkeys(tuple(names) for names in having.values() if len(names) < len(runs)):
        features = ", ".join(f"{c}/{f}" for (c, f), n in having.items() if tuple(n) == names)
        notes.append(f"Only in {' and '.join(names)}{', left out' if len(names) == 1 else ''}: {features}.")
    rows = [(*key, len(names)) for key, names in shared.items()]
    return pl.DataFrame(rows, schema=[*KEY, "n_runs"], orient="row"), notes


def _differences(runs: dict[str, FinishedRun]) -> list[str]:
    """Notes on what else differs between the runs than the model."""
    notes = []
    options = {name: run.manifest["options"] for name, run in runs.items()}

    def differing(what: str, values: dict[str, Any], meaning: str) -> None:
        having: dict[str, list[str]] = {}
        for name, value in values.items():
            having.setdefault(str(value), []).append(name)
        if len(having) > 1:
            each = ", ".join(f"{value} ({', '.join(names)})" for value, names in having.items())
            notes.append(f"Different {what}: {each}. {meaning}")

    data = {name: [o.get("source"), o.get("data")] for name, o in options.items()}
    differing(
        "data",
        {name: " ".join(str(part) for part in parts if part) for name, parts in data.items()},
        "Differences between runs may come from the data.",
    )
    differing("seeds", {n: o.get("seed") for n, o in options.items()}, "Test rows differ, too.")
    sites = {name: run.manifest["model"]["site"] for name, run in runs.items()}
    differing("sites", sites, "Their units are not alike.")
    keys = set.intersection(*(set(o) for o in options.values())) - NOT_METHOD - {"site"}
    if other := sorted(key for key in keys if len({str(o[key]) for o in options.values()}) > 1):
        notes.append(f"Options differ: {', '.join(other)}.")
    counts = [run.manifest["counts"] for run in runs.values()]
    common = set.intersection(*(set(c) for c in counts))
    if moved := sorted(f for f in common if any(c[f] != counts[0][f] for c in counts)):
        some = ", ".join(moved[:3]) + (", …" if len(moved) > 3 else "")
        many = f"{len(moved)} of {len(common)} features ({some})"
        notes.append(f"Numbers of rows differ for {many}: other rows, or another tokenizer.")
    for name, run in runs.items():
        model = run.manifest["model"]
        if len(model["probed_layers"]) < model["layers"]:
            probed = " ".join(map(str, model["probed_layers"]))
            notes.append(f"{name} probes layers {probed} of its {model['layers']} only.")
    if any(len(run.tables["number_findings"]) for run in runs.values() if "number_findings" in run.tables):
        notes.append("Numbers (regression) are not compared.")
    return notes


def _stacked(runs: dict[str, FinishedRun], part: Any, schema: dict[str, Any], shared: pl.DataFrame) -> pl.DataFrame:
    """`part` of every run, one below the other: features in the order of the first run that has them, then runs."""
    place = {name: i for i, name in enumerate(runs)}
    blocks = [part(run).with_columns(run=pl.lit(name), _run=pl.lit(place[name])) for name, run in runs.items()]
    order = shared.select(KEY).with_row_index("_feature")
    return (
        pl.concat(blocks)
        .with_row_index("_row")
        .join(order, on=KEY)
        .sort("_feature", "_run", "_row")
        .select(pl.col(name).cast(kind) for name, kind in schema.items())
    )


def _depth(run: FinishedRun) -> pl.Expr:
    return pl.col("layer") / max(1, run.manifest["model"]["layers"] - 1)


def _chosen(run: FinishedRun) -> pl.DataFrame:
    """One row per feature and k: the probe chosen before test, with its validation and test F1."""
    probes, site = run.tables["probes"], run.manifest["model"]["site"]
    where = [*KEY, "layer", "method", "k"]
    validation = probes.filter(split="validation").select(*where, pl.col("f1").alias("validation_f1"))
    role = pl.col("role")
    chosen = probes.filter(
        pl.col("split") == "test",
        role.is_in(["single", "dense"]) | (role.str.starts_with("sparse k=") & (pl.col("k") > 1)),
    )
    neurons = [
        unit_name(site, layer, columns[0]) if role == "single" else None
        for layer, columns, role in chosen.select("layer", "columns", "role").iter_rows()
    ]
    return (
        chosen.with_columns(
            _depth(run).alias("relative_depth"),
            pl.Series("neuron", neurons, dtype=pl.String),
            role.str.split(" ").list.first().alias("probe"),
        )
        .join(validation, on=where, how="left", nulls_equal=True)
        .sort(pl.col("probe").replace_strict({"single": 0, "sparse": 1, "dense": 2}), "k", maintain_order=True)
        .select(
            *where, "relative_depth", "probe", "neuron", "validation_f1",
            pl.col("f1", "f1_low", "f1_high").name.prefix("test_"),
        )
    )  # fmt: skip


def _summary(run: FinishedRun) -> pl.DataFrame:
    positives, negatives = pl.col("n_test_positive"), pl.col("n_test_negative")
    return (
        run.tables["findings"]
        .with_columns(
            _depth(run).alias("relative_depth"), (2 * positives / (2 * positives + negatives)).alias("chance")
        )
        .select(name for name in SUMMARY if name != "run")
    )


def _competitors(run: FinishedRun) -> pl.DataFrame:
    """Probes that compete (no controls), best first by merit, as `sweep.choose.best` orders them; `f1` is validation's."""
    where = [*KEY, "layer", "method", "k"]
    methods = [Method.SINGLE.value, *(method.value for method in SELECTED)]
    probes = run.tables["probes"].filter(pl.col("method").is_in(methods))
    score = ((pl.col("f1") + pl.col("average_precision")) / 2).alias("_score")
    train = probes.filter(split="train").select(*where, score.alias("_train"))
    return (
        probes.filter(split="validation")
        .select(*where, "f1", "objective", score)
        .join(train, on=where)
        .with_columns(pl.min_horizontal("_score", "_train").alias("merit"))
        .sort("merit", "objective", "layer", descending=[True, False, False], maintain_order=True)
    )


def _depths(run: FinishedRun) -> pl.DataFrame:
    """Each layer's best single neuron and best probe on at most 16."""
    layer = [*KEY, "layer"]
    ranked = _competitors(run).filter(pl.col("k") <= FEW)
    single = ranked.filter(k=1).unique(layer, keep="first", maintain_order=True)
    few = ranked.unique(layer, keep="first", maintain_order=True)
    return (
        few.select(*layer, pl.col("f1").alias("sparse_f1"), pl.col("k").alias("sparse_k"))
        .join(single.select(*layer, pl.col("f1").alias("single_f1")), on=layer, how="left")
        .with_columns(_depth(run).alias("relative_depth"))
        .sort("layer", maintain_order=True)
    )


def _dynamics(summary: pl.DataFrame, comparison: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for (category, feature), block in summary.group_by(KEY, maintain_order=True):
        probes = comparison.filter(category=category, feature=feature)
        names = block["run"].to_list()
        sizes = (
            probes.filter(pl.col("probe") == "sparse", pl.col("k") <= FEW).group_by("k").len().filter(len=len(names))
        )
        few = sizes["k"].max()
        points = [
            Point(
                run=row["run"],
                single=_score(row["f1"], row["f1_low"], row["f1_high"]),
                chance=row["chance"],
                larger={
                    ("all neurons" if probe["probe"] == "dense" else f"{probe['k']} neurons"): _score(
                        probe["test_f1"], probe["test_f1_low"], probe["test_f1_high"]
                    )
                    for probe in probes.filter(run=row["run"]).to_dicts()
                    if probe["probe"] == "dense" or (probe["probe"] == "sparse" and probe["k"] == few)
                },
            )
            for row in block.to_dicts()
        ]
        label, why = dynamic(points)
        best = max(points, key=lambda p: p.single.f1)
        rows.append(
            {"category": category, "feature": feature, "dynamic": label, "explanation": why, "runs": len(points)}
            | {"first_f1": points[0].single.f1, "last_f1": points[-1].single.f1}
            | {"best_f1": best.single.f1, "best_run": best.run}
        )
    return pl.DataFrame(rows, schema=DYNAMICS, orient="row")


def _score(f1: float, low: float | None, high: float | None) -> Score:
    return Score(f1=f1) if low is None or high is None else Score(f1=f1, low=low, high=high)


def _categories(runs: dict[str, FinishedRun], summary: pl.DataFrame, comparison: pl.DataFrame) -> pl.DataFrame:
    """Means per category and run; empty where no feature of a category is in all runs."""
    everywhere = summary.group_by(KEY).len().filter(len=len(runs)).select(KEY)
    above = pl.concat(
        _competitors(run).filter(pl.col("k") == 1, pl.col("layer") > 0).unique(KEY, keep="first", maintain_order=True)
        .select(*KEY, pl.lit(name).alias("run"), pl.col("f1").alias("_above"))
        for name, run in runs.items()
    )  # fmt: skip
    single = comparison.filter(probe="single").select(*KEY, "run", "validation_f1")
    where = [*KEY, "run"]
    return (
        summary.join(everywhere, on=KEY, maintain_order="left")
        .join(single, on=where, how="left", maintain_order="left")
        .join(above, on=where, how="left", maintain_order="left")
        .group_by("category", "run", maintain_order=True)
        .agg(
            pl.len().alias("features"),
            pl.col("f1", "validation_f1", "k_enough", "relative_depth").mean(),
            pl.col("_above").mean().alias("validation_f1_above_layer_0"),
            pl.col("k_enough").is_null().sum().alias("without_k_enough"),
        )
        .select(pl.col(name).cast(kind) for name, kind in CATEGORIES.items())
    )
