"""Interventions on the neurons of every feature of a run; one file per finished feature, so that stopped work goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sparse_probing.activations.batches import TokenBudget
from sparse_probing.activations.effects import loss_budget
from sparse_probing.activations.models import no_head
from sparse_probing.config import VerifyConfig
from sparse_probing.errors import InputError
from sparse_probing.files import write_json
from sparse_probing.open_run import OpenRun
from sparse_probing.progress import Reporter
from sparse_probing.results.verdict import FEW
from sparse_probing.studies.effects.ablation import FEWEST_DOCUMENTS
from sparse_probing.studies.effects.doses import parse_dose
from sparse_probing.studies.effects.interventions import Support, Treatment, feature_effects, set_effects
from sparse_probing.studies.effects.matrix import neuron_sets
from sparse_probing.studies.effects.texts import EvidenceTexts, Scoring, category_texts, evidence_texts, parts_of
from sparse_probing.studies.request import Request
from sparse_probing.studies.study import Rows
from sparse_probing.sweep.task_folder import read_finished

MASKS = ("[MASK]", "<mask>")
"""How the mask token is written, by the tokenizers of masked language models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectsTask:
    """What is kept of one feature: rows of two tables, and what could not be measured."""

    remark: str | None
    ablations: list[dict[str, Any]]
    effect_matrix: list[dict[str, Any]]


def scoring_of(run: OpenRun) -> tuple[Scoring | None, str | None]:
    """What the model's loss is taken of, or why it has none."""
    if run.model.full is None:
        return None, no_head(run.model)
    if run.model.objective == "next token":
        return Scoring(None), None
    ids = [run.model.tokenizer.backend.id_of(mask) for mask in MASKS]
    mask = next((i for i in ids if i is not None), None)
    return (None, "its tokenizer has no mask token") if mask is None else (Scoring(mask), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What one feature's task will do."""

    feature: int
    evidence: EvidenceTexts | None
    supports: tuple[Support, ...]
    remark: str | None
    passes: int


def effect_rows(request: Request) -> Rows:
    """Rows of the tables in `EVIDENCE_TABLES`; those of `evidence` hold a remark only, the verdict needs the other studies."""
    run, config = request.run, request.config
    treatment = Treatment(
        kinds=config.kinds,
        doses=tuple(map(parse_dose, config.doses)),
        labelled_only=config.where == "labelled",
        placebos=config.placebos,
    )
    scoring, remark = scoring_of(run)
    if scoring is None:
        run.reporter.note(f"no loss can be measured: {remark}; the evidence rests on probes, weights and examples.")
        found = {f: EffectsTask(remark=remark, ablations=[], effect_matrix=[]) for f in request.features}
    else:
        found = run_effects(run, request.features, treatment, scoring, config, request.tasks, run.reporter)
    return {
        "ablations": [row for task in found.values() for row in task.ablations],
        "effect_matrix": [row for task in found.values() for row in task.effect_matrix],
        "evidence": [
            {"category": run.dataset.categories[f], "feature": run.dataset.features[f], "remark": task.remark}
            for f, task in found.items()
        ],
    }


def run_effects(
    run: OpenRun,
    features: Sequence[int],
    treatment: Treatment,
    scoring: Scoring,
    config: VerifyConfig,
    tasks: Path,
    reporter: Reporter,
) -> dict[int, EffectsTask]:
    """Interventions on every feature's neurons; one JSON file per finished feature."""
    sizes = sorted({size for size in config.sizes if size > 0})
    dataset = run.dataset
    found: dict[int, EffectsTask] = {}
    parts = {category: parts_of(dataset, category) for category in dict.fromkeys(dataset.categories)}
    wide = {
        category: category_texts(dataset, category, per_part=config.texts, scoring=scoring, seed=config.seed)
        for category in {dataset.categories[f] for f in features}
        if sizes
    }
    plans = [_plan(run, f, treatment, scoring, config, parts[dataset.categories[f]]) for f in features]
    if config.texts >= FEWEST_DOCUMENTS and (
        said := few_documents({dataset.features[p.feature]: p.evidence for p in plans})
    ):
        reporter.note(
            f"{said} More --texts help where they come from more documents; else more labelled text is needed."
        )
    beside = {category: len(evidence.texts) * (1 + len(sizes)) for category, (evidence, _) in wide.items()}
    total = sum(plan.passes + beside.get(dataset.categories[plan.feature], 0) for plan in plans)
    trusted: dict[int, bool] = {}
    budget = loss_budget(run.model, reporter.note)
    with reporter.stage("interventions", total, "text") as done:
        for plan in plans:
            category, name = dataset.categories[plan.feature], dataset.features[plan.feature]
            path = tasks / f"{plan.feature:04d}.json"
            known = read_finished(path, EffectsTask)
            if known is not None:
                found[plan.feature] = known
                done(plan.passes + beside.get(category, 0))
                continue
            ablations: list[dict[str, Any]] = []
            matrix: list[dict[str, Any]] = []
            if plan.evidence is not None:
                ablations = feature_effects(
                    run.model,
                    dataset,
                    plan.evidence,
                    plan.supports,
                    treatment,
                    feature=plan.feature,
                    probes=run.tables["probes"],
                    sites=run.sites,
                    seed=config.seed,
                    budget=budget,
                    trusted=trusted,
                    progress=done,
                )
            if sizes:
                matrix = _matrix(run, category, name, sizes, wide[category], config.seed, budget, trusted, done)
            task = EffectsTask(remark=plan.remark, ablations=ablations, effect_matrix=matrix)
            write_json(path, asdict(task))
            found[plan.feature] = task
    return found


def few_documents(chosen: Mapping[str, EvidenceTexts | None]) -> str | None:
    """Features whose texts come from too few documents for intervals, in one sentence; null where there are none.

    Args:
        chosen: feature -> its texts; null where it has none.
    """
    few = []
    for feature, evidence in chosen.items():
        if evidence is not None:
            sides = [len(np.unique(evidence.group[mask])) for mask in (evidence.positive, ~evidence.positive)]
            if min(sides) < FEWEST_DOCUMENTS:
                few.append(f"{feature} ({sides[0]} in class, {sides[1]} out of class)")
    if not few:
        return None
    return (
        f"too few documents for intervals, which need {FEWEST_DOCUMENTS} on each side: {', '.join(few)}. The effects of these "
        "features will have none, and their verdicts will not change."
    )


def _plan(
    run: OpenRun, feature: int, treatment: Treatment, scoring: Scoring, config: VerifyConfig, parts: list[str]
) -> _Plan:
    try:
        evidence = evidence_texts(
            run.dataset, feature, per_class=config.texts, parts=parts, scoring=scoring, seed=config.seed
        )
    except InputError as error:
        return _Plan(feature=feature, evidence=None, supports=(), remark=str(error), passes=0)
    supports = _supports(run, feature)
    passes = len(evidence.texts) * treatment.passes(len(supports))
    return _Plan(feature=feature, evidence=evidence, supports=supports, remark=None, passes=passes)


def _supports(run: OpenRun, feature: int) -> tuple[Support, ...]:
    """The best neuron, and the few neurons that were enough."""
    category, name = run.dataset.categories[feature], run.dataset.features[feature]
    finding = run.tables["findings"].filter(category=category, feature=name).row(0, named=True)
    sites = {site.layer: site for site in run.sites}
    supports = [Support(role="single", site=sites[finding["layer"]], units=(finding["unit"],))]
    enough = run.tables["probes"].filter(category=category, feature=name, split="test", role="enough")
    for layer, columns in enough.filter(pl.col("k").is_between(2, FEW)).select("layer", "columns").rows():
        supports.append(Support(role="enough", site=sites[layer], units=tuple(columns)))
    return tuple(supports)


def _matrix(
    run: OpenRun,
    category: str,
    feature: str,
    sizes: Sequence[int],
    wide: tuple[EvidenceTexts, dict[str, Any]],
    seed: int,
    budget: TokenBudget,
    trusted: dict[int, bool],
    done: Callable[[int], None],
) -> list[dict[str, Any]]:
    sets = neuron_sets(run.tables["findings"], run.tables["neurons"], category, [feature], sizes)
    if not sets:
        return []
    evidence, carried = wide
    return set_effects(
        run.model, run.dataset, evidence, carried, sets, run.sites,
        category=category, seed=seed, budget=budget, trusted=trusted, progress=done,
    )  # fmt: skip
