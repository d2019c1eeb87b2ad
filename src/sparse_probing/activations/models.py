"""Load a model and its tokenizer: the bundled one, a local folder, a hub id, or a network that is already in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.utils import logging as transformers_logging

from sparse_probing.activations.adapters import merge_adapter
from sparse_probing.activations.checkpoints import Checkpoint, listed, read_checkpoint
from sparse_probing.activations.devices import check_precision, entrance, usable_device
from sparse_probing.activations.fingerprint import fingerprint_of
from sparse_probing.activations.loaded import LoadedModel, ModelOutline, Objective
from sparse_probing.activations.loading import brief, check_sizes, check_stated, loading
from sparse_probing.activations.model_files import CONFIG, ModelFiles, find_model
from sparse_probing.activations.model_text import NO_LIMIT
from sparse_probing.activations.self_check import check_model, check_sequences
from sparse_probing.activations.sites import ModelSites, find_sites, trace_network
from sparse_probing.activations.tokenizers import load_tokenizer, text_tokenizer
from sparse_probing.activations.wrapped import reading_part, state_of, unwrapped
from sparse_probing.datasets.text_tokenizer import TextTokenizer
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.records import DEFAULT_FORMAT, TextFormat

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a hub that cannot be reached is one sentence of ours

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")


def load_config(files: ModelFiles, *, trust_remote_code: bool = False) -> Any:
    """The model's configuration, without weights.

    Args:
        files: of the model.
        trust_remote_code: run code that comes with the model, where it needs some; it may do whatever you may do.

    Raises:
        InputError: no such folder or hub model, no usable configuration in it, or one that needs code of its own.
    """
    name = files.name
    if "gguf_file" in files.options:
        _check_gguf(name)
    with loading(name):
        try:
            config = AutoConfig.from_pretrained(files.path, trust_remote_code=trust_remote_code, **files.options)
        except OSError as error:
            if Path(files.path).exists():
                raise
            raise InputError(f"model {name!r} cannot be loaded: {_what_is_missing(files)} ({brief(error)}).") from None
        check_sizes(config, name)
        check_stated(config, name, Path(files.path) / CONFIG)
    return config


def _check_gguf(name: str) -> None:
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
    except ImportError:
        raise PrerequisiteError(
            f"GGUF file {name!r} needs the packages gguf and accelerate: pip install 'sparse-probing[gguf]'."
        ) from None


def _what_is_missing(files: ModelFiles) -> str:
    if files.adapter is None:
        return "it is neither a local model folder nor a hub model that can be reached"
    return (
        f"the model below this adapter, {files.path!r}, is neither a local folder nor a hub model that can be reached: name its "
        "folder with --base"
    )


def model_sites(name: str, *, base: str | None = None, trust_remote_code: bool = False) -> ModelSites:
    """Where the units of a model live, found on an empty copy: neither weights nor tokenizer are loaded."""
    return find_sites(empty_model(name, base=base, trust_remote_code=trust_remote_code), name)


def empty_model(name: str, *, base: str | None = None, trust_remote_code: bool = False) -> nn.Module:
    """The part of a model that is read, without weights (on the meta device).

    Raises:
        InputError: no model there, or none that can be built.
    """
    config = load_config(find_model(name, base), trust_remote_code=trust_remote_code)
    return _empty_copy(config, name, trust_remote_code=trust_remote_code)


def outline_model(
    name: str, text_format: TextFormat = DEFAULT_FORMAT, *, base: str | None = None, trust_remote_code: bool = False
) -> ModelOutline:
    """Tokenizer, sites and context of a model; no weights are loaded.

    Args:
        name: `demo`, a local folder, a GGUF file, or a hub id.
        text_format: how texts are given to the model: special tokens, chat template.
        base: model below a PEFT adapter, where the one that it names is not at hand.
        trust_remote_code: see `load_model`.

    Raises:
        InputError: no model there, no usable tokenizer, no stack of blocks, or code of its own that is not trusted.
    """
    files = find_model(name, base)
    config = load_config(files, trust_remote_code=trust_remote_code)
    network = _empty_copy(config, name, trust_remote_code=trust_remote_code)
    return ModelOutline(
        name=name,
        network=network,
        tokenizer=load_tokenizer(files, config, text_format, trust_remote_code=trust_remote_code),
        sites=find_sites(network, name),
        context=_context(network, config),
    )


def load_model(
    name: str,
    text_format: TextFormat = DEFAULT_FORMAT,
    *,
    base: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    random_weights_seed: int | None = None,
    with_head: bool = False,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model for extraction, or with its head for interventions.

    Args:
        name: `demo`, a hub id, or a local folder: of transformers, sentence-transformers, or a PEFT adapter, which is merged into
            the model below it. Or a GGUF file, whose weights are unpacked.
        text_format: how texts are given to the model: special tokens, chat template.
        base: model below an adapter, where the one that it names is not at hand.
        device: `auto` takes CUDA where there is one, else the CPU.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own precision on an accelerator, float32 on a CPU.
        device_map: spread the model over several devices (`auto`, `balanced`, `sequential`, or module path -> device);
            needs the package accelerate.
        random_weights_seed: draw fresh weights from the configuration's own initialisation instead of loading them:
            the baseline for what the architecture and the tokens give without training.
        with_head: load the language-model head, too; `full` stays null where the checkpoint has none (`no_head` says why).
        trust_remote_code: run code that comes with the model, where it needs some; it may do whatever you may do.

    Raises:
        InputError: no model there, no usable tokenizer, no stack of blocks, or code of its own that is not trusted.
        PrerequisiteError: a package is missing that the checkpoint or the device map needs.
    """
    files = find_model(name, base)
    config = load_config(files, trust_remote_code=trust_remote_code)
    place = usable_device(device)
    precision: Any = (
        "auto" if dtype == "auto" and place.type != "cpu" else getattr(torch, dtype.replace("auto", "float32"))
    )
    quantised = getattr(config, "quantization_config", None) is not None
    if quantised and device_map is None:
        device_map = {"": str(place)}  # quantised weights must be put in place while they are loaded
    tokenizer = load_tokenizer(files, config, text_format, trust_remote_code=trust_remote_code)
    with loading(name, folder=files.path):
        if random_weights_seed is None:
            options: dict[str, Any] = {
                "dtype": precision, "device_map": device_map, "trust_remote_code": trust_remote_code,
            }  # fmt: skip
            read = _pretrained(files, head_of(config) if with_head else None, options)
        else:
            read = _untrained(config, precision, random_weights_seed, trust_remote_code=trust_remote_code)
        network: Any = read.network
        if getattr(network, "hf_device_map", None) is None:
            network = network.to(place)
    return _loaded(name, network.eval().requires_grad_(requires_grad=False), tokenizer, read.headless)


def _pretrained(files: ModelFiles, head: Objective | None, options: Mapping[str, Any]) -> Checkpoint:
    """The network with its head if that is wanted and in the checkpoint, else the base model; weights are complete."""
    auto = AutoModel if head is None else HEADS[head]

    def read(**more: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        checks = {"output_loading_info": True, "ignore_mismatched_sizes": True, "weights_only": True}
        return auto.from_pretrained(files.path, **checks, **options, **files.options, **more)

    found = read_checkpoint(files.name, read)
    if "gguf_file" in files.options:
        vars(found.network.config).pop("quantization_config", None)  # the weights were unpacked
    if files.adapter is not None:
        merge_adapter(found.network, files.adapter, files.name)
    return found


def _untrained(config: Any, precision: Any, seed: int, *, trust_remote_code: bool) -> Checkpoint:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModel.from_config(config, trust_remote_code=trust_remote_code)
    return Checkpoint(network=network.to(precision if precision != "auto" else config.dtype or torch.float32))


HEADS: dict[Objective, Any] = {"next token": AutoModelForCausalLM, "masked token": AutoModelForMaskedLM}


def head_of(config: Any) -> Objective | None:
    """What a language-model head of this architecture predicts; null where there is no such head."""
    if getattr(config, "is_encoder_decoder", False):
        return None
    causal, masked = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING, type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if masked and not (causal and getattr(config, "is_decoder", False)):
        return "masked token"
    return "next token" if causal else None


def _head_classes(config: Any, objective: Objective) -> tuple[type, ...]:
    mapping = MODEL_FOR_CAUSAL_LM_MAPPING if objective == "next token" else MODEL_FOR_MASKED_LM_MAPPING
    found: Any = mapping[type(config)]
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def no_head(model: LoadedModel) -> str:
    """Why a model without `full` has no loss, in words."""
    if model.network.config.is_encoder_decoder or head_of(model.network.config) is None:
        return f"{type(model.network).__name__} is no language model by itself"
    named = f" ({listed(model.headless)})" if model.headless else ""
    return f"the checkpoint has no weights for a language-model head{named}"


def wrap_model(
    network: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    name: str = "model",
    text_format: TextFormat = DEFAULT_FORMAT,
) -> LoadedModel:
    """A network that is already in memory, for extraction; it stays where it is, in the precision that it has, and as it is.

    Passes run in evaluation mode and without gradients, and put back what they set. After the network was trained on, wrap it
    again: its fingerprint is of the weights that it had.

    Args:
        network: a model of transformers with or without language-model head, also within DataParallel, torch.compile, PEFT or
            sentence-transformers; extraction runs its base only.
        tokenizer: its tokenizer: a fast one, or one of bytes or characters; it stays as it is.
        name: shown in messages, tables and reports.
        text_format: how texts are given to the model: special tokens, chat template.

    Raises:
        InputError: no model of transformers, no usable tokenizer, or no stack of blocks.
    """
    model = unwrapped(network, name)
    loaded = _loaded(name, model, text_tokenizer(tokenizer, name, model.config.model_type, text_format))
    return replace(loaded, state=state_of(loaded.network))


def _loaded(
    name: str, loaded: PreTrainedModel, tokenizer: TextTokenizer, headless: tuple[str, ...] = ()
) -> LoadedModel:
    network = reading_part(getattr(loaded, loaded.base_model_prefix, loaded))
    check_precision(name, network, entrance(loaded))
    objective = head_of(loaded.config)
    if objective and not isinstance(loaded, _head_classes(loaded.config, objective)):
        objective = None  # no head, or one for something else
    context = _context(network, network.config)
    sequences = check_sequences(tokenizer, network, context)
    trace = trace_network(network, name, ids=sequences[1].tolist(), device=entrance(loaded))
    model = LoadedModel(
        name=name,
        full=loaded if objective else None,
        objective=objective,
        headless=headless,
        network=network,
        tokenizer=tokenizer,
        sites=find_sites(network, name, trace=trace),
        fingerprint=fingerprint_of(network),
        context=context,
        device=entrance(loaded),
    )
    return check_model(model, trace, sequences)


def _empty_copy(config: Any, name: str, *, trust_remote_code: bool) -> nn.Module:
    with loading(name), torch.device("meta"):
        return reading_part(AutoModel.from_config(config, trust_remote_code=trust_remote_code))


def _context(network: nn.Module, config: Any) -> int:
    config = config.get_text_config()
    limit = next((n for key in CONTEXT_NAMES if isinstance(n := getattr(config, key, None), int) and n > 0), NO_LIMIT)
    for path, module in network.named_modules():
        if "position" in path and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            limit = min(limit, module.num_embeddings - module.padding_idx - 1)  # RoBERTa counts positions from there
    return limit
