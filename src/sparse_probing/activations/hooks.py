"""Read chosen sites during a forward pass, and stop as soon as the last of them was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from sparse_probing.activations.experts import Routed, expert_neurons, probabilities, routed
from sparse_probing.activations.trace import first_tensor
from sparse_probing.errors import InputError
from sparse_probing.records import Site

Take = Callable[[Site, Tensor], None]
"""Told what was read: [sequence, position, unit], on the device where it was computed."""


class _Stop(Exception):
    """Raised when every wanted site was read: later blocks and the head are not computed."""


@contextmanager
def watching(network: nn.Module, sites: Sequence[Site], take: Take) -> Iterator[None]:
    """Call `take(site, values)` for each site during the forward passes inside.

    Hooks are plain PyTorch module hooks: `register_forward_pre_hook` for what enters a module, `register_forward_hook` for
    what leaves it. They are gone afterwards, whatever happens.
    """

    def hook_of(site: Site) -> Any:
        module = network.get_submodule(site.module_path)
        if site.side in ("output", "softmax", "sigmoid"):

            def after(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
                if calls.is_turn_of(site, module):
                    values = tensor_in(outputs, site)
                    take(site, values if site.side == "output" else probabilities(values, site.side))

            return module.register_forward_hook(after)

        def before(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            if not calls.is_turn_of(site, module):
                return
            if site.side == "experts":
                take(site, expert_neurons(module, given_to(site, arguments, named)))
            else:
                take(site, tensor_in(arguments or named.get("hidden_states", named), site))

        return module.register_forward_pre_hook(before, with_kwargs=True)

    with ExitStack() as stack:
        calls = stack.enter_context(counted_calls(network, sites))
        for site in sites:
            stack.callback(hook_of(site).remove)
        yield


class CountedCalls:
    """How often shared modules were called in the current pass, which tells one layer from another."""

    def __init__(self, shared: Iterable[nn.Module]) -> None:
        self._shared = set(shared)
        self._before: dict[nn.Module, int] = {}

    def start(self) -> None:
        """A pass begins."""
        self._before = dict.fromkeys(self._shared, -1)

    def entered(self, module: nn.Module) -> None:
        """A shared module is called."""
        self._before[module] = self._before.get(module, -1) + 1

    def is_turn_of(self, site: Site, module: nn.Module) -> bool:
        """Whether the call that is going on is the site's."""
        return site.call is None or self._before.get(module, 0) == site.call


@contextmanager
def counted_calls(network: nn.Module, sites: Iterable[Site]) -> Iterator[CountedCalls]:
    """Count the calls of modules that layers share, from 0 in each pass; hooks that use the count are registered inside.

    Args:
        network: what is called once per pass.
        sites: whose modules are counted, where they are shared.
    """
    shared = {network.get_submodule(site.module_path) for site in sites if site.call is not None}
    calls = CountedCalls(shared)
    with ExitStack() as stack:
        if shared:
            stack.callback(network.register_forward_pre_hook(lambda *_: calls.start()).remove)
        for module in shared:
            stack.callback(module.register_forward_pre_hook(lambda module, _: calls.entered(module)).remove)
        yield calls


@contextmanager
def reading(network: nn.Module, sites: Sequence[Site], take: Take) -> Iterator[None]:
    """The same for one forward pass, which stops as soon as every site was seen."""
    waiting = set(sites)

    def arrived(site: Site, values: Tensor) -> None:
        take(site, values)
        waiting.discard(site)
        if not waiting:
            raise _Stop

    try:
        with watching(network, sites, arrived):
            yield
    except _Stop:
        pass


def given_to(site: Site, arguments: tuple[Any, ...], named: dict[str, Any]) -> Routed:
    """What the experts of a site are called with."""
    given = routed((*arguments, *named.values()))
    if given is None:
        raise InputError(f"the experts at {site.module_path!r} cannot be read: they were called in an unknown way.")
    return given


def tensor_in(values: Any, site: Site) -> Tensor:
    """The hidden states among a module's arguments or results: the first tensor."""
    value = first_tensor(values)
    if value is not None:
        return value
    raise InputError(
        f"module {site.module_path!r} cannot be read: its {site.side} is not a tensor, name a module within it."
    )
