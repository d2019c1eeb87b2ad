"""The second look at the neurons that a run names: interventions, weights, profiles, redundancy; then the verdict."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sparse_probing.config import VerifyConfig
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.text_folder import read_texts
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.files import remove_partials, write_json, write_table
from sparse_probing.open_run import open_run
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
from sparse_probing.studies import evidence
from sparse_probing.studies.effects.ablation import FEWEST_DOCUMENTS
from sparse_probing.studies.effects.doses import parse_dose
from sparse_probing.studies.evidence import evidence_tables, read_evidence
from sparse_probing.studies.evidence_verdict import evidence_rows
from sparse_probing.studies.request import Request
from sparse_probing.studies.study import Rows, Study
from sparse_probing.sweep.task_folder import read_finished


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
    for dose in config.doses:
        parse_dose(dose)
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
    request = Request(run=run, features=features, config=config, sample=text, tasks=tasks)
    rows: Rows = {name: [] for name in evidence_tables()}
    for study in evidence.STUDIES:
        rows |= _once(study, request)
    rows["evidence"] = evidence_rows(run.tables["findings"], rows)
    (place / "manifest.json").unlink(missing_ok=True)  # from here on the tables are no longer those that it speaks of
    for name, columns in evidence_tables().items():
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
    """What is kept of one study."""

    rows: Rows
    """Table -> rows."""


def _once(study: Study, request: Request) -> Rows:
    """Rows that a study made before a stop, or makes now."""
    path = request.tasks / f"{study.name}.json"
    part = read_finished(path, _Part)
    if part is None:
        part = _Part(rows=study.measure(request))
        if undeclared := part.rows.keys() - study.tables.keys():  # they would be dropped in silence
            raise ValueError(f"study {study.name!r} has no table {', '.join(sorted(undeclared))}")
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
