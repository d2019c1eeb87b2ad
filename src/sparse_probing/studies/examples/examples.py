"""Text in which a feature's best neuron fires, misses, or fires without reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.activations.extract import token_activations
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.near_duplicates import jaccard, shingles
from sparse_probing.records import Site, Split
from sparse_probing.results.findings import NamedNeuron

STRONGEST, MISSES, FALSE_ALARMS = 4, 2, 2
CONTEXT_TOKENS = 24
"""Tokens shown on either side of the strongest one."""
HISTOGRAM_BINS = 40
AT_RANDOM = 2
"""Random rows shown on each side."""
EXAMPLE_QUANTILES = (90, 75, 50, 25, 10)
"""Per cent: levels of activation of which one example each is shown."""
QUANTILE_REACH = 40
"""A row within 1/40 of all rows of a quantile may stand for it."""
SAME_EXAMPLE = 0.5
"""Excerpts that share so many of their five-word sequences (Jaccard similarity) are the same example."""


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
                where(dataset, neuron)
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
    return [_shown(dataset, example, traces) for example in chosen]


class DistinctExamples:
    """Refuses an excerpt that nearly repeats an earlier one: half of their distinct five-word sequences are the same.

    Two windows on one text are thus shown twice only when they overlap by less than about two thirds.
    """

    def __init__(self) -> None:
        self._seen: list[np.ndarray] = []

    def accepts(self, example: Mapping[str, Any]) -> bool:
        """Whether the example is new; it counts as seen from then on."""
        mine = shingles("".join(example["tokens"]))
        if any(jaccard(mine, other) >= SAME_EXAMPLE for other in self._seen):
            return False
        self._seen.append(mine)
        return True


def evidence_examples(
    dataset: FeatureDataset,
    neuron: NamedNeuron,
    rows: Int[np.ndarray, " row"],
    values: Float[np.ndarray, " row"],
    traces: Mapping[tuple[int, int, int], np.ndarray],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Examples of all kinds for one neuron, none twice: strongest, miss, false alarm, by quantile, random on each side.

    Quantiles are those of the activation as it is, also for a neuron that is lower in class. A kind is shorter where only
    repetitions of what is already shown are left (see `DistinctExamples`).

    Args:
        dataset: owns the rows.
        neuron: whose activation is shown.
        rows: rows to choose from, for example those of the test split.
        values: pooled activation of each of them.
        traces: from `token_activations`, for the sequences of all `rows`.
        rng: draws the random rows.
    """
    distinct = DistinctExamples()
    positive = dataset.positive[rows, neuron.feature]
    result: list[dict[str, Any]] = []
    for kind, most, candidates in _candidates(values, values * neuron.sign, positive, rng):
        rank = 0
        for i in candidates.tolist():
            example = ChosenExample(
                neuron=neuron, kind=kind, rank=rank + 1, row=int(rows[i]), activation=float(values[i])
            )
            shown = _shown(dataset, example, traces) | {"source": "labelled"}
            if distinct.accepts(shown):
                result.append(shown)
                rank += 1
            if rank == most:
                break
    return result


def _candidates(
    values: Float[np.ndarray, " row"],
    strength: Float[np.ndarray, " row"],
    positive: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[tuple[str, int, Int[np.ndarray, " _"]]]:
    """Kind, number wanted, and the rows that would do, best first."""
    order = np.argsort(-strength, kind="stable")
    yield "strongest", STRONGEST, order
    yield "miss", MISSES, order[positive[order]][::-1]
    yield "false alarm", FALSE_ALARMS, order[~positive[order]]
    for quantile in EXAMPLE_QUANTILES:
        yield f"quantile {quantile}", 1, near_quantile(values, quantile)
    for kind, members in (("random in class", positive), ("random out of class", ~positive)):
        yield kind, AT_RANDOM, rng.permutation(np.flatnonzero(members))


def near_quantile(values: Float[np.ndarray, " _"], quantile: int) -> Int[np.ndarray, " _"]:
    """Indices of the values nearest to a quantile (per cent) in rank, nearest first, within a fortieth of all."""
    order = np.argsort(values, kind="stable")
    away = np.abs(np.arange(len(values)) - quantile / 100 * (len(values) - 1))
    near = np.argsort(away, kind="stable")[: 1 + len(values) // QUANTILE_REACH * 2]
    return order[near]


def _shown(
    dataset: FeatureDataset, example: ChosenExample, traces: Mapping[tuple[int, int, int], np.ndarray]
) -> dict[str, Any]:
    row, neuron = example.row, example.neuron
    sequence = int(dataset.row_sequence[row])
    trace = traces[sequence, neuron.layer, neuron.unit]
    bounds = int(dataset.row_first[row]), int(dataset.row_last[row])
    return (
        where(dataset, neuron)
        | {"kind": example.kind, "rank": example.rank, "row_activation": example.activation}
        | {"positive": bool(dataset.positive[row, neuron.feature])}
        | excerpt(dataset, sequence, bounds, trace, neuron.sign)
    )


def where(dataset: FeatureDataset, neuron: NamedNeuron) -> dict[str, Any]:
    """Category, feature and name of a neuron: how rows of tables begin."""
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


def excerpt(
    dataset: FeatureDataset,
    sequence: int,
    bounds: tuple[int, int],
    trace: Float[np.ndarray, " token"],
    sign: int,
) -> dict[str, Any]:
    """The stretch around the strongest token of a row, as pieces of text that join to the original.

    Args:
        dataset: owns the sequence.
        sequence: its number.
        bounds: first token of the row and one past its last, within the sequence.
        trace: activation at each token of the sequence.
        sign: 1 where the strongest is the largest, -1 where it is the smallest.
    """
    begin, end = int(dataset.sequence_starts[sequence]), int(dataset.sequence_starts[sequence + 1])
    first, last = bounds
    peak = first + int(np.argmax(trace[first:last] * sign))
    of_text = np.flatnonzero(dataset.char_starts[begin:end] >= 0)  # not what stands around it
    low = max(int(of_text[0]), peak - CONTEXT_TOKENS)
    high = min(int(of_text[-1]) + 1, peak + CONTEXT_TOKENS + 1)
    text = dataset.texts[dataset.sequence_document[sequence]]
    ends = np.maximum.accumulate(dataset.char_ends[begin + low : begin + high])
    starts = np.concatenate([[min(int(dataset.char_starts[begin + low]), int(ends[0]))], ends[:-1]])
    return {
        "document": dataset.document_ids[dataset.sequence_document[sequence]],
        "tokens": [text[a:b] for a, b in zip(starts, ends, strict=True)],
        "activations": [round(float(v), 4) for v in trace[low:high]],
        "first": max(first, low) - low,
        "last": min(last, high) - low,
    }
