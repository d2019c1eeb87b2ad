"""Evidence about structure, redundancy and superposition: schemas of its tables, and the rules that put it in words."""

from __future__ import annotations

from typing import Any

import polars as pl

LEAST_MCC = 0.3
"""A best neuron with less on test rows says nothing about redundancy: there is nothing to repeat."""
RARE = 0.05
"""A second feature tells something about a neuron where at most this share of its layer would do as well."""
PERFECT = 0.95
"""From this F1 on, scores of two bases do not tell them apart."""
LEAST_DIFFERENCE = 0.05
"""In F1, of the best neuron over the best random direction."""

_FEATURE = {"category": pl.String, "feature": pl.String}
_NEURON = {"neuron": pl.String, "layer": pl.Int32, "unit": pl.Int32}
_OTHER = {"other_category": pl.String, "other_feature": pl.String}
_RELATION = {
    "common_rows": pl.Int32,
    "own_in_other": pl.Float64,
    "other_in_own": pl.Float64,
    "label_difference": pl.Float64,
    "relation": pl.String,
}

PRUNING: dict[str, Any] = {
    **_FEATURE,
    "scope": pl.String,
    "removed": pl.Int32,
    **_NEURON,
    "merit": pl.Float64,
    "as_good": pl.Boolean,
    "f1": pl.Float64,
    "mcc": pl.Float64,
    "average_precision": pl.Float64,
    "k": pl.Int32,
    "support": pl.List(pl.Int32),
    "support_f1": pl.Float64,
}
"""The best single neuron that is left after `removed` others were taken away, one row per step; `scope`: `layer` (the layer of the
feature's neuron) or `all layers`. Neurons are chosen by merit (training and validation rows); f1, mcc and average precision are
test scores. `as_good`: the merit reaches 95 % of the first neuron's. `support_f1`: test F1 of the best k neurons that are left in
the layer (`support`); null for the scope `all layers`."""

STAND_INS: dict[str, Any] = {
    **_FEATURE,
    **_NEURON,
    "f1": pl.Float64,
    "as_good": pl.Boolean,
    "cluster": pl.Int32,
    "in_class_correlation": pl.Float64,
    "out_of_class_correlation": pl.Float64,
    "n_positive": pl.Int32,
    "n_negative": pl.Int32,
}
"""The neurons that pruning named, best first, and how they go with the best one among training rows in class and out of class (null
where a neuron is constant there). Neurons of one `cluster` go together; cluster 1 holds the best neuron. f1: test."""

READABLE_LAYERS: dict[str, Any] = {
    **_FEATURE,
    "layer": pl.Int32,
    **{
        f"{kind}_{what}": dtype
        for kind in ("single", "sparse", "dense")
        for what, dtype in (("f1", pl.Float64), ("merit", pl.Float64), ("readable", pl.Boolean))
    },
    "sparse_k": pl.Int32,
    "k_enough": pl.Int32,
}
"""How well each layer can be read by one neuron, by the best few (`sparse_k` of them) and by all; f1 on validation rows, merit as
in choices. `readable`: at least 95 % of the merit of the best layer with as many neurons. `k_enough`: fewest neurons with 95 % of
the merit of the layer's dense probe; null where no size that was tried has it."""

POLYSEMANTICITY: dict[str, Any] = {
    **_FEATURE,
    **_NEURON,
    **_OTHER,
    "fires": pl.String,
    "f1": pl.Float64,
    "mcc": pl.Float64,
    "roc_auc": pl.Float64,
    "n_positive": pl.Int32,
    "n_negative": pl.Int32,
    "scores": pl.Boolean,
    "alike": pl.Float64,
    **_RELATION,
}
"""Each feature's neuron as a detector of every feature of the run; threshold and direction from that feature's training and
validation rows, scores on its test rows. `scores`: MCC and ROC-AUC reach what the rule asks for; `alike`: share of the layer's
units that reach that ROC-AUC. `relation`: what the labels of the two features have to do with each other on rows where both are
eligible (`own_in_other`: share of the positives of the neuron's feature that are positives of the other one)."""

INTERFERENCE: dict[str, Any] = {
    **_FEATURE,
    "layer": pl.Int32,
    "k": pl.Int32,
    **_OTHER,
    "other_k": pl.Int32,
    "shared": pl.List(pl.Int32),
    "shared_by_chance": pl.Float64,
    "same_sign": pl.Int32,
    "shift": pl.Float64,
    "shared_shift": pl.Float64,
    "called": pl.Float64,
    "called_otherwise": pl.Float64,
    "n_rows": pl.Int32,
    "n_otherwise": pl.Int32,
    **_RELATION,
}
"""Pairs of features whose sparse probes share neurons: what the probe of the first does on test rows of the second that are not
positive for the first. `shift`: its mean score in the other class minus out of it, as a share of the same difference for its own
class; `shared_shift`: the part that the shared neurons contribute. `called`: share of the other class that the probe takes for its
own, `called_otherwise`: the same out of the other class. `shared_by_chance`: shared neurons expected of two random supports."""

BASIS: dict[str, Any] = {
    **_FEATURE,
    "layer": pl.Int32,
    "rank": pl.Int32,
    "neuron_f1": pl.Float64,
    "direction_f1": pl.Float64,
    "direction_f1_low": pl.Float64,
    "direction_f1_high": pl.Float64,
    "difference": pl.Float64,
    "p": pl.Float64,
    "bases": pl.Int32,
    "orthogonal": pl.Boolean,
}
"""Test F1 of the r-th best neuron and of the r-th best random direction (mean, smallest and largest over the bases), ranked on
training and validation rows. `p`: share of the bases, the neurons' own included, whose F1 at this rank is at least the neuron's."""

BASIS_SPARSITY: dict[str, Any] = {
    **_FEATURE,
    "layer": pl.Int32,
    "k": pl.Int32,
    **{
        f"{basis}_{metric}{end}": pl.Float64
        for metric in ("f1", "log_loss")
        for basis, ends in (("neuron", ("",)), ("direction", ("", "_low", "_high")))
        for end in ends
    },
}
"""Test F1 and class-balanced log loss (nats) of probes on k neurons and on k random directions (mean, smallest, largest)."""

MEMBERS: dict[str, Any] = {
    **_FEATURE,
    **_NEURON,
    "kind": pl.String,
    "k": pl.Int32,
    "coefficient": pl.Float64,
    "f1": pl.Float64,
    "false_alarms": pl.Int32,
    "misses": pl.Int32,
    "cleared": pl.Int32,
    "confused_with": pl.List(pl.String),
    "n_positive": pl.Int32,
    "n_negative": pl.Int32,
}
"""The members of a sparse probe one by one (`member`), their signed `sum` and the `probe` itself, on test rows. `cleared`: false
alarms of this row that the probe does not make. `confused_with`: features of the category among the false alarms, most frequent
first."""

STRUCTURE_TABLES: dict[str, dict[str, Any]] = {
    "pruning": PRUNING,
    "stand_ins": STAND_INS,
    "readable_layers": READABLE_LAYERS,
    "polysemanticity": POLYSEMANTICITY,
    "interference": INTERFERENCE,
    "basis": BASIS,
    "basis_sparsity": BASIS_SPARSITY,
    "members": MEMBERS,
}
"""File name in RUN/evidence -> schema."""


def redundancy_words(as_good: int, mcc: float) -> str:
    """One neuron or several?

    Args:
        as_good: neurons of the layer whose merit reaches 95 % of the best one's, itself included.
        mcc: of the best one, on test rows.
    """
    if mcc < LEAST_MCC:
        return "no neuron"
    return "one neuron" if as_good == 1 else f"an ensemble of at least {as_good}"


def basis_words(neuron_f1: float, direction_f1: float, p: float, bases: int) -> str:
    """Is the neuron basis privileged for a feature?

    Args:
        neuron_f1: test F1 of the best neuron.
        direction_f1: of the best random direction, mean over the bases.
        p: share of the bases, the neurons' own included, that do at least as well as the neurons.
        bases: random bases.
    """
    if min(neuron_f1, direction_f1) >= PERFECT:
        return "no difference to see"
    ahead_of_all = p * (1 + bases) < 1.5
    return "privileged" if ahead_of_all and neuron_f1 - direction_f1 >= LEAST_DIFFERENCE else "not privileged"


def second_meanings(polysemanticity: pl.DataFrame) -> pl.DataFrame:
    """Rows of the table that speak for a second meaning: the neuron scores, few of its layer do, and no label explains it.

    Rarest first. Features without common rows stay: labels cannot tell whether they are the same thing.
    """
    unexplained = pl.col("relation").is_in(["different", "not comparable"])
    return polysemanticity.filter("scores", unexplained, pl.col("alike") <= RARE).sort(
        "alike", "mcc", descending=[False, True], maintain_order=True
    )
