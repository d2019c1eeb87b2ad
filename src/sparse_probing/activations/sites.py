"""Where units live in an architecture, found from what its modules do in one pass over a few tokens, not from a list of names.

A block's MLP ends in a linear map down to the residual stream. The *input* of that map is the neuron vector, for plain and for
gated MLPs alike, so one rule serves GPT-NeoX, GPT-2 and Llama: of the linear maps that a block calls outside of attention and state
space, and that write vectors as wide as the residual stream, the down projection has the width that the configuration states, or
else the widest input. Attention ends in a linear map of its own, the last one that it calls; its input is the heads' outputs, side
by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparse_probing.activations.blocks import Block, find_stack
from sparse_probing.activations.experts import EXPERT_SITES, expert_sites
from sparse_probing.activations.layer import Layer
from sparse_probing.activations.loading import brief, stated
from sparse_probing.activations.roles import heads_of
from sparse_probing.activations.trace import Call, Trace, listed, traced
from sparse_probing.activations.wrapped import without_weights
from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS, Side, Site

SHARED = "mlp.shared.neurons"
SITES = {
    NEURONS: "MLP neurons after the nonlinearity (times the gate's partner, where gated): the down projection's input",
    "mlp.pre": "MLP neurons before the nonlinearity; for gated MLPs the gate's side",
    "mlp.out": "what the MLP's down projection writes, before dropout, norm and residual addition",
    SHARED: "neurons of the experts that see every token, in a mixture of experts",
    **EXPERT_SITES,
    "attn.heads": "outputs of the attention heads, side by side: the output projection's input",
    "attn.out": "what the attention's output projection writes, before dropout, norm and residual addition",
    "resid.pre": "residual stream before the block",
    "resid.post": "residual stream after the block",
}
"""Names of sites and what they mean, in the order in which they are listed."""
OF_EXPERTS = (SHARED, *EXPERT_SITES)
"""Sites of mixtures of experts only."""

DECLARED_WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")
"""Where configurations state the number of neurons. Where none does, the widest map is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSites:
    """Every place of a model that can be read."""

    model: str
    stack: str
    """Module path of the blocks."""
    blocks: tuple[str, ...]
    """Module path of each layer, one module each; empty where layers share a module or consist of several."""
    n_layers: int
    found: tuple[Site, ...]
    absent: dict[str, str]
    """Site name -> why this model has none."""

    def named(self, name: str) -> tuple[Site, ...]:
        """All layers of one site, in order.

        Raises:
            InputError: the model has no such site.
        """
        sites = tuple(site for site in self.found if site.name == name)
        if not sites:
            raise InputError(self.absent.get(name, f"{self.model!r} is no mixture of experts: it has no site {name}."))
        return sites


def find_sites(network: nn.Module, model: str, *, trace: Trace | None = None) -> ModelSites:
    """All sites of a network, from a pass over a few tokens; without weights (meta device), from shapes alone.

    Args:
        network: the base model, without head.
        model: its name, for messages.
        trace: of a pass over the network; null to make one.

    Raises:
        InputError: no stack of equal blocks.
    """
    config = _text_config(network, model)
    trace = trace or trace_network(network, model)
    stack = find_stack(network, trace, config, model)
    search = _Search(model, config, trace, stack.n_layers)
    for block in stack.blocks:
        search.block(block)
    wholes = [block.whole for block in stack.blocks]
    separate = len({id(call.module) for call in wholes if call}) == stack.n_layers
    return ModelSites(
        model=model,
        stack=stack.path,
        blocks=tuple(call.path for call in wholes if call) if separate else (),
        n_layers=stack.n_layers,
        found=search.sorted(),
        absent=search.reasons(),
    )


def trace_network(
    network: nn.Module,
    model: str,
    *,
    ids: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> Trace:
    """A trace of a network; without weights, and where no pass is possible without them, its modules as they were defined.

    Args:
        network: the base model, without head.
        model: its name, for messages.
        ids: tokens to read; null for some that are no padding.
        device: where they are sent; null for that of the first weights.

    Raises:
        InputError: a model that does not read text, has no stack of equal blocks, or cannot be run.
    """
    config = _text_config(network, model)
    try:
        return traced(network, ids, device)
    except MemoryError:
        raise
    except Exception as error:
        modules = listed(network)
        find_stack(network, modules, config, model)
        if without_weights(network):
            return modules  # what the pass needs beyond shapes will be there with the weights
        raise InputError(f"model {model!r} cannot read a text: {brief(error)}.") from None


def _text_config(network: nn.Module, model: str) -> Any:
    """The configuration of the part that reads text: models that also see images nest it."""
    reads = getattr(network, "main_input_name", "input_ids")
    if reads != "input_ids":
        raise InputError(f"model {model!r} reads {reads}, not text: name a language model or a text encoder.")
    config: Any = network.config
    return config.get_text_config()


class _Search:
    """Collects the sites of one block after the other."""

    def __init__(self, model: str, config: Any, trace: Trace, n_layers: int) -> None:
        self.model, self.config, self.trace, self.n_layers = model, config, trace, n_layers
        self.found: list[Site] = []
        self.why: dict[str, list[str]] = {}
        """Site name -> reasons why a layer has none, in the order of layers."""
        self.mixture = False
        """Some layer has experts."""

    def block(self, block: Block) -> None:
        layer = Layer(self.trace, block, self.config)
        self._residual(layer)
        self._attention(layer)
        self._mlp(layer)
        self._experts(layer)

    def sorted(self) -> tuple[Site, ...]:
        order = list(SITES)
        return tuple(sorted(self.found, key=lambda site: (order.index(site.name), site.layer)))

    def reasons(self) -> dict[str, str]:
        here = {site.name for site in self.found}
        return {
            name: next(iter(self.why.get(name, [])), f"{self.model!r} has no site {name}.")
            for name in SITES
            if name not in here and (name not in OF_EXPERTS or self.mixture)
        }

    def _add(self, name: str, layer: int, width: int, call: Call, side: Side, heads: int | None = None) -> None:
        values = call.entered if side in ("input", "experts") else call.left
        if values is not None and not self._per_token(values.shape):
            what = (
                f"{call.path} passes an array of shape {tuple(values.shape)} for one text of {self.trace.length} tokens"
            )
            self._no((name,), f"site {name} of {self.model!r} cannot be read: {what}, not one vector per token.")
            return
        shared = self.trace.observed and sum(other.module is call.module for other in self.trace.calls) > 1
        self.found.append(
            Site(
                name=name,
                layer=layer,
                width=width,
                module_path=call.path,
                side=side,
                heads=heads,
                call=call.number if shared else None,
            )
        )

    def _no(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            self.why.setdefault(name, []).append(reason)

    def _residual(self, layer: Layer) -> None:
        whole = layer.block.whole
        if whole is None:
            what = (
                "keeps attention, MLP and norms in separate lists: no module's input or output is the residual stream"
            )
            self._no(("resid.pre", "resid.post"), f"the residual stream of {self.model!r} cannot be read: it {what}.")
            return
        ends: tuple[tuple[str, Side, Tensor | None], ...] = (
            ("resid.pre", "input", whole.entered),
            ("resid.post", "output", whole.left),
        )
        for name, side, values in ends:
            if values is None:
                if not self.trace.observed:
                    self._add(name, layer.number, layer.hidden, whole, side)
                continue
            if self._positions_last(values.shape):
                what = f"{whole.path} passes positions last, shape {tuple(values.shape)}"
                self._no((name,), f"site {name} of {self.model!r} cannot be read: {what}.")
            else:
                self._add(name, layer.number, values.shape[-1], whole, side)

    def _per_token(self, shape: Sequence[int]) -> bool:
        """One vector per token; some models pad sequences by themselves."""
        tokens, length = list(shape[:-1]), self.trace.length
        return tokens in ([length], [length, 1]) or (len(tokens) == 2 and tokens[0] == 1 and tokens[1] >= length)

    def _positions_last(self, shape: Sequence[int]) -> bool:
        """SqueezeBERT keeps [sequence, width, position]."""
        return shape[-1] == self.trace.length and stated(self.config, "hidden_size") in shape[:-1]

    def _attention(self, layer: Layer) -> None:
        """The last linear map that attention calls: nothing that learns comes behind it, so it is what attention returns."""
        projections = [call for call in layer.attention_maps() if layer.writes(call)]
        around = {layer.attention_around(call) for call in projections}
        if len(around) != 1:  # some architectures mix attention with other kinds of blocks
            what = "no block has an output projection in its attention"
            if around:
                what = f"block {layer.number} has {len(around)} attentions"
            self._no(("attn.heads", "attn.out"), f"{self.model!r} has no attention sites: {what}.")
            return
        last, root = projections[-1], around.pop()
        width = layer.width(last)
        behind = layer.learns_behind(last, root)
        if behind is not None:
            what = f"attention in block {layer.number} ends in {behind.path}, which is no linear map"
            self._no(("attn.heads", "attn.out"), f"{self.model!r} has no attention sites: {what}.")
            return
        heads, fits = (None, True) if root is None else heads_of(root, width, self.config)
        if fits:
            self._add("attn.heads", layer.number, width, last, "input", heads)
        else:
            what = f"what enters {last.path} is not the outputs of its heads side by side"
            self._no(("attn.heads",), f"{self.model!r} has no site attn.heads: {what}.")
        self._add("attn.out", layer.number, layer.hidden, last, "output")

    def _mlp(self, layer: Layer) -> None:
        """The linear map down from as many units as the configuration says, and the activation function before it."""
        names = (NEURONS, "mlp.out", "mlp.pre")
        down = layer.down_projections()
        plain = [call for call in down if not layer.is_shared(call)]
        best = layer.best(plain, self._declared(layer.number))
        if len(best) != 1:
            self._no(names, self._no_mlp(layer, plain, len(best)))
        else:
            self._add(NEURONS, layer.number, layer.width(best[0]), best[0], "input")
            self._add("mlp.out", layer.number, layer.hidden, best[0], "output")
            activation = layer.activation_before(best[0])
            if activation is None:
                what = f"no module of block {layer.number} is the activation function of its MLP, which calls a plain function"
                self._no(("mlp.pre",), f"{self.model!r} has no site mlp.pre: {what}.")
            else:
                self._add("mlp.pre", layer.number, layer.width(best[0]), activation, "input")
        shared = layer.best([call for call in down if layer.is_shared(call)], ())
        if len(shared) == 1:
            self._add(SHARED, layer.number, layer.width(shared[0]), shared[0], "input")

    def _no_mlp(self, layer: Layer, plain: Sequence[Call], best: int) -> str:
        if layer.has_experts:
            what = "is a mixture of experts, where a token meets some experts only"
            return (
                f"{self.model!r} has no site {NEURONS}: it {what}; the sites of experts are called moe.* and {SHARED}."
            )
        if layer.has_mixer and not plain:
            return f"{self.model!r} has no MLP neurons: its blocks mix tokens by convolution or state space."
        return (
            f"the MLP of {self.model!r} cannot be found: block {layer.number} was expected to have one linear map from more units "
            f"down to {layer.hidden}, after one up to as many, it has {best} "
            f"(widest input: {max((layer.width(call) for call in plain), default=0)})."
        )

    def _declared(self, layer: int) -> tuple[int, ...]:
        """Numbers of neurons that the configuration states for a layer."""
        widths: list[int] = []
        for key in DECLARED_WIDTHS:
            value = stated(self.config, key)
            if isinstance(value, list | tuple) and len(value) == self.n_layers:
                value = value[layer]
            widths += [value] if isinstance(value, int) else []
        return tuple(widths)

    def _experts(self, layer: Layer) -> None:
        if not layer.has_experts:
            return
        self.mixture = True
        self._no((SHARED,), f"{self.model!r} has no site {SHARED}: no expert sees every token.")
        what = "its implementation does not show which tokens an expert is sent"
        self._no(tuple(EXPERT_SITES), f"the experts of {self.model!r} cannot be read: {what}.")
        for name, width, call, side in expert_sites(layer.calls, self.config):
            self._add(name, layer.number, width, call, side)
