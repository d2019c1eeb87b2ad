"""The second look in a run's record: one part per kind of evidence, for each feature and for the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_probing.results import run_folder
from sparse_probing.results.run_folder import Tables
from sparse_probing.studies.effects.tables import EVIDENCE_TABLES
from sparse_probing.studies.effects.view import effects_charts, effects_view
from sparse_probing.studies.profile.tables import PROFILE_TABLES
from sparse_probing.studies.profile.view import profile_charts, profile_overview, profile_view
from sparse_probing.studies.structure.tables import STRUCTURE_TABLES
from sparse_probing.studies.structure.view import structure_charts, structure_overview, structure_view
from sparse_probing.studies.weights.tables import WEIGHT_TABLES
from sparse_probing.studies.weights.view import weights_charts, weights_overview, weights_view

PART_TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "effects": EVIDENCE_TABLES,
    "profile": PROFILE_TABLES,
    "weights": WEIGHT_TABLES,
    "structure": STRUCTURE_TABLES,
}
"""Schemas of each part of the evidence, in the order in which the parts are shown within a feature's block."""
TABLES: dict[str, dict[str, Any]] = {name: columns for part in PART_TABLES.values() for name, columns in part.items()}
"""Every table of the evidence: file name without ending -> schema."""
VIEWS = {
    "effects": (effects_view, effects_charts),
    "profile": (profile_view, profile_charts),
    "weights": (weights_view, weights_charts),
    "structure": (structure_view, structure_charts),
}
OVERVIEWS = {
    "profile": (profile_overview, lambda _record, _key: {}),
    "weights": (weights_overview, weights_charts),
    "structure": (structure_overview, structure_charts),
}
"""What is shown once."""


def read_evidence(folder: Path) -> Tables | None:
    """Tables of a run's verification; see `run_folder.read_evidence`."""
    return run_folder.read_evidence(folder, TABLES)


def feature_evidence(tables: Tables, category: str, feature: str) -> dict[str, Any] | None:
    """Its parts, null where there is nothing; null where the feature was not looked at."""
    parts = {name: view(_of(tables, name), category, feature) for name, (view, _) in VIEWS.items()}
    return parts if any(parts.values()) else None


def run_evidence(tables: Tables) -> dict[str, Any]:
    """What is shown once, null where there is nothing."""
    return {name: view(_of(tables, name)) for name, (view, _) in OVERVIEWS.items()}


def _of(tables: Tables, part: str) -> Tables:
    return {name: tables[name] for name in PART_TABLES[part]}


def evidence_charts(view: dict[str, Any]) -> dict[str, Any]:
    """Chart id -> specification, of all parts in a run's record."""
    charts: dict[str, Any] = {}
    for name, record in (view["evidence"] or {}).items():
        charts |= OVERVIEWS[name][1](record, f"evidence-{name}") if record else {}
    for c, category in enumerate(view["categories"]):
        if category["matrix"]:
            charts[f"matrix-{c}-matrix"] = category["matrix"]["chart"]
        for f, feature in enumerate(category["features"]):
            for name, record in (feature["evidence"] or {}).items():
                charts |= VIEWS[name][1](record, f"{name}-{c}-{f}") if record else {}
    return charts
