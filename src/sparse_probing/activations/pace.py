"""How long forward passes will take on this machine: measured with the model, or estimated from its outline."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from sparse_probing.activations.batches import TOKENS_PER_BATCH, TokenBudget, forward, padded, run_batches
from sparse_probing.activations.loaded import LoadedModel, ModelOutline
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.records import Site

TRIED = 1_024
"""Tokens of the measured batch, at most, on a CPU."""
EFFICIENCY = 0.6
"""Multiplications per second of a whole forward pass, as a share of those of one large product of matrices (float32, CPU): a guess
for the models of a laptop, not fitted to measurements."""


def measured_pace(model: LoadedModel, dataset: FeatureDataset, sites: Sequence[Site]) -> float:
    """Seconds per token of an extraction, padding included: one small batch to warm up, one to measure.

    Args:
        model: as it will be used.
        dataset: sequences of it, evenly spread, are read.
        sites: passes stop behind the last one.
    """
    lengths = dataset.sequence_lengths()
    typical = max(1, int(np.median(lengths)))
    tokens = TRIED if model.device.type == "cpu" else TOKENS_PER_BATCH["cuda"]
    count = max(1, min(len(lengths), tokens // padded(typical)))
    chosen = np.linspace(0, len(lengths) - 1, count).round().astype(int)
    read = np.minimum(lengths, typical)
    budget = TokenBudget(model, tokens)  # smaller batches where memory is short, as in the extraction

    def step(batch: Int[np.ndarray, " _"]) -> None:
        begins = dataset.sequence_starts[batch]
        sequences = [dataset.tokens[begin : begin + n] for begin, n in zip(begins, read[batch], strict=True)]
        forward(model, sequences, sites, lambda _site, _values: None)

    def once(sequences: Int[np.ndarray, " _"]) -> float:
        started = time.perf_counter()
        run_batches(sequences, read[sequences], budget, step)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    once(chosen[:1])
    return once(chosen) / int(read[chosen].sum())


def estimated_pace(outline: ModelOutline, dataset: FeatureDataset, sites: Sequence[Site]) -> float:
    """The same without weights: multiplications per token over the rate of this machine's CPU.

    Embeddings are looked up, not multiplied. Attention costs 2 multiplications per token, token before it and coordinate.
    """
    multiplied = sum(
        parameter.numel()
        for module in outline.network.modules()
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    )
    share = (1 + max(site.layer for site in sites)) / outline.sites.n_layers
    residual = next((site.width for site in outline.sites.found if site.name == "resid.post"), 0)
    attention = 2 * residual * outline.sites.n_layers * float(dataset.sequence_lengths().mean())
    return share * (multiplied + attention) / (EFFICIENCY * multiplications_per_second())


def multiplications_per_second(rows: int = 1_024, columns: int = 1_024) -> float:
    """Of a product of float32 matrices, with the threads that torch uses: the best of three."""
    a, b = torch.ones(rows, columns), torch.ones(columns, columns)
    best = np.inf
    for _ in range(4):  # the first one starts the threads
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return rows * columns * columns / best
