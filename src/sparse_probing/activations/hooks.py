"""Read chosen sites during a forward pass, and stop as soon as the last of them was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

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
        if site.side == "output":
            return module.register_forward_hook(lambda _module, _inputs, outputs: take(site, tensor_in(outputs, site)))

        def before(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            take(site, tensor_in(arguments or named.get("hidden_states", named), site))

        return module.register_forward_pre_hook(before, with_kwargs=True)

    with ExitStack() as stack:
        for site in sites:
            stack.callback(hook_of(site).remove)
        yield


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


def tensor_in(values: Any, site: Site) -> Tensor:
    """The hidden states among a module's arguments or results: the first tensor."""
    candidates = [values] if isinstance(values, Tensor) else values
    candidates = list(candidates.values()) if isinstance(candidates, Mapping) else list(candidates or ())
    for value in candidates:
        if isinstance(value, Tensor):
            return value
    raise InputError(
        f"module {site.module_path!r} cannot be read: its {site.side} is not a tensor, name a module within it."
    )
