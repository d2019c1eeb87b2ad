"""The command line with odd options, and files of options. No case gets as far as a model's forward pass."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparse_probing.cli.main import main
from sparse_probing.config import RunConfig, make_config, make_data_config, read_config, to_toml
from tests.hostile.engine import ODD_BYTES, Target, changed_bytes, odd
from tests.hostile.readers import rows

ODD_WORDS = (
    "",
    " ",
    "-",
    "--",
    "0",
    "-1",
    "1",
    "2",
    "3.5",
    "1e400",
    "nan",
    "inf",
    "9" * 30,
    "9" * 5_000,
    "a",
    "text",
    "y",
    "kind",
    "x",
    "y=1",
    "a=(",
    "d=\\d",
    "a=" + "(" * 5_000,
    "{text}",
    "{text",
    "{}",
    "a\0b",
    "\udce9",
    "\x1b[31m",
    "\u202e",
    "/",
    "/dev/null",
    "..",
    "demo",
    "none/such",
    "hf:",
    "hf:a/b",
    "tokens",
    "spans",
    "mean",
    "token",
    "greedy_swap",
    "exact",
    "cpu",
    "meta",
    "float16",
    "int8",
    "mlp.neurons",
    "resid.post",
    "blocks.0.mlp.hook_post",
    "blocks.99.x",
    "a.b.c",
    "x" * 300,
    "true",
    "false",
    "[",
    "1 2",
    "--help",
)
COMMANDS = (
    ("run", "--dry-run"),
    ("datasets", "preview"),
    ("datasets", "audit"),
    ("datasets", "show"),
    ("datasets", "export"),
    ("report",),
    ("compare",),
    ("check-certificate",),
    ("sites",),
    ("cache", "ls"),
    ("cache", "size"),
    ("cache", "prune", "--dry-run"),
    ("verify",),
    ("steer",),
    ("run",),
    ("simulate",),
    ("datasets",),
    (),
)
OWN = {
    "datasets preview": ("--n", "--html"),
    "datasets audit": ("--html",),
    "datasets export": ("--to",),
    "compare": ("--out", "--order", "--names"),
    "check-certificate": ("--problem",),
    "cache prune --dry-run": ("--older-than", "--keep", "--stale", "--all"),
    "verify": ("--kinds", "--texts", "--placebos", "--doses", "--sizes", "--where"),
    "steer": ("--feature", "--neuron", "--prompt", "--clamp", "--tokens", "--seeds", "--temperature"),
    "simulate": (
        "--rows",
        "--units",
        "--k",
        "--shift",
        "--methods",
        "--repeats",
        "--workers",
        "--activation",
        "--correlation",
    ),
}
NEEDED = {"run": ("--workers", "0"), "demo": ("--workers", "0"), "simulate": ("--repeats", "0")}
"""Last options of commands that would compute: what was asked is checked before, and refused for these at the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """A good data file, and the options of a run with odd and fitting values."""

    data: Path
    options: list[str]
    toml: bytes


def prepare(folder: Path) -> Seeds:
    """A file of rows and a file of options."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "a.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()), "utf-8")
    options = [f"--{name.replace('_', '-')}" for name in RunConfig.model_fields if name not in ("data", "out")]
    toml = to_toml(RunConfig(data=data, label=("y",), layers=(0, 1), ks=(1, 2), window=32).identity())
    return Seeds(data=data, options=options, toml=toml.encode())


def case(rng: random.Random, seeds: Seeds, folder: Path) -> None:
    """One call with up to five options, of which one or two are odd."""
    command = rng.choice(COMMANDS)
    words = list(command)
    said = " ".join(command)
    if said in ("run --dry-run", "datasets preview", "datasets audit", "run"):
        words += ["--data", str(seeds.data), "--window", "32", "--min-rows", "1"]
        words += rng.choice((["--label", "y"], ["--number", "x"], ["--spans-column", "spans"], []))
        known = (*seeds.options, *OWN.get(said, ()))
    else:
        places = (str(folder), str(seeds.data), str(seeds.data.parent), "demo")
        words += [rng.choice((*places, rng.choice(ODD_WORDS))) for _ in range(rng.randrange(3))]
        known = OWN.get(said, ("--out", "--config"))
    for _ in range(rng.randrange(3)):
        words.append(rng.choice(known) if rng.random() < 0.95 else rng.choice(("--nonsense", "--out", "--data")))
        words += [rng.choice(ODD_WORDS) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
    if said in ("run --dry-run", "datasets preview") and rng.random() < 0.2:
        (folder / "a.toml").write_bytes(changed_bytes(rng, seeds.toml))
        words += ["--config", str(folder / "a.toml")]
    main(words + list(NEEDED.get(words[0] if words else "", ()) if "--dry-run" not in words[:2] else ()))


def case_toml(rng: random.Random, seeds: Seeds, folder: Path) -> None:
    """A file of options, changed; and options from Python."""
    if rng.random() < 0.5:
        (folder / "a.toml").write_bytes(changed_bytes(rng, seeds.toml))
        make = rng.choice((make_config, make_data_config))
        make(read_config(folder / "a.toml"))
        return
    lines = seeds.toml.splitlines()
    at = rng.randrange(len(lines))
    values = (
        b"1e400",
        b"nan",
        b"-inf",
        b"1979-05-27",
        b"[[]]",
        b"{a = 1}",
        b'"\\u0000"',
        b"''''",
        b"0x" + b"f" * 99,
        b'"\\ud800"',
    )
    lines[at] = lines[at].split(b"=")[0] + b"= " + rng.choice((*values, rng.choice(ODD_BYTES)))
    (folder / "a.toml").write_bytes(b"\n".join(lines))
    options: dict[str, Any] = read_config(folder / "a.toml")
    make_config(options | {rng.choice(list(RunConfig.model_fields)): odd(rng)})


TARGETS = (
    Target(name="command line", prepare=prepare, case=case, share=6),
    Target(name="options", prepare=prepare, case=case_toml, share=6),
)
