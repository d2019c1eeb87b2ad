"""Effects of interventions: planted neurons, statistics by hand, which tokens are scored, verdicts."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from tokenizers import Tokenizer, models

from sparse_probing.activations.effects import loss_budget
from sparse_probing.activations.extract import find_units, sequence_tokens
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import wrap_model
from sparse_probing.activations.replay import NOWHERE
from sparse_probing.activations.token_statistics import UnitStatistics
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError
from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.records import POOLINGS, SPLITS, Pooling, Split
from sparse_probing.results.tables import FINDINGS, NEURONS, PROBES, table
from sparse_probing.results.verdict import (
    CAUSAL,
    DEDICATED,
    NO_EFFECT,
    READABLE,
    STAND_INS,
    Ablation,
    SecondLook,
    second_verdict,
)
from sparse_probing.studies.effects.ablation import EffectBootstrap, RowLosses, effect_row, interval, row_losses
from sparse_probing.studies.effects.doses import Dose, new_values, parse_dose
from sparse_probing.studies.effects.downstream import downstream_row, later_probe
from sparse_probing.studies.effects.interventions import Support, Treatment, feature_effects, set_effects
from sparse_probing.studies.effects.matrix import NeuronSet, matrix_rows, neuron_sets, ranked_neurons, summary_rows
from sparse_probing.studies.effects.placebo import draw_placebos
from sparse_probing.studies.effects.tables import ABLATIONS, EFFECT_MATRIX
from sparse_probing.studies.effects.texts import (
    OTHERS,
    PREFERRED,
    EvidenceTexts,
    Scoring,
    category_texts,
    evidence_texts,
    parts_of,
)

NEXT = Scoring(None)
MASK = 39
LENGTH = 16


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dataset_of(
    sequences: Sequence[Sequence[int]],
    rows: Sequence[tuple[int, int, int]],
    positive: Sequence[Sequence[int]] | np.ndarray,
    *,
    special: Sequence[Sequence[int]] | None = None,
    group: Sequence[int] | None = None,
    split: Sequence[int] | None = None,
    eligible: np.ndarray | None = None,
    names: Sequence[tuple[str, str]] | None = None,
) -> FeatureDataset:
    """Rows (sequence, first, last), made without a tokenizer; one document per sequence unless groups say otherwise."""
    lengths = [len(s) for s in sequences]
    starts = np.concatenate([np.arange(n) for n in lengths])
    bounds = np.cumsum([0, *lengths])
    for s, places in enumerate(special or ()):
        starts[bounds[s] + np.array(places, dtype=int)] = -1
    labels = np.array(positive, dtype=bool).reshape(len(rows), -1)
    names = names or [("c", f"f{i}") for i in range(labels.shape[1])]
    return FeatureDataset(
        features=tuple(f for _, f in names),
        categories=tuple(c for c, _ in names),
        document_ids=tuple(str(s) for s in range(len(lengths))),
        texts=tuple("x" for _ in lengths),
        tokens=np.concatenate([np.array(s, dtype=np.int32) for s in sequences]),
        char_starts=starts,
        char_ends=np.where(starts < 0, -1, starts + 1),
        sequence_starts=bounds,
        sequence_document=np.arange(len(lengths)),
        row_sequence=np.array([r[0] for r in rows]),
        row_first=np.array([r[1] for r in rows]),
        row_last=np.array([r[2] for r in rows]),
        row_pooling=np.full(len(rows), POOLINGS.index(Pooling.MEAN)),
        row_group=np.array([r[0] for r in rows]) if group is None else np.array(group),
        row_split=np.full(len(rows), SPLITS.index(Split.TEST)) if split is None else np.array(split),
        positive=labels,
        eligible=np.ones_like(labels) if eligible is None else eligible,
        audits={},
    )


# planted truth

TRIGGER, ANSWER = (36, 37), (34, 35)
PLANTED = ((0, 7), (1, 11))
"""(layer, unit): fires on its trigger, writes the unembedding direction of its answer."""
TWIN = (0, 8)
"""Fires like the first one and writes nothing."""
READER = 20
"""Unit of layer 1 that fires where the first planted neuron wrote."""


@pytest.fixture(scope="module")
def planted() -> LoadedModel:
    """GPT-NeoX with two layers, 16 dimensions; dimensions 0 to 7 belong to the planted neurons, the others to 34 words."""
    torch.manual_seed(0)
    network: Any = hf.GPTNeoXForCausalLM(
        hf.GPTNeoXConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    words = torch.randn(40, 8)
    words -= words.mean(1, keepdim=True)
    with torch.no_grad():
        embed, head = network.get_input_embeddings().weight, network.get_output_embeddings().weight
        for table_ in (embed, head):
            table_.zero_()
        embed[:, 8:], head[:, 8:] = words, 0.3 * torch.randn(40, 8)
        for layer, block in enumerate(network.gpt_neox.layers):
            block.attention.dense.weight.mul_(0.3)
            into, out = block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h
            into.weight[:, :8], out.weight[:8] = 0, 0
            into.weight[:, 8:] = 0.1 * torch.randn(48, 8)
            out.weight[8:] = 0.02 * torch.randn(8, 48)
            out.bias.zero_()
            for i, (at, unit) in enumerate(PLANTED):
                if at == layer:
                    plant(block, unit, 2 * i, writes=4 + 2 * i)
            if layer == 0:
                plant(block, TWIN[1], 0, writes=None)
            else:
                plant(block, READER, 4, writes=None, bias=0.0)
        for i, (trigger, answer) in enumerate(zip(TRIGGER, ANSWER, strict=True)):
            embed[trigger] = 0
            embed[trigger, 2 * i], embed[trigger, 2 * i + 1] = 4, -4
            head[answer] = 0
            head[answer, 4 + 2 * i], head[answer, 5 + 2 * i] = 2, -2
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0"))
    )
    return wrap_model(network, tokenizer, "planted")


def plant(block: Any, unit: int, reads: int, *, writes: int | None, bias: float = -6.0) -> None:
    block.mlp.dense_h_to_4h.weight[unit] = 0
    block.mlp.dense_h_to_4h.weight[unit, reads], block.mlp.dense_h_to_4h.weight[unit, reads + 1] = 3, -3
    block.mlp.dense_h_to_4h.bias[unit] = bias
    block.mlp.dense_4h_to_h.weight[:, unit] = 0
    if writes is not None:
        block.mlp.dense_4h_to_h.weight[writes, unit], block.mlp.dense_4h_to_h.weight[writes + 1, unit] = 1, -1


@pytest.fixture(scope="module")
def texts() -> FeatureDataset:
    """72 documents of 16 words: a third hold the first trigger with its answer three times, a third the second, a third none."""
    rng = np.random.default_rng(0)
    sequences = []
    for d in range(72):
        words = rng.integers(1, 34, LENGTH)
        if d % 3 < 2:
            for at in (3, 7, 12):
                words[at : at + 2] = TRIGGER[d % 3], ANSWER[d % 3]
        sequences.append(words.tolist())
    kinds = np.arange(72) % 3
    return dataset_of(
        sequences, [(d, 2, LENGTH) for d in range(72)], np.stack([kinds == 0, kinds == 1], axis=1),
        names=[("c", "first"), ("c", "second")],
    )  # fmt: skip


def site_of(model: LoadedModel, layer: int) -> Any:
    return find_units(model, "mlp.neurons", [layer])[0]


@torch.no_grad()
def slow_change(
    model: LoadedModel, dataset: FeatureDataset, rows: Sequence[int], cleared: Sequence[tuple[int, int]]
) -> float:
    """Change of the mean loss per predicted token over some rows, from a copy whose columns are zero; by hand."""
    full: Any = copy.deepcopy(model.full)
    for layer, unit in cleared:
        full.gpt_neox.layers[layer].mlp.dense_4h_to_h.weight[:, unit] = 0
    total, count = 0.0, 0
    for row in rows:
        tokens = torch.from_numpy(sequence_tokens(dataset, int(dataset.row_sequence[row])).astype(np.int64))
        assert model.full is not None
        before, after = (torch.log_softmax(net(tokens[None]).logits[0].double(), -1) for net in (model.full, full))
        for p in range(int(dataset.row_first[row]), min(int(dataset.row_last[row]), len(tokens) - 1)):
            total += float(before[p, tokens[p + 1]] - after[p, tokens[p + 1]])
            count += 1
    return total / count


def evidence_for(dataset: FeatureDataset, feature: int, scoring: Scoring = NEXT, per_class: int = 100) -> EvidenceTexts:
    parts = parts_of(dataset, dataset.categories[feature])
    return evidence_texts(dataset, feature, per_class=per_class, parts=parts, scoring=scoring, seed=0)


def empty(schema: dict[str, Any], rows: Sequence[dict[str, Any]] = ()) -> pl.DataFrame:
    return table([dict.fromkeys(schema) | row for row in rows], schema)


def effects_of(
    model: LoadedModel,
    dataset: FeatureDataset,
    supports: Sequence[Support],
    treatment: Treatment | None = None,
    probes: pl.DataFrame | None = None,
    feature: int = 0,
    evidence: EvidenceTexts | None = None,
) -> list[dict[str, Any]]:
    return feature_effects(
        model, dataset, evidence or evidence_for(dataset, feature), supports, treatment or Treatment(), feature=feature,
        probes=empty(PROBES) if probes is None else probes, sites=find_units(model, "mlp.neurons"), seed=0,
        budget=loss_budget(model), trusted={},
    )  # fmt: skip


def single(model: LoadedModel, layer: int, *units: int) -> Support:
    return Support(role="single", site=site_of(model, layer), units=units)


def ablation_of(row: dict[str, Any]) -> Ablation:
    return Ablation(
        neurons=len(row["neurons"]), effect_in=row["effect_in"], effect_in_low=row["effect_in_low"],
        effect_in_high=row["effect_in_high"], effect_out=row["effect_out"], loss_in=row["loss_in"],
        over_placebo=row["over_placebo"], low=row["over_placebo_low"], high=row["over_placebo_high"], p=row["p"],
        placebos=row["placebos"],
    )  # fmt: skip


def look(
    single_: Ablation | None, verdict: str = DEDICATED, enough: Ablation | None = None, equals: int | None = None
) -> SecondLook:
    return SecondLook(verdict=verdict, explanation="why", single=single_, enough=enough, equals=equals)


@pytest.mark.parametrize("feature", [0, 1])
def test_the_planted_neuron_is_found(feature, planted, texts):
    layer, unit = PLANTED[feature]
    (row,) = effects_of(planted, texts, [single(planted, layer, unit)], feature=feature)
    inside, outside = (np.flatnonzero(texts.positive[:, feature] == c).tolist() for c in (True, False))
    assert row["effect_in"] > 0.3
    assert row["effect_in"] == pytest.approx(slow_change(planted, texts, inside, [(layer, unit)]), abs=1e-5)
    assert row["effect_out"] == pytest.approx(slow_change(planted, texts, outside, [(layer, unit)]), abs=1e-5)
    assert abs(row["effect_out"]) < 1e-4
    assert row["specificity"] == pytest.approx(row["effect_in"] - row["effect_out"], abs=1e-12)
    assert row["p"] == pytest.approx(1 / 21) and row["exceeded_in"] == 1 and row["placebos"] == 20
    assert 0 < row["over_placebo_low"] < row["over_placebo"] < row["over_placebo_high"]
    assert row["effect_in_low"] < row["effect_in"] < row["effect_in_high"]
    assert np.abs(row["placebo_effect_in"]).max() < 0.02 * row["effect_in"]
    assert (row["documents_in"], row["documents_out"]) == (24, 48)
    assert (row["tokens_in"], row["tokens_out"]) == (24 * (LENGTH - 3), 48 * (LENGTH - 3))
    assert row["neurons"] == [f"L{layer}.N{unit}"] and row["values"] == [0.0] and row["where"] == "all"
    assert second_verdict(look(ablation_of(row)))[0] == CAUSAL
    # the same numbers for every placebo, from copies
    for name, effect in list(zip(row["placebo_neurons"], row["placebo_effect_in"], strict=True))[:3]:
        assert effect == pytest.approx(
            slow_change(planted, texts, inside, [(layer, int(name.split("N")[1]))]), abs=1e-5
        )
    assert set(table([row], ABLATIONS).columns) == set(ABLATIONS)


def test_its_twin_that_writes_nothing_has_no_effect(planted, texts):
    (row,) = effects_of(planted, texts, [single(planted, *TWIN)])
    assert row["effect_in"] == row["effect_out"] == row["specificity"] == 0
    assert row["effect_in_low"] == row["effect_in_high"] == 0
    # it is as active as the planted one, which may be among its placebos, but it is not told apart from them
    assert row["activity"] > 0.5 and row["output_norm"] == 0
    assert row["p"] > 0.05
    assert second_verdict(look(ablation_of(row)))[0] == NO_EFFECT
    assert second_verdict(look(ablation_of(row), equals=3))[0] == STAND_INS


@pytest.mark.parametrize(("seed", "where"), [(0, "all"), (1, "labelled")])
def test_every_kind_of_intervention_on_the_planted_neuron(seed, where, planted, texts):
    kinds = ("zero", "mean", "resample", "clamp")
    doses = tuple(parse_dose(d) for d in ("0", "2x", "q1", "3.5"))
    treatment = Treatment(kinds=kinds, doses=doses, labelled_only=where == "labelled", placebos=3)
    rows = effects_of(planted, texts, [single(planted, *PLANTED[0])], treatment)
    assert [(r["kind"], r["dose"]) for r in rows] == [
        ("zero", None), ("mean", None), ("resample", None), ("clamp", "0"), ("clamp", "2x"), ("clamp", "q1"), ("clamp", "3.5"),
    ]  # fmt: skip
    assert treatment.passes(1) == 1 + 7 * 4
    by = {(r["kind"], r["dose"]): r for r in rows}
    assert by["zero", None]["effect_in"] == by["clamp", "0"]["effect_in"]
    assert by["resample", None]["values"] is None and by["clamp", "3.5"]["values"] == [3.5]
    # all labelled tokens are donors: 24 documents in class of 14 labelled tokens, three of which fire
    height = by["clamp", "q1"]["values"][0]
    assert height > 5
    assert by["clamp", "2x"]["values"][0] == pytest.approx(2 * height * 3 / 14, rel=1e-3)
    assert by["mean", None]["values"][0] == pytest.approx(height * 3 / 14 / 3, rel=1e-3)
    assert {r["where"] for r in rows} == {where} and len({tuple(r["placebo_neurons"]) for r in rows}) == 1
    assert all(
        r["effect_in"] > 0.1 for r in rows
    )  # each of them spoils the prediction of the answer, or of what follows


def test_several_neurons_and_their_placebos(planted, texts):
    support = Support(role="enough", site=site_of(planted, 0), units=(PLANTED[0][1], 30))
    (row,) = effects_of(planted, texts, [support])
    inside = np.flatnonzero(texts.positive[:, 0]).tolist()
    expected = slow_change(planted, texts, inside, [PLANTED[0], (0, 30)])
    assert row["effect_in"] == pytest.approx(expected, abs=1e-5)
    assert row["support"] == "enough" and len(row["placebo_neurons"]) == 20 and row["p"] == pytest.approx(1 / 21)
    assert all(len(set(name.split("+"))) == 2 for name in row["placebo_neurons"])


def probe_row(layer: int, columns: list[int], coefficients: list[float], **more: Any) -> dict[str, Any]:
    return {
        "category": "c", "feature": "first", "layer": layer, "method": "single_neuron", "k": len(columns), "split": "validation",
        "f1": 0.9, "average_precision": 0.9, "threshold": 0.1, "columns": columns, "coefficients": coefficients,
        "intercept": -0.05,
    } | more  # fmt: skip


def test_a_later_probe_loses_what_the_planted_neuron_wrote(planted, texts):
    evidence = evidence_for(texts, 0)
    probes = empty(PROBES, [probe_row(1, [READER, 3], [1.0, 0.2])])
    (row,) = effects_of(planted, texts, [single(planted, *PLANTED[0])], probes=probes, evidence=evidence)
    scores = []
    for cleared in ((), (PLANTED[0],)):
        full: Any = copy.deepcopy(planted.full)
        with torch.no_grad():
            for layer, unit in cleared:
                full.gpt_neox.layers[layer].mlp.dense_4h_to_h.weight[:, unit] = 0
        values = []
        full.gpt_neox.layers[1].mlp.dense_4h_to_h.register_forward_pre_hook(lambda _m, a, v=values: v.append(a[0][0]))
        with torch.no_grad():
            for r in evidence.row.tolist():
                full(torch.from_numpy(sequence_tokens(texts, int(texts.row_sequence[r])).astype(np.int64))[None])
        pooled = torch.stack([v[2:LENGTH].mean(0) for v in values]).double().numpy()
        scores.append(pooled[:, READER] + 0.2 * pooled[:, 3] - 0.05)
    shift = (scores[1] - scores[0]) / scores[0].std()
    assert row["shift_in"] == pytest.approx(shift[evidence.positive].mean(), abs=1e-4) and row["shift_in"] < -1
    assert (
        row["shift_out"] == pytest.approx(shift[~evidence.positive].mean(), abs=1e-4) and abs(row["shift_out"]) < 1e-3
    )
    assert row["f1_before"] == pytest.approx(metrics_at(Scored(score=scores[0], positive=evidence.positive), 0.1)["f1"])
    assert row["f1_before"] == 1 and row["f1_after"] < 0.7
    assert len(row["placebo_shift_in"]) == 20 and np.abs(row["placebo_shift_in"]).max() < 0.1
    assert (row["probe_layer"], row["probe_k"]) == (1, 2)
    (last,) = effects_of(planted, texts, [single(planted, *PLANTED[1])], probes=probes, evidence=evidence)
    assert "shift_in" not in last  # no layer comes later


def test_the_same_seed_gives_the_same_rows_and_supports_do_not_meet(planted, texts):
    supports = [
        single(planted, *PLANTED[0]),
        Support(role="enough", site=site_of(planted, 1), units=(PLANTED[1][1], 2)),
    ]
    probes = empty(PROBES, [probe_row(1, [READER], [1.0])])
    treatment = Treatment(placebos=4)
    once, again = (effects_of(planted, texts, supports, treatment, probes) for _ in range(2))
    assert once == again
    (alone,) = effects_of(planted, texts, supports[:1], treatment, probes)
    assert once[0] == alone


def sets_for(sizes: Sequence[int]) -> list[NeuronSet]:
    ranked = {"first": [PLANTED[0], (1, 30), (0, 31)], "second": [PLANTED[1], (0, 32), (1, 33)]}
    return [NeuronSet(feature=f, size=n, neurons=tuple(ranked[f][:n])) for f in ranked for n in sizes]


def test_the_matrix_has_its_mass_on_the_diagonal(planted, texts):
    evidence, carried = category_texts(texts, "c", per_part=30, scoring=NEXT, seed=0)
    assert {name: int(mask.sum()) for name, mask in carried.items()} == {"first": 24, "second": 24, OTHERS: 24}
    rows = set_effects(
        planted, texts, evidence, carried, sets_for([1, 3]), find_units(planted, "mlp.neurons"), category="c", seed=0,
        budget=loss_budget(planted), trusted={},
    )  # fmt: skip
    by = {(r["switched_off"], r["size"], r["affected"]): r for r in rows}
    assert len(by) == len(rows) == 2 * 2 * 3
    for chosen in sets_for([1, 3]):
        for i, affected in enumerate(("first", "second", OTHERS)):
            inside = np.flatnonzero(texts.row_sequence % 3 == i).tolist()
            row = by[chosen.feature, chosen.size, affected]
            assert row["effect"] == pytest.approx(slow_change(planted, texts, inside, chosen.neurons), abs=1e-5)
            assert row["percent"] == pytest.approx(100 * row["effect"] / row["loss"])
            assert row["documents"] == 24 and row["tokens"] == 24 * (LENGTH - 3)
            assert row["effect_low"] <= row["effect"] <= row["effect_high"]
            assert (row["effect"] > 0.3) == (affected == chosen.feature)
            assert abs(row["effect"]) < 0.05 or affected == chosen.feature
    assert by["second", 3, "first"]["neurons"] == ["L1.N11", "L0.N32", "L1.N33"]
    assert set(table(rows, EFFECT_MATRIX).columns) == set(EFFECT_MATRIX)
    for row in summary_rows(rows):
        own = {n: by[row["switched_off"], n, row["switched_off"]]["effect"] for n in (1, 3)}
        assert row["own"] == own[row["size"]] and row["shared_by"] == 0
        assert row["cumulative"] == (own[3] >= own[1])
        others = [r["effect"] for k, r in by.items() if k[:2] == (row["switched_off"], row["size"]) and k[2] != k[0]]
        assert row["others_mean"] == pytest.approx(np.mean(others)) and row["others_largest"] == max(others)


def test_summary_of_a_matrix_by_hand():
    def cell(off: str, size: int, affected: str, effect: float) -> dict[str, Any]:
        return {"switched_off": off, "size": size, "affected": affected, "effect": effect}

    rows = [
        cell("a", 1, "a", 0.4), cell("a", 1, "b", 0.2), cell("a", 1, "c", 0.19), cell("a", 2, "a", 0.5), cell("a", 2, "b", -1.0),
        cell("b", 2, "b", 0.1), cell("b", 1, "b", 0.2), cell("c", 1, "c", -0.1), cell("c", 1, "a", 0.3), cell("d", 1, "a", 0.3),
    ]  # fmt: skip
    found = {(r["switched_off"], r["size"]): r for r in summary_rows(rows)}
    assert found["a", 1]["shared_by"] == 1 and found["a", 1]["others_mean"] == pytest.approx(0.195)
    assert found["a", 1]["cumulative"] and found["a", 2]["cumulative"] and found["a", 2]["others_largest"] == -1
    assert found["c", 1]["cumulative"] is None, "one size says nothing"
    assert not found["b", 1]["cumulative"] and not found["b", 2]["cumulative"]
    assert found["b", 1]["others_mean"] is None and found["b", 1]["others_largest"] is None
    assert found["c", 1]["shared_by"] is None  # switching it off does not hurt: nothing to be half of
    assert ("d", 1) not in found


def test_ranked_neurons_and_nested_sets():
    findings = empty(FINDINGS, [{"category": "c", "feature": "a", "layer": 1, "unit": 5}])
    ranked = [
        (0, 9, None, 0.99),
        (1, 5, 0.7, 0.5),
        (0, 3, 0.2, 0.4),
        (1, 2, 0.2, 0.6),
        (1, 1, 0.2, 0.6),
        (0, 8, None, 0.2),
    ]
    neurons = empty(
        NEURONS,
        [
            {"category": "c", "feature": "a", "layer": n, "unit": u, "best_share": s, "average_precision": ap}
            for n, u, s, ap in ranked
        ]
        + [{"category": "c", "feature": "b", "layer": 0, "unit": 0, "best_share": 1.0, "average_precision": 1.0}],
    )  # fmt: skip
    assert ranked_neurons(findings, neurons, "c", "a", 9) == [(1, 5), (1, 1), (1, 2), (0, 3), (0, 9), (0, 8)]
    made = neuron_sets(findings, neurons, "c", ["a"], [1, 3, 10])
    assert [(s.size, s.neurons) for s in made] == [(1, ((1, 5),)), (3, ((1, 5), (1, 1), (1, 2)))]


# statistics


def losses_for(seed: int, rows: int = 60, documents: int = 25, changes: int = 4) -> RowLosses:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 6, rows)
    total = rng.normal(2, 0.3, (1 + changes, rows)) * tokens
    positive = rng.random(rows) < 0.5
    return RowLosses(total=total, tokens=tokens, positive=positive, group=7 * rng.integers(0, documents, rows))


def test_row_losses_by_hand():
    loss = np.array([[1.0, 2.0, 4.0, 8.0], [1.5, 2.0, 4.0, 9.0]], dtype=np.float32)
    made = row_losses(
        loss, [np.array([0, 3]), np.array([], dtype=int), np.array([1])], np.array([True, False, False]), np.array([1, 2, 3])
    )  # fmt: skip
    assert made.total.dtype == np.float64
    np.testing.assert_array_equal(made.total, [[9, 0, 2], [10.5, 0, 2]])
    np.testing.assert_array_equal(made.tokens, [2, 0, 1])
    np.testing.assert_array_equal(made.change, [[1.5, 0, 0]])


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_bootstrap_equals_a_loop_over_documents(seed):
    rows = losses_for(seed)
    made = EffectBootstrap(rows, np.random.default_rng(5), repeats=20)
    names = sorted(set(rows.group.tolist()))
    times = np.random.default_rng(5).multinomial(len(names), np.full(len(names), 1 / len(names)), size=20)
    estimate, resampled = made.means(rows.positive)
    inside = [i for i in range(len(rows.positive)) if rows.positive[i]]
    for c in range(4):
        change = {i: rows.total[c + 1, i] - rows.total[0, i] for i in inside}
        assert estimate[c] == pytest.approx(sum(change.values()) / sum(rows.tokens[i] for i in inside))
        for r in range(20):
            weight = {i: times[r, names.index(rows.group[i])] for i in inside}
            expected = sum(weight[i] * change[i] for i in inside) / sum(weight[i] * rows.tokens[i] for i in inside)
            assert resampled[r, c] == pytest.approx(expected)
    assert made.documents(rows.positive) == len({rows.group[i] for i in inside if rows.tokens[i]})


@given(st.integers(0, 10_000), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_an_effect_row_equals_its_definition(seed, mine):
    rows = losses_for(seed)
    placebos = [i for i in range(4) if i != mine]
    row = effect_row(rows, mine, placebos, np.random.default_rng(0))
    inside, outside = rows.positive, ~rows.positive

    def mean(i: int, mask: np.ndarray) -> float:
        return float((rows.total[i + 1] - rows.total[0])[mask].sum() / rows.tokens[mask].sum())

    specific = [mean(i, inside) - mean(i, outside) for i in range(4)]
    centre = sum(specific[i] for i in placebos) / 3
    assert row["effect_in"] == pytest.approx(mean(mine, inside)) and row["effect_out"] == pytest.approx(
        mean(mine, outside)
    )
    assert row["specificity"] == pytest.approx(specific[mine])
    assert row["over_placebo"] == pytest.approx(specific[mine] - centre)
    assert row["placebo_specificity"] == pytest.approx([specific[i] for i in placebos])
    assert row["exceeded_in"] == pytest.approx(sum(mean(i, inside) < mean(mine, inside) for i in placebos) / 3)
    assert any(row["p"] == pytest.approx(n / 4) for n in range(1, 5))
    assert row["loss_in"] == pytest.approx(rows.total[0][inside].sum() / rows.tokens[inside].sum())
    assert row["loss_out"] == pytest.approx(rows.total[0][outside].sum() / rows.tokens[outside].sum())


def specific_losses(specificities: Sequence[float], documents: int = 40) -> RowLosses:
    """Each change has this specificity: that much more loss on every token in class, none out of class."""
    positive = np.arange(2 * documents) % 2 == 0
    total = np.stack([np.zeros(2 * documents), *(np.where(positive, s, 0.0) for s in specificities)])
    return RowLosses(total=total, tokens=np.ones(2 * documents, int), positive=positive, group=np.arange(2 * documents))


@pytest.mark.parametrize(("mine", "p"), [(9.0, 1 / 6), (-9.0, 1 / 6), (0.6, 3 / 6), (0.0, 6 / 6), (-0.6, 3 / 6)])
def test_p_counts_placebos_as_far_on_either_side(mine, p):
    rows = specific_losses([mine, -1.0, 0.1, 0.2, -0.3, 1.0])  # the placebos' mean is 0
    assert effect_row(rows, 0, range(1, 6), np.random.default_rng(0))["p"] == pytest.approx(p)


def test_p_is_kept_by_units_that_are_no_different(monkeypatch):
    """If the unit is drawn like its placebos, p at most 1/20 must come at most so often: 1,500 trials, 4 standard errors."""
    rng, below, trials = np.random.default_rng(0), 0, 1_500
    monkeypatch.setattr(EffectBootstrap.__init__, "__defaults__", (2,))
    for _ in range(trials):
        rows = specific_losses(rng.normal(size=6).tolist(), documents=1)
        below += effect_row(rows, 0, range(1, 6), np.random.default_rng(0))["p"] <= 1 / 6 + 1e-9
    assert below / trials <= 1 / 6 + 4 * np.sqrt(1 / 6 * 5 / 6 / trials)


def test_no_placebos_no_p():
    row = effect_row(losses_for(0), 2, [], np.random.default_rng(0))
    assert "p" not in row and "over_placebo" not in row and row["placebos"] == 0 and row["placebo_specificity"] == []


@pytest.mark.parametrize(("documents", "given_"), [(19, False), (20, True)])
def test_intervals_need_twenty_documents(documents, given_):
    rng = np.random.default_rng(0)
    n = documents + 40
    rows = RowLosses(
        total=rng.random((3, n)), tokens=np.ones(n, int), positive=np.arange(n) < documents, group=np.arange(n)
    )
    row = effect_row(rows, 0, [1], rng)
    assert (row["effect_in_low"] is not None) == given_ and (row["specificity_high"] is not None) == given_
    assert (row["over_placebo_low"] is not None) == given_ and row["effect_out_low"] is not None
    turned = effect_row(replace(rows, positive=~rows.positive), 0, [1], rng)
    assert (turned["effect_out_low"] is not None) == given_ and (turned["specificity_low"] is not None) == given_
    silent = effect_row(replace(rows, tokens=np.where(np.arange(n) == 0, 0, 1)), 0, [1], rng)
    assert silent["documents_in"] == documents - 1 and silent["effect_in_low"] is None
    assert interval(np.full(9, np.nan), 99) == (None, None)
    assert interval(np.append(np.arange(101.0), np.nan), 20) == (pytest.approx(2.5), pytest.approx(97.5))


def test_matrix_rows_leave_out_features_without_tokens():
    rows = losses_for(3)
    none = np.zeros(60, bool)
    carried = {"a": rows.positive, "b": none, "c": (rows.tokens == 0)}
    made = matrix_rows(rows, [NeuronSet(feature="a", size=1, neurons=((0, 1),))], carried, np.random.default_rng(0))
    assert [(r["switched_off"], r["affected"]) for r in made] == [("a", "a")]
    here = rows.positive
    assert made[0]["effect"] == pytest.approx(rows.change[0][here].sum() / rows.tokens[here].sum())
    assert made[0]["percent"] == pytest.approx(100 * rows.change[0][here].sum() / rows.total[0][here].sum())


# placebos


def statistics_of(width: int, seed: int = 0) -> UnitStatistics:
    rng = np.random.default_rng(seed)
    return UnitStatistics(
        mean=rng.normal(size=width), size=rng.gamma(0.3, size=width), active=np.ones(width), donors=rng.normal(size=(5, width)),
        output_norm=rng.gamma(2, size=width), donor_sequence=np.zeros(5, int), donor_position=np.arange(5),
    )  # fmt: skip


@given(st.integers(2, 70), st.integers(1, 4), st.integers(1, 20), st.integers(0, 1_000))
@settings(max_examples=60, deadline=None)
def test_placebos_are_distinct_and_never_the_unit_itself(width, size, count, seed):
    rng = np.random.default_rng(seed)
    units = rng.choice(width, size=min(size, width), replace=False).tolist()
    known = statistics_of(width, seed)
    drawn = draw_placebos(units, known, count, np.random.default_rng(seed))
    assert drawn.shape[1] == len(units) and len(drawn) <= count
    assert not np.isin(drawn, units).any()
    assert len({tuple(sorted(d)) for d in drawn.tolist()}) == len(drawn)
    assert all(len(set(d)) == len(units) for d in drawn.tolist())
    np.testing.assert_array_equal(drawn, draw_placebos(units, known, count, np.random.default_rng(seed)))
    if len(units) == 1:
        assert len(drawn) == min(count, width - 1)
    if width < 2 * len(units):
        assert len(drawn) == 0
    # each member comes from the nearest of the member it stands for
    ranks = np.stack([rankdata(v) for v in (known.size, known.output_norm)], axis=1)
    for i, unit in enumerate(units):
        far = ((ranks - ranks[unit]) ** 2).sum(axis=1).astype(float)
        far[units] = np.inf
        limit = np.sort(far)[min(2 * max(count, len(units)), width) - 1]
        assert (far[drawn[:, i]] <= limit).all()


def test_placebos_depend_on_the_generator_and_span_the_neighbourhood():
    known = statistics_of(200)
    seen = {u for seed in range(30) for u in draw_placebos([5], known, 20, np.random.default_rng(seed))[:, 0].tolist()}
    assert len(seen) == 40
    assert draw_placebos([5], known, 0, np.random.default_rng(0)).shape == (0, 1)
    assert draw_placebos([5, 6], known, 0, np.random.default_rng(0)).shape == (0, 2)


# doses


@pytest.mark.parametrize(
    ("text", "number", "of"),
    [("8", 8, "value"), ("-1", -1, "value"), (" 0.5 ", 0.5, "value"), ("1e2", 100, "value"),
     ("2x", 2, "mean"), ("-1.5X", -1.5, "mean"),
     ("q0.95", 0.95, "quantile"), ("Q0", 0, "quantile"), ("q1", 1, "quantile")],
)  # fmt: skip
def test_doses(text, number, of):
    assert parse_dose(text) == Dose(text.strip(), float(number), of)


@pytest.mark.parametrize(
    "text",
    [
        "q2",
        "q-0.1",
        "nan",
        "inf",
        "1e400",
        "-1e400x",
        "",
        "x",
        "q",
        "2xq",
        "q0.5x",
        "1.2.3",
        ".",
        "1,5",
        "0x10",
        "1 2",
        "eight",
    ],
)
def test_strings_that_are_no_doses(text):
    with pytest.raises(InputError, match="is no level for a clamp"):
        parse_dose(text)


def test_levels_and_new_values():
    known, inside = statistics_of(9), np.array([[1.0, -2.0], [3.0, 0.0], [8.0, 1.0]], dtype=np.float32)
    assert parse_dose("2x").level(inside[:, 0]) == 8 and parse_dose("q0.5").level(inside[:, 0]) == 3
    assert parse_dose("q0.75").level(inside[:, 0]) == 5.5 and parse_dose("-7").level(inside[:, 0]) == -7
    np.testing.assert_array_equal(new_values("zero", None, (4, 2), known, inside), [[0, 0]])
    np.testing.assert_array_equal(new_values("mean", None, (4, 2), known, inside), known.mean[None, [4, 2]])
    np.testing.assert_array_equal(new_values("resample", None, (4, 2), known, inside), known.donors[:, [4, 2]])
    np.testing.assert_array_equal(new_values("clamp", parse_dose("q1"), (4, 2), known, inside), [[8, 1]])


@pytest.mark.parametrize("text", ["2x", "q0.5"])
def test_a_level_of_a_class_without_donors_is_a_sentence(text):
    with pytest.raises(InputError):
        parse_dose(text).level(np.zeros(0, dtype=np.float32))


# which texts


def windows_dataset(draw_seed: int, documents: int = 8, features: int = 2) -> FeatureDataset:
    rng = np.random.default_rng(draw_seed)
    group = np.sort(rng.integers(0, documents, 40))
    kind = rng.integers(0, features + 1, 40)
    positive = np.stack([kind == f for f in range(features)], axis=1)
    split = rng.integers(0, 3, documents)[group]
    return dataset_of(
        [[1, 2, 3, 4]] * 40, [(s, 0, 4) for s in range(40)], positive, group=group.tolist(), split=split.tolist()
    )


@given(st.integers(0, 5_000), st.integers(1, 25))
@settings(max_examples=50, deadline=None)
def test_texts_spread_over_documents_splits_and_parts(seed, per_class):
    dataset = windows_dataset(seed)
    positive = dataset.positive[:, 0]
    if positive.all() or not positive.any():
        return
    made = evidence_for(dataset, 0, per_class=per_class)
    again = evidence_for(dataset, 0, per_class=per_class)
    assert made.row.tolist() == again.row.tolist() and sorted(made.row.tolist()) == made.row.tolist()
    np.testing.assert_array_equal(made.positive, positive[made.row])
    np.testing.assert_array_equal(made.group, dataset.row_group[made.row])
    for wanted in (True, False):
        pool, chosen = np.flatnonzero(positive == wanted), made.row[made.positive == wanted]
        assert len(chosen) == min(per_class, len(pool))
        parts = [None] if wanted else sorted({*np.array(parts_of(dataset, "c"))[pool].tolist()})
        part = np.array([None if wanted else p for p in parts_of(dataset, "c")], dtype=object)
        if wanted:
            # one part: no document comes again before each came once, test first among those that come once
            uses, room = Counter(dataset.row_group[chosen].tolist()), Counter(dataset.row_group[pool].tolist())
            assert all(uses[g] >= min(room[g], max(uses.values()) - 1) for g in room)
            order = [PREFERRED.index(SPLITS[s]) for s in dataset.row_split[chosen].tolist()]
            if len(chosen) <= len(room):
                left = [
                    PREFERRED.index(SPLITS[s])
                    for g in room - uses
                    for s in dataset.row_split[dataset.row_group == g][:1].tolist()
                    if g not in uses
                ]
                assert max(order) <= min(left, default=9)
        else:
            counts, room = Counter(part[chosen].tolist()), Counter(part[pool].tolist())
            assert all(counts[p] >= min(room[p], max(counts.values()) - 1) for p in parts)


def test_test_texts_come_first():
    split = [SPLITS.index(s) for s in (Split.TRAIN, Split.VALIDATION, Split.TEST)] * 6
    dataset = dataset_of([[1, 2, 3]] * 18, [(s, 0, 3) for s in range(18)], [[s < 9] for s in range(18)], split=split)
    for count, expected in ((3, {Split.TEST}), (6, {Split.TEST, Split.VALIDATION}), (7, set(SPLITS))):
        made = evidence_for(dataset, 0, per_class=count)
        assert {SPLITS[s] for s in dataset.row_split[made.row]} == expected


def test_a_class_without_text_is_a_sentence():
    dataset = dataset_of([[1, 2, 3]] * 4, [(s, 0, 3) for s in range(4)], [[True, False]] * 4)
    for feature, which in ((0, "out of"), (1, "in")):
        with pytest.raises(
            InputError, match=f"feature 'f{feature}' has no text {which} class: an effect needs texts of both"
        ):
            evidence_for(dataset, feature)


def test_a_class_at_whose_tokens_nothing_is_predicted_is_a_sentence():
    """Rows in class are always the last token of their text, the others are not: there is no loss in class."""
    words = list(range(10, 22))
    rows = [row for s in range(30) for row in ((s, 2, 3), (s, 5, 6), (s, 11, 12))]
    dataset = dataset_of([words] * 30, rows, [[row[1] == 11] for row in rows])
    with pytest.raises(InputError, match="in class"):
        evidence_for(dataset, 0)


def test_rows_that_are_not_eligible_stay_out():
    eligible = np.array([[True], [True], [False], [False]])
    dataset = dataset_of(
        [[1, 2, 3]] * 4, [(s, 0, 3) for s in range(4)], [[True], [False], [True], [False]], eligible=eligible
    )
    assert evidence_for(dataset, 0).row.tolist() == [0, 1]
    assert [t.number for t in evidence_for(dataset, 0).texts] == [0, 1]


def test_parts_are_features_unless_rows_carry_several():
    rows = [(s, 0, 3) for s in range(3)]
    assert parts_of(dataset_of([[1, 2, 3]] * 3, rows, [[1, 0], [0, 1], [0, 0]]), "c") == ["f0", "f1", OTHERS]
    assert parts_of(dataset_of([[1, 2, 3]] * 3, rows, [[1, 0], [1, 1], [0, 0]]), "c") == [OTHERS] * 3


def test_category_texts_give_each_feature_its_share():
    kinds = [0] * 12 + [1] * 5 + [2] * 9
    dataset = dataset_of([[1, 2, 3]] * 26, [(s, 0, 3) for s in range(26)], [[k == 0, k == 1] for k in kinds])
    made, carried = category_texts(dataset, "c", per_part=6, scoring=NEXT, seed=3)
    assert {name: int(mask.sum()) for name, mask in carried.items()} == {"f0": 6, "f1": 5, OTHERS: 6}
    for name, mask in carried.items():
        kind = {"f0": 0, "f1": 1, OTHERS: 2}[name]
        assert {kinds[r] for r in made.row[mask].tolist()} == {kind}
    other, _ = category_texts(dataset, "c", per_part=6, scoring=NEXT, seed=4)
    assert made.row.tolist() != other.row.tolist()


# which tokens


def members_of(dataset: FeatureDataset, made: EvidenceTexts) -> list[list[tuple[int, int]]]:
    """For each row the (text, position) that are scored for it."""
    text = np.concatenate([np.full(int((t.targets != NOWHERE).sum()), i) for i, t in enumerate(made.texts)])
    position = np.concatenate([np.flatnonzero(t.targets != NOWHERE) for t in made.texts])
    return [[(int(text[i]), int(position[i])) for i in m] for m in made.members(dataset, text, position)]


def test_scored_positions_of_whole_texts_with_special_tokens_around():
    """[BOS] w w w w [EOS], rows from the second word on: the closing token is not to be predicted."""
    dataset = dataset_of(
        [[0, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 2], [0, 21, 22, 23, 2]],
        [(0, 2, 11), (1, 2, 4)], [[True], [False]], special=[[0, 11], [0, 4]]
    )  # fmt: skip
    made = evidence_for(dataset, 0)
    assert not made.own_tokens
    assert made.texts[0].targets.tolist() == [-1, -1, 13, 14, 15, 16, 17, 18, 19, 20, -1, -1]
    assert made.texts[1].targets.tolist() == [-1, -1, 23, -1, -1]
    assert made.texts[0].tokens.tolist() == [0, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 2]
    assert made.texts[0].labelled is not None and np.flatnonzero(made.texts[0].labelled).tolist() == list(range(2, 11))
    assert members_of(dataset, made) == [[(0, p) for p in range(2, 10)], [(1, 2)]]


def test_scored_positions_of_tokens_and_spans():
    """Rows of one token: what is predicted at it; spans: at each of their tokens; the last token of a text predicts nothing."""
    words = list(range(10, 22))
    dataset = dataset_of(
        [words, words], [(0, 3, 4), (0, 6, 9), (0, 9, 10), (1, 0, 1), (1, 11, 12)], [[1], [0], [1], [0], [1]]
    )
    made = evidence_for(dataset, 0)
    assert not made.own_tokens
    assert np.flatnonzero(made.texts[0].targets != NOWHERE).tolist() == [3, 6, 7, 8, 9]
    assert made.texts[0].targets[[3, 6, 9]].tolist() == [14, 17, 20]
    assert members_of(dataset, made) == [[(0, 3)], [(0, 6), (0, 7), (0, 8)], [(0, 9)], [(1, 0)], []]


@pytest.mark.parametrize("closing", [False, True])
def test_facts_at_the_end_of_texts_are_scored_by_their_own_tokens(closing):
    tail = [2] if closing else []
    sequences = [[0, 11, 12, 13, 14, *tail], [0, 21, 22, 23, *tail], [0, 31, 32, *tail]]
    special = [[0, 5], [0, 4], [0, 3]] if closing else [[0]] * 3
    dataset = dataset_of(sequences, [(0, 3, 5), (1, 3, 4), (2, 1, 2)], [[True], [False], [True]], special=special)
    made = evidence_for(dataset, 0)
    assert made.own_tokens
    assert [np.flatnonzero(t.targets != NOWHERE).tolist() for t in made.texts] == [[2, 3], [2], [0]]
    assert made.texts[0].targets[[2, 3]].tolist() == [13, 14] and made.texts[2].targets[0] == 31
    assert members_of(dataset, made) == [[(0, 2), (0, 3)], [(1, 2)], [(2, 0)]]


def test_changes_at_labelled_positions_can_reach_what_is_scored(planted):
    """Facts of one token at the end: what is changed at the token itself comes too late for its own prediction."""
    rng = np.random.default_rng(0)
    sequences = [[*rng.integers(1, 34, 6).tolist(), TRIGGER[0], ANSWER[0]] for _ in range(50)]
    dataset = dataset_of(sequences, [(s, 7, 8) for s in range(50)], [[s % 2 == 0] for s in range(50)])
    made = evidence_for(dataset, 0)
    assert made.own_tokens
    (row,) = effects_of(
        planted, dataset, [single(planted, *PLANTED[0])], Treatment(labelled_only=True, placebos=1), evidence=made
    )  # fmt: skip
    assert abs(row["effect_in"]) > 0.1


def test_long_rows_at_the_end_and_rows_before_the_end_are_no_facts():
    words = list(range(10, 30))
    long = dataset_of([words] * 2, [(0, 11, 20), (1, 11, 20)], [[True], [False]])
    assert not evidence_for(long, 0).own_tokens
    assert evidence_for(replace(long, row_first=np.array([12, 12])), 0).own_tokens
    assert not evidence_for(replace(long, row_first=np.array([12, 12]), row_last=np.array([19, 19])), 0).own_tokens
    half = replace(long, row_first=np.array([12, 12]), row_last=np.array([20, 19]))
    assert not evidence_for(half, 0).own_tokens  # most means more than half


def test_masked_models_guess_tokens_of_the_rows():
    length = 102
    sequences = [[0, *range(100, 200), 2]] * 6
    rows = [(s, 0, length) for s in range(5)] + [(5, 7, 8)]
    dataset = dataset_of(sequences, rows, [[s % 2 == 0] for s in range(6)], special=[[0, 101]] * 6)
    made = evidence_for(dataset, 0, Scoring(MASK))
    assert not made.own_tokens
    hidden = []
    for text in made.texts[:5]:
        at = np.flatnonzero(text.targets != NOWHERE)
        assert len(at) == 15 and at.min() > 0 and at.max() < 101  # 15 % of 100 words, no special token
        assert (text.tokens[at] == MASK).all()
        np.testing.assert_array_equal(text.targets[at], 99 + at)
        rest = np.setdiff1d(np.arange(length), at)
        np.testing.assert_array_equal(text.tokens[rest], np.array(sequences[0])[rest])
        hidden.append(tuple(at.tolist()))
    assert len(set(hidden)) == 5
    assert np.flatnonzero(made.texts[5].targets != NOWHERE).tolist() == [7]  # at least one token of each text
    again = evidence_for(dataset, 0, Scoring(MASK))
    assert all((a.tokens == b.tokens).all() for a, b in zip(made.texts, again.texts, strict=True))
    for row, found in enumerate(members_of(dataset, made)):
        at = np.flatnonzero(made.texts[row].targets != NOWHERE)
        assert found == [(row, int(p)) for p in at]
    assert dataset.tokens.max() == 199 and MASK not in dataset.tokens  # the data are not written over


# downstream


def test_the_later_probe_is_the_best_on_few_units_in_a_later_layer():
    def row(layer: int, f1: float, **more: Any) -> dict[str, Any]:
        return probe_row(layer, [1], [1.0], f1=f1, **more)

    probes = empty(
        PROBES,
        [
            row(1, 0.99), row(2, 0.80), row(3, 0.85, k=16), row(4, 0.97, k=17), row(4, 0.96, split="test"),
            row(3, 0.95, method="dense"),
            row(3, 0.95, method="random_weights_model"), row(3, 0.95, method="shuffled_labels"),
            row(3, 0.95, method="random_neurons"),
            row(3, 0.95, feature="second"), row(3, 0.95, category="d"), row(4, 0.85, k=2, average_precision=0.95),
        ],
    )  # fmt: skip
    found = later_probe(probes, "c", "first", 1)
    assert found is not None and (found["layer"], found["k"]) == (4, 2)
    assert later_probe(probes, "c", "first", 4) is None
    first = later_probe(probes, "c", "first", 0)
    assert first is not None and first["layer"] == 1


def test_a_probe_that_is_constant_shifts_nothing():
    probe = probe_row(1, [0], [1.0])
    row = downstream_row(np.zeros((3, 4, 1), np.float32), np.array([True, True, False, False]), probe, 0, [1])
    assert row["shift_in"] == row["shift_out"] == 0 and row["placebo_shift_in"] == [0]


# verdict


def ablation(
    p: float | None = 1 / 21,
    low: float | None = 0.1,
    high: float | None = 0.3,
    neurons: int = 1,
    effect: float = 0.25,
    around: tuple[float, float] | None = (0.2, 0.3),
    placebos: int = 20,
) -> Ablation:
    ends = around or (None, None)
    return Ablation(
        neurons=neurons, effect_in=effect, effect_in_low=ends[0], effect_in_high=ends[1], effect_out=0.05, loss_in=5.0,
        over_placebo=0.2,
        low=low, high=high, p=p, placebos=placebos,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("p", "low", "high", "specific"),
    [(1 / 21, 0.1, 0.3, True), (0.05, 0.1, 0.3, True), (float(np.nextafter(0.05, 1)), 0.1, 0.3, False),
     (1 / 21, 0.0, 0.3, False), (1 / 21, -0.1, 0.1, False), (1 / 21, 5e-324, 0.3, True), (1 / 21, -0.3, -0.1, False),
     (None, 0.1, 0.3, False), (1 / 21, None, None, False)],
)  # fmt: skip
def test_when_an_ablation_is_specific(p, low, high, specific):
    assert ablation(p, low, high).specific is specific


def test_an_effect_in_class_must_be_sure_and_on_the_side_of_what_is_beyond_placebos():
    assert not ablation(around=(-0.1, 0.3)).specific, (
        "placebos that do something do not make a neuron causal that does nothing"
    )
    better = ablation(low=-0.3, high=-0.1, effect=-0.25, around=(-0.3, -0.2))
    assert better.specific and "better without" in second_verdict(look(better))[1]
    assert not ablation(effect=-0.25, around=(-0.3, -0.2)).specific
    assert not ablation(effect=0.05, around=(0.04, 0.06)).specific, "no more than out of class"
    assert not ablation(placebos=18).testable and ablation(placebos=19).testable


SURE, UNSURE = ablation(), ablation(p=0.5)


@pytest.mark.parametrize(
    ("given_", "short"),
    [
        (look(None), DEDICATED),
        (look(None, equals=5), DEDICATED),
        (look(None, "few neurons (3)", SURE), "few neurons (3)"),
        (look(SURE), CAUSAL),
        (look(SURE, equals=4), CAUSAL),
        (look(UNSURE, equals=2), STAND_INS),
        (look(UNSURE, equals=1), NO_EFFECT),
        (look(UNSURE, equals=0), NO_EFFECT),
        (look(UNSURE), NO_EFFECT),
        (look(UNSURE, enough=SURE), NO_EFFECT),
        (look(SURE, enough=UNSURE), CAUSAL),
        (look(UNSURE, "few neurons (3)", SURE), "part of a sparse combination (3), causal"),
        (look(SURE, "few neurons (3)", UNSURE), "part of a sparse combination (3)"),
        (look(UNSURE, "few neurons (1)", equals=4), "few neurons (1)"),
        (look(ablation(low=None, high=None), equals=4), DEDICATED),
        (look(ablation(placebos=10), equals=4), DEDICATED),
        *((look(SURE, v, SURE, 4), v) for v in ("distributed (64)", "distributed", "not found", "unclear", READABLE)),
    ],
)  # fmt: skip
def test_second_verdicts(given_, short):
    found, why = second_verdict(given_)
    assert found == short and why.startswith("why")
    assert (why == "why") == (given_.single is None)


def test_the_explanation_tells_the_figures():
    _, why = second_verdict(look(SURE, equals=4))
    assert why == (
        "why; without it the loss per token changes by +0.2500 nats in class (+5.00 %), +0.0500 out of class; beyond "
        "placebos +0.2000 [+0.1000, +0.3000], p 0.05; 3 other single neurons reach 95 % of its score"
    )
    assert "too few placebos" in second_verdict(look(ablation(p=None)))[1]
    assert "too few documents" in second_verdict(look(ablation(low=None, high=None)))[1]
    assert "without these 3 the loss" in second_verdict(look(SURE, "few neurons (3)", ablation(neurons=3)))[1]


def test_an_ablation_that_leaves_the_class_alone_is_not_causal_for_it():
    """All of the specificity comes from texts out of class."""
    away = Ablation(
        neurons=1, effect_in=0.0, effect_in_low=-0.1, effect_in_high=0.1, effect_out=0.9, loss_in=5.0,
        over_placebo=-0.9, low=-1.0, high=-0.8,
        p=1 / 21, placebos=20,
    )  # fmt: skip
    assert second_verdict(look(away))[0] != CAUSAL
