"""The second look at the neurons that a run names: interventions, weights, profiles, redundancy; then the verdict."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sparse_probing.config import VerifyConfig
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.text_folder import read_texts
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.files import remove_partials, write_json, write_table
from sparse_probing.open_run import OpenRun, open_run
from sparse_probing.progress import Reporter, Silent
from sparse_probing.report.run_report import write_report
from sparse_probing.results import tables as schema
from sparse_probing.results.findings import named_finding
from sparse_probing.results.manifest import git_state, versions
from sparse_probing.results.run_folder import (
    EVIDENCE_FOLDER,
    FORMAT,
    finished_identity,
    read_run,
)
from sparse_probing.results.verdict import Ablation, SecondLook, second_verdict
from sparse_probing.studies.effects.ablation import FEWEST_DOCUMENTS
from sparse_probing.studies.effects.doses import parse_dose
from sparse_probing.studies.effects.interventions import Treatment
from sparse_probing.studies.effects.study import run_effects, scoring_of
from sparse_probing.studies.evidence import TABLES, read_evidence
from sparse_probing.studies.parts import Rows, profile_rows, structure_rows, weight_rows
from sparse_probing.studies.structure.redundancy import ALL_LAYERS
from sparse_probing.sweep.task_folder import read_finished

ABLATIONS = ("zero", "mean", "resample")
"""Kinds of intervention that the verdict may rest on: the first of them that was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What `verify` left behind."""

    folder: Path
    evidence: pl.DataFrame
    """One row per feature: effect of its neuron, p, verdict."""
    matrix: pl.DataFrame
    """Whose neurons were switched off, whose texts were read, change of the loss (`effect_matrix`)."""
    report: Path


def verify(
    folder: Path,
    config: VerifyConfig | None = None,
    labelled: Sequence[LabelledText] | None = None,
    reporter: Reporter | None = None,
) -> VerifyResult:
    """Collect the evidence on every neuron that a run names, into `evidence/` of its folder, and write its report anew.

    Stopped work is continued by the same call; finished work with the same options is only read, with other options refused
    unless `config.replace`.

    Args:
        folder: of a finished run.
        config: options.
        labelled: the run's labelled text, where it was made in Python.
        reporter: told about progress; silent when null.

    Raises:
        InputError: no run, another model or other data than it was made with, a feature that it does not have.
        PrerequisiteError: the folder cannot be written.
    """
    config, reporter = config or VerifyConfig(), reporter or Silent()
    doses = tuple(map(parse_dose, config.doses))
    started = time.monotonic()
    manifest, tables = read_run(folder)
    wanted = _wanted(tables["findings"], config.feature)
    text = None if config.text is None else read_texts(config.text, seed=config.seed)
    identity = {
        "options": config.identity(),
        "text": None if text is None else _hash([text.names, text.texts]),
        "run": manifest["identity"],
        "version": versions()["sparse-probing"],
    }
    place = folder / EVIDENCE_FOLDER
    known = finished_identity(place, f"the evidence in {str(place)!r}")
    if known == identity:
        _tidy(place)
        return _result(folder)
    if known is not None and not config.replace:
        raise InputError(
            f"{str(place)!r} holds a finished second look with other options or data: add --replace to throw it away, or copy "
            "the run folder and verify the copy."
        )
    if config.texts < FEWEST_DOCUMENTS:
        reporter.note(
            f"--texts {config.texts} is too few for intervals, which need {FEWEST_DOCUMENTS} documents in class and as many out of "
            f"class: effects will have none, and no verdict will change. Stop here and give --texts {FEWEST_DOCUMENTS} or more."
        )
    trust = config.trust_remote_code
    run = open_run(folder, labelled, reporter, with_head=True, device=config.device, trust_remote_code=trust)
    features = [run.feature(*key) for key in wanted]
    tasks = _tasks(place, identity)
    treatment = Treatment(
        kinds=config.kinds, doses=doses, labelled_only=config.where == "labelled", placebos=config.placebos
    )
    scoring, remark = scoring_of(run)
    if scoring is None:
        reporter.note(f"no loss can be measured: {remark}; the evidence rests on probes, weights and examples.")
    found = {} if scoring is None else run_effects(run, features, treatment, scoring, config, tasks, reporter)
    rows: Rows = {
        "ablations": [row for task in found.values() for row in task.ablations],
        "effect_matrix": [row for task in found.values() for row in task.effect_matrix],
    }
    parts: dict[str, Callable[[], Rows]] = {
        "profile": lambda: profile_rows(run, features, text, config.seed),
        "weights": lambda: weight_rows(run, features, config.seed),
        "structure": lambda: structure_rows(run, features, config.seed),
    }
    for name, make in parts.items():
        rows |= _once(tasks / f"{name}.json", make)
    remarks = {f: task.remark for f, task in found.items()} if scoring else dict.fromkeys(features, remark)
    rows["evidence"] = _verdicts(run, features, rows, remarks)
    (place / "manifest.json").unlink(missing_ok=True)  # from here on the tables are no longer those that it speaks of
    for name, columns in TABLES.items():
        write_table(place / f"{name}.parquet", schema.table(rows[name], columns))
    about = {
        "format": FORMAT,
        "identity": identity,
        "git": git_state(),
        "versions": versions(),
        "objective": run.model.objective,
        "wall_time_s": round(time.monotonic() - started, 1),
    }
    write_json(place / "manifest.json", about)
    _tidy(place)
    return _result(folder)


def _tidy(place: Path) -> None:
    """Remove what only unfinished work needs."""
    with contextlib.suppress(OSError):  # evidence that may only be read is fine, too
        shutil.rmtree(place / "tasks", ignore_errors=True)
        for folder in (place, place.parent):
            remove_partials(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What is kept of one kind of evidence."""

    rows: Rows
    """Table -> rows."""


def _once(path: Path, make: Callable[[], Rows]) -> Rows:
    """Rows that were made before a stop, or made now."""
    part = read_finished(path, _Part)
    if part is None:
        part = _Part(rows=make())
        write_json(path, asdict(part))
    return part.rows


def _result(folder: Path) -> VerifyResult:
    tables = read_evidence(folder)
    assert tables is not None  # its manifest has just been read or written
    return VerifyResult(
        folder=folder, evidence=tables["evidence"], matrix=tables["effect_matrix"], report=write_report(folder)
    )


def _wanted(findings: pl.DataFrame, names: Sequence[str]) -> list[tuple[str, str]]:
    """(category, feature) of the features that are named, or of all.

    Raises:
        InputError: a name that the run does not have, or that several categories have; a run of numbers only.
    """
    if not len(findings):
        raise InputError("this run probed numbers only: there is no class whose neurons could be verified.")
    chosen = {tuple(named_finding(findings, name)[key] for key in ("category", "feature")) for name in names}
    return [key for key in findings.select("category", "feature").rows() if key in chosen or not names]


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _tasks(place: Path, identity: dict[str, Any]) -> Path:
    """Folder of finished tasks of this very analysis; those of another one are removed."""
    tasks = place / "tasks" / _hash(identity)
    try:
        for other in (place / "tasks").glob("*"):
            if other != tasks:
                shutil.rmtree(other)
        tasks.mkdir(parents=True, exist_ok=True)
        for folder in (tasks, place, place.parent):
            remove_partials(folder)
    except OSError as error:
        raise PrerequisiteError(
            f"{str(place)!r} cannot be written ({error.strerror}): copy the run to a folder of yours."
        ) from None
    return tasks


def _verdicts(
    run: OpenRun, features: Sequence[int], rows: Rows, remarks: dict[int, str | None]
) -> list[dict[str, Any]]:
    """One row per feature: the verdict of the probes, revised."""
    made = {row["kind"] for row in rows["ablations"]}
    ablation = next((kind for kind in ABLATIONS if kind in made), None)
    result = []
    for f in features:
        key = {"category": run.dataset.categories[f], "feature": run.dataset.features[f]}
        finding = run.tables["findings"].filter(**key).row(0, named=True)
        mine = {
            row["support"]: row for row in rows["ablations"] if key.items() <= row.items() and row["kind"] == ablation
        }
        looks = {role: _ablation(row) for role, row in mine.items()}
        equals = _equals(rows["pruning"], key)
        short, why = second_verdict(
            SecondLook(
                verdict=finding["verdict"],
                explanation=finding["explanation"],
                single=looks.get("single"),
                enough=looks.get("enough"),
                equals=equals,
            )
        )
        shown = mine.get("single", {})
        result.append(
            key
            | {
                "neuron": finding["neuron"],
                "verdict": short,
                "explanation": why,
                "remark": remarks[f] or _doubt(looks.get("single")),
                "equals": equals,
            }
            | {"ablation": ablation if shown else None}
            | {name: shown.get(name) for name in ("effect_in", "over_placebo", "p", "exceeded_in")}
        )
    return result


def _equals(pruning: Sequence[dict[str, Any]], key: dict[str, str]) -> int | None:
    """Single neurons of all layers that do as well as the best one, itself included."""
    mine = [row for row in pruning if row["scope"] == ALL_LAYERS and key.items() <= row.items()]
    return sum(bool(row["as_good"]) for row in mine) if mine else None


def _doubt(single: Ablation | None) -> str | None:
    """Why an ablation says nothing about the verdict."""
    if single is None or single.testable:
        return None
    return "too few documents for intervals (20 of each class), or too few placebos: the verdict is that of the probes"


def _ablation(row: dict[str, Any]) -> Ablation:
    return Ablation(
        neurons=len(row["neurons"]),
        effect_in=row["effect_in"],
        effect_in_low=row["effect_in_low"],
        effect_in_high=row["effect_in_high"],
        effect_out=row["effect_out"],
        loss_in=row["loss_in"],
        over_placebo=row.get("over_placebo"),
        low=row.get("over_placebo_low"),
        high=row.get("over_placebo_high"),
        p=row.get("p"),
        placebos=row["placebos"],
    )
