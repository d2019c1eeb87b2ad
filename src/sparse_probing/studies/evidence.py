"""The studies that make up a verification, in the order of the page; whoever goes through them goes through `STUDIES`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_probing.pages.render import environment
from sparse_probing.results import run_folder
from sparse_probing.studies.effects.study import EFFECTS
from sparse_probing.studies.profile.study import PROFILE
from sparse_probing.studies.structure.study import STRUCTURE
from sparse_probing.studies.study import Schema, Shown, Study, Tables, charts_of
from sparse_probing.studies.weights.study import WEIGHTS

STUDIES: tuple[Study, ...] = (EFFECTS, PROFILE, WEIGHTS, STRUCTURE)


def evidence_tables() -> dict[str, Schema]:
    """Every table of a verification: file name without ending -> columns."""
    return {name: columns for study in STUDIES for name, columns in study.tables.items()}


def read_evidence(folder: Path) -> Tables | None:
    """Tables of a run's verification; see `run_folder.read_evidence`."""
    return run_folder.read_evidence(folder, evidence_tables())


def study_macros() -> dict[str, Any]:
    """Macros of each study's page, by study."""
    pages = {study.name: study.page.read_text(encoding="utf-8") for study in STUDIES}
    return {name: environment().from_string(page).module for name, page in pages.items()}


def feature_evidence(tables: Tables, category: str, feature: str) -> dict[str, Shown | None] | None:
    """What each study shows of a feature; null where the feature was not studied."""
    shown = {study.name: study.feature(_of(study, tables), category, feature) for study in STUDIES}
    return shown if any(shown.values()) else None


def category_evidence(tables: Tables, category: str) -> dict[str, Shown | None]:
    """What is shown once per category, by study."""
    return {study.name: study.category(_of(study, tables), category) for study in STUDIES if study.category}


def run_evidence(tables: Tables) -> dict[str, Shown | None]:
    """What is shown once, by study."""
    return {study.name: study.overview(_of(study, tables)) for study in STUDIES if study.overview}


def _of(study: Study, tables: Tables) -> Tables:
    return {name: tables[name] for name in study.tables}


def evidence_charts(view: dict[str, Any]) -> dict[str, Any]:
    """Chart id -> specification, of all studies in a run's record."""
    places = [("evidence-{}", view["evidence"])]
    for c, category in enumerate(view["categories"]):
        places.append((f"{{}}-{c}", category["evidence"]))
        places += [(f"{{}}-{c}-{f}", feature["evidence"]) for f, feature in enumerate(category["features"])]
    charts: dict[str, Any] = {}
    for key, studies in places:
        for name, shown in (studies or {}).items():
            charts |= charts_of(shown, key.format(name)) if shown else {}
    return charts
