"""Norms, biases and angles of every neuron's weights, norms folded (paper section 6 on superposition, appendix on weights).

The product of input norm and bias is the paper's sign of superposition: neurons that keep many features apart need large input
weights, and negative biases that silence the interference between them (Elhage et al. 2022).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from sparse_probing.activations.weights import MlpWeights

QUANTILES = {"q005": 0.005, "q20": 0.2, "q50": 0.5, "q80": 0.8, "q995": 0.995}

STATISTICS = {
    "norm_in": "length of the input weights",
    "bias_in": "input bias",
    "norm_times_bias": "length of the input weights times input bias",
    "norm_out": "length of the output weights",
    "cosine": "cosine of input and output weights",
    "norm_gate": "length of the gate's weights",
    "bias_gate": "the gate's bias",
    "norm_times_bias_gate": "length of the gate's weights times its bias",
    "cosine_gate": "cosine of gate's and output weights",
}
"""Names and words. For gated neurons `in` is the gate's partner, as in `MlpWeights`."""


def neuron_statistics(mlp: MlpWeights) -> dict[str, Float[np.ndarray, " unit"]]:
    """Statistics of all neurons of a layer, float64; those of biases only where the model has some.

    A cosine is NaN where a weight vector is zero.
    """
    norm_out = _norms(mlp.w_out)
    found: dict[str, np.ndarray] = {}
    for side, weight, bias in (("", mlp.w_in, mlp.b_in), ("_gate", mlp.w_gate, mlp.b_gate)):
        if weight is None or bias is None:
            continue
        norm, dots = _norms(weight), np.einsum("uh,uh->u", weight, mlp.w_out, dtype=np.float64)
        found[f"norm{side or '_in'}"] = norm
        if bias.any():
            found[f"bias{side or '_in'}"] = bias.astype(np.float64)
            found[f"norm_times_bias{side}"] = norm * bias
        lengths = norm * norm_out
        found[f"cosine{side}"] = np.divide(dots, lengths, out=np.full_like(lengths, np.nan), where=lengths > 0)
    found["norm_out"] = norm_out
    return {name: found[name] for name in STATISTICS if name in found}


def layer_rows(layer: int, statistics: dict[str, Float[np.ndarray, " unit"]]) -> list[dict[str, Any]]:
    """Quantiles over the neurons of a layer, one row per statistic."""
    rows: list[dict[str, Any]] = []
    for name, values in statistics.items():
        known = values[~np.isnan(values)]
        cuts = np.quantile(known, list(QUANTILES.values())).tolist() if len(known) else [None] * len(QUANTILES)
        rows.append({"layer": layer, "statistic": name} | dict(zip(QUANTILES, cuts, strict=True)))
    return rows


def standing(statistics: dict[str, Float[np.ndarray, " unit"]], unit: int) -> dict[str, float]:
    """Values of one neuron, and for each the percentage of its layer's neurons that have less (`NAME_percentile`)."""
    found: dict[str, float] = {}
    for name, values in statistics.items():
        if not np.isnan(values[unit]):
            found |= {name: float(values[unit]), f"{name}_percentile": percentile(float(values[unit]), values)}
    return found


def percentile(value: float, among: Float[np.ndarray, " other"]) -> float:
    """Percentage of known values below one; equal ones count half."""
    among = among[~np.isnan(among)]
    return float(100 * ((among < value).mean() + (among == value).mean() / 2))


def _norms(weight: Float[np.ndarray, "unit hidden"]) -> Float[np.ndarray, " unit"]:
    return np.sqrt(np.einsum("uh,uh->u", weight, weight, dtype=np.float64))
