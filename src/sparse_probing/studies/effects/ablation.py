"""What happens to the loss when units are changed: in class, out of class, against placebos.

Effects are changes of the mean loss per token (nats): the sum over the tokens of all rows of a class, divided by their number.
Intervals resample whole documents (percentile bootstrap, paired: every pass is read on the same resamples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.metrics.intervals import REPEATS, percentile_interval

FEWEST_DOCUMENTS = 20
"""With fewer documents in a class or part of the data no interval is given: a bootstrap of so few is too narrow."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowLosses:
    """Summed losses of rows, and how many tokens they come from."""

    total: Float[np.ndarray, "pass row"]
    """Entry 0 of the first axis is the bare model."""
    tokens: Int[np.ndarray, " row"]
    positive: Bool[np.ndarray, " row"]
    group: Int[np.ndarray, " row"]

    @property
    def change(self) -> Float[np.ndarray, "change row"]:
        """Changed minus bare, one entry per intervention."""
        return self.total[1:] - self.total[0]


def row_losses(
    loss: Float[np.ndarray, "pass scored"],
    members: Sequence[Int[np.ndarray, " _"]],
    positive: Bool[np.ndarray, " row"],
    group: Int[np.ndarray, " row"],
) -> RowLosses:
    """Losses at positions to losses of rows, summed in float64."""
    total = np.stack([loss[:, m].sum(axis=1, dtype=np.float64) for m in members], axis=1)
    return RowLosses(total=total, tokens=np.array([len(m) for m in members]), positive=positive, group=group)


class EffectBootstrap:
    """Mean change per token over some rows, as it is and on resampled documents."""

    def __init__(self, rows: RowLosses, rng: np.random.Generator, repeats: int = REPEATS) -> None:
        self._rows = rows
        names, self._member = np.unique(rows.group, return_inverse=True)
        self._times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=repeats).astype(np.float64)

    def documents(self, mask: Bool[np.ndarray, " row"]) -> int:
        """Documents with a scored token among the rows."""
        return len(np.unique(self._member[mask & (self._rows.tokens > 0)]))

    def means(self, mask: Bool[np.ndarray, " row"]) -> tuple[np.ndarray, np.ndarray]:
        """([change], [repeat, change]) of the rows; NaN in resamples that hold none of them."""
        change, tokens = self._rows.change[:, mask], self._rows.tokens[mask].astype(np.float64)
        groups = self._times.shape[1]
        by_group = np.zeros((groups, len(change)))
        np.add.at(by_group, self._member[mask], change.T)
        counts = np.bincount(self._member[mask], weights=tokens, minlength=groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            return change.sum(axis=1) / tokens.sum(), (self._times @ by_group) / (self._times @ counts)[:, None]


def interval(values: Float[np.ndarray, " repeat"], documents: int) -> tuple[float | None, float | None]:
    """95 % percentile interval; null where there are fewer than 20 documents."""
    values = values[np.isfinite(values)]
    return percentile_interval(values) if documents >= FEWEST_DOCUMENTS and len(values) else (None, None)


def effect_row(rows: RowLosses, mine: int, placebos: Sequence[int], rng: np.random.Generator) -> dict[str, Any]:
    """One intervention beside its placebos.

    Args:
        rows: losses; intervention i is `change[i]`.
        mine: the intervention on the units in question.
        placebos: the same on matched random units.
        rng: of the bootstrap.

    Returns:
        Columns of the table `ablations`: effects in and out of class, specificity (in minus out), the placebos', how many of them
        are exceeded, and p: the share of all of them, this one included, whose specificity is as far from their common mean.
    """
    bootstrap = EffectBootstrap(rows, rng)
    here = {"in": rows.positive, "out": ~rows.positive}
    documents = {name: bootstrap.documents(mask) for name, mask in here.items()}
    both = min(documents.values())
    effect, resampled = {}, {}
    for name, mask in here.items():
        effect[name], resampled[name] = bootstrap.means(mask)
    effect["specific"], resampled["specific"] = effect["in"] - effect["out"], resampled["in"] - resampled["out"]
    others = list(placebos)
    row: dict[str, Any] = {
        "loss_in": float(rows.total[0][rows.positive].sum() / rows.tokens[rows.positive].sum()),
        "loss_out": float(rows.total[0][~rows.positive].sum() / rows.tokens[~rows.positive].sum()),
        "documents_in": documents["in"],
        "documents_out": documents["out"],
        "tokens_in": int(rows.tokens[rows.positive].sum()),
        "tokens_out": int(rows.tokens[~rows.positive].sum()),
        "placebos": len(others),
    }
    for name, column, enough in (
        ("in", "effect_in", documents["in"]),
        ("out", "effect_out", documents["out"]),
        ("specific", "specificity", both),
    ):
        low, high = interval(resampled[name][:, mine], enough)
        row |= {column: float(effect[name][mine]), f"{column}_low": low, f"{column}_high": high}
        row[f"placebo_{column}"] = [float(effect[name][i]) for i in others]
    if others:
        centre = float(effect["specific"][others].mean())
        everyone = effect["specific"][[mine, *others]]
        off = np.abs(
            everyone - everyone.mean()
        )  # the unit's own value, too: only then are all of them alike under the null
        as_far = int((off[1:] >= off[0]).sum())
        low, high = interval(resampled["specific"][:, mine] - resampled["specific"][:, others].mean(axis=1), both)
        row |= {
            "over_placebo": float(effect["specific"][mine] - centre),
            "over_placebo_low": low,
            "over_placebo_high": high,
            "exceeded_in": float((effect["in"][others] < effect["in"][mine]).mean()),
            "p": (1 + as_far) / (1 + len(others)),
        }
    return row
