"""Profiles and examples of the neurons of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparse_probing.activations.extract import sequence_tokens, token_activations
from sparse_probing.activations.token_statistics import unit_statistics
from sparse_probing.datasets.text_folder import TextSample
from sparse_probing.open_run import OpenRun
from sparse_probing.records import Split, task_rng
from sparse_probing.results.findings import NamedNeuron, named_neurons
from sparse_probing.studies.effects.texts import category_groups
from sparse_probing.studies.examples.examples import evidence_examples, where
from sparse_probing.studies.profile.profile import activation_profile, token_trace
from sparse_probing.studies.profile.tables import PROFILE_TABLES
from sparse_probing.studies.profile.text_examples import text_examples
from sparse_probing.studies.study import Rows


def profile_rows(run: OpenRun, features: Sequence[int], sample: TextSample | None, seed: int) -> Rows:
    """Rows of the tables in `PROFILE_TABLES`: every neuron at every token of its feature's test rows.

    Args:
        run: opened.
        features: numbers of features.
        sample: unlabelled text for further examples.
        seed: of random examples.
    """
    dataset, neurons = run.dataset, named_neurons(run.dataset, run.tables["findings"], features)
    rows_of = {neuron.feature: dataset.rows_of(neuron.feature, Split.TEST) for neuron in neurons}
    wanted: dict[int, set[tuple[int, int]]] = {}
    for neuron in neurons:
        for sequence in np.unique(dataset.row_sequence[rows_of[neuron.feature]]).tolist():
            wanted.setdefault(sequence, set()).add((neuron.layer, neuron.unit))
    with run.reporter.stage("profiles", 2 * len(wanted), "text") as done:
        traces = token_activations(run.model, dataset, run.sites, wanted, done)
        active = _active_shares(run, sorted(wanted), neurons, done)
    rows: Rows = {name: [] for name in PROFILE_TABLES}
    for neuron in neurons:
        mine = rows_of[neuron.feature]
        group, names = category_groups(dataset, neuron.feature, mine)
        trace = token_trace(
            dataset, neuron.feature, mine, traces,
            layer=neuron.layer, unit=neuron.unit, group_of_row=group, groups=names,
        )  # fmt: skip
        values = run.store.column(neuron.layer, neuron.unit, mine)
        made = activation_profile(
            trace, values, dataset.positive[mine, neuron.feature],
            sign=neuron.sign, where=where(dataset, neuron), unit=neuron.unit, active_share=active[neuron.layer],
        )  # fmt: skip
        rng = task_rng(seed, "examples", dataset.categories[neuron.feature], dataset.features[neuron.feature])
        made["evidence_examples"] = evidence_examples(dataset, neuron, mine, values, traces, rng)
        for name, found in made.items():
            rows[name] += found
    if sample is not None:
        for note in sample.notes:
            run.reporter.note(note)
        firing = [
            (neuron, row)
            for neuron, row in zip(neurons, rows["profiles"], strict=True)
            if row.get("best_threshold") is not None
        ]
        with run.reporter.stage("unlabelled text", None, "tok") as done:
            examples, figures = text_examples(
                run.model, dataset, sample, run.sites,
                [neuron for neuron, _ in firing], [row["best_threshold"] for _, row in firing], progress=done,
            )  # fmt: skip
        rows["evidence_examples"] += examples
        for (_, row), figure in zip(firing, figures, strict=True):
            row.update(figure)
    return rows


def _active_shares(
    run: OpenRun, sequences: Sequence[int], neurons: Sequence[NamedNeuron], done: Any
) -> dict[int, np.ndarray]:
    """Share of tokens at which each unit of the neurons' layers is above zero, special tokens aside."""
    dataset = run.dataset
    bounds = [(int(dataset.sequence_starts[s]), int(dataset.sequence_starts[s + 1])) for s in sequences]
    layers = {neuron.layer for neuron in neurons}
    statistics = unit_statistics(
        run.model,
        [sequence_tokens(dataset, s) for s in sequences],
        [dataset.char_starts[a:b] >= 0 for a, b in bounds],
        [site for site in run.sites if site.layer in layers],
        n_donors=0,
        rng=np.random.default_rng(0),
        progress=done,
    )
    return {site.layer: found.active for site, found in statistics.items()}
