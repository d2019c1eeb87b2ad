"""One shard of one layer as a safetensors file that can be read by rows and by columns without loading the rest.

The tensor `activations` has shape [slab, row, 64]: unit u of row r is `activations[u // 64, r, u % 64]`, the last slab is padded
with zeros. In memory one neuron over all rows is then one cache line or two per row, and one row is a few short runs. int8
shards also hold `scale` and `offset` [unit]: value = offset + scale * stored. The header's metadata carries the width, the
number of rows and a CRC-32 of the data, so a shard proves its own integrity.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.files import write_atomically

UNITS_PER_SLAB = 64
StoredType = Literal["float16", "bfloat16", "float32", "int8"]
STORED_TYPES: tuple[StoredType, ...] = get_args(StoredType)
BYTES_PER_VALUE: dict[StoredType, int] = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}
CODES = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F32": np.dtype("<f4"), "I8": np.dtype("i1")}
"""safetensors' names. NumPy has no bfloat16: its bits are the upper half of a float32's."""

Rows = slice | Int[np.ndarray, " _"]


class DamagedShard(Exception):
    """A shard that is not what was once written; the message says in what way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where a tensor lies in the file."""

    code: str
    shape: tuple[int, ...]
    offset: int

    def map(self, path: Path) -> np.ndarray:
        """The tensor as a view of the file."""
        if 0 in self.shape:
            return np.empty(self.shape, dtype=CODES[self.code])
        return np.memmap(path, mode="r", dtype=CODES[self.code], shape=self.shape, offset=self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The beginning of a shard file."""

    parts: dict[str, Part]
    width: int
    rows: int
    seed: int
    """CRC-32 of the header's own facts, with which that of the data begins."""
    crc32: int
    data: int
    """Offset of the first tensor."""
    size: int
    """Bytes that the whole file must have."""


def n_slabs(width: int) -> int:
    """Slabs that hold `width` units."""
    return -(-width // UNITS_PER_SLAB)


def shard_bytes(rows: int, width: int, dtype: StoredType) -> int:
    """Size of a shard file without its header of a few hundred bytes."""
    return n_slabs(width) * UNITS_PER_SLAB * rows * BYTES_PER_VALUE[dtype] + (8 * width if dtype == "int8" else 0)


def write_shard(
    path: Path, tensors: Sequence[tuple[str, str, np.ndarray]], *, rows: int, width: int, keep: bool = True
) -> None:
    """Write (name, safetensors type, array) triples, atomically.

    Args:
        path: the shard's file.
        tensors: what the file holds.
        rows: rows of the shard.
        width: units of the shard.
        keep: leave the data in the page cache, for the reader who comes next. Otherwise it is flushed to the disk and dropped, so
            that a store larger than memory pushes nothing else out of it.

    Own code in place of the safetensors library, whose NumPy side knows no bfloat16 and whose files cannot be flushed and dropped
    from the page cache by the handle that wrote them. The format is a length, a JSON header and the bytes.
    """
    header: dict[str, Any] = {}
    offset = 0
    arrays = [np.ascontiguousarray(array) for _, _, array in tensors]
    for (name, code, _), array in zip(tensors, arrays, strict=True):
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    crc = _seed(header, rows, width)
    for array in arrays:
        crc = zlib.crc32(array.data, crc)
    header["__metadata__"] = {"rows": str(rows), "width": str(width), "crc32": str(crc)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for array in arrays:
                file.write(array.data)
            if not keep and hasattr(os, "posix_fadvise"):  # Linux
                file.flush()
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    write_atomically(path, write)


def _seed(fields: dict[str, Any], rows: int, width: int) -> int:
    return zlib.crc32(json.dumps([rows, width, fields], sort_keys=True).encode())


def read_header(path: Path) -> Header:
    """The header of a shard.

    Raises:
        DamagedShard: it cannot be one, or the file is too short or too long.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > 100_000:
                raise DamagedShard("its header is unreadable")
            fields = json.loads(file.read(length))
        facts = fields.pop("__metadata__")
        parts = {
            name: Part(code=part["dtype"], shape=tuple(part["shape"]), offset=8 + length + part["data_offsets"][0])
            for name, part in fields.items()
        }
        header = Header(
            parts=parts,
            seed=_seed(fields, int(facts["rows"]), int(facts["width"])),
            width=int(facts["width"]),
            rows=int(facts["rows"]),
            crc32=int(facts["crc32"]),
            data=8 + length,
            size=8 + length + max(part["data_offsets"][1] for part in fields.values()),
        )
        if not {part.code for part in parts.values()} <= set(CODES):
            raise DamagedShard("its header is unreadable")
        if header.parts["activations"].shape != (n_slabs(header.width), header.rows, UNITS_PER_SLAB):
            raise DamagedShard("its header contradicts itself")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedShard("its header is unreadable") from None
    size = path.stat().st_size
    if size != header.size:
        raise DamagedShard(f"it has {size:,} bytes instead of {header.size:,}")
    return header


def check_shard(path: Path, *, rows: int, width: int) -> None:
    """Read a whole shard and compare it with its checksum.

    Raises:
        DamagedShard: truncated, altered, or of another shape.
    """
    header = read_header(path)
    crc = header.seed
    with open(path, "rb") as file:
        file.seek(header.data)
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    if crc != header.crc32:
        raise DamagedShard("its checksum does not match")
    if (header.rows, header.width) != (rows, width):
        raise DamagedShard(f"it holds {header.rows} rows of {header.width} units instead of {rows} of {width}")


def read_rows(path: Path, rows: Rows, out: Float[np.ndarray, "row unit"]) -> None:
    """Copy rows of a shard to `out`, converted to its type."""
    header = read_header(path)
    slabs = header.parts["activations"].map(path)
    for slab in range(slabs.shape[0]):
        units = slice(slab * UNITS_PER_SLAB, min((slab + 1) * UNITS_PER_SLAB, header.width))
        stored = slabs[slab, rows, : units.stop - units.start]
        out[:, units] = _decode(stored, header, path, units)


def read_column(path: Path, unit: int, rows: Rows) -> Float[np.ndarray, " row"]:
    """One unit of a shard, as float32."""
    header = read_header(path)
    slab, place = divmod(unit, UNITS_PER_SLAB)
    stored = header.parts["activations"].map(path)[slab, rows, place : place + 1]
    return _decode(stored, header, path, slice(unit, unit + 1))[:, 0].astype(np.float32)


def _decode(stored: np.ndarray, header: Header, path: Path, units: slice) -> np.ndarray:
    code = header.parts["activations"].code
    if code == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if code == "I8":
        scale, offset = (header.parts[name].map(path)[units] for name in ("scale", "offset"))
        return stored * scale + offset
    return stored
