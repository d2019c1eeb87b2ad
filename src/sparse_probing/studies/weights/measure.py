"""Weights of the neurons of a run."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_probing.activations.weights import read_weights
from sparse_probing.errors import InputError
from sparse_probing.open_run import OpenRun
from sparse_probing.records import NEURONS
from sparse_probing.results.findings import named_neurons
from sparse_probing.studies.study import Rows
from sparse_probing.studies.weights.output_weights import WeightTarget, next_token_counts, weight_evidence
from sparse_probing.studies.weights.tables import WEIGHT_TABLES


def weight_rows(run: OpenRun, features: Sequence[int], seed: int) -> Rows:
    """Rows of the tables in `WEIGHT_TABLES`; none where the run probed another site than MLP neurons."""
    empty: Rows = {name: [] for name in WEIGHT_TABLES}
    if run.sites[0].name != NEURONS:
        return empty
    backend = run.model.tokenizer.backend
    n_tokens = backend.n_tokens
    targets = []
    for neuron in named_neurons(run.dataset, run.tables["findings"], features):
        inside, outside = next_token_counts(run.dataset, neuron.feature, n_tokens)
        targets.append(
            WeightTarget(
                category=run.dataset.categories[neuron.feature],
                feature=run.dataset.features[neuron.feature],
                layer=neuron.layer,
                unit=neuron.unit,
                sign=neuron.sign,
                in_class=inside,
                out_of_class=outside,
            )
        )
    try:
        weights = read_weights(run.model.full or run.model.network, run.model.sites)
    except InputError as reason:  # weights that wait elsewhere or are quantised: the other evidence stands
        run.reporter.note(f"weights are left out: {reason}")
        return empty
    with run.reporter.stage("weights", weights.n_layers, "layer") as done:
        return empty | weight_evidence(
            weights,
            targets,
            token_text=backend.token_text,
            n_tokens=n_tokens,
            seed=seed,
            done=done,
        )
