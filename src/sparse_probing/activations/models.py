"""Load a model and its tokenizer: the bundled one, a local folder, or a hub id."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from sparse_probing.activations.sites import find_neuron_sites
from sparse_probing.datasets.align import TextTokenizer
from sparse_probing.errors import InputError
from sparse_probing.records import Site

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

DEMO_MODEL = "demo"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A model in evaluation mode with everything that extraction needs."""

    name: str
    network: PreTrainedModel
    """Base model without language-model head: probing reads hidden units only."""
    tokenizer: TextTokenizer
    sites: tuple[Site, ...]
    """MLP neurons of each layer."""
    fingerprint: str
    """Hash of weights and configuration."""
    context: int
    """Longest sequence that the model takes."""
    device: torch.device


def model_path(name: str) -> str:
    """What `from_pretrained` is given: `demo` stands for the bundled model."""
    if name == DEMO_MODEL:
        return str(resources.files("sparse_probing") / "assets" / "demo_model")
    return name


def load_config(name: str) -> Any:
    """The model's configuration, without weights.

    Raises:
        InputError: no such folder or hub model, or no usable configuration in it.
    """
    path = model_path(name)
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise InputError(f"{path!r} is no model: a model is a folder with config.json, weights and tokenizer.json.")
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name!r} cannot be loaded: it is neither a local model folder nor a hub model that can be reached "
            f"({_first_line(error)})."
        ) from None


def model_sites(name: str) -> tuple[Site, ...]:
    """Neuron sites of a model, found on an empty copy: no weights are loaded."""
    config = load_config(name)
    with torch.device("meta"):
        network = reading_part(AutoModel.from_config(config))
    return find_neuron_sites(network, name)


def load_model(
    name: str, *, device: str = "auto", dtype: str = "float32", random_weights_seed: int | None = None
) -> LoadedModel:
    """Load a model for extraction.

    Args:
        name: `demo`, a local folder, or a hub id.
        device: `auto` takes CUDA where there is one, else the CPU.
        dtype: `float32`, `bfloat16` or `float16`.
        random_weights_seed: draw fresh weights from the configuration's own initialisation instead of loading them:
            the baseline for what the architecture and the tokens give without training.

    Raises:
        InputError: no model there, no fast tokenizer, or neurons that cannot be found.
    """
    config = load_config(name)
    path = model_path(name)
    place = _device(device)
    precision = getattr(torch, dtype)
    try:
        if random_weights_seed is None:
            network = reading_part(AutoModel.from_pretrained(path, dtype=precision))
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(random_weights_seed)
                network = reading_part(AutoModel.from_config(config)).to(precision)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"model {name!r} cannot be loaded: {_first_line(error)}.") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"the tokenizer of {name!r} reports no character offsets: save a fast one (tokenizer.json) with the model."
        )
    network = network.eval().requires_grad_(requires_grad=False)
    torch.nn.Module.to(network, place)
    return LoadedModel(
        name=name,
        network=network,
        tokenizer=TextTokenizer(backend=tokenizer.backend_tokenizer, bos_id=_bos_id(tokenizer)),
        sites=find_neuron_sites(network, name),
        fingerprint=_fingerprint(network, config, dtype),
        context=int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 10**9),
        device=place,
    )


def _fingerprint(network: PreTrainedModel, config: Any, dtype: str) -> str:
    """Hash of the weights themselves (about 1 GB/s), so that a changed file is always noticed."""
    settings = {k: v for k, v in config.to_dict().items() if k not in {"transformers_version", "_name_or_path"}}
    digest = hashlib.blake2b(json.dumps([settings, dtype], sort_keys=True, default=str).encode(), digest_size=16)
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _device(name: str) -> torch.device:
    """The named device, tried out; `auto` takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's answers to unknown or absent devices
        raise InputError(f"device {name!r} cannot be used here ({_first_line(error)}): try --device cpu.") from None


def reading_part(network: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder model, any other model as it is."""
    return network.get_encoder() if network.config.is_encoder_decoder else network


def _bos_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    token = tokenizer.bos_token
    return None if token is None else tokenizer.backend_tokenizer.token_to_id(str(token))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
