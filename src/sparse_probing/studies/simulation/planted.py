"""Synthetic activations in which the units that carry a feature are known: the ground truth for selectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.errors import InputError

Activation = Literal["gaussian", "gelu"]

FEWEST_ROWS = 20
FEWEST_OF_A_CLASS = 5
MOST_VALUES = 250_000_000
"""Rows times units or features: 1 GB per float32 array, of which a worker holds a few."""
STAND_IN = 0.9
"""A distractor with at least this correlation to a planted unit may stand in for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What to plant. Checked when made.

    Raises:
        InputError: a number outside its range, or more planted units and distractors than units.
    """

    rows: int = 1_000
    units: int = 512
    k: int = 5
    """Units that carry a feature."""
    shift: float = 0.5
    """How far a planted unit moves in class, in standard deviations of a unit; up or down, at random for each unit."""
    positive_share: float = 0.2
    """Share of the rows in class."""
    label_noise: float = 0.0
    """Share of the labels of each class that are flipped after planting."""
    correlated: int = 2
    """Distractors per planted unit: they follow it, and know nothing else about the feature."""
    correlation: float = 0.9
    """Of a distractor with its planted unit among rows of equal labels, before the activation function."""
    features: int = 1
    """Features that share the units; each row has any of them, independently."""
    activation: Activation = "gaussian"
    """`gelu`: quick-GELU of the Gaussian value, as in the paper's synthetic study."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rows < FEWEST_ROWS:
            raise InputError(f"{self.rows} rows are too few: give at least {FEWEST_ROWS}.")
        for name in ("units", "k", "features"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.k > self.units:
            raise InputError(
                f"k = {self.k} units cannot be planted among {self.units}: k goes from 1 to the number of units."
            )
        for name in ("correlated", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}.")
        if not 0 <= self.shift < np.inf:
            raise InputError(f"shift must be 0 or more standard deviations, got {self.shift}.")
        if not 0 < self.positive_share < 1:
            raise InputError(f"positive share must lie between 0 and 1, both excluded, got {self.positive_share}.")
        if not 0 <= self.label_noise < 0.5:
            raise InputError(
                f"label noise must be at least 0 and below 0.5, where labels say nothing, got {self.label_noise}."
            )
        if not 0 <= self.correlation <= 1:
            raise InputError(f"correlation must lie between 0 and 1, got {self.correlation}.")
        if self.activation not in get_args(Activation):
            raise InputError(f"there is no activation {self.activation!r}: choose gaussian or gelu.")
        if self.k > self.carriers:
            raise InputError(
                f"{self.k} planted units with {self.correlated} distractors each need {self.k * (1 + self.correlated)} units, "
                f"there are {self.units}: give more units or fewer distractors."
            )
        positives = class_sizes(self)[1]
        if min(positives, self.rows - positives) < FEWEST_OF_A_CLASS:
            raise InputError(
                f"{self.rows} rows with a positive share of {self.positive_share} leave fewer than {FEWEST_OF_A_CLASS} of a class: "
                "give more rows, or a share nearer to 0.5."
            )
        if self.rows * max(self.units, self.features) > MOST_VALUES:
            raise InputError(
                f"{self.rows:,} rows of {max(self.units, self.features):,} units or features are too many for one piece of memory: "
                f"their product may be {MOST_VALUES:,} at most."
            )

    @property
    def carriers(self) -> int:
        """Units that may carry features: enough others are left to give each of them its distractors."""
        return self.units // (1 + self.correlated)


def class_sizes(options: Planted) -> tuple[int, int]:
    """Rows out of class and in class, before label noise."""
    positives = round(options.positive_share * options.rows)
    return options.rows - positives, positives


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wiring:
    """Which units carry which feature, and which follow them."""

    supports: Int[np.ndarray, "feature k"]
    """Planted units, ascending."""
    signs: Float[np.ndarray, "feature k"]
    """+1: the unit goes up in class, -1: down."""
    leader: Int[np.ndarray, " unit"]
    """The planted unit that a distractor follows, -1 for units that follow none."""


def wire(options: Planted, rng: np.random.Generator) -> Wiring:
    """Draw supports, signs and distractors.

    Each feature takes k of the carriers at random, so a unit serves `features * k / carriers` of them on average: many features
    share few units. Every planted unit has its own distractors.
    """
    order = rng.permutation(options.units)
    carriers, others = order[: options.carriers], order[options.carriers :]
    chosen = [np.sort(rng.choice(carriers, size=options.k, replace=False)) for _ in range(options.features)]
    supports = np.stack(chosen)
    signs = rng.choice(np.array([-1.0, 1.0]), size=supports.shape)
    planted = np.unique(supports)
    leader = np.full(options.units, -1)
    leader[others[: len(planted) * options.correlated]] = np.repeat(planted, options.correlated)
    return Wiring(supports=supports, signs=signs, leader=leader)


def activate(
    wiring: Wiring, options: Planted, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "row unit"], Bool[np.ndarray, "row feature"]]:
    """Draw rows: float32 activations, and the labels that a probe gets to see.

    `h_u = e_u + shift * sum_f sign_fu * y_f` for units in supports of f, `h_d = r * h_u + sqrt(1 - r^2) * e_d` for the distractors
    of u, e standard normal. Exactly `round(share * rows)` rows are in class; label noise flips a fixed share of each class.
    """
    negatives, positives = class_sizes(options)
    place = np.argsort(rng.random((options.rows, options.features)), axis=0).argsort(axis=0)
    truth = place < positives
    flipped = np.where(truth, place, place - positives) < np.where(
        truth, round(options.label_noise * positives), round(options.label_noise * negatives)
    )
    x = rng.standard_normal((options.rows, options.units), dtype=np.float32)
    for feature, (support, sign) in enumerate(zip(wiring.supports, wiring.signs, strict=True)):
        x[:, support] += truth[:, feature, None] * (options.shift * sign).astype(np.float32)
    followers = np.flatnonzero(wiring.leader >= 0)
    r = options.correlation
    x[:, followers] *= np.float32(np.sqrt(1.0 - r * r))
    x[:, followers] += np.float32(r) * x[:, wiring.leader[followers]]
    if options.activation == "gelu":
        x /= 1.0 + np.exp(-1.702 * x)
    return x, truth ^ flipped


def plant(
    options: Planted, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "row unit"], Bool[np.ndarray, "row feature"], Int[np.ndarray, "feature k"]]:
    """Activations (float32), labels, and the units that carry each feature."""
    wiring = wire(options, rng)
    x, positive = activate(wiring, options, rng)
    return x, positive, wiring.supports
