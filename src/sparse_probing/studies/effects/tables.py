"""Schemas of the tables in `evidence/` of a run folder: what interventions did. One row per measurement; missing is null."""

from __future__ import annotations

from typing import Any

import polars as pl


def _with_interval(name: str) -> dict[str, Any]:
    return {name: pl.Float64, f"{name}_low": pl.Float64, f"{name}_high": pl.Float64}


ABLATIONS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "support": pl.String,
    "neurons": pl.List(pl.String),
    "layer": pl.Int32,
    "kind": pl.String,
    "dose": pl.String,
    "values": pl.List(pl.Float64),
    "where": pl.String,
    **_with_interval("effect_in"),
    **_with_interval("effect_out"),
    **_with_interval("specificity"),
    **_with_interval("over_placebo"),
    "exceeded_in": pl.Float64,
    "p": pl.Float64,
    "placebos": pl.Int32,
    "placebo_effect_in": pl.List(pl.Float64),
    "placebo_effect_out": pl.List(pl.Float64),
    "placebo_specificity": pl.List(pl.Float64),
    "placebo_neurons": pl.List(pl.String),
    "loss_in": pl.Float64,
    "loss_out": pl.Float64,
    "documents_in": pl.Int32,
    "documents_out": pl.Int32,
    "tokens_in": pl.Int32,
    "tokens_out": pl.Int32,
    "activity": pl.Float64,
    "placebo_activity": pl.Float64,
    "output_norm": pl.Float64,
    "placebo_output_norm": pl.Float64,
    "probe_layer": pl.Int32,
    "probe_k": pl.Int32,
    "shift_in": pl.Float64,
    "shift_out": pl.Float64,
    "placebo_shift_in": pl.List(pl.Float64),
    "f1_before": pl.Float64,
    "f1_after": pl.Float64,
}
"""Interventions on a feature's neuron (support *single*) or on the neurons that were enough (*enough*), beside matched random
units. Effects: change of the mean loss per token in nats, in class and out of class; specificity: in minus out; over_placebo:
specificity minus the placebos' mean. exceeded_in: share of placebos whose in-class effect is smaller. activity: mean absolute
activation. Shifts: how the score of a later probe of the feature moves, in standard deviations; f1_before and f1_after are that
probe's on these texts."""

EFFECT_MATRIX: dict[str, Any] = {
    "category": pl.String,
    "switched_off": pl.String,
    "size": pl.Int32,
    "neurons": pl.List(pl.String),
    "affected": pl.String,
    **_with_interval("effect"),
    "percent": pl.Float64,
    "loss": pl.Float64,
    "documents": pl.Int32,
    "tokens": pl.Int32,
}
"""The first neurons of a feature set to zero together: change of the mean loss per token (nats, and in per cent of the loss) on the
texts of every feature of the category."""

EVIDENCE: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "neuron": pl.String,
    "ablation": pl.String,
    "effect_in": pl.Float64,
    "over_placebo": pl.Float64,
    "p": pl.Float64,
    "exceeded_in": pl.Float64,
    "equals": pl.Int32,
    "verdict": pl.String,
    "explanation": pl.String,
    "remark": pl.String,
}
"""One row per feature: the verdict after the second look. ablation: the kind that it rests on. equals: single neurons that reach
95 % of the best one's score, itself included.
remark: what could not be measured."""

EVIDENCE_TABLES: dict[str, dict[str, Any]] = {
    "ablations": ABLATIONS,
    "effect_matrix": EFFECT_MATRIX,
    "evidence": EVIDENCE,
}
"""File name without ending -> schema."""
