"""The verdict on a number, in words, from stated rules; the counterpart of `verdict` for regression. All thresholds are here."""

from __future__ import annotations

from dataclasses import dataclass

from sparse_probing.results.verdict import (
    AS_GOOD,
    CONFIRMED,
    FEW,
    READABLE,
    SHORT_NAMES,
    SIGNIFICANT,
    SURFACES,
    Rival,
    Rivals,
)

FOUND_R2 = 0.10
"""Probes below this test R2 have not found the number."""
CARRIED_R2 = 0.80
"""Test R2 from which one neuron counts as carrying the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberEvidence:
    """Test R2 that the verdict rests on; every probe was chosen without them."""

    single: float
    dense: float
    k_enough: int | None
    """Smallest k that comes within 5 % of all neurons before test; null when none does."""
    enough: float | None
    """Of that probe."""
    rivals: Rivals
    untrained: float | None
    """All neurons of the untrained model; null when it was not run."""
    p: float | None
    """Of the number: is there any neuron; null when no permutations were made."""

    @property
    def best(self) -> float:
        """Of all neurons, few neurons and one."""
        return max(self.dense, self.single, -1.0 if self.enough is None else self.enough)

    @property
    def surface(self) -> Rival:
        """The best that the text alone gives, where the row stands included."""
        names = (*SURFACES, "position_and_length")
        return max((rival for rival in self.rivals.all if rival.name in names), key=lambda rival: rival.score)

    @property
    def by_chance(self) -> bool:
        """Whether permuted numbers give neurons as good."""
        return self.p is not None and self.p > SIGNIFICANT


def number_verdict(evidence: NumberEvidence) -> tuple[str, str]:
    """Short verdict and one sentence that explains it. The first rule that applies decides.

    1. *not found*: no probe reaches test R2 0.10.
    2. *one neuron*: it reaches R2 0.80, its lead over shuffled numbers, the untrained model's best neuron and a random neuron is
       above 0 with its paired interval, and p is at most 0.05.
    3. *readable from the text alone*: n-grams, token identity, last token, or position and length do as well as the best probe.
    4. *unclear*: a k that seemed enough before test stays more than 10 % below all neurons on test.
    5. *few neurons (k)*: at most 16 neurons come within 5 % of all neurons.
    6. *distributed (k)*: more are needed, or no size tried was enough.

    The explanation ends with the strongest rival of one neuron and its figure. It says when all neurons of the untrained model do
    as well as the best probe, and why one neuron that reaches R2 0.80 does not carry the number.
    """
    short, why = _verdict(evidence)
    if short != "not found" and evidence.untrained is not None and evidence.untrained >= evidence.best - AS_GOOD:
        why += f"; all neurons of an untrained model: {evidence.untrained:.2f}"
    return short, f"{why}; {evidence.rivals.words(evidence.single)}"


def _verdict(evidence: NumberEvidence) -> tuple[str, str]:
    k, dense = evidence.k_enough, evidence.dense
    if evidence.best < FOUND_R2:
        return "not found", f"the best probe reaches only R² {evidence.best:.2f}"
    control, surface, single = evidence.rivals.closest_control, evidence.surface, evidence.single
    if single >= CARRIED_R2 and control.low > 0 and not evidence.by_chance:
        return "one neuron", f"one neuron: R² {single:.2f}, all neurons {dense:.2f}"
    doubt = ""
    if evidence.by_chance:
        doubt = f"; no neuron is more than chance (p {evidence.p:.2f})"
    elif single >= CARRIED_R2:
        doubt = f"; one neuron ({single:.2f}) is not surely better than {control.words()}"
    if surface.score >= evidence.best - AS_GOOD:
        return (
            READABLE,
            f"{SHORT_NAMES[surface.name]}: R² {surface.score:.2f}, all neurons {dense:.2f}, one neuron {single:.2f}{doubt}",
        )
    if k is None or evidence.enough is None:
        return (
            "distributed",
            f"no number of neurons that was tried comes within 5 % of all neurons (R² {dense:.2f}){doubt}",
        )
    neurons = "one neuron" if k == 1 else f"{k} neurons"
    if evidence.enough < CONFIRMED * dense:
        return (
            "unclear",
            f"{neurons} seemed enough before test but reach R² {evidence.enough:.2f} on test, all neurons {dense:.2f}{doubt}",
        )
    if k <= FEW:
        return f"few neurons ({k})", f"{neurons}: R² {evidence.enough:.2f}, all neurons {dense:.2f}{doubt}"
    return f"distributed ({k})", f"{neurons} are needed to come within 5 % of all neurons (R² {dense:.2f}){doubt}"
