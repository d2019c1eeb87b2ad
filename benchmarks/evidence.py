"""Cost of the second look: interventions on neurons with their placebos against the bare forward passes that they need.

    .venv/bin/python benchmarks/evidence.py [--texts 16] [--out docs/benchmarks.md]

20 neurons of the bundled model over all layers, each set to zero, with 20 placebos each, on texts of 256 tokens of the bundled
corpus. The other arm runs in the same process, in turn with the first, neuron by neuron: one whole pass over the texts for the
neuron, then for each of its 21 changes the blocks from its layer on, the final norm and the head, on hidden states that lie
ready: no hooks, no losses, no statistics. Both arms are linear in texts: 2,000 texts take 125 times as long as 16.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from page import machine, write_section
from sparse_probing.activations.effects import loss_budget
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import load_model
from sparse_probing.config import RunConfig
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.inputs import build_dataset, labelled_text_of
from sparse_probing.records import NEURONS
from sparse_probing.studies.effects.interventions import Support, Treatment, feature_effects
from sparse_probing.studies.effects.texts import EvidenceTexts, Scoring, evidence_texts, parts_of

NEURONS_TRIED, PLACEBOS, WINDOW = 20, 20, 256
CATEGORY = "natural language"


def texts_of(model: LoadedModel, count: int) -> tuple[FeatureDataset, EvidenceTexts]:
    """Windows of 256 tokens: what is shorter is filled with tokens of other texts, as only the cost counts here."""
    config = RunConfig(model="demo", source="demo", windows_per_document=2, window=WINDOW)
    dataset = build_dataset(config, [t for t in labelled_text_of(config) if t.category == CATEGORY], model)
    made = evidence_texts(
        dataset, 0, per_class=count // 2, parts=parts_of(dataset, CATEGORY), scoring=Scoring(None), seed=0
    )
    rng = np.random.default_rng(0)
    filled = []
    for text in made.texts:
        more = rng.choice(dataset.tokens, size=WINDOW - len(text.tokens))
        tokens = np.concatenate([text.tokens, more])
        targets = np.append(tokens[1:], -1)
        filled.append(
            type(text)(tokens=tokens, targets=targets, number=text.number, labelled=np.ones(WINDOW, dtype=bool))
        )
    return dataset, EvidenceTexts(
        texts=filled, row=made.row, row_text=made.row_text, positive=made.positive, group=made.group, own_tokens=False
    )


@torch.inference_mode()
def bare(model: LoadedModel, evidence: EvidenceTexts, layer: int, batch: int) -> None:
    """The passes alone."""
    full: Any = model.full
    tail = copy.copy(full)
    tail._modules = dict(full._modules)
    base = copy.copy(full.gpt_neox)
    base._modules = dict(base._modules)
    base.layers = torch.nn.ModuleList(list(full.gpt_neox.layers)[layer:])
    tail.gpt_neox = base
    for begin in range(0, len(evidence.texts), batch):
        ids = torch.from_numpy(np.stack([t.tokens for t in evidence.texts[begin : begin + batch]]))
        mask = torch.ones_like(ids)
        full(input_ids=ids, attention_mask=mask)
        hidden = torch.randn(*ids.shape, full.config.hidden_size)
        for _ in range(1 + PLACEBOS):
            tail(inputs_embeds=hidden, attention_mask=mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, nargs="+", default=[16])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = load_model("demo", device="cpu", with_head=True)
    sites = model.sites.named(NEURONS)
    rng = np.random.default_rng(0)
    chosen = [(sites[i % len(sites)], int(rng.integers(sites[0].width))) for i in range(NEURONS_TRIED)]
    budget = loss_budget(model)
    lines = [
        "| texts of 256 tokens | neurons x changes | bare passes | second look | ratio | whole passes instead |",
        "|---|---|---|---|---|---|",
    ]
    for count in options.texts:
        dataset, evidence = texts_of(model, count)
        times, trusted = {"bare": 0.0, "look": 0.0, "whole": 0.0}, {}
        bare(model, evidence, 5, budget.tokens // WINDOW)  # warm up
        for site, unit in chosen:
            started = time.perf_counter()
            bare(model, evidence, site.layer, budget.tokens // WINDOW)
            times["bare"] += time.perf_counter() - started
            started = time.perf_counter()
            feature_effects(
                model,
                dataset,
                evidence,
                [Support(role="single", site=site, units=(unit,))],
                Treatment(placebos=PLACEBOS),
                feature=0,
                probes=pl.DataFrame(schema={"category": pl.String, "feature": pl.String, "layer": pl.Int32, "split": pl.String,
                                            "k": pl.Int32, "method": pl.String, "f1": pl.Float64, "average_precision": pl.Float64}),
                sites=sites,
                seed=0,
                budget=budget,
                trusted=trusted,
            )  # fmt: skip
            times["look"] += time.perf_counter() - started
        started = time.perf_counter()
        bare(model, evidence, 0, budget.tokens // WINDOW)
        times["whole"] = NEURONS_TRIED * (time.perf_counter() - started)
        ratio = times["look"] / times["bare"]
        lines.append(
            f"| {len(evidence.texts)} | {NEURONS_TRIED} x {1 + PLACEBOS} | {times['bare']:.1f} s | {times['look']:.1f} s | "
            f"{ratio:.2f} | {times['whole']:.1f} s (one neuron measured, times {NEURONS_TRIED}) |"
        )
        print(lines[-1], flush=True)
    text = [
        "Cost of `sprobe verify`: 20 neurons of the bundled model, each set to zero, with 20 placebos each, against the forward",
        "passes that this needs (a whole one per neuron; for each of its 21 changes the blocks from its layer on, and the head).",
        "",
        *lines,
        "",
        f"`.venv/bin/python benchmarks/evidence.py`, {machine()}.",
    ]
    if options.out:
        write_section(options.out, "The second look", text)


if __name__ == "__main__":
    main()
