"""Length of the input weights times bias of 21 neurons of Pythia v0, beside the values of the method's authors.

    .venv/bin/python benchmarks/pythia_weight_statistics.py --model EleutherAI/pythia-70m-v0 [--model ...]

Each model is a folder or a hub id; its size is told from its shape. The values belong to the first release of the weights (v0):
later ones differ. The three neurons of a model lie at the percentiles 20, 50 and 80 of layer 1 (paper_spec section 6.9), computed
by the authors after TransformerLens folded the layer norms.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from transformers import AutoModel

from sparse_probing.activations.model_files import find_model
from sparse_probing.activations.models import load_config
from sparse_probing.activations.sites import find_sites
from sparse_probing.activations.weights import read_weights
from sparse_probing.errors import InputError
from sparse_probing.studies.weights.statistics import neuron_statistics, percentile

LAYER = 1
PERCENTILES = (20, 50, 80)
REFERENCE: dict[tuple[int, int], tuple[str, tuple[tuple[int, float], ...]]] = {
    (6, 2048): ("70m", ((828, -0.6336), (221, -0.3570), (87, -0.1666))),
    (12, 3072): ("160m", ((1981, -0.5375), (297, -0.4138), (1657, -0.2810))),
    (24, 4096): ("410m", ((3231, -0.2762), (149, -0.2093), (4003, -0.1399))),
    (16, 8192): ("1b", ((1686, -0.8612), (127, -0.6882), (7533, -0.4169))),
    (24, 8192): ("1.4b", ((1520, -0.5272), (1937, -0.4404), (542, -0.3060))),
    (32, 10240): ("2.8b", ((4304, -0.7445), (1354, -0.5961), (3106, -0.3165))),
    (32, 16384): ("6.9b", ((132, -1.6590), (14104, -1.3974), (13190, -1.1011))),
}
"""(layers, neurons per layer) -> size, and neuron and value at each percentile."""


def compared(name: str) -> list[dict[str, Any]]:
    """One row per reference neuron of a model.

    Raises:
        InputError: no such model, or none of the seven shapes.
    """
    config = load_config(find_model(name))
    shape = (getattr(config, "num_hidden_layers", 0), getattr(config, "intermediate_size", 0))
    if config.model_type != "gpt_neox" or shape not in REFERENCE:
        sizes = ", ".join(size for size, _ in REFERENCE.values())
        raise InputError(
            f"{name!r} ({config.model_type}, {shape[0]} layers of {shape[1]} neurons) has no reference values: name a Pythia "
            f"v0 model of {sizes}."
        )
    try:
        network = AutoModel.from_pretrained(find_model(name).path, dtype=torch.float32, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the weights of {name!r} cannot be loaded: {str(error).splitlines()[0].rstrip('.')}."
        ) from None
    values = neuron_statistics(read_weights(network, find_sites(network, name)).mlp(LAYER))["norm_times_bias"]
    size, neurons = REFERENCE[shape]
    return [
        {
            "model": size,
            "neuron": f"L{LAYER}.N{unit}",
            "percentile": wanted,
            "reference": reference,
            "ours": float(values[unit]),
            "our_percentile": percentile(float(values[unit]), values),
        }
        for wanted, (unit, reference) in zip(PERCENTILES, neurons, strict=True)
    ]


def as_text(rows: list[dict[str, Any]]) -> str:
    """A table in Markdown, and the largest difference."""
    lines = [
        "| model | neuron | percentile | reference | ours | difference | our percentile |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | {r['neuron']} | {r['percentile']} | {r['reference']:.4f} | {r['ours']:.4f} | "
        f"{r['ours'] - r['reference']:+.4f} | {r['our_percentile']:.1f} |"
        for r in rows
    ]
    worst = max(rows, key=lambda r: abs(r["ours"] - r["reference"]))
    return "\n".join(
        [
            *lines,
            "",
            f"largest difference: {abs(worst['ours'] - worst['reference']):.4f} ({worst['model']} {worst['neuron']})",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 2 where a model cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", action="append", required=True, help="folder or hub id of Pythia v0 weights; may be repeated"
    )
    try:
        print(as_text([row for name in parser.parse_args(arguments).model for row in compared(name)]))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
