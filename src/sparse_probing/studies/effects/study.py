"""Interventions, as a study."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from sparse_probing.studies.effects.tables import EVIDENCE_TABLES
from sparse_probing.studies.effects.view import effects_view, matrix_view
from sparse_probing.studies.study import Rows, Study

if TYPE_CHECKING:
    from sparse_probing.studies.request import Request


def _measure(request: Request) -> Rows:
    from sparse_probing.studies.effects.measure import effect_rows

    return effect_rows(request)


EFFECTS = Study(
    name="effects",
    tables=EVIDENCE_TABLES,
    measure=_measure,
    page=resources.files("sparse_probing.studies.effects") / "page.html",
    feature=effects_view,
    category=matrix_view,
)
