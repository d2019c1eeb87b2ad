"""Labelled text on disk: a `dataset.json` and its documents, as packed JSON lines, plain JSON lines or Hugging Face Parquet files.

    dataset.json             format version, the fields of `LabelledText` but the documents, their number, fingerprint, files
    documents.jsonl.zst      `write_dataset_folder`: one object per document (see `Document`)
    documents.jsonl          `export_jsonl`: the same lines, not packed
    data/SPLIT.parquet       `export_hugging_face`: columns of the same names, and the place of each document in the whole
    NAME.jsonl               `export_file`: the lines of `documents.jsonl` without a folder; what `dataset.json` would hold stands
                             in the first line, as its first field `dataset`

`dataset.json` is removed first and written last: a folder without it is not (yet) a data set. Same content, same bytes. Other
files in the folder are left alone.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_type_hints

import polars as pl
import zstandard
from pydantic import TypeAdapter, ValidationError

from sparse_probing.datasets.document_records import (
    DOCUMENT_FIELDS,
    check_fields,
    document_line,
    json_line,
    read_document,
)
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.readers import Row, iter_rows
from sparse_probing.errors import InputError
from sparse_probing.files import write_atomically, write_json, write_table, write_text
from sparse_probing.records import SPLITS, Split

FORMAT_VERSION = 1
HEADER, PACKED, PLAIN = "dataset.json", "documents.jsonl.zst", "documents.jsonl"
TABLES = {split: f"data/{split.value}.parquet" for split in SPLITS}
IN_FILE = "dataset"
"""Field of the first document of a file, which holds what `dataset.json` would hold."""
FILE_BEGINS = f'{{"{IN_FILE}":{{"format_version":'.encode()
HEADER_FIELDS = tuple(field.name for field in fields(LabelledText) if field.name != "documents")
COMPRESSION = 9
BATCH = 1_000

_STRUCTS: dict[str, dict[str, Any]] = {
    "labels": {"feature": pl.String, "positive": pl.Boolean},
    "numbers": {"feature": pl.String, "value": pl.Float64},
    "spans": {"start": pl.Int64, "end": pl.Int64, "label": pl.String},
}
_KINDS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(kind)
    for name, kind in {
        **{name: kind for name, kind in get_type_hints(LabelledText).items() if name in HEADER_FIELDS},
        "n_documents": int, "files": list[str], "fingerprint": str,
    }.items()
}  # fmt: skip
"""Field of `dataset.json` -> what it can hold."""
_TABLE = pl.Schema(
    {"order": pl.Int64}
    | {name: pl.List(pl.Struct(_STRUCTS[name])) if name in _STRUCTS else pl.String for name in DOCUMENT_FIELDS}
    | {"breaks": pl.List(pl.Int64)}
)


def fingerprint(labelled: LabelledText) -> str:
    """32 hexadecimal digits that depend on all but the notes: on the documents and their order, on features and rules.

    Raises:
        InputError: a text or name that UTF-8 cannot store, or a number that JSON cannot.
    """
    header = _header(labelled)
    del header["notes"]
    digest = hashlib.blake2b(json_line(header, "the description"), digest_size=16)
    for document in labelled.documents:
        digest.update(document_line(document))
    return digest.hexdigest()


def is_dataset_folder(path: Path) -> bool:
    """Whether a folder, or a file of `export_file`, says that it holds labelled text."""
    if path.is_file():
        if path.suffix != ".jsonl":
            return False
        with path.open("rb") as file:
            return file.read(len(FILE_BEGINS)) == FILE_BEGINS
    header = path / HEADER
    return header.is_file() and b'"format_version"' in header.read_bytes()


def read_category(folder: Path) -> str:
    """Category of a dataset folder, without its documents.

    Raises:
        InputError: no dataset folder, or another version's.
    """
    return str((_read_file(folder)[0] if folder.is_file() else _read_header(folder))["category"])


def write_dataset_folder(folder: Path, labelled: LabelledText) -> None:
    """Write labelled text, packed.

    Raises:
        InputError: as `fingerprint`; nothing is written then.
    """

    def write(partial: Path) -> None:
        packer = zstandard.ZstdCompressor(level=COMPRESSION, write_checksum=True)
        with zstandard.open(partial, "wb", cctx=packer) as file:
            for document in labelled.documents:
                file.write(document_line(document))

    _write(folder, labelled, lambda: write_atomically(folder / PACKED, write), [PACKED])


def export_jsonl(labelled: LabelledText, folder: Path) -> None:
    """Write labelled text for other programs to read: as `write_dataset_folder`, but not packed."""

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:
            for document in labelled.documents:
                file.write(document_line(document))

    _write(folder, labelled, lambda: write_atomically(folder / PLAIN, write), [PLAIN])


def export_file(labelled: LabelledText, path: Path) -> None:
    """Write labelled text as a single file of JSON lines, one document per line.

    The first line has one field more, `dataset`: category, features and rules, without which the text could not be read back.

    Raises:
        InputError: as `fingerprint`; nothing is written then.
    """
    header = {"format_version": FORMAT_VERSION} | _header(labelled)
    header |= {"n_documents": len(labelled.documents), "files": [PLAIN], "fingerprint": fingerprint(labelled)}
    first = json_line({IN_FILE: header}, "the description")

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:
            if not labelled.documents:
                file.write(first)
            for number, document in enumerate(labelled.documents):
                line = document_line(document)
                file.write(line if number else first[:-2] + b"," + line[1:])

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def export_hugging_face(labelled: LabelledText, folder: Path) -> None:
    """Write a folder that `datasets.load_dataset(folder)` reads: a Parquet file per split and a `README.md` with the card.

    Documents without a split are in the `train` file; the column `split` tells them from those that belong there. Labels and
    numbers are lists of `{"feature", "positive"}` and `{"feature", "value"}`, so that any name and any number of them fits.

    Raises:
        InputError: as `fingerprint`; or the folder has a `README.md` and is no data set, so that the file would be lost.
    """
    readme = folder / "README.md"
    if readme.exists() and not is_dataset_folder(folder):
        raise InputError(f"{str(readme)!r} is there already and not from an export: name another folder.")
    parts: dict[Split, list[tuple[int, Document]]] = {}
    for order, document in enumerate(labelled.documents):
        parts.setdefault(document.split or Split.TRAIN, []).append((order, document))
    used = [split for split in SPLITS if split in parts] or [Split.TRAIN]

    def write() -> None:
        (folder / "data").mkdir(exist_ok=True)
        for split, name in TABLES.items():
            if split in used:
                write_table(folder / name, _table(parts.get(split, [])))
            else:
                (folder / name).unlink(missing_ok=True)  # of an earlier export
        write_text(readme, _card(labelled, used))

    _write(folder, labelled, write, [TABLES[split] for split in used])


def read_dataset_folder(folder: Path) -> LabelledText:
    """Labelled text from a folder in any of the three forms, or from a file of `export_file`.

    Raises:
        InputError: no such folder, another format version, a field that is unknown or missing, or content that does not have the
            fingerprint: the files were changed by hand or are cut off.
    """
    if folder.is_file():
        header, records = _read_file(folder)
    else:
        header = _read_header(folder)
        records = _records([folder / name for name in header["files"]])
    said = "first line" if folder.is_file() else HEADER
    documents = tuple(read_document(record, where) for record, where in records)
    labelled = LabelledText(documents=documents, **{name: _tuples(header[name]) for name in HEADER_FIELDS})
    if len(documents) != header["n_documents"]:
        raise InputError(
            f"{str(folder)!r} holds {len(documents):,} documents, its {said} says {header['n_documents']}: "
            "the files are cut off or were changed by hand; build the data set again."
        )
    if fingerprint(labelled) != header["fingerprint"]:
        raise InputError(
            f"{str(folder)!r} does not have the fingerprint that its {said} names: the files were changed by hand or damaged; "
            "build the data set again."
        )
    return labelled


# ---- writing ---------------------------------------------------------------------------------------------------------


def _write(folder: Path, labelled: LabelledText, write_documents: Callable[[], None], files: list[str]) -> None:
    mark = fingerprint(labelled)  # first: what cannot be stored is refused before anything is touched
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HEADER).unlink(missing_ok=True)
    write_documents()
    tail = {"n_documents": len(labelled.documents), "files": files, "fingerprint": mark}
    write_json(folder / HEADER, {"format_version": FORMAT_VERSION} | _header(labelled) | tail)


def _header(labelled: LabelledText) -> dict[str, Any]:
    """Every field but the documents. Mappings are sorted where their order means nothing."""
    header = {name: getattr(labelled, name) for name in HEADER_FIELDS}
    for name, value in header.items():
        if isinstance(value, Mapping):
            header[name] = dict(value if name == "token_patterns" else sorted(value.items()))
    return header


def _table(documents: list[tuple[int, Document]]) -> pl.DataFrame:
    frames = [_TABLE.to_frame()]
    for first in range(0, len(documents), BATCH):  # rows as Python objects take many times the memory of the table
        rows = []
        for order, document in documents[first : first + BATCH]:
            row: dict[str, Any] = {name: getattr(document, name) for name in DOCUMENT_FIELDS} | {"order": order}
            row["labels"] = [{"feature": name, "positive": value} for name, value in sorted(document.labels.items())]
            row["numbers"] = [{"feature": name, "value": float(x)} for name, x in sorted(document.numbers.items())]
            row["spans"] = [span._asdict() for span in document.spans]
            row["breaks"] = list(document.breaks)
            row["split"] = None if document.split is None else document.split.value
            rows.append(row)
        frames.append(pl.DataFrame(rows, schema=_TABLE))
    return pl.concat(frames)


def _card(labelled: LabelledText, splits: list[Split]) -> str:
    """The data set card: front matter that names the files, and a few words on how to read them."""
    licences = {document.licence for document in labelled.documents}
    licence = re.sub(r"[^a-z0-9.]+", "-", (licences.pop() or "").lower()).strip("-") if len(licences) == 1 else ""
    return "\n".join(
        [
            "---",
            *([f'license: "{licence}"'] if licence else []),
            "configs:",
            "- config_name: default",
            "  data_files:",
            *(f"  - split: {split.value}\n    path: {TABLES[split]}" for split in splits),
            "---",
            "",
            f"# {labelled.category}",
            "",
            f"{len(labelled.documents):,} documents with {len(labelled.features):,} features, at level {labelled.level}: "
            "`labels` are features of whole documents, `spans` labelled characters `text[start:end]`.",
            "Features, rules and notes are in `dataset.json`. Written by sparse-probing.",
            "",
        ]
    )


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    if not path.is_file():
        raise InputError(f"{str(folder)!r} is not a data set: it holds no {HEADER}.")
    try:
        header = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InputError(
            f"{str(path)!r} is not a JSON object: it is cut off or was changed by hand; build the data set again."
        )
    return _checked_header(header, path)


def _read_file(path: Path) -> tuple[dict[str, Any], Iterator[tuple[Row, str]]]:
    """What the first line of an `export_file` says, and the documents of all lines."""
    records = _records([path])
    first, where = next(records, ({}, ""))
    header = first.pop(IN_FILE, None)
    if not isinstance(header, dict):
        raise InputError(f"{str(path)!r} is not a data set: its first line has no field {IN_FILE!r}.")
    header = _checked_header(header, path)
    return header, chain([(first, where)], records) if first else records


def _checked_header(header: dict[str, Any], path: Path) -> dict[str, Any]:
    version = header.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise InputError(
            f"{str(path)!r} has format version {version!r}, this program reads {FORMAT_VERSION}: "
            "read it with the version of sparse-probing that wrote it, or build it again."
        )
    check_fields(header, (*HEADER_FIELDS, "n_documents", "files", "fingerprint"), str(path))
    for name, kind in _KINDS.items():
        try:
            kind.validate_json(json.dumps(header[name]), strict=True)
        except (ValidationError, RecursionError):
            raise InputError(
                f"{str(path)!r}: field {name!r} holds {str(header[name])[:60]!r}, which is not what it can hold: it was changed by "
                "hand; build the data set again."
            ) from None
    tables = [name for name in TABLES.values() if name in header["files"]]
    if not header["files"] or header["files"] not in ([PACKED], [PLAIN], tables):
        raise InputError(
            f"{str(path)!r} names files that no data set has ({header['files']!r}): it was changed by hand."
        )
    return header


def _records(files: list[Path]) -> Iterator[tuple[Row, str]]:
    """Documents as JSON objects, in their order, and where each stands."""
    parts = [((row, f"{path}, row {i}") for i, row in enumerate(iter_rows(path), 1)) for path in files]
    if files[0].suffix != ".parquet":
        return parts[0]
    return ((_record(row, where), where) for row, where in heapq.merge(*parts, key=_order))


def _order(part: tuple[Row, str]) -> int:
    row, where = part
    if not isinstance(order := row.get("order", 0), int):
        raise InputError(f"{where} has no place in the data set: it was changed by hand; build the data set again.")
    return order


def _record(row: Row, where: str) -> Row:
    """A row of a Parquet file as the JSON object that it was made from."""
    check_fields(row, tuple(_TABLE), where)
    record = {name: row[name] for name in DOCUMENT_FIELDS}
    with suppress(KeyError, TypeError):  # else `read_document` complains
        record["labels"] = {item["feature"]: item["positive"] for item in cast(list, row["labels"])}
        record["numbers"] = {item["feature"]: item["value"] for item in cast(list, row["numbers"])}
    return record


def _tuples(value: Any) -> Any:
    """JSON has lists where frozen records have tuples."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
