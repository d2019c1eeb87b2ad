"""Many positions to one vector per row, on the device where the activations are."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse_probing.records import POOLINGS, Pooling


class BatchRows:
    """Rows of one batch as positions in its flattened [sequence * position] axis."""

    def __init__(
        self,
        index: Int[np.ndarray, " row"],
        first: Int[np.ndarray, " row"],
        last: Int[np.ndarray, " row"],
        pooling: Int[np.ndarray, " row"],
    ) -> None:
        """Plan the pooling once for all sites.

        Args:
            index: sequence of each row within the batch.
            first: first position of each row.
            last: one past the last position of each row.
            pooling: index into `POOLINGS` for each row.
        """
        self.n_rows = len(index)
        modes = np.array(POOLINGS, dtype=object)[pooling] if len(pooling) else np.array([], dtype=object)
        at_end = modes == Pooling.LAST
        spans = (modes == Pooling.MEAN) | (modes == Pooling.MAX)
        lengths = np.where(spans, last - first, 1)
        begins = np.where(at_end, last - 1, first)
        self._groups: list[tuple[np.ndarray, np.ndarray, np.ndarray, Pooling]] = []
        """Rows of one mode and length together: (rows, sequences, positions [row, length], mode)."""
        for length in np.unique(lengths):
            for mode in (Pooling.TOKEN,) if length == 1 else (Pooling.MEAN, Pooling.MAX):
                here = np.flatnonzero((lengths == length) & ((modes == mode) | (length == 1)))
                if len(here):
                    self._groups.append((here, index[here, None], begins[here, None] + np.arange(length), mode))
        self._on: dict[torch.device, list[tuple[Tensor, Tensor]]] = {}

    def pool(self, hidden: Float[Tensor, "sequence position unit"]) -> Float[Tensor, "row unit"]:
        """One vector per row; means are taken in float32.

        Single positions keep the precision of the model.
        """
        flat = hidden.reshape(-1, hidden.shape[-1])
        parts = self._indices(hidden)
        if len(self._groups) == 1 and self._groups[0][-1] is Pooling.TOKEN:
            return flat.index_select(0, parts[0][1][:, 0])
        result = torch.empty((self.n_rows, flat.shape[1]), dtype=torch.float32, device=hidden.device)
        for (*_, mode), (rows, positions) in zip(self._groups, parts, strict=True):
            values = flat[positions].float()
            result[rows] = values.amax(dim=1) if mode is Pooling.MAX else values.mean(dim=1)
        return result

    def _indices(self, hidden: Float[Tensor, "sequence position unit"]) -> list[tuple[Tensor, Tensor]]:
        """The plan as tensors of a device: sent once per batch, not once per site."""
        device, longest = hidden.device, hidden.shape[1]  # padding included
        if device not in self._on:
            self._on[device] = [
                (torch.from_numpy(rows).to(device), torch.from_numpy(sequences * longest + positions).to(device))
                for rows, sequences, positions, _ in self._groups
            ]
        return self._on[device]
