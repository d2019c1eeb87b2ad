"""Recompute the neurons that a run names with nothing of the package: transformers, a plain hook, NumPy and scikit-learn.

    .venv/bin/python tools/recompute.py RUN MODEL_FOLDER [--tolerance 1e-4] [--only 10]

For every finding the neuron's activations are read again from the texts of the run folder (`dataset/documents`, `rows`, `labels`),
pooled and rounded to float16 as the run stores them. Then: the correlation with the label on training rows, the threshold of best
F1 on validation rows, F1 and average precision on test rows with that threshold; all are compared with `findings.parquet`. Exit
code 1 if one of them differs by more than the tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from transformers import AutoModel, AutoTokenizer

DOWN_PROJECTIONS = {
    "gpt_neox": "layers.{}.mlp.dense_4h_to_h",
    "gpt2": "h.{}.mlp.c_proj",
    "llama": "layers.{}.mlp.down_proj",
    "bert": "encoder.layer.{}.output.dense",
}
"""The module whose input are a layer's neurons."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--only", type=int, help="the first findings only")
    options = parser.parse_args(arguments)
    findings = pl.read_parquet(options.run / "findings.parquet", glob=False).head(options.only or sys.maxsize)
    documents, rows, labels = (
        pl.read_parquet(options.run / "dataset" / f"{name}.parquet", glob=False)
        for name in ("documents", "rows", "labels")
    )
    wanted = sorted({(f["layer"], f["unit"]) for f in findings.to_dicts()})
    made_with = json.loads((options.run / "manifest.json").read_text(encoding="utf-8"))["options"]
    if made_with.get("chat_template"):
        sys.exit("runs with a chat template are not recomputed")
    values = activations(
        options.model, documents["text"].to_list(), rows.to_dicts(), wanted, made_with.get("special_tokens")
    )
    worst, wrong = 0.0, 0
    for finding in findings.to_dicts():
        mine = labels.filter(category=finding["category"], feature=finding["feature"]).join(rows, on="row")
        x = values[finding["layer"], finding["unit"]][mine["row"].to_numpy()]
        found = scores(x, mine["positive"].to_numpy(), mine["split"].to_numpy())
        apart = {name: abs(value - finding[name]) for name, value in found.items()}
        worst, bad = max(worst, *apart.values()), max(apart.values()) > options.tolerance
        wrong += bad
        said = ", ".join(f"{name} {value:.6f} (run {finding[name]:.6f})" for name, value in found.items())
        print(f"{'DIFFERS' if bad else 'ok':<7} {finding['category']}/{finding['feature']} {finding['neuron']}: {said}")
    print(f"{len(findings) - wrong} of {len(findings)} findings equal, largest difference {worst:.1e}")
    return 1 if wrong or not len(findings) else 0


def activations(
    folder: Path, texts: list[str], rows: list[dict], wanted: list[tuple[int, int]], special: str | None
) -> dict[tuple[int, int], np.ndarray]:
    """(layer, unit) -> pooled activation of each row, rounded to float16."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    seen: dict[int, torch.Tensor] = {}
    units = {layer: [unit for at, unit in wanted if at == layer] for layer in sorted({layer for layer, _ in wanted})}

    def remember(layer: int):
        def hook(_module, arguments) -> None:
            seen[layer] = arguments[0][0][:, units[layer]]

        return hook

    for layer in units:
        path = DOWN_PROJECTIONS[model.config.model_type].format(layer)
        model.get_submodule(path).register_forward_pre_hook(remember(layer))
    front, behind = special_tokens(tokenizer, special)
    result = {place: np.zeros(len(rows), dtype=np.float16) for place in wanted}
    contexts: dict[tuple[int, int, int], list[dict]] = {}
    for row in rows:
        contexts.setdefault((row["document"], row["context_start"], row["context_end"]), []).append(row)
    encoded: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}
    for (document, start, end), members in contexts.items():
        if document not in encoded:
            encoding = tokenizer(
                texts[document],
                add_special_tokens=False,
                split_special_tokens=special is not None,  # text is data, but not in older runs
                return_offsets_mapping=True,
                truncation=False,
                padding=False,
            )
            encoded = {document: (encoding["input_ids"], encoding["offset_mapping"])}
        inside = [i for i, (a, b) in zip(*encoded[document], strict=True) if a >= start and b <= end]
        with torch.no_grad():
            model(input_ids=torch.tensor([[*front, *inside, *behind]]))
        for row in members:
            part = slice(row["first_token"], row["last_token"] + 1)
            for layer, of_layer in units.items():
                pooled = pool(seen[layer][part].double(), row["pooling"]).numpy().astype(np.float16)
                for unit, value in zip(of_layer, pooled, strict=True):
                    result[layer, unit][row["row"]] = value
    return result


def special_tokens(tokenizer, choice: str | None) -> tuple[list[int], list[int]]:
    """Ids in front of and behind a text, as the run chose; older runs had a BOS where the tokenizer adds nothing."""
    if choice == "none":
        return [], []
    bare = tokenizer("a", add_special_tokens=False, padding=False)["input_ids"]
    dressed = tokenizer("a", padding=False)["input_ids"]
    at = next(i for i in range(len(dressed)) if dressed[i : i + len(bare)] == bare)
    front, behind = dressed[:at], dressed[at + len(bare) :]
    bos = tokenizer.bos_token_id
    if (choice == "bos" and bos not in front) or (choice is None and not front and not behind and bos is not None):
        front = [bos, *front]
    return front, behind


def pool(x: torch.Tensor, how: str) -> torch.Tensor:
    """One value per unit."""
    if how == "mean":
        return x.mean(dim=0)
    if how == "max":
        return x.max(dim=0).values
    return x[-1] if how == "last" else x[0]


def scores(x: np.ndarray, positive: np.ndarray, split: np.ndarray) -> dict[str, float]:
    """Statistics of one neuron; the direction is that of training rows."""
    train, validation, test = (split == name for name in ("train", "validation", "test"))
    x = x.astype(np.float64)
    correlation = float(np.corrcoef(x[train], positive[train])[0, 1])
    score = x if correlation >= 0 else -x
    threshold = best_threshold(score[validation], positive[validation])
    return {
        "correlation": correlation,
        "f1": float(f1_score(positive[test], score[test] > threshold)),
        "average_precision": float(average_precision_score(positive[test], score[test])),
    }


def best_threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """Half way between the lowest score that is called positive at the best F1, and the one below."""
    precision, recall, thresholds = precision_recall_curve(positive, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    at = int(np.argmax(np.round(f1[:-1], 12)))  # the lowest threshold of equals
    below = score[score < thresholds[at]]
    return (thresholds[at] + below.max()) / 2 if len(below) else thresholds[at] - 1.0


if __name__ == "__main__":
    sys.exit(main())
