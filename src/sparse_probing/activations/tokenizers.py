"""The tokenizer of a model: token ids with the characters that each covers, and what stands around a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sparse_probing.activations.chat_templates import chat_frame
from sparse_probing.activations.loading import loading
from sparse_probing.activations.model_files import ModelFiles
from sparse_probing.activations.model_text import fast_tokenizer
from sparse_probing.datasets.backends import Backend, ByteBackend, CharacterBackend
from sparse_probing.datasets.text_tokenizer import TextTokenizer, added_around, special_around
from sparse_probing.errors import InputError
from sparse_probing.records import TextFormat


def load_tokenizer(
    files: ModelFiles, config: Any, text_format: TextFormat, *, trust_remote_code: bool
) -> TextTokenizer:
    """The tokenizer in a model's folder, or on the hub.

    Args:
        files: of the model.
        config: the model's configuration.
        text_format: how texts are given to the model.
        trust_remote_code: run code that comes with the model.

    Raises:
        InputError: none there, one that cannot be used, or one that cannot give texts in that format.
    """
    path, options = files.text_source()
    with loading(files.name, "the tokenizer of"):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, **options)
    return text_tokenizer(tokenizer, files.name, config.model_type, text_format)


def text_tokenizer(tokenizer: Any, name: str, model_type: str, text_format: TextFormat) -> TextTokenizer:
    """A tokenizer of transformers as rows need it: fast ones, and those of bytes and characters.

    Args:
        tokenizer: stays as it is.
        name: of the model.
        model_type: its architecture.
        text_format: how texts are given to the model.

    Raises:
        InputError: another tokenizer written in Python, which cannot say which characters a token covers, or one that cannot give
            texts in that format.
    """
    bos = None if tokenizer.bos_token is None else str(tokenizer.bos_token)
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # the user's own one keeps its settings
        frame = chat_frame(tokenizer, name, text_format) if text_format.chat_template else None
        return fast_tokenizer(backend, bos, name, text_format, frame)
    made = _by_construction(tokenizer)
    if made is None:
        raise InputError(
            f"the tokenizer of {name!r} ({type(tokenizer).__name__}) reports no character offsets: put a fast one "
            f"(PreTrainedTokenizerFast, file tokenizer.json) for {model_type} models into the model's folder."
        )
    if text_format.chat_template:
        raise InputError(
            f"--chat-template needs a fast tokenizer, and that of {name!r} ({type(tokenizer).__name__}) is written in Python."
        )
    added = added_around(_encoder(tokenizer), lambda text: tokenizer.encode(text))
    known = None if bos is None else tokenizer.convert_tokens_to_ids(bos)
    front, behind = special_around(added, known, text_format.special_tokens, name)
    return TextTokenizer(backend=made, front=front, behind=behind)


def _encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """Ids of a text alone, special tokens in it taken for ordinary characters."""

    def ids(text: str) -> list[int]:
        return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text, split_special_tokens=True))

    return ids


CHARACTERS = (
    *range(0xC0), *range(0xC0, 0x800, 0x40), *range(0x800, 0xD800, 0x400), *range(0xE000, 0x10000, 0x400),
    *range(0x10000, 0x110000, 0x8000),
)  # fmt: skip
"""Code points that together hold every byte that UTF-8 can hold."""
WORDS = " the quick brown foxes, and that thing there:  in the station of 2024\n\n\tdes études; наука 中文 "
"""Any larger vocabulary has tokens of several characters for some of these."""


def _by_construction(tokenizer: Any) -> Backend | None:
    """The same tokenizer as one of bytes or of characters, where it is one; found by what it does with characters of every kind."""
    ids, text = _encoder(tokenizer), "".join(map(chr, CHARACTERS)) + WORDS
    try:
        alone = [ids(character) for character in text]
        together = ids(text)
    except Exception:
        return None
    if together != [i for one in alone for i in one]:
        return None
    named = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = dict(zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=True)) | named
    if all(len(one) == 1 for one in alone):
        return CharacterBackend(
            name=type(tokenizer).__name__,
            id_of_character=lambda character: ids(character)[0],
            character_of=lambda i: str(tokenizer.convert_ids_to_tokens(i)),
            special=special,
            n_tokens=len(tokenizer),
            unknown_id=tokenizer.unk_token_id,
        )
    table = _table(text, alone)
    if table is None:
        return None
    return ByteBackend(table=table, special=special, n_tokens=len(tokenizer))


def _table(text: str, alone: Sequence[Sequence[int]]) -> np.ndarray | None:
    """Id of each byte (-1 for bytes that UTF-8 never has); null where ids do not stand for bytes."""
    table: dict[int, int] = {}
    for character, ids in zip(text, alone, strict=True):
        data = character.encode()
        if len(data) != len(ids) or any(table.setdefault(*pair) != pair[1] for pair in zip(data, ids, strict=True)):
            return None
    return np.array([table.get(byte, -1) for byte in range(256)])
