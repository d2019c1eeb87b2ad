"""The verdict on a feature, in words, from stated rules. All thresholds are here."""

from __future__ import annotations

from dataclasses import dataclass

DEDICATED_F1 = 0.90
"""Test F1 from which one neuron counts as dedicated."""
FEW = 16
"""Up to so many neurons count as few."""
FOUND_F1 = 0.60
"""A dense probe below this test F1 has not found the feature."""
CONFIRMED = 0.90
"""Share of the dense probe's test F1 that the chosen k must keep on test."""
SIGNIFICANT = 0.05
"""Largest q (Benjamini-Hochberg over features of the family-wise p over units) at which a neuron is more than chance."""
READABLE = "readable from the text alone"
AS_GOOD = 0.02
"""F1 differences up to this count as *as good*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Test scores that the verdict rests on; every probe was chosen without them."""

    single_f1: float
    single_low: float
    """Lower end of the 95 % interval of `single_f1`."""
    dense_f1: float
    k_enough: int | None
    """Smallest k that reaches 95 % of the dense probe before test; null when none does."""
    k_enough_f1: float | None
    """Test F1 of that probe."""
    control_f1: float
    """Better of shuffled labels and untrained model, one neuron each."""
    text_f1: float
    """Better of token n-grams and token identity, without any model."""
    always_yes_f1: float = 0.0
    """Test F1 of calling every row positive."""
    q: float | None = None
    """Of the null of the best unit; null when no permutations were made."""

    @property
    def best_f1(self) -> float:
        """Of all neurons and of one."""
        return max(self.dense_f1, self.single_f1)

    @property
    def by_chance(self) -> bool:
        """Whether the null of the best unit explains the neuron."""
        return self.q is not None and self.q > SIGNIFICANT


def verdict(evidence: Evidence) -> tuple[str, str]:
    """Short verdict and one sentence that explains it. The first rule that applies decides.

    1. *not found*: neither one neuron nor the dense probe reaches F1 0.60 and more than 0.02 over always answering yes.
    2. *dedicated neuron*: one neuron reaches F1 0.90, the low end of its interval lies above both controls, and its q is at most
       0.05.
    3. *readable from the text alone*: token n-grams or token identity do as well as the best probe.
    4. *unclear*: a k that seemed enough before test stays more than 10 % below the dense probe on test.
    5. *few neurons (k)*: at most 16 neurons reach 95 % of the dense probe.
    6. *distributed (k)*: more are needed, or no size tried was enough.

    A remark is added when token n-grams do as well as a dedicated neuron (it may be a detector of those tokens), or else when an
    untrained model or shuffled labels do as well as one neuron, or else when one neuron is no more than chance.
    """
    short, why = _verdict(evidence)
    if short in ("not found", READABLE):
        return short, why
    if evidence.text_f1 >= evidence.best_f1 - AS_GOOD:
        return short, f"{why}; the text alone: {evidence.text_f1:.2f}"
    if evidence.control_f1 >= evidence.single_f1 - AS_GOOD:
        return short, f"{why}; untrained model or shuffled labels: {evidence.control_f1:.2f}"
    if evidence.by_chance:
        return short, f"{why}; no single neuron is more than chance (q {evidence.q:.2f})"
    return short, why


def _verdict(evidence: Evidence) -> tuple[str, str]:
    k, dense = evidence.k_enough, evidence.dense_f1
    if evidence.best_f1 < FOUND_F1:
        return "not found", f"even all neurons of a layer reach only F1 {dense:.2f}"
    if evidence.best_f1 <= evidence.always_yes_f1 + AS_GOOD:
        return "not found", f"always answering yes: F1 {evidence.always_yes_f1:.2f}, all neurons {dense:.2f}"
    if evidence.single_f1 >= DEDICATED_F1 and evidence.single_low > evidence.control_f1 and not evidence.by_chance:
        return "dedicated neuron", f"one neuron: F1 {evidence.single_f1:.2f}"
    if evidence.text_f1 >= evidence.best_f1 - AS_GOOD:
        return (
            READABLE,
            f"the text alone: F1 {evidence.text_f1:.2f}, all neurons {dense:.2f}, one neuron {evidence.single_f1:.2f}",
        )
    if k is None:
        return "distributed", f"no number of neurons that was tried comes within 5 % of all neurons (F1 {dense:.2f})"
    neurons = "one neuron" if k == 1 else f"{k} neurons"
    if evidence.k_enough_f1 is not None and evidence.k_enough_f1 < CONFIRMED * dense:
        return (
            "unclear",
            f"{neurons} seemed enough before test but reach F1 {evidence.k_enough_f1:.2f} on test, all neurons {dense:.2f}",
        )
    if k <= FEW:
        return f"few neurons ({k})", f"{neurons}: F1 {evidence.k_enough_f1:.2f}, all neurons {dense:.2f}"
    return f"distributed ({k})", f"{neurons} are needed to come within 5 % of all neurons (F1 {dense:.2f})"
