"""Read a user's file: JSONL, CSV, Parquet -> `LabelledText`. Every complaint names the file and the line."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import zstandard

from sparse_probing.datasets.labelled_text import (
    Document,
    LabelledText,
    Span,
    document_level_text,
    features_of_column,
)
from sparse_probing.errors import InputError

Row = dict[str, object]


def read_rows(path: Path) -> list[Row]:
    """All rows of a `.jsonl`, `.jsonl.zst`, `.csv` or `.parquet` file.

    Raises:
        InputError: the file is missing, empty, of another kind, not UTF-8, or has a malformed line (named by number).
    """
    if not path.is_file():
        raise InputError(f"data file {str(path)!r} does not exist: check the path.")
    kind = path.suffix if path.suffix != ".zst" else path.with_suffix("").suffix
    try:
        if kind == ".jsonl":
            rows = _read_jsonl(path)
        elif kind == ".csv":
            rows = _read_csv(path)
        elif kind == ".parquet":
            rows = pl.read_parquet(path).to_dicts()
        else:
            raise InputError(f"data file {str(path)!r} ends in {path.suffix!r}: give a .jsonl, .csv or .parquet file.")
    except UnicodeDecodeError as error:
        raise InputError(
            f"data file {str(path)!r} is not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}): "
            "convert it, for example with `iconv -f latin1 -t utf-8`."
        ) from None
    except (pl.exceptions.PolarsError, zstandard.ZstdError) as error:
        raise InputError(f"data file {str(path)!r} cannot be read: {str(error).splitlines()[0]}.") from None
    if not rows:
        raise InputError(f"data file {str(path)!r} holds no rows.")
    return rows


def _text_of(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix == ".zst":
        raw = zstandard.ZstdDecompressor().stream_reader(raw).read()
    return raw.decode("utf-8-sig")  # a byte-order mark is not part of the first column's name


def _read_jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(io.StringIO(_text_of(path)), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not JSON ({error.msg}, column {error.colno}).") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is JSON but not an object: write one {{...}} per line.")
        rows.append(row)
    return rows


def _read_csv(path: Path) -> list[Row]:
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num} has {len(cells)} cells, the header has {len(header)}: "
                    "quote cells that contain commas."
                )
            rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num} is malformed CSV ({error}).") from None
    return rows


def column(rows: Sequence[Row], name: str, path: Path) -> list[object]:
    """One column; a wrong name is answered with the nearest right one."""
    known = list(dict.fromkeys(key for row in rows for key in row))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, known))}."
        raise InputError(f"{path} has no column {name!r}: {hint}")
    return [row.get(name) for row in rows]


def _texts(rows: Sequence[Row], name: str, path: Path) -> list[str]:
    texts: list[str] = []
    for number, value in enumerate(column(rows, name, path), 1):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{path}, row {number}: column {name!r} holds no text. Remove the row or fill the cell.")
        texts.append(value)
    return texts


def read_labelled_documents(
    path: Path, *, labels: Sequence[str], text_column: str = "text", group_column: str | None = None
) -> LabelledText:
    """Documents labelled whole: one text column and one or more label columns (see `features_of_column`)."""
    rows = read_rows(path)
    features: dict[str, list[bool | None]] = {}
    for label in labels:
        features |= features_of_column(label, column(rows, label, path))
    groups = None if group_column is None else [str(value) for value in column(rows, group_column, path)]
    return document_level_text(path.stem.removesuffix(".jsonl"), _texts(rows, text_column, path), features, groups)


def read_labelled_spans(
    path: Path, *, spans_column: str = "spans", text_column: str = "text", group_column: str | None = None
) -> LabelledText:
    """Documents with labelled character spans: `"spans": [{"start": 0, "end": 5, "label": "city"}, ...]`.

    A token that overlaps a span of a feature is positive for it; every other token is negative.
    """
    rows = read_rows(path)
    texts = _texts(rows, text_column, path)
    groups = [str(i) for i in range(len(rows))]
    if group_column is not None:
        groups = [str(value) for value in column(rows, group_column, path)]
    documents: list[Document] = []
    for i, (value, text) in enumerate(zip(column(rows, spans_column, path), texts, strict=True)):
        spans = tuple(
            _span(item, len(text), f"{path}, row {i + 1}") for item in _span_list(value, f"{path}, row {i + 1}")
        )
        documents.append(Document(id=str(i), text=text, group=groups[i], spans=spans))
    names = tuple(sorted({span.label for document in documents for span in document.spans}))
    if not names:
        raise InputError(f"{path}: column {spans_column!r} holds no span in any row: nothing to learn from.")
    return LabelledText(category=path.stem, features=names, level="token", documents=tuple(documents))


def _span_list(value: object, where: str) -> list[object]:
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except json.JSONDecodeError:
            raise InputError(f"{where}: the spans are not a JSON list.") from None
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f'{where}: the spans are not a list of {{"start", "end", "label"}} objects.')
    return value


def _span(item: object, length: int, where: str) -> Span:
    try:
        start, end, label = item["start"], item["end"], item["label"]  # pyright: ignore[reportIndexIssue]
    except (TypeError, KeyError):
        raise InputError(f'{where}: a span needs "start", "end" and "label", got {item!r}.') from None
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= length):
        raise InputError(
            f"{where}: span {start}..{end} lies outside the text, which has {length} characters "
            "(0 <= start < end <= length is needed)."
        )
    return Span(start, end, str(label))
