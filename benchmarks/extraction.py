"""Speed and memory of extraction and of the activation store.

    .venv/bin/python benchmarks/extraction.py [--out docs/benchmarks.md]       all figures
    .venv/bin/python benchmarks/extraction.py --figure all-positions           one of them, as JSON

Each figure is a process of its own; both arms of a ratio run in it, in turn, and the ratio of their medians counts. The model has
the shape of Pythia-70m with random weights (6 layers, d = 512, 2,048 neurons per layer, vocabulary 50,304); texts are random
tokens of 32 to 256 per text: speed depends on neither weights nor meaning.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM

from page import machine, write_section
from sparse_probing.activations.batches import TokenBudget, forward, run_batches
from sparse_probing.activations.extract import BYTES_PER_SHARD, extract, find_units, sequence_tokens
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.model_files import find_model
from sparse_probing.activations.models import wrap_model
from sparse_probing.activations.shard_buffer import ShardBuffer
from sparse_probing.activations.shards import write_shard
from sparse_probing.activations.store import Activations, ActivationStore
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.records import NEURONS, POOLINGS, Pooling, Site

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
SHAPES: dict[str, dict[str, Any]] = {
    "70m": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048},
    "1.4b": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 8192},
}
TOKENS = 60_000 if DEVICE == "cpu" else 1_000_000
REPEATS = 4


def random_model(shape: str = "70m") -> tuple[GPTNeoXForCausalLM, LoadedModel]:
    torch.manual_seed(0)
    network = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50_304, max_position_embeddings=2048, **SHAPES[shape]))
    network = network.eval().to(DTYPE).to(DEVICE)  # pyright: ignore[reportArgumentType]
    return network, wrap_model(
        network, AutoTokenizer.from_pretrained(find_model("demo").path, trust_remote_code=False), shape
    )


def random_rows(tokens: int, share: float = 1.0, seed: int = 0) -> FeatureDataset:
    """Texts of 32 to 256 random tokens; rows are all of them, or a random share."""
    rng = np.random.default_rng(seed)
    lengths = []
    while sum(lengths) < tokens:
        lengths.append(int(rng.integers(32, 257)))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    chosen = np.sort(rng.permutation(starts[-1])[: round(share * starts[-1])])
    first = (np.arange(starts[-1]) - starts[sequence])[chosen]
    nothing = np.zeros(len(chosen), dtype=int)
    return FeatureDataset(
        features=(), categories=(), document_ids=("random",), texts=("",),
        tokens=rng.integers(0, 50_000, starts[-1]).astype(np.int32),
        char_starts=np.zeros(starts[-1], dtype=np.int32), char_ends=np.zeros(starts[-1], dtype=np.int32),
        sequence_starts=starts, sequence_document=np.zeros(len(lengths), dtype=int),
        row_sequence=sequence[chosen], row_first=first, row_last=first + 1,
        row_pooling=nothing + POOLINGS.index(Pooling.TOKEN), row_group=nothing, row_split=nothing,
        positive=np.zeros((len(chosen), 0), dtype=bool), eligible=np.zeros((len(chosen), 0), dtype=bool), audits={},
    )  # fmt: skip


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def bare(model: LoadedModel, dataset: FeatureDataset, sites: tuple[Site, ...]) -> None:
    """The forward pass alone, stopped at the same place, on the same batches: shard by shard, by length within."""
    from sparse_probing.activations.extract import open_store

    with tempfile.TemporaryDirectory() as folder:
        bounds = open_store(model, dataset, Path(folder)).sequence_bounds
    budget = TokenBudget(model)
    for first, last in pairwise(bounds):
        used = np.intersect1d(np.arange(first, last), dataset.row_sequence)
        run_batches(
            used,
            dataset.sequence_lengths()[used],
            budget,
            lambda members: forward(
                model, [sequence_tokens(dataset, s) for s in members.tolist()], sites, lambda *_: None
            ),
        )


def throughput(share: float, shape: str = "70m") -> dict[str, float]:
    """Extraction to disk against the bare forward pass."""
    _, model = random_model(shape)
    dataset = random_rows(TOKENS, share)
    sites = find_units(model)
    bare(model, random_rows(20_000), sites)  # warm up

    def extraction() -> None:
        with tempfile.TemporaryDirectory() as folder:
            times["extraction"].append(seconds(lambda: extract(model, dataset, sites, cache=Path(folder))))

    def forward_alone() -> None:
        times["bare"].append(seconds(lambda: bare(model, dataset, sites)))

    times: dict[str, list[float]] = {"bare": [], "extraction": []}
    for repeat in range(REPEATS):
        for arm in (forward_alone, extraction) if repeat % 2 == 0 else (extraction, forward_alone):
            arm()
    tokens = len(dataset.tokens)
    return {
        "bare_tokens_per_s": tokens / median(times["bare"]),
        "extraction_tokens_per_s": tokens / median(times["extraction"]),
        "ratio": median(b / e for b, e in zip(times["bare"], times["extraction"], strict=True)),
    }


@torch.no_grad()
def usual_way(network: Any, hooked: list[Any], dataset: FeatureDataset, folder: str, batch_size: int = 32) -> None:
    """What scripts do: texts in the order in which they come, padded to the longest of 32, a forward hook on every MLP, `.cpu()`
    per layer, everything in memory, `torch.cat`, `torch.save`."""
    kept: dict[int, list[torch.Tensor]] = {i: [] for i in range(len(hooked))}
    caught: dict[int, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _m, _i, out, i=i: caught.__setitem__(i, out.detach().cpu()))
        for i, module in enumerate(hooked)
    ]
    sequences = [torch.from_numpy(sequence_tokens(dataset, s).astype(np.int64)) for s in range(dataset.n_sequences)]
    for begin in range(0, len(sequences), batch_size):
        batch = sequences[begin : begin + batch_size]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(DEVICE)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in batch], batch_first=True)
        network(input_ids=ids, attention_mask=mask.to(DEVICE))
        for i, values in caught.items():
            kept[i].append(values[mask.bool()])
    for handle in handles:
        handle.remove()
    for i, pieces in kept.items():
        torch.save(torch.cat(pieces), Path(folder) / f"layer{i}.pt")


def against_the_usual_way(*, head: bool) -> dict[str, float]:
    network, model = random_model()
    dataset = random_rows(TOKENS // 3)  # the usual way keeps everything in memory, twice
    sites = find_units(model)
    hooked = [block.mlp.act for block in network.gpt_neox.layers]
    runner = network if head else network.gpt_neox
    times: dict[str, list[float]] = {"usual": [], "extraction": []}
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            times["usual"].append(seconds(lambda f=folder: usual_way(runner, hooked, dataset, f)))
            times["extraction"].append(seconds(lambda f=folder: extract(model, dataset, sites, cache=Path(f))))
    tokens = len(dataset.tokens)
    return {
        "usual_tokens_per_s": tokens / median(times["usual"]),
        "extraction_tokens_per_s": tokens / median(times["extraction"]),
        "times_faster": median(times["usual"]) / median(times["extraction"]),
    }


def peak_memory(tokens: int) -> dict[str, float]:
    """Peak resident memory of a process that extracts so many rows; the model and the libraries are in it."""
    _, model = random_model()
    dataset = random_rows(tokens)
    with tempfile.TemporaryDirectory() as folder:
        extract(model, dataset, find_units(model), cache=Path(folder))
    return {"rows": float(dataset.n_rows), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def memory() -> dict[str, float]:
    few, many = (run_figure(f"memory-{tokens}") for tokens in (TOKENS // 3, TOKENS // 3 * 10))
    return {
        "rows_few": few["rows"], "rows_many": many["rows"], "peak_few_mb": few["peak_mb"], "peak_many_mb": many["peak_mb"],
        "growth_mb": many["peak_mb"] - few["peak_mb"],
    }  # fmt: skip


def stored_layer(folder: Path, rows: int, width: int = 2048) -> tuple[Activations, np.ndarray]:
    """One layer as an extraction of the six-layer model would have left it, and its first shard's values."""
    per_shard = BYTES_PER_SHARD // (6 * width * 2)
    bounds = np.unique(np.minimum(np.arange(0, rows + per_shard, per_shard), rows))
    store = ActivationStore(folder / "store", bounds, bounds, {"model": "random", "rows": rows, "tokens": rows})
    array = store.array(Site(name=NEURONS, layer=0, width=width, module_path="", side="input"), "float16")
    array.folder.mkdir(parents=True)
    block = torch.from_numpy(np.random.default_rng(0).normal(size=(per_shard, width)).astype(np.float16))
    for shard in range(len(bounds) - 1):
        n = array.rows_of(shard)
        buffer = ShardBuffer(array.site, n, "float16")
        buffer.put(np.arange(n), block[:n])
        write_shard(array.path(shard), buffer.tensors(), rows=n, width=width)
    return Activations({0: array}), block.numpy()


def one_neuron(rows: int = 1_000_000) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store, block = stored_layer(Path(folder), rows)
        first = store.column(0, 77)
        assert (first[: len(block)] == block[:, 77]).all()
        times = {"warm": [seconds(lambda: store.column(0, 77)) for _ in range(7)]}
        times["first"] = [seconds(lambda u=unit: store.column(0, u)) for unit in (200, 700, 1500)]
        chosen = np.sort(np.random.default_rng(1).permutation(rows)[:4000])
        times["rows"] = [seconds(lambda: store.read(0, chosen)) for _ in range(5)]
    return {
        "rows": float(rows),
        "one_neuron_warm_ms": 1e3 * median(times["warm"]),
        "one_neuron_first_ms": 1e3 * median(times["first"]),
        "4000_random_rows_ms": 1e3 * median(times["rows"]),
    }


def one_layer(rows: int = 250_000) -> dict[str, float]:
    """A whole layer of 1 GB against `np.array(np.load(file, mmap_mode="r"))` of the same numbers, both from the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        store, _ = stored_layer(Path(folder), rows)
        plain = Path(folder) / "plain.npy"
        np.save(plain, store.read(0, dtype=np.float16))
        times: dict[str, list[float]] = {"memmap": [], "store": [], "store_float32": []}
        for _ in range(5):
            times["memmap"].append(seconds(lambda: np.array(np.load(plain, mmap_mode="r"))))
            times["store"].append(seconds(lambda: store.read(0, dtype=np.float16)))
            times["store_float32"].append(seconds(lambda: store.read(0)))
    size = rows * 2048 * 2 / 1e9
    return {
        "memmap_gb_per_s": size / median(times["memmap"]),
        "store_gb_per_s": size / median(times["store"]),
        "store_to_float32_gb_per_s": size / median(times["store_float32"]),
        "ratio": median(times["memmap"]) / median(times["store"]),
    }


FIGURES: dict[str, Callable[[], dict[str, float]]] = {
    "all-positions": lambda: throughput(1.0),
    "labelled-positions": lambda: throughput(0.05),
    "usual-way": lambda: against_the_usual_way(head=True),
    "usual-way-without-head": lambda: against_the_usual_way(head=False),
    "memory": memory,
    "one-neuron": one_neuron,
    "one-layer": one_layer,
}
if DEVICE == "cuda":
    FIGURES |= {
        "all-positions-1.4b": lambda: throughput(1.0, "1.4b"),
        "labelled-positions-1.4b": lambda: throughput(0.05, "1.4b"),
    }


def run_figure(name: str) -> dict[str, float]:
    """One figure in a process of its own."""
    command = [sys.executable, __file__, "--figure", name]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def table(results: dict[str, dict[str, float]]) -> list[str]:
    def speed(name: str, title: str) -> str:
        r = results[name]
        other = r.get("bare_tokens_per_s", r.get("usual_tokens_per_s", 0.0))
        ratio = f"{r['ratio']:.2f}" if "ratio" in r else f"{r['times_faster']:.1f} times"
        return f"| {title} | {r['extraction_tokens_per_s']:,.0f} tok/s | {other:,.0f} tok/s | {ratio} |"

    m, c, w = results["memory"], results["one-neuron"], results["one-layer"]
    rows = [
        "| extraction of all neurons to disk | here | other arm | ratio |",
        "|---|---|---|---|",
        speed("all-positions", "every position, against the bare forward pass"),
        speed("labelled-positions", "5 % of the positions, against the bare forward pass"),
        *(speed(name, f"{name}, against the bare forward pass") for name in results if name.endswith("1.4b")),
        speed("usual-way", "every position, against the usual script (causal language model)"),
        speed("usual-way-without-head", "the same, when the script leaves out the language-model head"),
        "",
        "| memory and reading | |",
        "|---|---|",
        f"| peak memory, {m['rows_few']:,.0f} rows | {m['peak_few_mb']:,.0f} MB |",
        f"| peak memory, {m['rows_many']:,.0f} rows | {m['peak_many_mb']:,.0f} MB ({m['growth_mb']:+,.0f} MB) |",
        f"| one neuron over {c['rows']:,.0f} rows, warm | {c['one_neuron_warm_ms']:.0f} ms |",
        f"| another neuron, for the first time | {c['one_neuron_first_ms']:.0f} ms |",
        f"| 4,000 random rows of 2,048 neurons out of these | {c['4000_random_rows_ms']:.0f} ms |",
        f"| a layer of 1 GB, float16 | {w['store_gb_per_s']:.2f} GB/s, {w['ratio']:.2f} of `np.memmap` |",
        f"| the same, converted to float32 | {w['store_to_float32_gb_per_s']:.2f} GB/s |",
    ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", help=f"one of {', '.join(FIGURES)}")
    parser.add_argument("--out", type=Path, help="Markdown page whose section is replaced; printed when not given")
    arguments = parser.parse_args()
    if arguments.figure:
        name = arguments.figure
        result = peak_memory(int(name.split("-")[1])) if name.startswith("memory-") else FIGURES[name]()
        print(json.dumps(result))
        return
    results: dict[str, dict[str, float]] = {}
    for name, figure in FIGURES.items():
        results[name] = figure() if name == "memory" else run_figure(name)
        print(name, json.dumps(results[name]), flush=True)
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU"
    precision = str(DTYPE).removeprefix("torch.")
    lines = [
        f"`benchmarks/extraction.py`, {machine(device)}",
        f"GPT-NeoX with the shape of Pythia-70m, random weights, {precision}; texts of 32 to 256",
        f"tokens, {TOKENS:,} in all ({TOKENS // 3:,} for the usual script, which keeps everything in memory), stored as float16.",
        "Each figure is one process; both arms of a ratio take turns in it, medians count.",
        "",
        *table(results),
    ]
    if arguments.out:
        write_section(arguments.out, "Extraction and the activation store", lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
