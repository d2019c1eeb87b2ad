"""Where units live in an architecture, found from the module tree and not from a list of model names.

A block's MLP ends in a linear map down to the residual stream. The *input* of that map is the neuron vector, for plain and
for gated MLPs alike, so one rule serves GPT-NeoX, GPT-2 and Llama: among the linear maps of a block that write vectors as
wide as the residual stream, the down projection is the one whose input is as wide as the configuration says (or the widest,
where it says nothing). Attention ends in a linear map of its own, the last one in the module named like attention; its input
is the heads' outputs, side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS, Site

SITES = {
    NEURONS: "MLP neurons after the nonlinearity (times the gate's partner, where gated): the down projection's input",
    "mlp.pre": "MLP neurons before the nonlinearity; for gated MLPs the gate's side",
    "mlp.out": "what the MLP's down projection writes, before dropout, norm and residual addition",
    "attn.heads": "outputs of the attention heads, side by side: the output projection's input",
    "attn.out": "what the attention's output projection writes, before dropout, norm and residual addition",
    "resid.pre": "residual stream before the block",
    "resid.post": "residual stream after the block",
}
"""Names of sites and what they mean, in the order in which they are listed."""

DECLARED_WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")
"""Where configurations state the number of neurons. Where none does, the widest map is taken."""

Side = Literal["input", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSites:
    """Every place of a model that can be read."""

    model: str
    stack: str
    """Module path of the blocks."""
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
            raise InputError(self.absent[name])
        return sites


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear map, null for any other module.

    Quantised linear maps of other libraries derive from different classes, but all state `in_features` and `out_features`.
    """
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return int(inputs), int(outputs)
    inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (inputs, outputs) if isinstance(inputs, int) and isinstance(outputs, int) else None


def find_sites(network: nn.Module, model: str) -> ModelSites:
    """All sites of a network; weights are not looked at, so an empty copy on the meta device will do.

    Raises:
        InputError: no stack of equal blocks.
    """
    config = _text_config(network)
    hidden = getattr(config, "hidden_size", None)
    layers = getattr(config, "num_hidden_layers", None)
    stacks = [
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers and hidden in _written_widths(module)
    ]
    if hidden is None or not stacks:
        raise InputError(
            f"the units of {model!r} cannot be found: it has no stack of equal blocks (architecture {type(network).__name__})."
        )
    stack, blocks = max(stacks, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    search = _Search(model, config, hidden, stack)
    for layer, block in enumerate(blocks):
        search.block(layer, block)
    order = list(SITES)
    found = [site for site in search.found if site.name not in search.absent]
    absent = search.absent | {
        name: f"{model!r} has no site {name}: no block has an output projection in its attention."
        for name in SITES
        if name not in search.absent and not any(site.name == name for site in found)
    }
    return ModelSites(
        model=model,
        stack=stack,
        n_layers=len(blocks),
        found=tuple(sorted(found, key=lambda site: (order.index(site.name), site.layer))),
        absent=absent,
    )


class _Search:
    """Collects the sites of one block after the other."""

    def __init__(self, model: str, config: Any, hidden: int, stack: str) -> None:
        self.model, self.config, self.hidden, self.stack = model, config, hidden, stack
        self.declared = next((w for key in DECLARED_WIDTHS if isinstance(w := getattr(config, key, None), int)), None)
        self.found: list[Site] = []
        self.absent: dict[str, str] = {}

    def block(self, layer: int, block: nn.Module) -> None:
        self._add("resid.pre", layer, self.hidden, "", "input")
        self._add("resid.post", layer, self.hidden, "", "output")
        self._attention(layer, block)
        self._mlp(layer, block)

    def _add(self, name: str, layer: int, width: int, path: str, side: Side, heads: int | None = None) -> None:
        path = f"{self.stack}.{layer}" + (f".{path}" if path else "")
        self.found.append(Site(name=name, layer=layer, width=width, module_path=path, side=side, heads=heads))

    def _attention(self, layer: int, block: nn.Module) -> None:
        """The last linear map down to the residual stream in the module named like attention."""
        projections = [
            (path, shape[0]) for path, shape in _linear_maps(block) if shape[1] == self.hidden and _is_attention(path)
        ]
        if not projections:
            return  # some architectures mix attention with other kinds of blocks: those layers have no such site
        path, width = projections[-1]
        heads = getattr(self.config, "num_attention_heads", None)
        self._add("attn.heads", layer, width, path, "input", heads if heads and width % heads == 0 else None)
        self._add("attn.out", layer, self.hidden, path, "output")

    def _mlp(self, layer: int, block: nn.Module) -> None:
        """The linear map from as many units as the configuration says, and the activation function before it."""
        if is_mixture_of_experts(self.config, block):
            reason = "is a mixture of experts, where a token meets some experts only: its attention and residual sites can be read"
            self._no_mlp(f"the MLP neurons of {self.model!r} cannot be read: it {reason}.")
            return
        if any(isinstance(module, nn.Conv1d) for module in block.modules()):
            self._no_mlp(f"{self.model!r} has no MLP neurons: its blocks mix tokens by convolution or state space.")
            return
        down = [
            (path, shape[0])
            for path, shape in _linear_maps(block)
            if shape[1] == self.hidden and not _is_attention(path)
        ]
        width = self.declared or max((width for _, width in down), default=0)
        fits = [path for path, inputs in down if inputs == width]
        if len(fits) != 1 or width <= self.hidden:
            self._no_mlp(
                f"the MLP of {self.model!r} cannot be found: block {layer} was expected to have one linear map from "
                f"{self.declared or 'more than ' + str(self.hidden)} units down to {self.hidden}, it has {len(fits)} "
                f"(widest input: {max((inputs for _, inputs in down), default=0)})."
            )
            return
        self._add(NEURONS, layer, width, fits[0], "input")
        self._add("mlp.out", layer, self.hidden, fits[0], "output")
        activations = [path for path, module in block.named_modules() if _is_activation(path, module)]
        if len(activations) == 1:
            self._add("mlp.pre", layer, width, activations[0], "input")
        else:
            self.absent["mlp.pre"] = (
                f"{self.model!r} has no site mlp.pre: block {layer} has {len(activations)} activation modules, one was expected."
            )

    def _no_mlp(self, reason: str) -> None:
        for name in SITES:
            if name.startswith("mlp."):
                self.absent.setdefault(name, reason)


def is_mixture_of_experts(config: Any, block: nn.Module) -> bool:
    """Whether the configuration counts experts, or the block has a module that is called one."""
    settings = config.to_dict()
    settings |= settings.get("ffn_config") or {}
    counts = [value for key, value in settings.items() if "experts" in key and type(value) is int]
    return any(count > 1 for count in counts) or any(
        "expert" in type(module).__name__.lower() for module in block.modules()
    )


def _text_config(network: nn.Module) -> Any:
    """The configuration of the part that reads text: models that also see images nest it."""
    config: Any = network.config
    return config.get_text_config()


def _linear_maps(block: nn.Module) -> Iterator[tuple[str, tuple[int, int]]]:
    for path, module in block.named_modules():
        shape = linear_shape(module)
        if shape is not None:
            yield path, shape


def _written_widths(blocks: nn.ModuleList) -> set[int]:
    return {shape[1] for _, shape in _linear_maps(blocks[0])} if len(blocks) else set()


def _is_attention(path: str) -> bool:
    return any("att" in part.lower() for part in path.split("."))


def _is_activation(path: str, module: nn.Module) -> bool:
    """A module without parts and parameters outside of attention that is neither dropout nor identity nor a norm."""
    if type(module).__module__ == "transformers.activations":
        return not _is_attention(path)
    passive = isinstance(module, nn.Dropout | nn.Identity) or "norm" in type(module).__name__.lower()
    leaf = path and not any(True for _ in module.children()) and not any(True for _ in module.parameters())
    return bool(leaf) and not passive and not _is_attention(path)
