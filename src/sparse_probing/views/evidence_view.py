"""The second look in a run's record: one part per kind of evidence, for each feature and for the run."""

from __future__ import annotations

from typing import Any

from sparse_probing.results.run_folder import PART_TABLES, Tables
from sparse_probing.views.effects_view import effects_charts, effects_view
from sparse_probing.views.profile_view import profile_charts, profile_overview, profile_view
from sparse_probing.views.structure_view import structure_charts, structure_overview, structure_view
from sparse_probing.views.weights_view import weights_charts, weights_overview, weights_view

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
