"""Records that cross rooms. Frozen: what was measured once is not changed later."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from sparse_probing.errors import InputError

Side = Literal["input", "output", "experts", "softmax", "sigmoid"]
"""What of a module is read: what enters it, what leaves it; of experts their neurons, of a router the probabilities that its scores
stand for."""

NEURONS = "mlp.neurons"
"""The site that is probed unless another one is named."""


class Split(StrEnum):
    """Which part of the data a row belongs to. Decided once per dataset, by group."""

    TRAIN = "train"
    """Ranking, selection and fitting see these rows."""
    VALIDATION = "validation"
    """Threshold, layer, k and neuron are chosen on these rows."""
    TEST = "test"
    """Read once, for the figures that are reported."""


SPLITS: tuple[Split, ...] = tuple(Split)
"""Order of the integer codes in arrays and files."""
SPLIT_WORDS: dict[str, Split] = {
    "train": Split.TRAIN, "training": Split.TRAIN,
    "validation": Split.VALIDATION, "valid": Split.VALIDATION, "val": Split.VALIDATION, "dev": Split.VALIDATION,
    "test": Split.TEST, "testing": Split.TEST, "eval": Split.TEST, "evaluation": Split.TEST,
}  # fmt: skip
"""Words that name a split in columns and file names, in the order in which splits are read."""


class Pooling(StrEnum):
    """How the token positions of one row become one activation vector."""

    TOKEN = "token"  # noqa: S105 - a pooling mode, not a password
    """The row is a single token."""
    FIRST = "first"
    LAST = "last"
    MEAN = "mean"
    MAX = "max"


POOLINGS: tuple[Pooling, ...] = tuple(Pooling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One place in a model where a vector of units can be read."""

    name: str
    """Kind of site, for example `mlp.neurons`."""
    layer: int
    """Index of the block, from 0."""
    width: int
    """Number of units."""
    module_path: str
    """Path of the module that is read."""
    side: Side
    """What of that module is read."""
    heads: int | None = None
    """`attn.heads`: number of heads; unit u is component u % (width / heads) of head u // (width / heads)."""
    call: int | None = None
    """Which call of the module in a pass, from 0, where layers share it (ALBERT, Zamba 2); null where it is called once."""


SpecialTokens = Literal["auto", "bos", "none"]
"""What stands around a text: what the tokenizer itself adds; the same with one BOS in front; nothing."""
Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """How a text is given to a model."""

    special_tokens: SpecialTokens | None = "auto"
    """auto: exactly what the tokenizer itself adds. bos: one BOS in front, as TransformerLens and the paper have it. none: nothing.
    Null: as in runs from before there was a choice: BOS in front where the tokenizer names one and adds nothing, and special tokens
    that are written in a text are read as such."""
    chat_template: bool = False
    """Each text is the content of a message in the model's chat template."""
    system: str | None = None
    """The system message in front of it. Null: what the template puts there by itself."""
    role: Role | None = None
    """Who says the text. Null: the user."""

    def __post_init__(self) -> None:
        if not self.chat_template and (self.system is not None or self.role is not None):
            raise InputError("system and role belong to a chat template: add --chat-template, or leave them out")
        if self.chat_template and self.special_tokens not in ("auto", None):
            raise InputError(
                f"special_tokens {self.special_tokens} has no meaning with a chat template, which says itself what stands around a "
                "text: leave out one of the two"
            )


DEFAULT_FORMAT = TextFormat()


def unit_name(site: str, layer: int, unit: int) -> str:
    """`L3.N609`: neuron 609 of layer 3, both counted from 0; `L3.resid.post.17` for units of another site."""
    return f"L{layer}.N{unit}" if site == NEURONS else f"L{layer}.{site}.{unit}"


def task_rng(seed: int, *key: str | int) -> np.random.Generator:
    """A generator that depends on the run's seed and the name of the task only, not on order or number of workers."""
    words = [seed, *(word for part in key for word in (part.encode() if isinstance(part, str) else [part]))]
    return np.random.default_rng(words)
