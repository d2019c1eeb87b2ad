"""Schemas of the tables about weights, in the folder `evidence` of a run. Norms are folded; missing is null."""

from __future__ import annotations

from typing import Any

import polars as pl

NAMES = (
    "norm_in", "bias_in", "norm_times_bias", "norm_out", "cosine", "norm_gate", "bias_gate", "norm_times_bias_gate", "cosine_gate",
)  # fmt: skip

WEIGHT_STATISTICS: dict[str, Any] = {
    "layer": pl.Int32,
    "statistic": pl.String,
    "q005": pl.Float64,
    "q20": pl.Float64,
    "q50": pl.Float64,
    "q80": pl.Float64,
    "q995": pl.Float64,
}
"""One row per layer and statistic of its neurons' weights: quantiles over all neurons. `in` and `gate` are the two input maps of
gated neurons (the gate's goes through the nonlinearity); plain ones have the first only. No rows on biases where there are none."""

OUTPUT_WEIGHTS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "neuron": pl.String,
    "layer": pl.Int32,
    "unit": pl.Int32,
    "sign": pl.Int32,
    **{f"effect_{name}": pl.Float64 for name in ("mean", "variance", "skew", "kurtosis")},
    "kurtosis_percentile": pl.Float64,
    "agreement": pl.Float64,
    "agreement_p": pl.Float64,
    "n_class_tokens": pl.Int32,
    "n_other_tokens": pl.Int32,
    "n_sampled": pl.Int32,
    "composition_random": pl.Float64,
    "composition_layer": pl.Float64,
    **{f"{name}{end}": pl.Float64 for name in NAMES for end in ("", "_percentile")},
    "notes": pl.List(pl.String),
}
"""One row per feature's neuron. `effect_`: moments over the vocabulary of its direct effect on logits, per unit of activation (the
kurtosis is 0 for a normal distribution); `agreement`: ROC-AUC of that effect for tokens that come next more often in class
(`n_class_tokens` against `n_other_tokens`), with its two-sided p among `n_sampled` other neurons of the layer; `composition_`: the
largest |cosine| with later input weights that 95 % of random directions, or of other neurons of the layer, stay below; percentiles
are among the neurons of the layer (kurtosis: among the sampled ones); `sign`: -1 where the neuron is lower in class."""

LOGIT_TOKENS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "neuron": pl.String,
    "kind": pl.String,
    "rank": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "value": pl.Float64,
    "in_vocabulary": pl.Boolean,
}
"""Tokens of each feature's neuron. `top` and `bottom`: value is the direct effect on the logit, per unit of activation; `input` and
`gate` (first layer only): cosine of embedding and input weights. `in_vocabulary`: whether the token comes next more often in class,
null where it is too rare to tell."""

COMPOSITIONS: dict[str, Any] = {
    "category": pl.String,
    "feature": pl.String,
    "neuron": pl.String,
    "rank": pl.Int32,
    "reader": pl.String,
    "layer": pl.Int32,
    "unit": pl.Int32,
    "side": pl.String,
    "cosine": pl.Float64,
}
"""Neurons of later layers (`reader`) whose input weights lie closest to the neuron's output weights, or to their opposite."""

WEIGHT_TABLES: dict[str, dict[str, Any]] = {
    "weight_statistics": WEIGHT_STATISTICS,
    "output_weights": OUTPUT_WEIGHTS,
    "logit_tokens": LOGIT_TOKENS,
    "compositions": COMPOSITIONS,
}
