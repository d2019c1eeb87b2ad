"""Speed and memory of data set building: corpus to rows, near duplicates, a CSV; writes a section of docs/benchmarks.md.

    .venv/bin/python benchmarks/data_sets.py --data FOLDER --tokenizer FILE --out docs/benchmarks.md

Each figure is one process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from page import machine, write_section

WORDS = 20_000
"""Documents of the near-duplicate benchmark."""


def corpus_to_rows(data: Path, tokenizer_file: Path, most: int | None) -> str:
    """The corpus folder to rows of the category natural language."""
    from tokenizers import Tokenizer

    from sparse_probing.datasets.backends import FastBackend
    from sparse_probing.datasets.build_rows import build_feature_dataset
    from sparse_probing.datasets.rules import SamplingRules
    from sparse_probing.datasets.sources import SOURCES, BuildOptions
    from sparse_probing.datasets.text_tokenizer import TextTokenizer

    read = [0]
    tokenizer = TextTokenizer(backend=FastBackend(Tokenizer.from_file(str(tokenizer_file))), front=(0,))
    options = BuildOptions(most=most, progress=lambda n: read.__setitem__(0, read[0] + n))
    text = SOURCES["kind-of-text"].build(data / "corpus", options)
    dataset = build_feature_dataset(text, tokenizer, SamplingRules().adapted(text.rules, {}), np.random.default_rng(0))
    characters = sum(len(d.text) for d in text.documents)
    texts = f"{len(text.documents):,} texts of {characters / 1e6:.0f} M characters"
    return f"{read[0]:,} corpus rows read, {texts}, {dataset.n_rows:,} rows"


def near_duplicates(data: Path) -> str:
    """MinHash over 20,000 texts of the corpus."""
    from sparse_probing.datasets.near_duplicates import near_duplicate_clusters
    from sparse_probing.datasets.sources.corpus import corpus_rows
    from sparse_probing.datasets.sources.source import BuildOptions

    texts = [str(row["text"]) for _, row in corpus_rows(data / "corpus", BuildOptions())][:WORDS]
    clusters = near_duplicate_clusters(texts)
    characters = sum(map(len, texts))
    return f"{len(texts):,} texts of {characters / 1e6:.0f} M characters, {len(np.unique(clusters)):,} clusters"


def csv_rows(gigabytes: float) -> str:
    """1,000 rows drawn from a large CSV, streamed."""
    from sparse_probing.datasets.own_labels import labelled_documents

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.csv"
        line = "the quick brown fox jumps over the lazy dog " * 23
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for i in range(int(gigabytes * 1e9 / (len(line) + 12))):
                writer.writerow([f"{line}{i}", "yes" if i % 2 else "no"])
        size = path.stat().st_size
        started = time.monotonic()
        text = labelled_documents(path, labels=["label"], most=1_000)
        return f"{size / 1e9:.2f} GB read in {time.monotonic() - started:.0f} s, {len(text.documents):,} rows drawn"


FIGURES = ("corpus, drawn", "corpus, everything", "near duplicates", "large CSV")


def figure(name: str, data: Path, tokenizer: Path) -> None:
    """Run one figure and print seconds, peak megabytes and what was done."""
    started = time.monotonic()
    match name:
        case "corpus, drawn":
            what = corpus_to_rows(data, tokenizer, None)
        case "corpus, everything":
            what = corpus_to_rows(data, tokenizer, 10**9)
        case "near duplicates":
            what = near_duplicates(data)
        case _:
            what = csv_rows(1.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - started:.1f}|{peak:.0f}|{what}")


def main() -> None:
    """Each figure in its own process; write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", choices=FIGURES)
    given = parser.parse_args()
    if given.figure:
        figure(given.figure, given.data, given.tokenizer)
        return
    lines = [
        f"`benchmarks/data_sets.py`, {machine()}",
        "Labelled text to token rows (GPT-NeoX tokenizer), wall time with imports, peak memory of the process.",
        "",
        "| figure | time | peak memory | what |",
        "|---|---|---|---|",
    ]
    for name in FIGURES:
        command = [sys.executable, __file__, "--figure", name, "--data", given.data, "--tokenizer", given.tokenizer]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
        seconds, peak, what = said.split("|")
        lines.append(f"| {name} | {float(seconds):.0f} s | {int(peak):,} MB | {what} |")
        print(lines[-1], flush=True)
    if given.out:
        write_section(given.out, "Data sets", lines)


if __name__ == "__main__":
    main()
