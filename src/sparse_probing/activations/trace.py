"""One forward pass of a few tokens, watched at every module: what is called, in which order, and what passes through it.

Sites are found from this record: from what modules do in a pass, not from the order in which they were defined. A network without
weights (meta device) can be traced, too. Its tensors have shapes and no numbers, so it shows the order of calls and all widths,
while a trace of a loaded network also shows which values are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparse_probing.activations.roles import is_routed
from sparse_probing.activations.wrapped import evaluating, without_weights

TOKENS = 9
"""Length of the traced sequence where none is given. Odd: no width, no number of heads or of streams."""


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One call of a module during the pass."""

    path: str
    """Module path. A module that is shared by several parents has the path of the one that called it."""
    module: nn.Module
    number: int
    """How often this module was called before in the pass."""
    parent: Call | None
    begin: int
    """Events (begins and ends of calls) before it."""
    end: int = -1
    entered: Tensor | None = None
    """First tensor among its arguments: the hidden states. A copy, on the CPU, in float32."""
    left: Tensor | None = None
    """First tensor among its results."""
    arguments: tuple[Any, ...] = ()
    """As given, for mixtures of experts only."""

    def within(self, other: Call) -> bool:
        """Whether the call happened inside another one."""
        return other.begin < self.begin and self.end < other.end

    def parents(self) -> Iterator[Call]:
        """The calls around it, innermost first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent


@dataclass(slots=True, kw_only=True, eq=False)
class Trace:
    """All calls of one pass over one sequence, in the order in which they began."""

    length: int
    """Tokens of the sequence."""
    exact: bool
    """Tensors have values; else only their shapes count."""
    observed: bool = True
    """A pass was run; else the modules were listed in the order of their definition, without tensors."""
    calls: list[Call] = field(default_factory=list)
    hidden_states: tuple[Tensor, ...] = ()
    """What transformers itself reports, where it does."""

    def inside(self, call: Call) -> list[Call]:
        """Calls inside another one, in order."""
        return [other for other in self.calls if other.within(call)]


def traced(network: nn.Module, ids: Sequence[int] | None = None, device: torch.device | None = None) -> Trace:
    """Watch a network read one sequence; it is left as it was.

    Args:
        network: loaded, or on the meta device.
        ids: tokens; null for nine that are no padding.
        device: where they are sent; null for that of the first weights.

    Raises:
        Exception: whatever the network raises on them.
    """
    exact = not without_weights(network)
    ids = list(ids) if ids is not None else _ordinary_ids(network)
    trace = Trace(length=len(ids), exact=exact)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(_hooks_as_found(network))
        stack.enter_context(_watched(network, trace))
        if not exact:
            stack.enter_context(_on_shapes_alone(network))
        stack.enter_context(evaluating(network))
        result = _pass(network, torch.tensor([ids], device=device or _device(network)))
    states = getattr(result, "hidden_states", None)
    if exact and isinstance(states, tuple):
        trace.hidden_states = tuple(_kept(state, exact=True) for state in states if isinstance(state, Tensor))
    return trace


def listed(network: nn.Module) -> Trace:
    """The calls that a pass would probably make, where none can be run without weights: every module once, as defined."""
    trace = Trace(length=0, exact=False, observed=False)
    events = 0

    def visit(module: nn.Module, path: str, parent: Call | None) -> None:
        nonlocal events
        call = Call(path=path, module=module, number=0, parent=parent, begin=events)
        events += 1
        trace.calls.append(call)
        for name, child in module.named_children():
            visit(child, f"{path}.{name}" if path else name, call)
        call.end, events = events, events + 1

    visit(network, "", None)
    return trace


@contextmanager
def _hooks_as_found(network: nn.Module) -> Iterator[None]:
    """Remove the hooks by which transformers collects hidden states, which it leaves on the modules."""
    note = "_output_capturing_hooks_installed"
    before = [(module, set(module._forward_hooks), note in module.__dict__) for module in network.modules()]
    try:
        yield
    finally:
        for module, hooks, noted in before:
            for number in set(module._forward_hooks) - hooks:
                for kept in (
                    module._forward_hooks, module._forward_hooks_with_kwargs, module._forward_hooks_always_called,
                ):  # fmt: skip
                    kept.pop(number, None)
            if not noted:
                module.__dict__.pop(note, None)


def _pass(network: nn.Module, ids: Tensor) -> Any:
    """A plain pass that asks for hidden states."""
    mask = {} if ids.is_meta else {"attention_mask": torch.ones_like(ids)}
    return network(input_ids=ids, **mask, output_hidden_states=True)


def embeddings(network: Any) -> Any:
    """The table of token embeddings, null where a network has none or does not say."""
    try:
        return network.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def _ordinary_ids(network: nn.Module) -> list[int]:
    table = embeddings(network)
    size = getattr(table, "num_embeddings", None) or 2 * TOKENS
    padding = getattr(table, "padding_idx", None)
    order = torch.randperm(size, generator=torch.Generator("cpu").manual_seed(0), device="cpu").tolist()
    usual = [i for i in order if i not in (padding, 0)] or order
    return (usual * TOKENS)[:TOKENS]


def _device(network: nn.Module) -> torch.device:
    table = embeddings(network)
    first = next((network if table is None else table).parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def _watched(network: nn.Module, trace: Trace) -> Iterator[None]:
    paths: dict[nn.Module, list[str]] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(path)
    counts: dict[nn.Module, int] = {}
    open_calls: list[Call] = []
    events = 0

    def begins(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal events
        parent = open_calls[-1] if open_calls else None
        here = [
            path
            for path in paths[module]
            if parent is None or path.startswith(f"{parent.path}." if parent.path else "")
        ]
        call = Call(
            path=(here or paths[module])[0],
            module=module,
            number=counts.get(module, 0),
            parent=parent,
            begin=events,
            entered=_kept(first_tensor(arguments or named.get("hidden_states", named)), exact=trace.exact),
        )
        if is_routed(module):
            call.arguments = (*arguments, *named.values())
        counts[module] = call.number + 1
        events += 1
        open_calls.append(call)
        trace.calls.append(call)

    def ends(module: nn.Module, _arguments: Any, _named: Any, results: Any) -> None:
        nonlocal events
        while open_calls:  # calls inside that ended with an exception have no end of their own
            call = open_calls.pop()
            call.end, events = events, events + 1
            if call.module is module:
                call.left = _kept(first_tensor(results), exact=trace.exact)
                return

    with ExitStack() as stack:
        for module in paths:
            stack.callback(module.register_forward_pre_hook(begins, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(ends, with_kwargs=True).remove)
        yield


def first_tensor(values: Any) -> Tensor | None:
    """The hidden states among a module's arguments or results: the first tensor."""
    if isinstance(values, Tensor):
        return values
    candidates = list(values.values()) if isinstance(values, Mapping) else values
    if isinstance(candidates, tuple | list):
        return next((value for value in candidates if isinstance(value, Tensor)), None)
    return None


def _kept(values: Tensor | None, *, exact: bool) -> Any:
    """A copy, because some blocks add in place; shapes need none."""
    if values is None or not exact or not values.is_floating_point():
        return values
    return values.detach().to("cpu", torch.float32, copy=True)


class _Answers(TorchFunctionMode):
    """Questions about values (is any token masked? is this one padding?), answered as for a sequence without padding."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__bool__, Tensor.item, Tensor.__int__, Tensor.__float__) and args[0].is_meta:
            return True if args[0].dtype is torch.bool else 1
        if func is Tensor.__contains__ and args[0].is_meta:
            return False
        if func is Tensor.tolist and args[0].is_meta:
            return torch.ones(args[0].shape, dtype=args[0].dtype, device="cpu").tolist()
        return func(*args, **(kwargs or {}))


@contextmanager
def _on_shapes_alone(network: nn.Module) -> Iterator[None]:
    """On the meta device, a module that needs values (which expert gets which token?) gives back what is shaped like its input."""

    def lenient(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            try:
                return forward(*arguments, **named)
            except Exception:
                hidden = first_tensor(arguments or named.get("hidden_states", named))
                if hidden is None or not hidden.is_floating_point() or "." not in path:
                    raise
                return torch.empty_like(hidden)

        return run

    replaced = [(path, module) for path, module in network.named_modules() if path]
    try:
        for path, module in replaced:
            module.forward = lenient(path, module.forward)  # pyright: ignore[reportAttributeAccessIssue]
        with torch.device("meta"), _Answers():
            yield
    finally:
        for _, module in replaced:
            module.__dict__.pop("forward", None)
