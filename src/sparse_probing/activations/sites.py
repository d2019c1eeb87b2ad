"""Where neurons live in an architecture, found from the module tree and not from a list of model names.

A block's MLP ends in a linear map down to the residual stream. The *input* of that map is the neuron vector, for plain and
for gated MLPs alike, so one rule serves GPT-NeoX, GPT-2 and Llama: among the linear maps of a block that write vectors as
wide as the residual stream, the down projection is the one whose input is as wide as the configuration says (or the widest,
where it says nothing).
"""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from sparse_probing.errors import InputError
from sparse_probing.records import Site

NEURONS = "mlp.neurons"
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
DECLARED_WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")
"""Where configurations state the number of neurons. Where none does, the widest map is taken."""


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear map, null for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return int(inputs), int(outputs)
    return None


def find_neuron_sites(network: nn.Module, name: str) -> tuple[Site, ...]:
    """MLP neurons of every block, in order.

    Raises:
        InputError: no stack of equal blocks, a block without exactly one down projection, or a mixture of experts.
    """
    config = getattr(network, "config", None)
    hidden = getattr(config, "hidden_size", None)
    layers = getattr(config, "num_hidden_layers", None)
    if any((getattr(config, key, None) or 0) > 1 for key in EXPERT_COUNTS):
        raise InputError(
            f"the neurons of {name!r} cannot be read: it is a mixture of experts, where a token meets some experts only; "
            "such models are not supported yet."
        )
    stacks = [
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    ]
    if hidden is None or not stacks:
        raise InputError(
            f"the neurons of {name!r} cannot be found: it has no stack of equal blocks with MLPs "
            f"(architecture {type(network).__name__})."
        )
    path, blocks = max(stacks, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    declared = next((w for key in DECLARED_WIDTHS if isinstance(w := getattr(config, key, None), int)), None)
    sites = []
    for layer, block in enumerate(blocks):
        width, found = _down_projections(block, hidden, declared)
        if len(found) != 1 or width <= hidden:
            raise InputError(
                f"the neurons of {name!r} cannot be found: block {layer} was expected to have one linear map from "
                f"{declared or 'more than ' + str(hidden)} units down to {hidden}, it has {len(found)} (widest input: {width})."
            )
        sites.append(Site(name=NEURONS, layer=layer, width=width, module_path=f"{path}.{layer}.{found[0]}"))
    return tuple(sites)


def _down_projections(block: nn.Module, hidden: int, declared: int | None) -> tuple[int, list[str]]:
    """Input width and paths of the linear maps that write to the residual stream from `declared` units, or from the most."""
    down = [
        (shape[0], path)
        for path, module in block.named_modules()
        if (shape := linear_shape(module)) is not None and shape[1] == hidden
    ]
    wanted = declared or max((width for width, _ in down), default=0)
    return wanted, [path for width, path in down if width == wanted]
