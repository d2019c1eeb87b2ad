"""From checked rows to fitted probes: one selection for all sizes, then the refit of each support in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight

from sparse_probing.errors import InputError
from sparse_probing.probes.losses import Loss
from sparse_probing.probes.multinomial import fit_multinomial
from sparse_probing.probes.newton import fit_one
from sparse_probing.probes.weights import row_weights
from sparse_probing.selection.exact import Limits
from sparse_probing.selection.methods import EXACT_NODES, bounded_selections
from sparse_probing.selection.multiclass import select_multiclass
from sparse_probing.selection.problem import Problem, standardise
from sparse_probing.selection.supports import Selection, Supports


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """Rows, columns that may be chosen, and what the probe shall tell."""

    x: Float[np.ndarray, "row column"]
    usable: Int[np.ndarray, " usable"]
    """Columns without NaN and infinity."""
    target: Int[np.ndarray, " row"] | Float[np.ndarray, " row"]
    """Numbers of classes, from 0; or a continuous target of mean 0 and deviation 1."""
    weights: Float[np.ndarray, " row"]
    """Of the loss; sum to 1."""
    spread: Float[np.ndarray, " row"]
    """Weights of the mean and deviation of the columns: class weights play no part in them."""
    loss: Loss | None
    """None: multinomial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to choose and to fit."""

    method: str
    ridge: float
    selection_ridge: float
    seed: int
    limits: Limits = field(default_factory=lambda: Limits(nodes=EXACT_NODES))
    """Of method `exact`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedProbe:
    """A probe in the units of the matrix that was given."""

    support: Int[np.ndarray, " k"]
    coefficients: Float[np.ndarray, "output k"]
    intercepts: Float[np.ndarray, " output"]
    objective: float
    gradient_norm: float
    iterations: int
    separable: bool
    """No training row is on the wrong side."""
    selection: Selection | None
    """The choice at the selection's ridge, and its bound; null for more than two classes, and where all columns are constant."""

    def wide(self, width: int) -> Float[np.ndarray, "output column"]:
        """Coefficients of all columns: 0 outside the support."""
        coefficients = np.zeros((len(self.coefficients), width))
        coefficients[:, self.support] = self.coefficients
        return coefficients


def fit_probes(task: Task, ks: Sequence[int], settings: Settings) -> tuple[dict[int, FittedProbe], int]:
    """Probes of every size, and the number of constant columns.

    Selection works on a standardised float32 copy of the matrix; nothing else is as large.
    """
    supports, selections, n_constant = _supports(task, ks, settings)
    probes = {k: _refit(task, support, settings.ridge, selections.get(k)) for k, support in supports.items()}
    return probes, n_constant


def _supports(task: Task, ks: Sequence[int], settings: Settings) -> tuple[Supports, dict[int, Selection], int]:
    """Constant columns come only where k leaves no other choice, those of lowest index first."""
    x = task.x if len(task.usable) == task.x.shape[1] else task.x[:, task.usable]
    z, _, _ = standardise(x, task.spread)
    varies = z.any(axis=0)
    columns, spare = task.usable[varies], task.usable[~varies]
    if len(spare):
        z = z[:, varies]
    sizes = sorted({min(k, len(columns)) for k in ks} - {0})
    found: Supports = {0: np.array([], dtype=int)}
    chosen: dict[int, Selection] = {}
    if sizes:
        rng = np.random.default_rng(settings.seed)
        ridge, target, weights = settings.selection_ridge, task.target, task.weights
        if task.loss is None:
            found |= select_multiclass(z, target, weights, ridge, settings.method, sizes, rng)
        else:
            problem = Problem(z=z, target=target.astype(np.float64), weights=weights, loss=task.loss, ridge=ridge)
            chosen = bounded_selections(problem, settings.method, sizes, rng, settings.limits)
            found |= {k: selection.support for k, selection in chosen.items()}
    supports: Supports = {}
    for k in ks:
        size = min(k, len(columns))
        supports[k] = np.sort(np.concatenate([columns[found[size]], spare[: k - size]]))
    selections = {k: chosen[min(k, len(columns))] for k in ks if min(k, len(columns)) in chosen}
    return supports, selections, len(spare)


def _refit(task: Task, support: Int[np.ndarray, " k"], ridge: float, selection: Selection | None) -> FittedProbe:
    x = task.x[:, support].astype(np.float64)
    rounded, mean, scale = standardise(x, task.spread)
    z = np.where(rounded.any(axis=0), (x - mean) / scale, 0.0)  # in float64: float32 is for the search only
    if task.loss is None:
        fit = fit_multinomial(z, task.target, task.weights, ridge)
        beta, intercepts = fit.coefficients, fit.intercepts
        eta = z @ beta.T + intercepts
        own = eta[np.arange(len(eta)), task.target]
        eta[np.arange(len(eta)), task.target] = -np.inf
        separable = bool((own > eta.max(axis=1)).all())
    else:
        target = task.target.astype(np.float64)
        fit = fit_one(z, target, task.weights, ridge, task.loss)
        beta, intercepts = fit.coefficients[None], np.array([fit.intercept])
        side = (2.0 * target - 1.0) * (z @ fit.coefficients + fit.intercept)
        separable = task.loss.classes and bool((side > 0).all())
    coefficients = beta / scale
    return FittedProbe(
        support=support,
        coefficients=coefficients,
        intercepts=intercepts - coefficients @ mean,
        objective=fit.objective,
        gradient_norm=fit.gradient_norm,
        iterations=fit.iterations,
        separable=separable,
        selection=selection,
    )


def class_row_weights(
    codes: Int[np.ndarray, " row"], classes: np.ndarray, weight: Float[np.ndarray, " row"], class_weight: Any
) -> Float[np.ndarray, " row"]:
    """Weights that sum to 1: sample weight times class weight.

    Args:
        codes: number of each row's class.
        classes: their labels.
        weight: sample weights, positive.
        class_weight: `balanced` (all classes weigh the same), None (each row as it came), or label -> factor.

    Raises:
        InputError: another class weight.
    """
    if isinstance(class_weight, dict):
        factor = compute_class_weight(class_weight, classes=classes, y=classes[codes])
        return row_weights(codes.astype(np.float64), weight * factor[codes], balance_classes=False)
    if class_weight not in ("balanced", None):
        raise InputError(
            f"class_weight = {class_weight!r} is not possible: it is 'balanced', None, or a dict from label to factor."
        )
    return row_weights(codes.astype(np.float64), weight, balance_classes=class_weight == "balanced")


def seed_of(random_state: Any) -> int:
    """A seed from what scikit-learn calls a random state: an integer, None, or a generator, which moves on."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
