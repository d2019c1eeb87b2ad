"""Text as the model expects it: its tokens, and the special tokens or the chat template around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from sparse_probing.datasets.backends import Backend, TokenizedText
from sparse_probing.errors import InputError
from sparse_probing.records import SpecialTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFrame:
    """A chat template around the text of one message."""

    before: str
    """What the template writes in front of the text."""
    after: str
    """What it writes behind the text."""
    answer: str
    """What stands behind a prompt that the model is to go on from: the end of the user's message and the beginning of the
    assistant's; nothing where the text is the assistant's own."""
    render: Callable[[str], str]
    """The template with a text in its place."""

    def body(self, text: str) -> tuple[str, int, int]:
        """The whole message, where the text stands in it, and how many blanks at the beginning of the text the template drops.

        Raises:
            InputError: the template does more to the text than dropping blanks around it.
        """
        whole = self.render(text)
        if whole.startswith(self.before) and whole.endswith(self.after):
            for kept in (text, text.strip(), text.rstrip(), text.lstrip()):
                if len(whole) == len(self.before) + len(kept) + len(self.after) and whole.startswith(
                    kept, len(self.before)
                ):
                    return whole, len(kept), text.index(kept)
        raise InputError(
            f"the chat template does not leave the text {text[:80]!r} as it is, so labels on its characters would be lost: leave "
            "that text out, or read texts without --chat-template."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """A tokenizer and what the model expects around a text: special tokens, or a chat template."""

    backend: Backend
    """It reports the characters that each token covers."""
    front: tuple[int, ...] = ()
    """Ids put in front of every text (BOS, or an encoder's [CLS]); none for some models."""
    behind: tuple[int, ...] = ()
    """Ids put behind every text (an encoder's [SEP]); none for causal models."""
    chat: ChatFrame | None = None
    """Each text is a message: `front` and `behind` are then those of the template."""
    control: bool = False
    """Special tokens written in a text (`</s>`) are read as such. A text is data: they are ordinary characters, except in runs
    from before there was a choice."""

    def room(self, window: int) -> int:
        """Tokens of text that fit into a window beside what stands around it."""
        return window - len(self.front) - len(self.behind)

    def encode(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Token ids and character offsets of each text, and what stands around it.

        Raises:
            InputError: a text that the chat template changes.
        """
        if self.chat is not None:
            return self._messages(texts, self.chat)
        return [self._dressed(text, found) for text, found in zip(texts, self._plain(texts), strict=True)]

    def _plain(self, texts: Sequence[str]) -> list[TokenizedText]:
        return self.backend.encode(texts, control=self.control)

    def _dressed(self, text: str, found: TokenizedText) -> TokenizedText:
        front, behind = self._around()
        around = replace(found, front=front, behind=behind)
        n = len(self.front)
        if not n or self.control or tuple(found.ids[:n].tolist()) != self.front:
            return around
        written = [text[a:b].strip() for a, b in zip(found.starts[:n].tolist(), found.ends[:n].tolist(), strict=True)]
        if written != [self.backend.special.get(token) for token in self.front]:
            return around  # an ordinary token of the same id, such as one for unknown characters
        return replace(around, ids=found.ids[n:], starts=found.starts[n:], ends=found.ends[n:])

    def _messages(self, texts: Sequence[str], chat: ChatFrame) -> list[TokenizedText]:
        """The messages are tokenized as a whole: a blank of the template may be part of the text's first token."""
        bodies = [chat.body(text) for text in texts]
        whole = self.backend.encode([message for message, _, _ in bodies], control=True)
        special = np.array(list(self.backend.special), dtype=np.int32)
        begin = len(chat.before)
        result: list[TokenizedText] = []
        for text, (message, length, dropped), found in zip(texts, bodies, whole, strict=True):
            control = np.isin(found.ids, special)
            for i in np.flatnonzero(control & (found.starts < begin + length) & (found.ends > begin)).tolist():
                written = message[found.starts[i] : found.ends[i]].strip()
                control[i] = written == self.backend.special[int(found.ids[i])]  # else one for an unknown character
            starts, ends = found.starts - begin, found.ends - begin
            if (control & (starts >= 0) & (ends <= length)).any():  # the text writes a special token
                result.append(self._apart(text[dropped : dropped + length], dropped))
                continue
            inside = np.flatnonzero((starts < length) & (ends > 0) & (ends > starts) & ~control & (length > 0))
            first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (len(self.front),) * 2
            result.append(
                TokenizedText(
                    ids=found.ids[first:last],
                    starts=np.clip(starts[first:last], 0, length) + dropped,
                    ends=np.clip(ends[first:last], 0, length) + dropped,
                    front=found.ids[:first],
                    behind=found.ids[last:],
                )
            )
        return result

    def _apart(self, text: str, shift: int) -> TokenizedText:
        (found,) = self._plain([text])
        front, behind = self._around()
        return TokenizedText(
            ids=found.ids, starts=found.starts + shift, ends=found.ends + shift, front=front, behind=behind
        )

    def _around(self) -> tuple[Int[np.ndarray, " front"], Int[np.ndarray, " behind"]]:
        return np.array(self.front, dtype=np.int32), np.array(self.behind, dtype=np.int32)

    def prompt(self, text: str, continuation: str = "") -> Int[np.ndarray, " token"]:
        """Ids of a text that the model is to go on from, with all that stands in front of what it writes.

        Args:
            text: the prompt; with a chat template, of the user, or the beginning of the assistant's message.
            continuation: what stands behind it already.
        """
        if self.chat is None:
            (found,) = self.encode([text + continuation])
            return np.concatenate([found.front, found.ids]).astype(np.int64)
        chat = self.chat
        parts = ((chat.before, True), (text, False), (chat.answer, True), (continuation, False))
        whole, written = "".join(part for part, _ in parts), f"{text}\n{continuation}"
        if any(name in written for name in self.backend.special.values()):
            pieces = [self.backend.encode([part], control=control)[0].ids for part, control in parts]
            return np.concatenate(pieces).astype(np.int64)
        return self.backend.encode([whole], control=True)[0].ids.astype(np.int64)

    def unknown_id(self) -> int | None:
        """Id of the token for characters that the vocabulary lacks; null where there is none (byte-level vocabularies)."""
        return self.backend.unknown_id

    def fingerprint(self) -> str:
        """The tokenizer as text: two tokenizers are the same when this is the same."""
        front, behind = (",".join(map(str, ids)) or None for ids in (self.front, self.behind))
        return f"{front}:{behind}:{self.backend.fingerprint()}"


def special_written(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[str]:
    """A sentence on texts in which special tokens are written out that are read as plain characters; none where there are none."""
    names = [] if tokenizer.control else [name for name in tokenizer.backend.special.values() if name]
    if not names:
        return []
    pattern = re.compile("|".join(map(re.escape, names)))
    found = [match.group() for text in texts if (match := pattern.search(text))]
    if not found:
        return []
    return [
        f"{len(found):,} of {len(texts):,} texts hold a special token of the tokenizer, such as {found[0]!r}: it is read as the "
        "characters that it is written with."
    ]


PROBES = ("a", "A", "1", ".", "中")
"""Texts to learn the special tokens from; one of them has tokens in any usual vocabulary."""


def added_around(
    bare: Callable[[str], Sequence[int]], dressed: Callable[[str], Sequence[int]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that a tokenizer puts in front of a text and behind it.

    Args:
        bare: ids of a text alone.
        dressed: ids of a text as the tokenizer gives it to its model.

    Raises:
        InputError: they cannot be told from the tokens of the text.
    """
    for text in PROBES:
        inner, outer = list(bare(text)), list(dressed(text))
        for at in range(len(outer) - len(inner) + 1) if inner else ():
            if outer[at : at + len(inner)] == inner:
                return tuple(outer[:at]), tuple(outer[at + len(inner) :])
    if not list(dressed("")):
        return (), ()
    raise InputError(
        f"the special tokens of the tokenizer cannot be told from those of a text: none of {', '.join(PROBES)} has tokens "
        "of its own between them; use a tokenizer whose vocabulary holds one of these."
    )


def special_around(
    added: tuple[tuple[int, ...], tuple[int, ...]], bos: int | None, choice: SpecialTokens | None, name: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids in front of a text and behind it, as chosen.

    Args:
        added: what the tokenizer itself puts there.
        bos: id of its token for the beginning of a text; null where it names none.
        choice: see `TextFormat.special_tokens`.
        name: of the model.

    Raises:
        InputError: a BOS is asked for, and the tokenizer names none.
    """
    front, behind = added
    match choice:
        case "none":
            return (), ()
        case "auto":
            return front, behind
        case "bos":
            if bos is None:
                raise InputError(
                    f"the tokenizer of {name!r} names no token for the beginning of a text: use --special-tokens auto, which "
                    "puts what the tokenizer itself puts around a text, or none."
                )
            return front if bos in front else (bos, *front), behind
        case None:
            return added if bos is None or front or behind else ((bos,), ())


BATCH = 256
"""Texts tokenized together: the tokenizer works on them in parallel, and its bulky answers are dropped batch by batch."""


def tokenize(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[TokenizedText]:
    """Token ids and character offsets of each text."""
    return [text for batch in tokenized_batches(tokenizer, texts) for text in batch]


def tokenized_batches(tokenizer: TextTokenizer, texts: Sequence[str]) -> Iterator[list[TokenizedText]]:
    """The same, some texts at a time."""
    for first in range(0, len(texts), BATCH):
        yield tokenizer.encode(texts[first : first + BATCH])
