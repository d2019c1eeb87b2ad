"""How often a run calls noise significant: labels that mean nothing, through the run's own path, p as it is printed.

    .venv/bin/python benchmarks/null_calibration.py [--labels 500] [--model demo] [--layers 2 5] [--out docs/benchmarks.md]

Half of the labels are drawn for each text, half for each of 60 groups of texts. Groups stay in one split, as in any run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import sparse_probing as sp
from page import machine, write_section
from sparse_probing.datasets.sources.demo_corpus import documents_of

GROUPS, LEVELS = 60, (0.01, 0.05, 0.1, 0.25, 0.5)
DRAWN = ("for each text", "for each group")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--labels", type=int, default=500)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng, started = np.random.default_rng(0), time.monotonic()
    documents = documents_of("natural language").documents
    topics = {topic: i % GROUPS for i, topic in enumerate(sorted({d.group for d in documents}))}
    group = np.array([topics[d.group] for d in documents])
    labels: dict[str, list[bool | None]] = {}
    for i in range(options.labels):
        text = i % 2 == 0
        drawn = rng.random(len(group)) < 0.4 if text else (rng.random(GROUPS) < 0.4)[group]
        labels[f"{DRAWN[0] if text else DRAWN[1]} {i}"] = drawn.tolist()
    noise = sp.document_level_text("noise", [d.text for d in documents], labels, [str(g) for g in group])
    with tempfile.TemporaryDirectory() as folder:
        config = sp.RunConfig(
            model=options.model, layers=tuple(options.layers), ks=(1,), methods=("mean_difference",), random_model=False,
            out=Path(folder) / "run",
        )  # fmt: skip
        findings = sp.run(config, [noise]).findings
    said = [f"{len(findings)} of {options.labels} labels have rows of both classes in every split.", ""]
    said += ["| p | labels drawn | " + " | ".join(f"at most {level}" for level in LEVELS) + " |"]
    said += ["|---|---|" + "---:|" * len(LEVELS)]
    for name, words in (("p", "the feature's: is there any neuron"), ("p_family", "the named neuron's")):
        for drawn in DRAWN:
            p = findings.filter(findings["feature"].str.starts_with(drawn))[name].to_numpy()
            said.append(
                f"| {words} | {drawn} | " + " | ".join(f"{100 * (p <= at).mean():.1f} %" for at in LEVELS) + " |"
            )
    found = findings["verdict"].value_counts().sort("count", descending=True).rows()
    said += ["", "Verdicts: " + ", ".join(f"{count} *{verdict}*" for verdict, count in found) + "."]
    said += [
        "",
        f"`benchmarks/null_calibration.py`, model {options.model}, {time.monotonic() - started:.0f} s, {machine()}",
    ]
    print("\n".join(said))
    if options.out:
        write_section(options.out, "Noise through a whole run", said)


if __name__ == "__main__":
    main()
