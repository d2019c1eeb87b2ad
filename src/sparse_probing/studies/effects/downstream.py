"""What later probes of the feature read while earlier units are changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.results.verdict import FEW
from sparse_probing.sweep.plan import SELECTED, Method

READABLE = [*(method.value for method in SELECTED), Method.SINGLE.value]


def later_probe(probes: pl.DataFrame, category: str, feature: str, layer: int) -> dict[str, Any] | None:
    """The feature's probe on few units with the best validation score in a later layer; null where no later layer was probed."""
    found = (
        probes.filter(
            pl.col("category") == category,
            pl.col("feature") == feature,
            pl.col("layer") > layer,
            pl.col("split") == "validation",
            pl.col("k") <= FEW,
            pl.col("method").is_in(READABLE),
        )
        .sort("f1", "average_precision", "k", "layer", descending=[True, True, False, False])
        .head(1)
        .to_dicts()
    )
    return found[0] if found else None


def downstream_row(
    read: Float[np.ndarray, "pass row unit"],
    positive: Bool[np.ndarray, " row"],
    probe: dict[str, Any],
    mine: int,
    placebos: Sequence[int],
) -> dict[str, Any]:
    """How the score of a later probe moves, in standard deviations of its bare scores, and what is left of its F1.

    Args:
        read: the probe's units on each row; entry 0 is the bare model, entry i + 1 intervention i.
        positive: class of each row.
        probe: its row of the probe table (coefficients, intercept, threshold).
        mine: the intervention in question.
        placebos: the same on matched random units.
    """
    score = read.astype(np.float64) @ np.array(probe["coefficients"]) + probe["intercept"]
    spread = float(score[0].std()) or 1.0
    shift = (score[1:] - score[0]) / spread
    f1 = [
        metrics_at(Scored(score=row, positive=positive), probe["threshold"])["f1"]
        for row in (score[0], score[1 + mine])
    ]
    others = list(placebos)
    return {
        "probe_layer": probe["layer"],
        "probe_k": probe["k"],
        "shift_in": float(shift[mine][positive].mean()),
        "shift_out": float(shift[mine][~positive].mean()),
        "placebo_shift_in": [float(shift[i][positive].mean()) for i in others],
        "f1_before": float(f1[0]),
        "f1_after": float(f1[1]),
    }
