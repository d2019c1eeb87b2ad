"""Passes over one batch that share what lies below the changed layer: the blocks below give back what they gave before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparse_probing.activations.batches import is_out_of_memory, right_padded
from sparse_probing.activations.interventions import Intervention, intervening
from sparse_probing.activations.loaded import LoadedModel

CHUNK = 1_024
"""Positions whose logits are in float32 at once: vocabularies are wide."""
NOWHERE = -1
"""Target of a position whose prediction is not scored."""


class Replay:
    """One batch of sequences: a bare pass that remembers, then passes with changed units that start at the changed layer.

    A pass that changes layer L computes the blocks from L on and the head; what the blocks below gave in the bare pass is given
    again. `check` compares such a pass without change with the bare one: a network that does not repeat itself exactly (blocks
    that change their input in place, or share state) gets full passes instead.
    """

    def __init__(self, model: LoadedModel, layers: Sequence[int], trusted: dict[int, bool]) -> None:
        """Prepare passes.

        Args:
            model: with head.
            layers: lowest changed layer of each pass to come.
            trusted: layer -> whether replays of it repeat the bare pass; shared by the batches of one analysis, filled here.
        """
        assert model.full is not None
        self._model, self._full = model, model.full
        self._blocks = [model.network.get_submodule(path) for path in model.sites.blocks]
        self._layers, self._trusted = sorted(set(layers)), trusted
        self._given: dict[int, Any] = {}

    @torch.inference_mode()
    def record(
        self, sequences: Sequence[np.ndarray], targets: Sequence[Int[np.ndarray, " _"]], numbers: Sequence[int]
    ) -> Float[Tensor, " scored"]:
        """The bare pass.

        Args:
            sequences: token ids.
            targets: for each position the token to be predicted there, or `NOWHERE`.
            numbers: identity of each sequence; seeds what is drawn for it.

        Returns:
            Loss (nats) at each scored position, sequence after sequence.
        """
        ids, mask = right_padded(self._model, sequences)
        wanted = np.full(ids.shape, NOWHERE, dtype=np.int64)
        for i, target in enumerate(targets):
            wanted[i, : len(target)] = target
        device = self._model.device
        self._inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        self._scored = torch.from_numpy(wanted != NOWHERE).to(device)
        self._target = torch.from_numpy(wanted[wanted != NOWHERE]).to(device)
        self._numbers = np.asarray(numbers)

        def keep(block: int) -> Any:
            return lambda _module, _inputs, outputs: self._given.__setitem__(block, outputs)

        with ExitStack() as stack:
            for layer in self._layers:
                if 0 < layer <= len(self._blocks):
                    stack.callback(self._blocks[layer - 1].register_forward_hook(keep(layer - 1)).remove)
            bare = self._losses()
        self._bare = bare
        return bare

    @torch.inference_mode()
    def check(self) -> None:
        """Find out, for each layer that no batch has tried yet, whether its replays repeat the bare pass."""
        for layer in self._layers:
            if layer not in self._trusted:
                self._trusted[layer] = layer == 0 or (bool(self._blocks) and self._repeats(layer))

    def _repeats(self, layer: int) -> bool:
        inputs = self._inputs
        try:
            self._inputs = inputs | {"input_ids": inputs["input_ids"].roll(1)}
            self._losses()  # state that blocks share is now that of another pass, as after a changed one
        finally:
            self._inputs = inputs
        try:
            with self._below(layer):
                return bool(torch.equal(self._losses(), self._bare))
        except Exception as error:  # a block misses what a block below would have left for it
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            return False

    @torch.inference_mode()
    def changed(
        self, interventions: Sequence[Intervention], where: Sequence[np.ndarray] | None = None
    ) -> Float[Tensor, " scored"]:
        """Losses at the same positions with changed units.

        Args:
            interventions: of one or several layers; the lowest is one of those named at the start.
            where: per sequence, one boolean per position: change units only there; null for everywhere.
        """
        places = None
        if where is not None:
            spread = np.zeros(self._scored.shape, dtype=bool)
            for i, flags in enumerate(where):
                spread[i, : len(flags)] = flags
            places = torch.from_numpy(spread).to(self._model.device)
        lowest = min(intervention.site.layer for intervention in interventions)
        shared = lowest if self._trusted.get(lowest) else 0
        with self._below(shared), intervening(self._model.network, interventions, self._numbers, places):
            return self._losses()

    @contextmanager
    def _below(self, layer: int) -> Iterator[None]:
        """Blocks below `layer` are not computed; the last of them gives what it gave in the bare pass."""
        if layer == 0:
            yield
            return
        given = self._given[layer - 1]
        replaced = [(block, block.__dict__.get("forward")) for block in self._blocks[:layer]]
        try:
            for block, _ in replaced:
                block.forward = lambda *_arguments, **_named: given
            yield
        finally:
            for block, before in replaced:
                if before is None:
                    del block.forward
                else:
                    block.forward = before  # accelerate puts a forward of its own on the instance

    def _losses(self) -> Float[Tensor, " scored"]:
        """One pass; logits are made for scored positions only, where the head is a module of its own."""
        scored = self._scored
        head: Any = self._full.get_output_embeddings()

        def chosen(_module: nn.Module, arguments: tuple[Any, ...]) -> Any:
            hidden = arguments[0]
            return (hidden[scored.to(hidden.device)], *arguments[1:]) if hidden.shape[:-1] == scored.shape else None

        handle = head.register_forward_pre_hook(chosen)
        try:
            with self._model.evaluating():
                logits = self._full(**self._inputs).logits
        finally:
            handle.remove()
        if logits.shape[:-1] == scored.shape:
            logits = logits[scored.to(logits.device)]
        target = self._target.to(logits.device)
        return torch.cat(
            [
                nn.functional.cross_entropy(part.float(), wanted, reduction="none")
                for part, wanted in zip(logits.split(CHUNK), target.split(CHUNK), strict=True)
            ]
        )
