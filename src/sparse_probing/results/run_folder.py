"""A finished run on disk: its manifest and its tables, checked before anybody rests on them.

Everything that reads a run folder reads it here. A folder that another version wrote, or that was cut off or changed by hand, is
refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparse_probing.errors import InputError, SparseProbingError
from sparse_probing.files import read_json, read_table
from sparse_probing.results import tables as schema

FORMAT = 1
"""Of the manifest. Runs from before there was a number have none, and still open; a larger one is of a newer version."""
MANIFEST = "manifest.json"
"""Written last: where it is, the run has finished."""
EVIDENCE_FOLDER = "evidence"
"""Folder in a run folder."""

Schema = Mapping[str, Any]
Tables = dict[str, pl.DataFrame]

TABLES: dict[str, Schema] = {
    "findings": schema.FINDINGS,
    "probes": schema.PROBES,
    "neurons": schema.NEURONS,
    "baselines": schema.BASELINES,
    "differences": schema.DIFFERENCES,
    "examples": schema.EXAMPLES,
    "histograms": schema.HISTOGRAMS,
}
NUMBER_TABLES: dict[str, Schema] = {
    "numbers": schema.NUMBERS,
    "number_findings": schema.NUMBER_FINDINGS,
    "number_profiles": schema.NUMBER_PROFILES,
}
"""Missing in folders of runs that knew no regression."""
SINGLE = "single_neuron"
"""Method of the probes on one unit (`sweep.plan.Method`)."""
LATER = {"findings": frozenset({"p"}), "number_findings": frozenset({"p"})}
"""Columns that older runs of the same format lack, by table: there they are null. Whoever adds a column names it here."""
NEVER_NULL = {
    "findings": "category feature neuron layer unit fires f1 f1_low f1_high dense_f1 best_baseline best_baseline_f1 stability "
    "n_test_positive n_test_negative stand_ins verdict explanation",
    "probes": "category feature layer method k split f1 average_precision",
    "neurons": "category feature layer unit mean_difference roc_auc average_precision best_f1",
    "baselines": "category feature baseline f1 f1_low f1_high roc_auc",
    "differences": "category feature metric first second difference low high p",
    "examples": "category feature kind document positive row_activation tokens activations first last",
    "histograms": "category feature bin_low bin_high in_class out_of_class",
    "numbers": "category number method split",
    "number_findings": "category number neuron layer unit sign r2 r2_low r2_high dense_r2 best_baseline best_baseline_r2 verdict "
    "explanation",
    "number_profiles": "category number value rows activation",
    "evidence": "category feature neuron verdict explanation",
}
"""Columns that every row of a table fills; what is shown rests on them."""


class _ModelFacts(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    name: str
    layers: int = Field(ge=1)
    site: str
    width: int = Field(ge=1)
    probed_layers: list[int] = Field(min_length=1)
    parameters: int | None = None


class _RandomSplitFacts(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    shares: list[float]
    draws: int
    torn: float
    fewest: int
    most: int


class _AuditFacts(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    documents_read: int
    groups: int
    duplicates_removed: int
    conflicts_removed: int
    unused: int = 0
    leaked_by_random_split: int = 0
    """Of versions that drew one split."""
    random_split: _RandomSplitFacts | None = None


class _LossFacts(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    count: int
    of: int = Field(ge=1)
    what: str
    why: str
    asked: bool


class _RowsUsedFacts(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    category: str
    rows: int
    texts: int
    texts_read: int
    probed: int
    losses: list[_LossFacts]
    left_out: list[str]
    notes: list[str]


class _Manifest(BaseModel):
    """What others rest on; all else is passed on as it is."""

    model_config = ConfigDict(strict=True, extra="allow")

    options: dict[str, Any]
    identity: dict[str, Any]
    versions: dict[str, str | None]
    model: _ModelFacts
    rows: int
    tokens: int
    counts: dict[str, Any]
    audits: dict[str, _AuditFacts]
    rows_used: list[_RowsUsedFacts] = []


class _Evidence(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    identity: dict[str, Any]


def read_run(folder: Path) -> tuple[dict[str, Any], Tables]:
    """Manifest and tables of a finished run.

    Returns:
        The manifest, and by name the tables of `TABLES` and `NUMBER_TABLES` with the columns of their schemas.

    Raises:
        InputError: the folder is no run, or the run has not finished, is damaged, or was written by a newer version.
    """
    if not (folder / MANIFEST).is_file():
        what = (
            "an unfinished run (finish it with its `sprobe run` command)"
            if (folder / "config.toml").exists()
            else "no run folder"
        )
        raise InputError(f"{str(folder)!r} is {what}: {MANIFEST} is missing.")
    what = f"run {str(folder)!r}"
    manifest = read_manifest(folder, what, _Manifest)
    tables = {
        name: _read_table(folder / f"{name}.parquet", columns, what)
        if name in TABLES or (folder / f"{name}.parquet").exists()
        else pl.DataFrame(schema=dict(columns))
        for name, columns in (TABLES | NUMBER_TABLES).items()
    }
    if trouble := _contradiction(manifest, tables):
        raise InputError(f"{what} is damaged: {trouble}.")
    return manifest, tables


def _contradiction(manifest: dict[str, Any], tables: Tables) -> str | None:
    """What manifest and tables do not agree on; null where they do."""
    layers, width = manifest["model"]["probed_layers"], manifest["model"]["width"]
    for name in ("findings", "number_findings"):
        table = tables[name]
        for category in table["category"].unique(maintain_order=True):
            if category not in manifest["audits"]:
                return f"{MANIFEST} has no audit of category {category!r}"
        if not table["layer"].is_in(layers).all() or not table["unit"].is_between(0, width, closed="left").all():
            return f"{name}.parquet names a unit of a layer that was not probed"
    for name in ("probes", "numbers"):
        chosen = tables[name].filter(pl.col("method") == SINGLE)
        units = chosen["columns"].list.first()
        if units.has_nulls() or not units.is_between(0, width, closed="left").all() or chosen["layer"].has_nulls():
            return f"{name}.parquet has a probe without its unit"
    return None


def read_evidence(folder: Path, schemas: Mapping[str, Schema]) -> Tables | None:
    """Tables of a run's verification; null where there was none.

    Args:
        folder: of the run.
        schemas: table -> columns (`studies.evidence.TABLES`).

    Raises:
        InputError: the tables cannot be read, or were written by a newer version.
    """
    place = folder / EVIDENCE_FOLDER
    if not (place / MANIFEST).exists():
        return None
    what = f"the evidence in {str(place)!r}"
    read_manifest(place, what, _Evidence)
    try:
        return {name: _read_table(place / f"{name}.parquet", columns, what) for name, columns in schemas.items()}
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}: delete that folder and verify again.") from None


def finished_identity(folder: Path, what: str) -> dict[str, Any] | None:
    """What the finished work in a folder is; null where there is none.

    Args:
        folder: of a run, or of its evidence.
        what: name of it, for messages.

    Raises:
        InputError: its manifest is damaged or of a newer version.
    """
    return read_manifest(folder, what, _Evidence)["identity"] if (folder / MANIFEST).exists() else None


def read_manifest(folder: Path, what: str, expected: type[BaseModel] = _Evidence) -> dict[str, Any]:
    """A manifest that has what is expected of it.

    Raises:
        InputError: it is damaged or of a newer version.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict):
            raise ValueError("it is no JSON object")
        written = manifest.get("format", 0)
        if not isinstance(written, int) or isinstance(written, bool) or written < 0:
            raise ValueError(f"format is no number, got {written!r}")
    except (OSError, ValueError) as error:
        raise InputError(f"{what} is damaged: {MANIFEST}: {_reason(error)}.") from None
    if written > FORMAT:
        raise InputError(
            f"{what} was written by a newer version of sparse-probing (format {written}, this one reads up to {FORMAT}): update "
            "sparse-probing."
        )
    try:
        return expected.model_validate(manifest).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{what} is damaged: {MANIFEST}, {where}: {first['msg'].lower()}.") from None


def read_sheets(path: Path, what: str) -> list[dict[str, Any]]:
    """Data sheets, as `studies.datasheet` makes them.

    Raises:
        InputError: the file is damaged.
    """
    try:
        sheets = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{what} is damaged: {path.name}: {_reason(error)}.") from None
    if not isinstance(sheets, list) or not all(isinstance(sheet, dict) for sheet in sheets):
        raise InputError(f"{what} is damaged: {path.name} is no list of data sheets.")
    return sheets


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """While records of a folder are put to use: its files come from outside, so whatever they lack is damage, no bug.

    Raises:
        InputError: a record in the folder is not of the form that this version writes.
    """
    try:
        yield
    except (SparseProbingError, OSError, MemoryError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise InputError(
            f"{str(folder)!r} cannot be used: a record in it is not of the form that this version writes ({type(error).__name__}: "
            f"{words}). It was changed by hand, or written by another version."
        ) from error


def _read_table(path: Path, columns: Schema, what: str) -> pl.DataFrame:
    """A table with exactly these columns."""
    try:
        table = read_table(path)
    except FileNotFoundError:
        raise InputError(f"{what} is damaged: {path.name} is missing.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{what} is damaged: {path.name}: {_reason(error)}.") from None
    later = LATER.get(path.stem, frozenset())
    for name, kind in columns.items():
        if name not in table.columns:
            if name not in later:
                raise InputError(f"{what} is damaged: {path.name} has no column {name!r}.")
            table = table.with_columns(pl.lit(None, dtype=kind).alias(name))
        if table[name].dtype != kind:
            raise InputError(
                f"{what} is damaged: column {name!r} of {path.name} holds {table[name].dtype}, not {_words(kind)}."
            )
        if table[name].dtype == pl.Float64 and table[name].is_nan().any():
            raise InputError(f"{what} is damaged: column {name!r} of {path.name} holds what is no number.")
    for name in NEVER_NULL.get(path.stem, "").split():
        if table[name].has_nulls():
            raise InputError(f"{what} is damaged: column {name!r} of {path.name} has empty cells.")
    return table.select(columns.keys())


def _words(kind: Any) -> str:
    return str(kind() if isinstance(kind, type) else kind)


def _reason(error: OSError | ValueError) -> str:
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
