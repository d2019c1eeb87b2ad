"""Networks in memory: unwrapped, the part of one that is read, evaluation mode for as long as a pass takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from sparse_probing.errors import InputError

HOW = "give a model of transformers (AutoModel, AutoModelForCausalLM), or let load_model read its folder"


def reading_part(network: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder model, any other model as it is.

    Raises:
        InputError: an encoder that is no model by itself (FSMT).
    """
    part = network.get_encoder() if network.config.is_encoder_decoder else network
    if not isinstance(part, PreTrainedModel):
        raise InputError(
            f"models of type {network.config.model_type} cannot be read: their encoder ({type(part).__name__}) is no model of "
            "transformers by itself."
        )
    return part


def unwrapped(network: Any, name: str) -> PreTrainedModel:
    """The transformers model in what users hold: DataParallel, torch.compile, PEFT, sentence-transformers.

    Adapters of PEFT stay in place and active.

    Raises:
        InputError: there is none in it, or the wrapper changes what the model computes in a way that is not followed.
    """
    parts: Any = getattr(network, "_modules", {})
    if "_orig_mod" in parts:  # torch.compile
        return unwrapped(parts["_orig_mod"], name)
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(network.module, name)
    maker = type(network).__module__.partition(".")[0]
    if maker == "peft":
        kinds = [kind for kind in network.peft_config.values() if kind.is_prompt_learning]
        if kinds:
            raise InputError(
                f"{name!r} has a PEFT adapter that puts virtual tokens in front of the text ({kinds[0].peft_type}): these cannot "
                "be read."
            )
        return unwrapped(network.get_base_model(), name)
    if maker == "sentence_transformers" and (inner := getattr(next(iter(parts.values()), None), "auto_model", None)):
        return unwrapped(inner, name)
    if isinstance(network, PreTrainedModel):
        if without_weights(network):
            raise InputError(
                f"{name!r} has no weights (they are on the meta device): load them, or let load_model do it."
            )
        return network
    kind = f"{type(network).__module__}.{type(network).__qualname__}"
    if maker == "transformer_lens":
        raise InputError(
            f"{name!r} is a {kind}, which folds and renames the weights of the model that it was made from: {HOW}; "
            "TransformerLens' names of hooks are understood."
        )
    raise InputError(f"{name!r} is a {kind}, which cannot be read: {HOW}.")


def without_weights(network: nn.Module) -> bool:
    """Whether a network has shapes only (meta device); accelerate brings weights from disk or main memory when they are needed."""
    brought = any(hasattr(module, "_hf_hook") for module in network.modules())
    return not brought and any(parameter.is_meta for parameter in network.parameters())


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and no keys and values kept for generation; afterwards the network is what it was."""
    config: Any = network.config
    settings = vars(config)
    kept = {key: settings[key] for key in ("use_cache",) if key in settings}
    with evaluation_mode(network):
        try:
            config.use_cache = False
            yield
        finally:
            settings.pop("use_cache", None)
            settings.update(kept)


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode that it was in.

    Modes are set module by module: `train()` of some modules does more than that, and networks may be half frozen.
    """
    training = [module for module in network.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def state_of(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """Where each weight lies and how often it was written: changes when a network is trained on. Empty where that is unknown."""
    weights = list(network.parameters())
    if any(weight.is_meta or weight.is_inference() for weight in weights):
        return ()
    return tuple((weight.data_ptr(), weight._version) for weight in weights)
