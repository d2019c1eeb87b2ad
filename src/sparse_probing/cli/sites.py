"""`sprobe sites`."""

from __future__ import annotations

from collections.abc import Sequence


def sites(model: str, /, *, base: str | None = None, trust_remote_code: bool = False) -> None:
    """Show where the units of a model live. Reads the configuration only, no weights.

    Args:
        model: `demo`, a local folder, a .gguf file, or a hub id.
        base: Model below a PEFT adapter, where the one that the adapter names is not at hand.
        trust_remote_code: Run program code that comes with the model, where it needs some.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from sparse_probing.activations.models import model_sites
    from sparse_probing.activations.sites import SITES
    from sparse_probing.cli.terminal import Terminal, warn_of_model_code

    warn_of_model_code(trusted=trust_remote_code)
    known = model_sites(model, base=base, trust_remote_code=trust_remote_code)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("site", "layers", "width", "module", "side"):
        table.add_column(name, justify="right" if name == "width" else "left", no_wrap=True)
    for name in SITES:
        found = [site for site in known.found if site.name == name]
        if found:
            first = found[0]
            path = first.module_path.replace(f"{known.stack}.{first.layer}", f"{known.stack}.*", 1)
            heads = f" ({first.heads} heads x {first.width // first.heads})" if first.heads else ""
            widths = {site.width for site in found}
            width = f"{first.width:,}" if len(widths) == 1 else f"{min(widths):,}-{max(widths):,}"
            table.add_row(name, ranges([site.layer for site in found]), width + heads, path, first.side)
    console = Terminal()
    console.print(table)
    for reason in dict.fromkeys(known.absent.values()):
        absent = ", ".join(name for name, why in known.absent.items() if why == reason)
        console.print(f"not here: {absent}. {reason}")
    for name in SITES:
        if name not in known.absent:
            console.print(f"{name:12} {SITES[name]}")


def ranges(numbers: Sequence[int]) -> str:
    """`0-5`, or `0-2, 4` where some are missing."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
