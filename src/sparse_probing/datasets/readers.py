"""Rows of a file, one after the other: JSONL, CSV, TSV (each also packed) and Parquet.

Every complaint names the file and the line or row.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import polars as pl
import zstandard

from sparse_probing.errors import InputError, first_line
from sparse_probing.files import no_file

Row = dict[str, object]

PACKED = (".gz", ".zst")
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, OverflowError)
"""What Polars raises for damaged tables, and for values that Python does not have (the year 300,000)."""
CHUNK = 512
"""Bytes of Zstandard to unpack at a time: a few of them can hold 128 KiB of text."""
PARQUET_ROWS = 16_384
"""Rows in memory at a time. (Polars' own batches run ahead of the reader: 0.9 GB for a file of 1.4 GB.)"""
LONGEST_LINE = 1 << 26
"""Bytes of a line, and characters of a CSV row. The limit keeps a line that never ends (a few kB, packed) and a quote that is
never closed from filling the memory."""
READ_AHEAD = 1 << 16
HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""In JSON, the beginning of every half of a surrogate pair; most have their other half beside them."""
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What unpacking raises."""


def iter_rows(path: Path) -> Iterator[Row]:
    """Rows of a `.jsonl`, `.csv`, `.tsv` (each also `.gz` or `.zst`) or `.parquet` file, read as they are asked for.

    Cells of CSV and TSV files are strings, quoted as in RFC 4180; an empty cell is an empty string.

    Raises:
        InputError: the file is missing, of another kind, not UTF-8, cut off, or has a line that is malformed, longer than 64 MiB
            or holds half of a character (named by number).
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
        InputError: the file is missing, not UTF-8, cut off or damaged, or has an endless line; also while it is being read.
    """
    _check_is_file(path)
    try:
        limited = _LimitedLines(_opened(path), path, b"\n" if newline == "\n" else b"\r\n")
        raw = io.BufferedReader(limited, READ_AHEAD)
        with io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        raise InputError(f"data file {str(path)!r} is not UTF-8 {_first_bad_byte(path)}.") from None
    except EOFError:
        raise _CutOffError(f"data file {str(path)!r} is cut off: fetch it again.") from None
    except DAMAGED as error:
        raise InputError(
            f"data file {str(path)!r} cannot be unpacked ({error}): it is damaged, or no {path.suffix} file at all. "
            "Fetch it again or rename it."
        ) from None


class _CutOffError(InputError):
    """A packed file that ends too early."""


def _check_is_file(path: Path) -> None:
    if problem := no_file(path):
        raise InputError(f"data file {str(path)!r} {problem}.")


def _opened(path: Path) -> io.RawIOBase | io.BufferedIOBase:
    try:
        return _open_bytes(path)
    except OSError as error:
        raise InputError(f"data file {str(path)!r} cannot be read ({error.strerror}): check its permissions.") from None


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    if path.suffix.lower() == ".gz":
        return gzip.open(path)
    return io.BufferedReader(_Zstandard(path)) if path.suffix.lower() == ".zst" else path.open("rb")


class _LimitedLines(io.RawIOBase):
    """Bytes of a file, refused as soon as a line is longer than any line of text."""

    def __init__(self, file: io.RawIOBase | io.BufferedIOBase, path: Path, ends: bytes) -> None:
        self._file, self._path, self._ends = file, path, ends
        self._length, self._lines = 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = self._file.readinto(buffer) or 0
        read = bytes(buffer[:size])
        last = max(read.rfind(end) for end in (self._ends[:1], self._ends[1:]) if end)
        self._length = self._length + size if last < 0 else size - last - 1
        self._lines += read.count(b"\n")
        if self._length > LONGEST_LINE:
            raise _too_long(self._path, self._lines + 1)
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _too_long(path: Path, line: int) -> InputError:
    return InputError(
        f"{path}, line {line} is longer than {LONGEST_LINE >> 20} MiB: this is no text of one row per line, or the line breaks "
        "are missing."
    )


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
    before, lines = 0, 1
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoding = "latin1"
    try:
        with _open_bytes(path) as file:
            while piece := file.read(READ_AHEAD):
                if before == 0 and piece[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    encoding = "utf-16"
                kept = decoder.getstate()[0]  # of a character that the last piece has begun
                try:
                    decoder.decode(piece)
                except UnicodeDecodeError as error:
                    whole = kept + piece
                    byte, lines = before - len(kept) + error.start, lines + whole[: error.start].count(b"\n")
                    return (
                        f"(byte {byte} is 0x{whole[error.start]:02x}) in line {lines}: convert it, for example with "
                        f"`iconv -f {encoding} -t utf-8`"
                    )
                before, lines = before + len(piece), lines + piece.count(b"\n")
    except DAMAGED as error:
        return f"and cannot be unpacked ({error or 'it is cut off'}): fetch it again"
    return "at its end: it is cut off"


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
        if HALF.search(line):
            check_whole(row, f"{path}, line {number}")
        yield row


def check_whole(value: object, where: str) -> None:
    """All strings of a value, at any depth, are text.

    Raises:
        InputError: one of them holds half of a surrogate pair, which no file and no tokenizer takes.
    """
    open_values = [value]
    while open_values:
        value = open_values.pop()
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"{where}: {value[error.start]!a} in {value[:40]!a} is half of a character: write both halves, or the "
                    "character itself as UTF-8."
                ) from None
        elif isinstance(value, Mapping):
            open_values += [*value.values(), *value]
        elif isinstance(value, (list, tuple)):
            open_values += value


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON number: write null")


def _csv_rows(file: io.TextIOWrapper, path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)  # the default, 131,072 characters, is less than a long document has
    delimiter, separators = ("\t", "tabs") if _unpacked(path).suffix.lower() == ".tsv" else (",", "commas")
    begins, rows = 1, 0

    def checked() -> Iterator[str]:
        row, length = begins, 0
        for number, line in enumerate(file, 1):
            if "\0" in line:
                raise InputError(
                    f"{path}, line {number} contains a NUL character: remove it, or save the file as UTF-8."
                )
            row, length = (row, length + len(line)) if row == begins else (begins, len(line))
            if length > LONGEST_LINE:
                raise InputError(
                    f"{path}, line {number}: the row that begins at line {begins} is longer than {LONGEST_LINE:,} characters: "
                    "close the quote that was opened there."
                )
            yield line

    lines = checked()
    first = next(lines, "")
    if delimiter == "," and ";" in first and "," not in first:  # what spreadsheets write where the comma is decimal
        delimiter, separators = ";", "semicolons"
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
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


def _parquet_rows(path: Path) -> Iterator[Row]:
    first = 0
    try:
        table = pl.scan_parquet(path, glob=False)
        while (rows := table.slice(first, PARQUET_ROWS).collect()).height:
            yield from rows.iter_rows(named=True)
            first += rows.height
    except UNREADABLE as error:
        raise InputError(f"data file {str(path)!r} cannot be read: {first_line(error)}.") from None


def column(rows: Sequence[Row], name: str, path: Path) -> list[object]:
    """One column; a wrong name is answered with the nearest right one."""
    check_column(name, dict.fromkeys(key for row in rows for key in row), path)
    return [row.get(name) for row in rows]


def check_column(name: str, known: Collection[str], where: Path | str, option: str = "") -> None:
    """A column that exists.

    Args:
        name: the column.
        known: columns that there are.
        where: name of the file, for messages.
        option: what names another column. Said where the name may be a default that the user never wrote; all columns are listed
            then.

    Raises:
        InputError: it does not; with the nearest name that does.
    """
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    if option or not near:
        hint += f"{' It' if near else 'it'} has {', '.join(map(repr, known))}."
    if len(known) == 1 and any(mark in next(iter(known)) for mark in ";\t"):
        hint += " Cells are to be separated by commas (.csv) or tabs (.tsv)."
    elif option:
        hint += f" Name the right one with {option}."
    raise InputError(f"{where} has no column {name!r}: {hint}")
