"""Schemas of the tables about what a neuron does token by token. One row per measurement; missing is null."""

from __future__ import annotations

from typing import Any

import polars as pl

from sparse_probing.results.tables import EXAMPLES

_WHERE = {"category": pl.String, "feature": pl.String, "neuron": pl.String}
_QUANTILES = ("q05", "q25", "q50", "q75", "q95")
_SIDES = ("in", "out")

TOKEN_HISTOGRAMS: dict[str, Any] = {
    **_WHERE,
    "kind": pl.String,
    "series": pl.String,
    "bin_low": pl.Float64,
    "bin_high": pl.Float64,
    "tokens": pl.Int64,
}
"""Tokens of test rows per bin of activation. `kind` is `class` (series `in class`, `out of class`) or `group` (series: a language,
a kind of text); all series of a neuron share the bins."""

TOKEN_GROUPS: dict[str, Any] = {
    **_WHERE,
    "kind": pl.String,
    "series": pl.String,
    "tokens": pl.Int64,
    "documents": pl.Int32,
    "share_in_class": pl.Float64,
    "mean": pl.Float64,
    **dict.fromkeys(_QUANTILES, pl.Float64),
}
"""Activation at the tokens of a series: mean and quantiles (5, 25, 50, 75, 95 %)."""

THRESHOLD_CURVES: dict[str, Any] = {
    **_WHERE,
    "threshold": pl.Float64,
    "precision": pl.Float64,
    "recall": pl.Float64,
    "f1": pl.Float64,
}
"""Test rows called positive where their activation reaches the threshold (falls to it, for a neuron that is lower in class); from
the strictest threshold on, at most 200 of them."""

TOKENS: dict[str, Any] = {
    **_WHERE,
    "side": pl.String,
    "rank": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "count": pl.Int64,
    "documents": pl.Int32,
    "mean": pl.Float64,
}
"""Tokens of the strongest mean activation in class and out of class, of those that occur there at least 10 times."""

DISAMBIGUATION: dict[str, Any] = {
    **_WHERE,
    "rank": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "least": pl.Int32,
    **{f"count_{side}": pl.Int64 for side in _SIDES},
    **{f"mean_{side}": pl.Float64 for side in _SIDES},
    "difference": pl.Float64,
    "roc_auc": pl.Float64,
    **{f"{quantile}_{side}": pl.Float64 for side in _SIDES for quantile in _QUANTILES},
}
"""Tokens that occur at least `least` times both in class and out of class, and the activations there; the largest difference of the
means, in the neuron's direction, first. `roc_auc`: how well the activation tells the two contexts of this very token."""

PROFILES: dict[str, Any] = {
    **_WHERE,
    "sign": pl.Int32,
    **{f"tokens_{side}": pl.Int64 for side in _SIDES},
    **{f"documents_{side}": pl.Int32 for side in _SIDES},
    **{f"median_{side}": pl.Float64 for side in _SIDES},
    **{f"near_zero_{side}": pl.Float64 for side in _SIDES},
    **{f"not_above_zero_{side}": pl.Float64 for side in _SIDES},
    "roc_auc": pl.Float64,
    "shared_least": pl.Int32,
    "shared_tokens": pl.Int32,
    "higher_share": pl.Float64,
    "context_auc": pl.Float64,
    "token_auc": pl.Float64,
    "reading": pl.String,
    "explanation": pl.String,
    "best_f1": pl.Float64,
    "best_threshold": pl.Float64,
    "active_share": pl.Float64,
    "layer_active_share": pl.Float64,
    "sparser_units": pl.Float64,
    "text_documents": pl.Int64,
    "text_tokens": pl.Int64,
    "text_share_above": pl.Float64,
    "text_largest": pl.Float64,
}
"""One row per neuron; `sign` is -1 for one that is lower in class. Shares of tokens whose activation is near zero (up to 1 % of the
largest absolute value) and exactly zero or less; ROC-AUC of the activation over all tokens, over tokens of which only the context
differs, and only the token; what follows (`reading`; null: nothing can be said, `explanation` says why). `best_f1` is the best over
all thresholds on these very rows, thus too good. `active_share` of the neuron, the median of its layer, and the share of the other
units of the layer that are active less often. The last four: the neuron on unlabelled text, where some was given;
`text_share_above` is the share of tokens at which it is beyond `best_threshold`."""

EVIDENCE_EXAMPLES: dict[str, Any] = {**EXAMPLES, "source": pl.String}
"""As `EXAMPLES`, of more kinds: `strongest`, `miss`, `false alarm`, `quantile 90` to `quantile 10`, `random in class` and `random
out of class`; nearly equal excerpts appear once. `source` is `labelled` (rows of the test split) or `text` (without
labels: `positive` is null, the row is one token)."""

PROFILE_TABLES: dict[str, dict[str, Any]] = {
    "token_histograms": TOKEN_HISTOGRAMS,
    "token_groups": TOKEN_GROUPS,
    "threshold_curves": THRESHOLD_CURVES,
    "tokens": TOKENS,
    "disambiguation": DISAMBIGUATION,
    "profiles": PROFILES,
    "evidence_examples": EVIDENCE_EXAMPLES,
}
