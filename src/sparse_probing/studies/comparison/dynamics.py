"""What becomes of a feature over ordered models, in words, from stated rules. All thresholds are here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

MODELS = 3
"""Fewer runs than this show no dynamic."""
MARGIN = 0.05
"""F1 differences below this are no change, however sure they are."""
ABSENT = 0.10
"""A feature is absent where the F1 of its best single neuron is at most so much above chance: luck in choosing one of thousands
of neurons and its threshold is worth about as much. (Shuffled labels are no measure of it here: the neuron that they choose is a
random one, and where many neurons know a feature, a random one knows it, too.)"""
FULL = 0.8
"""Share of the whole rise that one step must bring to be sudden."""
DYNAMICS = ("appears suddenly", "sharpens", "splits", "fades", "no trend", "too few models")
SUDDEN, SHARPENS, SPLITS, FADES, NO_TREND, TOO_FEW = DYNAMICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """An F1 with its 95 % interval; an unknown interval is [0, 1]."""

    f1: float
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A feature in one run, test scores."""

    run: str
    single: Score
    """The best single neuron."""
    chance: float
    """F1 of always answering yes."""
    larger: dict[str, Score]
    """Probes on several neurons, by name; the same names in every run."""


def surely_above(a: Score, b: Score) -> bool:
    """Larger by the margin, and the intervals do not overlap.

    Two separate 95 % intervals are a sharper demand than p < 0.05 (for equal widths p is about 0.006), which pays for comparing
    the best of several runs. Runs share their test rows, so the difference is in truth less noisy than two independent scores.
    """
    return a.f1 - b.f1 >= MARGIN and a.low > b.high


def dynamic(points: Sequence[Point]) -> tuple[str, str]:
    """What becomes of a feature over ordered runs, and one sentence that explains it. The first rule that applies decides.

    1. *too few models*: fewer than 3.
    2. The last model's neuron lies surely below the best model's, with no sure fall before the best and no sure rise after it
       (else *no trend*: up and down). *splits*: a probe on several
       neurons loses less than the margin from that best model to the last one, and is there above the single neuron by the margin
       and with its whole interval. *fades*: all larger probes fall surely, too. *no trend*: neither can be shown.
    3. *no trend*: some model lies surely below an earlier one: up and down.
    4. *appears suddenly*: the first models are at chance (F1 at most 0.10 above it), and the next one is surely above the model
       before it and has at least 80 % of the rise from there to the best.
    5. *sharpens*: the last model lies surely above the first.
    6. *no trend*.

    "Surely" is `surely_above`: by the margin of 0.05, and beyond both intervals.

    Limits: few test rows have wide intervals, and then *no trend* only says that nothing can be shown. Runs that lie far apart in
    size make everything sudden. F1 depends on the share of positives and on the threshold. That finer neurons take over is one
    reading of *splits*; the rule sees only that several neurons still know what no single one knows.
    """
    if len(points) < MODELS:
        return TOO_FEW, f"{len(points)} of at least {MODELS}"
    scores = [point.single for point in points]
    top = max(range(len(points)), key=lambda i: scores[i].f1)
    best, last = points[top], points[-1]
    if surely_above(best.single, last.single):
        fall = f"one neuron: F1 {best.single.f1:.2f} in {best.run}, {last.single.f1:.2f} in {last.run}"
        if _falls(scores[: top + 1]) or _falls(scores[top:][::-1]):
            return NO_TREND, f"{fall}, up and down"
        larger = "; ".join(f"{name}: {best.larger[name].f1:.2f}, {last.larger[name].f1:.2f}" for name in best.larger)
        if any(_stays(best.larger[name], last.larger[name], last.single) for name in best.larger):
            return SPLITS, f"{fall}; {larger}"
        if best.larger and all(surely_above(best.larger[name], last.larger[name]) for name in best.larger):
            return FADES, f"{fall}; {larger}"
        return NO_TREND, f"{fall}; {larger}: whether larger probes stay cannot be told"
    span = f"one neuron: F1 {scores[0].f1:.2f} in {points[0].run}, {last.single.f1:.2f} in {last.run}"
    if _falls(scores):
        return NO_TREND, f"{span}, up and down"
    present = next((i for i, p in enumerate(points) if p.single.f1 > p.chance + ABSENT), 0)
    if present and surely_above(scores[present], scores[present - 1]):
        before, now = points[present - 1], points[present]
        if now.single.f1 - before.single.f1 >= FULL * (best.single.f1 - before.single.f1):
            step = f"one neuron: F1 {before.single.f1:.2f} in {before.run} (chance {before.chance:.2f})"
            return SUDDEN, f"{step}, {now.single.f1:.2f} in {now.run}"
    if surely_above(last.single, scores[0]):
        return SHARPENS, span
    return NO_TREND, f"{span}; no difference that is sure"


def _stays(then: Score, now: Score, single: Score) -> bool:
    return then.f1 - now.f1 < MARGIN <= now.f1 - single.f1 and now.low > single.f1


def _falls(scores: Sequence[Score]) -> bool:
    """Whether some score lies surely below an earlier one."""
    return any(surely_above(a, b) for a, b in combinations(scores, 2))
