"""What the report says about the weights of a feature's neuron, and about all neurons of a run."""

from __future__ import annotations

from typing import Any

import polars as pl

from sparse_probing.studies.weights.charts import layer_boxes

KINDS = {
    "top": "raises most",
    "bottom": "lowers most",
    "input": "input weights closest to",
    "gate": "gate's weights closest to",
}
CHARTS = {
    "bias": (("norm_times_bias", "norm_times_bias_gate", "norm_in"), {
        "norm_times_bias": "‖input weights‖ × bias",
        "norm_times_bias_gate": "‖gate weights‖ × bias",
        "norm_in": "‖input weights‖",
    }),
    "cosine": (("cosine",), {"cosine": "cosine of input and output"}),
}  # fmt: skip
"""Chart -> statistics, the first that the model has is drawn, with the titles of their axes."""
SIGNIFICANT = 0.05


def weights_view(tables: dict[str, pl.DataFrame], category: str, feature: str) -> dict[str, Any] | None:
    """One feature's part; null where the tables have nothing on it."""
    mine = tables["output_weights"].filter(category=category, feature=feature).to_dicts()
    if not mine:
        return None
    row = mine[0]
    tokens = tables["logit_tokens"].filter(category=category, feature=feature)
    readers = tables["compositions"].filter(category=category, feature=feature).sort("rank").to_dicts()
    return row | {
        "tokens": [
            {"kind": kind, "words": words, "chips": chips}
            for kind, words in KINDS.items()
            if (chips := tokens.filter(kind=kind).sort("rank").to_dicts())
        ],
        "readers": readers,
        "shape": _shape(row),
        "agrees": _agreement(row),
        "composition": _composition(row, readers),
        "standing": _standing(row),
    }


def weights_overview(tables: dict[str, pl.DataFrame]) -> dict[str, Any] | None:
    """The part that is about all layers; null where there is none."""
    statistics, named = tables["weight_statistics"], tables["output_weights"]
    charts: dict[str, Any] = {}
    captions: dict[str, str] = {}
    for name, (choices, titles) in CHARTS.items():
        found = next((s for s in choices if s in statistics["statistic"].to_list()), None)
        if found is not None:
            points = (
                named.select("layer", "neuron", "feature", value=found)
                .drop_nulls()
                .group_by("layer", "neuron", "value", maintain_order=True)
                .agg(features=pl.col("feature").str.join(", "))
            )
            quantiles = statistics.filter(pl.col("q50").is_not_null(), statistic=found)
            charts[name] = layer_boxes(quantiles, points, titles[found])
            captions[name] = titles[found]
    agreeing = named.drop_nulls("agreement_p")
    if not charts:
        return None
    promoted = (agreeing["agreement_p"] <= SIGNIFICANT) & ((agreeing["agreement"] - 0.5) * agreeing["sign"] > 0)
    return {"charts": charts, "captions": captions, "n_promoting": int(promoted.sum()), "n_tried": len(agreeing)}


def _shape(row: dict[str, Any]) -> str | None:
    kurtosis, place = row["effect_kurtosis"], row["kurtosis_percentile"]
    if kurtosis is None or place is None:
        return None
    deviation = row["effect_variance"] ** 0.5
    reading = (
        "it singles out few tokens"
        if place >= 95
        else "it moves many tokens alike"
        if place <= 5
        else "nothing unusual"
    )
    return (
        f"Over the vocabulary the effect has mean {row['effect_mean']:+.3f}, standard deviation {deviation:.3f}, "
        f"skew {row['effect_skew']:+.2f} and excess kurtosis {kurtosis:+.2f} (0 for a normal distribution), more than "
        f"{place:.0f} % of {row['n_sampled']} other neurons of the layer: {reading}."
    )


def _agreement(row: dict[str, Any]) -> dict[str, Any] | None:
    area, p = row["agreement"], row["agreement_p"]
    if area is None or p is None:
        return None
    rising = (area - 0.5) * row["sign"] > 0
    lower = " (which is lower in class)" if row["sign"] < 0 else ""
    if p > SIGNIFICANT:
        verdict = "no clear agreement"
        reading = "other neurons of its layer do as much by chance"
    elif rising:
        verdict = "agrees"
        reading = f"by its weights the neuron{lower} makes the class's own words more likely where the class is"
    else:
        verdict = "opposes"
        reading = f"by its weights the neuron{lower} makes the class's own words less likely where the class is"
    return {
        "verdict": verdict,
        "fine": p <= SIGNIFICANT and rising,
        "text": (
            f"{row['n_class_tokens']:,} tokens come next at least twice as often in class, {row['n_other_tokens']:,} do not; "
            f"the first are raised more than the others with ROC-AUC {area:.2f} (0.5: no preference; p = {p:.3f} among "
            f"{row['n_sampled']} other neurons of the layer): {reading}."
        ),
    }


def _composition(row: dict[str, Any], readers: list[dict[str, Any]]) -> str | None:
    if not readers:
        return None
    largest, random, others = abs(readers[0]["cosine"]), row["composition_random"], row["composition_layer"]
    reading = (
        "no later neuron reads it more than it would read a random direction"
        if largest <= random
        else "closer than random directions, though other neurons of its layer have readers as close"
        if others is not None and largest <= others
        else "closer than random directions and than other neurons of its layer come"
    )
    rest = "" if others is None else f", other neurons of its layer up to {others:.2f}"
    return f"Random directions find a reader with |cosine| up to {random:.2f}{rest} (95 % of them): {reading}."


def _standing(row: dict[str, Any]) -> list[dict[str, Any]]:
    shown = (
        ("norm_in", "‖input weights‖"),
        ("norm_gate", "‖gate weights‖"),
        ("norm_times_bias", "‖input weights‖ × bias"),
        ("norm_times_bias_gate", "‖gate weights‖ × bias"),
        ("norm_out", "‖output weights‖"),
        ("cosine", "cosine of input and output weights"),
        ("cosine_gate", "cosine of gate and output weights"),
    )
    return [
        {
            "words": words,
            "value": f"{row[name]:{'.2f' if name.startswith('norm_') and 'bias' not in name else '+.2f'}}",
            "percentile": row[f"{name}_percentile"],
        }
        for name, words in shown
        if row[name] is not None
    ]
