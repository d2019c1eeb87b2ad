"""The strongest token of every sequence for some units, without keeping the other activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from sparse_probing.activations.batches import TokenBudget, forward, run_batches
from sparse_probing.activations.extract import sequence_tokens
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.records import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedUnit:
    """A unit, its direction and a level of activation."""

    layer: int
    unit: int
    sign: int
    """1: the largest activation is the strongest; -1: the smallest."""
    threshold: float
    """Tokens with an activation beyond it are counted: at or above it for sign 1, at or below for sign -1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Peaks:
    """What was kept of each sequence: 12 bytes per unit."""

    value: Float32[np.ndarray, "watched sequence"]
    """Activation at the strongest token."""
    position: Int[np.ndarray, "watched sequence"]
    """That token's position in the sequence."""
    beyond: Int[np.ndarray, "watched sequence"]
    """Tokens beyond the threshold."""


def strongest_tokens(
    model: LoadedModel,
    dataset: FeatureDataset,
    sites: Sequence[Site],
    watched: Sequence[WatchedUnit],
    progress: Callable[[int], None] = lambda _: None,
) -> Peaks:
    """One forward pass over all sequences, up to the last layer that is watched. Special tokens do not take part.

    Args:
        model: from `load_model`.
        dataset: for example from `every_token`; every sequence has a token that is not special.
        sites: where the units live, one per layer.
        watched: the units.
        progress: called with the number of tokens done since the last call.
    """
    lengths = dataset.sequence_lengths()
    shape = len(watched), dataset.n_sequences
    value, position, beyond = np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    read = [site for site in sites if any(unit.layer == site.layer for unit in watched)]

    def step(members: Int[np.ndarray, " sequence"]) -> None:
        def take(site: Site, hidden: Tensor) -> None:
            mine = [i for i, unit in enumerate(watched) if unit.layer == site.layer]
            sign = torch.tensor([watched[i].sign for i in mine], device=hidden.device, dtype=torch.float32)
            level = torch.tensor([watched[i].threshold for i in mine], device=hidden.device, dtype=torch.float32)
            strength = hidden[:, :, [watched[i].unit for i in mine]].float() * sign
            strength.masked_fill_(~text_mask(hidden.shape[1], members).to(hidden.device)[:, :, None], -torch.inf)
            top, at = strength.max(dim=1)
            here = np.ix_(np.array(mine), members)  # a batch that is repeated for lack of memory writes the same again
            value[here] = (top * sign).T.cpu().numpy()
            position[here] = at.T.cpu().numpy()
            beyond[here] = (strength >= level * sign).sum(dim=1).T.cpu().numpy()

        forward(model, [sequence_tokens(dataset, s) for s in members.tolist()], read, take)
        progress(int(lengths[members].sum()))

    def text_mask(width: int, members: Int[np.ndarray, " sequence"]) -> Tensor:
        mask = torch.zeros((len(members), width), dtype=torch.bool)
        for i, sequence in enumerate(members.tolist()):
            starts = dataset.char_starts[dataset.sequence_starts[sequence] : dataset.sequence_starts[sequence + 1]]
            mask[i, : len(starts)] = torch.from_numpy(starts >= 0)
        return mask

    run_batches(np.arange(dataset.n_sequences), lengths, TokenBudget(model), step)
    return Peaks(value=value, position=position, beyond=beyond)
