"""What rows need of a model: its tokenizer and its longest sequence. For the bundled model without torch, which takes seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from sparse_probing.activations.model_files import DEMO_MODEL, find_model
from sparse_probing.datasets.backends import FastBackend
from sparse_probing.datasets.text_tokenizer import ChatFrame, TextTokenizer, added_around, special_around
from sparse_probing.errors import InputError
from sparse_probing.records import DEFAULT_FORMAT, TextFormat

NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelText:
    """The side of a model that text meets."""

    name: str
    tokenizer: TextTokenizer
    context: int
    """Longest sequence that the model takes; `NO_LIMIT` where it states none."""


def no_chat_template(name: str) -> InputError:
    """What is said of a tokenizer without chat template."""
    return InputError(
        f"the tokenizer of {name!r} has no chat template (chat_template.jinja, or in tokenizer_config.json): leave out "
        "--chat-template, or name a model that was trained on conversations."
    )


def fast_tokenizer(
    tokenizer: Tokenizer, bos_token: str | None, name: str, text_format: TextFormat, chat: ChatFrame | None = None
) -> TextTokenizer:
    """A tokenizer of the Rust library with what stands around a text.

    Args:
        tokenizer: from now on it neither pads nor truncates.
        bos_token: its token for the beginning of a text, as it is written.
        name: of the model.
        text_format: how texts are given to the model.
        chat: the chat template, where the format asks for one.

    Raises:
        InputError: special tokens that cannot be told from those of a text, or no BOS where one is asked for.
    """
    backend = FastBackend(tokenizer)
    if chat is not None:
        front, behind = (tuple(found.ids.tolist()) for found in backend.encode([chat.before, chat.after], control=True))
    else:
        added = added_around(lambda text: backend.encode([text])[0].ids.tolist(), backend.dressed)
        bos = None if bos_token is None else backend.id_of(bos_token)
        front, behind = special_around(added, bos, text_format.special_tokens, name)
    return TextTokenizer(
        backend=backend, front=front, behind=behind, chat=chat, control=text_format.special_tokens is None
    )


def text_of_model(
    name: str, text_format: TextFormat = DEFAULT_FORMAT, *, base: str | None = None, trust_remote_code: bool = False
) -> ModelText:
    """Tokenizer and context of a model, as `outline_model` reads them.

    The bundled model's files say all of it. Those of other models do not: transformers changes what some tokenizer.json say.

    Args:
        name: `demo`, a local folder, or a hub id.
        text_format: how texts are given to the model.
        base: model below a PEFT adapter, where the one that it names is not at hand.
        trust_remote_code: run code that comes with the model.

    Raises:
        InputError: no model there, no usable tokenizer, one that cannot give texts in that format, or code of its own that is not
            trusted.
    """
    if name != DEMO_MODEL or base is not None:
        from sparse_probing.activations.models import outline_model  # with torch and transformers

        return outline_model(name, text_format, base=base, trust_remote_code=trust_remote_code)
    folder = Path(find_model(name).path)
    settings, named = (
        json.loads((folder / file).read_text(encoding="utf-8")) for file in ("config.json", "tokenizer_config.json")
    )
    if text_format.chat_template:
        raise no_chat_template(name)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return ModelText(
        name=name,
        tokenizer=fast_tokenizer(tokenizer, named["bos_token"], name, text_format),
        context=settings["max_position_embeddings"],
    )
