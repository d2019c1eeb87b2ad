"""A run folder as one JSON record: headline rows, heat maps, and one detail record per feature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from sparse_probing.datasets.rows_used import rows_used_of
from sparse_probing.pages.palette import whole_tables
from sparse_probing.records import NEURONS, unit_name
from sparse_probing.results.run_folder import TABLES, Tables, read_run
from sparse_probing.studies.datasheet.view import dataset_view, read_run_sheets
from sparse_probing.studies.datasheet.words import leak_words
from sparse_probing.studies.evidence import category_evidence, feature_evidence, read_evidence, run_evidence
from sparse_probing.sweep.plan import SELECTED, Method
from sparse_probing.views.charts import activation_histogram, f1_against_k, layer_heatmap
from sparse_probing.views.numbers_view import numbers_view

SHOWN_ROLES = ("single", "enough", "dense")

BASELINE_WORDS = {
    "majority_class": "majority class",
    "shuffled_labels": "shuffled labels, one neuron",
    "random_neurons": "random neurons",
    "random_weights_model": "untrained model, one neuron",
    "control_task": "control task: random label per token, one neuron",
    "text_only": "text only (token n-grams)",
    "token_identity": "token identity",
    "last_token": "last token and final punctuation",
    "position_and_length": "position and length",
    "dense": "all neurons",
}
PROBE_WORDS = {"single": "one neuron", "enough": "enough neurons", "dense": "all neurons"}
SHOWN_NEURONS = 8
CHOOSING = [*(method.value for method in SELECTED), Method.SINGLE.value]
"""Methods whose probes compete; the others are controls."""


@whole_tables()
def run_view(folder: Path) -> dict[str, Any]:
    """Everything that the report shows."""
    manifest, tables = read_run(folder)
    evidence = read_evidence(folder)
    findings = tables["findings"]
    categories = findings["category"].unique(maintain_order=True).to_list()
    site = manifest["model"]["site"]
    return {
        "manifest": manifest,
        "name": manifest["options"].get("name"),
        "rows_used": [
            {"headline": used.headline(), "warnings": used.warnings(), "lines": used.lines()}
            for used in rows_used_of(manifest.get("rows_used", ()))
        ],
        "units": "MLP neurons" if site == NEURONS else f"units at {site}",
        "categories": [
            {
                "name": category,
                "audit": manifest["audits"][category],
                "leak": leak_words(manifest["audits"][category]),
                "heatmap": layer_heatmap(_heatmap_cells(tables["probes"], category, site)),
                "evidence": {} if evidence is None else category_evidence(evidence, category),
                "features": [
                    _feature_view(row, tables, site, manifest["model"]["width"]) | _second_look(row, evidence)
                    for row in findings.filter(category=category).to_dicts()
                ],
            }
            for category in categories
        ],
        "numbers": numbers_view(tables, site, manifest["audits"]),
        "evidence": None if evidence is None else run_evidence(evidence),
        "looked_at": 0 if evidence is None else len(evidence["evidence"]),
        "sheets": dataset_view(read_run_sheets(folder, tables["baselines"])),
    }


def _second_look(finding: dict[str, Any], evidence: Tables | None) -> dict[str, Any]:
    """What is shown of the evidence on a feature; its verdict takes the place of the probes'."""
    if evidence is None:
        return {"evidence": None}
    key = {"category": finding["category"], "feature": finding["feature"]}
    revised = evidence["evidence"].filter(**key).to_dicts()
    shown = feature_evidence(evidence, **key)
    if not revised:
        return {"evidence": shown, "explanation": f"{finding['explanation']}; not looked at a second time"}
    return {"evidence": shown, "verdict": revised[0]["verdict"], "explanation": revised[0]["explanation"]}


def _heatmap_cells(probes: pl.DataFrame, category: str, site: str) -> pl.DataFrame:
    """Best single neuron of each layer, scored on validation."""
    singles = probes.filter(category=category, split="validation", k=1).filter(pl.col("method").is_in(CHOOSING))
    best = singles.sort("f1", "average_precision", descending=True, maintain_order=True).unique(
        ["feature", "layer"], keep="first", maintain_order=True
    )
    names = [unit_name(site, layer, columns[0]) for layer, columns in best.select("layer", "columns").iter_rows()]
    return (
        best.with_columns(neuron=pl.Series(names, dtype=pl.String))
        .select("feature", "layer", "f1", "neuron")
        .sort("feature", "layer")
    )


def choice_words(probe: dict[str, Any], width: int, units: str) -> str:
    """How good the choice of a probe's units is proved to be."""
    if probe["method"] == Method.SINGLE.value:
        return f"all {width:,} {units} tried"
    if probe["gap"] is None:
        return "all"
    percent = f"{100 * probe['gap']:.1f} %"
    if probe["status"] == "optimal":
        return f"proved best {probe['k']} of all {width:,} {units} (to {percent})"
    return f"{probe['method'].replace('_', ' ')}; the best could be {percent} better"


def _feature_view(finding: dict[str, Any], tables: dict[str, pl.DataFrame], site: str, width: int) -> dict[str, Any]:
    units = "neurons" if site == NEURONS else "units"
    mine = {name: tables[name].filter(category=finding["category"], feature=finding["feature"]) for name in TABLES}
    curve = (
        mine["probes"]
        .filter(
            pl.col("split") == "validation",
            pl.col("method").is_in(CHOOSING),
        )
        .group_by("layer", "k")
        .agg(pl.col("f1").max())
        .sort("layer", "k")
    )
    chosen = (
        mine["probes"]
        .filter(split="test")
        .select(
            "role",
            "layer",
            "k",
            "f1",
            "f1_low",
            "f1_high",
            "precision",
            "recall",
            "mcc",
            "roc_auc",
            "average_precision",
            "method",
            "gap",
            "status",
            "certificate",
        )
    )
    examples = mine["examples"].drop("category", "feature", "neuron").to_dicts()
    sign = 1 if finding["fires"] == "more in class" else -1
    controls = mine["baselines"].filter(pl.col("baseline") != "dense").to_dicts()
    return finding | {
        "curve": f1_against_k(curve),
        "histogram": activation_histogram(mine["histograms"]),
        "examples": examples,
        "sign": sign,
        "largest": max((sign * value for example in examples for value in example["activations"]), default=0.0),
        "baselines": [row | {"words": _baseline_words(row)} for row in controls],
        "differences": [
            row | {"words": f"{_role_words(row['first'])} − {_role_words(row['second'])}"}
            for row in mine["differences"].filter(metric="f1").to_dicts()
        ],
        "neurons": _neurons(mine["neurons"], site),
        "chosen": [
            row | {"choice": choice_words(row, width, units)}
            for role in SHOWN_ROLES
            for row in chosen.filter(role=role).to_dicts()
        ],
        "best_baseline_words": baseline_words(finding["best_baseline"]),
    }


def _baseline_words(row: dict[str, Any]) -> str:
    if row["baseline"] == "random_neurons":
        return "random neuron" if row["k"] == 1 else f"{row['k']} random neurons"
    return baseline_words(row["baseline"])


def baseline_words(name: str) -> str:
    """A baseline in words; one that only another version knows keeps its name."""
    return BASELINE_WORDS.get(name) or name.replace("_", " ")


def _role_words(role: str) -> str:
    return PROBE_WORDS.get(role) or baseline_words(role)


def _neurons(neurons: pl.DataFrame, site: str) -> list[dict[str, Any]]:
    """The units that come out best most often over resampled documents, of all layers."""
    ranked = neurons.filter(pl.col("best_share").is_not_null()).sort(
        "best_share", "average_precision", "layer", "unit", descending=[True, True, False, False]
    )
    return [row | {"name": unit_name(site, row["layer"], row["unit"])} for row in ranked.head(SHOWN_NEURONS).to_dicts()]
