"""Run folders: manifest, options, datasheet and tables, changed; opened by everything that opens a run."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from sparse_probing.cli.main import main
from sparse_probing.config import RunConfig
from sparse_probing.jobs.run import run
from sparse_probing.open_run import open_run
from sparse_probing.report.run_report import write_report
from sparse_probing.studies.comparison.comparison import compare_runs
from sparse_probing.studies.comparison.page import read_runs
from tests.hostile.engine import Target, changed_bytes, write_changed_json
from tests.hostile.folders import changed_table
from tests.hostile.readers import rows


def prepare(folder: Path) -> Path:
    """A small run of the bundled model."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "a.jsonl"
    data.write_text(
        "".join(json.dumps(row | {"text": f"{row['text']} {i}"}) + "\n" for i, row in enumerate(rows() * 3)), "utf-8"
    )
    options = RunConfig(
        data=data,
        label=("y",),
        number=("x",),
        out=folder / "run",
        layers=(0,),
        ks=(1, 2),
        window=32,
        skip_first=1,
        min_rows=1,
        permutations=0,
        random_model=False,
        workers=1,
    )
    return run(options).folder


def case(rng: random.Random, good: Path, folder: Path) -> None:
    """One file of the folder is changed; then a report, a comparison, a datasheet, or the model and the data again."""
    place = folder / "run"
    shutil.copytree(good, place)
    files = [path for path in sorted(place.rglob("*")) if path.suffix in (".json", ".parquet", ".toml")]
    chosen = rng.choice((place / "manifest.json", rng.choice(files), rng.choice(files)))
    if chosen.suffix == ".json":
        write_changed_json(rng, chosen)
    elif chosen.suffix == ".parquet" and rng.random() < 0.7:
        changed_table(rng, chosen)
    else:
        chosen.write_bytes(changed_bytes(rng, chosen.read_bytes()))
    doors: list[Callable[[], object]] = [
        lambda: write_report(place),
        lambda: compare_runs(read_runs([good, place]), order="given", names=("a", "b")),
        lambda: main(["datasets", "show", str(place)]),
        lambda: main(["steer", str(place), "--feature", "y", "--prompt", "The", "--tokens", "1", "--device", "none"]),
    ]
    if rng.random() < 0.05:
        doors = [lambda: open_run(place)]
    rng.choice(doors)()


TARGET = Target(name="run folders", prepare=prepare, case=case, share=4)
