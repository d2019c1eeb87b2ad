"""Generation with changed units: planted neurons that write a known token, against slow passes made here."""

from __future__ import annotations

import inspect
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from transformers import BertConfig, BertForMaskedLM, GPTNeoXConfig, GPTNeoXForCausalLM

from sparse_probing.activations.extract import find_units
from sparse_probing.activations.generate import ReadUnit, Where, Written, continuation_log_probs, generate, read_back
from sparse_probing.activations.interventions import Intervention
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import load_model, wrap_model
from sparse_probing.cli.steer import print_steering
from sparse_probing.cli.steer import steer as steer_command
from sparse_probing.config import to_toml
from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS, Pooling
from sparse_probing.results.run_folder import TABLES as RUN_TABLES
from sparse_probing.studies.effects.doses import Dose, parse_dose
from sparse_probing.studies.steering import steering
from sparse_probing.studies.steering.steering import (
    Change,
    Reader,
    changed_share,
    changes_of,
    find_reader,
    find_unit,
    pick_feature,
)

PROMPT = "Ein kalter Wind"
WRITES, SILENT, TOKEN = 5, 6, 300
"""Neuron of every layer that writes a token, neuron that writes nothing, and the token."""
DOCS = Path(__file__).parent.parent / "docs" / "steer.md"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A token at a time through a tiny model: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def planted(tokenizer) -> LoadedModel:
    """A tiny model in which neuron 5 of every layer writes the unembedding direction of token 300, and neuron 6 writes nothing."""
    torch.manual_seed(3)
    network = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=400, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        unembedding = network.get_output_embeddings().weight
        unembedding /= unembedding.norm(dim=1, keepdim=True)  # no token is favoured by its length
        unembedding -= unembedding.mean(dim=1, keepdim=True)  # the final norm takes the mean away
        network.gpt_neox.final_layer_norm.weight.fill_(2.0)
        network.gpt_neox.final_layer_norm.bias.zero_()
        for layer in range(3):
            down = network.get_submodule(f"gpt_neox.layers.{layer}.mlp.dense_4h_to_h").weight
            assert isinstance(down, torch.Tensor)
            down[:, WRITES] = unembedding[TOKEN]
            down[:, SILENT] = 0
    return wrap_model(network, tokenizer)


def held(model: LoadedModel, layer: int, unit: int, value: float) -> list[Intervention]:
    return [Intervention(site=find_units(model, NEURONS, [layer])[0], units=(unit,), values=np.array([[value]]))]


def logits(model: LoadedModel, ids: list[int]) -> torch.Tensor:
    assert model.full is not None
    with torch.inference_mode():
        return model.full(input_ids=torch.tensor([ids])).logits[0].double()


def ids_of(model: LoadedModel, text: str) -> list[int]:
    return [0, *model.tokenizer.backend.encode([text])[0].ids.tolist()]


def slow_greedy(model: LoadedModel, intervention: Intervention, tokens: int, first: int) -> list[int]:
    """Whole passes without keys and values, and a hook made here that acts from position `first` on."""
    ids = ids_of(model, PROMPT)
    module = model.network.get_submodule(intervention.site.module_path)

    def set_unit(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        changed = inputs[0].clone()
        changed[0, first:, intervention.units[0]] = float(intervention.values[0, 0])
        return (changed,)

    handle = module.register_forward_pre_hook(set_unit)
    for _ in range(tokens):
        chosen = int(logits(model, ids)[-1].argmax())
        if chosen == 0:
            break
        ids.append(chosen)
    handle.remove()
    return ids


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_neuron_that_writes_a_token_makes_it_the_text(planted, layer):
    text = generate(planted, PROMPT, held(planted, layer, WRITES, 1e4), seed=1, tokens=6, temperature=0.0)
    assert text.new.tolist() == [TOKEN] * 6
    assert TOKEN not in generate(planted, PROMPT, seed=1, tokens=6, temperature=0.0).new
    assert text.text == planted.tokenizer.backend.decode([TOKEN] * 6)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_twin_that_writes_nothing_changes_nothing(planted, layer):
    for seed in range(4):
        before = generate(planted, PROMPT, seed=seed, tokens=12)
        after = generate(planted, PROMPT, held(planted, layer, SILENT, 1e4), seed=seed, tokens=12)
        assert np.array_equal(before.tokens, after.tokens) and before.text == after.text
    log_probs, _ = continuation_log_probs(planted, PROMPT, [" wehte", "!"], held(planted, layer, SILENT, 1e4))
    np.testing.assert_allclose(log_probs[1], log_probs[0], atol=1e-6)


@torch.no_grad()
def test_log_prob_rises_by_the_direct_effect_of_a_last_layer_neuron(planted):
    """h + (value - activation) w_out through final norm and unembedding, position by position."""
    value, continuation = 1.5, " wehte durch"
    whole, n_prompt = ids_of(planted, PROMPT + continuation), len(ids_of(planted, PROMPT))
    block = planted.network.layers[2]
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        block.register_forward_hook(
            lambda _m, _i, out: seen.__setitem__("h", out[0] if isinstance(out, tuple) else out)
        ),
        block.mlp.dense_4h_to_h.register_forward_pre_hook(lambda _m, inputs: seen.__setitem__("a", inputs[0])),
    ]
    bare = logits(planted, whole)
    for hook in hooks:
        hook.remove()
    h, a = seen["h"].reshape(len(whole), -1).double(), seen["a"].reshape(len(whole), -1).double()
    h = h + (value - a[:, [WRITES]]) * block.mlp.dense_4h_to_h.weight[:, WRITES].double()
    normed = (h - h.mean(1, keepdim=True)) / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt() * 2.0
    predicted = normed @ planted.full.get_output_embeddings().weight.double().T
    wanted = []
    for scores in (bare, predicted):
        steps = torch.log_softmax(scores, dim=1)
        wanted.append(sum(float(steps[p - 1, whole[p]]) for p in range(n_prompt, len(whole))))
    got, counts = continuation_log_probs(planted, PROMPT, [continuation], held(planted, 2, WRITES, value))
    assert counts.tolist() == [len(whole) - n_prompt]
    np.testing.assert_allclose(got[:, 0], wanted, atol=1e-5)
    assert abs(wanted[1] - wanted[0]) > 0.1, "there is an effect to agree on"
    token = planted.tokenizer.backend.decode([TOKEN])
    rise, _ = continuation_log_probs(planted, PROMPT, [token], held(planted, 2, WRITES, 20.0))
    assert rise[1, 0] - rise[0, 0] > 2


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "llama"])
def test_keys_and_values_give_the_texts_of_whole_passes(model_folders, architecture):
    model = load_model(str(model_folders[architecture]), device="cpu", with_head=True)
    ids = ids_of(model, PROMPT)
    assert model.full is not None
    reference = model.full.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False, max_new_tokens=10, use_cache=True
    )[0].tolist()  # pyright: ignore[reportCallIssue]
    bare = generate(model, PROMPT, seed=0, tokens=10, temperature=0.0)
    assert bare.tokens.tolist() == [t for t in reference if t != 0 or t == reference[0]][: len(bare.tokens)]
    texts = set()
    places: tuple[tuple[Where, int], ...] = (("all", 0), ("generated", len(ids) - 1))
    for where, first in places:
        change = held(model, 0, 7, 9.0)
        text = generate(model, PROMPT, change, seed=0, tokens=10, temperature=0.0, where=where)
        assert text.tokens.tolist() == slow_greedy(model, change[0], 10, first)
        texts.add(tuple(text.tokens.tolist()))
    assert tuple(bare.tokens.tolist()) not in texts, "the change is seen"


def test_changing_generated_positions_only_leaves_the_prompt_alone(planted):
    """In the last layer positions do not see each other, so both ways agree; below they do not."""
    for layer, agree in ((2, True), (0, False)):
        every, later = (
            continuation_log_probs(planted, PROMPT, [" wehte durch"], held(planted, layer, WRITES, 3.0), where=where)[0]
            for where in ("all", "generated")
        )
        assert np.isclose(every[1, 0], later[1, 0], atol=1e-6) == agree


def test_tokens_are_drawn_from_the_softmax(planted):
    """Shares of the first token over 400 seeds against its probability, five standard errors."""
    n, temperature = 400, 0.7
    drawn = [generate(planted, PROMPT, seed=s, tokens=1, temperature=temperature).new.tolist() for s in range(n)]
    counts = np.bincount([new[0] if new else 0 for new in drawn], minlength=400)  # token 0 ends a text
    p = torch.softmax(logits(planted, ids_of(planted, PROMPT))[-1] / temperature, 0).numpy()
    assert (np.abs(counts / n - p) < 5 * np.sqrt(p / n) + 2 / n).all()
    assert np.corrcoef(counts, p)[0, 1] > 0.7


def test_same_seed_same_text_and_no_global_generator_is_touched(planted):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    texts = [generate(planted, PROMPT, seed=s, tokens=15).tokens.tolist() for s in (0, 1, 0)]
    assert texts[0] == texts[2] != texts[1]
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)


@torch.no_grad()
def test_an_ending_text_ends(planted):
    """A neuron that writes the token which ends a text: nothing is written."""
    network = planted.full
    assert network is not None
    down = planted.network.layers[2].mlp.dense_4h_to_h.weight
    kept = down[:, 9].clone()
    down[:, 9] = network.get_output_embeddings().weight[0]
    text = generate(planted, PROMPT, held(planted, 2, 9, 1e4), seed=0, tokens=5)
    down[:, 9] = kept
    assert text.text == "" and text.new.tolist() == []
    log_probs, values = read_back(
        planted, [text], ReadUnit(site=find_units(planted, NEURONS, [0])[0], unit=3, pooling=Pooling.MEAN)
    )
    assert log_probs == [None] and len(values[0]) == 0


def test_hooks_leave_no_trace_also_after_an_exception(planted):
    ids = ids_of(planted, PROMPT)
    before = logits(planted, ids)
    generate(planted, PROMPT, held(planted, 1, WRITES, 50.0), seed=0, tokens=4)
    with pytest.raises(InputError, match="no longer a number"):
        generate(planted, PROMPT, held(planted, 0, WRITES, 3e38), seed=0, tokens=4)
    with pytest.raises(InputError, match="no longer a number"):
        continuation_log_probs(planted, PROMPT, ["!"], held(planted, 0, WRITES, 3e38))
    assert torch.equal(before, logits(planted, ids))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in planted.full.modules())


@pytest.mark.parametrize("pooling", [Pooling.TOKEN, Pooling.MEAN, Pooling.MAX, Pooling.LAST])
def test_reading_back_equals_plain_passes(planted, pooling):
    site = find_units(planted, NEURONS, [1])[0]
    written = [generate(planted, prompt, seed=s, tokens=5 + s) for s, prompt in enumerate([PROMPT, "The cat", PROMPT])]
    log_probs, values = read_back(planted, written, ReadUnit(site=site, unit=11, pooling=pooling))
    seen: list[torch.Tensor] = []
    for text, log_prob, got in zip(written, log_probs, values, strict=True):
        hook = planted.network.get_submodule(site.module_path).register_forward_pre_hook(
            lambda _m, i: seen.append(i[0])
        )
        steps = torch.log_softmax(logits(planted, text.tokens.tolist()), 1)
        hook.remove()
        places = range(text.n_prompt, len(text.tokens))
        assert log_prob == pytest.approx(np.mean([float(steps[p - 1, text.tokens[p]]) for p in places]), abs=1e-5)
        own = seen[-1].reshape(len(text.tokens), -1)[text.n_prompt :, 11].numpy()
        wanted = {Pooling.TOKEN: own, Pooling.MEAN: [own.mean()], Pooling.MAX: [own.max()], Pooling.LAST: own[-1:]}
        np.testing.assert_allclose(got, wanted[pooling], atol=1e-5)


def test_steering_counts_what_the_reader_calls(planted):
    """A reader whose threshold lies between the texts with and without the planted token."""
    token_value = read_back(
        planted,
        [
            Written(
                tokens=np.array([*ids_of(planted, PROMPT), *[TOKEN] * 8]),
                n_prompt=len(ids_of(planted, PROMPT)),
                text="",
            )
        ],
        ReadUnit(site=find_units(planted, NEURONS, [0])[0], unit=3, pooling=Pooling.MEAN),
    )[1][0][0]
    place = find_units(planted, NEURONS, [0])[0]
    site = find_units(planted, NEURONS, [2])[0]
    change = Change(
        unit=f"L2.N{WRITES}", site=site, index=WRITES, value=1e4, mean_in_class=None, mean_out_of_class=None
    )
    reader = Reader(
        unit="L0.N3",
        read=ReadUnit(site=place, unit=3, pooling=Pooling.MEAN),
        coefficient=1.0,
        intercept=-float(token_value) + 1e-4,
        threshold=0.0,
    )
    result = steering.steer(
        planted, [change], [PROMPT, "The"], ["!"], tokens=8, seeds=3, temperature=0.1, reader=reader
    )
    assert len(result["texts"]) == 6 and len(result["continuations"]) == 2
    assert [row["called_after"] for row in result["texts"][:3]] == [1.0] * 3
    assert {row["after"] for row in result["texts"]} == {planted.tokenizer.backend.decode([TOKEN] * 8)}
    assert result["reader"]["mean_activation_after"] != result["reader"]["mean_activation_before"]
    greedy = steering.steer(planted, [change], [PROMPT], tokens=3, temperature=0.0, seeds=5)
    assert len(greedy["texts"]) == 1 and greedy["reader"] is None
    json.dumps([result, greedy], allow_nan=False)


def test_changed_share_by_hand():
    assert changed_share(np.array([1, 2, 3]), np.array([1, 9, 3])) == pytest.approx(1 / 3)
    assert changed_share(np.array([1, 2]), np.array([1, 2, 3, 4])) == 0.5
    assert changed_share(np.array([]), np.array([])) == 0


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_levels_are_understood(number):
    assert parse_dose(str(number)) == Dose(str(number), number, "value")
    assert parse_dose(f"{number}x") == Dose(f"{number}x", number, "mean")


FINDINGS = pl.DataFrame(
    {
        "category": ["a", "b", "b"],
        "feature": ["same", "same", "other"],
        "neuron": ["L1.N3", "L1.N4", "L1.N3"],
    }
)
TABLES = {
    "neurons": pl.DataFrame(
        {
            "category": ["b"], "feature": ["same"], "layer": [1], "unit": [4],
            "mean_in_class": [2.5], "mean_out_of_class": [0.5],
        }
    ),
    "histograms": pl.DataFrame(
        {
            "category": ["b"] * 4, "feature": ["same"] * 4, "neuron": ["L1.N4"] * 4,
            "bin_low": [0.0, 1.0, 2.0, 3.0], "bin_high": [1.0, 2.0, 3.0, 4.0],
            "in_class": [0, 6, 0, 2], "out_of_class": [9, 1, 0, 0],
        }
    ),
    "probes": pl.DataFrame(
        {
            "category": ["b"] * 5, "feature": ["same"] * 5, "split": ["validation"] * 5, "layer": [0, 1, 2, 2, 2], "k": [1] * 5,
            "method": ["single_neuron"] * 4 + ["random_neurons"], "f1": [0.7, 1.0, 0.9, 0.9, 1.0],
            "average_precision": [0.5, 1.0, 0.8, 0.9, 1.0], "objective": [0.1] * 5, "columns": [[1], [4], [7], [8], [9]],
            "coefficients": [[1.0], [2.0], [3.0], [4.0], [5.0]], "intercept": [0.0] * 5, "threshold": [0.5] * 5,
        }
    ),
}  # fmt: skip


def test_the_feature_is_picked():
    assert pick_feature(FINDINGS, "b/same", ()) == FINDINGS.row(1, named=True)
    assert pick_feature(FINDINGS, "other", ("L0.N0",)) == FINDINGS.row(2, named=True)
    assert pick_feature(FINDINGS, None, ("L1.N4",)) == FINDINGS.row(1, named=True)
    assert pick_feature(FINDINGS, None, ("L1.N3",)) is None, "best neuron of two features"
    assert pick_feature(FINDINGS[:1], None, ()) == FINDINGS.row(0, named=True)
    for wanted, units, said in (
        ("same", (), "a/same or b/same"),
        ("none", (), "no feature 'none'"),
        (None, (), "nothing says"),
    ):
        with pytest.raises(InputError, match=said):
            pick_feature(FINDINGS, wanted, units)


def test_levels_of_a_unit_come_from_the_run(tiny):
    finding = pick_feature(FINDINGS, "b/same", ())

    def value(level: str, *units: str, about=finding) -> float:
        return changes_of(tiny, TABLES, NEURONS, about, units, parse_dose(level))[0].value

    assert (value("2x"), value("-8"), value("0", "L2.N40")) == (5.0, -8.0, 0.0)
    # eight in-class rows: six spread over [1, 2), two over [3, 4)
    assert [value(f"q{q}") for q in ("0", "0.375", "0.75", "0.875", "1")] == [1.0, 1.5, 2.0, 3.5, 4.0]
    (change,) = changes_of(tiny, TABLES, NEURONS, finding, (), parse_dose("1x"))
    assert (change.unit, change.mean_in_class, change.mean_out_of_class) == ("L1.N4", 2.5, 0.5)
    assert len(changes_of(tiny, TABLES, NEURONS, finding, ("L1.N4", "L0.resid.post.3", "L1.N4"), parse_dose("3"))) == 2
    for level, units, about, said in (
        ("2x", ("L1.N5",), finding, "no mean of L1.N5"),
        ("2x", ("L1.resid.post.4",), finding, "no mean of L1.resid.post.4"),
        ("q0.5", ("L1.N5",), finding, "best neuron only"),
        ("2x", ("L1.N4",), None, "no --feature"),
    ):
        with pytest.raises(InputError, match=said):
            value(level, *units, about=about)


def test_the_reader_is_the_best_probe_of_another_layer(tiny):
    finding = pick_feature(FINDINGS, "b/same", ())
    changes = changes_of(tiny, TABLES, NEURONS, finding, (), parse_dose("1x"))
    reader = find_reader(tiny, TABLES, NEURONS, finding, Pooling.MEAN, changes)
    assert reader is not None
    assert (reader.unit, reader.coefficient, reader.read.site.layer) == ("L2.N8", 4.0, 2)
    everywhere = changes_of(tiny, TABLES, NEURONS, finding, ("L0.N1", "L1.N1", "L2.N1"), parse_dose("1"))
    assert find_reader(tiny, TABLES, NEURONS, finding, Pooling.MEAN, everywhere) is None
    assert find_reader(tiny, TABLES, NEURONS, None, Pooling.MEAN, changes) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("N3", "'N3' names no unit"),
        ("L9.N3", "has layers 0 to 2"),
        ("L1.N48", "has units 0 to 47"),
        ("L1.resid.post.16", "has units 0 to 15"),
        ("L1.nowhere.3", "site 'nowhere' does not exist"),
    ],
)
def test_units_that_do_not_exist(tiny, name, said):
    with pytest.raises(InputError, match=said):
        find_unit(tiny, name)


def test_models_and_texts_that_cannot_be_steered(planted, tiny, tokenizer):
    masked = wrap_model(
        BertForMaskedLM(
            BertConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
        ),
        tokenizer,
    )
    for model, said in ((masked, "masked tokens"), (tiny, "cannot continue a text")):
        with pytest.raises(InputError, match=said):
            generate(model, PROMPT, seed=0)
        with pytest.raises(InputError, match=said):
            continuation_log_probs(model, PROMPT, ["!"], held(tiny, 0, 1, 1.0))
    with pytest.raises(InputError, match="60 more do not fit into the 64"):
        generate(planted, PROMPT, seed=0, tokens=60)
    with pytest.raises(InputError, match="not valid Unicode"):
        generate(planted, "\udcff", seed=0)
    with pytest.raises(InputError, match="has no tokens"):
        continuation_log_probs(planted, PROMPT, [""], held(planted, 0, 1, 1.0))
    with pytest.raises(InputError, match="finite number"):
        held(planted, 0, 1, float("nan"))
    for tokens, seeds, temperature in ((0, 1, 0.5), (1, 0, 0.5), (1, 1, -1.0), (1, 1, float("nan"))):
        with pytest.raises(InputError, match="must be at least 1 and the temperature"):
            steering.steer(planted, [], [PROMPT], tokens=tokens, seeds=seeds, temperature=temperature)


def test_values_beyond_the_precision_are_refused(model_folders):
    half = load_model(str(model_folders["gpt_neox"]), device="cpu", dtype="float16", with_head=True)
    with pytest.raises(InputError, match="cannot be set to 1e\\+06: the largest number"):
        generate(half, PROMPT, held(half, 0, 1, 1e6), seed=0)


def test_text_of_the_model_is_shown_as_it_is():
    row = {
        "prompt": "[b]p", "seed": 0, "before": "[red]x[/red]", "after": "a\n\x1b[31mb", "changed_share": 1.0,
        "log_prob_before": -1.0, "log_prob_after": None, "called_before": None, "called_after": None,
    }  # fmt: skip
    change = {"unit": "L1.N4", "value": 8.0, "mean_in_class": None, "mean_out_of_class": None}
    result = {
        "feature": None, "options": {"where": "all"}, "changed": [change], "texts": [row], "reader": None,
        "continuations": [{"prompt": "p", "continuation": "[i]c", "tokens": 1, "log_prob_before": -2.0, "log_prob_after": -1.0}],
    }  # fmt: skip
    out = io.StringIO()
    print_steering(Console(file=out, width=120, force_terminal=False), result)
    said = out.getvalue()
    for text in ("[b]p …", "[red]x[/red]", "a⏎␛[31mb", "p[i]c", "+1.00", "2.72", "1 text: 100% of the tokens changed"):
        assert text in said
    assert "\x1b" not in said


def whole(given: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """A table with every column of the schema: what is given, and something of the right kind for the rest."""
    fill = {pl.String: "-", pl.Int32: 0, pl.Int64: 0, pl.Float64: 0.5, pl.Boolean: False}
    rows = given.to_dicts()
    filled = [{name: row.get(name, fill.get(kind, [])) for name, kind in schema.items()} for row in rows]
    return pl.DataFrame(filled, schema=dict(schema))


@pytest.fixture(scope="module")
def finished(model_folders, tmp_path_factory) -> Path:
    """A run folder with the tables above, of the tiny model."""
    folder = tmp_path_factory.mktemp("run")
    name = str(model_folders["gpt_neox"])
    (folder / "config.toml").write_text(to_toml({"model": name, "device": "cpu"}))
    identity = {"weights": load_model(name, device="cpu").fingerprint}
    model = {"name": name, "layers": 3, "site": NEURONS, "width": 48, "probed_layers": [0, 1, 2]}
    facts = dict.fromkeys(("documents_read", "groups", "duplicates_removed", "conflicts_removed"), 9)
    manifest = {
        "identity": identity, "model": model, "options": {}, "versions": {}, "rows": 9, "tokens": 99, "counts": {},
        "audits": {"a": facts, "b": facts},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for table, schema in RUN_TABLES.items():
        given = (TABLES | {"findings": FINDINGS}).get(table, pl.DataFrame())
        whole(given, schema).write_parquet(folder / f"{table}.parquet")
    (folder / "dataset").mkdir()
    pl.DataFrame({"row": [3], "category": ["b"], "feature": ["same"]}).write_parquet(folder / "dataset/labels.parquet")
    pl.DataFrame({"row": [3], "pooling": ["mean"]}).write_parquet(folder / "dataset/rows.parquet")
    return folder


def command(*arguments: str) -> None:
    app = cyclopts.App()
    app.default(steer_command)
    app(list(arguments), result_action="return_value", exit_on_error=False, print_error=False)


def test_the_command_prints_and_writes(finished, tmp_path, capsys):
    files = [tmp_path / "deep" / "steer.json", tmp_path / "again.json"]
    for out in files:
        command(
            str(finished), "--clamp", "-3", "--feature", "b/same", "--prompt", PROMPT, "The cat", "--continuation", " wehte",
            "--tokens", "5", "--seeds", "2", "--out", str(out),
        )  # fmt: skip
    said = capsys.readouterr().out
    assert "L1.N4 held at -3 at every position; usually 2.5 in class same and 0.5 out of it" in said
    assert "4 texts:" in said and re.search(r"its neuron\s+L2.N8,.*says\s+same\s+to", said, re.S)
    result = json.loads(files[0].read_text())
    assert [(t["prompt"], t["seed"]) for t in result["texts"]] == [(p, s) for p in (PROMPT, "The cat") for s in (0, 1)]
    assert result["feature"] == {"category": "b", "feature": "same"} and result["reader"]["pooling"] == "mean"
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_command_refuses_what_makes_no_sense(finished, tmp_path):
    here = [str(finished), "--prompt", "x"]
    for more, said in (
        ([], "either --clamp"),
        (["--clamp", "3", "--zero"], "either --clamp"),
        (["--zero", "--neuron", "L7.N0"], "layers 0 to 2"),
        (["--zero", "--feature", "french"], "no feature 'french'"),
        (["--clamp", "2x", "--neuron", "L0.resid.post.1", "--feature", "other"], "no mean"),
    ):
        with pytest.raises(InputError, match=said):
            command(*here, *more)
    with pytest.raises(InputError, match="no run folder"):
        command(str(tmp_path), "--prompt", "x", "--zero")
    other = json.loads((finished / "manifest.json").read_text()) | {"identity": {"weights": "of another model"}}
    for path in finished.rglob("*.*"):
        copy = tmp_path / path.relative_to(finished)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="is not the one that run"):
        command(str(tmp_path), "--prompt", "x", "--zero", "--feature", "other")


def test_the_example_in_the_docs_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    scope: dict[str, Any] = {}
    exec(compile(code, "steer.md", "exec"), scope)
    rise = scope["log_probs"][1] - scope["log_probs"][0]
    assert rise[0] > 8 and rise[1] < -1
    assert capsys.readouterr().out in DOCS.read_text(encoding="utf-8")


def test_the_docs_name_every_option():
    page = DOCS.read_text(encoding="utf-8")
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(steer_command).parameters if name != "run"}
    named = set(re.findall(r"--[a-z][a-z-]+", page)) - {"--mean"}
    assert named == options
