"""Losses of many texts under many interventions, and what later units read meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparse_probing.activations.batches import TokenBudget, run_batches
from sparse_probing.activations.hooks import watching
from sparse_probing.activations.interventions import Intervention
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import no_head
from sparse_probing.activations.pooling import BatchRows
from sparse_probing.activations.replay import NOWHERE, Replay
from sparse_probing.errors import InputError
from sparse_probing.records import Site

TOKENS_PER_BATCH = {"cpu": 1_024, "cuda": 16_384}
"""Half of what extraction takes: logits are wide, and on a CPU their softmax should stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredText:
    """A sequence with the tokens to be predicted."""

    tokens: Int[np.ndarray, " position"]
    """What the model reads (with mask tokens, for a masked language model)."""
    targets: Int[np.ndarray, " position"]
    """Token whose loss is taken at each position; `replay.NOWHERE` where none is."""
    number: int
    """Identity; seeds what is drawn for it."""
    labelled: Bool[np.ndarray, " position"]
    """Positions of rows: where interventions "at labelled positions" act."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """What is changed in one pass."""

    interventions: tuple[Intervention, ...]
    labelled_only: bool = False
    """Change units at the labelled positions of each text only; else everywhere."""

    @property
    def lowest(self) -> int:
        """The lowest changed layer."""
        return min(intervention.site.layer for intervention in self.interventions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reads:
    """Units that are read, pooled to rows, while others are changed."""

    units: Mapping[Site, Int[np.ndarray, " unit"]]
    text: Int[np.ndarray, " row"]
    """Text of each row, ascending, then position bounds and pooling as in `FeatureDataset`."""
    first: Int[np.ndarray, " row"]
    last: Int[np.ndarray, " row"]
    pooling: Int[np.ndarray, " row"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effects:
    """What was measured; entry 0 of the first axis is the bare model, entry i + 1 is variant i."""

    loss: Float[np.ndarray, "pass scored"]
    """Nats, at the scored positions, text after text."""
    text: Int[np.ndarray, " scored"]
    """Text of each scored position."""
    position: Int[np.ndarray, " scored"]
    read: dict[Site, Float[np.ndarray, "pass row unit"]] = field(default_factory=dict)


def loss_budget(model: LoadedModel, notify: Callable[[str], None] = lambda _: None) -> TokenBudget:
    """Tokens per batch where losses are wanted; `notify` is told when a batch does not fit into memory."""
    return TokenBudget(model, TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"]), notify)


def measure(
    model: LoadedModel,
    texts: Sequence[ScoredText],
    variants: Sequence[Variant],
    *,
    reads: Reads | None = None,
    budget: TokenBudget | None = None,
    trusted: dict[int, bool] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Effects:
    """Losses of every text under every variant, and without.

    Args:
        model: loaded with its head.
        texts: what is read and scored.
        variants: what is changed, one pass each; passes share what lies below the changed layer (`Replay`).
        reads: units to be read as well.
        budget: tokens per batch, shared by several calls.
        trusted: see `Replay`; shared by several calls.
        progress: told the number of text passes just done, `len(texts) * (1 + len(variants))` in all.

    Raises:
        InputError: a model without head; values beyond its precision, or so far out that its output is no number any more; a
            single text that does not fit into memory.
    """
    if model.full is None:
        raise InputError(f"losses of {model.name!r} are not defined: {no_head(model)}.")
    check_values(model, [intervention for variant in variants for intervention in variant.interventions])
    budget = budget or loss_budget(model)
    trusted = {} if trusted is None else trusted
    counts = np.array([int((text.targets != NOWHERE).sum()) for text in texts], dtype=int)
    begins = [0, *np.cumsum(counts).tolist()]
    loss = np.zeros((1 + len(variants), begins[-1]), dtype=np.float32)
    read = _empty_reads(reads, 1 + len(variants))
    lowest = [variant.lowest for variant in variants]

    def step(members: Int[np.ndarray, " text"]) -> None:
        batch = [texts[i] for i in members.tolist()]
        here = np.concatenate([np.arange(begins[i], begins[i + 1]) for i in members.tolist()])
        replay = Replay(model, lowest, trusted)
        with _noting(model, reads, members, read) as note:
            note(0)
            tokens, targets, numbers = ([getattr(t, name) for t in batch] for name in ("tokens", "targets", "number"))
            loss[0, here] = replay.record(tokens, targets, numbers).cpu().numpy()
            note(None)
            replay.check()
            for v, variant in enumerate(variants, 1):
                note(v)
                where = [text.labelled for text in batch] if variant.labelled_only else None
                loss[v, here] = replay.changed(variant.interventions, where).cpu().numpy()
                check_finite(loss[v, here])
        progress(len(batch) * (1 + len(variants)))  # at the end: a batch that does not fit into memory is begun anew

    run_batches(np.arange(len(texts)), np.array([len(t.tokens) for t in texts], dtype=int), budget, step)
    for v, low in enumerate(lowest, 1):
        for site in read:
            if site.layer < low:  # was given back, not computed
                read[site][v] = read[site][0]
    return Effects(
        loss=loss,
        text=np.repeat(np.arange(len(texts)), counts),
        position=np.concatenate([np.flatnonzero(t.targets != NOWHERE) for t in texts]) if texts else np.zeros(0, int),
        read=read,
    )


def check_values(model: LoadedModel, interventions: Sequence[Intervention]) -> None:
    """Refuse values that the model's precision cannot hold.

    Raises:
        InputError: there is one.
    """
    largest = torch.finfo(model.network.dtype).max
    for value in (float(np.abs(intervention.values).max()) for intervention in interventions):
        if value > largest:
            raise InputError(
                f"a unit cannot be set to {value:g}: the largest number in this model's precision is {largest:g}."
            )


def check_finite(numbers: np.ndarray) -> None:
    """Refuse outputs that are no numbers.

    Raises:
        InputError: there is one.
    """
    if not np.isfinite(numbers).all():
        raise InputError("the model's output is no longer a number with units set that far: give a smaller value.")


def _empty_reads(reads: Reads | None, passes: int) -> dict[Site, np.ndarray]:
    if reads is None:
        return {}
    return {site: np.zeros((passes, len(reads.text), len(u)), dtype=np.float32) for site, u in reads.units.items()}


@contextmanager
def _noting(
    model: LoadedModel, reads: Reads | None, members: Int[np.ndarray, " text"], read: dict[Site, np.ndarray]
) -> Iterator[Callable[[int | None], None]]:
    """Passes inside leave what they read in `read`, under the number that was noted last."""
    if reads is None:
        yield lambda _: None
        return
    rows = np.flatnonzero(np.isin(reads.text, members))
    index = np.searchsorted(members, reads.text[rows])
    plan = BatchRows(index, reads.first[rows], reads.last[rows], reads.pooling[rows])
    current: int | None = 0

    def note(number: int | None) -> None:
        nonlocal current
        current = number

    def take(site: Site, hidden: Tensor) -> None:
        if current is None:
            return
        hidden = hidden.reshape(len(members), -1, hidden.shape[-1])  # some architectures flatten sequences
        wanted = hidden[..., torch.from_numpy(reads.units[site]).to(hidden.device)]
        read[site][current, rows] = plan.pool(wanted).float().cpu().numpy()

    with watching(model.network, list(reads.units), take):
        yield note
