"""One forward pass for all rows and layers: hooks read the neurons, pooling happens on the device, shards go to the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparse_probing.activations.models import LoadedModel
from sparse_probing.activations.store import ActivationStore, address
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError
from sparse_probing.records import POOLINGS, Pooling, Site

TOKENS_PER_BATCH = {"cpu": 2_048, "cuda": 32_768}
"""A CPU is fastest while a batch's activations fit into its cache; a GPU wants to be full."""
TOKENS_PER_SHARD = 65_536

Progress = Callable[[int], None]
"""Told how many tokens were just finished."""


class _Stop(Exception):
    """Raised by the hook of the last wanted layer: later blocks and the head are not computed."""


@contextmanager
def reading(network: nn.Module, sites: Sequence[Site], take: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Call `take(layer, [sequence, position, unit])` for each site during a forward pass, and stop after the last one."""

    def hook_of(site: Site, *, is_last: bool) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            take(site.layer, arguments[0])
            if is_last:
                raise _Stop

        return hook

    last = max(site.layer for site in sites)
    handles = [
        network.get_submodule(site.module_path).register_forward_pre_hook(hook_of(site, is_last=site.layer == last))
        for site in sites
    ]
    try:
        yield
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()


def batches_by_length(lengths: Int[np.ndarray, " sequence"], budget: int) -> list[Int[np.ndarray, " _"]]:
    """Indices of sequences in batches of similar length; `longest * count` stays below the budget of tokens."""
    order = np.argsort(lengths, kind="stable")[::-1]
    batches, begin = [], 0
    while begin < len(order):
        count = max(1, budget // max(1, int(lengths[order[begin]])))
        batches.append(order[begin : begin + count])
        begin += count
    return batches


@torch.inference_mode()
def forward(
    model: LoadedModel, sequences: Sequence[np.ndarray], sites: Sequence[Site], take: Callable[[int, Tensor], None]
) -> None:
    """Run right-padded sequences up to the last site."""
    longest = max(len(ids) for ids in sequences)
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = torch.from_numpy(np.asarray(sequence, dtype=np.int64))
        mask[i, : len(sequence)] = 1
    with reading(model.network, sites, take):
        model.network(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))


def pool(
    hidden: Float[Tensor, "sequence position unit"],
    index: Int[np.ndarray, " row"],
    first: Int[np.ndarray, " row"],
    last: Int[np.ndarray, " row"],
    pooling: Int[np.ndarray, " row"],
) -> Float[Tensor, "row unit"]:
    """One vector per row, in float32.

    Args:
        hidden: activations of a batch.
        index: sequence of each row within the batch.
        first: first position of each row.
        last: one past the last position of each row.
        pooling: index into `POOLINGS` for each row.
    """
    result = torch.empty((len(index), hidden.shape[-1]), dtype=torch.float32, device=hidden.device)
    for mode in np.unique(pooling):
        rows = np.flatnonzero(pooling == mode)
        match POOLINGS[mode]:
            case Pooling.TOKEN | Pooling.FIRST:
                result[rows] = hidden[index[rows], first[rows]].float()
            case Pooling.LAST:
                result[rows] = hidden[index[rows], last[rows] - 1].float()
            case Pooling.MEAN:
                for row in rows:
                    result[row] = hidden[index[row], first[row] : last[row]].float().mean(dim=0)
            case Pooling.MAX:
                for row in rows:
                    result[row] = hidden[index[row], first[row] : last[row]].float().amax(dim=0)
    return result


def shard_bounds(dataset: FeatureDataset) -> Int[np.ndarray, " shard_bound"]:
    """First sequence of each shard: about `TOKENS_PER_SHARD` tokens each, whole sequences."""
    ends = np.cumsum(dataset.sequence_lengths())
    marks = np.arange(TOKENS_PER_SHARD, ends[-1], TOKENS_PER_SHARD)
    return np.unique(np.concatenate([[0], np.searchsorted(ends, marks) + 1, [dataset.n_sequences]]))


def open_store(model: LoadedModel, dataset: FeatureDataset, layers: Sequence[int], cache: Path) -> ActivationStore:
    """The store for this model, dataset and set of layers; created empty when it is not there."""
    key = address(
        model.fingerprint, model.tokenizer.fingerprint(), dataset.fingerprint(), model.sites[0].name, list(layers)
    )
    row_bounds = np.searchsorted(dataset.row_sequence, shard_bounds(dataset))
    return ActivationStore(cache / "activations" / key, np.diff(row_bounds).tolist(), layers)


def extract(
    model: LoadedModel, dataset: FeatureDataset, layers: Sequence[int], cache: Path, progress: Progress = lambda _: None
) -> ActivationStore:
    """Activations of every row at the MLP neurons of the given layers, from the store where they are already there.

    A killed run continues at the first missing shard. Batches are formed within a shard, so a resumed run computes exactly
    what an uninterrupted one does.

    Args:
        model: from `load_model`.
        dataset: rows whose sequences were tokenized for this model.
        layers: layers wanted; later blocks are not computed.
        cache: folder that holds all stores.
        progress: called with the number of tokens done since the last call.

    Raises:
        InputError: sequences longer than the model's context, activations that are not finite.
        PrerequisiteError: cache not writable or disk full.
    """
    if int(dataset.sequence_lengths().max()) > model.context:
        raise InputError(
            f"sequences of {int(dataset.sequence_lengths().max())} tokens do not fit the model's context of {model.context}: "
            f"use --window {model.context} or less."
        )
    sites = [site for site in model.sites if site.layer in set(layers)]
    store = open_store(model, dataset, layers, cache)
    bounds = shard_bounds(dataset)
    for shard in range(store.n_shards):
        if not store.is_complete(shard):
            rows = np.arange(store.starts[shard], store.starts[shard + 1])
            store.write(shard, _shard(model, dataset, sites, rows))
        progress(int(dataset.sequence_starts[bounds[shard + 1]] - dataset.sequence_starts[bounds[shard]]))
    return store


def _budget(model: LoadedModel) -> int:
    return TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"])


def _shard(
    model: LoadedModel, dataset: FeatureDataset, sites: Sequence[Site], rows: Int[np.ndarray, " row"]
) -> dict[int, Float[np.ndarray, "row unit"]]:
    used = np.unique(dataset.row_sequence[rows])  # sequences without a row need no forward pass
    result = {site.layer: np.empty((len(rows), site.width), dtype=np.float32) for site in sites}
    for batch in batches_by_length(dataset.sequence_lengths()[used], _budget(model)):
        members = np.sort(used[batch])
        here = np.flatnonzero(np.isin(dataset.row_sequence[rows], members))
        chosen = rows[here]
        index = np.searchsorted(members, dataset.row_sequence[chosen])

        def take(layer: int, hidden: Tensor, index=index, chosen=chosen, here=here) -> None:
            pooled = pool(
                hidden, index, dataset.row_first[chosen], dataset.row_last[chosen], dataset.row_pooling[chosen]
            )
            result[layer][here] = pooled.cpu().numpy()

        forward(model, [sequence_tokens(dataset, s) for s in members.tolist()], sites, take)
    return result


def sequence_tokens(dataset: FeatureDataset, sequence: int) -> Int[np.ndarray, " token"]:
    """Token ids of one sequence."""
    return dataset.tokens[dataset.sequence_starts[sequence] : dataset.sequence_starts[sequence + 1]]


def token_activations(
    model: LoadedModel,
    dataset: FeatureDataset,
    wanted: dict[int, set[tuple[int, int]]],
    progress: Progress = lambda _: None,
) -> dict[tuple[int, int, int], Float[np.ndarray, " token"]]:
    """Activation of chosen neurons at every token of chosen sequences.

    Args:
        model: from `load_model`.
        dataset: owns the sequences.
        wanted: sequence -> set of (layer, unit).
        progress: called with the number of sequences done since the last call.

    Returns:
        (sequence, layer, unit) -> one float32 value per token.
    """
    result: dict[tuple[int, int, int], np.ndarray] = {}
    sequences = np.array(sorted(wanted), dtype=int)
    if len(sequences) == 0:
        return result
    layers = {layer for pairs in wanted.values() for layer, _ in pairs}
    sites = [site for site in model.sites if site.layer in layers]
    lengths = dataset.sequence_lengths()
    for batch in batches_by_length(lengths[sequences], _budget(model)):
        members = sequences[batch]

        def take(layer: int, hidden: Tensor, members=members) -> None:
            for i, sequence in enumerate(members):
                for _, unit in (pair for pair in wanted[int(sequence)] if pair[0] == layer):
                    values = hidden[i, : lengths[sequence], unit].float().cpu().numpy()
                    result[int(sequence), layer, unit] = values

        forward(model, [sequence_tokens(dataset, s) for s in members.tolist()], sites, take)
        progress(len(members))
    return result
