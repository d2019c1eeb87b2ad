"""Which probe stands for a feature: decided on validation only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparse_probing.metrics.scores import merit
from sparse_probing.sweep.plan import Method

ENOUGH = 0.95
"""Share of the dense probe's merit on validation that counts as *enough neurons*."""
CONTROLS = (Method.SHUFFLED, Method.RANDOM_MODEL)

Probe = dict[str, Any]


def best(probes: Sequence[Probe]) -> Probe:
    """The probe with the most merit on validation; ties by training objective, then the earlier layer."""
    return max(probes, key=lambda p: (merit_of(p), -p["objective"], -p["layer"]))


def merit_of(probe: Probe) -> float:
    """Merit on validation, see `metrics.scores.merit`."""
    return merit(probe["validation_f1"], probe["validation_average_precision"])


def choose(probes: Sequence[Probe]) -> dict[str, Probe]:
    """The probes of one feature whose test scores are reported: role -> probe.

    Roles: `single` (best neuron of all layers), `sparse k=K` (best layer and method for each k), `dense`, `enough` (smallest
    k whose merit reaches 95 % of the dense probe's; absent when none does), `random_neurons`, and the controls.
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
        k for k in sorted({p["k"] for p in sparse}) if merit_of(roles[f"sparse k={k}"]) >= ENOUGH * merit_of(dense)
    ]
    if enough:
        roles["enough"] = roles[f"sparse k={enough[0]}"]
    smallest = min(p["k"] for p in by_method[Method.RANDOM])
    roles["random_neurons"] = best([p for p in by_method[Method.RANDOM] if p["k"] == smallest])
    for control in CONTROLS:
        if control in by_method:
            roles[control.value] = best(by_method[control])
    return roles
