"""Where neurons live in an architecture, found from the module tree and not from a list of model names.

A block's MLP ends in a linear map down to the residual stream. The *input* of that map is the neuron vector, for plain and
for gated MLPs alike, so one rule serves GPT-NeoX, GPT-2 and Llama: among the linear maps of a block that write vectors as
wide as the residual stream, the down projection is the one with the widest input.
"""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from sparse_probing.errors import InputError
from sparse_probing.records import Site

NEURONS = "mlp.neurons"


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
        InputError: no stack of equal blocks, or a block without exactly one down projection.
    """
    config = getattr(network, "config", None)
    hidden = getattr(config, "hidden_size", None)
    layers = getattr(config, "num_hidden_layers", None)
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
    return tuple(_block_site(block, f"{path}.{layer}", layer, hidden, name) for layer, block in enumerate(blocks))


def _block_site(block: nn.Module, path: str, layer: int, hidden: int, name: str) -> Site:
    down = [
        (shape[0], child_path)
        for child_path, child in block.named_modules()
        if (shape := linear_shape(child)) is not None and shape[1] == hidden
    ]
    widest = max((width for width, _ in down), default=0)
    found = [child_path for width, child_path in down if width == widest]
    if len(found) != 1 or widest <= hidden:
        raise InputError(
            f"the neurons of {name!r} cannot be found: block {layer} has {len(found)} linear maps of width {widest} down to "
            f"{hidden}, one wider than the residual stream was expected (mixture-of-experts models are not supported yet)."
        )
    return Site(name=NEURONS, layer=layer, width=widest, module_path=f"{path}.{found[0]}")
