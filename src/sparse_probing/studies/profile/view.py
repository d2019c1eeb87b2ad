"""What the report shows of a neuron's activation profile: charts, tokens, examples, and what it reads."""

from __future__ import annotations

from typing import Any

import polars as pl

from sparse_probing.pages.visible import isolated, visible
from sparse_probing.studies.profile.charts import group_boxes, threshold_curve, token_boxes, token_histogram

LISTED = 8
"""Tokens in a table, on each side."""
COMPARED = 20
"""Tokens in the chart of those that occur on both sides (paper, section 6.4: 20)."""
LONGEST_LABEL = 24
KINDS = {
    "quantile 90": "At the 90 % quantile of activation",
    "quantile 75": "At the 75 % quantile",
    "quantile 50": "At the median",
    "quantile 25": "At the 25 % quantile",
    "quantile 10": "At the 10 % quantile",
    "random in class": "Random, in class",
    "random out of class": "Random, out of class",
}
"""Kinds of examples in the fold, in this order; the strongest and the errors are shown above, by the run itself."""
READINGS = ("reads the context", "reads both", "reads the token")


def profile_view(tables: dict[str, pl.DataFrame], category: str, feature: str) -> dict[str, Any] | None:
    """The profile of a feature's neuron; of the first one where there are several.

    Args:
        tables: those of `PROFILE_TABLES`.
        category: of the feature.
        feature: its name.
    """
    found = tables["profiles"].filter(category=category, feature=feature)
    if found.is_empty():
        return None
    profile = found.row(0, named=True)
    mine = {
        name: table.filter(category=category, feature=feature, neuron=profile["neuron"])
        for name, table in tables.items()
    }
    groups = mine["token_groups"].filter(kind="group")
    shared = mine["disambiguation"].sort("rank").head(COMPARED)
    tokens = mine["tokens"].with_columns(token=pl.Series(map(token_label, mine["tokens"]["token"]), dtype=pl.String))
    examples = mine["evidence_examples"]
    strengths = [profile["sign"] * value for values in examples["activations"] for value in values]
    return profile | {
        "largest": max(strengths, default=0.0),
        "charts": {
            "histogram": None if len(groups) else token_histogram(mine["token_histograms"].filter(kind="class")),
            "groups": group_boxes(groups.with_columns(side=_side())) if len(groups) else None,
            "shared": token_boxes(_both_sides(shared)) if len(shared) else None,
            "curve": threshold_curve(mine["threshold_curves"]) if len(mine["threshold_curves"]) else None,
        },
        "tokens": [tokens.filter(side=side).head(LISTED).to_dicts() for side in ("in class", "out of class")],
        "examples": _listed(examples.filter(source="labelled"), KINDS),
        "text_examples": _listed(examples.filter(source="text"), {"strongest": "Strongest activations", **KINDS}),
    }


def token_label(text: str) -> str:
    """A token as a label: blanks are seen, what is long is cut."""
    shown = visible(text).replace(" ", "␣")
    return isolated(shown if len(shown) <= LONGEST_LABEL else shown[: LONGEST_LABEL - 1] + "…")


def _side() -> pl.Expr:
    return pl.when(pl.col("share_in_class") > 0.5).then(pl.lit("in class")).otherwise(pl.lit("out of class"))


def _both_sides(shared: pl.DataFrame) -> pl.DataFrame:
    quantiles = [name.removesuffix("_in") for name in shared.columns if name.startswith("q") and name.endswith("_in")]
    labels: list[str] = []
    for text in shared["token"]:
        label = token_label(text)
        labels.append(label + "′" * labels.count(label))  # two tokens may look alike
    return pl.DataFrame(
        [
            {"label": label, "side": side, "count": row[f"count_{end}"], **{q: row[f"{q}_{end}"] for q in quantiles}}
            for label, row in zip(labels, shared.to_dicts(), strict=True)
            for side, end in (("in class", "in"), ("out of class", "out"))
        ]
    )


def _listed(examples: pl.DataFrame, kinds: dict[str, str]) -> list[dict[str, Any]]:
    found = ((title, examples.filter(kind=kind).to_dicts()) for kind, title in kinds.items())
    return [{"title": title, "examples": rows} for title, rows in found if rows]


def profile_overview(tables: dict[str, pl.DataFrame]) -> dict[str, Any] | None:
    """One row per neuron: does it read the context or the token? Null where no neuron was profiled."""
    rows = tables["profiles"].to_dicts()
    if not rows:
        return None
    counted = {word: sum(row["reading"] == word for row in rows) for word in READINGS}
    counted["cannot be told"] = len(rows) - sum(counted.values())
    return {"rows": rows, "counts": {word: count for word, count in counted.items() if count}}
