"""What a module is, by its class, its parts and its name: linear map, attention, activation, state space, experts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sparse_probing.activations.loading import stated

HEAD_COUNTS = ("num_heads", "num_attention_heads", "num_v_heads", "n_heads", "n_head", "num_attn_heads", "heads")
HEAD_SIZES = (
    "v_head_dim", "head_v_dim", "value_head_dim", "head_dim", "attention_head_size", "head_size", "key_value_proj_dim",
    "dim_head", "d_head",
)  # fmt: skip
"""Names under which attention modules keep the number of their heads and the size of one head's output."""


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear map, null for any other module.

    Quantised linear maps and adapters (LoRA) of other libraries derive from different classes, but all state `in_features` and
    `out_features`.
    """
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return int(inputs), int(outputs)
    inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (inputs, outputs) if isinstance(inputs, int) and isinstance(outputs, int) else None


def named_like_attention(part: str) -> bool:
    """`self_attn`, `attention`, `SelfAttention`; not `post_attention_layernorm`."""
    return "att" in part.lower() and not named_like_norm(part)


def named_like_norm(part: str) -> bool:
    """`post_attention_layernorm`: the linear maps that some norms hold belong to no attention and no MLP."""
    return "norm" in part.lower()


def named_like_cross_attention(part: str) -> bool:
    """`crossattention`, `encoder_attn`, `EncDecAttention`: it reads another text."""
    return "cross" in part.lower() or part in ("encoder_attn", "EncDecAttention")


def is_attention(module: nn.Module) -> bool:
    """By its class: blocks of hybrid models call attention, state space and MLP alike `mixer`."""
    kind = type(module).__name__.lower()
    return "attention" in kind and not any(word in kind for word in ("layer", "block", "norm"))


def is_activation(module: nn.Module) -> bool:
    """A function of each number by itself: a module of `transformers.activations`, or one without parts and parameters.

    Dropout, identity and rounding change nothing here, norms look at a whole vector.
    """
    if type(module).__module__ == "transformers.activations":
        return True
    kind = type(module).__name__
    passive = isinstance(module, nn.Dropout | nn.Identity) or named_like_norm(kind) or "quant" in kind.lower()
    return not passive and not any(True for _ in module.children()) and not any(True for _ in module.parameters())


def mixes_positions(module: nn.Module) -> bool:
    """Whether a module holds a convolution over positions or a state space: its linear maps are those of a mixer, not of an MLP."""
    return any(
        (
            isinstance(part, nn.Conv1d | nn.Conv2d) and max(part.kernel_size) > 1
        )  # of width 1: a linear map (SqueezeBERT)
        or any(hasattr(part, name) for name in ("A_log", "dt_bias"))
        for part in module.modules()
    )


def is_routed(module: nn.Module) -> bool:
    """One or several experts that see only the tokens sent to them."""
    kind, down = type(module).__name__.lower(), getattr(module, "down_proj", None)
    stacked = isinstance(down, Tensor) and down.ndim == 3
    return "expert" in kind and (stacked or "shared" not in kind)


def heads_of(attention: nn.Module, width: int, config: Any) -> tuple[int | None, bool]:
    """Number of heads whose outputs, side by side, are as wide as `width`, and whether it can be that at all.

    Args:
        attention: with its parts; layers of one model may differ (linear and softmax attention).
        width: inputs of the output projection.
        config: of the text model.

    Returns:
        The number, null where the module does not tell; false where it tells of heads that do not make that width: the output
        projection is of two maps then, and what enters the second is no head's output (DeepSeek V4).
    """
    total = stated(config, "num_attention_heads")
    sized, fits = False, True
    for module in attention.modules():
        sizes = [n for name in HEAD_SIZES if isinstance(n := getattr(module, name, None), int) and n > 0]
        counts = [n for name in HEAD_COUNTS if isinstance(n := getattr(module, name, None), int) and n > 0]
        fits &= not (sizes and counts)
        sized |= bool(sizes)
        counts += [total] if isinstance(total, int) else []
        for count in counts:
            if any(count * size == width for size in sizes):
                return count, True
    alone = not sized and isinstance(total, int) and total > 0 and width % total == 0
    return (total if alone else None), fits
