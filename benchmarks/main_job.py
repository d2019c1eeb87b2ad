"""Time and memory of the main job: `sprobe demo` cold and warm, and `sprobe run` on a user's CSV of 500 rows.

    .venv/bin/python benchmarks/main_job.py [--out docs/benchmarks.md]

Each figure is one process of its own; peak memory is that process and its workers together, sampled from /proc.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from page import machine, write_section
from sparse_probing.datasets.sources.demo_corpus import documents_of


def tree_bytes(root: int) -> int:
    """Proportional resident memory of a process and all of its descendants (shared pages counted once)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    total, queue = 0, [root]
    while queue:
        process = queue.pop()
        queue.extend(children.get(process, []))
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(seconds, peak GB) of one command."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return time.monotonic() - started, peak / 1e9


def write_csv(path: Path) -> None:
    """500 paragraphs in seven languages, one in seven of them French."""
    documents = documents_of("natural language").documents
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([d.text, int(d.labels["fr"])] for d in documents[:500])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown page whose section is replaced; printed when not given")
    arguments = parser.parse_args()
    sprobe = str(Path(sys.executable).with_name("sprobe"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SPROBE_CACHE": f"{folder}/cache"}
        data = Path(folder) / "texts.csv"
        write_csv(data)
        user = ["run", "--model", "demo", "--data", str(data), "--label", "label"]
        for name, options in (
            ("`sprobe demo`, nothing cached", ["demo", "--out", f"{folder}/a"]),
            ("`sprobe demo`, activations cached", ["demo", "--out", f"{folder}/b"]),
            ("`sprobe run` on a CSV of 500 rows, nothing cached", [*user, "--out", f"{folder}/c"]),
        ):
            seconds, peak = measure([sprobe, *options], environment)
            rows.append(f"| {name} | {seconds:.0f} s | {peak:.2f} GB |")
            print(rows[-1], flush=True)
        report = (Path(folder) / "a" / "report.html").stat().st_size / 1e6
    lines = [
        f"`benchmarks/main_job.py`, {machine()}",
        "Wall time of the whole command, imports included; memory of the process and its workers together.",
        "",
        "| command | time | peak memory |",
        "|---|---|---|",
        *rows,
        "",
        f"Size of the demo's report: {report:.1f} MB.",
    ]
    if arguments.out:
        write_section(arguments.out, "The main job", lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
