"""Sequences through the model: batches by length under a token budget that shrinks when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int

from sparse_probing.activations.hooks import Take, reading
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.errors import InputError
from sparse_probing.records import Site

TOKENS_PER_BATCH = {"cpu": 2_048, "cuda": 32_768}
"""A CPU is fastest while a batch's activations fit into its cache; a GPU wants to be full."""

LENGTH_STEP = 8


class TokenBudget:
    """Largest batch, in tokens with padding. Halved when a batch does not fit into memory, for all later batches too."""

    def __init__(
        self, model: LoadedModel, tokens: int | None = None, notify: Callable[[str], None] = lambda _: None
    ) -> None:
        self.one_length = not model.padded
        self.tokens = tokens or TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"])
        self.notify = notify

    def halve(self, failed: int) -> None:
        """After a batch of `failed` tokens did not fit."""
        self.tokens = max(1, min(self.tokens, failed) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.notify(f"out of memory with {failed:,} tokens in a batch: going on with {self.tokens:,}.")


def padded(length: int) -> int:
    """Positions of a batch whose longest sequence has `length` tokens.

    A multiple of 8, as tensor cores like it; on a CPU, allocators and kernel caches grow with every new shape of a batch.
    """
    return -(-max(1, length) // LENGTH_STEP) * LENGTH_STEP


def batches_by_length(
    lengths: Int[np.ndarray, " sequence"], budget: int, *, one_length: bool = False
) -> list[Int[np.ndarray, " _"]]:
    """Indices of sequences, ascending, in batches of similar length; `longest * count` stays below the budget of tokens.

    Args:
        lengths: tokens of each sequence.
        budget: tokens of a batch, padding included.
        one_length: no padding at all: a batch holds sequences of one length.
    """
    order = np.argsort(lengths, kind="stable")[::-1]
    batches, begin = [], 0
    while begin < len(order):
        longest = int(lengths[order[begin]])
        count = max(1, budget // (max(1, longest) if one_length else padded(longest)))
        if one_length:
            count = min(count, int((lengths[order[begin:]] == longest).sum()))
        batches.append(np.sort(order[begin : begin + count]))
        begin += count
    return batches


def run_batches(
    sequences: Int[np.ndarray, " sequence"],
    lengths: Int[np.ndarray, " sequence"],
    budget: TokenBudget,
    step: Callable[[Int[np.ndarray, " _"]], None],
) -> None:
    """Call `step` with batches of sequences until all are done; a batch that does not fit is split and repeated.

    Args:
        sequences: numbers of the sequences, ascending.
        lengths: tokens of each of them.
        budget: shared by all calls.
        step: does one batch, given as ascending numbers; may be called again with part of a batch that it did not finish.

    Raises:
        InputError: a single sequence does not fit into memory.
    """
    batches = batches_by_length(lengths, budget.tokens, one_length=budget.one_length)
    while batches:
        batch = batches.pop(0)
        failed = False
        try:
            step(sequences[batch])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failed = True  # handled outside of the clause: the exception keeps the tensors of the failed pass alive
        if failed:
            tokens = int(lengths[batch].max()) * len(batch)
            if len(batch) == 1:
                raise InputError(
                    f"a single sequence of {tokens:,} tokens does not fit into the device's memory: use a smaller --window, "
                    "--dtype bfloat16, or --device-map auto to spread the model over several devices."
                )
            budget.halve(tokens)
            rest = np.sort(np.concatenate([batch, *batches]))
            parts = batches_by_length(lengths[rest], budget.tokens, one_length=budget.one_length)
            batches = [rest[part] for part in parts]


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an exception type for it; CPU and MPS allocators only say so."""
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in message or "can't allocate memory" in message


def right_padded(model: LoadedModel, sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask [sequence, position], zeros behind the shorter sequences."""
    longest = max(len(ids) for ids in sequences)
    if model.padded:
        longest = max(longest, min(padded(longest), model.context))
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    model.check_tokens(max(int(sequence.max(initial=0)) for sequence in sequences))
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = torch.from_numpy(np.asarray(sequence, dtype=np.int64))
        mask[i, : len(sequence)] = 1
    return ids, mask


def per_token(values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor | None:
    """Values as [sequence, position, unit] with one vector per token, null where they are something else.

    Args:
        values: some architectures flatten sequences before the MLP; some pad them behind (Longformer): the surplus is cut off.
        shape: sequences and positions of the batch.
    """
    if values.ndim and values.shape[:-1].numel() == shape[0] * shape[1]:
        return values.reshape(*shape, -1)
    if values.ndim == 3 and values.shape[0] == shape[0] and values.shape[1] > shape[1]:
        return values[:, : shape[1]]
    return None


@torch.inference_mode()
def forward(model: LoadedModel, sequences: Sequence[np.ndarray], sites: Sequence[Site], take: Take) -> None:
    """Run right-padded sequences up to the last wanted site.

    Right padding with a mask leaves every real token at its own position, whatever the tokenizer's padding side is, so the other
    sequences of a batch change a value by rounding only.
    """
    ids, mask = right_padded(model, sequences)
    longest = ids.shape[1]

    def take_padded(site: Site, values: torch.Tensor) -> None:
        vectors = per_token(values, ids.shape)
        if vectors is None:
            raise InputError(
                f"site {site.name!r} cannot be read: {site.module_path} gives an array of shape {tuple(values.shape)} for "
                f"{len(sequences)} sequences of {longest} tokens, not one vector per token."
            )
        take(site, vectors)

    with model.evaluating(), reading(model.network, sites, take_padded):
        model.network(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))


def measured(model: LoadedModel, sites: Iterable[Site]) -> tuple[Site, ...]:
    """Sites with their widths, which for modules named by path only a forward pass of two tokens tells."""
    sites = tuple(sites)
    if all(site.width for site in sites):
        return sites
    widths: dict[Site, int] = {}
    forward(
        model, [np.zeros(2, dtype=np.int64)], sites, lambda site, values: widths.__setitem__(site, values.shape[-1])
    )
    if len(widths) < len(sites):
        missing = next(site for site in sites if site not in widths)
        raise InputError(f"site {missing.name!r} cannot be read: {missing.module_path} is not used in a forward pass.")
    return tuple(replace(site, width=widths[site]) for site in sites)
