"""What a report shows about structure: how redundantly features are written, and what neurons share."""

from __future__ import annotations

from typing import Any

import polars as pl

from sparse_probing.studies.structure.charts import f1_against_rank, f1_against_removed, neuron_against_direction
from sparse_probing.studies.structure.tables import RARE, basis_words, redundancy_words, second_meanings

SHOWN_MEMBERS = 6
SHOWN_ROWS = 8
SHOWN_NAMES = 6


def structure_view(tables: dict[str, pl.DataFrame], category: str, feature: str) -> dict[str, Any] | None:
    """What is shown within a feature's block; null where the tables have nothing on it.

    Args:
        tables: of `STRUCTURE_TABLES`.
        category: of the feature.
        feature: its name.
    """
    mine = {name: rows.filter(category=category, feature=feature) for name, rows in tables.items()}
    if not mine["pruning"].height:
        return None
    return {
        "redundancy": _pruning(mine["pruning"]),
        "groups": _groups(mine["stand_ins"]),
        "layers": _layers(mine["readable_layers"]),
        "basis": _basis(mine["basis"], mine["basis_sparsity"]),
        "meanings": _meanings(mine["polysemanticity"]),
        "interference": _interference(mine["interference"]),
        "members": _members(mine["members"]),
        "charts": {
            "pruning": f1_against_removed(_removed(mine["pruning"])),
            "basis": f1_against_rank(mine["basis"]),
        },
    }


def structure_overview(tables: dict[str, pl.DataFrame]) -> dict[str, Any] | None:
    """What is shown once per run: neurons with a second meaning, and the basis and redundancy over all features."""
    pruning, best = tables["pruning"].filter(scope="layer"), tables["basis"].filter(rank=1)
    if not pruning.height:
        return None
    by_feature = pruning.group_by("category", "feature", maintain_order=True)
    counts = by_feature.agg(pl.col("as_good").sum(), pl.col("mcc").first())
    words = [redundancy_words(good, mcc) for good, mcc in counts.select("as_good", "mcc").iter_rows()]
    basis = [basis_words(*row) for row in best.select("neuron_f1", "direction_f1", "p", "bases").iter_rows()]
    found, scored = second_meanings(tables["polysemanticity"]), tables["polysemanticity"].filter("scores")
    keys = ["neuron", "other_category", "other_feature"]  # one neuron may be named for several features
    meanings = found.group_by(keys, maintain_order=True).agg(pl.exclude("feature").first(), pl.col("feature"))
    related = scored.filter(pl.col("relation").is_in(["nested", "opposite"]))
    return {
        "features": counts.height,
        "one": words.count("one neuron"),
        "ensembles": sum(word.startswith("an ensemble") for word in words),
        "none": words.count("no neuron"),
        "basis": {name: basis.count(name) for name in ("privileged", "not privileged", "no difference to see")},
        "difference": float(best["difference"].to_numpy().mean()),
        "bases": best["bases"].max(),
        "orthogonal": bool(best["orthogonal"].all()),
        "meanings": meanings.head(SHOWN_ROWS).to_dicts(),
        "n_meanings": meanings.height,
        "n_neurons": meanings["neuron"].n_unique(),
        "n_related": related.height,
        "n_common": scored.filter(pl.col("relation") != "itself").height - related.height - found.height,
        "rare": RARE,
        "charts": {"bases": neuron_against_direction(best)},
    }


def _removed(pruning: pl.DataFrame) -> pl.DataFrame:
    """Points of the pruning chart."""
    here, everywhere = pruning.filter(scope="layer"), pruning.filter(scope="all layers")
    layer = here["layer"][0]
    several = here.filter(pl.col("support_f1").is_not_null())
    size = several["k"].max() if several.height else 0
    names = several["support"].cast(pl.List(pl.String)).list.join(", ")
    lines = [
        (f"one neuron of layer {layer}", here.select("removed", "f1", "neuron")),
        (f"{size} neurons of layer {layer}", several.select("removed", f1="support_f1", neuron=names)),
        ("one neuron of any layer", everywhere.select("removed", "f1", "neuron")),
    ]
    return pl.concat([rows.with_columns(probe=pl.lit(name)) for name, rows in lines if rows.height])


def _pruning(pruning: pl.DataFrame) -> dict[str, Any]:
    here = pruning.filter(scope="layer").to_dicts()
    first, last = here[0], here[-1]
    everywhere = pruning.filter(scope="all layers")
    supports = [row["support_f1"] for row in here if row["support_f1"] is not None]
    good = sum(row["as_good"] for row in here)
    return {
        "words": redundancy_words(good, first["mcc"]),
        "neuron": first["neuron"],
        "layer": first["layer"],
        "f1": first["f1"],
        "mcc": first["mcc"],
        "as_good": good,
        "tried": len(here),
        "as_good_anywhere": int(everywhere["as_good"].sum()),
        "tried_anywhere": everywhere.height,
        "next": here[1] if len(here) > 1 else None,
        "last": last,
        "k": first["k"],
        "support_first": supports[0] if supports else None,
        "support_last": supports[-1] if supports else None,
    }


def _groups(stand_ins: pl.DataFrame) -> dict[str, Any]:
    first = stand_ins.row(0, named=True)
    others = stand_ins.slice(1)
    along = others.filter(cluster=first["cluster"])
    strongest = along.sort(pl.col("in_class_correlation").abs(), descending=True, nulls_last=True)
    return {
        "neurons": stand_ins.height,
        "groups": stand_ins["cluster"].n_unique(),
        "neuron": first["neuron"],
        "along": along["neuron"].head(SHOWN_NAMES).to_list(),
        "more": max(0, along.height - SHOWN_NAMES),
        "closest": strongest.row(0, named=True) if along.height else None,
    }


def _layers(readable: pl.DataFrame) -> dict[str, Any] | None:
    if not readable.height:
        return None
    kinds = {kind: readable.filter(f"{kind}_readable")["layer"].to_list() for kind in ("single", "sparse", "dense")}
    enough = readable.filter(pl.col("k_enough").is_not_null())
    return {
        "layers": readable.height,
        **{kind: {"count": len(layers), "names": _spans(layers)} for kind, layers in kinds.items()},
        "fewest": enough.sort("k_enough", "layer").row(0, named=True) if enough.height else None,
    }


def _spans(layers: list[int]) -> str:
    """`0, 2–5`: neighbouring layers joined."""
    spans: list[list[int]] = []
    for layer in sorted(layers):
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in spans)


def _basis(curve: pl.DataFrame, sparsity: pl.DataFrame) -> dict[str, Any]:
    best, single = curve.row(0, named=True), sparsity.row(0, named=True)
    words = basis_words(best["neuron_f1"], best["direction_f1"], best["p"], best["bases"])
    losses = {name: single[name] for name in ("neuron_log_loss", "direction_log_loss")}
    return best | losses | {"words": words, "ranks": curve.height}


def _meanings(polysemanticity: pl.DataFrame) -> dict[str, Any]:
    found = second_meanings(polysemanticity)
    related = polysemanticity.filter("scores", pl.col("relation").is_in(["nested", "opposite"]))
    return {
        "neuron": polysemanticity["neuron"][0],
        "tried": polysemanticity.height - 1,
        "found": found.head(SHOWN_NAMES).to_dicts(),
        "more": max(0, found.height - SHOWN_NAMES),
        "related": related["other_feature"].head(SHOWN_NAMES).to_list(),
    }


def _interference(interference: pl.DataFrame) -> list[dict[str, Any]]:
    """Unrelated features whose probes share neurons, those first that are taken for the class most often."""
    apart = interference.filter(
        pl.col("relation").is_in(["different", "not comparable"]), pl.col("called").is_not_null()
    )
    return apart.sort("called", descending=True, maintain_order=True).head(3).to_dicts()


def _members(members: pl.DataFrame) -> list[dict[str, Any]]:
    """The best members, the sum and the probe."""
    alone = members.filter(kind="member").sort("f1", descending=True, maintain_order=True).head(SHOWN_MEMBERS)
    return [*alone.to_dicts(), *members.filter(pl.col("kind") != "member").to_dicts()]
