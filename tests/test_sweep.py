"""The sweep finds what was planted, chooses on validation, and gives the same bytes with any number of workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.probes.newton import fit_one
from sparse_probing.probes.weights import balanced_weights
from sparse_probing.results.tables import FINDINGS, table
from sparse_probing.results.verdict import READABLE, Evidence, verdict
from sparse_probing.studies.datasheet.confounds import MEASURES, warnings_of
from sparse_probing.sweep.across_layers import Comparison, compare_layers
from sparse_probing.sweep.choose import choose
from sparse_probing.sweep.controls import control_labels, shuffled_labels
from sparse_probing.sweep.plan import SELECTED, Method, Plan, Task, plan_tasks
from sparse_probing.sweep.run_task import TaskData, TaskResult, run_task

from .conftest import rivals

PLAN = Plan(ks=(1, 2, 3, 8), methods=(Method.GREEDY_SWAP, Method.SHRINKING), permutations=100, seed=0)
KS = PLAN.ks


def planted(seed: int = 0, rows: int = 300, units: int = 40, *, tokens: bool = False) -> TaskData:
    """Feature `one` lives in unit 11 (lower in class), `three` needs units 5, 6 and 7 together, `none` is noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, units)).astype(np.float32)
    labels = rng.random((rows, 3)) < 0.4
    x[:, 11] -= 6 * labels[:, 0]
    labels[:, 1] = x[:, 5:8].sum(axis=1) > 0.5
    return TaskData(
        x=x,
        train=np.arange(rows) % 3 > 0,
        positive=labels,
        eligible=np.ones_like(labels),
        groups=np.arange(rows) // 2,
        tokens=rng.integers(0, 20, rows) if tokens else np.full(rows, -1),
        feature_names=("one", "three", "none"),
    )


def probes_of(result, feature: str, method: Method) -> list[dict[str, Any]]:
    return [p for p in result.probes if p["feature"] == feature and p["method"] == method]


TASK = Task(layer=2, category="c", features=(0, 1, 2))


def test_planted_units_are_found():
    result = run_task(TASK, planted(), PLAN)
    (single,) = probes_of(result, "one", Method.SINGLE)
    assert single["columns"] == [11]
    assert single["coefficients"][0] < 0
    assert single["validation_f1"] > 0.97
    three = {p["k"]: p for p in probes_of(result, "three", Method.SHRINKING)}
    assert three[3]["columns"] == [5, 6, 7]
    assert three[3]["validation_f1"] > 0.95 > three[1]["validation_f1"]
    (dense,) = probes_of(result, "one", Method.DENSE)
    assert dense["columns"] is None
    assert dense["k"] == 40


def test_controls_find_nothing_where_the_probe_finds_everything():
    result = run_task(TASK, planted(), PLAN)
    (shuffled,) = probes_of(result, "one", Method.SHUFFLED)
    data = planted(seed=1)
    score = data.x[:, shuffled["columns"]] @ np.array(shuffled["coefficients"]) + shuffled["intercept"]
    assert abs(metrics_at(Scored(score=score, positive=data.positive[:, 0]), shuffled["threshold"])["mcc"]) < 0.5
    assert {p["k"] for p in probes_of(result, "one", Method.RANDOM)} == set(KS)


def test_stored_coefficients_are_in_raw_units():
    data = planted()
    result = run_task(TASK, data, PLAN)
    probe = next(p for p in probes_of(result, "three", Method.SHRINKING) if p["k"] == 3)
    score = data.x[:, probe["columns"]].astype(float) @ np.array(probe["coefficients"]) + probe["intercept"]
    held = ~data.train
    found = metrics_at(Scored(score=score[held], positive=data.positive[held, 1]), probe["threshold"])
    assert found["f1"] == pytest.approx(probe["validation_f1"], abs=1e-9)
    x = data.x[data.train][:, [5, 6, 7]].astype(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    label = data.positive[data.train, 1]
    again = fit_one(z, label.astype(float), balanced_weights(label), 1e-3)
    assert probe["objective"] == pytest.approx(again.objective, rel=1e-9)


def test_results_depend_on_the_seed_only_through_the_controls():
    first, again, other = (run_task(TASK, planted(), replace(PLAN, seed=s)) for s in (0, 0, 1))
    assert first == again
    assert probes_of(first, "one", Method.SHRINKING) == probes_of(other, "one", Method.SHRINKING)
    assert probes_of(first, "one", Method.RANDOM) != probes_of(other, "one", Method.RANDOM)


def test_a_feature_alone_gives_the_same_probes_as_among_others():
    data = planted()
    alone = TaskData(
        x=data.x, train=data.train, positive=data.positive[:, :1], eligible=data.eligible[:, :1], groups=data.groups,
        tokens=data.tokens, feature_names=("one",),
    )  # fmt: skip
    together = [p for p in run_task(TASK, data, PLAN).probes if p["feature"] == "one"]
    for a, b in zip(run_task(TASK, alone, PLAN).probes, together, strict=True):
        assert a["columns"] == b["columns"]
        assert a["validation_f1"] == b["validation_f1"]


def test_the_untrained_twin_runs_the_single_neuron_search_only():
    task = Task(layer=0, category="c", features=(0, 1, 2), random_model=True)
    assert {p["method"] for p in run_task(task, planted(), PLAN).probes} == {Method.RANDOM_MODEL}


def test_plan_has_one_task_per_layer_category_and_model():
    tasks = plan_tasks([0, 3], ["a", "a", "b c"], random_model=True)
    assert [t.name for t in tasks] == [
        "L000-a", "L003-a", "L000-b_c", "L003-b_c", "random-L000-a", "random-L003-a", "random-L000-b_c", "random-L003-b_c",
    ]  # fmt: skip
    assert tasks[0].features == (0, 1)


def probe(method: Method, layer: int, k: int, f1: float, test_f1: float = 0.0) -> dict[str, Any]:
    return {
        "method": method, "layer": layer, "k": k, "validation_f1": f1, "validation_average_precision": f1,
        "train_f1": 1.0, "train_average_precision": 1.0,
        "objective": 0.5, "test_f1": test_f1,
    }  # fmt: skip


def test_choice_by_hand():
    probes = [
        probe(Method.SINGLE, 0, 1, 0.70), probe(Method.SINGLE, 1, 1, 0.80), probe(Method.SHRINKING, 0, 1, 0.60),
        probe(Method.MEAN_DIFFERENCE, 2, 1, 0.75), probe(Method.SHRINKING, 0, 2, 0.90), probe(Method.MEAN_DIFFERENCE, 1, 2, 0.96),
        probe(Method.SHRINKING, 2, 3, 0.99), probe(Method.DENSE, 0, 40, 0.5), probe(Method.DENSE, 1, 40, 1.0),
        probe(Method.RANDOM, 0, 1, 0.3), probe(Method.RANDOM, 1, 1, 0.4), probe(Method.RANDOM, 1, 2, 0.9),
        probe(Method.SHUFFLED, 2, 1, 0.6),
    ]  # fmt: skip
    roles = choose(probes)
    assert roles["single"] is probes[1]
    assert roles["sparse k=2"] is probes[5]
    assert roles["enough"] is probes[5]  # 0.96 reaches 95 % of 1.0, k = 1 does not
    assert roles["dense"] is probes[8]
    assert roles["random_neurons"] is probes[10]
    assert "random_weights_model" not in roles


def test_choice_ignores_test_scores_and_earlier_layers_win_ties():
    first = [probe(Method.SINGLE, 1, 1, 0.8, test_f1=0.1), probe(Method.SINGLE, 0, 1, 0.8, test_f1=0.9)]
    rest = [
        probe(Method.SHRINKING, 0, 1, 0.1),
        probe(Method.DENSE, 0, 9, 0.9),
        probe(Method.RANDOM, 0, 1, 0.0),
        probe(Method.SHUFFLED, 0, 1, 0.0),
    ]
    rest.append(probe(Method.MEAN_DIFFERENCE, 0, 1, 0.1))
    assert choose([*first, *rest])["single"]["layer"] == 0
    assert "enough" not in choose([*first, *rest])


RIVALS = {
    "shuffled_labels": 0.2, "random_weights_model": 0.3, "random_neurons": 0.25, "text_only": 0.5, "token_identity": 0.4,
}  # fmt: skip
EVIDENCE = {"single_f1": 0.95, "dense_f1": 0.98, "k_enough": 1, "k_enough_f1": 0.95}


@pytest.mark.parametrize(
    ("change", "beside", "short", "part"),
    [
        ({}, {}, "dedicated neuron", "one neuron: F1 0.95; strongest rival: text only 0.50 (lead +0.07 [+0.05, +0.09])"),
        ({}, {"text_only": 0.97}, "dedicated neuron", "strongest rival: text only 0.97"),
        ({}, {"text_only": 0.96, "last_token": 0.94}, "dedicated neuron", "; also last token 0.94"),
        ({}, {"random_weights_model": (0.93, -0.01)}, "few neurons (1)", "not surely better than untrained model 0.93"),
        ({}, {"random_neurons": (0.94, 0.0)}, "few neurons (1)", "not surely better than random neuron 0.94"),
        ({}, {"shuffled_labels": (0.6, -0.1)}, "few neurons (1)", "not surely better than shuffled labels 0.60"),
        ({"single_f1": 0.5, "k_enough": 4}, {}, "few neurons (4)", "4 neurons"),
        ({"single_f1": 0.5, "k_enough": 64}, {}, "distributed (64)", "64 neurons are needed"),
        ({"single_f1": 0.5, "k_enough": None, "k_enough_f1": None}, {}, "distributed", "no number of neurons"),
        ({"single_f1": 0.5, "k_enough": 2, "k_enough_f1": 0.5}, {}, "unclear", "enough before test"),
        ({"single_f1": 0.5, "dense_f1": 0.55}, {}, "not found", "only F1 0.55"),
        ({"single_f1": 0.7, "dense_f1": 0.68, "always_yes_f1": 0.68}, {}, "not found", "always answering yes: F1 0.68"),
        ({"single_f1": 0.8, "k_enough": 4}, {"text_only": 0.97}, "readable from the text alone", "the text alone: F1 0.97"),
        ({"single_f1": 0.8, "k_enough": 4}, {"last_token": 0.97}, "readable from the text alone", "strongest rival: last token"),
        ({"single_f1": 0.61, "dense_f1": 0.6}, {"text_only": 0.595}, "few neurons (1)", "strongest rival: text only"),
        ({"q": 0.2}, {}, "few neurons (1)", "no neuron is more than chance (q 0.20)"),
        ({"q": 0.01}, {}, "dedicated neuron", "one neuron: F1 0.95"),
    ],
)  # fmt: skip
def test_verdict_rules(change, beside, short, part):
    found, why = verdict(Evidence(**(EVIDENCE | change), rivals=rivals(**(RIVALS | beside))))
    assert found == short
    assert part in why


unit = st.integers(0, 100).map(lambda percent: percent / 100)


@given(single=unit, dense=unit, words=unit, token=unit, last=unit, always=unit)
def test_the_verdict_never_reads_from_the_text_what_the_audit_calls_fine(single, dense, words, token, last, always):
    scores = {"text_only": words, "token_identity": token, "last_token": last}
    short, _ = verdict(
        Evidence(
            single_f1=single, dense_f1=dense, k_enough=1, k_enough_f1=single, always_yes_f1=always,
            rivals=rivals(**RIVALS | scores),
        )
    )  # fmt: skip
    confounds = dict.fromkeys(MEASURES) | {"position_and_length": None}
    confounds |= {name: {"f1": f1, "roc_auc": 0.5} for name, f1 in scores.items()}
    record = {"splits": {"test": {"positive": 90, "negative": 90}}, "always_yes_f1": always, "confounds": confounds}
    assert warnings_of(record) or short != READABLE


def test_tables_are_typed_and_refuse_unknown_columns():
    assert table([{"feature": "x"}], FINDINGS).schema == pl.Schema(FINDINGS)
    with pytest.raises(ValueError, match="typo"):
        table([{"typo": 1}], FINDINGS)


def test_every_method_runs_in_a_sweep():
    result = run_task(TASK, planted(), replace(PLAN, methods=SELECTED, ks=(1, 3), permutations=0))
    for method in set(SELECTED) - {Method.EXACT}:  # which has tasks of its own
        assert {p["k"] for p in probes_of(result, "three", method)} == {1, 3}
    assert result.null == {}


def test_the_null_tells_a_planted_neuron_from_noise():
    layers = {
        task: run_task(task, planted(seed=task.layer), PLAN)
        for task in plan_tasks([0, 1], ["c"] * 3, random_model=False)
    }
    found = compare_layers(layers)
    one, none = found["c", "one"], found["c", "none"]
    assert one.null is not None
    assert len(one.null) == 100
    strongest = max(abs(r["correlation"]) for r in none.neurons)
    assert none.largest == pytest.approx(strongest, rel=1e-5)
    assert one.p == pytest.approx(1 / 101)
    assert none.p is not None
    assert none.p > 0.05
    assert one.best_shares()[0, 11] + one.best_shares()[1, 11] == pytest.approx(1.0)


def test_p_on_noise_is_uniform_although_the_neuron_is_chosen_by_merit():
    rng, features = np.random.default_rng(3), 40
    labels = rng.random((90, features)) < 0.4
    data = TaskData(
        x=rng.normal(size=(90, 30)).astype(np.float32), train=np.arange(90) % 3 > 0, positive=labels,
        eligible=np.ones_like(labels), groups=np.arange(90) // 2, tokens=np.full(90, -1),
        feature_names=tuple(f"noise {f}" for f in range(features)),
    )  # fmt: skip
    plan = Plan(ks=(1,), methods=(Method.MEAN_DIFFERENCE,), permutations=79, seed=0)
    layers = {
        task: run_task(task, replace(data, x=np.roll(data.x, 7 * task.layer, axis=0)), plan)
        for task in plan_tasks([0, 1], ["c"] * features, random_model=False)
    }
    found = compare_layers(layers)
    standard_error = np.sqrt(1 / 12 / features)
    assert np.mean([entry.p or np.nan for entry in found.values()]) == pytest.approx(0.5, abs=3 * standard_error)
    # the p of the chosen neuron, which need not be the one of largest correlation, would not do: it lies far above
    named = []
    for feature in data.feature_names:
        probes = [probe for result in layers.values() for probe in result.probes if probe["feature"] == feature]
        single = choose(probes)["single"]
        x = np.roll(data.x, 7 * single["layer"], axis=0)[data.train, single["columns"][0]]
        r = np.corrcoef(x, labels[data.train, data.feature_names.index(feature)])[0, 1]
        named.append(found["c", feature].p_of(r) or np.nan)
    assert np.mean(named) > 0.5 + 6 * standard_error


def test_null_resamples_and_controls_are_the_same_at_every_layer_and_whatever_else_is_probed():
    data = planted()
    first = run_task(TASK, data, PLAN)
    other_layer = run_task(replace(TASK, layer=5), data, PLAN)
    assert first.null == other_layer.null
    assert first.resampled == other_layer.resampled
    alone = TaskData(
        x=data.x, train=data.train, positive=data.positive[:, 1:2], eligible=data.eligible[:, 1:2], groups=data.groups,
        tokens=data.tokens, feature_names=("three",),
    )  # fmt: skip
    assert run_task(replace(TASK, features=(1,)), alone, PLAN).null["three"] == first.null["three"]


def test_stand_ins_and_stability_by_hand():
    entry = Comparison(
        null=np.array([0.1, 0.9]),
        resampled={(0, 1): [0.9, 0.5, 0.7, 0.7], (2, 3): [0.8, 0.6, 0.7, 0.6]},
        neurons=[
            {"layer": 0, "unit": 1, "objective": 0.5000},
            {"layer": 2, "unit": 3, "objective": 0.5004},
            {"layer": 2, "unit": 4, "objective": 0.5006},
            {"layer": 2, "unit": 9, "objective": None},
        ],
    )
    assert entry.best_shares() == {(0, 1): 0.625, (2, 3): 0.375}
    assert entry.stand_ins((0, 1)) == [(2, 3)]
    assert entry.stand_ins((2, 4)) == [(0, 1), (2, 3)]
    assert entry.p is None  # the true labels' largest correlation is not known
    assert replace(entry, largest=0.05).p == pytest.approx(1.0)
    assert entry.p_of(-0.5) == pytest.approx(2 / 3)
    assert Comparison().p_of(0.5) is None


def test_control_task_for_single_tokens_only():
    assert probes_of(run_task(TASK, planted(), PLAN), "one", Method.CONTROL_TASK) == []
    result = run_task(TASK, planted(tokens=True), PLAN)
    (control,) = probes_of(result, "one", Method.CONTROL_TASK)
    (single,) = probes_of(result, "one", Method.SINGLE)
    assert control["validation_f1"] < single["validation_f1"] - 0.2


def test_control_labels_belong_to_the_token_type():
    tokens = np.array([5, 900, 5, 7, 900])
    labels = control_labels(tokens, 0.5, 3, "f")
    assert labels[0] == labels[2]
    assert labels[1] == labels[4]
    assert control_labels(tokens[3:], 0.5, 3, "f").tolist() == labels[3:].tolist()
    many = control_labels(np.arange(4_000), 0.3, 0, "f")
    assert many.mean() == pytest.approx(0.3, abs=0.03)


def test_shuffled_labels_keep_the_parts_apart():
    rng = np.random.default_rng(0)
    positive, parts = np.array([True] * 10 + [False] * 30), np.arange(40) % 4 > 0
    shuffled = shuffled_labels(positive, np.arange(40), parts, rng)
    assert shuffled[parts].sum() == positive[parts].sum()
    assert (shuffled != positive).any()


def test_the_single_neuron_search_sees_every_unit():
    # the neuron has a perfect F1 but ranks low by mean difference: a few outliers out of class pull the means together
    rng = np.random.default_rng(0)
    data = planted()
    x = rng.normal(size=(300, 400)).astype(np.float32)
    label = data.positive[:, :1]
    x[:, 200] = np.where(label[:, 0], 1.0, -1.0) + 0.1 * rng.normal(size=300)
    x[np.flatnonzero(~label[:, 0])[:3], 200] = 60.0
    single = TaskData(
        x=x, train=data.train, positive=label, eligible=np.ones_like(label), groups=data.groups, tokens=data.tokens,
        feature_names=("one",),
    )  # fmt: skip
    result = run_task(replace(TASK, features=(0,)), single, replace(PLAN, ks=(1,)))
    (probe,) = probes_of(result, "one", Method.SINGLE)
    assert probe["columns"] == [200]
    assert isinstance(result, TaskResult)
