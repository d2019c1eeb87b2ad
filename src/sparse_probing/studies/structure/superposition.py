"""Several features in one neuron, one feature over several neurons: polysemanticity, interference, sums of neurons, the basis.

Source: Gurnee et al. 2023 (arXiv 2305.01610), compound words and superposition. Their random directions were Gaussian; here they
are orthogonal wherever that is affordable, so that the rotated layer holds exactly what the neurons hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.scores import Scored, best_f1_threshold, metrics_at
from sparse_probing.probes.losses import LOGISTIC
from sparse_probing.probes.weights import balanced_weights
from sparse_probing.ranking.single_units import single_unit_scores
from sparse_probing.ranking.statistics import class_moments
from sparse_probing.records import SPLITS, Split, task_rng, unit_name
from sparse_probing.results.findings import NamedNeuron, named_neurons
from sparse_probing.selection.heuristics import orthogonal_matching_pursuit
from sparse_probing.selection.problem import standardise
from sparse_probing.studies.structure.redundancy import label_relation
from sparse_probing.sweep.feature_view import STANDARD_DEVIATION_FLOOR, FeatureView
from sparse_probing.sweep.plan import Method, Task

LEAST_MCC, LEAST_AUC = 0.5, 0.9
"""A neuron scores on a feature where it reaches both on test rows."""
BASES = 5
"""Random bases, as in the paper."""
RANKS = 50
"""Best neurons and directions whose scores are compared, as in the paper."""
ORTHOGONAL_UP_TO = 4_096
"""Wider layers get Gaussian directions of length 1: an orthogonal basis costs width^3, and at random they are nearly orthogonal."""
DIRECTIONS = 1_024
"""Gaussian directions that are drawn at a time."""
KS = (1, 2, 4, 8, 16, 32, 64)
MOST_MEMBERS = 8
"""Larger supports are not taken apart: a table of their members says nothing."""
NEURONS_OF_SUM = 5
"""Where one neuron is enough, or too many are needed, the largest probe up to this size (the paper's) is taken apart."""

Row = dict[str, Any]


def superposition(
    dataset: FeatureDataset,
    store: Activations,
    tables: Mapping[str, pl.DataFrame],
    *,
    seed: int,
    features: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, list[Row]]:
    """Rows of the tables `polysemanticity`, `interference`, `members`, `basis` and `basis_sparsity`.

    Args:
        dataset: rows and labels of the run.
        store: its activations, all probed layers.
        tables: `findings` and `probes` of the run.
        seed: of the run, for the random bases.
        features: indices into the dataset's features; all when null. Their neurons are still tried on every feature of the run.
        progress: called with the number of (feature, basis) pairs done, `len(features) * (BASES + 1)` in all.

    Raises:
        InputError: a feature that the dataset or the run does not have.
    """
    neurons = named_neurons(dataset, tables["findings"], features)
    roles = {neuron.feature: _tested(dataset, tables["probes"], neuron.feature) for neuron in neurons}
    curves, sparsity = basis(dataset, store, neurons, seed, progress)
    return {
        "polysemanticity": polysemanticity(dataset, store, neurons),
        "interference": interference(dataset, store, roles),
        "members": members(dataset, store, roles),
        "basis": curves,
        "basis_sparsity": sparsity,
    }


def _tested(dataset: FeatureDataset, probes: pl.DataFrame, f: int) -> dict[str, Row]:
    own = probes.filter(pl.col("role").is_not_null(), split=Split.TEST.value, **_feature(dataset, f))
    return {row["role"]: row for row in own.iter_rows(named=True)}


def _feature(dataset: FeatureDataset, f: int, prefix: str = "") -> dict[str, str]:
    return {f"{prefix}category": dataset.categories[f], f"{prefix}feature": dataset.features[f]}


def _test_counts(dataset: FeatureDataset, f: int) -> dict[str, int]:
    return dict(zip(("n_positive", "n_negative"), dataset.counts(f)[Split.TEST], strict=True))


def _detector(
    dataset: FeatureDataset, f: int, values: Float[np.ndarray, " row"]
) -> tuple[int, dict[str, float], Bool[np.ndarray, " test_row"]]:
    """One number per row of the dataset as a detector: its direction, scores on test rows, and which of them it calls.

    Direction (by ROC-AUC) and threshold (by F1) are chosen on training and validation rows.
    """
    test = dataset.rows_of(f, Split.TEST)
    seen = np.setdiff1d(dataset.rows_of(f), test)
    chosen, positive = values[seen].astype(np.float64), dataset.positive[seen, f]
    sign = 1 if metrics_at(Scored(score=chosen, positive=positive), np.inf)["roc_auc"] >= 0.5 else -1
    threshold = best_f1_threshold(Scored(score=sign * chosen, positive=positive))
    scored = Scored(score=sign * values[test].astype(np.float64), positive=dataset.positive[test, f])
    return sign, metrics_at(scored, threshold), scored.score > threshold


def polysemanticity(dataset: FeatureDataset, store: Activations, neurons: Sequence[NamedNeuron]) -> list[Row]:
    """Each neuron as a detector of every feature of the run, on that feature's own rows.

    `alike` tells how special that is: the share of the layer's units with as good an order of the test rows as the rule asks for.

    Args:
        dataset: rows and labels.
        store: activations of the neurons' layers.
        neurons: whose further meanings are looked for.
    """
    alike = {layer: _alike(dataset, store, layer) for layer in {neuron.layer for neuron in neurons}}
    rows = []
    for neuron in neurons:
        values = store.column(neuron.layer, neuron.unit)
        for f in range(len(dataset.features)):
            sign, metrics, _ = _detector(dataset, f, values)
            rows.append(
                _feature(dataset, neuron.feature)
                | {"neuron": neuron.name, "layer": neuron.layer, "unit": neuron.unit}
                | _feature(dataset, f, "other_")
                | {"fires": "more in class" if sign > 0 else "less in class"}
                | {name: metrics[name] for name in ("f1", "mcc", "roc_auc")}
                | _test_counts(dataset, f)
                | {"scores": metrics["mcc"] >= LEAST_MCC and metrics["roc_auc"] >= LEAST_AUC}
                | {"alike": float(alike[neuron.layer][f])}
                | label_relation(dataset, neuron.feature, f)
            )
    return rows


def _alike(dataset: FeatureDataset, store: Activations, layer: int) -> Float[np.ndarray, " feature"]:
    """Share of a layer's units with a ROC-AUC of `LEAST_AUC` on the test rows of each feature, in either direction."""
    shares = np.zeros(len(dataset.features))
    for category in dict.fromkeys(dataset.categories):
        columns = np.array([f for f, name in enumerate(dataset.categories) if name == category])
        in_test = dataset.row_split == SPLITS.index(Split.TEST)
        rows = np.flatnonzero(dataset.eligible[:, columns].any(axis=1) & in_test)
        labels = dataset.positive[np.ix_(rows, columns)], dataset.eligible[np.ix_(rows, columns)]
        order = single_unit_scores(store.read(layer, rows), *labels).roc_auc.max(axis=0)
        shares[columns] = (order >= LEAST_AUC).mean(axis=1)
    return shares


def _terms(store: Activations, probe: Row) -> Float[np.ndarray, "row unit"]:
    """What each unit of a probe adds to its score, for every row of the dataset."""
    values = np.stack([store.column(probe["layer"], column) for column in probe["columns"]], axis=1)
    return values.astype(np.float64) * np.array(probe["coefficients"])


def interference(dataset: FeatureDataset, store: Activations, roles: Mapping[int, Mapping[str, Row]]) -> list[Row]:
    """Pairs of features whose probes on enough neurons (on one, where no number was enough) share neurons of a layer.

    Args:
        dataset: rows and labels.
        store: activations of the probes' layers.
        roles: feature -> role -> row of the probe table.
    """
    chosen = {f: found.get("enough") or found["single"] for f, found in roles.items()}
    signs = {f: dict(zip(p["columns"], np.sign(p["coefficients"]), strict=True)) for f, p in chosen.items()}
    rows = []
    for f, mine in chosen.items():
        sharing = [
            g for g, p in chosen.items() if g != f and p["layer"] == mine["layer"] and signs[f].keys() & signs[g]
        ]
        terms = _terms(store, mine) if sharing else np.empty((0, 0))
        for g in sharing:
            shared = sorted(signs[f].keys() & signs[g])
            part = terms[:, [mine["columns"].index(unit) for unit in shared]].sum(axis=1)
            rows.append(
                _feature(dataset, f)
                | {"layer": mine["layer"], "k": mine["k"], "other_k": chosen[g]["k"], "shared": shared}
                | {"shared_by_chance": mine["k"] * chosen[g]["k"] / store.width(mine["layer"])}
                | {"same_sign": sum(bool(signs[f][unit] == signs[g][unit]) for unit in shared)}
                | _feature(dataset, g, "other_")
                | _effect(dataset, f, g, terms.sum(axis=1) + mine["intercept"], part, mine["threshold"])
                | label_relation(dataset, f, g)
            )
    return rows


def _effect(dataset: FeatureDataset, f: int, g: int, score: np.ndarray, part: np.ndarray, threshold: float) -> Row:
    """The probe of f on test rows of g, those that carry f left out; `part`: what the shared neurons add to its score."""

    def gap(values: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
        return float(values[inside].mean() - values[outside].mean())

    rows, own = dataset.rows_of(g, Split.TEST), dataset.rows_of(f, Split.TEST)
    rows = rows[~(dataset.positive[rows, f] & dataset.eligible[rows, f])]
    inside, outside = rows[dataset.positive[rows, g]], rows[~dataset.positive[rows, g]]
    effect: Row = {"n_rows": len(inside), "n_otherwise": len(outside)}
    effect |= {"called": float((score[inside] > threshold).mean())} if len(inside) else {}
    effect |= {"called_otherwise": float((score[outside] > threshold).mean())} if len(outside) else {}
    full = gap(score, own[dataset.positive[own, f]], own[~dataset.positive[own, f]])
    if len(inside) and len(outside) and full > 0:
        effect |= {"shift": gap(score, inside, outside) / full, "shared_shift": gap(part, inside, outside) / full}
    return effect


def members(dataset: FeatureDataset, store: Activations, roles: Mapping[int, Mapping[str, Row]]) -> list[Row]:
    """The members of each feature's sparse probe one by one, their signed sum, and the probe: who confuses what.

    The probe is the one on enough neurons where that is 2 to `MOST_MEMBERS`, else the largest one on at most `NEURONS_OF_SUM`.
    The sum takes every member at equal weight, standardised on training rows, with the sign of its coefficient.

    Args:
        dataset: rows and labels.
        store: activations of the probes' layers.
        roles: feature -> role -> row of the probe table.
    """
    rows: list[Row] = []
    for f, found in roles.items():
        few = [p for role, p in found.items() if role.startswith("sparse k=") and 2 <= p["k"] <= NEURONS_OF_SUM]
        enough = [p for role, p in found.items() if role == "enough" and 2 <= p["k"] <= MOST_MEMBERS]
        if enough or few:
            rows.extend(_members(dataset, store, f, max(enough or few, key=lambda p: p["k"])))
    return rows


def _members(dataset: FeatureDataset, store: Activations, f: int, probe: Row) -> Iterable[Row]:
    test, terms = dataset.rows_of(f, Split.TEST), _terms(store, probe)
    positive, score = dataset.positive[test, f], terms[test].sum(axis=1) + probe["intercept"]
    called = score > probe["threshold"]
    deviation = np.maximum(terms[dataset.rows_of(f, Split.TRAIN)].std(axis=0), 1e-12)
    parts = [("member", *_detector(dataset, f, np.ascontiguousarray(term))[1:]) for term in terms.T]
    parts.append(("sum", *_detector(dataset, f, (terms / deviation).sum(axis=1))[1:]))
    parts.append(("probe", metrics_at(Scored(score=score, positive=positive), probe["threshold"]), called))
    for i, (kind, metrics, calls) in enumerate(parts):
        alarms = calls & ~positive
        row: Row = _feature(dataset, f) | {"layer": probe["layer"], "kind": kind, "k": probe["k"]}
        if kind == "member":
            unit = probe["columns"][i]
            row |= {"neuron": unit_name(store.site, probe["layer"], unit), "unit": unit}
            row |= {"coefficient": probe["coefficients"][i]}
        yield row | {
            "f1": metrics["f1"],
            "false_alarms": int(alarms.sum()),
            "misses": int((positive & ~calls).sum()),
            "cleared": int((alarms & ~called).sum()),
            "confused_with": _carried(dataset, f, test[alarms]),
            **_test_counts(dataset, f),
        }


def _carried(dataset: FeatureDataset, f: int, rows: Int[np.ndarray, " row"]) -> list[str]:
    """Other features of the category that the rows carry, most frequent first."""
    mates = [g for g, c in enumerate(dataset.categories) if c == dataset.categories[f] and g != f]
    counts = Counter({g: int((dataset.positive[rows, g] & dataset.eligible[rows, g]).sum()) for g in mates})
    return [dataset.features[g] for g, count in counts.most_common() if count]


def basis(
    dataset: FeatureDataset,
    store: Activations,
    neurons: Sequence[NamedNeuron],
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Row], list[Row]]:
    """Are neurons better than directions drawn at random? Rows of the tables `basis` and `basis_sparsity`.

    The layer of each feature's neuron is standardised on the training rows of the feature's category and rotated; as many random
    directions compete as there are neurons, by the same rules. Every layer and category is rotated once for all its features.
    Cost O(bases * row * width^2), and width^3 for each orthogonal basis.

    Args:
        dataset: rows and labels.
        store: activations of the neurons' layers.
        neurons: features and the layers to look at.
        seed: of the run; basis b is the same for every layer of one width.
        progress: called with the number of (feature, basis) pairs done, `len(neurons) * (BASES + 1)` in all.
    """
    groups: dict[tuple[int, str], list[NamedNeuron]] = {}
    for neuron in neurons:
        groups.setdefault((neuron.layer, dataset.categories[neuron.feature]), []).append(neuron)
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {neuron.feature: [] for neuron in neurons}
    for b in range(BASES + 1):
        turns: dict[int, np.ndarray] = {}
        for (layer, category), group in groups.items():
            block = _read(dataset, store, layer, category, [neuron.feature for neuron in group])
            width, rng = store.width(layer), task_rng(seed, "basis", b)
            if b and width > ORTHOGONAL_UP_TO:
                block = replace(block, z=gaussian(block.z, rng))
            elif b:
                turns[width] = turns[width] if width in turns else orthogonal_basis(width, rng)
                block = replace(block, z=block.z @ turns[width])
            for neuron, curve, path in zip(group, block.rank_curves(), block.sparsity(), strict=True):
                found[neuron.feature].append((curve, path))
            progress(len(group))
    curves, paths = [], []
    for neuron in neurons:
        where = _feature(dataset, neuron.feature) | {"layer": neuron.layer}
        by_rank, by_k = (np.stack(arrays) for arrays in zip(*found[neuron.feature], strict=True))
        for rank, f1 in enumerate(by_rank.T):
            row = where | {
                "rank": rank + 1,
                "bases": BASES,
                "orthogonal": store.width(neuron.layer) <= ORTHOGONAL_UP_TO,
            }
            row |= _against(f1, "f1") | {"difference": float(f1[0] - f1[1:].mean())}
            curves.append(row | {"p": float((1 + (f1[1:] >= f1[0]).sum()) / (1 + BASES))})
        for k, (f1, loss) in zip(KS, by_k.T, strict=False):
            paths.append(where | {"k": k} | _against(f1, "f1") | _against(loss, "log_loss"))
    return curves, paths


def _against(values: Float[np.ndarray, " basis"], metric: str) -> dict[str, float]:
    """The neurons' value, and mean, smallest and largest of the others."""
    names = (f"neuron_{metric}", *(f"direction_{metric}{end}" for end in ("", "_low", "_high")))
    numbers = (values[0], values[1:].mean(), values[1:].min(), values[1:].max())
    return dict(zip(names, map(float, numbers), strict=True))


def orthogonal_basis(width: int, rng: np.random.Generator) -> Float[np.ndarray, "width width"]:
    """Columns drawn uniformly among the orthogonal bases, float32 (QR of a Gaussian matrix, signs fixed: Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((width, width)))
    return (q * np.sign(np.diag(r))).astype(np.float32)


def gaussian(z: Float[np.ndarray, "row width"], rng: np.random.Generator) -> Float[np.ndarray, "row width"]:
    """As many components along Gaussian directions of length 1 as there are columns; the directions are never held all at once."""
    result = np.empty_like(z)
    for at in range(0, z.shape[1], DIRECTIONS):
        part = rng.standard_normal((z.shape[1], min(DIRECTIONS, z.shape[1] - at)), dtype=np.float32)
        result[:, at : at + DIRECTIONS] = z @ (part / np.linalg.norm(part, axis=0))
    return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """Rows of some features of one category at one layer, in some basis."""

    task: Task
    z: Float[np.ndarray, "row column"]
    train: Bool[np.ndarray, " row"]
    test: Bool[np.ndarray, " row"]
    positive: Bool[np.ndarray, "row feature"]
    eligible: Bool[np.ndarray, "row feature"]

    def rank_curves(self) -> Iterator[Float[np.ndarray, " rank"]]:
        """Test F1 of the best columns of each feature, by mean of best F1 and average precision on the rows that choose."""
        chooses = ~self.test
        single = single_unit_scores(self.z[chooses], self.positive[chooses], self.eligible[chooses])
        merit = (single.f1 + single.average_precision) / 2
        for f in range(len(self.task.features)):
            best = np.argsort(-merit[:, f].max(axis=0), kind="stable")[:RANKS]
            sign = np.where(merit[0, f, best] >= merit[1, f, best], 1.0, -1.0)
            seen, test = self.eligible[:, f] & chooses, self.eligible[:, f] & self.test
            chosen, scored = (np.ascontiguousarray(self.z[rows][:, best].T * sign[:, None]) for rows in (seen, test))
            labels, truth = self.positive[seen, f], self.positive[test, f]
            cuts = [best_f1_threshold(Scored(score=column, positive=labels)) for column in chosen]
            called = scored > np.array(cuts)[:, None]
            yield 2.0 * (called & truth).sum(axis=1) / (called.sum(axis=1) + truth.sum())

    def sparsity(self) -> Iterator[Float[np.ndarray, "2 k"]]:
        """Test F1 and class-balanced log loss of each feature's probes on k columns, chosen by matching pursuit."""
        moments = class_moments(self.z[self.train], self.positive[self.train], self.eligible[self.train])
        for f in range(len(self.task.features)):
            seen, test = self.eligible[:, f] & ~self.test, self.eligible[:, f] & self.test
            mean, scale = moments.mean[f], np.sqrt(moments.variance[f])
            view = FeatureView(self.z, self.train, self.positive[:, f], seen, mean, scale, "", self.task)
            truth, found = self.positive[test, f], []
            supports = orthogonal_matching_pursuit(view.problem, [k for k in KS if k <= self.z.shape[1]])
            for support in supports.values():
                probe = view.records(Method.MATCHING_PURSUIT, support[None])[0]
                x = self.z[test][:, support].astype(np.float64)
                score = x @ np.array(probe["coefficients"]) + probe["intercept"]
                f1 = metrics_at(Scored(score=score, positive=truth), probe["threshold"])["f1"]
                found.append((f1, balanced_weights(truth) @ LOGISTIC.value(score, truth.astype(np.float64))))
            yield np.array(found).T


def _read(dataset: FeatureDataset, store: Activations, layer: int, category: str, features: Sequence[int]) -> _Block:
    """Rows of the category, standardised on its training rows, so that nothing depends on which of its features are asked for."""
    mates = [f for f, name in enumerate(dataset.categories) if name == category]
    rows, columns = np.flatnonzero(dataset.eligible[:, mates].any(axis=1)), np.array(features)
    train, test = (dataset.row_split[rows] == SPLITS.index(split) for split in (Split.TRAIN, Split.TEST))
    x = store.read(layer, rows)
    _, mean, scale = standardise(x[train], floor=STANDARD_DEVIATION_FLOOR)
    return _Block(
        task=Task(layer=layer, category=category, features=tuple(features)),
        z=(x - mean.astype(np.float32)) / scale.astype(np.float32),
        train=train,
        test=test,
        positive=dataset.positive[np.ix_(rows, columns)],
        eligible=dataset.eligible[np.ix_(rows, columns)],
    )
