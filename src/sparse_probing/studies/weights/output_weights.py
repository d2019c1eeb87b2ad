"""What a neuron writes, read from the weights: tokens that it raises and lowers, and the neurons that read it.

The direct effect of a neuron on the logit of a token is `unembedding · w_out` per unit of activation, norms folded (paper section
on end-of-sentence neurons; Dar et al. 2022). It is the share that no later layer touches; the final norm divides it by the size of
the residual stream, a positive number that is the same for all tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from sparse_probing.activations.weights import MlpWeights, ModelWeights
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS, task_rng, unit_name
from sparse_probing.studies.weights.statistics import layer_rows, neuron_statistics, percentile, standing

SHOWN_TOKENS = 10
SHOWN_COMPOSITIONS = 5
MIN_COUNT = 5
"""Tokens seen less often say nothing about the class's vocabulary; fewer such tokens on a side give no agreement."""
OVER_REPRESENTED = float(np.log(2))
"""Log odds ratio from which a token belongs to the class's vocabulary: its odds are at least doubled."""
SAMPLED = 500
"""Other neurons of the layer for kurtosis and agreement, at most."""
COMPARED = 64
"""Random directions, and other neurons of the layer, for the largest cosine with later input weights."""
BLOCK = 64
"""Neurons whose effects on the whole vocabulary are held at once."""

Vocabulary = tuple[Bool[np.ndarray, " token"], Bool[np.ndarray, " token"]]
"""Tokens of a class, and the tokens that they are told from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightTarget:
    """A neuron that stands for a feature, and the feature's vocabulary."""

    category: str
    feature: str
    layer: int
    unit: int
    sign: int
    """+1 when it fires more in class, -1 when less."""
    in_class: Int[np.ndarray, " token"]
    """How often each token of the vocabulary comes next in class (`next_token_counts`)."""
    out_of_class: Int[np.ndarray, " token"]

    @property
    def key(self) -> dict[str, str]:
        """First columns of its rows."""
        name = unit_name(NEURONS, self.layer, self.unit)
        return {"category": self.category, "feature": self.feature, "neuron": name}


def next_token_counts(
    dataset: FeatureDataset, feature: int, n_tokens: int
) -> tuple[Int[np.ndarray, " token"], Int[np.ndarray, " token"]]:
    """How often each token follows a position of a row in class, and of a row out of class, over all splits.

    Logits at a position are about the token after it. Positions that several rows share count once; special tokens do not.
    """
    counts: list[np.ndarray] = []
    rows = dataset.rows_of(feature)
    for wanted in (True, False):
        chosen = rows[dataset.positive[rows, feature] == wanted]
        sequence = dataset.row_sequence[chosen]
        first = dataset.sequence_starts[sequence] + dataset.row_first[chosen] + 1
        last = np.minimum(
            first - dataset.row_first[chosen] + dataset.row_last[chosen], dataset.sequence_starts[sequence + 1]
        )
        length = np.maximum(last - first, 0)
        follows = np.repeat(first - np.cumsum(length) + length, length) + np.arange(length.sum())
        follows = np.unique(follows)
        tokens = dataset.tokens[follows[dataset.char_starts[follows] >= 0]]
        counts.append(np.bincount(tokens, minlength=n_tokens)[:n_tokens])
    return counts[0], counts[1]


def weight_evidence(
    weights: ModelWeights,
    targets: Sequence[WeightTarget],
    *,
    token_text: Callable[[int], str],
    n_tokens: int,
    seed: int,
    done: Callable[[int], None] = lambda _: None,
) -> dict[str, list[dict[str, Any]]]:
    """Rows of all weight tables; every layer is read once.

    Args:
        weights: from `read_weights`, of the network with its language-model head.
        targets: neurons of the run.
        token_text: a token of the vocabulary as text.
        n_tokens: size of the tokenizer's vocabulary; further rows of the unembedding pad it, and were never trained.
        seed: of the run; decides which other neurons and random directions are compared.
        done: called with the number of layers done since the last call.

    Returns:
        Table name (as in `WEIGHT_TABLES`) -> rows. What a model does not have is missing, with the reason in `notes`.
    """
    tables: dict[str, list[dict[str, Any]]] = {"weight_statistics": [], "logit_tokens": [], "compositions": []}
    found: dict[int, dict[str, Any]] = {}
    writers: list[_Writers] = []
    unembedding, no_head = _or_reason(weights.unembedding)
    embedding, no_embedding = _or_reason(weights.embedding) if any(t.layer == 0 for t in targets) else (None, "")
    for layer in range(weights.n_layers):
        mine = {i: target for i, target in enumerate(targets) if target.layer == layer}
        mlp, no_mlp = _or_reason(lambda layer=layer: weights.mlp(layer))
        for i, target in mine.items():
            notes = (
                [no_mlp] if mlp is None else _notes(mlp, bent=weights.logits_bent) + [no_head] * (unembedding is None)
            )
            found[i] = target.key | {"layer": layer, "unit": target.unit, "sign": target.sign, "notes": notes}
        if mlp is not None:
            statistics = neuron_statistics(mlp)
            tables["weight_statistics"] += layer_rows(layer, statistics)
            for reader in writers:
                reader.read_by(layer, mlp)
            others = _others(task_rng(seed, "weights", layer), len(mlp.w_in), [t.unit for t in mine.values()])
            for i, target in mine.items():
                found[i] |= standing(statistics, target.unit)
                if layer == 0 and embedding is not None:
                    tables["logit_tokens"] += _input_tokens(target, mlp, embedding[:n_tokens], token_text)
                elif layer == 0:
                    found[i]["notes"].append(no_embedding)
            if mine and unembedding is not None:
                effects = _Effects(mlp, unembedding[:n_tokens], list(mine.values()), others)
                for (i, target), row in zip(mine.items(), effects.rows(), strict=True):
                    found[i] |= row
                    tables["logit_tokens"] += effects.tokens(target, token_text)
            if mine and not mlp.post_norm and layer + 1 < weights.n_layers:
                writers.append(_Writers(mlp, mine, others[:COMPARED], task_rng(seed, "directions", layer)))
        done(1)
    for writer in writers:
        for i, target in writer.targets.items():
            found[i] |= writer.thresholds()
            tables["compositions"] += [target.key | row for row in writer.strongest(i)]
    return tables | {"output_weights": [found[i] for i in sorted(found)]}


def moments(effects: Float[np.ndarray, "unit token"]) -> dict[str, Float[np.ndarray, " unit"]]:
    """Mean, variance, skew and excess kurtosis over the vocabulary; the last two are NaN where all effects are equal."""
    centred = effects.astype(np.float64)
    mean = centred.mean(1)
    centred -= mean[:, None]
    variance = (centred**2).mean(1)
    spread = np.where(variance > 0, variance, np.nan)
    skew, fourth = (centred**3).mean(1) / spread**1.5, (centred**4).mean(1) / spread**2
    return {"mean": mean, "variance": variance, "skew": skew, "kurtosis": fourth - 3}


def class_vocabulary(in_class: Int[np.ndarray, " token"], out_of_class: Int[np.ndarray, " token"]) -> Vocabulary:
    """Tokens over-represented in class by smoothed log odds, and the other tokens that are seen often enough.

    Both sides are smoothed towards the frequencies of the two together (Monroe, Colaresi and Quinn 2008), by half a count per
    distinct token: a class with little text has no vocabulary of its own.
    """
    total = in_class + out_of_class
    seen = total >= MIN_COUNT
    chosen = np.zeros_like(seen)
    if seen.sum() > 1:
        prior = 0.5 * (total > 0).sum() * total / total.sum()
        inside, outside = in_class + prior, out_of_class + prior
        logits = [np.log(side[seen] / (side.sum() - side[seen])) for side in (inside, outside)]
        chosen[seen] = logits[0] - logits[1] >= OVER_REPRESENTED
    return chosen, seen & ~chosen


def agreement(
    effects: Float[np.ndarray, "unit token"], vocabularies: Sequence[Vocabulary]
) -> list[Float[np.ndarray, " unit"]]:
    """ROC-AUC of each neuron's effects, per vocabulary: the chance that a chosen token is raised more than one of the rest."""
    ranks: dict[bytes, np.ndarray] = {}  # features of one category are told from the same tokens
    areas: list[np.ndarray] = []
    for chosen, rest in vocabularies:
        seen = chosen | rest
        key = seen.tobytes()
        if key not in ranks:
            ranks[key] = rankdata(effects[:, seen], axis=1)
        n, m = int(chosen.sum()), int(rest.sum())
        areas.append((ranks[key][:, chosen[seen]].sum(1) - n * (n + 1) / 2) / (n * m))
    return areas


def two_sided_p(value: float, others: Float[np.ndarray, " other"]) -> float:
    """Chance of a value as far out as this one, on whichever side of the others it lies (with the +1 of permutation tests)."""
    tails = (1 + (others >= value).sum(), 1 + (others <= value).sum())
    return min(1.0, float(2 * min(tails) / (1 + len(others))))


class _Effects:
    """Direct effects of a layer's named neurons, and how they stand among others of the layer."""

    def __init__(
        self, mlp: MlpWeights, unembedding: np.ndarray, targets: Sequence[WeightTarget], others: np.ndarray
    ) -> None:
        self.targets = targets
        self.n_sampled = len(others)
        self.own = mlp.w_out[[t.unit for t in targets]] @ unembedding.T
        self.words = [class_vocabulary(t.in_class, t.out_of_class) for t in targets]
        self.agrees = [min(chosen.sum(), rest.sum()) >= MIN_COUNT for chosen, rest in self.words]
        usable = [words for words, agrees in zip(self.words, self.agrees, strict=True) if agrees]
        kurtosis: list[np.ndarray] = []
        areas: list[list[np.ndarray]] = []
        for first in range(0, len(others), BLOCK):
            block = mlp.w_out[others[first : first + BLOCK]] @ unembedding.T
            kurtosis.append(moments(block)["kurtosis"])
            areas.append(agreement(block, usable))
        self.kurtosis = np.concatenate([np.empty(0), *kurtosis])
        told = iter([np.concatenate(parts) for parts in zip(*areas, strict=True)])
        self.areas = [next(told, np.empty(0)) if agrees else np.empty(0) for agrees in self.agrees]

    def rows(self) -> list[dict[str, Any]]:
        """Columns of `output_weights`, one row per target."""
        told = moments(self.own)
        rows: list[dict[str, Any]] = []
        for t, (chosen, rest) in enumerate(self.words):
            row: dict[str, Any] = {f"effect_{name}": float(v[t]) for name, v in told.items() if not np.isnan(v[t])}
            row |= {"n_sampled": self.n_sampled, "n_class_tokens": int(chosen.sum()), "n_other_tokens": int(rest.sum())}
            if "effect_kurtosis" in row and self.n_sampled:
                row["kurtosis_percentile"] = percentile(row["effect_kurtosis"], self.kurtosis)
            if self.agrees[t]:
                area = float(agreement(self.own[t : t + 1], [(chosen, rest)])[0][0])
                row |= {"agreement": area, "agreement_p": two_sided_p(area, self.areas[t]) if self.n_sampled else None}
            rows.append(row)
        return rows

    def tokens(self, target: WeightTarget, token_text: Callable[[int], str]) -> list[dict[str, Any]]:
        """Tokens that a target raises and lowers most."""
        t = next(i for i, other in enumerate(self.targets) if other is target)
        order = np.argsort(-self.own[t], kind="stable")
        chosen, rest = self.words[t]
        return [
            row | {"in_vocabulary": bool(chosen[row["token_id"]]) if (chosen | rest)[row["token_id"]] else None}
            for kind, ids in (("top", order[:SHOWN_TOKENS]), ("bottom", order[::-1][:SHOWN_TOKENS]))
            for row in _token_rows(target, kind, ids, self.own[t], token_text)
        ]


@dataclass(slots=True, eq=False)
class _Writers:
    """Named neurons of one layer, random directions and other neurons, against the input weights of later layers."""

    mlp: MlpWeights
    targets: dict[int, WeightTarget]
    others: Int[np.ndarray, " other"]
    rng: np.random.Generator
    directions: np.ndarray = field(init=False)
    largest: np.ndarray = field(init=False)
    best: list[list[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        named = [target.unit for target in self.targets.values()]
        random = self.rng.standard_normal((COMPARED, self.mlp.w_out.shape[1])).astype(np.float32)
        if self.mlp.centred:
            random -= random.mean(1, keepdims=True)
        self.directions = _unit(np.concatenate([self.mlp.w_out[named], random, self.mlp.w_out[self.others]]))
        self.largest = np.zeros(len(self.directions))
        self.best = [[] for _ in named]

    def read_by(self, layer: int, mlp: MlpWeights) -> None:
        """Take a later layer into account."""
        for side, weight in (("in", mlp.w_in), ("gate", mlp.w_gate)):
            if weight is None:
                continue
            cosines = _unit(weight) @ self.directions.T
            self.largest = np.maximum(self.largest, np.abs(cosines).max(0))
            for n, best in enumerate(self.best):
                for unit in np.argsort(-np.abs(cosines[:, n]), kind="stable")[:SHOWN_COMPOSITIONS].tolist():
                    best.append({"layer": layer, "unit": unit, "side": side, "cosine": float(cosines[unit, n])})

    def strongest(self, i: int) -> list[dict[str, Any]]:
        """Rows of `compositions` of one target."""
        best = self.best[list(self.targets).index(i)]
        best = sorted(best, key=lambda row: (-abs(row["cosine"]), row["layer"], row["unit"], row["side"]))
        return [
            row | {"rank": rank, "reader": unit_name(NEURONS, row["layer"], row["unit"])}
            for rank, row in enumerate(best[:SHOWN_COMPOSITIONS], 1)
        ]

    def thresholds(self) -> dict[str, float | None]:
        """The largest |cosine| that 95 % of random directions, and of other neurons of the layer, stay below."""
        random, others = np.split(self.largest[len(self.targets) :], [COMPARED])
        return {
            "composition_random": float(np.quantile(random, 0.95)),
            "composition_layer": float(np.quantile(others, 0.95)) if len(others) else None,
        }


def _input_tokens(
    target: WeightTarget, mlp: MlpWeights, embedding: np.ndarray, token_text: Callable[[int], str]
) -> list[dict[str, Any]]:
    """Tokens whose embedding is nearest to the input weights of a first-layer neuron."""
    tokens = _unit(embedding)
    rows: list[dict[str, Any]] = []
    for kind, weight in (("input", mlp.w_in), ("gate", mlp.w_gate)):
        if weight is not None:
            cosines = tokens @ _unit(weight[target.unit : target.unit + 1])[0]
            rows += _token_rows(target, kind, np.argsort(-cosines, kind="stable")[:SHOWN_TOKENS], cosines, token_text)
    return rows


def _token_rows(
    target: WeightTarget, kind: str, ids: np.ndarray, values: np.ndarray, token_text: Callable[[int], str]
) -> list[dict[str, Any]]:
    return [
        target.key | {"kind": kind, "rank": rank, "token_id": t, "token": token_text(t), "value": float(values[t])}
        for rank, t in enumerate(ids.tolist(), 1)
    ]


def _notes(mlp: MlpWeights, *, bent: bool) -> list[str]:
    """What else stands between a neuron and the logits."""
    notes: list[str] = []
    if mlp.further_norm:
        notes.append("What the MLP writes passes a norm of its own: its gain is counted, its division by size is not.")
    if mlp.post_norm:
        notes.append(
            "The model norms the sum of residual stream and MLP: no norm is folded into the input weights, and output "
            "weights are not compared with later input weights."
        )
    if bent:
        notes.append("The model bends its logits (soft capping): effects are those before.")
    return notes


def _others(rng: np.random.Generator, units: int, named: Sequence[int]) -> Int[np.ndarray, " other"]:
    """Other neurons of a layer, in random order."""
    return rng.permutation(np.setdiff1d(np.arange(units), named))[:SAMPLED]


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; zero rows stay zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _or_reason(read: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return read(), ""
    except InputError as error:
        return None, str(error)
