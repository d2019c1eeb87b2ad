"""What a run will do, as data: one task per layer and category. Pure: no files, no arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """How a support is chosen, or which control stands in its place."""

    SHRINKING = "shrinking_elastic_net"
    MEAN_DIFFERENCE = "mean_difference"
    SINGLE = "single_neuron"
    """k = 1 by trial: the best-ranked units of each ranking, each fitted and scored."""
    DENSE = "dense"
    """All units of the layer."""
    RANDOM = "random_neurons"
    """Control: units drawn blindly."""
    SHUFFLED = "shuffled_labels"
    """Control: the whole single-neuron search on permuted labels, scored against the true ones."""
    RANDOM_MODEL = "random_weights_model"
    """Control: the whole single-neuron search on the same architecture with untrained weights."""
    TEXT = "text_only"
    """Control: token n-grams, no model."""
    MAJORITY = "majority_class"
    """Control: always the more frequent class of the training rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The unit of work, of resuming and of parallelism."""

    layer: int
    category: str
    features: tuple[int, ...]
    """Indices into the dataset's features."""
    random_model: bool = False
    """Run on the activations of the untrained twin: the single-neuron search only."""

    @property
    def name(self) -> str:
        """Key of the task's random generator and stem of its file."""
        twin = "random-" if self.random_model else ""
        return f"{twin}L{self.layer:03d}-{''.join(c if c.isalnum() else '_' for c in self.category)}"


def plan_tasks(layers: Sequence[int], categories: Sequence[str], *, random_model: bool) -> list[Task]:
    """One task per layer and category, for the model and for its untrained twin.

    Args:
        layers: layers to probe.
        categories: category of each feature, in feature order.
        random_model: also plan the untrained twin.
    """
    names = list(dict.fromkeys(categories))
    members = {name: tuple(i for i, c in enumerate(categories) if c == name) for name in names}
    return [
        Task(layer=layer, category=name, features=members[name], random_model=twin)
        for twin in ([False, True] if random_model else [False])
        for name in names
        for layer in layers
    ]
