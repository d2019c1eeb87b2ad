"""Rows of a file, one after the other: JSONL, CSV, TSV (each also packed) and Parquet.

Every complaint names the file and the line or row.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import polars as pl
import zstandard

from sparse_probing.errors import InputError

Row = dict[str, object]

PACKED = (".gz", ".zst")
CHUNK = 512
"""Bytes of Zstandard to unpack at a time: a few of them can hold 128 KiB of text."""
PARQUET_ROWS = 16_384
"""Rows in memory at a time. (Polars' own batches run ahead of the reader: 0.9 GB for a file of 1.4 GB.)"""
LONGEST_CELL = 1 << 26
"""Characters in a CSV cell. The limit keeps a quote that is never closed from filling the memory with the rest of a file."""


def iter_rows(path: Path) -> Iterator[Row]:
    """Rows of a `.jsonl`, `.csv`, `.tsv` (each also `.gz` or `.zst`) or `.parquet` file, read as they are asked for.

    Cells of CSV and TSV files are strings, quoted as in RFC 4180; an empty cell is an empty string.

    Raises:
        InputError: the file is missing, of another kind, not UTF-8, cut off, or has a malformed line (named by number).
    """
    _check_is_file(path)
    kind = _unpacked(path).suffix.lower()
    if kind == ".jsonl":
        return _text_rows(path, "\n", _json_rows)  # other line separators belong to the text
    if kind in (".csv", ".tsv"):
        return _text_rows(path, "", _csv_rows)
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path)
    raise InputError(
        f"data file {str(path)!r} ends in {path.suffix!r}: give a .jsonl, .csv or .parquet file "
        "(or .tsv; all but .parquet may be packed as .gz or .zst)."
    )


def read_rows(path: Path) -> list[Row]:
    """All rows of a file (see `iter_rows`).

    Raises:
        InputError: as `iter_rows`, or the file holds no rows.
    """
    if rows := list(iter_rows(path)):
        return rows
    raise InputError(f"data file {str(path)!r} holds no rows.")


def stem(path: Path) -> str:
    """Name of a data file without `.jsonl`, `.csv.gz` and the like."""
    return _unpacked(path).stem


@contextmanager
def open_text(path: Path, newline: str = "\n") -> Iterator[io.TextIOWrapper]:
    """A UTF-8 text file, unpacked on the fly when it ends in `.gz` or `.zst`; a byte-order mark is skipped.

    Args:
        path: the file.
        newline: as in `open`; the default ends lines at line feeds only.

    Raises:
        InputError: the file is missing, not UTF-8, cut off or damaged; also while it is being read.
    """
    _check_is_file(path)
    try:
        with _open_bytes(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        raise InputError(f"data file {str(path)!r} is not UTF-8 {_first_bad_byte(path)}.") from None
    except EOFError:
        raise _CutOffError(f"data file {str(path)!r} is cut off: fetch it again.") from None
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise InputError(
            f"data file {str(path)!r} cannot be unpacked ({error}): it is damaged, or no {path.suffix} file at all. "
            "Fetch it again or rename it."
        ) from None


class _CutOffError(InputError):
    """A packed file that ends too early."""


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        problem = "is a folder: name a file in it" if path.is_dir() else "does not exist: check the path"
        raise InputError(f"data file {str(path)!r} {problem}.")


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    if path.suffix.lower() == ".gz":
        return gzip.open(path)
    return io.BufferedReader(_Zstandard(path)) if path.suffix.lower() == ".zst" else path.open("rb")


class _Zstandard(io.RawIOBase):
    """Zstandard frames, end to end. Unlike the library's own reader it notices when the last frame is cut off."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        while not self._ready:
            packed = self._packed or self._file.read(CHUNK)
            if not packed:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready, self._packed = memoryview(self._frame.decompress(packed)), b""
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _first_bad_byte(path: Path) -> str:
    """Where a file stops being UTF-8, and advice. A decoder that reads in pieces does not say."""
    before = 0
    with _open_bytes(path) as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "latin1"
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"(byte {before + error.start} is 0x{line[error.start]:02x}) in line {number}"
                return f"{place}: convert it, for example with `iconv -f {encoding} -t utf-8`"
            before += len(line)
    return "at its end"


def _text_rows(path: Path, newline: str, parse: Callable[[io.TextIOWrapper, Path], Iterator[Row]]) -> Iterator[Row]:
    read = 0
    try:
        with open_text(path, newline) as file:
            for row in parse(file, path):
                yield row
                read += 1
    except _CutOffError:
        raise InputError(f"data file {str(path)!r} is cut off after {read:,} rows: fetch it again.") from None


def _json_rows(file: io.TextIOWrapper, path: Path) -> Iterator[Row]:
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not JSON ({error.msg}, column {error.colno}).") from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # constants, integers of thousands of digits, thousands of brackets
            raise InputError(f"{path}, line {number} is not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is JSON but not an object: write one {{...}} per line.")
        yield row


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON number: write null")


def _csv_rows(file: io.TextIOWrapper, path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)  # the default, 131,072 characters, is less than a long document has
    delimiter, separators = ("\t", "tabs") if _unpacked(path).suffix.lower() == ".tsv" else (",", "commas")
    lines = _without_nul(file, path)
    first = next(lines, "")
    if delimiter == "," and ";" in first and "," not in first:  # what spreadsheets write where the comma is decimal
        delimiter, separators = ";", "semicolons"
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    begins, rows = 1, 0
    try:
        header = next((cells for cells in reader if cells), [])
        twice = next((name for name, count in Counter(filter(None, header)).items() if count > 1), None)
        if twice is not None:
            raise InputError(f"{path} has two columns named {twice!r}: rename one of them.")
        begins = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise InputError(
                    f"{path}, line {begins} has {len(cells)} cells, the header has {len(header)}: "
                    f"quote cells that contain {separators}."
                )
            if cells:
                yield dict(zip(header, cells, strict=True))
                rows += 1
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num} is malformed CSV ({error}). Its row begins at line {begins}: "
            "close the quote that was opened there, and write quotes inside of a quoted cell twice."
        ) from None
    if header and not rows:
        raise InputError(f"{path} holds no rows, only a header.")


def _without_nul(file: io.TextIOWrapper, path: Path) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise InputError(f"{path}, line {number} contains a NUL character: remove it, or save the file as UTF-8.")
        yield line


def _parquet_rows(path: Path) -> Iterator[Row]:
    table, first = pl.scan_parquet(path, glob=False), 0
    try:
        while (rows := table.slice(first, PARQUET_ROWS).collect()).height:
            yield from rows.iter_rows(named=True)
            first += rows.height
    except pl.exceptions.PolarsError as error:
        raise InputError(f"data file {str(path)!r} cannot be read: {str(error).splitlines()[0]}.") from None


def column(rows: Sequence[Row], name: str, path: Path) -> list[object]:
    """One column; a wrong name is answered with the nearest right one."""
    check_column(name, dict.fromkeys(key for row in rows for key in row), path)
    return [row.get(name) for row in rows]


def check_column(name: str, known: Collection[str], where: Path | str) -> None:
    """A column that exists.

    Raises:
        InputError: it does not; with the nearest name that does.
    """
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, known))}."
    if len(known) == 1 and any(mark in next(iter(known)) for mark in ";\t"):
        hint += " Cells are to be separated by commas (.csv) or tabs (.tsv)."
    raise InputError(f"{where} has no column {name!r}: {hint}")
