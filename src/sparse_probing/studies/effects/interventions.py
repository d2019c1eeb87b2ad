"""All interventions on the neurons of one feature, measured on the same texts: the model is changed, its loss is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from sparse_probing.activations.batches import TokenBudget
from sparse_probing.activations.effects import Effects, Reads, Variant, measure
from sparse_probing.activations.extract import token_activations
from sparse_probing.activations.interventions import Intervention
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.token_statistics import UnitStatistics, unit_statistics
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.records import Site, task_rng, unit_name
from sparse_probing.studies.effects.ablation import RowLosses, effect_row, row_losses
from sparse_probing.studies.effects.doses import CLAMP, ZERO, Dose, new_values
from sparse_probing.studies.effects.downstream import downstream_row, later_probe
from sparse_probing.studies.effects.matrix import NeuronSet, matrix_rows
from sparse_probing.studies.effects.placebo import draw_placebos
from sparse_probing.studies.effects.texts import EvidenceTexts

DONORS = 1_024
"""Tokens whose values are kept, to draw from when a unit is resampled."""
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Neurons of one layer that stand for a feature."""

    role: str
    """`single` or `enough`."""
    site: Site
    units: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What is done to a support."""

    kinds: tuple[str, ...] = (ZERO,)
    doses: tuple[Dose, ...] = ()
    """Of clamps."""
    labelled_only: bool = False
    placebos: int = 20

    def steps(self) -> list[tuple[str, Dose | None]]:
        """(kind, dose) of each intervention."""
        plain: list[tuple[str, Dose | None]] = [(kind, None) for kind in self.kinds if kind != CLAMP]
        return plain + [(CLAMP, dose) for dose in self.doses if CLAMP in self.kinds]

    def passes(self, supports: int) -> int:
        """Passes per text, the bare one included."""
        return 1 + supports * len(self.steps()) * (1 + self.placebos)


@dataclass(slots=True)
class _Trial:
    """One support under one treatment: where its pass and those of its placebos stand among the variants."""

    support: Support
    kind: str
    dose: Dose | None
    values: Float[np.ndarray, "sample unit"]
    placebos: Int[np.ndarray, "placebo unit"]
    mine: int
    others: list[int] = field(default_factory=list)


def feature_effects(
    model: LoadedModel,
    dataset: FeatureDataset,
    evidence: EvidenceTexts,
    supports: Sequence[Support],
    treatment: Treatment,
    *,
    feature: int,
    probes: pl.DataFrame,
    sites: Sequence[Site],
    seed: int,
    budget: TokenBudget,
    trusted: dict[int, bool],
    progress: Progress = lambda _: None,
) -> list[dict[str, Any]]:
    """Rows of the table `ablations` for one feature.

    Args:
        model: with head.
        dataset: rows and labels.
        evidence: texts of both classes.
        supports: what is changed.
        treatment: how.
        feature: number of the feature.
        probes: of the run, for the later probe that is read meanwhile.
        sites: probed layers.
        seed: of placebos, donors and bootstrap.
        budget: tokens per batch; shared by the features of one analysis, as is `trusted` (see `Replay`).
        trusted: filled here.
        progress: told the number of text passes just done.
    """
    category, name = dataset.categories[feature], dataset.features[feature]
    changed_sites = list({support.site.layer: support.site for support in supports}.values())
    statistics = unit_statistics(
        model,
        [text.tokens for text in evidence.texts],
        [text.labelled for text in evidence.texts],
        changed_sites,
        n_donors=DONORS,
        rng=task_rng(seed, "donors", category, name),
    )
    in_class = _values_in_class(model, dataset, evidence, supports) if CLAMP in treatment.kinds else {}
    variants, trials = _plan(supports, treatment, statistics, in_class, task_rng(seed, "placebos", category, name))
    later = {s.role: later_probe(probes, category, name, s.site.layer) for s in supports}
    reads = _reads(dataset, evidence, [p for p in later.values() if p], sites)
    effects = measure(model, evidence.texts, variants, reads=reads, budget=budget, trusted=trusted, progress=progress)
    losses = losses_of(effects, dataset, evidence)
    result = []
    for trial in trials:
        rng = task_rng(seed, "bootstrap", category, name)  # the same resamples for every trial
        row = {"category": category, "feature": name} | _described(trial, treatment, statistics[trial.support.site])
        row |= effect_row(losses, trial.mine, trial.others, rng)
        probe = later[trial.support.role]
        if probe is not None:
            read = effects.read[_site_of(sites, probe["layer"])]
            assert reads is not None
            wanted = np.searchsorted(reads.units[_site_of(sites, probe["layer"])], probe["columns"])
            row |= downstream_row(read[..., wanted], evidence.positive, probe, trial.mine, trial.others)
        result.append(row)
    return result


def set_effects(
    model: LoadedModel,
    dataset: FeatureDataset,
    evidence: EvidenceTexts,
    carried: dict[str, np.ndarray],
    sets: Sequence[NeuronSet],
    sites: Sequence[Site],
    *,
    category: str,
    seed: int,
    budget: TokenBudget,
    trusted: dict[int, bool],
    progress: Progress = lambda _: None,
) -> list[dict[str, Any]]:
    """Rows of the table `effect_matrix`: each set is set to zero, at every position.

    Args:
        model: with head.
        dataset: rows and labels.
        evidence: texts of every feature of the category.
        carried: from `category_texts`.
        sets: what is switched off.
        sites: probed layers.
        category: whose features these are.
        seed: of the bootstrap.
        budget: as in `feature_effects`.
        trusted: as in `feature_effects`.
        progress: told the number of text passes just done.
    """
    variants = []
    for chosen in sets:
        layers = sorted({layer for layer, _ in chosen.neurons})
        units = {layer: tuple(u for at, u in chosen.neurons if at == layer) for layer in layers}
        variants.append(
            Variant(
                interventions=tuple(
                    Intervention(
                        site=_site_of(sites, layer), units=units[layer], values=np.zeros((1, len(units[layer])))
                    )
                    for layer in layers
                )
            )
        )
    effects = measure(model, evidence.texts, variants, budget=budget, trusted=trusted, progress=progress)
    rows = matrix_rows(losses_of(effects, dataset, evidence), sets, carried, task_rng(seed, "matrix", category))
    site = sites[0].name
    names = {(s.feature, s.size): [unit_name(site, layer, unit) for layer, unit in s.neurons] for s in sets}
    return [{"category": category, "neurons": names[row["switched_off"], row["size"]]} | row for row in rows]


def losses_of(effects: Effects, dataset: FeatureDataset, evidence: EvidenceTexts) -> RowLosses:
    """Losses by row instead of by position."""
    members = evidence.members(dataset, effects.text, effects.position)
    return row_losses(effects.loss, members, evidence.positive, evidence.group)


def _plan(
    supports: Sequence[Support],
    treatment: Treatment,
    statistics: dict[Site, UnitStatistics],
    in_class: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> tuple[list[Variant], list[_Trial]]:
    variants: list[Variant] = []
    trials = []

    def add(site: Site, units: Sequence[int], values: np.ndarray) -> int:
        intervention = Intervention(site=site, units=tuple(units), values=values)
        variants.append(Variant(interventions=(intervention,), labelled_only=treatment.labelled_only))
        return len(variants) - 1

    for support in supports:
        site, known = support.site, statistics[support.site]
        placebos = draw_placebos(support.units, known, treatment.placebos, rng)
        values = in_class.get(support.role, np.zeros((0, len(support.units))))
        for kind, dose in treatment.steps():
            made = new_values(kind, dose, support.units, known, values)
            trial = _Trial(support, kind, dose, made, placebos, add(site, support.units, made))
            for units in placebos.tolist():
                trial.others.append(add(site, units, new_values(kind, dose, units, known, values)))
            trials.append(trial)
    return variants, trials


def _values_in_class(
    model: LoadedModel, dataset: FeatureDataset, evidence: EvidenceTexts, supports: Sequence[Support]
) -> dict[str, np.ndarray]:
    """Activations of each support's units at every token of the class, [token, unit]: what the heights of clamps are taken from."""
    rows = evidence.row[evidence.positive]
    units = {(support.site.layer, unit) for support in supports for unit in support.units}
    traces = token_activations(
        model, dataset, [s.site for s in supports], {s: units for s in dataset.row_sequence[rows].tolist()}
    )
    spans = [
        (sequence, slice(first, last))
        for sequence, first, last in zip(
            dataset.row_sequence[rows].tolist(), dataset.row_first[rows], dataset.row_last[rows], strict=True
        )
    ]
    return {
        support.role: np.stack(
            [np.concatenate([traces[s, support.site.layer, u][span] for s, span in spans]) for u in support.units],
            axis=1,
        )
        for support in supports
    }


def _reads(
    dataset: FeatureDataset, evidence: EvidenceTexts, probes: Sequence[dict[str, Any]], sites: Sequence[Site]
) -> Reads | None:
    if not probes:
        return None
    units: dict[Site, np.ndarray] = {}
    for probe in probes:
        site = _site_of(sites, probe["layer"])
        units[site] = np.union1d(units.get(site, np.zeros(0, dtype=int)), probe["columns"]).astype(int)
    return Reads(
        units=units,
        text=evidence.row_text,
        first=dataset.row_first[evidence.row],
        last=dataset.row_last[evidence.row],
        pooling=dataset.row_pooling[evidence.row],
    )


def _site_of(sites: Sequence[Site], layer: int) -> Site:
    return next(site for site in sites if site.layer == layer)


def _described(trial: _Trial, treatment: Treatment, statistics: UnitStatistics) -> dict[str, Any]:
    support, units = trial.support, list(trial.support.units)
    site = support.site
    matched = trial.placebos if len(trial.placebos) else np.zeros((0, len(units)), dtype=int)
    return {
        "support": support.role,
        "neurons": [unit_name(site.name, site.layer, unit) for unit in units],
        "layer": site.layer,
        "kind": trial.kind,
        "dose": trial.dose.text if trial.dose else None,
        "values": trial.values[0].tolist() if len(trial.values) == 1 else None,
        "where": "labelled" if treatment.labelled_only else "all",
        "placebo_neurons": ["+".join(unit_name(site.name, site.layer, int(u)) for u in row) for row in matched],
        "activity": float(statistics.size[units].mean()),
        "placebo_activity": float(statistics.size[matched].mean()) if matched.size else None,
        "output_norm": float(statistics.output_norm[units].mean()),
        "placebo_output_norm": float(statistics.output_norm[matched].mean()) if matched.size else None,
    }
