"""What turns text into token ids and says which characters each token covers: fast tokenizers, bytes, characters."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Int
from tokenizers import AddedToken, Tokenizer

from sparse_probing.errors import InputError


def _nothing() -> Int[np.ndarray, " 0"]:
    return np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedText:
    """Tokens of one text, and what stands around them when a model reads it."""

    ids: Int[np.ndarray, " token"]
    """The text's own tokens."""
    starts: Int[np.ndarray, " token"]
    """First character of each token."""
    ends: Int[np.ndarray, " token"]
    """One past the last character of each token."""
    front: Int[np.ndarray, " front"] = field(default_factory=_nothing)
    """Ids in front of the text: special tokens, or a chat template's."""
    behind: Int[np.ndarray, " behind"] = field(default_factory=_nothing)
    """Ids behind it."""

    def room(self, window: int) -> int:
        """Tokens of the text that fit into a window beside what stands around it.

        Raises:
            InputError: none.
        """
        around = len(self.front) + len(self.behind)
        if window <= around:
            raise InputError(
                f"a window of {window} tokens has no room for text beside the {around} that stand around it: use a larger --window."
            )
        return window - around


class Backend(ABC):
    """All that is needed of a tokenizer. It adds nothing around a text."""

    special: Mapping[int, str]
    """Special tokens: id -> how it is written."""
    n_tokens: int
    """Size of the vocabulary."""
    unknown_id: int | None
    """Id of the token for characters that the vocabulary lacks; null where there is none."""

    @abstractmethod
    def encode(self, texts: Sequence[str], *, control: bool = False) -> list[TokenizedText]:
        """Ids and character offsets of each text.

        Args:
            texts: any text.
            control: special tokens that are written in a text (`</s>`) are read as such; else as ordinary characters, as far as
                the vocabulary allows it.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, without special tokens."""

    @abstractmethod
    def token_text(self, token: int) -> str:
        """One token as text, for reading; the tokenizer's own name for it where it is a special token or a part of a character."""

    @abstractmethod
    def id_of(self, token: str) -> int | None:
        """Id of a token that the tokenizer calls so; null where it has none."""

    @abstractmethod
    def fingerprint(self) -> str:
        """The tokenizer as text: two are the same when this is the same."""


class FastBackend(Backend):
    """A tokenizer of the Rust library `tokenizers`.

    Args:
        tokenizer: from now on it neither pads nor truncates, whatever its file asks for.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()  # text would be lost without a word
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.special = {i: entry.content for i, entry in sorted(_added(tokenizer).items()) if entry.special}
        self.n_tokens = tokenizer.get_vocab_size()
        self.unknown_id = _unknown_id(tokenizer)

    def encode(self, texts: Sequence[str], *, control: bool = False) -> list[TokenizedText]:
        """See `Backend`."""
        self.tokenizer.encode_special_tokens = not control
        found: list[TokenizedText] = []
        for encoding in self.tokenizer.encode_batch(list(texts), add_special_tokens=False):
            offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
            ids = np.array(encoding.ids, dtype=np.int32)
            found.append(TokenizedText(ids=ids, starts=offsets[:, 0], ends=offsets[:, 1]))
        return found

    def dressed(self, text: str) -> list[int]:
        """Ids of a text with all that the tokenizer's own template adds."""
        return self.tokenizer.encode(text, add_special_tokens=True).ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Backend`."""
        return self.tokenizer.decode(list(ids))

    def token_text(self, token: int) -> str:
        """See `Backend`."""
        text = self.tokenizer.decode([token], skip_special_tokens=False)
        return self.tokenizer.id_to_token(token) or text if "\ufffd" in text else text

    def id_of(self, token: str) -> int | None:
        """See `Backend`."""
        return self.tokenizer.token_to_id(token)

    def fingerprint(self) -> str:
        """See `Backend`."""
        return self.tokenizer.to_str()


def _added(tokenizer: Tokenizer) -> dict[int, AddedToken]:
    return tokenizer.get_added_tokens_decoder()


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """Null for byte-level vocabularies."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return None if model.get("unk_token") is None else tokenizer.token_to_id(model["unk_token"])


@dataclass(frozen=True, kw_only=True)
class ByteBackend(Backend):
    """One token per byte of UTF-8, as ByT5 has it: each covers the whole character that its byte is a part of."""

    table: Int[np.ndarray, " 256"]
    """Id of each byte."""
    special: Mapping[int, str]
    """See `Backend`."""
    n_tokens: int
    unknown_id: int | None = None

    def encode(self, texts: Sequence[str], *, control: bool = False) -> list[TokenizedText]:
        """See `Backend`; special tokens written in a text are always ordinary characters."""
        del control
        found: list[TokenizedText] = []
        for text in texts:
            data = np.frombuffer(text.encode(), dtype=np.uint8)
            begins = (data & 0xC0) != 0x80  # any byte but those that continue a character
            starts = (np.cumsum(begins) - 1).astype(np.int32)
            found.append(TokenizedText(ids=self.table[data].astype(np.int32), starts=starts, ends=starts + 1))
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """See `Backend`."""
        return bytes(self._bytes[i] for i in ids if i in self._bytes).decode(errors="replace")

    def token_text(self, token: int) -> str:
        """See `Backend`."""
        if token not in self._bytes:
            return self.special.get(token, f"<{token}>")
        byte = self._bytes[token]
        return chr(byte) if byte < 0x80 else f"<0x{byte:02X}>"

    def id_of(self, token: str) -> int | None:
        """See `Backend`."""
        return next((i for i, name in self.special.items() if name == token), None)

    @cached_property
    def _bytes(self) -> dict[int, int]:
        return {token: byte for byte, token in enumerate(self.table.tolist()) if token >= 0}

    def fingerprint(self) -> str:
        """See `Backend`."""
        return f"bytes {self.table.tolist()} {dict(self.special)}"


@dataclass(frozen=True, kw_only=True)
class CharacterBackend(Backend):
    """One token per character (Unicode code point), as CANINE has it."""

    name: str
    """Kind of the tokenizer."""
    id_of_character: Callable[[str], int]
    """Asked once per distinct character."""
    character_of: Callable[[int], str]
    special: Mapping[int, str]
    """See `Backend`."""
    n_tokens: int
    unknown_id: int | None = None
    _ids: dict[str, int] = field(default_factory=dict[str, int], repr=False, compare=False)

    def encode(self, texts: Sequence[str], *, control: bool = False) -> list[TokenizedText]:
        """See `Backend`; special tokens written in a text are always ordinary characters."""
        del control
        found: list[TokenizedText] = []
        for text in texts:
            starts = np.arange(len(text), dtype=np.int32)
            ids = np.array([self._id(character) for character in text], dtype=np.int32)
            found.append(TokenizedText(ids=ids, starts=starts, ends=starts + 1))
        return found

    def _id(self, character: str) -> int:
        if character not in self._ids:
            self._ids[character] = self.id_of_character(character)
        return self._ids[character]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Backend`."""
        return "".join(self.character_of(i) for i in ids if i not in self.special)

    def token_text(self, token: int) -> str:
        """See `Backend`."""
        return self.special.get(token) or self.character_of(token)

    def id_of(self, token: str) -> int | None:
        """See `Backend`."""
        named = next((i for i, name in self.special.items() if name == token), None)
        return self._id(token) if named is None and len(token) == 1 else named

    def fingerprint(self) -> str:
        """See `Backend`."""
        return f"characters {self.name} {self.n_tokens} {dict(self.special)}"
