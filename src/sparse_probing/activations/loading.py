"""What may be wrong with a model that others wrote: their libraries' many errors as one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError, safe_open

from sparse_probing.errors import InputError, PrerequisiteError, SparseProbingError

LONGEST = 300
"""Characters of a library's own words."""
SIZES = {
    "num_hidden_layers": 10_000,
    "hidden_size": 10**7,
    "intermediate_size": 10**8,
    "num_attention_heads": 10**6,
    "vocab_size": 10**9,
}
"""Beyond what any model has; a module tree of more layers would fill the memory before anything is said."""


@contextmanager
def loading(name: str, part: str = "model", folder: str | None = None) -> Iterator[None]:
    """Around calls that read a model's files: whatever they raise becomes one sentence.

    transformers, tokenizers, safetensors and torch answer damaged files with errors of twenty kinds; none of them is ours.

    Args:
        name: of the model, as the user gave it.
        part: what is read.
        folder: where its files lie, so that a damaged one can be named.

    Raises:
        InputError: the files cannot be used.
        PrerequisiteError: a package is missing that they need.
    """
    try:
        yield
    except (SparseProbingError, MemoryError):
        raise
    except ImportError as error:
        raise PrerequisiteError(f"{part} {name!r} needs a package that is not installed: {brief(error)}.") from None
    except Exception as error:
        raise _said(name, part, folder, error) from None


KNOWN = (
    (
        r"Couldn't instantiate the backend tokenizer",
        "its files hold no tokenizer that can be used: put tokenizer.json, and tokenizer_config.json where there is one, into its "
        "folder",
    ),
    (
        r"has model type `([^`]*)` but Transformers does not recognize",
        "the installed transformers does not know its type {0!r}: install a newer transformers, or add --trust-remote-code where "
        "the model brings program code that you trust",
    ),
    (r"Should have a `model_type` key", "its config.json does not say what type of model it is (model_type)"),
    (r"Unrecognized configuration class", "transformers has no text model for its type"),
    (
        r"Multiple valid text configs .*?(\[[^\]]*\])",
        "it consists of several text models {0}, and which of them to read is not known: save the one you mean as a model of "
        "its own",
    ),
    (
        r"(?i)out of memory|can't allocate memory",
        "it does not fit into memory: use --dtype bfloat16, or --device-map auto",
    ),
)
"""What transformers and torch say, and what we say instead."""


def _said(name: str, part: str, folder: str | None, error: Exception) -> SparseProbingError:
    said = str(error)
    if "trust_remote_code" in said and "does not recognize" not in said:
        return InputError(
            f"model {name!r} needs program code that comes with it and would run here with all your rights: add "
            "--trust-remote-code if you trust its authors, or name a model that transformers knows."
        )
    if "accelerate" in said:
        return PrerequisiteError(
            "a device map and quantised weights need the package accelerate: pip install 'sparse-probing[multi-device]'."
        )
    if isinstance(error, UnpicklingError):
        return InputError(
            f"{part} {name!r} cannot be loaded: its .bin file is damaged or holds more than tensors, and is not unpickled, since "
            "that could run code: get the weights as .safetensors."
        )
    for pattern, ours in KNOWN:
        found = re.search(pattern, said, re.DOTALL)
        if found:
            return InputError(f"{part} {name!r} cannot be loaded: {ours.format(*found.groups())}.")
    damaged = _damaged_file(folder) if isinstance(error, SafetensorError) and folder else None
    if damaged:
        return InputError(
            f"{part} {name!r} cannot be loaded: {damaged} is damaged ({brief(error)}): get that file again."
        )
    return InputError(f"{part} {name!r} cannot be loaded: {brief(error)}.")


def _damaged_file(folder: str) -> str | None:
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError:
            return path.name
    return None


def brief(error: Exception) -> str:
    """A library's own words on one line, with the kind of error where the words alone say little."""
    said = " ".join(str(error).split()).rstrip(".")
    said = said if len(said) <= LONGEST else said[:LONGEST] + "…"
    if isinstance(error, OSError | ValueError | RuntimeError | ImportError) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def check_sizes(config: Any, name: str) -> None:
    """Refuse sizes that no model has, before a module tree is built from them.

    Raises:
        InputError: a size below 0 or absurdly large.
    """
    config = config.get_text_config()
    for key, largest in SIZES.items():
        value = stated(config, key)
        if isinstance(value, int) and not 0 <= value <= largest:
            raise InputError(
                f"model {name!r} cannot be loaded: its config.json states {key} {value}, which is beyond any model; "
                "the file is damaged."
            )


def check_stated(config: Any, name: str, path: Path) -> None:
    """Refuse a config.json without the sizes that make a model: the type's own, of some released model, would be taken.

    Args:
        config: what was made of it.
        name: of the model.
        path: of the file; what is not on this disk is not checked.

    Raises:
        InputError: a size is not stated.
    """
    if not path.is_file():
        return
    said = json.loads(path.read_text(encoding="utf-8"))
    if any(isinstance(value, dict) for key, value in said.items() if key.endswith("_config")):
        return  # parts of several models, whose sizes may stand anywhere
    other = getattr(config, "attribute_map", {})
    for key in ("num_hidden_layers", "hidden_size"):
        if other.get(key, key) in vars(config) and not {key, other.get(key, key)} & set(said):
            raise InputError(
                f"model {name!r} cannot be loaded: its config.json does not state {other.get(key, key)}, which a model of type "
                f"{config.model_type} needs."
            )


def stated(config: Any, key: str) -> Any:
    """What a configuration says; null where it says nothing, or something else for every layer."""
    try:
        return getattr(config, key, None)
    except Exception:  # of some types' own properties
        return None
