"""Redundancy and superposition, as a study."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from sparse_probing.studies.structure.tables import STRUCTURE_TABLES
from sparse_probing.studies.structure.view import structure_overview, structure_view
from sparse_probing.studies.study import Rows, Study

if TYPE_CHECKING:
    from sparse_probing.studies.request import Request


def _measure(request: Request) -> Rows:
    from sparse_probing.studies.structure.measure import structure_rows

    return structure_rows(request.run, request.features, request.config.seed)


STRUCTURE = Study(
    name="structure",
    tables=STRUCTURE_TABLES,
    measure=_measure,
    page=resources.files("sparse_probing.studies.structure") / "page.html",
    feature=structure_view,
    overview=structure_overview,
)
