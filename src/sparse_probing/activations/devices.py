"""Where a model runs, and whether that device computes in the model's precision."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sparse_probing.activations.loading import brief
from sparse_probing.errors import InputError


def usable_device(name: str) -> torch.device:
    """The named device, tried out; `auto` takes CUDA where there is one.

    Raises:
        InputError: it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(1, device=name).device
    except Exception as error:  # torch has many answers to unknown or absent devices
        said = brief(error).split(". ")[0]
        raise InputError(f"device {name!r} cannot be used here ({said}): try --device cpu.") from None
    if device.type == "meta":
        raise InputError(f"device {name!r} cannot be used here (it holds shapes without numbers): try --device cpu.")
    return device


def check_precision(name: str, network: PreTrainedModel, device: torch.device) -> None:
    """Refuse weights in a precision that the device stores but does not compute with (float8 on most).

    Raises:
        InputError: there are some.
    """
    plain = [module for module in network.modules() if type(module) in (nn.Linear, nn.Embedding, Conv1D)]
    weights = [weight for module in plain for weight in module.parameters(recurse=False)]
    for dtype in {weight.dtype for weight in weights if weight.is_floating_point()}:
        one = torch.zeros((1, 1), dtype=dtype, device=device)
        try:
            torch.neg(nn.functional.linear(one, one) + one)
        except (RuntimeError, NotImplementedError) as error:
            raise InputError(
                f"model {name!r} has weights in {str(dtype).removeprefix('torch.')}, which device {device} does not compute with "
                f"({brief(error)}): use --dtype float32 or bfloat16."
            ) from None


def entrance(network: PreTrainedModel) -> torch.device:
    """Device of the token embedding; accelerate brings it there when the weights wait elsewhere."""
    places = getattr(network, "hf_device_map", None)
    if not places:
        return network.device
    first = next((place for place in places.values() if place not in ("cpu", "disk")), "cpu")
    return torch.device("cuda", first) if isinstance(first, int) else torch.device(first)
