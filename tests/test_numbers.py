"""Numbers in a run: what was planted is found, noise is not, two methods agree, and a run with numbers works from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score

import sparse_probing as sp
from sparse_probing.activations.store import Activations
from sparse_probing.cli.progress import print_findings
from sparse_probing.datasets.feature_dataset import FeatureDataset, NumberTarget
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.errors import InputError
from sparse_probing.metrics.regression import NUMBER_METRICS, NumberBootstrap, number_metrics, weighted_number_metrics
from sparse_probing.ranking.permutation_null import (
    family_wise_p,
    largest_correlations,
    largest_number_correlations,
    permuted_numbers,
)
from sparse_probing.ranking.statistics import number_correlations
from sparse_probing.records import POOLINGS, Pooling, Split
from sparse_probing.report.run_report import write_report
from sparse_probing.results import tables as schema
from sparse_probing.results.number_verdict import NumberEvidence, number_verdict
from sparse_probing.results.verdict import Rivals
from sparse_probing.sweep.evaluate_numbers import NumberTables, choose_number_probes, evaluate_numbers
from sparse_probing.sweep.number_baselines import is_position, surface_predictions
from sparse_probing.sweep.number_probes import (
    DENSE_RIDGES,
    UNTRAINED_DENSE,
    NumberTask,
    best,
    merit,
    predictions,
    run_number,
)
from sparse_probing.sweep.numbers import number_data, plan_numbers, rows_with_number, run_numbers
from sparse_probing.sweep.plan import Method, Plan
from sparse_probing.views.charts import number_profile, r2_against_k

from .conftest import SENTENCES, rivals

PLAN = Plan(ks=(1, 2, 4), methods=(Method.GREEDY_SWAP,), permutations=100, seed=0)
ROWS, UNITS, LAYERS = 360, 24, (0, 2)


class Arrays(Activations):
    """Activations in memory, as far as the sweep reads them."""

    def __init__(self, arrays: dict[int, np.ndarray]) -> None:
        self.site, self.arrays = "mlp.neurons", arrays

    def read(self, layer: int, rows=None, dtype=np.float32) -> np.ndarray:
        return self.arrays[layer][rows]

    def column(self, layer: int, unit: int, rows=None) -> np.ndarray:
        return self.arrays[layer][rows, unit]


def rows_by_hand() -> FeatureDataset:
    """Single tokens, three in a document. `linear` is in unit 7 of layer 2 (falling), `pair` in units 3 and 4, `none` nowhere."""
    rng = np.random.default_rng(0)
    linear, none = rng.normal(50, 10, ROWS), rng.normal(size=ROWS)
    linear[::12] = np.nan
    pair = rng.normal(size=ROWS)
    return FeatureDataset(
        features=(), categories=(), document_ids=("d",), texts=("x",),
        tokens=rng.integers(0, 30, ROWS), char_starts=np.zeros(ROWS, dtype=int), char_ends=np.ones(ROWS, dtype=int),
        sequence_starts=np.arange(0, ROWS + 1, 3), sequence_document=np.zeros(ROWS // 3, dtype=int),
        row_sequence=np.arange(ROWS) // 3, row_first=np.arange(ROWS) % 3, row_last=np.arange(ROWS) % 3 + 1,
        row_pooling=np.full(ROWS, POOLINGS.index(Pooling.TOKEN)), row_group=np.arange(ROWS) // 3,
        row_split=np.array([0, 0, 1, 2])[np.arange(ROWS) // 3 % 4],
        positive=np.zeros((ROWS, 0), dtype=bool), eligible=np.zeros((ROWS, 0), dtype=bool), audits={},
        targets=tuple(
            NumberTarget(name=name, category="c", values=values)
            for name, values in (("linear", linear), ("pair", pair), ("none", none))
        ),
    )  # fmt: skip


def activations(dataset: FeatureDataset, *, planted: bool) -> Arrays:
    rng = np.random.default_rng(1)
    layers = {layer: rng.normal(size=(ROWS, UNITS)).astype(np.float32) for layer in LAYERS}
    if planted:
        linear, pair = dataset.targets[0].values, dataset.targets[1].values
        layers[2][:, 7] = np.nan_to_num(3 - 0.2 * linear) + 0.1 * layers[2][:, 7]
        layers[0][:, 3] += pair
        layers[0][:, 4] = pair - layers[0][:, 3] + 0.1 * layers[0][:, 4]  # the sum of the two is the number
    return Arrays(layers)


DATASET = rows_by_hand()
STORES: dict[bool, Activations] = {False: activations(DATASET, planted=True), True: activations(DATASET, planted=False)}


def swept(folder: Path, workers: int = 1, plan: Plan = PLAN) -> NumberTables:
    tasks = plan_numbers(DATASET, LAYERS, random_model=True)
    results = run_numbers(tasks, DATASET, STORES, folder, plan=plan, workers=workers)
    return evaluate_numbers(DATASET, results, STORES, plan.seed)


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> NumberTables:
    return swept(tmp_path_factory.mktemp("tasks"))


def finding(tables: NumberTables, number: str) -> dict:
    return next(row for row in tables.findings if row["number"] == number)


def test_metrics_are_those_of_scikit_learn_and_scipy():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 80).astype(float)  # many ties
    said = truth + rng.normal(size=80).round(1)
    found = number_metrics(said, truth)
    assert found["r2"] == pytest.approx(r2_score(truth, said))
    assert found["mae"] == pytest.approx(mean_absolute_error(truth, said))
    assert found["pearson"] == pytest.approx(np.corrcoef(truth, said)[0, 1])
    assert found["spearman"] == pytest.approx(spearmanr(truth, said)[0])


def test_weights_are_counts():
    rng = np.random.default_rng(1)
    truth, said, counts = rng.integers(0, 9, 40).astype(float), rng.normal(size=40), rng.integers(0, 4, 40)
    weighted = weighted_number_metrics(said, truth, counts[None].astype(float))
    repeated = number_metrics(np.repeat(said, counts), np.repeat(truth, counts))
    for name in NUMBER_METRICS:
        assert weighted[name][0] == pytest.approx(repeated[name], abs=1e-12)


def test_what_is_constant_correlates_with_nothing():
    found = number_metrics(np.full(9, 0.1 + 0.2), np.arange(9.0))
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)
    assert found["r2"] < 0
    assert number_metrics(np.arange(4.0), np.full(4, 0.3))["r2"] == 0.0


def test_resamples_of_documents_hold_two_numbers_and_the_interval_holds_the_score():
    groups, truth = np.repeat([0, 1, 2], 4), np.repeat([1.0, 1.0, 5.0], 4)
    bootstrap = NumberBootstrap(groups, truth, np.random.default_rng(0), repeats=200)
    said = truth + np.random.default_rng(1).normal(size=12)
    table = bootstrap.table(said)
    # a resample with and without document 2: drawn in 19 of 27 cases, and alone in 1 of 27
    assert 0.55 * 200 < len(table["r2"]) < 0.8 * 200
    low, high = bootstrap.intervals(said, table)["r2"]
    assert low <= number_metrics(said, truth)["r2"] <= high
    with pytest.raises(ValueError, match="two different numbers"):
        NumberBootstrap(groups, np.ones(12), np.random.default_rng(0))


def test_permutations_keep_documents_together():
    rng = np.random.default_rng(0)
    of_document, groups = np.repeat(rng.normal(size=10), 3), np.repeat(np.arange(10), 3)
    for row in permuted_numbers(of_document, groups, 20, rng):
        assert np.ptp(row.reshape(10, 3), axis=1).max() < 1e-12  # whole documents
        assert np.allclose(np.sort(row), np.sort(of_document))
    inside = np.tile(np.arange(3.0), 10)
    for row in permuted_numbers(inside, groups, 20, rng):
        assert np.allclose(np.sort(row.reshape(10, 3), axis=1), np.arange(3.0))  # within documents
    alone = permuted_numbers(of_document, np.arange(30), 3, rng)
    assert np.allclose(np.sort(alone, axis=1), np.sort(of_document))
    assert not np.allclose(alone[0], alone[1])


def test_two_ways_to_the_largest_correlation():
    rng = np.random.default_rng(0)
    x, numbers = rng.normal(size=(60, 50)).astype(np.float32), rng.normal(size=(5, 60))
    x[:, 3] = 2.5  # constant
    found = largest_number_correlations(x, numbers)
    for row, value in zip(numbers, found, strict=True):
        others = [abs(np.corrcoef(x[:, u], row)[0, 1]) for u in range(50) if u != 3]
        assert value == pytest.approx(max(others), abs=1e-5)
        assert np.abs(number_correlations(x, row)).max() == pytest.approx(max(others), abs=1e-12)
    labels = rng.random((5, 60)) < 0.4
    assert np.allclose(largest_correlations(x, labels), largest_number_correlations(x, labels.astype(float)), atol=1e-5)


@pytest.mark.parametrize("kind", ["rows", "documents", "both", "positions"])
def test_noise_is_rarely_significant(kind):
    """Documents of unequal size; units and numbers that share nothing but the documents they come in."""
    rng, low = np.random.default_rng(5), 0
    for _ in range(60):
        sizes = rng.integers(1, 12, 30)
        groups = np.repeat(np.arange(30), sizes)
        of_document = rng.normal(size=30)[groups]
        values = {
            "rows": rng.normal(size=len(groups)),
            "documents": of_document,
            "both": of_document + 0.5 * rng.normal(size=len(groups)),
            "positions": np.concatenate([np.arange(n) for n in sizes]).astype(float),
        }[kind]
        x = (rng.normal(size=(30, 20))[groups] + rng.normal(size=(len(groups), 20))).astype(np.float32)
        null = largest_number_correlations(x, permuted_numbers(values, groups, 99, rng))
        low += family_wise_p(float(np.abs(number_correlations(x, values)).max()), null) <= 0.1
    assert low <= 13  # 60 trials at 10 %: more with a chance of 0.3 %


def test_the_planted_unit_is_found(tables):
    row = finding(tables, "linear")
    assert (row["neuron"], row["layer"], row["unit"], row["sign"]) == ("L2.N7", 2, 7, -1)
    assert row["r2"] > 0.99 < row["spearman"] + 0.01
    assert row["r2_low"] <= row["r2"] <= row["r2_high"]
    assert row["mae"] < 1.0  # of a number with deviation 10
    assert row["p"] == row["p_family"] == pytest.approx(1 / 101)
    assert row["k_enough"] == 1
    assert row["verdict"] == "one neuron"
    assert row["best_baseline_r2"] < 0.2 < row["over_baseline_low"]
    assert row["mean"] == pytest.approx(50, abs=2)
    assert row["n_test"] == len(rows_with_number(DATASET, 0, Split.TEST))


def test_two_units_that_carry_a_number_together_are_found(tables):
    row = finding(tables, "pair")
    assert (row["k_enough"], row["k_enough_layer"]) == (2, 0)
    (probe,) = [r for r in tables.numbers if r["number"] == "pair" and r.get("role") == "enough"]
    assert probe["columns"] == [3, 4]
    assert np.allclose(probe["coefficients"], 1, atol=0.05)
    assert row["r2"] < 0.7 < 0.98 < row["k_enough_r2"]
    assert row["verdict"] == "few neurons (2)"


def test_nothing_is_found_where_nothing_is(tables):
    row = finding(tables, "none")
    assert abs(row["r2"]) < 0.1
    assert 0.05 < row["p"] <= row["p_family"]
    assert row["verdict"] == "not found"
    for number in ("linear", "none"):  # the twin without the number in its units
        control = [r for r in tables.numbers if r["number"] == number and r.get("role") == Method.RANDOM_MODEL]
        assert [abs(r["r2"]) < 0.1 for r in control] == [True]


def test_the_best_unit_is_the_one_of_numpy_and_its_test_score_can_be_recomputed(tables):
    row = finding(tables, "linear")
    train = rows_with_number(DATASET, 0, Split.TRAIN)
    values, x = DATASET.targets[0].values, activations(DATASET, planted=True).arrays
    r = {(at, u): np.corrcoef(x[at][train, u], values[train])[0, 1] for at in LAYERS for u in range(UNITS)}
    strongest = max(r, key=lambda key: abs(r[key]))
    assert strongest == (row["layer"], row["unit"])
    assert row["correlation"] == pytest.approx(r[strongest], abs=1e-12)
    test = rows_with_number(DATASET, 0, Split.TEST)
    (probe,) = [p for p in tables.numbers if p["number"] == "linear" and p.get("role") == "single"]
    said = x[2][test, 7].astype(float) * probe["coefficients"][0] + probe["intercept"]
    assert row["r2"] == pytest.approx(r2_score(values[test], said))
    assert row["spearman"] == pytest.approx(spearmanr(said, values[test])[0])
    # the small ridge shrinks the line of least squares by a thousandth
    assert probe["coefficients"][0] == pytest.approx(np.polyfit(x[2][train, 7], values[train], 1)[0] / 1.001, rel=1e-9)


def test_all_units_are_the_ridge_regression_of_scikit_learn():
    data = number_data(NumberTask(layer=2, target=0), DATASET, STORES[False])
    (dense,) = [p for p in run_number(NumberTask(layer=2, target=0), data, PLAN).probes if p["method"] == Method.DENSE]
    x = data.x[data.train].astype(float)
    mean, scale, y = x.mean(axis=0), x.std(axis=0), data.values[data.train]
    held = {}
    for ridge in DENSE_RIDGES:
        model = Ridge(alpha=ridge * len(y)).fit((x - mean) / scale, y)
        held[ridge] = r2_score(data.values[~data.train], model.predict((data.x[~data.train] - mean) / scale))
    assert dense["ridge"] == max(held, key=lambda ridge: held[ridge])
    assert dense["validation_r2"] == pytest.approx(held[dense["ridge"]], abs=1e-5)
    model = Ridge(alpha=dense["ridge"] * len(y)).fit((x - mean) / scale, y)
    assert np.allclose(dense["coefficients"], model.coef_ / scale, atol=1e-3 * np.abs(model.coef_).max())
    said = predictions(data.x, np.flatnonzero(~data.train), dense)
    assert np.allclose(said, model.predict((data.x[~data.train] - mean) / scale), atol=1e-3)


def test_choice_by_hand_and_ties_go_to_the_earlier_layer():
    def probe(method: str, layer: int, k: int, train: float, validation: float) -> dict:
        return {"method": str(method), "layer": layer, "k": k, "train_r2": train, "validation_r2": validation}

    greedy, random = Method.GREEDY_SWAP, Method.RANDOM
    probes = [
        probe(Method.SINGLE, 2, 1, 0.6, 0.5), probe(Method.SINGLE, 1, 1, 0.5, 0.7), probe(Method.SINGLE, 3, 1, 0.4, 0.9),
        probe(greedy, 1, 1, 0.9, 0.9), probe(greedy, 1, 2, 0.9, 0.70), probe(greedy, 1, 4, 0.9, 0.77),
        probe(greedy, 2, 4, 0.9, 0.76),
        probe(Method.DENSE, 1, 9, 1.0, 0.7), probe(Method.DENSE, 2, 9, 0.95, 0.8), probe(random, 1, 1, 0.1, 0.1),
        probe(random, 2, 1, 0.0, 0.2), probe(random, 1, 4, 0.3, 0.3), probe(UNTRAINED_DENSE, 1, 9, 0.3, 0.3),
    ]  # fmt: skip
    assert merit(probes[1]) == 0.5
    roles = choose_number_probes(probes)
    assert roles["single"] is probes[1]  # as good as layer 2 by its lower half
    assert roles["dense"] is probes[8]
    assert roles["sparse k=1"] is roles["single"]
    assert roles["enough"] is roles["sparse k=4"] is probes[5]  # 0.77 is 95 % of 0.8, 0.7 is not
    assert roles["random_neurons"] is probes[9]
    assert roles["random_neurons k=4"] is probes[11]
    assert roles[UNTRAINED_DENSE] is probes[12]
    assert Method.SHUFFLED not in roles
    assert "enough" not in choose_number_probes([p | {"validation_r2": -0.1} for p in probes])
    assert best([probe("m", 5, 1, 0.5, 0.5), probe("m", 2, 1, 0.6, 0.5)])["layer"] == 2


RIVALS = {
    "shuffled_labels": 0.0,
    "random_weights_model": 0.1,
    "random_neurons": 0.05,
    "token_identity": 0.3,
    "mean": 0.0,
}
EVIDENCE = NumberEvidence(
    single=0.9, dense=0.95, k_enough=1, enough=0.9, rivals=Rivals(()), untrained=0.2, p=0.001,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "beside", "short", "part"),
    [
        ({}, {}, "one neuron", "R² 0.90, all neurons 0.95; strongest rival: token identity 0.30 (lead +0.07"),
        ({}, {"token_identity": 0.94}, "one neuron", "strongest rival: token identity 0.94"),
        ({"untrained": 0.95}, {}, "one neuron", "all neurons of an untrained model: 0.95"),
        ({"untrained": 0.5, "dense": 0.4}, {}, "one neuron", "all neurons 0.40"),
        ({"untrained": None}, {}, "one neuron", "R² 0.90"),
        ({}, {"random_weights_model": (0.89, -0.01)}, "few neurons (1)", "not surely better than untrained model 0.89"),
        ({"p": 0.4}, {}, "few neurons (1)", "no neuron is more than chance (p 0.40)"),
        ({"p": None}, {}, "one neuron", "R² 0.90"),
        ({"single": 0.3, "enough": 0.93, "k_enough": 8}, {}, "few neurons (8)", "8 neurons: R² 0.93"),
        ({"single": 0.3, "enough": 0.93, "k_enough": 64}, {}, "distributed (64)", "64 neurons are needed"),
        ({"single": 0.3, "enough": None, "k_enough": None}, {}, "distributed", "no number of neurons that was tried"),
        ({"single": 0.3, "enough": 0.5, "k_enough": 4}, {}, "unclear", "4 neurons seemed enough"),
        ({"single": 0.3}, {"position_and_length": 0.94}, "readable from the text alone", "position and length: R² 0.94"),
        ({"single": 0.0, "enough": 0.05, "dense": 0.08}, {}, "not found", "only R² 0.08"),
    ],
)  # fmt: skip
def test_verdict_rules(change, beside, short, part):
    found, why = number_verdict(replace(EVIDENCE, rivals=rivals(**RIVALS | beside), **change))
    assert found == short
    assert part in why


def test_baselines_without_a_model_find_what_they_can():
    rng = np.random.default_rng(3)
    of_token = rng.normal(size=30)
    values = {
        "token": 5 + of_token[DATASET.tokens] + 0.1 * rng.normal(size=ROWS),
        "place": 2.0 * DATASET.row_first + 0.1 * rng.normal(size=ROWS),
        "position": DATASET.row_first.astype(float),
    }
    made = replace(DATASET, targets=tuple(NumberTarget(name=n, category="c", values=v) for n, v in values.items()))
    test = rows_with_number(made, 0, Split.TEST)
    r2 = [
        {name: r2_score(made.targets[t].values[test], said) for name, said in surface_predictions(made, t).items()}
        for t in range(3)
    ]
    assert r2[0][Method.TOKEN] > 0.85 > 0.2 > r2[0][Method.POSITION]
    assert r2[0][Method.TEXT] > 0.7
    assert r2[1][Method.POSITION] > 0.98 > 0.2 > r2[1][Method.TOKEN]
    assert all(abs(scores["mean"]) < 0.05 for scores in r2)
    assert is_position(made, 2) and Method.POSITION not in r2[2]  # it would be the number itself
    pooled = replace(made, row_pooling=np.full(ROWS, POOLINGS.index(Pooling.MEAN)))
    assert not is_position(pooled, 2)


def test_same_bytes_with_two_workers_and_after_a_stop(tables, tmp_path):
    assert swept(tmp_path / "two", workers=2) == tables
    swept(tmp_path / "stopped")
    kept = sorted((tmp_path / "stopped").glob("numbers-*.json"))
    assert len(kept) == 12  # 2 layers, 3 numbers, and their twins
    before = {path: path.read_bytes() for path in kept}
    for path in kept[::2]:
        path.unlink()
    kept[1].write_bytes(before[kept[1]])
    assert swept(tmp_path / "stopped") == tables
    assert {path: path.read_bytes() for path in kept} == before
    for rows, columns in (
        (tables.numbers, schema.NUMBERS),
        (tables.findings, schema.NUMBER_FINDINGS),
        (tables.profiles, schema.NUMBER_PROFILES),
    ):
        assert schema.table(rows, columns).schema == pl.Schema(columns)


def test_another_seed_changes_the_controls_only(tables, tmp_path):
    other = swept(tmp_path, plan=replace(PLAN, seed=1, permutations=0))
    for number in ("linear", "pair", "none"):
        old, new = finding(tables, number), finding(other, number)
        assert new["p"] is None
        assert new["p_family"] is None
        for name in ("neuron", "r2", "spearman", "dense_r2", "k_enough"):
            assert old[name] == new[name]


def test_infinite_numbers_are_refused():
    values = DATASET.targets[0].values.copy()
    values[5] = np.inf
    made = replace(DATASET, targets=(NumberTarget(name="year", category="books", values=values),))
    with pytest.raises(InputError, match="'year' of books is infinite"):
        plan_numbers(made, LAYERS, random_model=False)


def test_charts_hold_their_data():
    curve = r2_against_k(pl.DataFrame({"k": [1, 2], "layer": [0, 0], "r2": [-3.0, 0.75]}), 0.8)
    assert {len(rows) for rows in curve["datasets"].values()} == {1}  # what lies below 0 is not drawn
    bins = {"value": [1.0], "rows": [9], "activation": [0.5], "activation_low": [0.1], "activation_high": [0.9]}
    chart = number_profile(pl.DataFrame(bins), "a.b[c]")
    assert chart["layer"][1]["encoding"]["x"]["title"] == "a.b[c]"


def texts(*, features: bool) -> LabelledText:
    """120 texts; every token knows its position, and its letters where features are wanted."""
    rng = np.random.default_rng(0)
    documents = tuple(
        Document(id=str(i), text=" ".join(rng.choice(SENTENCES, 3)) + f" Part {i}.", group=str(i)) for i in range(120)
    )
    return LabelledText(
        category="sequence position",
        features=("has e",) if features else (),
        token_patterns={"has e": "e"} if features else {},
        level="token",
        documents=documents,
        numbers=("position", "log2_position"),
        near_duplicates="count",
        rules={"skip_first": 1, "window": 48, "max_rows": 1_200},
    )


def config(model: Path, out: Path, **more) -> sp.RunConfig:
    return sp.RunConfig(model=str(model), out=out, ks=(1, 2, 8), permutations=100, workers=1, **more)


@pytest.fixture(scope="module")
def position_run(model_folders, tmp_path_factory) -> sp.RunResult:
    """GPT-2 learns an embedding for every position."""
    out = tmp_path_factory.mktemp("position") / "run"
    return sp.run(config(model_folders["gpt2"], out), labelled=[texts(features=False)])


def test_a_run_with_numbers_only(position_run, capsys):
    folder = position_run.folder
    assert len(position_run.findings) == 0
    position, log2 = position_run.numbers.to_dicts()
    assert (position["number"], log2["number"]) == ("position", "log2_position")
    assert position["dense_r2"] > 0.3
    assert position["r2"] > 0.05
    assert position["p_family"] < 0.05
    assert position["best_baseline"] != Method.POSITION
    kept = pl.read_parquet(folder / "dataset/numbers.parquet")
    rows = pl.read_parquet(folder / "dataset/rows.parquet")
    assert set(kept["number"]) == {"position", "log2_position"}
    assert kept["row"].to_numpy().max() < len(rows)
    assert np.allclose(
        np.log2(1 + kept.filter(number="position")["value"]), kept.filter(number="log2_position")["value"]
    )
    assert json.loads((folder / "manifest.json").read_text())["numbers"] == [
        "sequence position/position",
        "sequence position/log2_position",
    ]
    assert not (folder / "tasks").exists()
    page = position_run.report.read_text(encoding="utf-8")
    assert 'data-chart="number-profile-0-1"' in page
    assert position["neuron"] in page
    assert "R², one neuron" in page and "F1, one neuron" not in page
    print_findings(position_run.findings, position_run.numbers)
    out = capsys.readouterr().out
    assert "log2_position" in out and "R² of the best single neuron" in out and "F1 of the best" not in out


def test_a_run_with_features_and_numbers(model_folders, tmp_path, capsys):
    result = sp.run(
        config(model_folders["gpt2"], tmp_path / "run", random_model=False), labelled=[texts(features=True)]
    )
    assert result.findings["feature"].to_list() == ["has e"]
    assert result.numbers["number"].to_list() == ["position", "log2_position"]
    assert result.numbers["untrained_dense_r2"].null_count() == 2
    page = result.report.read_text(encoding="utf-8")
    assert 'id="feature-0-0"' in page and 'id="number-0-1"' in page
    print_findings(result.findings, result.numbers)
    out = capsys.readouterr().out
    assert out.index("has e") < out.index("log2_position")
    again = sp.run(config(model_folders["gpt2"], tmp_path / "run", random_model=False), labelled=[texts(features=True)])
    assert again.numbers.equals(result.numbers)


def test_a_run_that_was_stopped_ends_in_the_same_bytes(position_run, model_folders, tmp_path, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    made = config(model_folders["gpt2"], tmp_path / "run").model_copy(update={"workers": 2})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("sparse_probing.jobs.run.evaluate_numbers", stop)
        sp.run(made, labelled=[texts(features=False)])
    tasks = sorted((tmp_path / "run/tasks").glob("numbers-*.json"))
    assert len(tasks) == 12
    tasks[0].unlink()
    sp.run(made, labelled=[texts(features=False)])
    for name in ("numbers", "number_findings", "number_profiles", "dataset/numbers"):
        assert (tmp_path / f"run/{name}.parquet").read_bytes() == (position_run.folder / f"{name}.parquet").read_bytes()


def test_folders_of_runs_that_knew_no_numbers_are_read(position_run, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    for path in position_run.folder.iterdir():
        if path.is_file() and not path.name.startswith("number"):
            (folder / path.name).write_bytes(path.read_bytes())
    assert "number-profile" not in write_report(folder).read_text(encoding="utf-8").split("<script")[0]
