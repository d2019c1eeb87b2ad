"""A neuron on text without labels: where it is strongest, windows at every level of activation, how often it fires."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.activations.extract import token_activations
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.strongest import WatchedUnit, strongest_tokens
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.text_folder import TextSample
from sparse_probing.datasets.unlabelled import every_token
from sparse_probing.records import Site
from sparse_probing.results.findings import NamedNeuron
from sparse_probing.studies.examples.examples import (
    EXAMPLE_QUANTILES,
    DistinctExamples,
    excerpt,
    near_quantile,
    where,
)

STRONGEST = 6
"""Windows shown where the neuron is strongest."""
SPARE = 4
"""Windows read for each one that is shown, as some repeat others."""


def text_examples(
    model: LoadedModel,
    labelled: FeatureDataset,
    sample: TextSample,
    sites: Sequence[Site],
    neurons: Sequence[NamedNeuron],
    thresholds: Sequence[float],
    *,
    window: int = 256,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Examples and figures of several neurons from one pass over the text.

    Texts are cut into windows, of each of which only the strongest token is kept; the few windows that are shown are read
    once more. Quantiles are those of the windows' strongest tokens. Excerpts that nearly repeat each other are shown once
    per neuron (see `DistinctExamples`).

    Args:
        model: from `load_model`.
        labelled: knows the neurons' features by name.
        sample: from `read_texts`.
        sites: where the neurons live, one per layer.
        neurons: to be watched.
        thresholds: activation of each neuron from which on it counts as firing, for example `best_threshold` of its profile.
        window: tokens of a window, special tokens included.
        progress: called with the number of tokens done since the last call.

    Returns:
        Rows of `evidence_examples`, source `text`; and per neuron the columns `text_...` of `profiles`.
    """
    texts = replace(every_token(sample.texts, model.tokenizer, window), document_ids=sample.names)
    watched = [
        WatchedUnit(layer=n.layer, unit=n.unit, sign=n.sign, threshold=float(t))
        for n, t in zip(neurons, thresholds, strict=True)
    ]
    peaks = strongest_tokens(model, texts, sites, watched, progress)
    chosen = [list(_candidates(peaks.value[i], neuron.sign)) for i, neuron in enumerate(neurons)]
    wanted: dict[int, set[tuple[int, int]]] = {}
    for neuron, kinds in zip(neurons, chosen, strict=True):
        for sequence in {int(s) for _, _, found in kinds for s in found}:
            wanted.setdefault(sequence, set()).add((neuron.layer, neuron.unit))
    traces = token_activations(model, texts, sites, wanted)
    examples: list[dict[str, Any]] = []
    for i, (neuron, kinds) in enumerate(zip(neurons, chosen, strict=True)):
        distinct = DistinctExamples()
        for kind, most, found in kinds:
            rank = 0
            for sequence in found.tolist():
                at = int(peaks.position[i, sequence])
                trace = traces[sequence, neuron.layer, neuron.unit]
                shown = excerpt(texts, sequence, (at, at + 1), trace, neuron.sign)
                if rank < most and distinct.accepts(shown):
                    rank += 1
                    about = {"kind": kind, "rank": rank, "row_activation": float(peaks.value[i, sequence])}
                    examples.append(where(labelled, neuron) | about | shown | {"source": "text"})
    figures = [
        {
            "text_documents": len(sample.texts),
            "text_tokens": texts.n_rows,
            "text_share_above": int(peaks.beyond[i].sum()) / texts.n_rows,
            "text_largest": float((peaks.value[i] * neuron.sign).max() * neuron.sign),
        }
        for i, neuron in enumerate(neurons)
    ]
    return examples, figures


def _candidates(peaks: Float[np.ndarray, " sequence"], sign: int) -> Iterator[tuple[str, int, Int[np.ndarray, " _"]]]:
    """Kind, number wanted, and the sequences that would do, best first."""
    yield "strongest", STRONGEST, np.argsort(-sign * peaks, kind="stable")[: SPARE * STRONGEST]
    for quantile in EXAMPLE_QUANTILES:
        yield f"quantile {quantile}", 1, near_quantile(peaks, quantile)[:SPARE]
