"""Schemas of the tables of a comparison of runs. Missing is null; rows are in the order of the features, then of the runs."""

from __future__ import annotations

from typing import Any

import polars as pl

COMPARISON: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "run": pl.String,
    "probe": pl.String,
    "k": pl.Int32,
    "layer": pl.Int32,
    "relative_depth": pl.Float64,
    "method": pl.String,
    "neuron": pl.String,
    "validation_f1": pl.Float64,
    "test_f1": pl.Float64,
    "test_f1_low": pl.Float64,
    "test_f1_high": pl.Float64,
}
"""The probe that was chosen, before test, for each k of a feature and run. `probe`: single, sparse (k > 1) or dense (all units).
`relative_depth`: layer / (layers - 1). `neuron`: for k = 1."""
SUMMARY: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "run": pl.String,
    "neuron": pl.String,
    "relative_depth": pl.Float64,
    "f1": pl.Float64,
    "f1_low": pl.Float64,
    "f1_high": pl.Float64,
    "chance": pl.Float64,
    "k_enough": pl.Int32,
    "dense_f1": pl.Float64,
    "verdict": pl.String,
}
"""Best single neuron of a feature and run, test scores. `chance`: F1 of always answering yes."""
DEPTHS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "run": pl.String,
    "layer": pl.Int32,
    "relative_depth": pl.Float64,
    "single_f1": pl.Float64,
    "sparse_f1": pl.Float64,
    "sparse_k": pl.Int32,
}
"""Each layer's best neuron and best probe on at most 16 neurons, validation F1."""
DYNAMICS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "dynamic": pl.String,
    "explanation": pl.String,
    "runs": pl.Int32,
    "first_f1": pl.Float64,
    "last_f1": pl.Float64,
    "best_f1": pl.Float64,
    "best_run": pl.String,
}
"""What becomes of the best single neuron from run to run (test F1), by the rules of `studies.comparison.dynamics`."""
CATEGORIES: dict[str, Any] = {
    "category": pl.String,
    "run": pl.String,
    "features": pl.Int32,
    "f1": pl.Float64,
    "validation_f1": pl.Float64,
    "validation_f1_above_layer_0": pl.Float64,
    "k_enough": pl.Float64,
    "without_k_enough": pl.Int32,
    "relative_depth": pl.Float64,
}
"""Means over the features that all runs have. `k_enough`: over those for which some k was enough."""

COMPARISON_TABLES: dict[str, dict[str, Any]] = {
    "comparison": COMPARISON,
    "summary": SUMMARY,
    "depths": DEPTHS,
    "dynamics": DYNAMICS,
    "categories": CATEGORIES,
}
