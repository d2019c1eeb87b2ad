"""The check of a loaded model: padding, values that are no numbers, layers that share modules, experts, confirmed sites."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

import sparse_probing as sp
from sparse_probing.activations.batches import batches_by_length, forward, per_token
from sparse_probing.activations.confirm import confirmed_sites
from sparse_probing.activations.experts import expert_neurons, routed
from sparse_probing.activations.interventions import Intervention, intervening
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import wrap_model
from sparse_probing.cli.main import main
from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS, Site

SMALL: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 40,
    "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
TEXTS = ["A frozen harbour.", "She wrote two letters in March, and nobody answered.", "Short."]
pytestmark = pytest.mark.filterwarnings("ignore")


def wrapped(network: torch.nn.Module, tokenizer: hf.PreTrainedTokenizerFast) -> LoadedModel:
    return wrap_model(network, tokenizer, type(network).__name__)


def noisy(config: Any) -> Any:
    torch.manual_seed(1)
    network = hf.AutoModel.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def read(model: LoadedModel, sequences: list[np.ndarray], sites: tuple[Site, ...]) -> dict[Site, Tensor]:
    found: dict[Site, Tensor] = {}
    with model.evaluating():
        forward(model, sequences, sites, lambda site, values: found.__setitem__(site, values.clone()))
    return found


def test_a_model_that_ignores_the_mask_is_read_one_length_at_a_time(tokenizer, tmp_path):
    config = hf.FNetConfig(**SMALL)
    model = wrapped(noisy(config), tokenizer)
    assert not model.padded
    assert "gives a text other values when it is padded" in model.remarks[0] and "takes longer" in model.remarks[0]
    rows = sp.every_token(TEXTS, model.tokenizer)
    sites = sp.find_units(model)
    together = sp.extract(model, rows, sites, dtype="float32", cache=tmp_path)[NEURONS].read(1)
    begin = 0
    for text in TEXTS:
        alone = sp.every_token([text], model.tokenizer)
        values = sp.extract(model, alone, sites, dtype="float32", cache=tmp_path)[NEURONS].read(1)
        np.testing.assert_allclose(together[begin : begin + len(values)], values, atol=1e-5)
        begin += len(values)


def test_a_model_whose_texts_change_each_other_is_refused(tokenizer):
    sizes = {k: SMALL[k] for k in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    config = hf.XLNetConfig(**sizes, d_model=16, n_layer=2, n_head=2, d_inner=40)
    model = wrapped(noisy(config), tokenizer)
    with pytest.raises(
        InputError, match=r"site mlp.neurons of 'XLNetModel' cannot be trusted: a text beside another one of its length"
    ):
        sp.find_units(model)


def test_values_that_are_no_numbers_name_the_first_layer(tokenizer):
    deep: dict[str, Any] = SMALL | {"num_hidden_layers": 12}  # more layers than are read with padding
    network = noisy(hf.LlamaConfig(**deep))
    with torch.no_grad():
        network.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(
        InputError, match=r"no numbers \(NaN\) from layer 1 on, at mlp.out, in float32: try --dtype float32"
    ):
        wrapped(network, tokenizer)


def test_vectors_per_token_by_hand():
    values = torch.arange(24.0).reshape(2, 3, 4)
    for given, positions in (
        (values, 3),
        (values.reshape(6, 4), 3),
        (values, 2),
    ):  # the last was padded by the model itself
        vectors = per_token(given, (2, positions))
        assert vectors is not None and torch.equal(vectors, values[:, :positions])
    assert per_token(values, (3, 3)) is None and per_token(values.reshape(6, 4), (2, 2)) is None


def test_batches_of_one_length_have_one_length():
    lengths = np.array([5, 3, 5, 9, 3, 5])
    batches = batches_by_length(lengths, 10, one_length=True)
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert all(len(set(lengths[batch])) == 1 and lengths[batch].sum() <= 10 for batch in batches)


@pytest.fixture(scope="module")
def albert(tokenizer) -> LoadedModel:
    return wrapped(noisy(hf.AlbertConfig(**SMALL, embedding_size=8)), tokenizer)


def test_layers_that_share_a_module_are_told_apart_by_its_calls(albert):
    sites = sp.find_units(albert)
    assert [(site.layer, site.call) for site in sites] == [(0, 0), (1, 1), (2, 2)]
    assert len({site.module_path for site in sites}) == 1
    ids, seen = np.array([3, 7, 11, 300]), []
    module = albert.network.get_submodule(sites[0].module_path)
    handle = module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        albert.network(input_ids=torch.from_numpy(ids)[None])
    handle.remove()
    found = read(albert, [ids], sites)
    for site, values in zip(sites, seen, strict=True):
        torch.testing.assert_close(found[site][:, :4], values)
    assert not torch.allclose(seen[0], seen[1])


def test_only_the_wanted_call_of_a_shared_module_is_changed(albert):
    site = sp.find_units(albert)[1]
    ids = torch.tensor([[3, 7, 11, 300]])
    module, calls = albert.network.get_submodule(site.module_path), []

    def plainly(_module: Any, inputs: tuple[Tensor, ...]) -> Any:
        calls.append(None)
        if len(calls) != 2:
            return None
        values = inputs[0].clone()
        values[..., 5] = 3.0
        return (values,)

    handle = module.register_forward_pre_hook(plainly)
    with torch.no_grad():
        wanted = albert.network(input_ids=ids).last_hidden_state
    handle.remove()
    change = Intervention(site=site, units=(5,), values=np.array([[3.0]]))
    with torch.no_grad(), intervening(albert.network, [change], np.zeros(1, dtype=np.int64)):
        first = albert.network(input_ids=ids).last_hidden_state
        second = albert.network(input_ids=ids).last_hidden_state  # calls are counted anew in each pass
    torch.testing.assert_close(first, wanted)
    torch.testing.assert_close(second, wanted)


def test_lists_of_parts_have_their_neurons_and_heads_but_no_residual_stream(tokenizer):
    sizes: dict[str, Any] = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.FlaubertConfig(**sizes, max_position_embeddings=128)
    model = wrapped(noisy(config), tokenizer)
    assert [site.module_path for site in sp.find_units(model)] == ["ffns.0.lin2", "ffns.1.lin2"]
    assert [site.module_path for site in sp.find_units(model, "attn.out")] == [
        "attentions.0.out_lin",
        "attentions.1.out_lin",
    ]
    with pytest.raises(InputError, match="keeps attention, MLP and norms in separate lists"):
        sp.find_units(model, "resid.post")


MIXTURES = {
    "mixtral": (hf.MixtralConfig, {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}, "softmax"),
    "gpt_oss": (
        hf.GptOssConfig,
        {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2, "head_dim": 8, "layer_types": None},
        "softmax",
    ),
    "qwen3_moe": (
        hf.Qwen3MoeConfig,
        {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 24},
        "softmax",
    ),
    "deepseek_v3": (
        hf.DeepseekV3Config,
        {
            "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
            "first_k_dense_replace": 1, "moe_intermediate_size": 24, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 2,
        },
        "sigmoid",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=MIXTURES)
def mixture(request, tokenizer) -> tuple[LoadedModel, str]:
    kind, sizes, link = MIXTURES[request.param]
    return wrapped(noisy(kind(**SMALL | sizes)), tokenizer), link


def expert_call(model: LoadedModel, site: Site, ids: Tensor) -> tuple[Any, tuple[Any, ...], Tensor]:
    module, seen = model.network.get_submodule(site.module_path), []
    handle = module.register_forward_hook(lambda _m, inputs, output: seen.append((inputs, output)))
    with torch.no_grad():
        model.network(input_ids=ids)
    handle.remove()
    return module, *seen[0]


def test_neurons_of_experts_lead_to_what_the_experts_write(mixture):
    model, _ = mixture
    site = sp.find_units(model, "moe.experts.neurons")[-1]
    ids = torch.tensor([[3, 7, 11, 300, 17]])
    module, inputs, output = expert_call(model, site, ids)
    given = routed(inputs)
    assert given is not None
    neurons = read(model, [ids[0].numpy()], (site,))[site][0, :5].clone()
    torch.testing.assert_close(neurons, expert_neurons(module, given))
    width = site.width // 4
    total = torch.zeros(5, 16)
    for token in range(5):
        for expert, weight in zip(given.experts[token].tolist(), given.weights[token], strict=True):
            values = neurons[token, expert * width : (expert + 1) * width]
            down = module.down_proj[expert]
            bias = module.down_proj_bias[expert] if module.has_bias else 0
            total[token] += weight.detach() * (values @ (down if module.is_transposed else down.T) + bias)
        strangers = [e for e in range(4) if e not in given.experts[token].tolist()]
        assert all((neurons[token, e * width : (e + 1) * width] == 0).all() for e in strangers)
    torch.testing.assert_close(output.reshape(5, 16), total.detach(), atol=1e-5, rtol=1e-4)


def test_the_router_gives_probabilities_that_the_weights_follow(mixture):
    model, link = mixture
    (*_, site) = sp.find_units(model, "moe.router")
    assert site.side == link and site.width == 4
    ids = torch.tensor([[3, 7, 11, 300, 17]])
    probabilities = read(model, [ids[0].numpy()], (site,))[site][0, :5]
    assert ((probabilities > 0) & (probabilities < 1)).all()
    experts = [s for s in sp.find_units(model, "moe.experts.neurons") if s.layer == site.layer]
    given = routed(expert_call(model, experts[0], ids)[1])
    assert given is not None
    chosen = probabilities.gather(1, given.experts)
    ratio = given.weights / chosen
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1], atol=1e-3, rtol=1e-3)


def test_a_changed_expert_neuron_equals_changed_weights(mixture):
    model, _ = mixture
    site = sp.find_units(model, "moe.experts.neurons")[-1]
    ids = torch.tensor([[3, 7, 11, 300, 17]])
    module, inputs, _ = expert_call(model, site, ids)
    given = routed(inputs)
    assert given is not None
    expert = int(given.experts[0, 0])
    width = site.width // 4
    change = Intervention(site=site, units=(expert * width + 2,), values=np.zeros((1, 1)))
    with torch.no_grad(), intervening(model.network, [change], np.zeros(1, dtype=np.int64)):
        changed = model.network(input_ids=ids).last_hidden_state
    before = module.down_proj.detach().clone()
    with torch.no_grad():
        (module.down_proj[expert, 2] if module.is_transposed else module.down_proj[expert, :, 2]).zero_()
        wanted = model.network(input_ids=ids).last_hidden_state
        module.down_proj.copy_(before)
        bare = model.network(input_ids=ids).last_hidden_state
    torch.testing.assert_close(changed, wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(changed, bare)


def test_experts_are_confirmed_by_their_own_weights_only(mixture, monkeypatch):
    model, _ = mixture
    experts = set(sp.find_units(model, "moe.experts.neurons"))
    assert experts <= confirmed_sites(model)
    module: Any = model.network.get_submodule(next(iter(experts)).module_path)
    plainly = module.forward
    monkeypatch.setattr(
        module, "forward", lambda *given: 2 * plainly(*given)
    )  # writes something else than its weights say
    assert {site.layer for site in experts - confirmed_sites(model)} == {next(iter(experts)).layer}


def test_router_probabilities_cannot_be_changed(mixture):
    model, _ = mixture
    site = sp.find_units(model, "moe.router")[-1]
    change = Intervention(site=site, units=(0,), values=np.zeros((1, 1)))
    with (
        pytest.raises(InputError, match=r"units of moe\.router cannot be changed"),
        intervening(model.network, [change], np.zeros(1, dtype=np.int64)),
    ):
        pass


def test_confirmed_sites_are_confirmed_by_their_values(tiny):
    confirmed = confirmed_sites(tiny)
    last = max(site.layer for site in tiny.sites.found)
    missing = {(site.name, site.layer) for site in tiny.sites.found if site not in confirmed}
    assert missing == {("resid.post", last)}  # transformers reports it behind the final norm
    wrong = [
        replace(site, module_path=site.module_path.replace("attention.dense", "attention.query_key_value"))
        if site.name == "attn.out"
        else site
        for site in tiny.sites.found
    ]
    other = replace(tiny, sites=replace(tiny.sites, found=tuple(wrong)))
    assert not any(site.name == "attn.out" for site in confirmed_sites(other))


def test_the_command_marks_what_was_confirmed(capsys, model_folders):
    main(["sites", str(model_folders["llama"]), "--check"])
    shown = capsys.readouterr().out
    assert "confirmed" in shown and "no" not in [
        line.split()[-1] for line in shown.splitlines() if line.startswith(" mlp.")
    ]
