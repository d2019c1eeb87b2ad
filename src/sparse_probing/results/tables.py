"""Schemas of the tables in a run folder. One row per measurement; missing is null."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from sparse_probing.metrics.regression import NUMBER_METRICS
from sparse_probing.metrics.scores import METRICS

_SCORES = dict.fromkeys(METRICS, pl.Float64)
_INTERVALS = {f"{name}_{end}": pl.Float64 for name in METRICS for end in ("low", "high")}

PROBES: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "layer": pl.Int32,
    "method": pl.String,
    "k": pl.Int32,
    "split": pl.String,
    "role": pl.String,
    "n_positive": pl.Int32,
    "n_negative": pl.Int32,
    **_SCORES,
    **_INTERVALS,
    "threshold": pl.Float64,
    "ridge": pl.Float64,
    "objective": pl.Float64,
    "columns": pl.List(pl.Int32),
    "coefficients": pl.List(pl.Float64),
    "intercept": pl.Float64,
    "selection_objective": pl.Float64,
    "lower_bound": pl.Float64,
    "gap": pl.Float64,
    "status": pl.String,
    "certificate": pl.String,
}
"""Fitted probes, one row per probe and split. Test rows exist only for chosen probes, one per role. Where a support was selected:
its objective while it was chosen (`ridge` and `objective` belong to the refit), what no support of its size in that layer can go
below, the relative gap between them, how the search ended, and the file of the certificate."""

NEURONS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "layer": pl.Int32,
    "unit": pl.Int32,
    "mean_difference": pl.Float64,
    "correlation": pl.Float64,
    "welch_t": pl.Float64,
    "anova_f": pl.Float64,
    "mutual_information": pl.Float64,
    "roc_auc": pl.Float64,
    "average_precision": pl.Float64,
    "best_f1": pl.Float64,
    "objective": pl.Float64,
    "p_family": pl.Float64,
    "best_share": pl.Float64,
    "mean_in_class": pl.Float64,
    "mean_out_of_class": pl.Float64,
}
"""Best-ranked units per feature and layer, statistics of the training rows. `objective` (one-unit logistic probe) is given for the
ten smallest of the layer, `best_share` (share of document resamples in which the unit comes out best) for finalists."""

BASELINES: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "baseline": pl.String,
    "layer": pl.Int32,
    "k": pl.Int32,
    **_SCORES,
    **_INTERVALS,
}
"""Test scores of baselines and controls, one row per feature and baseline; layer and k are null where no unit is read."""

DIFFERENCES: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "metric": pl.String,
    "first": pl.String,
    "second": pl.String,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
}
"""Score of the first minus score of the second on test, paired bootstrap over documents; roles and baselines by name."""

FINDINGS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "neuron": pl.String,
    "layer": pl.Int32,
    "unit": pl.Int32,
    "fires": pl.String,
    "f1": pl.Float64,
    "f1_low": pl.Float64,
    "f1_high": pl.Float64,
    "average_precision": pl.Float64,
    "validation_f1": pl.Float64,
    "correlation": pl.Float64,
    "p": pl.Float64,
    "p_family": pl.Float64,
    "q": pl.Float64,
    "stability": pl.Float64,
    "stand_ins": pl.List(pl.String),
    "k_enough": pl.Int32,
    "k_enough_layer": pl.Int32,
    "k_enough_method": pl.String,
    "k_enough_f1": pl.Float64,
    "dense_f1": pl.Float64,
    "dense_layer": pl.Int32,
    "best_baseline": pl.String,
    "best_baseline_f1": pl.Float64,
    "over_baseline": pl.Float64,
    "over_baseline_low": pl.Float64,
    "over_baseline_high": pl.Float64,
    "text_f1": pl.Float64,
    "selectivity": pl.Float64,
    "n_test_positive": pl.Int32,
    "n_test_negative": pl.Int32,
    "verdict": pl.String,
    "explanation": pl.String,
}
"""One row per feature: the headline table."""

EXAMPLES: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "neuron": pl.String,
    "kind": pl.String,
    "rank": pl.Int32,
    "document": pl.String,
    "positive": pl.Boolean,
    "row_activation": pl.Float64,
    "tokens": pl.List(pl.String),
    "activations": pl.List(pl.Float64),
    "first": pl.Int32,
    "last": pl.Int32,
}
"""Text examples for each feature's best neuron: pieces of text, one activation per piece; `[first, last)` are the row's tokens."""

HISTOGRAMS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "neuron": pl.String,
    "bin_low": pl.Float64,
    "bin_high": pl.Float64,
    "in_class": pl.Int64,
    "out_of_class": pl.Int64,
}
"""Activation of each feature's best neuron: rows per bin, all splits."""


NUMBERS: dict[str, Any] = {
    "category": pl.String,
    "number": pl.String,
    "layer": pl.Int32,
    "method": pl.String,
    "k": pl.Int32,
    "split": pl.String,
    "role": pl.String,
    "n_rows": pl.Int32,
    **dict.fromkeys(NUMBER_METRICS, pl.Float64),
    **{f"{name}_{end}": pl.Float64 for name in NUMBER_METRICS for end in ("low", "high")},
    "ridge": pl.Float64,
    "gap": pl.Float64,
    "columns": pl.List(pl.Int32),
    "coefficients": pl.List(pl.Float64),
    "intercept": pl.Float64,
}
"""Regression probes and baselines, one row per split. Test rows exist only for chosen probes (one per role) and for baselines;
layer and k are null where no unit is read. `gap`: by which share of the objective another choice of k units could be better."""

NUMBER_FINDINGS: dict[str, Any] = {
    "category": pl.String,
    "number": pl.String,
    "neuron": pl.String,
    "layer": pl.Int32,
    "unit": pl.Int32,
    "sign": pl.Int32,
    "r2": pl.Float64,
    "r2_low": pl.Float64,
    "r2_high": pl.Float64,
    "pearson": pl.Float64,
    "spearman": pl.Float64,
    "spearman_low": pl.Float64,
    "spearman_high": pl.Float64,
    "mae": pl.Float64,
    "validation_r2": pl.Float64,
    "correlation": pl.Float64,
    "p": pl.Float64,
    "p_family": pl.Float64,
    "k_enough": pl.Int32,
    "k_enough_layer": pl.Int32,
    "k_enough_r2": pl.Float64,
    "dense_r2": pl.Float64,
    "dense_r2_low": pl.Float64,
    "dense_r2_high": pl.Float64,
    "dense_mae": pl.Float64,
    "dense_layer": pl.Int32,
    "untrained_dense_r2": pl.Float64,
    "best_baseline": pl.String,
    "best_baseline_r2": pl.Float64,
    "over_baseline": pl.Float64,
    "over_baseline_low": pl.Float64,
    "over_baseline_high": pl.Float64,
    "mean": pl.Float64,
    "standard_deviation": pl.Float64,
    "n_train": pl.Int32,
    "n_test": pl.Int32,
    "verdict": pl.String,
    "explanation": pl.String,
}
"""One row per number: the headline table of regression. `sign`: 1 where the unit rises with the number, -1 where it falls; mean and
standard deviation are the number's, on training rows."""

NUMBER_PROFILES: dict[str, Any] = {
    "category": pl.String,
    "number": pl.String,
    "value": pl.Float64,
    "rows": pl.Int32,
    "activation": pl.Float64,
    "activation_low": pl.Float64,
    "activation_high": pl.Float64,
}
"""How the best unit goes with the number on test rows: bins of the number (`value`: its mean in the bin) with median, 10 % and 90 %
quantile of the activation."""


def table(rows: Iterable[Mapping[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Rows to a strictly typed table; absent keys become null, unknown keys are a bug."""
    rows = list(rows)
    unknown = {key for row in rows for key in row} - set(schema)
    if unknown:
        raise ValueError(f"columns {sorted(unknown)} are not in the schema")
    return pl.DataFrame([{key: row.get(key) for key in schema} for row in rows], schema=dict(schema), orient="row")
