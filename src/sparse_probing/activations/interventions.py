"""Change chosen units during a forward pass, through hooks that leave no trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparse_probing.activations.experts import changed_output
from sparse_probing.activations.hooks import CountedCalls, counted_calls, given_to, tensor_in
from sparse_probing.errors import InputError
from sparse_probing.records import Site, task_rng


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Intervention:
    """New values for some units of one layer."""

    site: Site
    units: tuple[int, ...]
    values: Float[np.ndarray, "sample unit"]
    """One sample: that value everywhere (zero, mean, clamp). Several: each position of a sequence draws one of them, all units
    from the same sample (resampling)."""
    seed: int = 0
    """Of the draws; the same for the same sequence, whatever the batch."""

    def __post_init__(self) -> None:
        """Check units and values.

        Raises:
            InputError: a unit that the layer does not have, no unit, or a value that is not finite.
        """
        wrong = [unit for unit in self.units if not 0 <= unit < self.site.width]
        if wrong or not self.units:
            raise InputError(
                f"unit {wrong[0] if wrong else '(none)'} cannot be changed: layer {self.site.layer} has units 0 to "
                f"{self.site.width - 1} at {self.site.name}."
            )
        if not len(self.values) or not np.isfinite(self.values).all():
            raise InputError(
                "a unit can only be set to a finite number (nan or infinity came): give a number such as 0 or 8."
            )

    def new(
        self, sequences: Int[np.ndarray, " sequence"], longest: int
    ) -> Float[np.ndarray, "#sequence #position unit"]:
        """The values for a batch.

        Args:
            sequences: number of each sequence of the batch, which seeds its draws.
            longest: positions of the batch.
        """
        if len(self.values) == 1:
            return self.values[None]
        draws = [
            task_rng(self.seed, "resample", s).integers(len(self.values), size=longest) for s in sequences.tolist()
        ]
        return self.values[np.stack(draws)]


@contextmanager
def intervening(
    network: nn.Module,
    interventions: Sequence[Intervention],
    sequences: Int[np.ndarray, " sequence"],
    where: Tensor | None = None,
) -> Iterator[None]:
    """Forward passes inside see the changed units; afterwards the network is what it was, whatever happened.

    Args:
        network: the module that the sites' paths start from (`LoadedModel.network`).
        interventions: may be of several layers and sites; a unit that is named twice takes the later value.
        sequences: number of each sequence of the batch that is passed.
        where: [sequence, position] of booleans: only there; null for everywhere.
    """
    with ExitStack() as stack:
        calls = stack.enter_context(counted_calls(network, [intervention.site for intervention in interventions]))
        for intervention in interventions:
            stack.callback(_hook(network, intervention, sequences, where, calls).remove)
        yield


def _hook(
    network: nn.Module, intervention: Intervention, sequences: np.ndarray, where: Tensor | None, calls: CountedCalls
) -> Any:
    site = intervention.site
    module = network.get_submodule(site.module_path)

    def changed(values: Tensor) -> Tensor:
        shape = values.shape  # some architectures flatten sequences before the MLP
        result = values.clone().reshape(len(sequences), -1, shape[-1])
        units = torch.tensor(intervention.units, device=values.device)
        new = torch.from_numpy(intervention.new(sequences, result.shape[1])).to(values)
        new = new.expand(*result.shape[:2], -1)
        if where is not None:
            here = where.to(values.device)
            # models that pad sequences by themselves see positions behind those of the batch
            here = nn.functional.pad(here, (0, result.shape[1] - here.shape[1]))
            new = torch.where(here[..., None], new, result[..., units])
        result[..., units] = new
        return result.reshape(shape)

    if site.side == "output":
        return module.register_forward_hook(
            lambda _module, _inputs, outputs: (
                _replaced(outputs, changed, site) if calls.is_turn_of(site, module) else None
            )
        )

    if site.side == "experts":
        return module.register_forward_hook(_changed_experts(intervention, sequences, where, calls), with_kwargs=True)
    if site.side != "input":
        raise InputError(
            f"units of {site.name} cannot be changed: they are probabilities, which the model does not read."
        )

    def before(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not calls.is_turn_of(site, module):
            return None
        if arguments:
            return _replaced(arguments, changed, site), named
        read = tensor_in(named.get("hidden_states", named), site)
        return arguments, {name: changed(value) if value is read else value for name, value in named.items()}

    return module.register_forward_pre_hook(before, with_kwargs=True)


def _changed_experts(
    intervention: Intervention, sequences: np.ndarray, where: Tensor | None, calls: CountedCalls
) -> Any:
    site = intervention.site

    def after(module: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
        if not calls.is_turn_of(site, module):
            return output
        if module.has_post_expert_norm:
            raise InputError(f"units of {site.name} cannot be changed in this model: each expert ends in a norm.")
        given = given_to(site, arguments, named)
        longest = len(given.hidden) // len(sequences)
        new = torch.from_numpy(intervention.new(sequences, longest)).to(given.hidden)
        new = new.expand(len(sequences), longest, -1).reshape(len(given.hidden), -1)
        everywhere = torch.ones(len(given.hidden), dtype=torch.bool, device=output.device)
        here = everywhere if where is None else where.reshape(-1).to(output.device)
        return changed_output(module, given, output, torch.tensor(intervention.units), new, here)

    return after


def _replaced(values: Any, changed: Any, site: Site) -> Any:
    """Arguments or results of a module with their first tensor changed; the one that `hooks.reading` reads."""
    if isinstance(values, Tensor):
        return changed(values)
    read = tensor_in(values, site)
    if isinstance(values, dict):
        for key, value in values.items():
            if value is read:
                values[key] = changed(read)
        return values
    return type(values)(changed(value) if value is read else value for value in values)
