"""Neurons of twenty-three architectures: found from the module tree, equal to each family's own formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor
from torch.nn.functional import linear

from sparse_probing.activations.extract import reading
from sparse_probing.activations.models import reading_part
from sparse_probing.activations.sites import find_neuron_sites

TOKENS: dict[str, Any] = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LAYERS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
USUAL: dict[str, Any] = TOKENS | LAYERS | {"intermediate_size": 80, "max_position_embeddings": 64}
GROUPED = USUAL | {"num_key_value_heads": 2}
OLD: dict[str, Any] = TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 80, "n_positions": 64}


def gated(mlp: Any, x: Tensor) -> Tensor:
    return mlp.act_fn(linear(x, mlp.gate_proj.weight)) * linear(x, mlp.up_proj.weight)


def gated_two_names(mlp: Any, x: Tensor) -> Tensor:
    gate, value = linear(x, mlp.Wi.weight, mlp.Wi.bias).chunk(2, dim=-1)
    return mlp.act(gate) * value


def plain(first: str, act: str) -> Callable[[Any, Tensor], Tensor]:
    def formula(mlp: Any, x: Tensor) -> Tensor:
        module = mlp.get_submodule(first)
        return getattr(mlp, act)(linear(x, module.weight, module.bias))

    return formula


def gelu_of(first: str) -> Callable[[Any, Tensor], Tensor]:
    return lambda mlp, x: torch.nn.functional.gelu(
        linear(x, mlp.get_submodule(first).weight, mlp.get_submodule(first).bias)
    )


def gpt2_formula(mlp: Any, x: Tensor) -> Tensor:
    return mlp.act(x @ mlp.c_fc.weight + mlp.c_fc.bias)


def bloom_formula(mlp: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(linear(x, mlp.dense_h_to_4h.weight, mlp.dense_h_to_4h.bias), approximate="tanh")


def t5_formula(mlp: Any, x: Tensor) -> Tensor:
    return torch.relu(linear(x, mlp.wi.weight))


def fc1_formula(fc1: Any, x: Tensor) -> Tensor:
    return torch.relu(linear(x, fc1.weight, fc1.bias))


def encoder_formula(intermediate: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(intermediate.dense(x))


# configuration class, its sizes, module whose input is the MLP's input in block 0, formula from that module and its input
Formula = Callable[[Any, Tensor], Tensor]
FAMILIES: list[tuple[Any, dict[str, Any], str, Formula]] = [
    (hf.GPTNeoXConfig, USUAL, "layers.0.mlp", gelu_of("dense_h_to_4h")),
    (hf.GPT2Config, OLD, "h.0.mlp", gpt2_formula),
    (hf.GPTJConfig, OLD | {"rotary_dim": 4}, "h.0.mlp", plain("fc_in", "act")),
    (hf.OPTConfig, TOKENS | LAYERS | {"ffn_dim": 80, "word_embed_proj_dim": 32}, "decoder.layers.0.fc1", fc1_formula),
    (hf.BloomConfig, TOKENS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "h.0.mlp", bloom_formula),
    (hf.FalconConfig, TOKENS | LAYERS | {"ffn_hidden_size": 80}, "h.0.mlp", gelu_of("dense_h_to_4h")),
    (hf.LlamaConfig, GROUPED, "layers.0.mlp", gated),
    (hf.MistralConfig, GROUPED, "layers.0.mlp", gated),
    (hf.Qwen2Config, GROUPED, "layers.0.mlp", gated),
    (hf.Qwen3Config, GROUPED | {"head_dim": 32}, "layers.0.mlp", gated),
    (hf.GemmaConfig, GROUPED | {"head_dim": 8}, "layers.0.mlp", gated),
    (hf.Gemma2Config, GROUPED | {"head_dim": 8}, "layers.0.mlp", gated),
    (hf.Gemma3TextConfig, GROUPED | {"head_dim": 8}, "layers.0.mlp", gated),
    (hf.PhiConfig, USUAL, "layers.0.mlp", plain("fc1", "activation_fn")),
    (hf.StableLmConfig, GROUPED, "layers.0.mlp", gated),
    (hf.Olmo2Config, GROUPED, "layers.0.mlp", gated),
    (hf.GraniteConfig, GROUPED, "layers.0.mlp", gated),
    (hf.CohereConfig, GROUPED, "layers.0.mlp", gated),
    (
        hf.MptConfig,
        TOKENS | {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 3},
        "blocks.0.ffn",
        gelu_of("up_proj"),
    ),
    (hf.BertConfig, USUAL, "encoder.layer.0.intermediate", encoder_formula),
    (hf.RobertaConfig, USUAL, "encoder.layer.0.intermediate", encoder_formula),
    (hf.ModernBertConfig, USUAL | {"cls_token_id": 1, "sep_token_id": 2}, "layers.0.mlp", gated_two_names),
    (
        hf.T5Config,
        TOKENS | {"d_model": 32, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_heads": 4},
        "block.0.layer.1.DenseReluDense",
        t5_formula,
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "sizes", "path", "formula"), FAMILIES, ids=[f[0].__name__ for f in FAMILIES])
def test_neurons_equal_the_familys_formula(kind: Any, sizes: dict[str, Any], path: str, formula: Formula):
    torch.manual_seed(3)
    network = reading_part(hf.AutoModel.from_config(kind(**sizes))).eval().float()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    sites = find_neuron_sites(network, kind.__name__)
    assert len(sites) == 2
    found: list[Tensor] = []
    entered: list[Tensor] = []
    module = network.get_submodule(path)
    handle = module.register_forward_pre_hook(lambda _m, inputs: entered.append(inputs[0]))
    ids = torch.tensor([[5, 9, 200, 17, 44, 260, 8]])
    with torch.inference_mode(), reading(network, sites[:1], lambda _layer, hidden: found.append(hidden)):
        network(input_ids=ids, attention_mask=torch.ones_like(ids))
    handle.remove()
    with torch.inference_mode():
        expected = formula(module, entered[0])
    np.testing.assert_allclose(found[0].reshape(expected.shape), expected, atol=1e-5)
    assert found[0].shape[-1] == sites[0].width
