"""Hash of a network: its weights, precision and configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sparse_probing.activations.checkpoints import is_unread

NO_SETTINGS = {"transformers_version", "_name_or_path", "_model_name_or_path"}
"""Keys of a configuration that change no number."""


def fingerprint_of(network: PreTrainedModel) -> str:
    """Hash of the weights themselves (1.8 GB/s per core), so that a changed file is always noticed."""
    settings = {key: value for key, value in network.config.to_dict().items() if key not in NO_SETTINGS}
    settings["use_cache"] = False  # whatever the user's is: passes set it
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        tensors = sorted(
            (key, value)
            for key, value in _weights(network).items()
            if isinstance(value, Tensor) and not is_unread(key)  # absent below some heads
        )
        hashes = pool.map(lambda item: (item[0], str(item[1].dtype), _tensor_hash(item[1])), tensors)
        content = [settings, list(hashes), *filter(None, [_adapters(network)])]
    return hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _tensor_hash(tensor: Tensor) -> str:
    if hasattr(tensor, "__tensor_flatten__"):  # quantised tensors are made of others
        names, _ = tensor.__tensor_flatten__()  # pyright: ignore[reportAttributeAccessIssue]
        parts = [type(tensor).__name__, *(f"{name} {_tensor_hash(getattr(tensor, name))}" for name in names)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(data.data).hexdigest()


def _adapters(network: PreTrainedModel) -> list[list[Any]]:
    """Which adapters of PEFT are switched on, and how strongly: the weights alone do not say it."""
    return [
        [path, *(str(getattr(module, name, None)) for name in ("active_adapters", "disable_adapters", "scaling"))]
        for path, module in network.named_modules()
        if hasattr(module, "base_layer")
    ]


def _weights(network: PreTrainedModel) -> Mapping[str, Any]:
    weights = network.state_dict()
    if any(isinstance(value, Tensor) and value.is_meta for value in weights.values()):
        # a device map left weights on disk or in main memory
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        return get_state_dict_offloaded_model(network)
    return weights
