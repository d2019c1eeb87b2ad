"""The headline table of a run, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError

MOST_NAMES = 12
"""Listed in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedNeuron:
    """The best single neuron of a feature, as the findings name it."""

    feature: int
    layer: int
    unit: int
    name: str
    sign: int
    """+1 when it fires more in class, -1 when less."""


def named_neurons(
    dataset: FeatureDataset, findings: pl.DataFrame, features: Sequence[int] | None = None
) -> list[NamedNeuron]:
    """The neurons that a run names.

    Args:
        dataset: of the run.
        findings: its table.
        features: indices into the dataset's features; all when null.

    Raises:
        InputError: a feature that the dataset or the run does not have.
    """
    found = {(row["category"], row["feature"]): row for row in findings.iter_rows(named=True)}
    neurons = []
    for f in range(len(dataset.features)) if features is None else features:
        if not 0 <= f < len(dataset.features):
            raise InputError(
                f"there is no feature number {f}: the dataset has {len(dataset.features)}, counted from 0."
            )
        row = found.get((dataset.categories[f], dataset.features[f]))
        if row is None:
            raise InputError(
                f"the run names no neuron for {dataset.features[f]!r} in {dataset.categories[f]!r}: "
                "give the findings of a run on this very dataset."
            )
        sign = 1 if row["fires"] == "more in class" else -1
        neurons.append(NamedNeuron(feature=f, layer=row["layer"], unit=row["unit"], name=row["neuron"], sign=sign))
    return neurons


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
