"""What rows need of a model: its tokenizer and its longest sequence. For the bundled model without torch, which takes seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from sparse_probing.activations.model_files import DEMO_MODEL, find_model
from sparse_probing.datasets.align import TextTokenizer, special_tokens

NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelText:
    """The side of a model that text meets."""

    name: str
    tokenizer: TextTokenizer
    context: int
    """Longest sequence that the model takes; `NO_LIMIT` where it states none."""


def text_of_model(name: str, *, base: str | None = None, trust_remote_code: bool = False) -> ModelText:
    """Tokenizer and context of a model, as `outline_model` reads them.

    The bundled model's files say all of it. Those of other models do not: transformers changes what some tokenizer.json say.

    Raises:
        InputError: no model there, no fast tokenizer, or code of its own that is not trusted.
    """
    if name != DEMO_MODEL or base is not None:
        from sparse_probing.activations.models import outline_model  # with torch and transformers

        return outline_model(name, base=base, trust_remote_code=trust_remote_code)
    folder = Path(find_model(name).path)
    settings, named = (
        json.loads((folder / file).read_text(encoding="utf-8")) for file in ("config.json", "tokenizer_config.json")
    )
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    front, behind = special_tokens(backend, named["bos_token"])
    return ModelText(
        name=name,
        tokenizer=TextTokenizer(backend=backend, front=front, behind=behind),
        context=settings["max_position_embeddings"],
    )
