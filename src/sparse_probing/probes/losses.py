"""The losses that a probe can minimise: value, slope and curvature at the linear predictor, and the conjugate for bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import entr, expit

Values = Float[np.ndarray, "*problem row"]


@dataclass(frozen=True, slots=True)
class Loss:
    """A convex loss `l(eta, target)`, each part elementwise. Class targets are 0 and 1."""

    name: str
    value: Callable[[Values, Values], Values]
    slope: Callable[[Values, Values], Values]
    """First derivative in eta."""
    curvature: Callable[[Values, Values], Values]
    """Second derivative in eta (for the squared hinge, the one of the active side)."""
    intercept_of_pull: Callable[[Values, Values], Values]
    """`min over eta of l(eta, target) + pull * eta`, that is `-l*(-pull)`: where the line of slope -pull that touches the loss from
    below crosses eta = 0. `pull` is minus a slope; -inf where no line of that slope lies below the loss."""
    classes: bool = True
    """Whether targets are classes."""


def _logistic_value(eta: Values, target: Values) -> Values:
    margin = (2.0 * target - 1.0) * eta
    return np.maximum(-margin, 0.0) + np.log1p(np.exp(-np.abs(margin)))


def _logistic_curvature(eta: Values, target: Values) -> Values:  # noqa: ARG001 - one signature for all losses
    chance = expit(eta)
    return chance * (1.0 - chance)


def _shortfall(eta: Values, target: Values) -> Values:
    return np.maximum(1.0 - (2.0 * target - 1.0) * eta, 0.0)


def _entropy(pull: Values, target: Values) -> Values:
    share = (2.0 * target - 1.0) * pull  # of the whole pull that a row can have
    return np.where((share >= 0) & (share <= 1), entr(np.clip(share, 0, 1)) + entr(np.clip(1.0 - share, 0, 1)), -np.inf)


def _hinge_intercept(pull: Values, target: Values) -> Values:
    share = (2.0 * target - 1.0) * pull
    return np.where(share >= 0, share - 0.25 * share**2, -np.inf)


LOGISTIC = Loss(
    "logistic",
    _logistic_value,
    lambda eta, target: expit(eta) - target,
    _logistic_curvature,
    _entropy,
)
"""`log(1 + exp(-s eta))` with s = 2 target - 1, in nats."""

SQUARED_HINGE = Loss(
    "squared_hinge",
    lambda eta, target: _shortfall(eta, target) ** 2,
    lambda eta, target: -2.0 * (2.0 * target - 1.0) * _shortfall(eta, target),
    lambda eta, target: 2.0 * (_shortfall(eta, target) > 0),
    _hinge_intercept,
)
"""`max(0, 1 - s eta)^2`: the linear support vector machine of scikit-learn's `LinearSVC`."""

SQUARED_ERROR = Loss(
    "squared_error",
    lambda eta, target: 0.5 * (eta - target) ** 2,
    lambda eta, target: eta - target,
    lambda eta, target: np.ones_like(eta),  # noqa: ARG005 - one signature
    lambda pull, target: pull * target - 0.5 * pull**2,
    classes=False,
)
"""`(eta - target)^2 / 2`: ridge regression for continuous targets."""

LOSSES = {loss.name: loss for loss in (LOGISTIC, SQUARED_HINGE, SQUARED_ERROR)}
