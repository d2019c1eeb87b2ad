"""Time from the command to its answer, for commands that compute next to nothing: median wall and processor time of some starts.

python benchmarks/start_up.py --starts 5
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPROBE = [sys.executable, "-c", "from sparse_probing.cli.main import main; main()"]


def made_in(folder: Path) -> dict[str, list[str]]:
    """Commands by name, with a small file of texts, a dataset folder and a certificate for them."""
    data, built, certificate, problem = (
        folder / name for name in ("texts.csv", "built", "certificate.npz", "problem.npz")
    )
    with data.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "good"])
        for i in range(60):
            rows.writerow([f"The {('bad', 'good')[i % 2]} film number {i} was seen by many people of the town.", i % 2])
    run("datasets", "build", "--data", str(data), "--label", "good", "--out", str(built))
    program = (
        "from pathlib import Path\nimport numpy as np, sparse_probing as sp\n"
        "x = np.random.default_rng(0).normal(size=(80, 12))\n"
        "problem = sp.make_problem(x, x[:, 3] > 0)\n"
        f"sp.write_certificate(Path({str(certificate)!r}), sp.best_subset(problem, 2).certificate)\n"
        f"np.savez({str(problem)!r}, z=problem.z, target=problem.target, weights=problem.weights)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    return {
        "--help": ["--help"],
        "datasets show": ["datasets", "show", str(built)],
        "datasets preview": ["datasets", "preview", str(built), "--n", "3"],
        "check-certificate --problem": ["check-certificate", str(certificate), "--problem", str(problem)],
        "datasets audit": ["datasets", "audit", str(built)],
        "run --dry-run": ["run", "--data", str(data), "--label", "good", "--dry-run"],
    }


def run(*arguments: str) -> tuple[float, float]:
    """Seconds on the clock and on the processor."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*SPROBE, *arguments], check=True, capture_output=True)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5, help="of each command, after one that is not counted")
    starts = parser.parse_args().starts
    os.environ["OMP_NUM_THREADS"] = "1"
    print("| command | wall, s | processor, s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in made_in(Path(folder)).items():
            run(*arguments)
            wall, used = (
                statistics.median(times) for times in zip(*(run(*arguments) for _ in range(starts)), strict=True)
            )
            print(f"| `{name}` | {wall:.2f} | {used:.2f} |", flush=True)


if __name__ == "__main__":
    main()
