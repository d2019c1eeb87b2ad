"""`sprobe sites`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sparse_probing.records import Site


def sites(model: str, /, *, check: bool = False, base: str | None = None, trust_remote_code: bool = False) -> None:
    """Show where the units of a model live. Reads the configuration only, no weights.

    Sites are found in one pass over a few tokens, on shapes alone. With `--check` the weights are loaded, too.

    Args:
        model: `demo`, a local folder, a .gguf file, or a hub id.
        check: Load the weights, read three short texts alone and together, and compare the sites with independent computations.
        base: Model below a PEFT adapter, where the one that the adapter names is not at hand.
        trust_remote_code: Run program code that comes with the model, where it needs some.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from sparse_probing.activations.confirm import confirmed_sites
    from sparse_probing.activations.models import load_model, model_sites
    from sparse_probing.activations.sites import SITES
    from sparse_probing.cli.terminal import Terminal, warn_of_model_code

    warn_of_model_code(trusted=trust_remote_code)
    confirmed, remarks, columns = frozenset[Site](), (), ("site", "layers", "width", "module", "side")
    if check:
        loaded = load_model(model, base=base, trust_remote_code=trust_remote_code)
        known, confirmed, remarks = loaded.sites, confirmed_sites(loaded), loaded.remarks
        columns = (*columns, "confirmed")
    else:
        known = model_sites(model, base=base, trust_remote_code=trust_remote_code)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name == "width" else "left", no_wrap=True)
    for name in SITES:
        for kind, layers in _alike([site for site in known.found if site.name == name]).items():
            path, width, heads, side = kind
            counted = f" ({heads} heads x {width // heads})" if heads else ""
            sure = [site.layer for site in confirmed if site.name == name and site.layer in layers]
            marks = [ranges(sure) or "no"] if check else []
            table.add_row(name, ranges(layers), f"{width:,}{counted}", path, READ.get(side, side), *marks)
    console = Terminal()
    console.print(table)
    for remark in remarks:
        console.print(remark)
    if check:
        console.print(
            "confirmed: layers where another computation gives the same: the hidden states that transformers reports; the "
            "projection's own weights, and what the residual stream gains; the neurons from the activation; the experts' sum."
        )
    for reason in dict.fromkeys(known.absent.values()):
        absent = ", ".join(name for name, why in known.absent.items() if why == reason)
        console.print(f"not here: {absent}. {reason}")
    here = [name for name in SITES if any(site.name == name for site in known.found)]
    for name in here:
        console.print(f"{name:{max(map(len, here))}}  {SITES[name]}")


READ = {"experts": "neurons", "softmax": "probabilities", "sigmoid": "probabilities"}
"""Which link turns a router's scores into probabilities is known for certain only from its values."""


def _alike(found: Sequence[Site]) -> dict[tuple[str, int, int | None, str], list[int]]:
    """Layers of one site, by module path with a star for the layer, width, heads and side."""
    one_module = len({site.module_path for site in found}) == 1
    alike: dict[tuple[str, int, int | None, str], list[int]] = {}
    for site in found:
        star = re.sub(rf"(?<=\.){site.layer}(?=\.|$)", "*", site.module_path, count=1)
        path = f"{site.module_path} (shared)" if one_module and site.call is not None else star
        alike.setdefault((path, site.width, site.heads, site.side), []).append(site.layer)
    return alike


def ranges(numbers: Sequence[int]) -> str:
    """`0-5`, or `0-2, 4` where some are missing."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
