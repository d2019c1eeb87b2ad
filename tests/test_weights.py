"""Weights with norms folded, direct effects on logits, weight statistics: against each architecture's own arithmetic."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparse_probing.activations.sites import find_sites
from sparse_probing.activations.weights import MlpWeights, read_weights
from sparse_probing.activations.wrapped import reading_part
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError
from sparse_probing.pages.render import environment
from sparse_probing.results.tables import table
from sparse_probing.studies.study import charts_of
from sparse_probing.studies.weights.output_weights import (
    WeightTarget,
    agreement,
    class_vocabulary,
    next_token_counts,
    two_sided_p,
    weight_evidence,
)
from sparse_probing.studies.weights.statistics import layer_rows, neuron_statistics, standing
from sparse_probing.studies.weights.tables import WEIGHT_TABLES
from sparse_probing.studies.weights.view import weights_overview, weights_view
from tests.test_architectures import FAMILIES, GROUPED, LAYERS, USUAL
from tests.test_architectures import IDS as FAMILY_IDS

# in block 0: the norm before the MLP, null where none is to be folded; and whether norms are LayerNorms
POST, RMS = "post_attention_layernorm", False
NORMS: list[tuple[str | None, bool]] = [
    (POST, True), ("ln_2", True), ("ln_1", True), ("final_layer_norm", True), (POST, True), ("input_layernorm", True),
    (POST, RMS), (POST, RMS), (POST, RMS), (POST, RMS), (POST, RMS),
    ("pre_feedforward_layernorm", RMS), ("pre_feedforward_layernorm", RMS), ("input_layernorm", True), (POST, True),
    (None, RMS), (POST, RMS), ("input_layernorm", True), ("norm_2", True), (None, RMS), (None, RMS), ("mlp_norm", True),
    ("layer.1.layer_norm", RMS),
]  # fmt: skip
CASES = [(*family[:2], *norm) for family, norm in zip(FAMILIES, NORMS, strict=True)]
CASES += [
    (
        hf.GraniteConfig,
        GROUPED | {"residual_multiplier": 0.3, "embedding_multiplier": 6.0, "logits_scaling": 4.0},
        POST,
        RMS,
    ),
    (hf.GPTNeoXConfig, USUAL | {"use_parallel_residual": False}, POST, True),
    (hf.FalconConfig, FAMILIES[5][1] | {"new_decoder_architecture": True, "num_kv_heads": 2}, "ln_mlp", True),
    (hf.Phi3Config, GROUPED, POST, RMS),  # one map for gate and value
]
IDS = [*FAMILY_IDS, "Granite with factors", "sequential GPT-NeoX", "Falcon with two norms", "Phi3Config"]
IDS_READ = torch.tensor([[5, 9, 200, 17, 44, 260, 8]])


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Models this small spend more time waiting for a second thread than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network_of(kind: Any, sizes: dict[str, Any], auto: Any = hf.AutoModel) -> Any:
    torch.manual_seed(3)
    network = auto.from_config(kind(**sizes)).eval().float()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def sites_of(network: Any, name: str = "tiny") -> Any:
    return find_sites(reading_part(getattr(network, network.base_model_prefix, network)), name)


def normed(x: np.ndarray, epsilon: float, centred: bool) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.mean(-1, keepdims=True) if centred else x
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)


def epsilon_of(norm: Any) -> float:
    return next(float(v) for k in ("eps", "variance_epsilon") if (v := getattr(norm, k, None)) is not None)


def watch(module: Any, seen: dict[str, np.ndarray], name: str) -> None:
    def hook(_module: Any, inputs: Any, named: Any, output: Any) -> None:
        entered = inputs[0] if inputs else named["hidden_states"]
        seen[f"{name} in"] = entered.detach().numpy().copy().reshape(-1, entered.shape[-1])
        left = output[0] if isinstance(output, tuple) else output
        seen[f"{name} out"] = left.detach().numpy().copy().reshape(-1, left.shape[-1])

    module.register_forward_hook(hook, with_kwargs=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "sizes", "norm", "centred"), CASES, ids=IDS)
def test_folded_weights_give_the_neurons_from_the_normalised_residual(kind, sizes, norm, centred):
    network = reading_part(network_of(kind, sizes))
    sites = sites_of(network)
    mlp = read_weights(network, sites).mlp(0)
    paths = {site.name: site.module_path for site in sites.found if site.layer == 0}
    act, down = network.get_submodule(paths["mlp.pre"]), network.get_submodule(paths["mlp.neurons"])
    seen: dict[str, np.ndarray] = {}
    watch(act, seen, "act")
    watch(down, seen, "down")
    # OLMo 2 and BERT: the stream itself enters
    up = "mlp.up_proj" if kind is hf.Olmo2Config else "intermediate.dense"
    module = network.get_submodule(f"{sites.stack}.0.{norm or up}")
    watch(module, seen, "norm")
    with torch.inference_mode():
        network(input_ids=IDS_READ, attention_mask=torch.ones_like(IDS_READ))
    n = normed(seen["norm in"], epsilon_of(module), centred) if norm is not None else seen["norm in"]
    first, b = (mlp.w_in, mlp.b_in) if mlp.w_gate is None else (mlp.w_gate, mlp.b_gate)
    before = n @ first.T + b
    with torch.inference_mode():
        after = act(torch.tensor(before, dtype=torch.float32)).numpy()
    neurons = after if mlp.w_gate is None else after * (n @ mlp.w_in.T + mlp.b_in)
    np.testing.assert_allclose(before, seen["act in"], atol=1e-5 * max(1, np.abs(before).max()))
    np.testing.assert_allclose(neurons, seen["down in"], atol=1e-5 * max(1, np.abs(neurons).max()))
    assert mlp.centred is centred
    if centred:
        assert all(np.abs(w.mean(1)).max() < 1e-6 for w in (mlp.w_in, mlp.w_out))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "sizes", "norm", "centred"), CASES, ids=IDS)
def test_output_weights_are_what_a_unit_of_activation_adds_to_the_residual_stream(kind, sizes, norm, centred):
    network = reading_part(network_of(kind, sizes))
    sites = sites_of(network)
    mlp = read_weights(network, sites).mlp(1)
    path = sites.named("mlp.out")[1].module_path
    down, block = network.get_submodule(path), network.get_submodule(f"{sites.stack}.1")
    seen: dict[str, np.ndarray] = {}
    # where the MLP's output, or its sum with the stream, is normed: what enters that norm, its division aside
    norms: list[Any] = [m for p, m in block.named_modules() if p in ("post_feedforward_layernorm", "output.LayerNorm")]
    watch(norms[0] if norms else block, seen, "sum")
    watch(down, seen, "down")

    def run() -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            network(input_ids=IDS_READ, attention_mask=torch.ones_like(IDS_READ))
        return seen["sum in" if norms else "sum out"], seen["down out"]

    before = run()
    down.register_forward_pre_hook(
        lambda _m, inputs: (inputs[0] + torch.nn.functional.one_hot(torch.tensor(7), inputs[0].shape[-1]),)
    )
    added = run()[0] - before[0]
    assert mlp.further_norm is (kind in (hf.Gemma2Config, hf.Gemma3TextConfig, hf.Olmo2Config))
    assert mlp.post_norm is (kind in (hf.BertConfig, hf.RobertaConfig))
    if mlp.further_norm:
        gain = norms[0].weight.detach().numpy()
        added = added * (gain if kind is hf.Olmo2Config else 1 + gain)
    expected = np.broadcast_to(mlp.w_out[7], added.shape)
    np.testing.assert_allclose(
        added - (added.mean(1, keepdims=True) if centred else 0), expected, atol=2e-5 * np.abs(before[0]).max()
    )


ENCODERS = (hf.BertConfig, hf.RobertaConfig, hf.ModernBertConfig, hf.T5Config)
CAUSAL = [case for case in CASES if case[0] not in ENCODERS]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "sizes", "_norm", "centred"), CAUSAL, ids=[i for i, case in zip(IDS, CASES, strict=True) if case in CAUSAL]
)
def test_folded_unembedding_gives_the_logits_from_the_last_residual(kind, sizes, _norm, centred):
    network = network_of(kind, sizes, hf.AutoModelForCausalLM)
    sites = sites_of(network)
    weights = read_weights(network, sites)
    base = getattr(network, network.base_model_prefix)
    final: Any = [m for p, m in base.named_modules() if "norm" in type(m).__name__.lower() and sites.stack not in p][-1]
    seen: dict[str, np.ndarray] = {}
    watch(base.get_submodule(f"{sites.stack}.1"), seen, "block")
    with torch.inference_mode():
        logits = network(input_ids=IDS_READ).logits[0].double().numpy()
    assert weights.logits_bent is (kind is hf.Gemma2Config)
    if weights.logits_bent:
        cap = network.config.final_logit_softcapping
        logits = cap * np.arctanh(logits / cap)
    rest = logits - normed(seen["block out"], epsilon_of(final), centred) @ weights.unembedding().T.astype(np.float64)
    # the norm's shift and the head's bias: the same for every position
    np.testing.assert_allclose(rest, np.broadcast_to(rest[0], rest.shape), atol=2e-5 * np.abs(logits).max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "sizes", "_norm", "centred"), CASES, ids=IDS)
def test_embedding_is_what_a_token_brings_into_the_first_block(kind, sizes, _norm, centred):
    network = reading_part(network_of(kind, sizes))
    sites = sites_of(network)
    weights = read_weights(network, sites)
    if kind in (hf.BertConfig, hf.RobertaConfig):
        with pytest.raises(InputError, match="normed together with positions"):
            weights.embedding()
        return
    seen: dict[str, np.ndarray] = {}
    watch(network.get_submodule(f"{sites.stack}.0"), seen, "block")
    first, second = (
        seen["block in"] for ids in ([[5, 9]], [[17, 9]]) if network(input_ids=torch.tensor(ids)) is not None
    )
    difference = first[0] - second[0]
    rows = weights.embedding()
    np.testing.assert_allclose(rows[5] - rows[17], difference - (difference.mean() if centred else 0), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_has_a_reason(tiny):
    with pytest.raises(
        InputError, match="logits of 'tiny' cannot be read from the weights: it has, or was loaded with, no"
    ):
        read_weights(tiny.network, sites_of(tiny.network)).unembedding()
    with pytest.raises(InputError, match="no such layer"):
        read_weights(tiny.network, tiny.sites).mlp(3)
    with torch.device("meta"):
        empty = hf.AutoModel.from_config(tiny.network.config)
    with pytest.raises(InputError, match="not in memory"):
        read_weights(empty, tiny.sites)


def test_watching_leaves_no_trace(tiny):
    ids = torch.tensor([[5, 9, 200, 17]])
    with torch.inference_mode():
        before = tiny.network(input_ids=ids).last_hidden_state.clone()
    tiny.network.train()
    read_weights(tiny.network, tiny.sites).mlp(1)
    assert tiny.network.training
    tiny.network.eval()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny.network.modules())
    with torch.inference_mode():
        assert torch.equal(tiny.network(input_ids=ids).last_hidden_state, before)


def test_a_module_that_does_more_than_its_weight_says_is_refused(monkeypatch):
    network = network_of(hf.GPTNeoXConfig, CASES[0][1])
    down = network.layers[0].mlp.dense_4h_to_h
    plain = down.forward
    monkeypatch.setattr(down, "forward", lambda x: plain(x) + x[..., :32])
    with pytest.raises(InputError, match="dense_4h_to_h does more than its weight says"):
        read_weights(network, sites_of(network)).mlp(0)


class SquashingNorm(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x)


def test_an_unknown_function_before_the_mlp_is_refused():
    network = network_of(hf.GPT2Config, CASES[1][1])
    network.h[0].ln_2 = SquashingNorm()
    weights = read_weights(network, sites_of(network))
    with pytest.raises(
        InputError, match=r"the MLP of layer 0 of 'tiny' .* neither the output of a norm nor the residual stream"
    ):
        weights.mlp(0)
    weights.mlp(1)


# planted truth


def counts(tokens: list[int], n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Texts in which these tokens come next 20 times as often in class; every token is seen."""
    inside, outside = np.full(n, 10), np.full(n, 10)
    inside[tokens], outside[tokens] = 40, 2
    return inside, outside


WORDS = list(range(100, 140))


def target(layer: int, unit: int, feature: str = "f", sign: int = 1) -> WeightTarget:
    inside, outside = counts(WORDS)
    return WeightTarget(
        category="c", feature=feature, layer=layer, unit=unit, sign=sign, in_class=inside, out_of_class=outside
    )


def causal(kind: str) -> Any:
    torch.manual_seed(11)
    sizes: dict[str, Any] = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        network: Any = hf.GPT2LMHeadModel(
            hf.GPT2Config(**sizes, n_embd=32, n_layer=3, n_head=2, n_inner=200, n_positions=64)
        )
    else:
        shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 200}
        family: Any = {
            "neox": (hf.GPTNeoXConfig, hf.GPTNeoXForCausalLM),
            "llama": (hf.LlamaConfig, hf.LlamaForCausalLM),
        }[kind]
        network = family[1](family[0](**sizes, **shape, max_position_embeddings=64, tie_word_embeddings=False))
    with torch.no_grad():
        network.get_output_embeddings().weight[WORDS] += 0.1 * torch.randn(
            32
        )  # the words of the class have something in common
        for name, parameter in network.named_parameters():
            parameter.add_((0.3 if "norm" in name or "ln" in name else 0.1) * torch.randn_like(parameter))
    return network.eval()


def matrices(network: Any, layer: int) -> tuple[Any, Any, Any]:
    """Input map [unit, hidden] and output map [hidden, unit] of an MLP, as views, and the gain of the norm before it."""
    if isinstance(network, hf.GPT2LMHeadModel):
        block = cast(Any, network.transformer.h)[layer]
        return block.mlp.c_fc.weight.T, block.mlp.c_proj.weight.T, block.ln_2.weight
    if isinstance(network, hf.LlamaForCausalLM):
        block = cast(Any, network.model.layers)[layer]
        return block.mlp.gate_proj.weight, block.mlp.down_proj.weight, block.post_attention_layernorm.weight
    block = network.gpt_neox.layers[layer]
    return block.mlp.dense_h_to_4h.weight, block.mlp.dense_4h_to_h.weight, block.post_attention_layernorm.weight


def evidence(network: Any, targets: list[WeightTarget], seed: int = 0) -> dict[str, Any]:
    rows = weight_evidence(
        read_weights(network, sites_of(network)), targets, token_text=lambda i: f"<{i}>", n_tokens=400, seed=seed
    )
    return {name: table(rows[name], schema) for name, schema in WEIGHT_TABLES.items()}


@pytest.fixture(scope="module", params=["neox", "gpt2", "llama"])
def pair(request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tables of a model with planted neurons, and of its twin without.

    L1.N5 writes token 77 with 2 per unit of activation, L1.N6 takes it away; L2.N17 writes the words of the class; L0.N8 reads
    token 33, and writes what L2.N9 reads (in Llama: its gate), L0.N10 the opposite.
    """
    targets = [
        target(1, 5),
        target(1, 6, "less"),
        target(2, 17, "words"),
        target(0, 8, "reads"),
        target(0, 10, "against"),
    ]
    twin = evidence(causal(request.param), targets)
    network = causal(request.param)
    weights = read_weights(network, sites_of(network))
    unembedding, embedding = weights.unembedding(), weights.embedding()
    read = weights.mlp(2).w_in if weights.mlp(2).w_gate is None else weights.mlp(2).w_gate
    assert read is not None
    with torch.no_grad():
        row = torch.tensor(unembedding[77])
        matrices(network, 1)[1][:, 5] = 2 * row / row.dot(row)
        matrices(network, 1)[1][:, 6] = -2 * row / row.dot(row)
        matrices(network, 2)[1][:, 17] = torch.tensor(unembedding[WORDS].mean(0) - unembedding.mean(0))
        into, out, gain = matrices(network, 0)
        into[8] = torch.tensor(embedding[33]) / gain
        out[:, 8], out[:, 10] = torch.tensor(read[9]), -torch.tensor(read[9])
    return evidence(network, targets), twin


def tokens_of(tables: dict[str, Any], feature: str, kind: str) -> list[dict[str, Any]]:
    return tables["logit_tokens"].filter(feature=feature, kind=kind).to_dicts()


@pytest.mark.filterwarnings("ignore")
def test_the_planted_token_is_found_with_its_sign_and_size(pair):
    planted, twin = pair
    for feature, kind, value in (("f", "top", 2.0), ("less", "bottom", -2.0)):
        found = tokens_of(planted, feature, kind)
        assert [row["rank"] for row in found] == list(range(1, 11))
        (row,) = [row for row in found if row["token_id"] == 77]
        assert row["value"] == pytest.approx(value, rel=1e-4) and row["token"] == "<77>"
        assert not any(row["token_id"] == 77 for row in tokens_of(twin, feature, kind))


@pytest.mark.filterwarnings("ignore")
def test_the_planted_vocabulary_is_found_and_the_twin_has_none(pair):
    planted, twin = (tables["output_weights"].filter(feature="words").to_dicts()[0] for tables in pair)
    assert planted["agreement"] > 0.9 and planted["agreement_p"] == pytest.approx(2 / 200)  # 199 others
    assert twin["agreement_p"] > 0.1
    assert (planted["n_class_tokens"], planted["n_other_tokens"], planted["n_sampled"]) == (40, 360, 199)
    assert {row["in_vocabulary"] for row in tokens_of(pair[0], "words", "top")[:5]} == {True}


@pytest.mark.filterwarnings("ignore")
def test_the_planted_reader_is_found_with_its_sign(pair):
    planted, twin = pair
    side = "gate" if planted["logit_tokens"].filter(kind="gate").height else "in"
    for feature, cosine in (("reads", 1.0), ("against", -1.0)):
        best = planted["compositions"].filter(feature=feature, rank=1).to_dicts()[0]
        assert (best["reader"], best["side"]) == ("L2.N9", side) and best["cosine"] == pytest.approx(cosine, abs=1e-5)
        other = twin["compositions"].filter(feature=feature, rank=1).to_dicts()[0]
        row = twin["output_weights"].filter(feature=feature).to_dicts()[0]
        assert abs(other["cosine"]) < row["composition_random"] + 0.1 < 0.95
    assert planted["output_weights"].filter(feature="words")["composition_random"].to_list() == [None]  # no later layer


@pytest.mark.filterwarnings("ignore")
def test_the_planted_input_token_is_nearest(pair):
    planted, twin = pair
    kind = "gate" if planted["logit_tokens"].filter(kind="gate").height else "input"
    assert tokens_of(planted, "reads", kind)[0]["token_id"] == 33
    assert tokens_of(planted, "reads", kind)[0]["value"] == pytest.approx(1.0, abs=1e-5)
    assert tokens_of(twin, "reads", kind)[0]["value"] < 0.9
    assert not tokens_of(planted, "f", kind)  # not in the first layer


@pytest.mark.filterwarnings("ignore")
def test_among_unplanted_neurons_small_p_are_as_rare_as_they_should_be():
    tables = evidence(causal("neox"), [target(1, unit, f"f{unit}") for unit in range(0, 200, 5)])
    p = tables["output_weights"]["agreement_p"]
    assert 0 <= (p <= 0.1).sum() <= 10 and (p > 0.5).sum() >= 10


@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_gives_the_same_rows_and_another_seed_other_directions():
    network = causal("neox")
    first, again, other = (evidence(network, [target(0, 3), target(2, 3, "g")], seed) for seed in (0, 0, 1))
    for name in WEIGHT_TABLES:
        assert first[name].equals(again[name])
    assert not first["output_weights"].equals(other["output_weights"])
    assert first["logit_tokens"].equals(other["logit_tokens"])


@pytest.mark.filterwarnings("ignore")
def test_columns_equal_a_plain_computation():
    """Width 200 is below the sample's limit: all other neurons of the layer are compared."""
    network = causal("gpt2")
    row = evidence(network, [target(1, 5)])["output_weights"].to_dicts()[0]
    weights = read_weights(network, sites_of(network))
    mlp, unembedding = weights.mlp(1), weights.unembedding().astype(np.float64)
    effects = mlp.w_out.astype(np.float64) @ unembedding.T
    assert row["effect_mean"] == pytest.approx(effects[5].mean(), abs=1e-6)
    assert row["effect_variance"] == pytest.approx(effects[5].var(), rel=1e-5)
    assert row["effect_skew"] == pytest.approx(float(stats.skew(effects[5])), abs=1e-4)
    assert row["effect_kurtosis"] == pytest.approx(float(stats.kurtosis(effects[5])), abs=1e-4)
    others = np.delete(stats.kurtosis(effects, axis=1), 5)
    assert row["kurtosis_percentile"] == pytest.approx(100 * (others < row["effect_kurtosis"]).mean())
    rest = np.setdiff1d(np.arange(400), WORDS)
    areas = np.array([(e[WORDS, None] > e[rest]).mean() for e in effects])
    assert row["agreement"] == pytest.approx(areas[5], abs=1e-6)
    above, below = ((np.delete(areas, 5) >= areas[5]).sum(), (np.delete(areas, 5) <= areas[5]).sum())
    assert row["agreement_p"] == pytest.approx(min(1, 2 * (1 + min(above, below)) / 200))
    norms = np.linalg.norm(mlp.w_in, axis=1)
    assert row["norm_times_bias"] == pytest.approx(float(norms[5] * mlp.b_in[5]), rel=1e-5)
    assert row["norm_in_percentile"] == pytest.approx(100 * ((norms < norms[5]).sum() + 0.5) / 200)


@pytest.mark.filterwarnings("ignore")
def test_an_encoder_has_statistics_and_reasons_but_no_tokens():
    network: Any = hf.BertForMaskedLM(hf.BertConfig(vocab_size=400, **LAYERS, intermediate_size=80)).eval()
    tables = evidence(network, [target(0, 3)])
    row = tables["output_weights"].to_dicts()[0]
    assert row["norm_in"] > 0 and row["effect_mean"] is None and row["agreement"] is None
    assert tables["logit_tokens"].is_empty() and tables["compositions"].is_empty()
    assert [
        any(words in note for note in row["notes"]) for words in ("norms the sum", "every block norms", "the embedding")
    ] == [True] * 3


def test_dead_neurons_and_one_sided_vocabularies_give_null_not_nan():
    network = causal("neox")
    with torch.no_grad():
        matrices(network, 1)[1][:, 5] = 0
    silent = target(1, 5)
    blank = WeightTarget(
        category="c", feature="g", layer=1, unit=6, sign=1, in_class=np.zeros(400, int), out_of_class=np.full(400, 9)
    )
    first, second = evidence(network, [silent, blank])["output_weights"].to_dicts()
    assert first["effect_kurtosis"] is None and first["cosine"] is None and first["effect_variance"] == pytest.approx(0)
    assert first["agreement"] == pytest.approx(0.5)
    assert second["agreement"] is None and second["n_class_tokens"] == 0 and second["effect_kurtosis"] is not None
    tables = evidence(network, [silent, blank])
    assert all(
        frame.select(pl.selectors.float().is_nan().any()).sum_horizontal().sum() == 0
        for frame in tables.values()
        if frame.width
    )


# small functions by hand


def test_class_vocabulary_by_hand():
    inside, outside = np.array([8, 8, 2, 2, 4, 0]), np.array([2, 8, 8, 2, 0, 0])
    chosen, rest = class_vocabulary(inside, outside)
    # 24 and 20 tokens, 5 kinds: 2.5 more on each side, 0.568 and 0.909 of them for the first two, whose odds ratios then are
    # (8.568 / 17.932) / (2.568 / 19.932) = 3.7 and (8.909 / 17.591) / (8.909 / 13.591) = 0.77
    assert chosen.tolist() == [True, False, False, False, False, False]
    assert rest.tolist() == [False, True, True, False, False, False]  # the last three are seen less than five times
    assert not any(words.any() for words in class_vocabulary(np.zeros(3, int), np.zeros(3, int)))
    chosen, rest = class_vocabulary(np.array([1, 0, 0]), np.array([0, 50, 50]))  # one token is not a vocabulary
    assert not chosen.any() and rest.tolist() == [False, True, True]


@given(st.integers(0, 10_000))
def test_agreement_is_the_share_of_pairs_in_order(seed):
    rng = np.random.default_rng(seed)
    effects = rng.integers(-3, 4, (3, 15)).astype(np.float32)
    order = rng.permutation(15)
    chosen, rest = np.isin(np.arange(15), order[:4]), np.isin(np.arange(15), order[4:12])
    for row, area in zip(effects, agreement(effects, [(chosen, rest)])[0], strict=True):
        pairs = [(a > b) + (a == b) / 2 for a in row[chosen] for b in row[rest]]
        assert area == pytest.approx(np.mean(pairs))


def test_two_sided_p_by_hand():
    others = np.array([0.1, 0.2, 0.3, 0.4])
    assert two_sided_p(0.9, others) == pytest.approx(2 * 1 / 5)
    assert two_sided_p(0.0, others) == pytest.approx(2 * 1 / 5)
    assert two_sided_p(0.35, others) == pytest.approx(2 * 2 / 5)
    assert two_sided_p(0.25, others) == 1.0


def test_next_tokens_are_counted_once_within_their_sequence():
    """Sequences: BOS a b c | BOS d d. Rows: [1, 3) in class, [2, 3) in class again, the second's [0, 2) out of class, its end."""
    dataset = FeatureDataset(
        features=("f",), categories=("c",), document_ids=("x", "y"), texts=("abc", "dd"),
        tokens=np.array([0, 1, 2, 3, 0, 4, 4]), char_starts=np.array([-1, 0, 1, 2, -1, 0, 1]),
        char_ends=np.array([-1, 1, 2, 3, -1, 1, 2]), sequence_starts=np.array([0, 4, 7]), sequence_document=np.array([0, 1]),
        row_sequence=np.array([0, 0, 1, 1]), row_first=np.array([1, 2, 0, 2]), row_last=np.array([3, 3, 2, 3]),
        row_pooling=np.zeros(4, int), row_group=np.arange(4), row_split=np.zeros(4, int),
        positive=np.array([[True], [True], [False], [False]]), eligible=np.ones((4, 1), bool), audits={},
    )  # fmt: skip
    inside, outside = next_token_counts(dataset, 0, 5)
    assert inside.tolist() == [0, 0, 1, 1, 0]
    assert outside.tolist() == [0, 0, 0, 0, 2]


def by_hand(*, gated: bool) -> MlpWeights:
    w_in = np.array([[3, 4, 0], [0, 0, 2], [0, 0, 0]], dtype=np.float32)
    w_out = np.array([[6, 8, 0], [0, 0, -1], [1, 0, 0]], dtype=np.float32)
    b_in = np.array([-2, 0.5, 1], dtype=np.float32)
    return MlpWeights(
        w_in=w_in, b_in=b_in * (not gated), w_gate=w_out if gated else None, b_gate=b_in if gated else None, w_out=w_out,
        centred=False, further_norm=False, post_norm=False,
    )  # fmt: skip


def test_statistics_by_hand():
    found = neuron_statistics(by_hand(gated=False))
    assert list(found) == ["norm_in", "bias_in", "norm_times_bias", "norm_out", "cosine"]
    assert found["norm_in"].tolist() == [5, 2, 0] and found["norm_out"].tolist() == [10, 1, 1]
    assert found["norm_times_bias"].tolist() == [-10, 1, 0]
    np.testing.assert_allclose(found["cosine"], [1, -1, np.nan])
    rows = {row["statistic"]: row for row in layer_rows(4, found)}
    assert (rows["norm_in"]["layer"], rows["norm_in"]["q50"], rows["cosine"]["q50"]) == (4, 2, 0)
    assert rows["norm_in"]["q20"] == pytest.approx(0.8) and rows["norm_in"]["q995"] == pytest.approx(4.97)
    assert standing(found, 0)["norm_times_bias_percentile"] == pytest.approx(100 / 6)
    assert "cosine" not in standing(found, 2) and standing(found, 1)["cosine_percentile"] == pytest.approx(25)


def test_gated_neurons_have_both_input_maps_and_no_bias_that_is_not_there():
    found = neuron_statistics(by_hand(gated=True))
    assert list(found) == [
        "norm_in",
        "norm_out",
        "cosine",
        "norm_gate",
        "bias_gate",
        "norm_times_bias_gate",
        "cosine_gate",
    ]
    np.testing.assert_allclose(found["cosine_gate"], 1)
    assert found["norm_times_bias_gate"].tolist() == [-20, 0.5, 1]


# the page


def page(record: dict[str, Any], macro: str) -> str:
    return str(getattr(environment().get_template("studies/weights/page.html").module, macro)(record, "w0"))


@pytest.mark.filterwarnings("ignore")
def test_the_page_says_what_the_tables_say(pair):
    planted, twin = pair
    assert weights_view(planted, "c", "unknown") is None
    words, other = weights_view(planted, "c", "words"), weights_view(twin, "c", "words")
    assert words is not None and other is not None
    assert (words["agrees"]["verdict"], words["agrees"]["fine"]) == ("agrees", True)
    assert (other["agrees"]["verdict"], other["agrees"]["fine"]) == ("no clear agreement", False)
    text = page(words, "feature")
    assert "&lt;" in text and "<script" not in text and "L2.N17 raises most" in text and "chip own" in text
    reads = weights_view(planted, "c", "reads")
    assert reads is not None and "come" in reads["composition"] and "L2.N9" in page(reads, "feature")
    overview = weights_overview(planted)
    assert overview is not None and overview["n_tried"] == 5 and overview["n_promoting"] >= 1
    charts = charts_of(overview, "w0")
    assert set(charts) == {"w0-bias", "w0-cosine"} and all(name in page(overview, "overview") for name in charts)
    assert all("vconcat" not in spec and "NaN" not in json.dumps(spec) for spec in charts.values())
    assert charts_of(words, "w0") == {}


@pytest.mark.filterwarnings("ignore")
def test_a_neuron_that_is_lower_in_class_opposes_when_it_writes_the_words(pair):
    tables = dict(pair[0])
    tables["output_weights"] = tables["output_weights"].with_columns(sign=-pl.col("sign"))
    record = weights_view(tables, "c", "words")
    assert (
        record is not None and record["agrees"]["verdict"] == "opposes" and "lower in class" in record["agrees"]["text"]
    )
    assert weights_overview({name: table([], schema) for name, schema in WEIGHT_TABLES.items()}) is None


@pytest.mark.filterwarnings("ignore")
def test_tokens_cannot_act_in_the_page(pair):
    tables = dict(pair[0])
    tables["logit_tokens"] = tables["logit_tokens"].with_columns(token=pl.lit("<script>\n"))
    record = weights_view(tables, "c", "f")
    assert record is not None and "&lt;script&gt;⏎" in page(record, "feature")


# the reference values


def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location(
        "pythia", Path(__file__).parent.parent / "benchmarks/pythia_weight_statistics.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_reference_values_are_printed_beside_those_of_a_folder(tmp_path, capsys):
    script = benchmark()
    sizes = {
        "vocab_size": 50,
        "hidden_size": 8,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "intermediate_size": 2048,
    }
    network = network_of(hf.GPTNeoXConfig, sizes)
    network.save_pretrained(tmp_path)
    assert script.main(["--model", str(tmp_path)]) == 0
    up, norm = network.layers[1].mlp.dense_h_to_4h, network.layers[1].post_attention_layernorm
    folded = (up.weight * norm.weight).detach().double()
    folded -= folded.mean(1, keepdim=True)
    expected = (folded.norm(dim=1) * (up.bias + up.weight @ norm.bias).detach()).numpy()
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:5]]
    assert [(c[0], c[1], c[3]) for c in cells] == [
        ("70m", "L1.N828", "-0.6336"),
        ("70m", "L1.N221", "-0.3570"),
        ("70m", "L1.N87", "-0.1666"),
    ]
    assert [float(c[4]) for c in cells] == pytest.approx([expected[u] for u in (828, 221, 87)], abs=1e-4)
    worst = max(abs(expected[u] - r) for u, r in ((828, -0.6336), (221, -0.3570), (87, -0.1666)))
    assert float(lines[-1].split()[2]) == pytest.approx(worst, abs=1e-4)


def test_a_model_without_reference_values_is_one_sentence(model_folders, tmp_path, capsys):
    script = benchmark()
    other, strange, nowhere = model_folders["gpt_neox"], model_folders["llama"], tmp_path / "nowhere"
    for name, words in ((nowhere, "cannot be loaded"), (other, "3 layers of 48 neurons"), (strange, "llama")):
        assert script.main(["--model", str(name)]) == 2
        printed = capsys.readouterr()
        assert words in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_all_21_reference_neurons_are_there():
    script = benchmark()
    assert len({(size, unit) for size, neurons in script.REFERENCE.values() for unit, _ in neurons}) == 21
    assert all(unit < shape[1] for shape, (_, neurons) in script.REFERENCE.items() for unit, _ in neurons)
