"""Sites compared with independent computations on one traced pass: what `sprobe sites --check` shows.

The search says where units live. Here the numbers say whether that is so: a residual stream is a hidden state that transformers
reports; a projection is the linear map that its weights say, and its output is what the residual stream gains; the activation
function's output (times one other linear map's, where gated) is what enters the down projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from sparse_probing.activations.experts import confirmed, routed
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.roles import linear_shape, named_like_norm
from sparse_probing.activations.self_check import call_of, near, reported
from sparse_probing.activations.trace import Call, Trace, traced
from sparse_probing.records import NEURONS, Site


def confirmed_sites(model: LoadedModel) -> frozenset[Site]:
    """Sites that an independent computation on the model's own values confirms.

    Args:
        model: loaded; it reads a few tokens.
    """
    trace = traced(model.network, device=model.device)
    written = {
        (site.module_path, site.call)
        for site in model.sites.found
        if site.side == "output" and not site.name.startswith("resid.") and _is_written(model, trace, site)
    }
    neurons = {site.layer: site for site in model.sites.found if site.name == NEURONS}
    return frozenset(
        site
        for site in model.sites.found
        if (site.module_path, site.call) in written
        or (site.name.startswith("resid.") and reported(model, trace, site))
        or (site.name == "mlp.pre" and _is_activated(model, trace, site, neurons[site.layer]))
        or (site.side == "experts" and _is_routed_sum(model, trace, site))
    )


def _is_routed_sum(model: LoadedModel, trace: Trace, site: Site) -> bool:
    """Whether the experts' neurons, sent down and weighted, are what the experts write; compared in float32 only."""
    call = call_of(model, trace, site)
    given = None if call is None else routed(call.arguments)
    return call is not None and given is not None and confirmed(call, given) is True


def _is_activated(model: LoadedModel, trace: Trace, site: Site, neurons: Site) -> bool:
    """Whether what leaves the activation function is the neurons, or is with another map's output, or half of one, as a factor."""
    activation, down = (call_of(model, trace, s) for s in (site, neurons))
    if activation is None or down is None or activation.left is None or down.entered is None:
        return False
    after, wanted = activation.left, down.entered
    if near(model, after, wanted):
        return True
    before = (
        c for c in trace.calls if c.end < down.begin and c.left is not None and linear_shape(c.module) is not None
    )
    for call in before:
        assert call.left is not None
        for part in call.left.split(site.width, dim=-1):
            if part.shape == after.shape == wanted.shape and near(model, after * part, wanted):
                return True
    return False


def _is_written(model: LoadedModel, trace: Trace, site: Site) -> bool:
    """Whether a projection is the linear map that its weights say, and its output is added to the residual stream."""
    call = call_of(model, trace, site)
    if call is None or call.entered is None or call.left is None or linear_shape(call.module) is None:
        return False
    return _is_linear(model, call) and _joins(model, trace, call)


def _is_linear(model: LoadedModel, call: Call) -> bool:
    """The map's weights applied to what enters it give what leaves it."""
    weight, bias = getattr(call.module, "weight", None), getattr(call.module, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point() or weight.is_meta:
        return False
    assert call.entered is not None
    assert call.left is not None
    weight = weight.detach().to("cpu", torch.float32)
    weight = weight if weight.shape[1] == call.entered.shape[-1] and isinstance(call.module, nn.Linear) else weight.T
    written = call.entered @ weight.T + (0 if bias is None else bias.detach().to("cpu", torch.float32))
    return near(model, written, call.left)


def _joins(model: LoadedModel, trace: Trace, call: Call) -> bool:
    """Whether what a projection writes is added to the residual stream in its block.

    Among the vectors that pass between the block's modules, two must differ by the projection's output (or that output after a norm
    of its own), alone or beside the output of one other module, times constants.
    """
    block = next((c for c in trace.calls if c.path in model.sites.blocks and call.within(c)), None)
    if block is None or block.entered is None or block.left is None or call.left is None:
        return False
    shape, left = block.entered.shape, call.left
    inside = [c for c in trace.inside(block) if c.left is not None and c.left.shape == shape and not call.within(c)]
    written = next(
        (
            c.left
            for c in inside
            if named_like_norm(type(c.module).__name__) and c.entered is not None and torch.equal(c.entered, left)
        ),
        left,
    )
    if written is None or written.shape != shape:
        return False
    streams = _distinct([block.entered, *(c.entered for c in inside if c.entered is not None), block.left], shape)
    others = [c.left for c in inside if c is not call and c.left is not None]
    return _explained([b - a for a, b in combinations(streams, 2)], written, others)


def _distinct(tensors: Sequence[Tensor], shape: torch.Size) -> list[Tensor]:
    found: list[Tensor] = []
    for tensor in tensors:
        if tensor.shape == shape and not any(torch.equal(tensor, other) for other in found):
            found.append(tensor)
    return found


def _explained(differences: Sequence[Tensor], written: Tensor, others: Sequence[Tensor]) -> bool:
    """Whether a difference is a multiple of what was written, alone or with a multiple of another output."""
    d = torch.stack([difference.double().flatten() for difference in differences])
    w = written.double().flatten()
    size, along = w @ w, d @ w
    alone = along / size
    ok = _small((d * d).sum(1) - alone * along, alone, size)
    for other in others:
        o = other.double().flatten()
        both, own = w @ o, o @ o
        determinant = size * own - both**2
        if determinant <= 1e-9 * size * own:
            continue
        beside = d @ o
        first, second = (own * along - both * beside) / determinant, (size * beside - both * along) / determinant
        ok |= _small((d * d).sum(1) - first * along - second * beside, first, size)
    return bool(ok.any())


def _small(missed: Tensor, factor: Tensor, size: Tensor) -> Tensor:
    """Squared error of a fit against the squared size of the part that matters."""
    return (factor.abs() > 1e-3) & (missed <= 1e-6 * size * factor**2)
