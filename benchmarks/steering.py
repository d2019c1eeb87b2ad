"""Does holding language neurons of the bundled model high turn its text into that language? The table of docs/steer.md.

    .venv/bin/python benchmarks/steering.py runs/demo [--languages de hu] [--seeds 20] [--placebos 5]

For each language: its best neuron at 1, 16 and 32 times its mean in class, and the best neurons of layers 1 to 5 together at 1, 4
and 8 times; then as many random neurons of the same layers at the last values. One line each: texts that a probe of an untouched
layer reads as the language, before and after, and the change of the log probability of a continuation.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from sparse_probing.open_run import open_model
from sparse_probing.records import task_rng, unit_name
from sparse_probing.results.findings import named_finding
from sparse_probing.results.run_folder import read_run
from sparse_probing.studies.effects.doses import parse_dose
from sparse_probing.studies.steering.steering import Change, changes_of, find_reader, pooling_of, steer

CATEGORY = "natural language"
CONTINUATIONS = {
    "de": " und der", "fr": " de la", "es": " de la", "hu": " és", "fi": " ja", "nl": " van de", "it": " che", "en": " and the",
}  # fmt: skip
ENGLISH = "She opened the door and walked into the room, because"
GERMAN = "Der alte Mann ging langsam durch das Dorf, weil"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--languages", nargs="+", choices=CONTINUATIONS, default=list(CONTINUATIONS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--placebos", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)  # one text at a time: threads would wait for each other
    manifest, tables = read_run(options.run)
    _, model = open_model(options.run, with_head=True)
    site = manifest["model"]["site"]

    def show(finding: dict, changes: list[Change], label: str) -> None:
        name = finding["feature"]
        prompt = GERMAN if name == "en" else ENGLISH
        reader = find_reader(model, tables, site, finding, pooling_of(options.run, finding), changes)
        found = steer(model, changes, [prompt], [CONTINUATIONS[name]], seeds=options.seeds, reader=reader)
        before, after = (
            sum((row[f"called_{side}"] or 0) > 0 for row in found["texts"]) for side in ("before", "after")
        )
        scored = found["continuations"][0]
        nats = scored["log_prob_after"] - scored["log_prob_before"]
        print(
            f"{name} {label}: {before} -> {after} of {options.seeds} texts, continuation {nats:+.1f} nats", flush=True
        )

    for name in options.languages:
        finding = named_finding(tables["findings"], f"{CATEGORY}/{name}")
        singles = tables["probes"].filter(category=CATEGORY, feature=name, method="single_neuron", split="validation")
        units = [
            unit_name(site, layer, columns[0])
            for layer, columns in singles.select("layer", "columns").iter_rows()
            if layer > 0
        ]
        changes: list[Change] = []
        for chosen, times in ((), 1), ((), 16), ((), 32), (units, 1), (units, 4), (units, 8):
            changes = changes_of(model, tables, site, finding, chosen, parse_dose(f"{times}x"))
            show(finding, changes, f"{len(changes)} neurons {times}x")
        for i in range(options.placebos):
            rng = task_rng(0, "steering", name, i)
            drawn = [(change, int(rng.integers(change.site.width))) for change in changes]
            random = [replace(c, unit=unit_name(site, c.site.layer, u), index=u) for c, u in drawn]
            show(finding, random, f"{len(random)} random neurons, same values")


if __name__ == "__main__":
    main()
