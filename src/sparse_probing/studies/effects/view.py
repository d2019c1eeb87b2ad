"""The part of a run's record that is about interventions."""

from __future__ import annotations

from typing import Any

import polars as pl

from sparse_probing.studies.effects.charts import among_placebos, dose_curve, effect_matrix
from sparse_probing.studies.effects.matrix import summary_rows

KIND_WORDS = {
    "zero": "set to 0",
    "mean": "set to its mean",
    "resample": "values of other tokens",
    "clamp": "clamped",
}
MOST_NAMES = 4


def effects_view(tables: dict[str, pl.DataFrame], category: str, feature: str) -> dict[str, Any] | None:
    """Interventions on the neurons of one feature; null where none was made."""
    found = tables["evidence"].filter(category=category, feature=feature).to_dicts()
    if not found:
        return None
    trials = [
        row | {"words": _words(row), "what": _neurons(row)}
        for row in tables["ablations"].filter(category=category, feature=feature).to_dicts()
    ]
    charts: dict[str, Any] = {"placebos": None, "doses": None}
    record: dict[str, Any] = {"evidence": found[0], "trials": trials, "charts": charts}
    singles = [row for row in trials if row["support"] == "single"]
    if singles:
        charts["placebos"] = among_placebos(_points(singles[0]))
        record["shown"] = singles[0]
    clamps = [row for row in singles if row["kind"] == "clamp" and row["values"]]
    if len(clamps) > 1:
        charts["doses"] = dose_curve(_curve(clamps))
    return record


def matrix_view(tables: dict[str, pl.DataFrame], category: str) -> dict[str, Any] | None:
    """Effects of every feature's neurons on every feature's texts; null where there is nothing to compare."""
    cells = tables["effect_matrix"].filter(category=category)
    if cells["switched_off"].n_unique() < 2:
        return None
    smallest = cells.filter(size=cells["size"].min()).with_columns(pl.col("neurons").list.join(", "))
    order = cells["affected"].unique(maintain_order=True).to_list()
    shown = smallest.select("switched_off", "affected", "effect", "effect_low", "effect_high", "neurons")
    return {
        "charts": {"matrix": effect_matrix(shown, order)},
        "sizes": sorted(cells["size"].unique().to_list()),
        "summary": summary_rows(cells.to_dicts()),
        "texts": int(cells["documents"].max() or 0),  # pyright: ignore[reportArgumentType]
        "intervals": bool(cells["effect_low"].is_not_null().any()),
    }


def _words(row: dict[str, Any]) -> str:
    dose = ""
    if row["kind"] == "clamp" and row["values"]:
        heights = ", ".join(f"{value:.2f}" for value in row["values"][:MOST_NAMES])
        dose = f" to {heights}{' ...' if len(row['values']) > MOST_NAMES else ''} ({row['dose']})"
    return (
        KIND_WORDS.get(row["kind"], row["kind"])
        + dose
        + (" at labelled positions" if row["where"] == "labelled" else "")
    )


def _neurons(row: dict[str, Any]) -> str:
    names = row["neurons"]
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _points(row: dict[str, Any]) -> pl.DataFrame:
    mine = {"what": "neuron", "name": _neurons(row), "effect_in": row["effect_in"], "effect_out": row["effect_out"]}
    names = row["placebo_neurons"]
    others = [
        {"what": "placebo", "name": name, "effect_in": inside, "effect_out": outside}
        for name, inside, outside in zip(names, row["placebo_effect_in"], row["placebo_effect_out"], strict=True)
    ]
    return pl.DataFrame([*others, mine])


def _curve(clamps: list[dict[str, Any]]) -> pl.DataFrame:
    points = []
    for row in sorted(clamps, key=lambda row: row["values"][0]):
        for rows, end in (("in class", "in"), ("out of class", "out")):
            shared = {"value": row["values"][0], "rows": rows}
            points.append(
                shared
                | {
                    "what": "neuron",
                    "effect": row[f"effect_{end}"],
                    "low": row[f"effect_{end}_low"],
                    "high": row[f"effect_{end}_high"],
                }
            )
            placebos = row[f"placebo_effect_{end}"]
            if placebos:
                mean = sum(placebos) / len(placebos)
                points.append(shared | {"what": "placebos, mean", "effect": mean, "low": None, "high": None})
    return pl.DataFrame(points, infer_schema_length=None)
