"""What a run will do, as data: one task per layer and category. Pure: no files, no arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sparse_probing.files import file_name
from sparse_probing.selection.defaults import SELECTION_RIDGE


class Method(StrEnum):
    """How a support is chosen, or which control stands in its place."""

    EXACT = "exact"
    """The best support, proved; for chosen sizes and layers."""
    GREEDY_SWAP = "greedy_swap"
    SHRINKING = "shrinking_elastic_net"
    L1_PATH = "l1_path"
    ELIMINATION = "recursive_elimination"
    MATCHING_PURSUIT = "orthogonal_matching_pursuit"
    MEAN_DIFFERENCE = "mean_difference"
    MUTUAL_INFORMATION = "mutual_information"
    SINGLE = "single_neuron"
    """k = 1 out of all units: the best of each criterion on training rows, compared on validation."""
    DENSE = "dense"
    """All units of the layer."""
    RANDOM = "random_neurons"
    """Control: units drawn blindly."""
    SHUFFLED = "shuffled_labels"
    """Control: the whole single-neuron search on permuted labels, scored against the true ones."""
    CONTROL_TASK = "control_task"
    """Control: the whole single-neuron search on a label drawn at random for each token type, scored against that label."""
    RANDOM_MODEL = "random_weights_model"
    """Control: the whole single-neuron search on the same architecture with untrained weights."""
    TEXT = "text_only"
    """Control: token n-grams, no model."""
    TOKEN = "token_identity"  # noqa: S105 - a baseline, not a password
    """Control: the class's rate per token, no model."""
    LAST_TOKEN = "last_token"  # noqa: S105 - a baseline, not a password
    """Control: the last token of a pooled row and the character that it ends on, no model."""
    POSITION = "position_and_length"
    """Control: where the row stands and how long it is, no model."""
    MAJORITY = "majority_class"
    """Control: always the more frequent class of the training rows."""


SELECTED = (
    Method.EXACT,
    Method.GREEDY_SWAP,
    Method.SHRINKING,
    Method.L1_PATH,
    Method.ELIMINATION,
    Method.MATCHING_PURSUIT,
    Method.MEAN_DIFFERENCE,
    Method.MUTUAL_INFORMATION,
)
"""Methods that choose a support of size k; a run uses those that it is asked for. Of two equal probes the first one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactPlan:
    """Where supports are proved to be the best, and how hard that is tried."""

    ks: tuple[int, ...]
    layers: tuple[int, ...]
    gap: float
    """Relative distance between objective and bound that counts as proved."""
    nodes: int
    """Bounds to compute for one support, at most about: a limit that does not depend on the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every task of a run needs to know."""

    ks: tuple[int, ...]
    """Sizes to try."""
    methods: tuple[Method, ...]
    permutations: int
    """Permutations of the labels for the null of the best unit; 0 for none."""
    seed: int
    selection_ridge: float = SELECTION_RIDGE
    """While supports are chosen."""
    exact: ExactPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The unit of work, of resuming and of parallelism."""

    layer: int
    category: str
    features: tuple[int, ...]
    """Indices into the dataset's features."""
    random_model: bool = False
    """Run on the activations of the untrained twin: the single-neuron search only."""
    exact: bool = False
    """Only the exact searches, of one feature."""

    @property
    def name(self) -> str:
        """Key of the task's random generator. Categories that differ in punctuation only share it: no file may be named so."""
        return self._named("".join(c if c.isalnum() else "_" for c in self.category))

    @property
    def file(self) -> str:
        """Stem of its file: its own, and short, whatever the category is called."""
        return self._named(file_name(self.category))

    def _named(self, category: str) -> str:
        kind = "random-" if self.random_model else "exact-" if self.exact else ""
        feature = f"-feature{self.features[0]:03d}" if self.exact else ""
        return f"{kind}L{self.layer:03d}-{category}{feature}"


def plan_tasks(
    layers: Sequence[int], categories: Sequence[str], *, random_model: bool, exact_layers: Sequence[int] = ()
) -> list[Task]:
    """One task per layer and category, for the model and for its untrained twin; one per layer and feature for exact searches.

    Args:
        layers: layers to probe.
        categories: category of each feature, in feature order.
        random_model: also plan the untrained twin.
        exact_layers: layers in which supports are proved.
    """
    names = list(dict.fromkeys(categories))
    members = {name: tuple(i for i, c in enumerate(categories) if c == name) for name in names}
    exact = [
        Task(layer=layer, category=name, features=(f,), exact=True)
        for f, name in enumerate(categories)
        for layer in exact_layers
    ]
    return exact + [
        Task(layer=layer, category=name, features=members[name], random_model=twin)
        for twin in ([False, True] if random_model else [False])
        for name in names
        for layer in layers
    ]
