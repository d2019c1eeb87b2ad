"""Redundancy and superposition: what was planted is found, and nothing in the twin without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from sparse_probing.activations.store import Activations
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError
from sparse_probing.metrics.scores import Scored, best_f1_threshold, metrics_at
from sparse_probing.pages.render import environment, json_for_script
from sparse_probing.results.findings import named_neurons
from sparse_probing.results.tables import FINDINGS, PROBES, table
from sparse_probing.studies.structure import redundancy as redundancy_module
from sparse_probing.studies.structure import superposition as module
from sparse_probing.studies.structure.redundancy import (
    correlation_clusters,
    correlations,
    label_relation,
    readable_layers,
    redundancy,
)
from sparse_probing.studies.structure.superposition import (
    BASES,
    basis,
    gaussian,
    interference,
    members,
    orthogonal_basis,
    polysemanticity,
    superposition,
)
from sparse_probing.studies.structure.tables import (
    STRUCTURE_TABLES,
    basis_words,
    redundancy_words,
    second_meanings,
)
from sparse_probing.studies.structure.view import structure_overview, structure_view
from sparse_probing.studies.study import charts_of
from sparse_probing.sweep.choose import choose
from sparse_probing.sweep.local_runner import task_data
from sparse_probing.sweep.plan import Method, Plan, Task
from sparse_probing.sweep.run_task import run_task

SPLIT = np.array([0, 0, 0, 1, 2])
"""Of row i: SPLIT[i % 5]; 60 % training, 20 % validation, 20 % test."""


class Arrays(Activations):
    """Activations that lie in memory."""

    def __init__(self, layers: dict[int, np.ndarray]) -> None:
        self.site, self.arrays = "mlp.neurons", layers

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.arrays)

    def width(self, layer: int) -> int:
        return self.arrays[layer].shape[1]

    def read(self, layer, rows=None, dtype=np.float32):
        return self.arrays[layer][slice(None) if rows is None else rows].astype(dtype)

    def column(self, layer, unit, rows=None):
        return self.read(layer, rows)[:, unit]


def dataset_of(positive: np.ndarray, eligible: np.ndarray | None = None, categories=None) -> FeatureDataset:
    """One token, one sequence and one document per row; features f0, f1, ..."""
    n, features = positive.shape
    row = np.arange(n)
    return FeatureDataset(
        features=tuple(f"f{i}" for i in range(features)), categories=tuple(categories or ["c"] * features),
        document_ids=tuple(map(str, row)), texts=("x",) * n, tokens=np.zeros(n, dtype=int), char_starts=np.zeros(n, dtype=int),
        char_ends=np.ones(n, dtype=int), sequence_starts=np.arange(n + 1), sequence_document=row, row_sequence=row,
        row_first=np.zeros(n, dtype=int), row_last=np.ones(n, dtype=int), row_pooling=np.zeros(n, dtype=int),
        row_group=row, row_split=SPLIT[row % 5], positive=positive,
        eligible=np.ones_like(positive) if eligible is None else eligible, audits={},
    )  # fmt: skip


def findings_of(dataset: FeatureDataset, named: list[tuple[int, int]]) -> pl.DataFrame:
    rows = [
        {"category": c, "feature": f, "neuron": f"L{layer}.N{unit}", "layer": layer, "unit": unit, "fires": "more in class"}
        for c, f, (layer, unit) in zip(dataset.categories, dataset.features, named, strict=True)
    ]  # fmt: skip
    return table(rows, FINDINGS)


def planted(kind: str, rows: int = 1_000, units: int = 30, seed: int = 0) -> tuple[FeatureDataset, Arrays]:
    """One feature in a fifth of the rows, noise of deviation 1 in every unit of two layers; layer 1 carries what `kind` says."""
    rng = np.random.default_rng(seed)
    y = rng.random(rows) < 0.2
    x = rng.standard_normal((2, rows, units)).astype(np.float32)
    if kind == "dedicated":
        x[1, :, 7] += 5 * y
    elif kind == "ensemble":  # six units, independent but for the class
        x[1, :, 3:9] += 3 * y[:, None]
    elif kind == "copies":  # three units that also go together within the classes, the last one upside down
        x[1, :, 4:7] = (3 * y + rng.standard_normal(rows))[:, None] + 0.3 * x[1, :, 4:7]
        x[1, :, 6] *= -1
    elif kind == "direction":
        direction = rng.standard_normal(units)
        x[1] += np.outer(6 * y, direction / np.linalg.norm(direction)).astype(np.float32)
    return dataset_of(y[:, None]), Arrays({0: x[0], 1: x[1]})


def tables_of(dataset: FeatureDataset, named: list[tuple[int, int]]) -> dict[str, pl.DataFrame]:
    return {"findings": findings_of(dataset, named), "probes": table([], PROBES)}


def pruned(kind: str, unit: int, **changes: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pruning rows of the planted layer, and stand-ins."""
    dataset, store = planted(kind, **changes)
    rows = redundancy(dataset, store, tables_of(dataset, [(1, unit)]))
    return [row for row in rows["pruning"] if row["scope"] == "layer"], rows["stand_ins"]


def words(rows: list[dict[str, Any]]) -> str:
    return redundancy_words(sum(row["as_good"] for row in rows), rows[0]["mcc"])


def test_one_dedicated_neuron_falls_off_a_cliff():
    rows, _ = pruned("dedicated", 7)
    assert words(rows) == "one neuron"
    assert (rows[0]["unit"], rows[0]["removed"], len(rows)) == (7, 0, 11)
    assert rows[0]["f1"] > 0.95
    assert rows[0]["support_f1"] > 0.9
    assert 7 in rows[0]["support"]
    assert max(row["f1"] for row in rows[1:]) < 0.45
    assert max(row["support_f1"] for row in rows[1:]) < 0.45
    assert all(7 not in row["support"] for row in rows[1:])


def test_six_equal_neurons_are_an_ensemble_of_six():
    rows, stand_ins = pruned("ensemble", 3, rows=3_000)
    assert words(rows) == "an ensemble of at least 6"
    assert {row["unit"] for row in rows[:6]} == set(range(3, 9))
    assert all(row["f1"] > 0.75 for row in rows[:6])
    assert rows[6]["f1"] < 0.45
    f1 = [row["support_f1"] for row in rows]
    assert f1[0] > 0.98 > f1[4] > f1[5] > 0.75 > 0.45 > f1[6]  # five, two, one, none of the six are left to choose from
    ensemble = [row for row in stand_ins if row["layer"] == 1 and row["unit"] in range(3, 9)]
    assert len({row["cluster"] for row in ensemble}) == 6  # nothing but the class goes along in them


def test_copies_form_one_cluster_even_upside_down():
    rows, stand_ins = pruned("copies", 4)
    assert words(rows) == "an ensemble of at least 3"
    first = [(row["layer"], row["unit"]) for row in stand_ins if row["cluster"] == 1]
    assert sorted(first) == [(1, 4), (1, 5), (1, 6)]
    flipped = next(row for row in stand_ins if row["unit"] == 6 and row["layer"] == 1)
    sign = -1 if stand_ins[0]["unit"] != 6 else 1
    assert sign * flipped["in_class_correlation"] > 0.85
    assert sign * flipped["out_of_class_correlation"] > 0.85
    assert flipped["n_positive"] + flipped["n_negative"] == 600


def test_the_twin_without_a_feature_has_no_neuron():
    rows, _ = pruned("nothing", 7)
    assert words(rows) == "no neuron"


def test_all_layers_prune_together():
    dataset, store = planted("dedicated")
    store.arrays[0][:, 2] += 5 * dataset.positive[:, 0]
    rows = redundancy(dataset, store, tables_of(dataset, [(1, 7)]))["pruning"]
    everywhere = [row for row in rows if row["scope"] == "all layers"]
    assert {(row["layer"], row["unit"]) for row in everywhere[:2]} == {(0, 2), (1, 7)}
    assert [row["as_good"] for row in everywhere] == [True, True] + [False] * 9
    assert all(row["support_f1"] is None for row in everywhere if "support_f1" in row)
    assert words([row for row in rows if row["scope"] == "layer"]) == "one neuron"


def test_test_rows_choose_nothing():
    """Neurons, clusters and supports stay the same whatever the test rows hold; the paper's code deleted by test score."""
    dataset, store = planted("ensemble")
    before = redundancy(dataset, store, tables_of(dataset, [(1, 3)]))
    test = dataset.row_split == 2
    store.arrays[1][test] = np.random.default_rng(1).standard_normal(store.arrays[1][test].shape)
    after = redundancy(dataset, store, tables_of(dataset, [(1, 3)]))
    chosen = ("scope", "removed", "layer", "unit", "merit", "as_good", "support")
    for name in ("pruning", "stand_ins"):
        keys = chosen if name == "pruning" else ("unit", "cluster", "in_class_correlation")
        old, new = ([{k: row.get(k) for k in keys} for row in rows[name]] for rows in (before, after))
        assert old == new
    assert [r["f1"] for r in before["pruning"]] != [r["f1"] for r in after["pruning"]]


def test_pruning_begins_with_the_neuron_that_the_run_names():
    dataset, store = planted("direction")
    found = [
        run_task(
            Task(layer=layer, category="c", features=(0,)),
            task_data(Task(layer=layer, category="c", features=(0,)), dataset, store),
            Plan(ks=(1, 2), methods=(Method.GREEDY_SWAP,), permutations=0, seed=0),
        ).probes
        for layer in store.layers
    ]
    single = choose([probe for probes in found for probe in probes])["single"]
    rows = redundancy(dataset, store, tables_of(dataset, [(single["layer"], single["columns"][0])]))["pruning"]
    starts = [(row["layer"], row["unit"]) for row in rows if row["removed"] == 0]
    assert starts == [(single["layer"], single["columns"][0])] * 2


def test_few_units_end_the_pruning():
    dataset, store = planted("dedicated", units=8)
    rows = [r for r in redundancy(dataset, store, tables_of(dataset, [(1, 7)]))["pruning"] if r["scope"] == "layer"]
    assert sorted(row["unit"] for row in rows) == list(range(8))
    assert [row.get("support") is None for row in rows] == [False] * 4 + [
        True
    ] * 4  # 8, 7, 6, 5 are left; then fewer than 5


def test_correlations_against_numpy_and_constants():
    values = np.random.default_rng(0).normal(size=(50, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    np.testing.assert_allclose(correlations(values), np.corrcoef(values.T), atol=1e-12)
    values[:, 2] = 3.7
    assert np.isnan(correlations(values)[2]).all()
    assert not np.isnan(np.delete(np.delete(correlations(values), 2, 0), 2, 1)).any()


def pair(inside: float, outside: float) -> list[int]:
    matrices = [np.array([[1.0, r], [r, 1.0]]) for r in (inside, outside)]
    return correlation_clusters(*matrices).tolist()


@pytest.mark.parametrize(
    ("inside", "outside", "together"),
    [(0.46, 0.40, False), (0.6, 0.5, True), (-0.6, -0.5, True), (0.9, -0.9, False), (0.5, 0.5, True), (1.0, np.nan, True)],
)  # fmt: skip
def test_clusters_of_two_follow_the_rule(inside, outside, together):
    """The first pair are the paper's Italian neurons."""
    assert pair(inside, outside) == ([1, 1] if together else [1, 2])


def test_clusters_use_average_linkage_and_are_numbered_by_first_member():
    r = np.eye(4)
    r[0, 2] = r[2, 0] = 0.9
    r[0, 3] = r[3, 0] = 0.7
    r[2, 3] = r[3, 2] = 0.2  # the third one: 0.45 on average to the pair, no member of it
    assert correlation_clusters(r, r).tolist() == [1, 2, 1, 3]
    r[2, 3] = r[3, 2] = 0.4  # 0.55 on average
    assert correlation_clusters(r, r).tolist() == [1, 2, 1, 1]
    assert correlation_clusters(np.ones((1, 1)), np.ones((1, 1))).tolist() == [1]


def fitted(layer: int, method: str, k: int, train: tuple[float, float], validation: tuple[float, float]):
    where = {"category": "c", "feature": "f", "layer": layer, "method": method, "k": k}
    scores = (("train", train), ("validation", validation))
    return [where | {"split": split, "f1": f1, "average_precision": ap} for split, (f1, ap) in scores]


def test_readable_layers_by_hand():
    """Merit is the lower one of training and validation; controls and test rows do not count."""
    rows = [
        *fitted(0, "single_neuron", 1, (0.6, 0.6), (0.9, 0.9)),
        *fitted(0, "greedy_swap", 2, (0.9, 0.9), (0.8, 0.8)),
        *fitted(0, "mean_difference", 4, (0.9, 0.9), (0.86, 0.84)),
        *fitted(0, "dense", 64, (1.0, 1.0), (0.88, 0.88)),
        *fitted(1, "single_neuron", 1, (0.8, 0.8), (0.7, 0.8)),
        *fitted(1, "greedy_swap", 1, (0.8, 0.8), (0.79, 0.79)),
        *fitted(1, "greedy_swap", 2, (0.9, 0.9), (0.89, 0.89)),
        *fitted(1, "dense", 64, (1.0, 1.0), (1.0, 1.0)),
        *fitted(1, "shuffled_labels", 1, (1.0, 1.0), (1.0, 1.0)),
    ]
    rows.append({**rows[0], "split": "test", "role": "single", "f1": 1.0, "average_precision": 1.0})
    low, high = readable_layers(table(rows, PROBES))
    assert (low["single_merit"], low["single_f1"], low["single_readable"]) == (pytest.approx(0.6), 0.9, False)
    assert (low["sparse_merit"], low["sparse_k"], low["sparse_readable"]) == (pytest.approx(0.85), 4, True)
    assert (low["dense_readable"], low["k_enough"]) == (False, 4)  # 0.85 >= 0.95 * 0.88 > 0.8
    assert (high["single_merit"], high["single_f1"], high["single_readable"]) == (pytest.approx(0.79), 0.79, True)
    assert (high["dense_readable"], high["k_enough"]) == (True, None)


def labels(*columns: str) -> FeatureDataset:
    """`1` in class, `0` not, `.` not eligible."""
    cells = np.array([list(column) for column in columns]).T
    return dataset_of(cells == "1", cells != ".")


def test_label_relations_by_hand():
    dataset = labels("11000000....", "11110000....", "00111111....", "01001001....", "........0011")
    nested = label_relation(dataset, 0, 1)
    assert nested == {"common_rows": 8, "relation": "nested", "own_in_other": 1.0, "other_in_own": 0.5,
                      "label_difference": pytest.approx(2 / 3)}  # fmt: skip
    assert label_relation(dataset, 0, 2)["relation"] == "opposite"
    assert label_relation(dataset, 0, 3)["relation"] == "different"
    assert label_relation(dataset, 0, 0)["relation"] == "itself"
    assert label_relation(dataset, 0, 4) == {"common_rows": 0, "relation": "not comparable"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("01."), st.sampled_from("01.")), min_size=1, max_size=30))
def test_relation_does_not_depend_on_the_order_of_two_features(cells):
    dataset = labels(*("".join(column) for column in zip(*cells, strict=True)))
    there, back = label_relation(dataset, 0, 1), label_relation(dataset, 1, 0)
    assert there["relation"] == back["relation"]
    assert there.get("own_in_other") == back.get("other_in_own")


def polysemantic() -> tuple[FeatureDataset, Arrays]:
    """Four categories with rows of their own and one feature each, and in the first one its complement and a subset.

    Unit 3 rises with f0 and f1 and falls with f2; unit 5 knows f3 only; 50 units of noise.
    """
    rng = np.random.default_rng(3)
    home = np.arange(1_600) // 400
    y = rng.random(1_600) < 0.3
    x = rng.standard_normal((1_600, 50)).astype(np.float32)
    x[:, 3] += 5 * y * np.array([1, 1, -1, 0])[home]
    x[:, 5] += 5 * y * (home == 3)
    positive = np.stack([y & (home == c) for c in range(4)] + [~y & (home == 0), y & (home == 0)], axis=1)
    positive[:, 5] &= rng.random(1_600) < 0.9
    eligible = np.stack([home == c for c in (0, 1, 2, 3, 0, 0)], axis=1)
    return dataset_of(positive, eligible, ["a", "b", "c", "d", "a", "a"]), Arrays({1: x})


def test_a_neuron_for_three_features_is_found_out():
    dataset, store = polysemantic()
    neurons = named_neurons(dataset, findings_of(dataset, [(1, 3)] * 3 + [(1, 5)] + [(1, 3)] * 2))
    rows = polysemanticity(dataset, store, neurons)
    assert len(rows) == 36
    of = {(row["feature"], row["other_feature"]): row for row in rows}
    assert {g for f, g in of if f == "f0" and of[f, g]["scores"]} == {"f0", "f1", "f2", "f4", "f5"}
    assert {g for f, g in of if f == "f3" and of[f, g]["scores"]} == {"f3"}
    assert of["f0", "f2"]["fires"] == "less in class"
    assert of["f0", "f1"]["fires"] == "more in class"
    assert {g: of["f0", g]["relation"] for g in ("f0", "f1", "f4", "f5")} == {
        "f0": "itself", "f1": "not comparable", "f4": "opposite", "f5": "nested"
    }  # fmt: skip
    assert of["f0", "f1"]["alike"] == pytest.approx(1 / 50)
    assert of["f0", "f1"]["n_positive"] == int((dataset.positive[:, 1] & (dataset.row_split == 2)).sum())
    meanings = second_meanings(table(rows, STRUCTURE_TABLES["polysemanticity"]).filter(feature="f0"))
    assert set(meanings["other_feature"]) == {"f1", "f2"}
    assert second_meanings(table(rows, STRUCTURE_TABLES["polysemanticity"]).filter(feature="f3")).is_empty()


def test_what_the_whole_layer_does_is_no_second_meaning():
    dataset, store = polysemantic()
    store.arrays[1] += (5 * dataset.positive[:, 1])[:, None].astype(np.float32)
    rows = polysemanticity(dataset, store, named_neurons(dataset, findings_of(dataset, [(1, 5)] * 6), [3]))
    (row,) = (row for row in rows if row["other_feature"] == "f1")
    assert row["scores"]
    assert row["alike"] == 1.0
    assert second_meanings(table(rows, STRUCTURE_TABLES["polysemanticity"])).is_empty()


def probe(dataset: FeatureDataset, f: int, columns: list[int], coefficients: list[float], threshold: float, role: str):
    return {
        "category": dataset.categories[f], "feature": dataset.features[f], "layer": 1, "method": "greedy_swap",
        "k": len(columns), "split": "test", "role": role, "threshold": threshold, "columns": columns,
        "coefficients": coefficients, "intercept": 0.0,
    }  # fmt: skip


def sharing() -> tuple[FeatureDataset, Arrays]:
    """f0 raises units 3 and 5 by one, f1 raises 3 and 8, f2 raises 9; no noise, one feature per row or none."""
    kind = np.arange(400) // 5 % 4
    x = np.zeros((400, 12), dtype=np.float32)
    x[:, 3] = kind <= 1
    for feature, unit in enumerate((5, 8, 9)):
        x[:, unit] = kind == feature
    return dataset_of(np.stack([kind == f for f in range(3)], axis=1)), Arrays({1: x})


@pytest.mark.parametrize(("threshold", "called"), [(0.5, 1.0), (1.5, 0.0)])
def test_interference_by_hand(threshold, called):
    dataset, store = sharing()
    roles = {
        0: {"enough": probe(dataset, 0, [3, 5], [1.0, 1.0], threshold, "enough")},
        1: {"single": probe(dataset, 1, [8], [1.0], 0.5, "single"),
            "enough": probe(dataset, 1, [3, 8], [-0.5, 2.0], 1.0, "enough")},
        2: {"single": probe(dataset, 2, [9], [1.0], 0.5, "single")},
    }  # fmt: skip
    rows = interference(dataset, store, roles)
    assert [(row["feature"], row["other_feature"]) for row in rows] == [("f0", "f1"), ("f1", "f0")]
    row, back = rows
    assert (row["shared"], row["same_sign"], row["k"], row["other_k"]) == ([3], 0, 2, 2)
    assert row["shared_by_chance"] == pytest.approx(4 / 12)
    assert row["n_rows"] == 20  # test rows of f1; those of f0 are left out of the 40 others
    assert row["n_otherwise"] == 40
    # own class: 2 against (1 + 0 + 0) / 3; other class: 1 against 0; both from the shared unit
    assert row["shift"] == pytest.approx(1 / (2 - 1 / 3))
    assert row["shared_shift"] == pytest.approx(1 / (2 - 1 / 3))
    assert (row["called"], row["called_otherwise"]) == (called, 0.0)
    assert back["shift"] == pytest.approx(-0.5 / (1.5 + 0.5 / 3))


def test_probes_that_share_nothing_do_not_interfere():
    dataset, store = sharing()
    alone = {f: {"single": probe(dataset, f, [unit], [1.0], 0.5, "single")} for f, unit in enumerate((5, 8, 9))}
    assert interference(dataset, store, alone) == []
    elsewhere = {0: alone[0], 1: {"single": probe(dataset, 1, [5], [1.0], 0.5, "single") | {"layer": 0}}}
    assert interference(dataset, store, elsewhere) == []


def test_each_member_confuses_a_neighbour_and_the_sum_does_not():
    """Unit 0 fires on f0 and f1, unit 1 (downwards) on f0 and f2: the bigram and its two neighbours."""
    kind = np.arange(500) // 5 % 4
    x = np.zeros((500, 3), dtype=np.float32)
    x[:, 0], x[:, 1] = kind <= 1, -2.0 * ((kind == 0) | (kind == 2))
    dataset = dataset_of(np.stack([kind == f for f in range(3)], axis=1))
    roles = {0: {"enough": probe(dataset, 0, [0, 1], [1.0, -0.5], 1.5, "enough")}}
    first, second, total, whole = members(dataset, Arrays({1: x}), roles)
    assert [row["kind"] for row in (first, second, total, whole)] == ["member", "member", "sum", "probe"]
    for row, neighbour, unit in ((first, "f1", 0), (second, "f2", 1)):
        assert (row["neuron"], row["false_alarms"], row["cleared"], row["misses"]) == (f"L1.N{unit}", 25, 25, 0)
        assert row["confused_with"] == [neighbour]
        assert row["f1"] == pytest.approx(2 * 25 / (2 * 25 + 25))
    for row in (total, whole):
        assert (row["f1"], row["false_alarms"], row["misses"], row["confused_with"]) == (1.0, 0, 0, [])
    assert whole["n_positive"] == 25


def test_members_of_the_right_probe():
    dataset, store = sharing()
    sizes = {k: probe(dataset, 0, list(range(k)), [1.0] * k, 0.5, f"sparse k={k}") for k in (1, 2, 4, 8)}
    roles = {f"sparse k={k}": row for k, row in sizes.items()}

    def taken(enough: dict[str, Any] | None) -> set[int]:
        found = roles | ({"enough": enough} if enough else {})
        return {row["k"] for row in members(dataset, store, {0: found})}

    assert taken(sizes[8]) == {8}
    assert taken(sizes[1]) == {4}
    assert taken(None) == {4}
    assert taken(probe(dataset, 0, list(range(9)), [1.0] * 9, 0.5, "enough")) == {4}
    assert members(dataset, store, {0: {"single": sizes[1]}}) == []


def curves(kind: str, unit: int, units: int = 200) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """First row of the rank curve, and the sparsity rows."""
    dataset, store = planted(kind, rows=1_000, units=units)
    neurons = named_neurons(dataset, findings_of(dataset, [(1, unit)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "KS", (1, 2, 4, 16))
        by_rank, by_k = basis(dataset, store, neurons, seed=0)
    assert [row["rank"] for row in by_rank] == list(range(1, 51))
    return by_rank[0], by_k


def basis_verdict(row: dict[str, Any]) -> str:
    return basis_words(*(row[name] for name in ("neuron_f1", "direction_f1", "p", "bases")))


def test_the_basis_is_privileged_for_a_dedicated_neuron():
    best, by_k = curves("dedicated", 7)
    assert best["neuron_f1"] > 0.95
    assert best["direction_f1_high"] < 0.7
    assert best["p"] == pytest.approx(1 / (1 + BASES))
    assert best["difference"] == pytest.approx(best["neuron_f1"] - best["direction_f1"])
    assert best["orthogonal"]
    assert basis_verdict(best) == "privileged"
    assert by_k[0]["neuron_log_loss"] < 0.5 * by_k[0]["direction_log_loss_low"]
    # an orthogonal basis loses nothing: with many directions the feature comes back
    assert by_k[-1]["direction_f1"] > by_k[0]["direction_f1"] + 0.1


def test_the_basis_is_not_privileged_for_a_feature_in_superposition():
    best, by_k = curves("direction", 7)
    assert abs(best["difference"]) < 0.1
    assert basis_verdict(best) == "not privileged"
    for row in by_k[:3]:
        assert row["direction_f1_low"] - 0.1 < row["neuron_f1"] < row["direction_f1_high"] + 0.1
    assert by_k[-1]["neuron_f1"] > best["neuron_f1"] + 0.2  # it is there, but in many units together


def test_the_basis_of_noise_tells_nothing():
    best, _ = curves("nothing", 7)
    assert best["neuron_f1"] < 0.45
    assert basis_verdict(best) == "not privileged"


@pytest.mark.parametrize(
    ("row", "expected"),
    [((1.0, 0.96, 1 / 6, 5), "no difference to see"), ((0.9, 0.8, 1 / 6, 5), "privileged"),
     ((0.9, 0.86, 1 / 6, 5), "not privileged"), ((0.9, 0.8, 2 / 6, 5), "not privileged"), ((0.3, 0.9, 1.0, 5), "not privileged")],
)  # fmt: skip
def test_basis_words_follow_the_rule(row, expected):
    assert basis_words(*row) == expected


def test_rank_curve_against_a_plain_reimplementation():
    """Every unit in both directions, scores by the metrics of the project one at a time."""
    dataset, store = planted("ensemble", rows=400, units=12)
    by_rank, _ = basis(dataset, store, named_neurons(dataset, findings_of(dataset, [(1, 3)])), seed=0)
    test, y = dataset.row_split == 2, dataset.positive[:, 0]
    found = []
    for unit in range(12):
        for sign in (1, -1):
            seen = Scored(score=sign * store.arrays[1][~test, unit].astype(np.float64), positive=y[~test])
            cut = best_f1_threshold(seen)
            here = metrics_at(seen, cut)
            scored = Scored(score=sign * store.arrays[1][test, unit].astype(np.float64), positive=y[test])
            found.append(((here["f1"] + here["average_precision"]) / 2, unit, metrics_at(scored, cut)["f1"]))
    best = {unit: max(row for row in found if row[1] == unit) for unit in range(12)}
    expected = [f1 for _, _, f1 in sorted(best.values(), reverse=True)]
    assert [row["neuron_f1"] for row in by_rank] == pytest.approx(expected)


def test_random_bases():
    q = orthogonal_basis(60, np.random.default_rng(0))
    np.testing.assert_allclose(q.T @ q, np.eye(60), atol=1e-5)
    assert (orthogonal_basis(60, np.random.default_rng(0)) == q).all()
    assert abs((np.diag(orthogonal_basis(400, np.random.default_rng(1))) > 0).mean() - 0.5) < 0.1  # both signs
    directions = gaussian(np.eye(60, dtype=np.float32), np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1.0, atol=1e-5)


def test_wide_layers_get_gaussian_directions(monkeypatch):
    monkeypatch.setattr(module, "ORTHOGONAL_UP_TO", 30)
    monkeypatch.setattr(module, "DIRECTIONS", 16)
    best, _ = curves("dedicated", 7, units=60)
    assert not best["orthogonal"]
    assert basis_verdict(best) == "privileged"


def run_tables() -> tuple[FeatureDataset, Arrays, dict[str, pl.DataFrame]]:
    dataset, store = polysemantic()
    store.arrays[0] = np.random.default_rng(9).standard_normal((dataset.n_rows, 50)).astype(np.float32)
    units = [3, 3, 3, 5, 3, 3]
    probes = [
        probe(dataset, f, columns, [1.0] * len(columns), 0.5, role)
        for f, unit in enumerate(units)
        for role, columns in (("single", [unit]), ("enough", [unit]), ("sparse k=2", [unit, unit + 1]))
    ]
    return dataset, store, {"findings": findings_of(dataset, [(1, u) for u in units]), "probes": table(probes, PROBES)}


def evidence(features: list[int] | None = None) -> tuple[dict[str, pl.DataFrame], list[int]]:
    dataset, store, tables = run_tables()
    done = [0, 0]

    def count(which: int):
        return lambda n: done.__setitem__(which, done[which] + n)

    with pytest.MonkeyPatch.context() as patch:  # less work
        patch.setattr(module, "KS", (1, 4))
        patch.setattr(redundancy_module, "STEPS", 3)
        rows = redundancy(dataset, store, tables, features=features, progress=count(0))
        rows |= superposition(dataset, store, tables, seed=4, features=features, progress=count(1))
    assert rows.keys() == STRUCTURE_TABLES.keys()
    return {name: table(found, STRUCTURE_TABLES[name]) for name, found in rows.items()}, done


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, pl.DataFrame], list[int]]:
    return evidence()


def test_tables_are_typed_and_complete(whole):
    tables, done = whole
    assert done == [6 * 2, 6 * (BASES + 1)]
    for name, frame in tables.items():
        assert frame.height or name == "readable_layers", name
        floats = frame.select(pl.selectors.float())
        assert not any(floats[column].is_nan().any() for column in floats.columns), name


def test_some_features_give_the_same_rows_as_all(whole):
    """Their neurons are tried on all features, in the same random bases."""
    some, done = evidence([3, 0])
    assert done == [2 * 2, 2 * (BASES + 1)]
    for name in ("pruning", "stand_ins", "polysemanticity", "members", "basis", "basis_sparsity"):
        wanted = whole[0][name].filter(pl.col("feature").is_in(["f0", "f3"]))
        assert_frame_equal(some[name].sort("feature", maintain_order=True), wanted, rel_tol=1e-9)


def test_bad_input_is_told():
    dataset, _, tables = run_tables()
    with pytest.raises(InputError, match="no feature number 6: the dataset has 6"):
        named_neurons(dataset, tables["findings"], [6])
    with pytest.raises(InputError, match="names no neuron for 'f2' in 'c'"):
        named_neurons(dataset, tables["findings"].filter(pl.col("feature") != "f2"))


def page(body: str, **values: Any) -> str:
    macros = '{% from "studies/structure/page.html" import feature, overview %}'
    return environment().from_string(macros + body).render(**values)


def test_view_says_what_was_planted(whole):
    tables, _ = whole
    record = structure_view(tables, "a", "f0")
    assert record is not None
    charts = charts_of(record, "structure-0-0")
    assert set(charts) == {"structure-0-0-pruning", "structure-0-0-basis"}
    json_for_script(charts)  # strict JSON: no NaN
    text = page('{{ feature(record, "structure-0-0") }}', record=record)
    assert all(f'data-chart="{name}"' in text for name in charts)
    assert "<strong>one neuron</strong>" in text
    assert "<strong>privileged</strong>" in text
    assert "L1.N3 also scores on f" in text
    assert "None" not in text
    other = page('{{ feature(record, "x") }}', record=structure_view(tables, "d", "f3"))
    assert "no second meaning" in other
    assert structure_view(tables, "a", "unknown") is None


def test_overview_counts(whole):
    tables, _ = whole
    record = structure_overview(tables)
    assert record is not None
    assert (record["features"], record["one"], record["ensembles"], record["none"]) == (6, 6, 0, 0)
    # unit 3 is named for f0, f1, f2, f4 and f5, which makes one case of each feature that it scores on
    assert {row["other_feature"] for row in record["meanings"]} == {"f0", "f1", "f2", "f4", "f5"}
    assert record["n_neurons"] == 1
    text = page('{{ overview(record, "structure") }}', record=record)
    assert set(charts_of(record, "structure")) == {"structure-bases"}
    assert "None" not in text
    assert "Of 6 features, 6 rest on one neuron" in text
    empty = {name: pl.DataFrame(schema=schema) for name, schema in STRUCTURE_TABLES.items()}
    assert structure_overview(empty) is None
    assert structure_view(empty, "a", "f0") is None


def test_names_from_the_data_are_no_html(whole):
    tables = {
        name: frame.with_columns(feature=pl.lit("<b>f</b>")) for name, frame in whole[0].items() if "feature" in frame.columns
    }  # fmt: skip
    tables["polysemanticity"] = tables["polysemanticity"].with_columns(other_feature=pl.lit("<i>g</i>"))
    tables["members"] = tables["members"].with_columns(confused_with=pl.lit(["<i>g</i>"]))
    text = page('{{ feature(a, "x") }}{{ overview(b, "y") }}',
                a=structure_view(tables, "a", "<b>f</b>"), b=structure_overview(tables))  # fmt: skip
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;i&gt;g" in text
