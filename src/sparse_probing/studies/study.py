"""A study of a run's neurons, as one record: what it measures, the tables that it fills, and what a page shows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

import polars as pl

Schema = Mapping[str, Any]
"""Column -> polars type."""
Rows = dict[str, list[dict[str, Any]]]
"""Table -> rows, before they are typed."""
Tables = dict[str, pl.DataFrame]
Shown = dict[str, Any]
"""What a template is given; `charts` in it are specifications by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """One study. To add one: a folder with this record in it, and an entry in `studies.evidence.STUDIES`.

    Its page is a template with a macro for each view that it has: `feature(record, key)`, `category(record, key)` and
    `overview(record, key)`. A chart named `x` in a record stands where the page has `data-chart="{{ key }}-x"`.
    """

    name: str
    """Of its folder, and of its part of a chart's id."""
    tables: Mapping[str, Schema]
    """Table -> columns; file names are unique over all studies."""
    measure: Callable[..., Rows]
    """Rows of its tables for a `studies.request.Request`; a table that it leaves out is empty. Imports what measures when it is
    called: a report needs no torch."""
    page: Traversable
    feature: Callable[[Tables, str, str], Shown | None]
    """What is shown of a feature, given the study's tables, category and feature; null where there is nothing."""
    category: Callable[[Tables, str], Shown | None] | None = None
    overview: Callable[[Tables], Shown | None] | None = None
    """What is shown once per run."""


def charts_of(shown: Shown, key: str) -> dict[str, Any]:
    """Chart id in the page -> specification."""
    return {f"{key}-{name}": chart for name, chart in shown.get("charts", {}).items() if chart is not None}
