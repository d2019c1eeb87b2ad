"""The profile of a neuron, as a study."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from sparse_probing.studies.profile.tables import PROFILE_TABLES
from sparse_probing.studies.profile.view import profile_overview, profile_view
from sparse_probing.studies.study import Rows, Study

if TYPE_CHECKING:
    from sparse_probing.studies.request import Request


def _measure(request: Request) -> Rows:
    from sparse_probing.studies.profile.measure import profile_rows

    return profile_rows(request.run, request.features, request.sample, request.config.seed)


PROFILE = Study(
    name="profile",
    tables=PROFILE_TABLES,
    measure=_measure,
    page=resources.files("sparse_probing.studies.profile") / "page.html",
    feature=profile_view,
    overview=profile_overview,
)
