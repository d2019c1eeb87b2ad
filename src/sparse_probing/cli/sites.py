"""`sprobe sites`."""

from __future__ import annotations


def sites(model: str, /) -> None:
    """Show where the neurons of a model live. Reads the configuration only, no weights.

    Args:
        model: `demo`, a local folder, or a hub id.
    """
    from rich.console import Console
    from rich.table import Table

    from sparse_probing.activations.models import model_sites

    table = Table()
    for name in ("site", "layer", "width", "module"):
        table.add_column(name, justify="right" if name in ("layer", "width") else "left")
    for site in model_sites(model):
        table.add_row(site.name, str(site.layer), f"{site.width:,}", site.module_path)
    Console().print(table)
