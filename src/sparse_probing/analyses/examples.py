"""Text in which a feature's best neuron fires, misses, or fires without reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.activations.extract import token_activations
from sparse_probing.activations.models import LoadedModel
from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.records import Site, Split

STRONGEST, MISSES, FALSE_ALARMS = 4, 2, 2
CONTEXT_TOKENS = 24
"""Tokens shown on either side of the strongest one."""
HISTOGRAM_BINS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedNeuron:
    """The neuron that stands for a feature."""

    feature: int
    layer: int
    unit: int
    name: str
    sign: int
    """+1 when it fires more in class, -1 when less."""


def activation_histograms(
    dataset: FeatureDataset, store: Activations, neurons: Sequence[NamedNeuron]
) -> list[dict[str, Any]]:
    """Counts of rows per activation bin, in class and out of class, over all splits."""
    result: list[dict[str, Any]] = []
    for neuron in neurons:
        rows = dataset.rows_of(neuron.feature)
        values = store.column(neuron.layer, neuron.unit, rows)
        edges = np.histogram_bin_edges(values, HISTOGRAM_BINS)
        positive = dataset.positive[rows, neuron.feature]
        inside, outside = (np.histogram(values[mask], edges)[0] for mask in (positive, ~positive))
        for low, high, n_in, n_out in zip(edges[:-1], edges[1:], inside, outside, strict=True):
            result.append(
                _where(dataset, neuron)
                | {"bin_low": float(low), "bin_high": float(high), "in_class": int(n_in), "out_of_class": int(n_out)}
            )
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenExample:
    """A test row that is to be shown."""

    neuron: NamedNeuron
    kind: str
    """`strongest`, `miss` or `false alarm`."""
    rank: int
    """1 is the most extreme of its kind."""
    row: int
    activation: float
    """Pooled activation of the row."""


def choose_examples(dataset: FeatureDataset, store: Activations, neurons: Sequence[NamedNeuron]) -> list[ChosenExample]:
    """Test rows where each neuron is strongest, and where it is most wrong.

    Strongest: the rows of largest activation (smallest, for a neuron that is lower in class), whatever their label.
    Misses: rows of the class with the weakest activation. False alarms: other rows with the strongest.
    """
    chosen: list[ChosenExample] = []
    for neuron in neurons:
        rows = dataset.rows_of(neuron.feature, Split.TEST)
        values = store.column(neuron.layer, neuron.unit, rows)
        for kind, picked in _pick(values * neuron.sign, dataset.positive[rows, neuron.feature]):
            chosen.extend(
                ChosenExample(neuron=neuron, kind=kind, rank=rank, row=int(rows[i]), activation=float(values[i]))
                for rank, i in enumerate(picked, 1)
            )
    return chosen


def show_examples(
    model: LoadedModel,
    dataset: FeatureDataset,
    sites: Sequence[Site],
    chosen: Sequence[ChosenExample],
    progress: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """The text of each chosen row with its neuron's activation at each token.

    Args:
        model: from `load_model`.
        dataset: owns the rows.
        sites: where the neurons live.
        chosen: from `choose_examples`.
        progress: called with the number of sequences done since the last call.
    """
    wanted: dict[int, set[tuple[int, int]]] = {}
    for example in chosen:
        pair = example.neuron.layer, example.neuron.unit
        wanted.setdefault(int(dataset.row_sequence[example.row]), set()).add(pair)
    traces = token_activations(model, dataset, sites, wanted, progress)
    return [
        _where(dataset, example.neuron)
        | {"kind": example.kind, "rank": example.rank, "row_activation": example.activation}
        | _excerpt(dataset, example, traces)
        for example in chosen
    ]


def _where(dataset: FeatureDataset, neuron: NamedNeuron) -> dict[str, Any]:
    return {
        "category": dataset.categories[neuron.feature],
        "feature": dataset.features[neuron.feature],
        "neuron": neuron.name,
    }


def _pick(strength: Float[np.ndarray, " row"], positive: np.ndarray) -> list[tuple[str, Int[np.ndarray, " _"]]]:
    order = np.argsort(-strength, kind="stable")
    return [
        ("strongest", order[:STRONGEST]),
        ("miss", order[positive[order]][::-1][:MISSES]),
        ("false alarm", order[~positive[order]][:FALSE_ALARMS]),
    ]


def _excerpt(
    dataset: FeatureDataset, example: ChosenExample, traces: dict[tuple[int, int, int], np.ndarray]
) -> dict[str, Any]:
    """The stretch around the row's strongest token, as pieces of text that join to the original."""
    row, neuron = example.row, example.neuron
    sequence = int(dataset.row_sequence[row])
    trace = traces[sequence, neuron.layer, neuron.unit]
    begin, end = int(dataset.sequence_starts[sequence]), int(dataset.sequence_starts[sequence + 1])
    first, last = int(dataset.row_first[row]), int(dataset.row_last[row])
    peak = first + int(np.argmax(trace[first:last] * neuron.sign))
    special = int(dataset.char_starts[begin] < 0)
    low = max(special, peak - CONTEXT_TOKENS)
    high = min(end - begin, peak + CONTEXT_TOKENS + 1)
    text = dataset.texts[dataset.sequence_document[sequence]]
    ends = np.maximum.accumulate(dataset.char_ends[begin + low : begin + high])
    starts = np.concatenate([[min(int(dataset.char_starts[begin + low]), int(ends[0]))], ends[:-1]])
    return {
        "document": dataset.document_ids[dataset.sequence_document[sequence]],
        "positive": bool(dataset.positive[row, neuron.feature]),
        "tokens": [text[a:b] for a, b in zip(starts, ends, strict=True)],
        "activations": [round(float(v), 4) for v in trace[low:high]],
        "first": max(first, low) - low,
        "last": min(last, high) - low,
    }
