"""A model's files and its architecture compared: what is missing, unknown, or of another shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from sparse_probing.activations.wrapped import reading_part
from sparse_probing.errors import InputError

UNREAD = re.compile(r"pooler|(\w+_)?head")
"""Modules beside the blocks of a base model that nothing reads: their weights may be missing, and are not part of a fingerprint."""
BUFFERS = re.compile(
    r"(^|\.)((masked_bias|causal_mask|inv_freq|position_ids|token_type_ids)|(attn|attention|self_attn|crossattention)\.bias)$"
)
"""Constants that older versions of transformers saved with the weights."""
WRAPPERS = {
    r"^module\.": "",
    r"^base_model\.model\.": "",
    r"^_orig_mod\.": "",
    r"\._orig_mod\.": ".",
    r"^_fsdp_wrapped_module\.": "",
    r"\._fsdp_wrapped_module\.": ".",
    r"\._checkpoint_wrapped_module\.": ".",
}
"""What DataParallel, PEFT, torch.compile, FSDP and checkpointing add to the names of weights."""
LISTED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A network with weights from files."""

    network: PreTrainedModel
    """With its head, or the base model alone where the files have none."""
    headless: tuple[str, ...] = ()
    """Weights of the head that was asked for and is not in the files."""


def read_checkpoint(name: str, read: Callable[..., tuple[PreTrainedModel, dict[str, Any]]]) -> Checkpoint:
    """Weights from files, all of them: none that is read was drawn at random.

    Names that a wrapper lengthened (`module.`, `_orig_mod.`, `base_model.model.`) are shortened again.

    Args:
        name: of the model.
        read: calls `from_pretrained` with the options that it is given, and returns what that does: the network, and what was
            missing, unexpected and mismatched.

    Raises:
        InputError: weights that are read are missing or have another shape, or the files hold weights that the model would leave
            out. A head that is not in the files at all is no error; one of which a part is missing is.
    """
    network, found = read()
    if _wrapped(found["unexpected_keys"]) and (found["missing_keys"] or found["mismatched_keys"]):
        network, found = read(key_mapping=WRAPPERS)
    _check_body(name, network, found)
    base: Any = network.base_model
    if base is network:
        return Checkpoint(network=network)
    of_body = {id(tensor) for _, tensor in _tensors(base)}
    head = {key for key, tensor in _tensors(network) if id(tensor) not in of_body}
    absent = sorted(head & set(found["missing_keys"]))
    strange = [entry for entry in found["mismatched_keys"] if entry[0] in head]
    if strange or (absent and not set(absent) >= {key for key in head if _is_weight(network, key)}):
        raise _refusal(name, absent, strange, [], "its language-model head is not complete")
    if absent:  # the head was drawn at random: its loss would mean nothing
        return Checkpoint(network=base, headless=tuple(absent))
    return Checkpoint(network=network)


def _check_body(name: str, network: PreTrainedModel, found: Mapping[str, Any]) -> None:
    base: Any = network.base_model
    part = reading_part(base)
    needed = {id(tensor) for key, tensor in _tensors(part) if not is_unread(key)}
    read = {key for key, tensor in _tensors(network) if id(tensor) in needed}
    missing = sorted(key for key in read & set(found["missing_keys"]) if not _is_computed(network, key))
    mismatched = sorted(entry for entry in found["mismatched_keys"] if entry[0] in read)
    unknown = [] if _is_quantised(network) else sorted(filter(_of_part(network, part), found["unexpected_keys"]))
    adapters = [key for key in found["unexpected_keys"] if ".lora_" in key]
    if adapters:
        raise InputError(
            f"model {name!r} cannot be loaded: its files hold an adapter that was not merged ({adapters[0]}): save the model after "
            "merge_and_unload(), or save the adapter alone with save_pretrained and name its folder."
        )
    if missing or mismatched or unknown:
        raise _refusal(name, missing, mismatched, unknown)


def _is_computed(network: nn.Module, key: str) -> bool:
    """Whether a weight follows from its position alone: tables of sines, which some architectures do not save (Marian)."""
    return "sinusoid" in type(network.get_submodule(key.rpartition(".")[0])).__name__.lower()


def is_unread(key: str) -> bool:
    """Whether a weight of a base model stands in a module that nothing reads, such as a pooler."""
    return UNREAD.fullmatch(key.partition(".")[0]) is not None


def _refusal(
    name: str, missing: Sequence[str], mismatched: Sequence[Any], unknown: Sequence[str], reason: str = ""
) -> InputError:
    wrong = [reason] if reason else []
    if missing:
        is_ = "is" if len(missing) == 1 else "are"
        wrong.append(f"{len(missing):,} of its weights {is_} not in its files ({listed(missing)})")
    if mismatched:
        key, held, stated = mismatched[0]
        more = f", and {len(mismatched) - 1:,} more differ" if len(mismatched) > 1 else ""
        wrong.append(f"{key} is {_shape(held)} in its files and {_shape(stated)} by its config.json{more}")
    if unknown:
        wrong.append(f"its files hold weights that the architecture does not have ({listed(unknown)})")
    return InputError(
        f"model {name!r} cannot be loaded: {'; '.join(wrong)}: the files are damaged or incomplete, or belong to another "
        "architecture than config.json describes."
    )


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(f"{size:,}" for size in sizes) or "a single number"


def _of_part(network: PreTrainedModel, part: nn.Module) -> Callable[[str], bool]:
    """Whether the name of an unexpected weight lies in the part that is read; blocks beyond the last one do not count."""
    base = network.base_model
    path = next(path for path, module in base.named_modules() if module is part)
    prefixes = [f"{network.base_model_prefix}.", f"{path}." if path else ""]

    def lies_within(key: str) -> bool:
        for prefix in prefixes:
            key = key.removeprefix(prefix)
        child = key.partition(".")[0]
        if child not in dict(part.named_children()) or is_unread(key) or BUFFERS.search(key):
            return False
        return not any(
            isinstance(module, nn.ModuleList) and key.startswith(f"{stack}.") and _number(key, stack) >= len(module)
            for stack, module in part.named_modules()
            if stack
        )

    return lies_within


def _number(key: str, stack: str) -> int:
    number = key.removeprefix(f"{stack}.").partition(".")[0]
    return int(number) if number.isdigit() else -1


def _wrapped(unexpected: Collection[str]) -> bool:
    return any(re.search(pattern, key) for pattern in WRAPPERS for key in unexpected)


def _is_quantised(network: PreTrainedModel) -> bool:
    """Quantised weights bring tensors of their own, whose names the library that reads them knows."""
    return getattr(network.config, "quantization_config", None) is not None


def _is_weight(network: PreTrainedModel, key: str) -> bool:
    """Whether a tensor of a head has to come from files: it is no constant, and not tied to another one."""
    parameters = dict(network.named_parameters())
    return key in parameters and key not in getattr(network, "all_tied_weights_keys", {})


def _tensors(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
