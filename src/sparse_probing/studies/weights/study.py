"""Weights, as a study."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from sparse_probing.studies.study import Rows, Study
from sparse_probing.studies.weights.tables import WEIGHT_TABLES
from sparse_probing.studies.weights.view import weights_overview, weights_view

if TYPE_CHECKING:
    from sparse_probing.studies.request import Request


def _measure(request: Request) -> Rows:
    from sparse_probing.studies.weights.measure import weight_rows

    return weight_rows(request.run, request.features, request.config.seed)


WEIGHTS = Study(
    name="weights",
    tables=WEIGHT_TABLES,
    measure=_measure,
    page=resources.files("sparse_probing.studies.weights") / "page.html",
    feature=weights_view,
    overview=weights_overview,
)
