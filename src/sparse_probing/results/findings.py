"""The headline table of a run, by name."""

from __future__ import annotations

from typing import Any

import polars as pl

from sparse_probing.errors import InputError

MOST_NAMES = 12
"""Listed in a message."""


def named_finding(findings: pl.DataFrame, wanted: str) -> dict[str, Any]:
    """The row of a feature.

    Args:
        findings: of a run.
        wanted: `feature`, or `category/feature`.

    Raises:
        InputError: no such feature, or several of that name.
    """
    rows = findings.to_dicts()
    found = [row for row in rows if wanted in (row["feature"], f"{row['category']}/{row['feature']}")]
    if not found:
        raise InputError(f"this run has no feature {wanted!r}: it has {feature_names(findings)}.")
    if len(found) > 1:
        names = " or ".join(f"{row['category']}/{row['feature']}" for row in found)
        raise InputError(f"feature {wanted!r} is in several categories: write {names}.")
    return found[0]


def feature_names(findings: pl.DataFrame) -> str:
    """The features of a run, for a message."""
    names = findings["feature"].to_list()
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (", ".join(names[:MOST_NAMES]) or "none (numbers only)") + more
