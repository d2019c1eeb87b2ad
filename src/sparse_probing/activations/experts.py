"""Mixtures of experts: the router's probabilities, and the neurons of each expert on the tokens that it is sent.

transformers keeps the weights of all experts in two arrays and computes them in one call, so no module's input or output is the
neurons. They are computed here from what that call is given: tokens, which experts each token is sent to, and weights.
`confirmed` compares the sum that they lead to with what the call returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparse_probing.activations.loading import stated
from sparse_probing.activations.roles import is_routed
from sparse_probing.activations.trace import Call
from sparse_probing.records import Side

ROUTER = "moe.router"
EXPERT_NEURONS = "moe.experts.neurons"
EXPERT_SITES = {
    ROUTER: "probability of each expert, from the router's scores",
    EXPERT_NEURONS: "neurons of all experts side by side; zero on the tokens that an expert is not sent",
}
ROUNDING = 2e-3
"""Relative error of a sum over experts in float32; lower precisions are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routed:
    """What a call of experts is given."""

    hidden: Float[Tensor, "token hidden"]
    experts: Int[Tensor, "token chosen"]
    """Experts that each token is sent to."""
    weights: Float[Tensor, "token chosen"]


def routed(arguments: Sequence[Any]) -> Routed | None:
    """The arguments of a call of experts, null where they are others."""
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if len(tensors) != 3 or tensors[0].ndim < 2:
        return None
    hidden, experts, weights = tensors
    if experts.is_floating_point() or not weights.is_floating_point() or experts.shape != weights.shape:
        return None
    return Routed(hidden=hidden.reshape(-1, hidden.shape[-1]), experts=experts, weights=weights)


def shape_of(module: Any) -> tuple[int, int] | None:
    """(experts, neurons of each) of a module that holds all experts in arrays, null for any other."""
    down = getattr(module, "down_proj", None)
    if not is_routed(module) or not isinstance(down, Tensor) or down.ndim != 3 or not hasattr(module, "is_transposed"):
        return None
    return int(down.shape[0]), int(down.shape[1] if module.is_transposed else down.shape[2])


@torch.no_grad()
def expert_neurons(module: Any, given: Routed) -> Float[Tensor, "token unit"]:
    """Neurons of all experts, expert after expert; zero on the tokens that an expert is not sent.

    Args:
        module: one with a `shape_of`.
        given: what it is called with.
    """
    shape = shape_of(module)
    assert shape is not None
    experts, neurons = shape
    result = given.hidden.new_zeros(len(given.hidden), experts * neurons)
    for expert in given.experts.unique().tolist():
        if expert >= experts:  # no expert of this device
            continue
        tokens = (given.experts == expert).any(dim=1).nonzero()[:, 0]
        values = given.hidden[tokens]
        if module.has_gate:
            values = module._apply_gate(_mapped(module, "gate_up_proj", expert, values))
        else:
            values = module.act_fn(_mapped(module, "up_proj", expert, values))
        result[tokens, expert * neurons : (expert + 1) * neurons] = values
    return result


def changed_output(
    module: Any,
    given: Routed,
    output: Tensor,
    units: Int[Tensor, " unit"],
    new: Float[Tensor, "token unit"],
    where: Tensor,
) -> Tensor:
    """What the experts write when some neurons have other values; the down projection is linear, so the difference is added.

    Args:
        module: one with a `shape_of` and without a norm behind each expert.
        given: what it was called with.
        output: what it gave.
        units: as numbered by `expert_neurons`.
        new: their values; those of tokens that an expert is not sent change nothing.
        where: [token] of booleans.
    """
    shape = shape_of(module)
    assert shape is not None
    old = expert_neurons(module, given)[:, units]
    result = output.reshape(-1, output.shape[-1]).clone()
    for column, unit in enumerate(units.tolist()):
        expert, neuron = divmod(unit, shape[1])
        share = (given.weights * (given.experts == expert)).sum(dim=1) * where
        written = module.down_proj[expert]
        direction = written[neuron] if module.is_transposed else written[:, neuron]
        result += ((new[:, column] - old[:, column]) * share)[:, None].to(result) * direction.to(result)
    return result.reshape(output.shape)


def probabilities(scores: Float[Tensor, "... expert"], link: Side) -> Float[Tensor, "... expert"]:
    """The router's scores as probabilities, float32."""
    scores = scores.float()
    return scores.sigmoid() if link == "sigmoid" else scores.softmax(dim=-1)


def expert_sites(calls: Sequence[Call], config: Any) -> Iterator[tuple[str, int, Call, Side]]:
    """(name, width, call, side) of the expert sites in a layer; where values are known, only what they confirm.

    Args:
        calls: of the layer, in order.
        config: of the text model.
    """
    for call in calls:
        shape, given = shape_of(call.module), routed(call.arguments)
        if shape is None or given is None:
            continue
        scored = [c for c in calls if c.end < call.begin and c.left is not None and c.left.shape[-1] == shape[0]]
        outermost = [c for c in scored if not any(c.within(other) for other in scored)]
        router = outermost[-1] if outermost else None
        link = None if router is None else _link(router, given, config)
        if router is not None and link is not None:
            yield ROUTER, shape[0], router, link
        if confirmed(call, given) is not False:
            yield EXPERT_NEURONS, shape[0] * shape[1], call, "experts"
        return


@torch.no_grad()
def confirmed(call: Call, given: Routed) -> bool | None:
    """Whether the neurons, sent down and weighted, give what the call returned; null where there are no exact values."""
    module: Any = call.module
    if (
        call.left is None
        or call.left.is_meta
        or module.down_proj.dtype is not torch.float32
        or module.has_post_expert_norm
    ):
        return None
    shape = shape_of(module)
    assert shape is not None
    neurons = expert_neurons(module, given).unflatten(1, shape)
    total = torch.zeros_like(given.hidden)
    for expert in range(shape[0]):
        share = (given.weights * (given.experts == expert)).sum(dim=1, keepdim=True)
        total += share * _mapped(module, "down_proj", expert, neurons[:, expert])
    wanted = call.left.reshape(total.shape).to(total.device)
    return bool((total - wanted).abs().max() <= ROUNDING * wanted.abs().max())


def _link(router: Call, given: Routed, config: Any) -> Side | None:
    """Softmax or sigmoid: the one whose probabilities the chosen experts' weights are proportional to, token by token."""
    if router.left is None or router.left.is_meta or given.experts.shape[-1] < 2:
        return "sigmoid" if stated(config, "scoring_func") == "sigmoid" else "softmax"
    scores = router.left.reshape(-1, router.left.shape[-1])
    weights, experts = given.weights.float().cpu(), given.experts.cpu()
    links: tuple[Side, ...] = ("softmax", "sigmoid")
    for link in links:
        chosen = probabilities(scores, link).gather(1, experts)
        shares = (values / values.sum(dim=1, keepdim=True) for values in (chosen, weights))
        if torch.allclose(*shares, rtol=0, atol=5e-3):
            return link
    return None


def _mapped(module: Any, name: str, expert: int, values: Tensor) -> Tensor:
    weight = getattr(module, name)[expert]
    bias = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
    return nn.functional.linear(values, weight.T if module.is_transposed else weight, bias)
