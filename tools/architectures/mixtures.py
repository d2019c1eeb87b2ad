"""The reference for mixtures of experts: routers' probabilities and experts' neurons, from formulas of its own.

A formula for the neurons counts only if, sent down and weighted, they give what the model's own experts returned.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.activations import ACT2FN

ROUTERS = (
    "mlp.gate", "mlp.router", "mlp.router.gate", "mlp.gate.wg", "block_sparse_moe.router", "feed_forward.router",
    "feed_forward.gate", "mixer.gate",
)  # fmt: skip
EXPERTS = ("mlp.experts", "block_sparse_moe.experts", "feed_forward.experts", "mixer.experts")
SIGMOID = {
    "afmoe", "axk1", "axk2", "bailing_hybrid", "beam", "deepseek_v3", "deepseek_v32", "dots1", "dots3_note_text",
    "exaone_moe", "flint", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "hy_v3", "hy_v4", "inkling2_text",
    "kimi_linear", "kolibri1", "laguna", "lfm2_moe", "mimo_v2_flash", "minimax_m2", "minimax_m3_vl_text",
    "nemotron_h", "solar_open",
}  # fmt: skip
"""Types whose routers weigh each expert by itself; those of the others are a softmax over all."""
OTHER_ROUTERS = {"deepseek_v4", "inkling_text", "llama4", "llama4_text", "longcat_flash", "phimoe", "zaya"}
"""Routers of other kinds (square root of softplus, shared experts among the scores, sparse mixer, a network): no reference."""


def router_probabilities(router: Any, hidden: Tensor, kind: str) -> Tensor | None:
    """[token, expert], from what the router is given; null where there is no formula here."""
    layer = router if isinstance(getattr(router, "weight", None), Tensor) else next(iter(router.children()), None)
    if kind in OTHER_ROUTERS or layer is None or not isinstance(layer.weight, Tensor) or layer.weight.ndim != 2:
        return None
    scores = linear(hidden.reshape(-1, hidden.shape[-1]).float(), layer.weight.float(), getattr(layer, "bias", None))
    return scores.sigmoid() if kind in SIGMOID else scores.softmax(dim=-1)


def expert_neurons(module: Any, arguments: tuple[Any, ...], output: Any, config: Any) -> Tensor | None:
    """[token, expert x neuron], zero where a token is not sent; null where no formula gives what the experts returned."""
    if len(arguments) != 3 or not all(isinstance(value, Tensor) for value in arguments):
        return None
    hidden, chosen, weights = arguments
    if chosen.shape != weights.shape or chosen.is_floating_point():
        return None
    up = module.gate_up_proj if hasattr(module, "gate_up_proj") else module.up_proj
    down, transposed = module.down_proj, up.shape[1] == hidden.shape[-1]
    hidden = hidden.reshape(-1, hidden.shape[-1])
    count = len(down)
    sent = torch.zeros(len(hidden), count).index_put_(
        (torch.arange(len(hidden))[:, None].expand_as(chosen), chosen.clamp(max=count - 1)),
        torch.where(chosen < count, weights, 0).float(),
        accumulate=True,
    )
    met = torch.zeros(len(hidden), count + 1, dtype=torch.bool).scatter_(
        1, chosen.clamp(max=count), src=torch.tensor(1).bool().expand_as(chosen)
    )[:, :count]
    act = ACT2FN[getattr(config, "hidden_act", None) or getattr(config, "mlp_hidden_act", None) or "silu"]
    for name in ("halves", "alternating", "clamped halves", "plain"):
        neurons, written = [], torch.zeros_like(hidden)
        for expert in range(count):
            first = hidden @ up[expert] if transposed else linear(hidden, up[expert])
            if getattr(module, "gate_up_proj_bias", None) is not None:
                first = first + module.gate_up_proj_bias[expert]
            values = _gated(first, name, act)
            if values.shape[-1] != (down.shape[1] if transposed else down.shape[2]):
                break
            values = values * met[:, expert, None]
            back = values @ down[expert] if transposed else linear(values, down[expert])
            if getattr(module, "down_proj_bias", None) is not None:
                back = back + module.down_proj_bias[expert]
            written += sent[:, expert, None] * back
            neurons.append(values)
        if len(neurons) == count and torch.allclose(written, output.reshape(written.shape), atol=1e-5, rtol=1e-4):
            return torch.cat(neurons, dim=1)
    return None


def _gated(first: Tensor, name: str, act: nn.Module) -> Tensor:
    if name == "plain":
        return act(first)
    gate, up = (first[..., ::2], first[..., 1::2]) if name == "alternating" else first.chunk(2, dim=-1)
    if name == "halves":
        return act(gate) * up
    gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)
