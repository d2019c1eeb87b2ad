"""What people call a site: our names, TransformerLens' hook names, and paths in the model's own module tree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from sparse_probing.activations.sites import SITES, ModelSites
from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS, Site

HOOK_NAMES = {
    "mlp.hook_post": NEURONS,
    "mlp.hook_pre": "mlp.pre",
    "hook_mlp_out": "mlp.out",
    "mlp.hook_out": "mlp.out",
    "attn.hook_z": "attn.heads",
    "hook_attn_out": "attn.out",
    "attn.hook_out": "attn.out",
    "hook_resid_pre": "resid.pre",
    "hook_in": "resid.pre",
    "hook_resid_post": "resid.post",
    "hook_out": "resid.post",
}
"""TransformerLens: both the classic names and those of version 3, without `blocks.LAYER.` in front."""

BLOCK_HOOK = re.compile(r"blocks\.(?P<layer>\d+|\*)\.(?P<hook>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteName:
    """A site as the user wrote it, understood."""

    name: str
    """One of `SITES`, or a module path within a block, `layers.*.mlp.act`."""
    layers: tuple[int, ...] | None
    """Layers that the name itself fixes; null for all."""
    side: Literal["input", "output"] | None
    """For module paths: which side of the module; null for the sites with names."""


def parse_site(text: str, sites: ModelSites, network: nn.Module) -> SiteName:
    """Understand a site's name.

    Args:
        text: one of `SITES`; a TransformerLens name (`blocks.3.mlp.hook_post`, or `mlp.hook_post` for all layers); a module path
            (`layers.3.mlp.act`, `layers.*.mlp.act`) with `:input` behind it for what enters the module; what leaves it is
            the default.
        sites: the model's sites.
        network: the model's module tree.

    Raises:
        InputError: no such site (lists what exists).
    """
    if text in SITES:
        return SiteName(name=text, layers=None, side=None)
    match = BLOCK_HOOK.fullmatch(text)
    hook = match["hook"] if match else text
    if hook in HOOK_NAMES:
        layer = None if match is None or match["layer"] == "*" else int(match["layer"])
        return SiteName(name=HOOK_NAMES[hook], layers=None if layer is None else (layer,), side=None)
    path, _, side = text.partition(":")
    found = _within_blocks(path, sites, network)
    if found is None or side not in ("", "input", "output"):
        known = ", ".join(name for name in SITES if name not in sites.absent)
        raise InputError(
            f"site {text!r} does not exist in {sites.model!r}: it has {known}; a module within a block is written like "
            f"{sites.stack}.*.{_example_module(sites)} (`:input` behind it for what enters the module)."
        )
    layer, rest = found
    return SiteName(
        name=f"{sites.stack}.*.{rest}" + (":input" if side == "input" else ""),
        layers=layer,
        side="input" if side == "input" else "output",
    )


def choose_sites(name: SiteName, layers: Sequence[int] | None, sites: ModelSites) -> tuple[Site, ...]:
    """The named site at the wanted layers; modules named by path have width 0 until they are measured.

    Args:
        name: from `parse_site`.
        layers: layers wanted; null for all.
        sites: the model's sites.

    Raises:
        InputError: a layer that the model does not have, or where it has no such site.
    """
    if name.side is None:
        available = sites.named(name.name)
    else:
        path = name.name.removesuffix(":input")
        available = tuple(
            Site(name=name.name, layer=n, width=0, module_path=path.replace("*", str(n), 1), side=name.side)
            for n in range(sites.n_layers)
        )
    wanted = set(layers if layers is not None else name.layers or (site.layer for site in available))
    if layers is not None and name.layers is not None and not wanted <= set(name.layers):
        raise InputError(f"layers {sorted(wanted)} contradict the site, which names layer {name.layers[0]}.")
    existing = {site.layer for site in available}
    for layer in sorted(wanted - existing):
        if 0 <= layer < sites.n_layers:
            raise InputError(
                f"layer {layer} of {sites.model!r} has no site {name.name}: layers {sorted(existing)} have."
            )
        raise InputError(f"layer {layer} does not exist: {sites.model!r} has layers 0 to {sites.n_layers - 1}.")
    return tuple(site for site in available if site.layer in wanted)


def _within_blocks(path: str, sites: ModelSites, network: nn.Module) -> tuple[tuple[int, ...] | None, str] | None:
    """(layer or null for all, path within the block) of a module path, null where there is no such module.

    Paths are often copied from a model with a language-model head, where the base model has a prefix: `gpt_neox.layers.3.mlp`.
    """
    prefix = getattr(network, "base_model_prefix", "")
    match = re.fullmatch(rf"(?:{re.escape(prefix)}\.)?{re.escape(sites.stack)}\.(\d+|\*)\.(.+)", path)
    if match is None:
        return None
    layer, rest = match.groups()
    number = 0 if layer == "*" else int(layer)
    blocks = network.get_submodule(sites.stack)
    assert isinstance(blocks, nn.ModuleList)
    if number < len(blocks) and rest not in dict(blocks[number].named_modules()):
        return None
    return (None if layer == "*" else (number,)), rest


def _example_module(sites: ModelSites) -> str:
    deepest = next((site for site in sites.found if site.name in (NEURONS, "attn.out")), None)
    return deepest.module_path.removeprefix(f"{sites.stack}.{deepest.layer}.") if deepest else "MODULE"
