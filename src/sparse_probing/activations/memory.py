"""How much memory a model will take, and how much there is: before its weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparse_probing.activations.batches import TOKENS_PER_BATCH
from sparse_probing.activations.extract import BYTES_PER_SHARD
from sparse_probing.activations.forecast import Memory
from sparse_probing.activations.loading import stated
from sparse_probing.activations.models import empty_model

RESIDUAL_COPIES = 10
"""Vectors as wide as the residual stream that a block holds per token at once: stream, norm, queries, keys, values, heads, sums."""
NEURON_COPIES = 3
"""Of the MLP's neurons: gate, its partner, their product."""


def memory_needed(
    name: str,
    *,
    base: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    models: int = 1,
    trust_remote_code: bool = False,
) -> Memory | None:
    """Bytes of weights and activations of an extraction, from its configuration; a rule of thumb, to tell what cannot fit.

    Args:
        name: of the model.
        base: below an adapter.
        device: as in `load_model`.
        dtype: as in `load_model`.
        models: that are loaded at once: 2 with the untrained twin.
        trust_remote_code: as in `load_model`.

    Returns:
        Null for quantised checkpoints: what their weights take is known when they are loaded.

    Raises:
        InputError: no model there.
    """
    network: Any = empty_model(name, base=base, trust_remote_code=trust_remote_code)
    config = network.config.get_text_config()
    if getattr(network.config, "quantization_config", None) is not None:
        return None
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu").partition(":")[0]
    precision = _precision(network, kind, dtype)
    hidden = _size(config, "hidden_size", 0)
    neurons = _size(config, "intermediate_size", 4 * hidden)
    per_token = (RESIDUAL_COPIES * hidden + NEURON_COPIES * neurons) * precision.itemsize
    batch = TOKENS_PER_BATCH.get(kind, TOKENS_PER_BATCH["cpu"]) * per_token
    return Memory(
        weights=models * sum(parameter.numel() for parameter in network.parameters()) * precision.itemsize,
        activations=batch + BYTES_PER_SHARD * (kind == "cpu"),
        free=free_memory(kind),
        precision=str(precision).removeprefix("torch."),
    )


def free_memory(kind: str) -> int | None:
    """Free bytes of main memory (within the limit of a container) or of the present CUDA device; null where that is unknown."""
    if kind == "cuda" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or one without limit
        return free if kind == "cpu" else None
    return min(free, limit - used) if kind == "cpu" else None


def _precision(network: nn.Module, kind: str, dtype: str) -> torch.dtype:
    if dtype != "auto":
        return getattr(torch, dtype)
    own = getattr(network.config, "dtype", None)
    return own if kind != "cpu" and isinstance(own, torch.dtype) else torch.float32


def _size(config: Any, key: str, otherwise: int) -> int:
    """A number that a configuration states; some state a list, one number per layer."""
    value = stated(config, key)
    value = max(value, default=None) if isinstance(value, list | tuple) else value
    return value if isinstance(value, int) else otherwise
