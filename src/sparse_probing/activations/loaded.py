"""A model as the other modules see it: with weights, or its outline without."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from sparse_probing.activations.model_text import NO_LIMIT, ModelText
from sparse_probing.activations.sites import ModelSites
from sparse_probing.activations.trace import embeddings
from sparse_probing.activations.wrapped import evaluating, state_of
from sparse_probing.errors import InputError

Objective = Literal["next token", "masked token"]
"""What a language-model head was trained to predict."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelOutline(ModelText):
    """What is known of a model without its weights: enough to build rows and to forecast sizes."""

    network: nn.Module
    """The module tree, on the meta device."""
    sites: ModelSites


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel(ModelOutline):
    """A model in evaluation mode with everything that extraction needs."""

    network: PreTrainedModel  # pyright: ignore[reportIncompatibleVariableOverride]
    """Base model without language-model head: probing reads hidden units only."""
    fingerprint: str
    """Hash of weights, precision and configuration."""
    device: torch.device
    """Where token ids are sent."""
    full: PreTrainedModel | None = None
    """The same network with its language-model head, where that was asked for and the checkpoint has one."""
    objective: Objective | None = None
    """What that head predicts."""
    headless: tuple[str, ...] = ()
    """Weights of the head that are not in the checkpoint, where one was asked for."""
    state: tuple[tuple[int, int], ...] = ()
    """Of a network that others may train on: see `state_of`."""

    padded: bool = True
    """Sequences of different lengths may share a batch; else values depend on padding, and each length is read by itself."""
    remarks: tuple[str, ...] = ()
    """What its check found and a user should know, in sentences."""

    def check_unchanged(self) -> None:
        """Refuse weights that are not those of the fingerprint any more.

        Raises:
            InputError: the network was trained on.
        """
        if self.state and self.state != state_of(self.network):
            raise InputError(
                f"the weights of {self.name!r} changed after wrap_model: wrap the model again, so that activations are kept apart."
            )

    def check_tokens(self, largest: int) -> None:
        """Refuse token ids that the model has no embedding for.

        Args:
            largest: of the ids that are about to be read.

        Raises:
            InputError: it is beyond the embedding.
        """
        table = embeddings(self.network)
        known = len(table.weight) if isinstance(getattr(table, "weight", None), torch.Tensor) else NO_LIMIT
        if largest >= known:
            raise InputError(
                f"the tokenizer of {self.name!r} gives token {largest}, but the model knows {known} tokens only: they do not "
                "belong together."
            )

    def evaluating(self) -> AbstractContextManager[None]:
        """Passes run inside it: see `evaluating`."""
        return evaluating(self.network if self.full is None else self.full)
