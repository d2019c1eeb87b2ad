"""The sites of twenty-three architectures: found from a traced pass, equal to each family's own formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from sparse_probing.activations.batches import forward
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import wrap_model
from sparse_probing.activations.sites import OF_EXPERTS, SITES, find_sites
from sparse_probing.errors import InputError
from sparse_probing.records import Site

Pair = tuple[Tensor, Tensor]
Formula = Callable[[Any, Tensor], Pair]

TOKENS: dict[str, Any] = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LAYERS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
USUAL: dict[str, Any] = TOKENS | LAYERS | {"intermediate_size": 80, "max_position_embeddings": 64}
GROUPED = USUAL | {"num_key_value_heads": 2}
OLD: dict[str, Any] = TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 80, "n_positions": 64}


def gated(mlp: Any, x: Tensor) -> Pair:
    pre = linear(x, mlp.gate_proj.weight)
    return pre, mlp.act_fn(pre) * linear(x, mlp.up_proj.weight)


def gated_two_names(mlp: Any, x: Tensor) -> Pair:
    gate, value = linear(x, mlp.Wi.weight, mlp.Wi.bias).chunk(2, dim=-1)
    return gate, mlp.act(gate) * value


def plain(first: str, act: Callable[[Tensor], Tensor]) -> Formula:
    def formula(mlp: Any, x: Tensor) -> Pair:
        module = mlp.get_submodule(first)
        pre = linear(x, module.weight, module.bias)
        return pre, act(pre)

    return formula


def gelu_tanh(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def gpt2_formula(mlp: Any, x: Tensor) -> Pair:
    pre = x @ mlp.c_fc.weight + mlp.c_fc.bias
    return pre, gelu_tanh(pre)


def fc1_formula(fc1: Any, x: Tensor) -> Pair:
    pre = linear(x, fc1.weight, fc1.bias)
    return pre, torch.relu(pre)


gelu = torch.nn.functional.gelu


# configuration class, its sizes, within block 0: the attention module, the module whose input is the MLP's input, formula from that
# module and its input to the values before and after the nonlinearity
FAMILIES: list[tuple[Any, dict[str, Any], str, str, Formula]] = [
    (hf.GPTNeoXConfig, USUAL, "attention", "mlp", plain("dense_h_to_4h", gelu)),
    (hf.GPT2Config, OLD, "attn", "mlp", gpt2_formula),
    (hf.GPTJConfig, OLD | {"rotary_dim": 4}, "attn", "mlp", plain("fc_in", gelu_tanh)),
    (hf.OPTConfig, TOKENS | LAYERS | {"ffn_dim": 80, "word_embed_proj_dim": 32}, "self_attn", "fc1", fc1_formula),
    (
        hf.BloomConfig,
        TOKENS | {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "self_attention.dense",
        "mlp",
        plain("dense_h_to_4h", gelu_tanh),
    ),
    (hf.FalconConfig, TOKENS | LAYERS | {"ffn_hidden_size": 80}, "self_attention", "mlp", plain("dense_h_to_4h", gelu)),
    (hf.LlamaConfig, GROUPED, "self_attn", "mlp", gated),
    (hf.MistralConfig, GROUPED, "self_attn", "mlp", gated),
    (hf.Qwen2Config, GROUPED, "self_attn", "mlp", gated),
    (hf.Qwen3Config, GROUPED | {"head_dim": 32}, "self_attn", "mlp", gated),
    (hf.GemmaConfig, GROUPED | {"head_dim": 8}, "self_attn", "mlp", gated),
    (hf.Gemma2Config, GROUPED | {"head_dim": 8}, "self_attn", "mlp", gated),
    (hf.Gemma3TextConfig, GROUPED | {"head_dim": 8}, "self_attn", "mlp", gated),
    (hf.PhiConfig, USUAL, "self_attn", "mlp", plain("fc1", gelu_tanh)),
    (hf.StableLmConfig, GROUPED, "self_attn", "mlp", gated),
    (hf.Olmo2Config, GROUPED, "self_attn", "mlp", gated),
    (hf.GraniteConfig, GROUPED, "self_attn", "mlp", gated),
    (hf.CohereConfig, GROUPED, "self_attn", "mlp", gated),
    (
        hf.MptConfig,
        TOKENS | {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 3, "max_seq_len": 64},
        "attn",
        "ffn",
        plain("up_proj", gelu),
    ),
    (hf.BertConfig, USUAL, "attention.output.dense", "intermediate", plain("dense", gelu)),
    (hf.RobertaConfig, USUAL | {"pad_token_id": 0}, "attention.output.dense", "intermediate", plain("dense", gelu)),
    (hf.ModernBertConfig, USUAL | {"cls_token_id": 1, "sep_token_id": 2}, "attn", "mlp", gated_two_names),
    (
        hf.T5Config,
        TOKENS | {"d_model": 32, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_heads": 4},
        "layer.0.SelfAttention",
        "layer.1.DenseReluDense",
        plain("wi", torch.relu),
    ),
]
IDS = [family[0].__name__ for family in FAMILIES]


def model_of(kind: Any, sizes: dict[str, Any], tokenizer: hf.PreTrainedTokenizerFast) -> LoadedModel:
    torch.manual_seed(3)
    network = hf.AutoModel.from_config(kind(**sizes)).eval().float().requires_grad_(requires_grad=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return wrap_model(network, tokenizer, kind.__name__)


def read_all(model: LoadedModel, sequences: list[np.ndarray]) -> dict[tuple[str, int], Tensor]:
    found: dict[tuple[str, int], Tensor] = {}
    longest = max(len(sequence) for sequence in sequences)

    def take(site: Site, values: Tensor) -> None:
        found[site.name, site.layer] = values[:, :longest].clone()

    forward(model, sequences, model.sites.found, take)
    return found


def linear_map(module: Any, x: Tensor) -> Tensor:
    """The module's own weights; `Conv1D` keeps them transposed."""
    weight = module.weight if isinstance(module, Conv1D) else module.weight.T
    return x @ weight + (0 if module.bias is None else module.bias)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "sizes", "attention", "mlp", "formula"), FAMILIES, ids=IDS)
def test_every_site_equals_an_independent_computation(kind, sizes, attention, mlp, formula, tokenizer):
    model = model_of(kind, sizes, tokenizer)
    assert model.sites.absent == {}
    assert {(s.name, s.layer) for s in model.sites.found} == {
        (name, layer) for name in set(SITES) - set(OF_EXPERTS) for layer in (0, 1)
    }
    block: Any = model.network.get_submodule(f"{model.sites.stack}.0")
    seen: dict[str, Any] = {}
    block.get_submodule(mlp).register_forward_pre_hook(lambda _m, inputs: seen.__setitem__("mlp", inputs[0]))
    block.get_submodule(attention).register_forward_hook(lambda _m, _i, out: seen.__setitem__("attention", out))
    ids = torch.tensor([[5, 9, 200, 17, 44, 260, 8]])
    with torch.inference_mode():
        hidden = model.network(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        ).hidden_states
        before, after = formula(block.get_submodule(mlp), seen["mlp"])
    attended = seen["attention"][0] if isinstance(seen["attention"], tuple) else seen["attention"]
    found = read_all(model, [ids[0].numpy()])
    sites = {(s.name, s.layer): s for s in model.sites.found}
    down = model.network.get_submodule(sites["mlp.out", 0].module_path)
    out = model.network.get_submodule(sites["attn.out", 0].module_path)
    expected = {
        ("mlp.pre", 0): before,
        ("mlp.neurons", 0): after,
        ("mlp.out", 0): linear_map(down, after),
        ("attn.out", 0): attended,
        ("attn.out", 1): linear_map(
            model.network.get_submodule(sites["attn.out", 1].module_path), found["attn.heads", 1]
        ),
        ("resid.pre", 0): hidden[0],
        ("resid.post", 0): hidden[1],
        ("resid.pre", 1): hidden[1],
    }
    np.testing.assert_allclose(linear_map(out, found["attn.heads", 0]).detach(), found["attn.out", 0], atol=1e-5)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values.detach().reshape(found[key].shape), atol=2e-5, err_msg=str(key))
        assert found[key].shape[-1] == sites[key].width
    heads = sites["attn.heads", 0]
    assert heads.heads == 4 and heads.width == found["attn.heads", 0].shape[-1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "sizes"), [family[:2] for family in FAMILIES], ids=IDS)
def test_the_other_sequences_of_a_batch_change_nothing(kind, sizes, tokenizer):
    model = model_of(kind, sizes, tokenizer)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(3, 300, n) for n in (4, 11, 7)]
    together = read_all(model, sequences)
    for i, sequence in enumerate(sequences):
        for key, alone in read_all(model, [sequence]).items():
            np.testing.assert_allclose(together[key][i, : len(sequence)], alone[0], atol=3e-5, err_msg=str(key))


def test_heads_are_softmax_of_queries_and_keys_times_values(tokenizer):
    """Llama with two key-value heads for four query heads, from the weights alone, at position 0 rotary changes nothing."""
    model = model_of(hf.LlamaConfig, GROUPED, tokenizer)
    block: Any = model.network.get_submodule("layers.0")
    found = read_all(model, [np.array([5, 9, 200, 17])])
    x = block.input_layernorm(found["resid.pre", 0])
    values = linear(x, block.self_attn.v_proj.weight).view(4, 2, 8)
    first = values[0].repeat_interleave(2, dim=0).flatten()  # the first token attends to itself only
    np.testing.assert_allclose(found["attn.heads", 0][0, 0], first.detach(), atol=1e-5)


ROUTED = {"moe.router", "moe.experts.neurons"}
# configuration, layers with an MLP that every token passes, whether some experts see every token, sites of the experts
MIXTURES: list[tuple[str, list[int], bool, set[str]]] = [
    ("Mixtral", [], False, ROUTED),
    ("Qwen3Moe", [], False, ROUTED),
    ("Olmoe", [], False, ROUTED),
    ("GptOss", [], False, ROUTED),
    ("GraniteMoe", [], False, ROUTED),
    ("Qwen2Moe", [], True, ROUTED),
    ("Qwen3Next", [], True, ROUTED),
    ("DeepseekV3", [0, 1, 2], True, ROUTED),
    ("Glm4Moe", [0], True, ROUTED),
    ("Jamba", [0, 2], False, ROUTED),
    ("Llama4Text", [], True, set()),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "dense", "shared", "routed"), MIXTURES)
def test_each_layer_of_a_mixture_has_the_sites_that_its_modules_have(name, dense, shared, routed):
    config = getattr(hf, f"{name}Config")(num_hidden_layers=4)
    with torch.device("meta"):
        sites = find_sites(hf.AutoModel.from_config(config), name)
    assert {site.name for site in sites.found} >= {"resid.pre", "resid.post", *routed}
    assert [site.layer for site in sites.found if site.name == "mlp.neurons"] == dense
    assert [s.layer for s in sites.found if s.name == "mlp.shared.neurons"] == [
        n for n in range(4) if n not in dense
    ] * shared
    assert {site.name for site in sites.found if site.name.startswith("moe.")} == routed
    if not dense:
        with pytest.raises(InputError, match="is a mixture of experts"):
            sites.named("mlp.neurons")
    if not routed:
        with pytest.raises(InputError, match="does not show which tokens an expert is sent"):
            sites.named("moe.router")


@pytest.mark.filterwarnings("ignore")
def test_state_space_models_have_no_mlp_sites():
    with torch.device("meta"):
        sites = find_sites(hf.AutoModel.from_config(hf.MambaConfig(num_hidden_layers=2)), "mamba")
    assert {site.name for site in sites.found} == {"resid.pre", "resid.post"}
    with pytest.raises(InputError, match="no MLP neurons: its blocks mix tokens by convolution"):
        sites.named("mlp.neurons")


@pytest.mark.filterwarnings("ignore")
def test_models_that_also_see_images_are_read_in_their_text_part():
    text = GROUPED | {"head_dim": 8, "num_hidden_layers": 3}
    vision = LAYERS | {"intermediate_size": 64, "image_size": 28, "patch_size": 14}
    with torch.device("meta"):
        sites = find_sites(hf.AutoModel.from_config(hf.Gemma3Config(text_config=text, vision_config=vision)), "gemma")
    assert sites.stack == "language_model.layers" and sites.n_layers == 3
    assert [site.width for site in sites.named("mlp.neurons")] == [80] * 3
