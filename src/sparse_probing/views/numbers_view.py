"""The part of a run's record that is about numbers (regression): one entry per category that has some."""

from __future__ import annotations

from typing import Any

import polars as pl

from sparse_probing.records import unit_name
from sparse_probing.studies.datasheet.words import leak_words
from sparse_probing.sweep.plan import Method
from sparse_probing.views.charts import number_profile, r2_against_k, r2_heatmap

ROLE_WORDS = {"single": "one neuron", "enough": "enough neurons", "dense": "all neurons"}
BASELINE_WORDS = {
    "mean": "always the mean",
    "shuffled_labels": "shuffled numbers, one neuron",
    "random_neurons": "random neuron",
    "random_weights_model": "untrained model, one neuron",
    "random_weights_dense": "untrained model, all neurons",
    "text_only": "text only (token n-grams)",
    "token_identity": "token identity",
    "last_token": "last token and final punctuation",
    "position_and_length": "position and length",
}


def numbers_view(tables: dict[str, pl.DataFrame], site: str, audits: dict[str, Any]) -> list[dict[str, Any]]:
    """Headline rows, charts and tables of all numbers.

    Args:
        tables: `numbers`, `number_findings` and `number_profiles` of a run.
        site: where the units live.
        audits: of the manifest, by category.
    """
    findings = tables["number_findings"]
    return [
        {
            "name": category,
            "audit": audits[category],
            "leak": leak_words(audits[category]),
            "heatmap": r2_heatmap(_cells(tables["numbers"].filter(category=category), site)),
            "numbers": [_number(row, tables) for row in findings.filter(category=category).to_dicts()],
        }
        for category in findings["category"].unique(maintain_order=True).to_list()
    ]


def _cells(probes: pl.DataFrame, site: str) -> pl.DataFrame:
    """Best single unit of each layer, scored on validation."""
    best = probes.filter(split="validation", method=Method.SINGLE.value)
    names = [unit_name(site, layer, columns[0]) for layer, columns in best.select("layer", "columns").iter_rows()]
    return best.with_columns(neuron=pl.Series(names, dtype=pl.String)).select("number", "layer", "r2", "neuron")


def _number(finding: dict[str, Any], tables: dict[str, pl.DataFrame]) -> dict[str, Any]:
    mine = {
        name: tables[name].filter(category=finding["category"], number=finding["number"])
        for name in ("numbers", "number_profiles")
    }
    fitted = mine["numbers"].filter(split="validation")
    singles, several = (
        fitted.filter(method=Method.SINGLE.value),
        fitted.filter(pl.col("k") > 1, method=Method.GREEDY_SWAP.value),
    )
    curve = pl.concat([singles, several]).select("k", "layer", "r2").sort("layer", "k")
    dense = fitted.filter(method=Method.DENSE.value, layer=finding["dense_layer"])["r2"].item()
    tested = mine["numbers"].filter(split="test").to_dicts()
    return finding | {
        "best_baseline_words": _baseline_words(finding["best_baseline"]),
        "curve": r2_against_k(curve, dense),
        "profile": number_profile(mine["number_profiles"], finding["number"]),
        "chosen": [
            row | {"words": words} for role, words in ROLE_WORDS.items() for row in tested if row["role"] == role
        ],
        "baselines": [row | {"words": _words(row)} for row in tested if row["role"].split(" ")[0] in BASELINE_WORDS],
    }


def _words(row: dict[str, Any]) -> str:
    if row["method"] == Method.RANDOM.value and row["k"] > 1:
        return f"{row['k']} random neurons"
    return _baseline_words(row["method"])


def _baseline_words(name: str) -> str:
    return BASELINE_WORDS.get(name) or name.replace("_", " ")  # one that only another version knows keeps its name
