"""Measure the demo model and write its card: held-out loss by language and kind of text, and what its neurons show.

    python tools/demo_model/evaluate.py --data CORPUS_FOLDER --build BUILD_FOLDER --out MODEL_FOLDER

Reads the `test` split of the corpus only, which neither the model nor (for the neurons) the probes have seen. `--build` is the
training folder, for the recipe's log. The card is `card.md` with the measured tables filled in.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sparse_probing as sp
from sparse_probing.datasets.readers import read_rows
from sparse_probing.datasets.sources.corpus import corpus_rows
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.records import Split

HERE = Path(__file__).parent
ROWS_PER_CLASS = 24


@torch.inference_mode()
def loss_of(model: Any, tokenizer: Any, texts: list[str]) -> tuple[float, int, int]:
    """Summed nats, tokens and bytes of texts cut to the context; the first token of a text is given, not predicted."""
    nats, tokens, size = 0.0, 0, 0
    for text in texts:
        ids = tokenizer(
            text,
            return_tensors="pt",
            truncation=True,
            max_length=model.config.max_position_embeddings,
            add_special_tokens=False,
        ).input_ids
        logits = model(ids).logits[0, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
        size += len(tokenizer.decode(ids[0, 1:]).encode())
    return nats, tokens, size


def loss_table(model: Any, tokenizer: Any, folder: Path) -> pl.DataFrame:
    """Nats per token and bits per byte, per group of the test split."""
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for split, row in corpus_rows(folder, BuildOptions()):
        if split is not Split.TEST:
            continue
        if row["code_language"]:
            texts["programming language", str(row["code_language"])].append(str(row["text"]))
        elif row["natural_language"] == "en":
            texts["kind of English text", str(row["distribution"])].append(str(row["text"]))
        if row["distribution"] == "fiction":
            texts["natural language (fiction)", str(row["natural_language"])].append(str(row["text"]))
    rows = []
    for (kind, name), group in sorted(texts.items()):
        nats, tokens, size = loss_of(model, tokenizer, group[:ROWS_PER_CLASS])
        rows.append({"group": kind, "name": name, "nats": nats, "tokens": tokens, "bytes": size})
        print(
            f"{kind:30} {name:20} {nats / tokens:.3f} nats/token {nats / math.log(2) / size:.3f} bits/byte", flush=True
        )
    return pl.DataFrame(rows)


def neuron_findings(model: Path, source: Any, data: Path | None) -> pl.DataFrame:
    """Best single neurons on one source, scores on its test split."""
    with tempfile.TemporaryDirectory() as folder:
        config = sp.RunConfig(
            model=str(model),
            source=source,
            data=data,
            windows_per_document=2,
            ks=(1,),
            random_model=False,
            out=Path(folder) / "run",
        )
        return sp.run(config).findings


def count_table(findings: pl.DataFrame, category: str, least: float) -> tuple[str, str]:
    """(sentence, Markdown table) on how many classes have a neuron that good."""
    block = findings.filter(category=category).sort("f1", descending=True)
    good = int((block["f1"] >= least).sum())
    lines = ["| class | neuron | test F1 [95 %] | test rows in / out |", "|---|---|---|---|"]
    for row in block.to_dicts():
        interval = f"{row['f1']:.3f} [{row['f1_low']:.3f}, {row['f1_high']:.3f}]"
        lines.append(
            f"| {row['feature']} | {row['neuron']} | {interval} | {row['n_test_positive']} / {row['n_test_negative']} |"
        )
    return f"{good} of {len(block)} classes have a single neuron with test F1 >= {least}", "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="corpus folder with train, valid and test files")
    parser.add_argument("--build", type=Path, required=True, help="training folder (loss.jsonl)")
    parser.add_argument("--out", type=Path, required=True, help="model folder; its README.md is written")
    arguments = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(arguments.out, dtype=torch.float32, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.out, trust_remote_code=False)
    losses = loss_table(model, tokenizer, arguments.data)
    total = losses.select(pl.col("nats", "tokens", "bytes").sum()).row(0, named=True)
    log = read_rows(arguments.build / "loss.jsonl")
    recipe = tomllib.loads((HERE / "recipe.toml").read_text(encoding="utf-8"))
    sections: dict[str, str] = {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "size": f"{(arguments.out / 'model.safetensors').stat().st_size / 1e6:.1f} MB",
        "tokens": f"{log[-1]['tokens']:,}",
        "held_out": f"{log[-1]['held_out_loss_nats']}",
        "recipe": json.dumps(recipe["training"], indent=1),
        "total": f"{total['nats'] / total['tokens']:.3f} nats per token, "
        f"{total['nats'] / math.log(2) / total['bytes']:.3f} bits per byte",
        "losses": "| group | class | nats per token | bits per byte |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {r['group']} | {r['name']} | {r['nats'] / r['tokens']:.3f} | {r['nats'] / math.log(2) / r['bytes']:.3f} |"
            for r in losses.to_dicts()
        ),
    }
    for key, source, data, category, least in (
        ("languages", "natural-language", arguments.data, "natural language", 0.95),
        ("code", "programming-language", arguments.data, "programming language", 0.8),
    ):
        findings = neuron_findings(arguments.out, source, data)
        sections[f"{key}_count"], sections[f"{key}_table"] = count_table(findings, category, least)
        print(sections[f"{key}_count"], sections[f"{key}_table"], sep="\n", flush=True)
    demo = neuron_findings(arguments.out, "demo", None)
    for key, category, least in (
        ("demo_languages", "natural language", 0.95),
        ("demo_code", "programming language", 0.8),
    ):
        sections[f"{key}_count"], sections[f"{key}_table"] = count_table(demo, category, least)
        print(sections[f"{key}_count"], sections[f"{key}_table"], sep="\n", flush=True)
    card = (HERE / "card.md").read_text(encoding="utf-8")
    for name, text in sections.items():
        card = card.replace("{{" + name + "}}", text)
    (arguments.out / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
