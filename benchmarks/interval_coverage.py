"""How often a 95 % interval holds the true value, on simulated documents.

    .venv/bin/python benchmarks/interval_coverage.py [--repeats 500] [--out docs/benchmarks.md]

A document has 1 to 8 rows. Half of the variance of the score's noise, and half of that of the variable behind the label, belongs to
the document. The true value is that of one sample of 200,000 documents, at the threshold with the best F1 there; that threshold
stays fixed. Each repetition draws new documents and makes all three kinds of interval from the same 1,000 resamples: percentile,
BCa, and the one that is used (BCa with the low end from resamples with two wrong rows added).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from page import machine, write_section
from sparse_probing.metrics.intervals import Bootstrap, bca_interval, percentile_interval
from sparse_probing.metrics.scores import Scored, best_f1_threshold, metrics_at

METRICS = {"f1": "F1", "roc_auc": "ROC-AUC", "average_precision": "average precision"}
SHARES = (0.1, 0.25, 0.5)
SEPARATIONS = {"moderate": (2.0, 0.0), "strong": (4.0, 0.0), "nearly perfect": (5.0, 0.0), "wrong labels": (5.0, 0.005)}
"""Distance of the classes' mean scores, in standard deviations of a row, and the share of labels that are turned round."""
WAYS = ("percentile", "BCa", "used")
DOCUMENTS = (60, 150, 400)
WANTED = (0.92, 0.98)


def draw(
    rng: np.random.Generator, documents: int, share: float, separation: tuple[float, float]
) -> tuple[Scored, np.ndarray]:
    """Rows of a number of documents, and the document of each row."""
    groups = np.repeat(np.arange(documents), rng.integers(1, 9, size=documents))

    def clustered() -> np.ndarray:
        return np.sqrt(0.5) * (rng.normal(size=documents)[groups] + rng.normal(size=len(groups)))

    positive = clustered() > -ndtri(share)
    score = separation[0] * positive + clustered()
    if separation[1]:
        positive ^= rng.random(len(groups)) < separation[1]
    return Scored(score=score, positive=positive), groups


def repetition(
    seed: list[int], documents: int, share: float, separation: tuple[float, float], threshold: float
) -> np.ndarray:
    """Ends of the intervals, [metric, way, (low, high)]."""
    rng = np.random.default_rng(seed)
    scored, groups = draw(rng, documents, share, separation)
    while not 0 < scored.positive.sum() < len(groups):
        scored, groups = draw(rng, documents, share, separation)
    bootstrap = Bootstrap(groups, scored.positive, rng)
    table, left_out = bootstrap.table(scored, threshold), bootstrap.left_out(scored, threshold)
    estimate, used = metrics_at(scored, threshold), bootstrap.intervals(scored, threshold, table)
    return np.array(
        [[percentile_interval(table[m]), bca_interval(table[m], estimate[m], left_out[m]), used[m]] for m in METRICS]
    )


def coverage(repeats: int) -> Iterator[tuple[str, str, float, float, int, np.ndarray, np.ndarray]]:
    """(metric, separation, share, true value, documents, coverage of each way, mean width of each way)."""
    for s, (name, separation) in enumerate(SEPARATIONS.items()):
        for share in SHARES:
            population, _ = draw(np.random.default_rng([s, round(100 * share)]), 200_000, share, separation)
            threshold = best_f1_threshold(population)
            true = metrics_at(population, threshold)
            for documents in DOCUMENTS:
                seeds = [[s, round(100 * share), documents, r] for r in range(repeats)]
                ends = np.array([repetition(seed, documents, share, separation, threshold) for seed in seeds])
                for m, metric in enumerate(METRICS):
                    low, high = ends[:, m, :, 0], ends[:, m, :, 1]
                    held = ((low <= true[metric]) & (true[metric] <= high)).mean(axis=0)
                    yield metric, name, share, true[metric], documents, held, (high - low).mean(axis=0)


def table_lines(repeats: int) -> list[str]:
    """The tables, printed as they grow, and what they come to."""
    cells: dict[tuple[str, str, float, float], dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for metric, name, share, true, documents, held, width in coverage(repeats):
        cells.setdefault((metric, name, share, true), {})[documents] = held, width
        print(
            f"{METRICS[metric]}, {name}, {share}, true {true:.4f}, {documents}: {100 * held}, width {width}", flush=True
        )
    head = ["metric", "classes", "class share", "true value", *(f"{n} documents" for n in DOCUMENTS)]
    lines = [_row(head), "|---" * len(head) + "|"]
    for metric in METRICS:
        for (of, name, share, true), row in cells.items():
            if of == metric:
                shown = [
                    " / ".join(f"{100 * h:.1f}" for h in held) + f" ({width[-1]:.3f})" for held, width in row.values()
                ]
                lines.append(_row([METRICS[metric], name, f"{share:.2f}", f"{true:.4f}", *shown]))
    everything = [(*key[:2], n, held) for key, row in cells.items() for n, (held, _) in row.items()]
    head = ["", *(f"{way}, mean" for way in WAYS), *(f"{way}, cells in 92-98 %" for way in WAYS)]
    lines += ["", _row(head), "|---" * len(head) + "|"]
    for title, chosen in (
        *(
            (f"{METRICS[m]}, {name}", [x for x in everything if x[:2] == (m, name)])
            for m in METRICS
            for name in SEPARATIONS
        ),
        *((f"{n} documents", [x for x in everything if x[2] == n]) for n in DOCUMENTS),
        ("all", everything),
    ):
        held = np.array([x[3] for x in chosen])
        inside = ((held >= WANTED[0]) & (held <= WANTED[1])).sum(axis=0)
        means = [f"{100 * mean:.1f} %" for mean in held.mean(axis=0)]
        lines.append(_row([title, *means, *(f"{count} of {len(held)}" for count in inside)]))
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500, help="repetitions per cell (default 500)")
    parser.add_argument("--out", type=Path, help="Markdown page whose section is replaced; printed when not given")
    arguments = parser.parse_args()
    lines = [
        f"`benchmarks/interval_coverage.py`, {machine()}",
        f"How many of {arguments.repeats} intervals (95 %) hold the true value, in per cent:",
        f"{' / '.join(WAYS)} (mean width of the last). Wanted: 92 to 98. The interval that is used is BCa,",
        "its low end at most that of resamples with one wrong row added per class.",
        "Documents of 1 to 8 rows with a shared random effect in score and label, threshold held fixed, 1,000 resamples.",
        "",
        *table_lines(arguments.repeats),
    ]
    if arguments.out:
        write_section(arguments.out, "Coverage of the intervals", lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
