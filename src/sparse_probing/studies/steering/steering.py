"""Steer a model by neurons of a run: what it writes, and how probable it finds continuations, with the neurons held at a value.

A neuron that carries a feature need not write it: this shows whether holding it high moves the text towards the feature. What was
written is read back by the unchanged model, with the feature's one-neuron probe of a layer that was not touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sparse_probing.activations.extract import find_units
from sparse_probing.activations.generate import ReadUnit, Where, Written, continuation_log_probs, generate, read_back
from sparse_probing.activations.interventions import Intervention
from sparse_probing.activations.loaded import LoadedModel, ModelOutline
from sparse_probing.errors import InputError
from sparse_probing.files import read_table
from sparse_probing.progress import Reporter, Silent
from sparse_probing.records import NEURONS, Pooling, Site, unit_name
from sparse_probing.results.findings import feature_names, named_finding
from sparse_probing.studies.effects.doses import Dose
from sparse_probing.sweep.plan import Method

UNIT = re.compile(r"L(\d+)\.(?:N|(.+)\.)(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One unit and the value that it is held at."""

    unit: str
    site: Site
    index: int
    value: float
    mean_in_class: float | None
    """Of the pooled training rows of the feature; null where the run did not record it."""
    mean_out_of_class: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A one-unit probe of the feature."""

    unit: str
    read: ReadUnit
    coefficient: float
    intercept: float
    threshold: float


def find_unit(model: ModelOutline, name: str) -> tuple[Site, int]:
    """Site and index of a unit by its name, `L3.N609` or `L3.resid.post.17`.

    Raises:
        InputError: not a name, or a layer, site or unit that the model does not have.
    """
    match = UNIT.fullmatch(name)
    if match is None:
        raise InputError(
            f"{name!r} names no unit: write L3.N609 for neuron 609 of layer 3, L3.resid.post.17 for other sites."
        )
    layer, site_name, index = int(match[1]), match[2] or NEURONS, int(match[3])
    (site,) = find_units(model, site_name, [layer])
    if index >= site.width:
        raise InputError(f"unit {name} does not exist: layer {layer} has units 0 to {site.width - 1} at {site.name}.")
    return site, index


def pick_feature(findings: pl.DataFrame, wanted: str | None, units: Sequence[str]) -> dict[str, Any] | None:
    """The finding that steering is about.

    Args:
        findings: of the run.
        wanted: `feature` or `category/feature`; null to go by the units.
        units: named units.

    Returns:
        The named one; else the only feature whose best neuron the first unit is (null for none or several); without units, the
        only feature of the run.

    Raises:
        InputError: no such feature, several of that name, or nothing to go by.
    """
    if wanted is not None:
        return named_finding(findings, wanted)
    rows = findings.to_dicts()
    if units:
        found = [row for row in rows if row["neuron"] == units[0]]
        return found[0] if len(found) == 1 else None
    if len(rows) != 1:
        raise InputError(
            f"nothing says which neuron to change: give --neuron L3.N609, or --feature with one of {feature_names(findings)}."
        )
    return rows[0]


def changes_of(
    model: ModelOutline,
    tables: Mapping[str, pl.DataFrame],
    site: str,
    finding: Mapping[str, Any] | None,
    units: Sequence[str],
    level: Dose,
) -> list[Change]:
    """Which units are held at which values.

    Args:
        model: owns the units.
        tables: of the run.
        site: of the run.
        finding: from `pick_feature`.
        units: named units; none for the feature's best.
        level: multiples and quantiles are each unit's own.

    Raises:
        InputError: a unit that does not exist, or one whose multiple or quantile the run did not record.
    """
    result = []
    for name in dict.fromkeys(units or ([finding["neuron"]] if finding else [])):
        place, index = find_unit(model, name)
        known = _known(tables["neurons"], finding, place.layer, index) if place.name == site else None
        if level.of == "value":
            value = level.number
        elif level.of == "mean":
            if known is None:
                raise InputError(
                    f"the run knows no mean of {name} in class{_of(finding)}: give --clamp a number, such as 8."
                )
            value = level.number * known["mean_in_class"]
        else:
            value = _quantile(tables["histograms"], finding, name, level.number)
        result.append(
            Change(
                unit=name,
                site=place,
                index=index,
                value=float(value),
                mean_in_class=known["mean_in_class"] if known else None,
                mean_out_of_class=known["mean_out_of_class"] if known else None,
            )
        )
    return result


def find_reader(
    model: ModelOutline,
    tables: Mapping[str, pl.DataFrame],
    site: str,
    finding: Mapping[str, Any] | None,
    pooling: Pooling,
    changes: Sequence[Change],
) -> Reader | None:
    """The feature's best one-unit probe (validation F1, then average precision, then its loss) of a layer that is not changed.

    Args:
        model: owns the units.
        tables: of the run.
        site: of the run.
        finding: the feature.
        pooling: how the tokens of the feature's rows became one vector.
        changes: their layers are left out.

    Returns:
        Null without a feature, and where every probed layer is changed.
    """
    if finding is None:
        return None
    probes = (
        tables["probes"]
        .filter(
            category=finding["category"], feature=finding["feature"], method=Method.SINGLE.value, split="validation"
        )
        .filter(~pl.col("layer").is_in([change.site.layer for change in changes]))
        .sort("f1", "average_precision", "objective", descending=[True, True, False], maintain_order=True)
    )
    if probes.is_empty():
        return None
    best = probes.row(0, named=True)
    (place,) = find_units(model, site, [best["layer"]])
    return Reader(
        unit=unit_name(site, best["layer"], best["columns"][0]),
        read=ReadUnit(site=place, unit=best["columns"][0], pooling=pooling),
        coefficient=best["coefficients"][0],
        intercept=best["intercept"],
        threshold=best["threshold"],
    )


def pooling_of(folder: Path, finding: Mapping[str, Any]) -> Pooling:
    """How the tokens of a feature's rows became one vector.

    Args:
        folder: of the run.
        finding: the feature.
    """
    named = {"category": finding["category"], "feature": finding["feature"]}
    row = read_table(folder / "dataset" / "labels.parquet").filter(**named)["row"][0]
    return Pooling(read_table(folder / "dataset" / "rows.parquet").filter(row=row)["pooling"][0])


def steer(
    model: LoadedModel,
    changes: Sequence[Change],
    prompts: Sequence[str],
    continuations: Sequence[str] = (),
    *,
    tokens: int = 40,
    seeds: int = 3,
    temperature: float = 0.8,
    where: Where = "all",
    reader: Reader | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Write every prompt on without and with the changed units, and score the continuations.

    Args:
        model: a causal language model, loaded with its head.
        changes: at least one, from `changes_of`.
        prompts: at least one.
        continuations: scored after every prompt.
        tokens: most new tokens of a text.
        seeds: texts per prompt, with seeds 0, 1, ...; one where the temperature is 0, as all would be equal.
        temperature: see `generate`.
        where: see `generate.Where`.
        reader: reads back what was written; null for none.
        reporter: told about progress.

    Returns:
        `changed`: the changes. `texts`, one row per prompt and seed: before, after, changed_share (see there), the mean log
        probability of the new tokens for the bare model and the share of rows that the reader calls positive, before and after
        (null for a text without new tokens). `continuations`, one row per prompt and continuation:
        tokens, log_prob_before, log_prob_after. `reader`: unit, rows, called_share and mean_activation over all rows, before and
        after; null without a reader. All log probabilities in nats.

    Raises:
        InputError: see `generate`; numbers of tokens or seeds below 1, or a negative temperature.
    """
    if tokens < 1 or seeds < 1 or not (temperature >= 0 and isfinite(temperature)):
        raise InputError(
            f"tokens and seeds must be at least 1 and the temperature 0 or more, got {tokens}, {seeds} and {temperature:g}."
        )
    if not prompts:
        raise InputError("there is nothing to write on: give a prompt, such as --prompt 'Once upon a time'.")
    interventions = _interventions(changes)
    scored: list[dict[str, Any]] = []
    for prompt in prompts if continuations else ():
        log_probs, counts = continuation_log_probs(model, prompt, continuations, interventions, where=where)
        scored += [
            {
                "prompt": prompt,
                "continuation": continuation,
                "tokens": int(counts[i]),
                "log_prob_before": float(log_probs[0, i]),
                "log_prob_after": float(log_probs[1, i]),
            }
            for i, continuation in enumerate(continuations)
        ]
    plan = [(prompt, seed) for prompt in prompts for seed in range(seeds if temperature > 0 else 1)]
    pairs: list[tuple[Written, Written]] = []
    with (reporter or Silent()).stage("write", 2 * len(plan), "text") as done:
        for prompt, seed in plan:
            pair = []
            for changed in ((), interventions):
                pair.append(
                    generate(model, prompt, changed, seed=seed, tokens=tokens, temperature=temperature, where=where)
                )
                done(1)
            pairs.append((pair[0], pair[1]))
    read = reader.read if reader else None
    read_before, read_after = (read_back(model, [pair[side] for pair in pairs], read) for side in (0, 1))
    texts = [
        {
            "prompt": prompt,
            "seed": seed,
            "before": before.text,
            "after": after.text,
            "changed_share": changed_share(before.new, after.new),
            "log_prob_before": read_before[0][i],
            "log_prob_after": read_after[0][i],
            "called_before": _called(reader, read_before[1][i]),
            "called_after": _called(reader, read_after[1][i]),
        }
        for i, ((prompt, seed), (before, after)) in enumerate(zip(plan, pairs, strict=True))
    ]
    return {
        "changed": [
            {name: value for name, value in asdict(change).items() if name not in ("site", "index")}
            for change in changes
        ],
        "texts": texts,
        "continuations": scored,
        "reader": reader and _reading(reader, read_before[1], read_after[1]),
    }


def changed_share(before: np.ndarray, after: np.ndarray) -> float:
    """Share of positions that hold different tokens, or a token in one of the texts only; 0 for two empty texts."""
    longest, both = max(len(before), len(after)), min(len(before), len(after))
    return float(longest - (before[:both] == after[:both]).sum()) / longest if longest else 0.0


def _interventions(changes: Sequence[Change]) -> list[Intervention]:
    grouped: dict[Site, list[Change]] = {}
    for change in changes:
        grouped.setdefault(change.site, []).append(change)
    return [
        Intervention(site=site, units=tuple(c.index for c in group), values=np.array([[c.value for c in group]]))
        for site, group in grouped.items()
    ]


def _called(reader: Reader | None, values: np.ndarray) -> float | None:
    if reader is None or not len(values):
        return None
    return float((reader.coefficient * values + reader.intercept > reader.threshold).mean())


def _reading(reader: Reader, before: list[np.ndarray], after: list[np.ndarray]) -> dict[str, Any]:
    result: dict[str, Any] = {"unit": reader.unit, "pooling": reader.read.pooling.value}
    for name, values in (("before", np.concatenate(before)), ("after", np.concatenate(after))):
        result[f"rows_{name}"] = len(values)
        result[f"called_share_{name}"] = _called(reader, values)
        result[f"mean_activation_{name}"] = float(values.mean()) if len(values) else None
    return result


def _known(neurons: pl.DataFrame, finding: Mapping[str, Any] | None, layer: int, index: int) -> dict[str, Any] | None:
    if finding is None:
        return None
    rows = neurons.filter(category=finding["category"], feature=finding["feature"], layer=layer, unit=index)
    return rows.row(0, named=True) if len(rows) else None


def _quantile(histograms: pl.DataFrame, finding: Mapping[str, Any] | None, name: str, q: float) -> float:
    """Quantile of the in-class rows, evenly spread within each bin of the histogram."""
    bins = (
        pl.DataFrame()
        if finding is None
        else histograms.filter(category=finding["category"], feature=finding["feature"], neuron=name)
    )
    if bins.is_empty():
        raise InputError(
            f"the run keeps the distribution of a feature's best neuron only, not that of {name}{_of(finding)}: give --clamp a "
            "number, such as 8."
        )
    rows = bins.filter(pl.col("in_class") > 0).sort("bin_low")
    total = np.concatenate([[0], np.cumsum(rows["in_class"].to_numpy())])
    i = min(int(np.searchsorted(total[1:], q * total[-1])), len(rows) - 1)
    low, high = rows["bin_low"][i], rows["bin_high"][i]
    return low + (high - low) * (q * total[-1] - total[i]) / (total[i + 1] - total[i])


def _of(finding: Mapping[str, Any] | None) -> str:
    return f" of {finding['feature']!r}" if finding else " (no --feature was named)"
