"""Which probe stands for a feature: decided without the test split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sparse_probing.sweep.plan import SELECTED, Method

ENOUGH = 0.95
"""Share of the dense probe's merit that counts as *enough neurons*."""
CONTROLS = (Method.SHUFFLED, Method.RANDOM_MODEL)
"""Controls that search like the probe and are scored against the true labels."""

Probe = dict[str, Any]


def best(probes: Iterable[Probe]) -> Probe:
    """The probe with the most merit; ties by training objective, then the earlier layer."""
    return max(probes, key=lambda p: (merit(p), -p["objective"], -p["layer"]))


def merit(probe: Probe) -> float:
    """What choices go by: the mean of F1 and average precision, on training or on validation rows, whichever is lower.

    F1 is what is reported, but alone it is coarse where a split holds a dozen positives: many units tie, and a lucky threshold
    wins; average precision looks at the whole order. A probe on few units is hardly fitted at all, so its training rows are
    a second opinion against luck on validation; a probe on many units does better on training rows, so validation decides.
    """
    return min(0.5 * (probe[f"{split}_f1"] + probe[f"{split}_average_precision"]) for split in ("train", "validation"))


def choose(probes: Sequence[Probe]) -> dict[str, Probe]:
    """The probes of one feature whose test scores are reported: role -> probe.

    Roles: `single` (best neuron of all layers), `sparse k=K` (best layer and method for each k), `dense`, `enough` (smallest
    k whose merit reaches 95 % of the dense probe's; absent when none does), `random_neurons` (as many as `single`: one),
    `random_neurons k=K` (as many as `enough`), and the controls.
    """
    by_method: dict[str, list[Probe]] = {}
    for probe in probes:
        by_method.setdefault(probe["method"], []).append(probe)
    sparse = [probe for method in SELECTED for probe in by_method.get(method, [])]
    singles = by_method[Method.SINGLE] + [p for p in sparse if p["k"] == 1]
    roles = {"single": best(singles), "dense": best(by_method[Method.DENSE])}
    for k in sorted({p["k"] for p in sparse}):
        roles[f"sparse k={k}"] = best([p for p in sparse if p["k"] == k]) if k > 1 else roles["single"]
    dense = roles["dense"]
    enough = [k for k in sorted({p["k"] for p in sparse}) if merit(roles[f"sparse k={k}"]) >= ENOUGH * merit(dense)]
    smallest = min(p["k"] for p in by_method[Method.RANDOM])
    roles["random_neurons"] = best([p for p in by_method[Method.RANDOM] if p["k"] == smallest])
    if enough:
        roles["enough"] = roles[f"sparse k={enough[0]}"]
        if enough[0] > smallest:
            equal = [p for p in by_method[Method.RANDOM] if p["k"] == enough[0]]
            roles[f"random_neurons k={enough[0]}"] = best(equal)
    for control in (*CONTROLS, Method.CONTROL_TASK):
        if control in by_method:
            roles[control.value] = best(by_method[control])
    return roles
