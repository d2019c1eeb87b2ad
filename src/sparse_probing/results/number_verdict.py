"""The verdict on a number, in words, from stated rules; the counterpart of `verdict` for regression. All thresholds are here."""

from __future__ import annotations

from dataclasses import dataclass

from sparse_probing.results.verdict import AS_GOOD, CONFIRMED, FEW, READABLE, SIGNIFICANT

FOUND_R2 = 0.10
"""Probes below this test R2 have not found the number."""
CARRIED_R2 = 0.80
"""Test R2 from which one neuron counts as carrying the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberEvidence:
    """Test R2 that the verdict rests on; every probe was chosen without them."""

    single: float
    single_low: float
    """Lower end of the 95 % interval of `single`."""
    dense: float
    k_enough: int | None
    """Smallest k that comes within 5 % of all neurons before test; null when none does."""
    enough: float | None
    """Of that probe."""
    control: float
    """Better of shuffled numbers and untrained model, one neuron each."""
    untrained: float | None
    """All neurons of the untrained model; null when it was not run."""
    surface: float
    """Best of token n-grams, token identity, and position and length."""
    surface_name: str
    """Which of them, in words."""
    p: float | None
    """Family-wise, of the best neuron; null when no permutations were made."""

    @property
    def best(self) -> float:
        """Of all neurons, few neurons and one."""
        return max(self.dense, self.single, -1.0 if self.enough is None else self.enough)

    @property
    def by_chance(self) -> bool:
        """Whether the null of the best unit explains the neuron."""
        return self.p is not None and self.p > SIGNIFICANT


def number_verdict(evidence: NumberEvidence) -> tuple[str, str]:
    """Short verdict and one sentence that explains it. The first rule that applies decides.

    1. *not found*: no probe reaches test R2 0.10.
    2. *one neuron*: it reaches R2 0.80, the low end of its interval lies above shuffled numbers and the untrained model's best
       neuron, and its p is at most 0.05.
    3. *readable from the text alone*: n-grams, token identity, or position and length do as well as the best probe.
    4. *unclear*: a k that seemed enough before test stays more than 10 % below all neurons on test.
    5. *few neurons (k)*: at most 16 neurons come within 5 % of all neurons.
    6. *distributed (k)*: more are needed, or no size tried was enough.

    A remark is added when the text alone does as well as one neuron that carries the number, or else when all neurons of the
    untrained model do as well as the best probe, or else when shuffled numbers or an untrained neuron do as well as one neuron,
    or else when one neuron is no more than chance.
    """
    short, why = _verdict(evidence)
    if short in ("not found", READABLE):
        return short, why
    if evidence.surface >= evidence.best - AS_GOOD:
        return short, f"{why}; {evidence.surface_name} alone: {evidence.surface:.2f}"
    if evidence.untrained is not None and evidence.untrained >= evidence.best - AS_GOOD:
        return short, f"{why}; all neurons of an untrained model: {evidence.untrained:.2f}"
    if evidence.control >= evidence.single - AS_GOOD:
        return short, f"{why}; untrained model or shuffled numbers, one neuron: {evidence.control:.2f}"
    if evidence.by_chance:
        return short, f"{why}; no single neuron is more than chance (p {evidence.p:.2f})"
    return short, why


def _verdict(evidence: NumberEvidence) -> tuple[str, str]:
    k, dense = evidence.k_enough, evidence.dense
    if evidence.best < FOUND_R2:
        return "not found", f"the best probe reaches only R² {evidence.best:.2f}"
    if evidence.single >= CARRIED_R2 and evidence.single_low > evidence.control and not evidence.by_chance:
        return "one neuron", f"one neuron: R² {evidence.single:.2f}, all neurons {dense:.2f}"
    if evidence.surface >= evidence.best - AS_GOOD:
        return (
            READABLE,
            f"{evidence.surface_name} alone: R² {evidence.surface:.2f}, all neurons {dense:.2f}, one neuron {evidence.single:.2f}",
        )
    if k is None or evidence.enough is None:
        return "distributed", f"no number of neurons that was tried comes within 5 % of all neurons (R² {dense:.2f})"
    neurons = "one neuron" if k == 1 else f"{k} neurons"
    if evidence.enough < CONFIRMED * dense:
        return (
            "unclear",
            f"{neurons} seemed enough before test but reach R² {evidence.enough:.2f} on test, all neurons {dense:.2f}",
        )
    if k <= FEW:
        return f"few neurons ({k})", f"{neurons}: R² {evidence.enough:.2f}, all neurons {dense:.2f}"
    return f"distributed ({k})", f"{neurons} are needed to come within 5 % of all neurons (R² {dense:.2f})"
