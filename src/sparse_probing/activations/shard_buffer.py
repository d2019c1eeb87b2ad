"""A shard while it is being filled: values arrive in batches, in any order, and leave in the type that is stored."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse_probing.activations.shards import UNITS_PER_SLAB, StoredType, n_slabs
from sparse_probing.errors import InputError
from sparse_probing.records import Site, unit_name

BUFFERED: dict[StoredType, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int8": torch.float32,  # scale and offset are known when the shard is full
}
FLOAT16_LARGEST = float(torch.finfo(torch.float16).max)
INT8_STEPS = 254
ROWS_PER_RUN = 8
"""From this many consecutive rows on, copying run by run is faster than scattering row by row."""


class ShardBuffer:
    """Rows of one shard at one site, as [slab, row, unit within slab]; see `shards`."""

    def __init__(self, site: Site, rows: int, dtype: StoredType, memory: Tensor | None = None) -> None:
        """Make room for all rows.

        Args:
            site: what is stored.
            rows: rows of the shard.
            dtype: type on disk.
            memory: of a buffer that is no longer needed (`release`): fresh memory is slow when it is first touched.
        """
        self.site, self.rows, self.dtype = site, rows, dtype
        shape = (n_slabs(site.width), rows, UNITS_PER_SLAB)
        size = int(np.prod(shape))
        if memory is None or memory.dtype is not BUFFERED[dtype] or len(memory) < size:
            memory = torch.empty(size + size // 16, dtype=BUFFERED[dtype])  # the next shard may be a little larger
        self._memory = memory
        self.values = memory[:size].view(shape)
        if site.width % UNITS_PER_SLAB:
            self.values[-1, :, site.width % UNITS_PER_SLAB :] = 0
        self._missing = np.ones(rows, dtype=bool)
        self.overflow: str | None = None
        """Says which unit left the range of float16, after which the shard is kept in float32."""

    @property
    def full(self) -> bool:
        """Whether every row has its values."""
        return not self._missing.any()

    def release(self) -> Tensor:
        """The memory, for another buffer; this one is used up."""
        return self._memory

    def put(self, rows: Int[np.ndarray, " row"], values: Float[Tensor, "row unit"]) -> None:
        """Store values at ascending positions of the shard.

        Raises:
            InputError: NaN or infinite values.
        """
        if len(rows) == 0:
            return
        low, high = (float(v) for v in torch.aminmax(values))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(self._not_finite(values))
        if self.dtype == "float16" and max(-low, high) > FLOAT16_LARGEST:
            self._widen(values)
        if values.device.type != "cpu":
            values = values.to(self.values.dtype).cpu()
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        if len(rows) >= ROWS_PER_RUN * (len(breaks) + 1):
            for begin, end in pairwise([0, *breaks.tolist(), len(rows)]):
                self._copy(slice(int(rows[begin]), int(rows[end - 1]) + 1), values[begin:end])
        else:
            self._copy(torch.from_numpy(rows), values.to(self.values.dtype))
        self._missing[rows] = False  # not before: memory may run out on the way, and the batch is then repeated

    def _copy(self, where: slice | Int[Tensor, " _"], values: Float[Tensor, "_ unit"]) -> None:
        """Into the slabs, converting on the way."""
        whole = self.site.width // UNITS_PER_SLAB
        split = whole * UNITS_PER_SLAB
        if whole:
            self.values[:whole, where] = values[:, :split].unflatten(1, (whole, UNITS_PER_SLAB)).transpose(0, 1)
        if split < self.site.width:
            self.values[whole, where, : self.site.width - split] = values[:, split:]

    def tensors(self) -> list[tuple[str, str, np.ndarray]]:
        """What `write_shard` takes."""
        match self.values.dtype, self.dtype:
            case torch.float16, _:
                return [("activations", "F16", self.values.numpy())]
            case torch.bfloat16, _:
                return [("activations", "BF16", self.values.view(torch.uint16).numpy())]
            case _, "int8":
                return self._quantised()
            case _:
                return [("activations", "F32", self.values.numpy())]

    def _quantised(self) -> list[tuple[str, str, np.ndarray]]:
        """255 levels between each unit's extremes; a unit that never changes is all offset, hence exact."""
        if self.rows == 0:
            low = high = torch.zeros((self.values.shape[0], UNITS_PER_SLAB))
        else:
            low, high = self.values.amin(dim=1), self.values.amax(dim=1)
        offset = torch.where(low == high, low, low / 2 + high / 2)
        scale = (high / INT8_STEPS - low / INT8_STEPS).clamp(min=0)
        steps = (self.values - offset[:, None]) / torch.where(scale > 0, scale, 1.0)[:, None]
        levels = steps.round_().clamp_(-INT8_STEPS // 2, INT8_STEPS // 2).to(torch.int8)
        width = self.site.width
        return [
            ("activations", "I8", levels.numpy()),
            ("scale", "F32", scale.flatten()[:width].numpy()),
            ("offset", "F32", offset.flatten()[:width].numpy()),
        ]

    def _widen(self, values: Float[Tensor, "row unit"]) -> None:
        if self.values.dtype is torch.float32:
            return
        largest = values.abs().amax(dim=0)
        unit = int(largest.argmax())
        self.values = self.values.float()
        self.overflow = (
            f"{unit_name(self.site.name, self.site.layer, unit)} reaches {float(largest[unit]):.3g}, beyond float16 "
            f"({FLOAT16_LARGEST:.0f}): its layer is stored as float32 there."
        )

    def _not_finite(self, values: Float[Tensor, "row unit"]) -> str:
        unit = int(torch.isfinite(values).all(dim=0).int().argmin())
        return (
            f"the model gives NaN or infinite activations, first in layer {self.site.layer} ({self.site.name}), unit {unit}: "
            "try --dtype float32."
        )
