"""One forward pass for all rows, sites, layers and poolings; shards go to the store while the next batches are computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse_probing.activations.batches import TokenBudget, forward, measured, run_batches
from sparse_probing.activations.forecast import forecast
from sparse_probing.activations.loaded import LoadedModel, ModelOutline
from sparse_probing.activations.model_text import NO_LIMIT
from sparse_probing.activations.pooling import BatchRows
from sparse_probing.activations.shard_buffer import ShardBuffer
from sparse_probing.activations.shards import StoredType, write_shard
from sparse_probing.activations.site_names import choose_sites, parse_site
from sparse_probing.activations.store import (
    Activations,
    ActivationStore,
    LayerArray,
    address,
    cache_folder,
    stores_folder,
    unwritable,
)
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS, Site

TOKENS_PER_SHARD = 65_536
BYTES_PER_SHARD = 256 * 2**20
"""All MLP neurons of a shard in float16. One shard is in memory at a time: it is written while the next one is filled."""
KEPT_IN_MEMORY = 2**30
"""Bytes from which on an extraction leaves the page cache as it goes."""

Progress = Callable[[int], None]
"""Told how many tokens were just finished."""
Notify = Callable[[str], None]
"""Told, in a sentence, what a user may want to know: a damaged shard, an overflow, a smaller batch."""


def find_units(model: ModelOutline, site: str = NEURONS, layers: Sequence[int] | None = None) -> tuple[Site, ...]:
    """The sites that a name stands for.

    Args:
        model: loaded or outlined; only a loaded one can tell the width of a module that is named by its path.
        site: a site's name, a TransformerLens hook name, or a module path; see `parse_site`.
        layers: layers wanted; null for all.

    Raises:
        InputError: no such site or layer (lists what exists).
    """
    sites = choose_sites(parse_site(site, model.sites, model.network), layers, model.sites)
    return measured(model, sites) if isinstance(model, LoadedModel) else sites


def sequence_bounds(
    lengths: Int[np.ndarray, " sequence"], rows: Int[np.ndarray, " sequence"], neurons_per_row: int
) -> Int[np.ndarray, " bound"]:
    """First sequence of each shard, and the end: whole sequences, at most about 65,536 tokens and 256 MiB of neurons.

    Args:
        lengths: tokens of each sequence.
        rows: rows of each sequence.
        neurons_per_row: of all layers.
    """
    share = np.cumsum(np.maximum(lengths / TOKENS_PER_SHARD, rows * neurons_per_row * 2 / BYTES_PER_SHARD))
    marks = np.arange(1, share[-1])
    return np.unique(np.concatenate([[0], np.searchsorted(share, marks) + 1, [len(lengths)]]))


def open_store(model: LoadedModel, dataset: FeatureDataset, cache: Path) -> ActivationStore:
    """The store of this model on this dataset; created empty when it is not there.

    Raises:
        InputError: a wrapped model was trained on meanwhile.
    """
    model.check_unchanged()
    widths = {name: sum(s.width for s in model.sites.found if s.name == name) for name in (NEURONS, "resid.post")}
    rows = np.bincount(dataset.row_sequence, minlength=dataset.n_sequences)
    bounds = sequence_bounds(dataset.sequence_lengths(), rows, widths[NEURONS] or widths["resid.post"])
    return ActivationStore(
        stores_folder(cache) / address(model.fingerprint, model.tokenizer.fingerprint(), dataset.fingerprint()),
        bounds,
        np.searchsorted(dataset.row_sequence, bounds),
        {"model": model.name, "rows": dataset.n_rows, "tokens": len(dataset.tokens)},
    )


def extract(
    model: LoadedModel,
    dataset: FeatureDataset,
    sites: Sequence[Site],
    *,
    dtype: StoredType = "float16",
    cache: Path | None = None,
    tokens_per_batch: int | None = None,
    progress: Progress = lambda _: None,
    notify: Notify = lambda _: None,
) -> dict[str, Activations]:
    """Activations of every row at the given sites, from the store where they are already there.

    A killed run continues at the first missing shard; a damaged shard is named and computed again. Batches are formed within a
    shard, so a resumed run computes exactly what an uninterrupted one does. Several processes may work on one cache: each
    shard appears whole, whoever finishes it first.

    Args:
        model: from `load_model` or `wrap_model`.
        dataset: rows whose sequences were tokenized for this model.
        sites: from `find_units`; several names and layers share one forward pass.
        dtype: type on disk. Where float16 overflows, that shard of that layer is stored as float32 and `notify` is told.
        cache: folder that holds all stores; `$SPROBE_CACHE` or `~/.cache/sparse-probing` when null.
        tokens_per_batch: tokens, padding included, that go through the model at once; halved when memory runs out. Null for
            the device's default.
        progress: called with the number of tokens done since the last call.
        notify: called with remarks.

    Returns:
        One `Activations` per name of a site.

    Raises:
        InputError: sequences longer than the model's context, activations that are not finite.
        PrerequisiteError: cache not writable, or too little room on the disk.
        StaleCacheError: the cache holds these activations in another version's format.
    """
    cache = cache or cache_folder()
    _check_context(model, dataset)
    store = open_store(model, dataset, cache)
    arrays = [store.array(site, dtype) for site in sites]
    plan = forecast(dataset, sites, dtype, cache, bytes_needed=sum(array.bytes_missing() for array in arrays))
    plan.check(cache)
    budget = TokenBudget(model, tokens_per_batch, notify)
    with _Writer(cache, keep=plan.bytes_needed < KEPT_IN_MEMORY) as writer:
        for shard in range(len(store.row_bounds) - 1):
            missing = [array for array in arrays if _must_be_computed(array, shard, notify)]
            first, last = store.sequence_bounds[shard], store.sequence_bounds[shard + 1]
            rest = int(dataset.sequence_starts[last] - dataset.sequence_starts[first])
            if missing:
                rows = np.arange(store.row_bounds[shard], store.row_bounds[shard + 1])
                into = _Shard(shard, missing, len(rows), writer, notify)
                rest -= _compute(into, model, dataset, rows, budget, progress)
            progress(rest)  # stored already, or without a row
    by_name: dict[str, dict[int, LayerArray]] = defaultdict(dict)
    for array in arrays:
        by_name[array.site.name][array.site.layer] = array
    return {name: Activations(layers) for name, layers in by_name.items()}


def _check_context(model: LoadedModel, dataset: FeatureDataset) -> None:
    longest = int(dataset.sequence_lengths().max())
    model.check_tokens(int(dataset.tokens.max()))
    if model.context < NO_LIMIT and longest > model.context:
        raise InputError(
            f"sequences of {longest} tokens do not fit the model's context of {model.context}: use --window {model.context} "
            "or less."
        )


def _must_be_computed(array: LayerArray, shard: int, notify: Notify) -> bool:
    damage = array.damage(shard)
    if damage:
        notify(f"{damage} It is computed again.")
    return damage is not None or not array.path(shard).exists()


class _Writer:
    """Writes full buffers in the background; the memory of each serves the same site's next shard."""

    def __init__(self, cache: Path, *, keep: bool) -> None:
        self._cache = cache
        self._keep = keep
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: dict[Site, Future[Tensor]] = {}

    def memory_of(self, site: Site) -> Tensor | None:
        """Memory of the site's last buffer, once it is on disk; null for the first."""
        return self._pending.pop(site).result() if site in self._pending else None

    def submit(self, array: LayerArray, shard: int, buffer: ShardBuffer) -> None:
        self._pending[array.site] = self._pool.submit(self._write, array, shard, buffer)

    def _write(self, array: LayerArray, shard: int, buffer: ShardBuffer) -> Tensor:
        try:
            array.folder.mkdir(parents=True, exist_ok=True)
            width = array.site.width
            write_shard(array.path(shard), buffer.tensors(), rows=buffer.rows, width=width, keep=self._keep)
        except OSError as error:
            raise unwritable(self._cache, error) from None
        return buffer.release()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for future in self._pending.values():
                if kind is None:
                    future.result()
        finally:
            self._pool.shutdown()


class _Shard:
    """A shard while it is computed: one buffer per site, made at its first values and handed over as soon as it is full."""

    def __init__(self, number: int, arrays: Sequence[LayerArray], rows: int, writer: _Writer, notify: Notify) -> None:
        self.number, self.rows, self._writer, self._notify = number, rows, writer, notify
        self.waiting = {array.site: array for array in arrays}
        self._buffers: dict[Site, ShardBuffer] = {}
        self.sites = list(self.waiting)

    def put(self, site: Site, here: Int[np.ndarray, " row"], values: Float[Tensor, "row unit"]) -> None:
        """Values of some rows; those of a batch that is repeated for lack of memory may come twice."""
        if site not in self.waiting:
            return
        if site not in self._buffers:
            memory = self._writer.memory_of(site)
            self._buffers[site] = ShardBuffer(site, self.rows, self.waiting[site].dtype, memory)
        buffer = self._buffers[site]
        buffer.put(here, values)
        if buffer.full:
            if buffer.overflow:
                self._notify(buffer.overflow)
            self._writer.submit(self.waiting.pop(site), self.number, self._buffers.pop(site))


def _compute(
    shard: _Shard,
    model: LoadedModel,
    dataset: FeatureDataset,
    rows: Int[np.ndarray, " row"],
    budget: TokenBudget,
    progress: Progress,
) -> int:
    """Fill a shard; returns the number of tokens that went through the model."""
    row_sequence = dataset.row_sequence[rows]
    used = np.unique(row_sequence)  # sequences without a row need no forward pass
    lengths = dataset.sequence_lengths()[used]

    def step(members: Int[np.ndarray, " sequence"]) -> None:
        here = np.flatnonzero(np.isin(row_sequence, members))
        chosen = rows[here]
        plan = BatchRows(
            np.searchsorted(members, row_sequence[here]),
            dataset.row_first[chosen],
            dataset.row_last[chosen],
            dataset.row_pooling[chosen],
        )
        forward(
            model,
            [sequence_tokens(dataset, s) for s in members.tolist()],
            shard.sites,
            lambda site, hidden: shard.put(site, here, plan.pool(hidden)),
        )
        progress(int(lengths[np.searchsorted(used, members)].sum()))

    run_batches(used, lengths, budget, step)
    for site in shard.sites:  # a stretch of text without rows
        shard.put(site, np.array([], dtype=int), torch.empty((0, site.width)))
    return int(lengths.sum())


def sequence_tokens(dataset: FeatureDataset, sequence: int) -> Int[np.ndarray, " token"]:
    """Token ids of one sequence."""
    return dataset.tokens[dataset.sequence_starts[sequence] : dataset.sequence_starts[sequence + 1]]


def token_activations(
    model: LoadedModel,
    dataset: FeatureDataset,
    sites: Sequence[Site],
    wanted: dict[int, set[tuple[int, int]]],
    progress: Progress = lambda _: None,
) -> dict[tuple[int, int, int], Float[np.ndarray, " token"]]:
    """Activation of chosen units at every token of chosen sequences.

    Args:
        model: from `load_model`.
        dataset: owns the sequences.
        sites: where the units live, one per layer.
        wanted: sequence -> set of (layer, unit).
        progress: called with the number of sequences done since the last call.

    Returns:
        (sequence, layer, unit) -> one float32 value per token.
    """
    result: dict[tuple[int, int, int], np.ndarray] = {}
    layers = {layer for pairs in wanted.values() for layer, _ in pairs}
    read = [site for site in sites if site.layer in layers]
    lengths = dataset.sequence_lengths()
    sequences = np.array(sorted(wanted), dtype=int)

    def step(members: Int[np.ndarray, " sequence"]) -> None:
        def take(site: Site, hidden: Tensor) -> None:
            for i, sequence in enumerate(members.tolist()):
                for _, unit in (pair for pair in wanted[sequence] if pair[0] == site.layer):
                    result[sequence, site.layer, unit] = hidden[i, : lengths[sequence], unit].float().cpu().numpy()

        forward(model, [sequence_tokens(dataset, s) for s in members.tolist()], read, take)
        progress(len(members))

    run_batches(sequences, lengths[sequences], TokenBudget(model), step)
    return result
