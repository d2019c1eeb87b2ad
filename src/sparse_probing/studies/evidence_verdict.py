"""The verdict of a verification: that of the probes, revised by what the studies found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from sparse_probing.results.verdict import Ablation, SecondLook, second_verdict
from sparse_probing.studies.structure.redundancy import ALL_LAYERS
from sparse_probing.studies.study import Rows

ABLATIONS = ("zero", "mean", "resample")
"""Kinds of intervention that the verdict may rest on: the first of them that was made."""


def evidence_rows(findings: pl.DataFrame, rows: Rows) -> list[dict[str, Any]]:
    """One row per feature that was studied: the verdict of the probes, revised.

    Args:
        findings: table of the run.
        rows: of all studies; those of `evidence` say which features, and what could not be measured.
    """
    made = {row["kind"] for row in rows["ablations"]}
    ablation = next((kind for kind in ABLATIONS if kind in made), None)
    result = []
    for studied in rows["evidence"]:
        key = {name: studied[name] for name in ("category", "feature")}
        finding = findings.filter(**key).row(0, named=True)
        mine = {
            row["support"]: row for row in rows["ablations"] if key.items() <= row.items() and row["kind"] == ablation
        }
        looks = {role: _ablation(row) for role, row in mine.items()}
        equals = _equals(rows["pruning"], key)
        short, why = second_verdict(
            SecondLook(
                verdict=finding["verdict"],
                explanation=finding["explanation"],
                single=looks.get("single"),
                enough=looks.get("enough"),
                equals=equals,
            )
        )
        shown = mine.get("single", {})
        result.append(
            key
            | {
                "neuron": finding["neuron"],
                "verdict": short,
                "explanation": why,
                "remark": studied["remark"] or _doubt(looks.get("single")),
                "equals": equals,
            }
            | {"ablation": ablation if shown else None}
            | {name: shown.get(name) for name in ("effect_in", "over_placebo", "p", "exceeded_in")}
        )
    return result


def _equals(pruning: Sequence[dict[str, Any]], key: dict[str, str]) -> int | None:
    """Single neurons of all layers that do as well as the best one, itself included."""
    mine = [row for row in pruning if row["scope"] == ALL_LAYERS and key.items() <= row.items()]
    return sum(bool(row["as_good"]) for row in mine) if mine else None


def _doubt(single: Ablation | None) -> str | None:
    """Why an ablation says nothing about the verdict."""
    if single is None or single.testable:
        return None
    return "too few documents for intervals (20 of each class), or too few placebos: the verdict is that of the probes"


def _ablation(row: dict[str, Any]) -> Ablation:
    return Ablation(
        neurons=len(row["neurons"]),
        effect_in=row["effect_in"],
        effect_in_low=row["effect_in_low"],
        effect_in_high=row["effect_in_high"],
        effect_out=row["effect_out"],
        loss_in=row["loss_in"],
        over_placebo=row.get("over_placebo"),
        low=row.get("over_placebo_low"),
        high=row.get("over_placebo_high"),
        p=row.get("p"),
        placebos=row["placebos"],
    )
