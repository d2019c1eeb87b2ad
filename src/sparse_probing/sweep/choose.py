"""Which probe stands for a feature: decided on validation only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparse_probing.sweep.plan import Method

ENOUGH = 0.95
"""Share of the dense probe's validation scores that counts as *enough neurons*."""
ENOUGH_BY = ("validation_f1", "validation_average_precision")
"""Both must reach it: F1 at a chosen threshold alone is too coarse where a split holds a dozen positives."""
CONTROLS = (Method.SHUFFLED, Method.RANDOM_MODEL)

Probe = dict[str, Any]


def _validation_key(probe: Probe) -> tuple[float, float, float, int]:
    """Larger is better; among equals the lower loss, then the earlier layer."""
    return (
        probe["validation_f1"],
        probe["validation_average_precision"],
        -probe["objective"],
        -probe["layer"],
    )


def best(probes: Sequence[Probe]) -> Probe:
    """The probe with the best validation F1; ties by average precision, training objective, layer."""
    return max(probes, key=_validation_key)


def choose(probes: Sequence[Probe]) -> dict[str, Probe]:
    """The probes of one feature whose test scores are reported: role -> probe.

    Roles: `single` (best neuron of all layers), `sparse k=K` (best layer and method for each k), `dense`, `enough` (smallest
    k whose validation F1 and average precision reach 95 % of the dense probe's; absent when none does), `random_neurons`, and
    the controls.
    """
    by_method: dict[str, list[Probe]] = {}
    for probe in probes:
        by_method.setdefault(probe["method"], []).append(probe)
    sparse = by_method[Method.SHRINKING] + by_method[Method.MEAN_DIFFERENCE]
    singles = by_method[Method.SINGLE] + [p for p in sparse if p["k"] == 1]
    roles = {"single": best(singles), "dense": best(by_method[Method.DENSE])}
    for k in sorted({p["k"] for p in sparse}):
        roles[f"sparse k={k}"] = best([p for p in sparse if p["k"] == k]) if k > 1 else roles["single"]
    dense = roles["dense"]
    enough = [
        k
        for k in sorted({p["k"] for p in sparse})
        if all(roles[f"sparse k={k}"][m] >= ENOUGH * dense[m] for m in ENOUGH_BY)
    ]
    if enough:
        roles["enough"] = roles[f"sparse k={enough[0]}"]
    smallest = min(p["k"] for p in by_method[Method.RANDOM])
    roles["random_neurons"] = best([p for p in by_method[Method.RANDOM] if p["k"] == smallest])
    for control in CONTROLS:
        if control in by_method:
            roles[control.value] = best(by_method[control])
    return roles
