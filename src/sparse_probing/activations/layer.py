"""One layer of a traced model: which of its calls belong to attention, MLP, mixers of tokens and experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from sparse_probing.activations.blocks import Block
from sparse_probing.activations.loading import stated
from sparse_probing.activations.roles import (
    is_activation,
    is_attention,
    is_routed,
    linear_shape,
    mixes_positions,
    named_like_attention,
    named_like_cross_attention,
    named_like_norm,
)
from sparse_probing.activations.trace import Call, Trace


class Layer:
    """The calls of one layer, and which of them belong to attention, MLP, mixers and experts."""

    def __init__(self, trace: Trace, block: Block, config: Any) -> None:
        self.block, self.number = block, block.layer
        self.calls = [call for part in block.parts for call in (part, *trace.inside(part))]
        tops = {part.path for part in block.parts}
        self._around = {id(call): self._chain(call, tops) for call in self.calls}
        left = block.parts[-1].left
        width, passed = stated(config, "hidden_size"), None if left is None else int(left.shape[-1])
        side_by_side = isinstance(width, int) and passed is not None and passed % width == 0  # several streams (Qwen 4)
        self.hidden = int(width if passed is None or side_by_side else passed)
        self.has_mixer = any(mixes_positions(call.module) for call in self.calls)
        self.has_experts = any(
            is_routed(call.module) or "experts" in call.path.split(".") or hasattr(call.module, "experts")
            for call in self.calls
        )

    def _chain(self, call: Call, tops: set[str]) -> tuple[list[str], list[Call]]:
        """Names on the way from the block to a call, and the calls on that way."""
        around: list[Call] = []
        if call.path in tops and len(tops) == 1:
            return [], []
        for parent in call.parents():
            if parent.path in tops:
                around += [] if len(tops) == 1 else [parent]
                break
            around.append(parent)
        top = next((top for top in tops if call.path == top or call.path.startswith(f"{top}.")), "")
        # a part of a layer that is split into lists is known by its list's name
        start = top if len(tops) == 1 else top.rpartition(".")[0].rpartition(".")[0]
        names = call.path.removeprefix(start).strip(".").split(".")
        return names, around

    def maps(self) -> Iterator[Call]:
        """Linear maps, those of adapters (LoRA) together with the map that they adapt as one."""
        for call in self.calls:
            _, around = self._around[id(call)]
            if linear_shape(call.module) is not None and all(linear_shape(parent.module) is None for parent in around):
                yield call

    def writes(self, call: Call) -> bool:
        """Whether a linear map writes vectors as wide as the residual stream."""
        shape = linear_shape(call.module)
        return shape is not None and shape[1] == self.hidden

    def width(self, call: Call) -> int:
        """Inputs of a linear map."""
        shape = linear_shape(call.module)
        assert shape is not None
        return shape[0]

    def _in_attention(self, call: Call) -> bool:
        names, around = self._around[id(call)]
        return any(map(named_like_attention, names)) or any(is_attention(c.module) for c in around)

    def attention_maps(self) -> list[Call]:
        """Linear maps of the block's self-attention, in the order in which they end."""
        inside = [call for call in self.maps() if self._in_attention(call) and not self._in_norm(call)]
        own = [call for call in inside if not any(map(named_like_cross_attention, self._around[id(call)][0]))]
        return sorted(own, key=lambda call: call.end)

    def attention_around(self, call: Call) -> nn.Module | None:
        """The outermost attention module around a call; that of the call where none has that name or kind."""
        for parent in reversed(self._around[id(call)][1]):
            last = parent.path.rpartition(".")[2]
            if is_attention(parent.module) or named_like_attention(last):
                return parent.module
        return call.parent.module if call.parent else None

    def learns_behind(self, call: Call, attention: nn.Module | None) -> Call | None:
        """The first call behind a projection, in the same attention, whose module has a matrix; norms have vectors."""
        return next(
            (
                other
                for other in self.calls
                if other.begin > call.end
                and any(parent.module is attention for parent in self._around[id(other)][1])
                and any(p.ndim > 1 for p in other.module.parameters(recurse=False))
            ),
            None,
        )

    def _in_norm(self, call: Call) -> bool:
        return any(map(named_like_norm, self._around[id(call)][0]))

    def _elsewhere(self, call: Call) -> bool:
        """Whether a call belongs to attention, a norm, a state space or the experts that see some tokens only."""
        names, around = self._around[id(call)]
        routed = any("expert" in n.lower() and "shared" not in n.lower() for n in names) or any(
            is_routed(parent.module) for parent in around
        )
        mixes = any(mixes_positions(parent.module) for parent in around)
        return routed or mixes or self._in_attention(call) or self._in_norm(call)

    def is_shared(self, call: Call) -> bool:
        """Whether a call belongs to the experts that see every token."""
        return self.has_experts and any("shared" in name.lower() for name in self._around[id(call)][0])

    def down_projections(self) -> list[Call]:
        """Linear maps that write to the residual stream, behind one from it to as many units, or twice as many (a gate)."""
        outside = [call for call in self.maps() if not self._elsewhere(call)]
        every = list(self.maps())
        found: list[Call] = []
        for call in outside:
            width = self.width(call)
            ups = [
                up
                for up in outside
                if up.begin < call.begin
                and linear_shape(up.module) in ((self.hidden, width), (self.hidden, 2 * width))
                and self.is_shared(up) == self.is_shared(call)
            ]
            if self.writes(call) and ups:
                between = [c for c in every if ups[-1].end < c.begin < call.begin]
                if all(self._leads_up(c, width) for c in between):
                    found.append(call)
        return found

    def _leads_up(self, call: Call, width: int) -> bool:
        """Whether a linear map may stand between an MLP's up and down projections: another one up, or a low-rank addition to it."""
        inputs, outputs = self.width(call), linear_shape(call.module)
        assert outputs is not None
        return inputs == self.hidden or (outputs[1] in (width, 2 * width) and inputs < min(width, self.hidden))

    def best(self, down: Sequence[Call], declared: Sequence[int]) -> list[Call]:
        """Those of the width that is declared, else the widest; several only if they are equally good."""
        fits = [call for call in down if self.width(call) in declared]
        widest = max((self.width(call) for call in fits or down), default=0)
        return [call for call in fits or down if self.width(call) == widest]

    def activation_before(self, down: Call) -> Call | None:
        """The last activation function of that width before the down projection."""
        width = self.width(down)
        return next(
            (
                call
                for call in reversed(self.calls)
                if call.begin < down.begin
                and is_activation(call.module)
                and not self._elsewhere(call)
                and (call.entered is None or call.entered.shape[-1] == width)
                and (call.left is None or call.left.shape[-1] == width)
            ),
            None,
        )
