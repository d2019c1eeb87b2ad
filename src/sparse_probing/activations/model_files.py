"""What a model's name means on disk: a folder of transformers, of sentence-transformers, of a PEFT adapter, or a GGUF file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from sparse_probing.errors import InputError

DEMO_MODEL = "demo"
CONFIG = "config.json"
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
MODULES = "modules.json"
"""Of sentence-transformers: which folder holds which module."""
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")
WEIGHTS = (".safetensors", ".bin")
LISTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Where the parts of a model lie."""

    name: str
    """As the user gave it."""
    path: str
    """A folder or hub id, as `from_pretrained` takes it."""
    options: dict[str, str] = field(default_factory=dict)
    """What `from_pretrained` needs beside it, for configuration, weights and tokenizer: the GGUF file in the folder."""
    adapter: Path | None = None
    """Folder of a PEFT adapter on top of these weights."""
    tokenizer: str | None = None
    """Folder of the tokenizer, where it is not `path`."""

    def text_source(self) -> tuple[str, dict[str, str]]:
        """What the tokenizer is loaded from."""
        return (self.path, self.options) if self.tokenizer is None else (self.tokenizer, {})


def find_model(name: str, base: str | None = None) -> ModelFiles:
    """The files of a model; a name that does not exist on this disk is taken as a hub id.

    Args:
        name: `demo`, a local folder, a GGUF file, or a hub id.
        base: model below an adapter, instead of the one that the adapter names.

    Raises:
        InputError: a file or folder that holds no model, or several; a base for a model that is no adapter.
    """
    folder = Path(name)
    if name != DEMO_MODEL and folder.is_dir() and (folder / ADAPTER).is_file():
        return _adapter(name, folder, base)
    if base is not None:
        raise InputError(
            f"--base belongs to the folder of a PEFT adapter, and {name!r} is none (no {ADAPTER}): leave out --base."
        )
    if name == DEMO_MODEL:
        return ModelFiles(name=name, path=str(resources.files("sparse_probing") / "assets" / "demo_model"))
    if folder.is_file():
        if folder.suffix.lower() == ".gguf":
            return ModelFiles(name=name, path=str(folder.parent), options={"gguf_file": folder.name})
        hint = f": name its folder, {str(folder.parent)!r}" if (folder.parent / CONFIG).is_file() else ""
        raise InputError(
            f"{name!r} is no model: a model is a folder with {CONFIG}, or a file that ends in .gguf{hint}."
        )
    if folder.is_dir():
        return ModelFiles(name=name, path=str(_model_folder(name, folder)))
    return ModelFiles(name=name, path=name)


def _adapter(name: str, folder: Path, base: str | None) -> ModelFiles:
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in WEIGHTS and path.name.startswith(("model", "pytorch_model"))
    )
    if others and (folder / CONFIG).is_file():
        raise InputError(
            f"{name!r} holds two models, a whole one ({others[0]}) and an adapter ({ADAPTER}): move one of them to a folder "
            "of its own."
        )
    if not any((folder / file).is_file() for file in ADAPTER_WEIGHTS):
        raise InputError(f"adapter {name!r} has no weights: it needs {' or '.join(ADAPTER_WEIGHTS)} beside {ADAPTER}.")
    below = base or _json(name, folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(below, str) or not below:
        raise InputError(f"adapter {name!r} does not say which model it belongs to: name that with --base.")
    try:
        found = find_model(below)
    except InputError as error:
        raise InputError(f"the model below adapter {name!r}: {error}") from None
    own = any((folder / file).is_file() for file in TOKENIZERS)
    return ModelFiles(
        name=name,
        path=found.path,
        options=found.options,
        adapter=folder,
        tokenizer=str(folder) if own else found.tokenizer,
    )


def _model_folder(name: str, folder: Path) -> Path:
    """The folder within a folder that holds config.json: itself, or that of the transformer of sentence-transformers."""
    if (folder / CONFIG).is_file():
        _check_one(name, folder)
        return folder
    if (folder / MODULES).is_file():
        return _transformer_of(name, folder)
    found = sorted(path.name for path in folder.glob("*.gguf"))
    if found:
        raise InputError(
            f"{name!r} holds GGUF files ({_listed(found)}): name one of them, --model {str(folder / found[0])!r}."
        )
    below = sorted(path.name for path in folder.iterdir() if any((path / file).is_file() for file in (CONFIG, ADAPTER)))
    if below:
        what = "a model in a folder of its own" if len(below) == 1 else "several models"
        raise InputError(
            f"{name!r} holds {what} ({_listed(below)}): name that folder, --model {str(folder / below[0])!r}."
        )
    raise InputError(
        f"{name!r} is no model: a model is a folder with {CONFIG}, weights and tokenizer.json, the folder of a PEFT adapter, or a "
        "file that ends in .gguf."
    )


def _check_one(name: str, folder: Path) -> None:
    """Refuse weights twice: which of them transformers reads depends on names, not on dates."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if (folder / whole).is_file() and (folder / f"{whole}.index.json").is_file():
            raise InputError(
                f"{name!r} holds two models, one in {whole} and one in parts ({whole}.index.json): move one of them to a folder "
                "of its own."
            )
        if whole == "model.safetensors" and (folder / whole).is_file():
            return  # the other format beside it is usual, and not read


def _transformer_of(name: str, folder: Path) -> Path:
    modules = _json(name, folder / MODULES)
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, dict) and str(module.get("type", "")).rpartition(".")[2] == "Transformer":
            inside = folder / str(module.get("path", ""))
            if inside.resolve().is_relative_to(folder.resolve()) and (inside / CONFIG).is_file():
                return inside
    raise InputError(f"{name!r} is no model: its {MODULES} names no transformer with {CONFIG}.")


def _json(name: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"model {name!r} cannot be loaded: {path.name} is not valid JSON ({type(error).__name__})."
        ) from None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
