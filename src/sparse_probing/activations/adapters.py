"""PEFT adapters, merged into the weights below them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from sparse_probing.activations.checkpoints import listed
from sparse_probing.activations.loading import brief
from sparse_probing.errors import InputError, PrerequisiteError


class _Around(nn.Module):
    """A base model under the name that it has below a head, which an adapter's names begin with."""

    def __init__(self, base: PreTrainedModel) -> None:
        super().__init__()
        self.config = base.config
        setattr(self, base.base_model_prefix, base)


def merge_adapter(network: PreTrainedModel, folder: Path, name: str) -> None:
    """Merge an adapter's weights into those of a network, in place.

    Args:
        network: with or without head.
        folder: of the adapter.
        name: of the model.

    Raises:
        InputError: an adapter that cannot be merged, or that does not fit the network.
        PrerequisiteError: peft is not installed.
    """
    try:
        from peft import PeftConfig, PeftModel
        from peft.utils import load_peft_weights
    except ImportError:
        raise PrerequisiteError(
            f"{name!r} is a PEFT adapter, which needs the package peft: pip install 'sparse-probing[adapters]'."
        ) from None
    if getattr(network.config, "quantization_config", None) is not None:
        raise InputError(
            f"adapter {name!r} cannot be merged into quantised weights without rounding them: name its model in full precision "
            "with --base."
        )
    settings = PeftConfig.from_pretrained(str(folder))
    if settings.is_prompt_learning:
        raise InputError(
            f"adapter {name!r} ({settings.peft_type}) puts virtual tokens in front of the text and changes no weights: it cannot "
            "be merged."
        )
    keys = load_peft_weights(str(folder), device="cpu")
    with_prefix = any(key.startswith(f"base_model.model.{network.base_model_prefix}.") for key in keys)
    around: Any = network
    if with_prefix and network.base_model is network:
        around = _Around(network)
    elif not with_prefix:
        around = network.base_model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is checked here
            model = PeftModel(around, settings)
            read = model.load_adapter(str(folder), "default", torch_device="cpu")
    except (ValueError, RuntimeError) as error:  # no such modules, other sizes
        raise _misfit(name, brief(error)) from None
    body = [key for key in read.unexpected_keys if not with_prefix or f".{network.base_model_prefix}." in key]
    if read.missing_keys or body:
        raise _misfit(name, listed(sorted([*read.missing_keys, *body])))
    if _tied(network) and any(hasattr(part, "base_layer") for part in _embeddings(network)):
        raise InputError(
            f"adapter {name!r} changes input or output embeddings, which share their weights in the model below it: merged, it "
            "would change both. Probes can read it, losses cannot be measured."
        )
    model.merge_and_unload(safe_merge=True)


def _misfit(name: str, reason: str) -> InputError:
    return InputError(
        f"adapter {name!r} does not fit the model below it ({reason}): name the model that it was trained on with --base."
    )


def _embeddings(network: PreTrainedModel) -> tuple[Any, Any]:
    return network.get_input_embeddings(), network.get_output_embeddings()


def _tied(network: PreTrainedModel) -> bool:
    weights = [getattr(getattr(part, "base_layer", part), "weight", None) for part in _embeddings(network)]
    return weights[0] is not None and weights[0] is weights[1]
