"""The verdict on a feature, in words, from stated rules: after the probes, and after the second look. All thresholds are here."""

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
DEDICATED, FEW_NEURONS = "dedicated neuron", "few neurons"
AS_GOOD = 0.02
"""Differences of F1 (or R2) up to this count as *as good*."""

CONTROLS = ("shuffled_labels", "random_weights_model", "random_neurons")
"""Baselines with one neuron each, which a dedicated neuron must beat."""
SURFACES = ("text_only", "token_identity", "last_token")
"""Baselines that read the text without a model."""
SHORT_NAMES = {
    "majority_class": "majority class",
    "mean": "mean",
    "shuffled_labels": "shuffled labels",
    "random_neurons": "random neuron",
    "random_weights_model": "untrained model",
    "text_only": "text only",
    "token_identity": "token identity",
    "last_token": "last token",
    "position_and_length": "position and length",
}
"""Baselines in a word or two, for a table cell or a clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A baseline beside the best single neuron, on the same test rows."""

    name: str
    """One of `SHORT_NAMES`."""
    score: float
    """F1; R2 for a regression target."""
    lead: float
    """Score of the neuron minus `score`."""
    low: float
    """Ends of its 95 % interval, paired over documents."""
    high: float

    def words(self) -> str:
        """Name, score and lead of the neuron, for a clause."""
        lead = f"lead {self.lead:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{SHORT_NAMES[self.name]} {self.score:.2f} ({lead})"


@dataclass(frozen=True, slots=True)
class Rivals:
    """All baselines of a feature or regression target that are scored against the true labels."""

    all: tuple[Rival, ...]

    @property
    def strongest(self) -> Rival:
        """The one with the largest score; of equals the first."""
        return max(self.all, key=lambda rival: rival.score)

    @property
    def closest_control(self) -> Rival:
        """The control that the neuron is least sure to beat."""
        return min((rival for rival in self.all if rival.name in CONTROLS), key=lambda rival: rival.low)

    @property
    def surface(self) -> Rival:
        """The best that the text alone gives."""
        return max((rival for rival in self.all if rival.name in SURFACES), key=lambda rival: rival.score)

    def words(self, single: float) -> str:
        """A clause with the strongest rival and its figure, and others that come within 0.02 of the neuron."""
        first = self.strongest
        close = [rival for rival in self.all if rival is not first and rival.score >= single - AS_GOOD]
        also = ", ".join(f"{SHORT_NAMES[rival.name]} {rival.score:.2f}" for rival in close)
        return f"strongest rival: {first.words()}" + (f"; also {also}" if also else "")


def found(f1: float, always_yes_f1: float) -> bool:
    """Whether a score of F1 says that the feature was found at all: by a probe, or without a model by its words alone.

    The audit of labelled text warns by this rule, the verdict applies it to the probes; so they cannot contradict each other.
    """
    return f1 >= FOUND_F1 and f1 > always_yes_f1 + AS_GOOD


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Test scores that the verdict rests on; every probe was chosen without them."""

    single_f1: float
    dense_f1: float
    k_enough: int | None
    """Smallest k that reaches 95 % of the dense probe before test; null when none does."""
    k_enough_f1: float | None
    """Test F1 of that probe."""
    rivals: Rivals
    always_yes_f1: float = 0.0
    """Test F1 of calling every row positive."""
    q: float | None = None
    """Of the feature's p; null when no permutations were made."""

    @property
    def best_f1(self) -> float:
        """Of all neurons and of one."""
        return max(self.dense_f1, self.single_f1)

    @property
    def by_chance(self) -> bool:
        """Whether permuted labels give neurons as good."""
        return self.q is not None and self.q > SIGNIFICANT


def verdict(evidence: Evidence) -> tuple[str, str]:
    """Short verdict and one sentence that explains it. The first rule that applies decides.

    1. *not found*: neither one neuron nor the dense probe reaches F1 0.60 and more than 0.02 over always answering yes.
    2. *dedicated neuron*: one neuron reaches F1 0.90, its lead over shuffled labels, the untrained model and a random neuron is
       above 0 with its paired interval, and the feature's q is at most 0.05.
    3. *readable from the text alone*: token n-grams, token identity or the last token do as well as the best probe.
    4. *unclear*: a k that seemed enough before test stays more than 10 % below the dense probe on test.
    5. *few neurons (k)*: at most 16 neurons reach 95 % of the dense probe.
    6. *distributed (k)*: more are needed, or no size tried was enough.

    The explanation ends with the strongest rival and its figure, and with others that come within 0.02 of one neuron. Where one
    neuron reaches F1 0.90 and is not dedicated, it says why.
    """
    short, why = _verdict(evidence)
    return short, f"{why}; {evidence.rivals.words(evidence.single_f1)}"


def _verdict(evidence: Evidence) -> tuple[str, str]:
    k, dense, single = evidence.k_enough, evidence.dense_f1, evidence.single_f1
    if evidence.best_f1 < FOUND_F1:
        return "not found", f"even all neurons of a layer reach only F1 {dense:.2f}"
    if not found(evidence.best_f1, evidence.always_yes_f1):
        return "not found", f"always answering yes: F1 {evidence.always_yes_f1:.2f}, all neurons {dense:.2f}"
    control = evidence.rivals.closest_control
    if single >= DEDICATED_F1 and control.low > 0 and not evidence.by_chance:
        return DEDICATED, f"one neuron: F1 {single:.2f}"
    doubt = ""
    if evidence.by_chance:
        doubt = f"; no neuron is more than chance (q {evidence.q:.2f})"
    elif single >= DEDICATED_F1:
        doubt = f"; one neuron ({single:.2f}) is not surely better than {control.words()}"
    surface = evidence.rivals.surface.score
    if surface >= evidence.best_f1 - AS_GOOD and found(surface, evidence.always_yes_f1):
        return READABLE, f"the text alone: F1 {surface:.2f}, all neurons {dense:.2f}, one neuron {single:.2f}{doubt}"
    if k is None:
        return (
            "distributed",
            f"no number of neurons that was tried comes within 5 % of all neurons (F1 {dense:.2f}){doubt}",
        )
    neurons = "one neuron" if k == 1 else f"{k} neurons"
    if evidence.k_enough_f1 is not None and evidence.k_enough_f1 < CONFIRMED * dense:
        return (
            "unclear",
            f"{neurons} seemed enough before test but reach F1 {evidence.k_enough_f1:.2f} on test, all neurons {dense:.2f}{doubt}",
        )
    if k <= FEW:
        return f"{FEW_NEURONS} ({k})", f"{neurons}: F1 {evidence.k_enough_f1:.2f}, all neurons {dense:.2f}{doubt}"
    return f"distributed ({k})", f"{neurons} are needed to come within 5 % of all neurons (F1 {dense:.2f}){doubt}"


SPECIFIC_P = 0.05
"""Largest p of an ablation's specificity among its placebos at which it counts as more than a placebo."""
CAUSAL = "dedicated and causal"
NO_EFFECT = "dedicated, no specific causal effect found"
STAND_INS = "one of several stand-ins"
COMBINATION = "part of a sparse combination"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What switching a support off did to the loss per token (nats), beside its placebos."""

    neurons: int
    effect_in: float
    """In class."""
    effect_in_low: float | None
    effect_in_high: float | None
    effect_out: float
    loss_in: float
    """Per token in class, without change."""
    over_placebo: float | None
    """Specificity (in class minus out of class) minus the placebos' mean; null without placebos."""
    low: float | None
    """Ends of its 95 % interval; null where documents are too few."""
    high: float | None
    p: float | None
    placebos: int

    @property
    def testable(self) -> bool:
        """Whether there are enough documents for intervals and enough placebos for a p of 0.05."""
        return None not in (self.low, self.effect_in_low) and 1 / (1 + self.placebos) <= SPECIFIC_P

    @property
    def specific(self) -> bool:
        """Surely something in class, more than out of class, and surely more, in the same direction, than placebos."""
        if not self.testable or self.p is None or self.p > SPECIFIC_P or abs(self.effect_in) <= abs(self.effect_out):
            return False
        assert self.low is not None and self.high is not None
        assert self.effect_in_low is not None and self.effect_in_high is not None
        return (self.low > 0 and self.effect_in_low > 0) or (self.high < 0 and self.effect_in_high < 0)

    def words(self) -> str:
        """One clause with the figures."""
        what = "without it" if self.neurons == 1 else f"without these {self.neurons}"
        share = f"{100 * self.effect_in / self.loss_in:+.2f} %"
        said = f"{what} the loss per token changes by {self.effect_in:+.4f} nats in class ({share})"
        said += f", {self.effect_out:+.4f} out of class"
        if self.over_placebo is None or self.p is None or 1 / (1 + self.placebos) > SPECIFIC_P:
            return said + ", too few placebos in so small a layer to tell more"
        if self.low is None or self.high is None or self.effect_in_low is None:
            return said + ", too few documents for an interval"
        return f"{said}; beyond placebos {self.over_placebo:+.4f} [{self.low:+.4f}, {self.high:+.4f}], p {self.p:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondLook:
    """What interventions and redundancy add to the verdict of the probes."""

    verdict: str
    explanation: str
    """Both from `verdict`."""
    single: Ablation | None
    """Null where the model has no loss, or the feature no text."""
    enough: Ablation | None
    """Of the neurons that were enough, where they are more than one."""
    equals: int | None
    """Single neurons that reach 95 % of the best one's score, itself included (11 are tried); null when not looked for."""


def second_verdict(look: SecondLook) -> tuple[str, str]:
    """Verdict and explanation after the second look. The first rule that applies decides.

    1. No loss was measured, or there are too few documents for intervals or too few placebos for a p of 0.05: the verdict of
       the probes stands.
    2. *dedicated and causal*: a dedicated neuron whose ablation is specific: the interval of its effect in class excludes 0,
       it is larger than the one out of class, its p among placebos is at most 0.05, and the interval of what it does beyond
       placebos excludes 0 on the same side.
    3. *one of several stand-ins*: a dedicated neuron whose ablation is not specific, and other single neurons reach 95 % of its
       score.
    4. *dedicated, no specific causal effect found*: the same without such others.
    5. *part of a sparse combination (k)*: few neurons, more than one; *causal* where the ablation of all k is specific.
    6. Any other verdict of the probes stands; the effect is told.

    Where a specific ablation lowers the loss, the explanation says that the model is better without.

    Limits: a probe shows what can be read, not what is used; that no other text excites a neuron cannot be proved; an ablation
    without effect may have been repaired by other neurons (the stand-ins were not switched off together with it), and one with
    effect may have broken something else than the feature.
    """
    single, first = look.single, look.verdict
    combination = first.startswith(FEW_NEURONS) and look.enough is not None
    tested = look.enough if combination else single
    if single is None or tested is None:
        return first, look.explanation
    others = (
        f"; {look.equals - 1} other single neurons reach 95 % of its score" if look.equals and look.equals > 1 else ""
    )
    why = f"{look.explanation}; {tested.words()}"
    if tested.specific and tested.effect_in < 0:
        why += "; the model is better without"
    if not tested.testable:
        return first, why
    if first == DEDICATED:
        if tested.specific:
            return CAUSAL, why + others
        return (STAND_INS, why + others) if others else (NO_EFFECT, why)
    if combination:
        short = first.replace(FEW_NEURONS, COMBINATION)
        return f"{short}, causal" if tested.specific else short, why
    return first, why
