"""The layers of a model, found in a trace: modules of one kind that hand a residual stream on from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from sparse_probing.activations.loading import stated
from sparse_probing.activations.roles import linear_shape
from sparse_probing.activations.trace import Call, Trace
from sparse_probing.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer as it was called."""

    layer: int
    parts: tuple[Call, ...]
    """One module; several where a model keeps attentions, MLPs and norms in lists of their own (XLM)."""

    @property
    def whole(self) -> Call | None:
        """The module that the layer is, null where it is several."""
        return self.parts[0] if len(self.parts) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """All layers."""

    path: str
    """Of the list that holds the blocks; of the module around them where there is no such list."""
    n_layers: int
    blocks: tuple[Block, ...]
    """Those that a pass over text calls, in order."""


def find_stack(network: nn.Module, trace: Trace, config: Any, model: str) -> Stack:
    """The layers of a network.

    In this order: a list of as many blocks as the configuration says; one module, or several of one class, called that often
    (ALBERT, Funnel); lists of the parts of a layer side by side (XLM, Flaubert); any list of blocks.

    Raises:
        InputError: there is nothing of the kind.
    """
    layers = stated(config, "num_hidden_layers")
    calls = _Calls(trace)
    lists = [(path, m) for path, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    declared = [item for item in lists if len(item[1]) == layers]
    if not trace.observed:
        hidden = stated(config, "hidden_size")
        declared = [(path, m) for path, m in declared if hidden in _written_widths(m[0])]
    for candidates in (declared, None, lists if trace.observed else []):
        if candidates is None:
            repeated = calls.repeated(layers)
            if repeated is not None:
                return repeated
            continue
        chained = [stack for path, m in candidates if (stack := calls.chained(path, m, trace)) is not None]
        if chained:
            return max(chained, key=lambda stack: _size(stack))
        if candidates is declared and len(declared) > 1 and (beside := calls.beside(declared)) is not None:
            return beside
    raise InputError(
        f"the units of {model!r} cannot be found: it has no stack of equal blocks (architecture {type(network).__name__})."
    )


def _size(stack: Stack) -> int:
    modules = {part.module for block in stack.blocks for part in block.parts}
    return sum(p.numel() for module in modules for p in module.parameters())


def _written_widths(block: nn.Module) -> set[int]:
    return {shape[1] for module in block.modules() if (shape := linear_shape(module)) is not None}


class _Calls:
    """Calls by module, and where linear maps were called."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._of: dict[nn.Module, list[Call]] = {}
        for call in trace.calls:
            self._of.setdefault(call.module, []).append(call)

    def chained(self, path: str, blocks: nn.ModuleList, trace: Trace) -> Stack | None:
        """The list as a stack, if its members are called once each, in order, with nothing that learns in between."""
        found: list[Block] = []
        for layer, module in enumerate(blocks):
            calls = self._of.get(module, [])
            if len(calls) > 1:
                return None
            found += [Block(layer=layer, parts=(call,)) for call in calls]
        if not found or not self._in_order(found):
            return None
        if trace.observed and any(True for _ in self._between(found)):
            return None
        return Stack(path=path, n_layers=len(blocks), blocks=tuple(found))

    def repeated(self, layers: int | None) -> Stack | None:
        """Calls of one class, below one module, as many as there are layers."""
        groups: dict[tuple[type, int], list[Call]] = {}
        for call in self._trace.calls:
            if call.parent is not None and call.left is not None and any(True for _ in call.module.children()):
                groups.setdefault((type(call.module), call.parent.begin), []).append(call)
        fits = [calls for calls in groups.values() if len(calls) == layers and len(calls) > 1]
        for calls in sorted(fits, key=lambda calls: calls[0].begin):
            found = [Block(layer=layer, parts=(call,)) for layer, call in enumerate(calls)]
            if not any(True for _ in self._between(found)):
                assert calls[0].parent is not None
                return Stack(path=calls[0].parent.path, n_layers=len(calls), blocks=tuple(found))
        return None

    def beside(self, lists: Sequence[tuple[str, nn.ModuleList]]) -> Stack | None:
        """Lists of parts as layers: part by part of layer 0, then of layer 1, ..."""
        parts = [[self._of.get(module, []) for module in members] for _, members in lists]
        used = [part for part in parts if all(len(calls) == 1 for calls in part)]
        if not used:
            return None
        found = [
            Block(layer=layer, parts=tuple(sorted((part[layer][0] for part in used), key=lambda call: call.begin)))
            for layer in range(len(used[0]))
        ]
        if not self._in_order(found):
            return None
        return Stack(path=lists[0][0].rpartition(".")[0], n_layers=len(found), blocks=tuple(found))

    def _in_order(self, blocks: Sequence[Block]) -> bool:
        ends = [block.parts[-1].end for block in blocks]
        begins = [block.parts[0].begin for block in blocks]
        return all(end < begin for end, begin in zip(ends, begins[1:], strict=False))

    def _between(self, blocks: Sequence[Block]) -> Iterator[Call]:
        """Linear maps that are called after one block and before the next."""
        gaps = [(first.parts[-1].end, second.parts[0].begin) for first, second in pairwise(blocks)]
        for call in self._trace.calls:
            if linear_shape(call.module) is not None and any(a < call.begin < b for a, b in gaps):
                yield call
