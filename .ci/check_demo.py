"""Is the demo's result sane? Report there and small, every feature found in the tables, scores where they must be."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

folder = Path(sys.argv[1])
findings = pl.read_parquet(folder / "findings.parquet")
baselines = pl.read_parquet(folder / "baselines.parquet")
report = folder / "report.html"
languages = findings.filter(category="natural language")
shuffled = baselines.filter(baseline="shuffled_labels", category="natural language")

checks = {
    "the report is there and under 5 MB": report.is_file() and report.stat().st_size < 5_000_000,
    "41 features in 4 categories": len(findings) == 41 and findings["category"].n_unique() == 4,
    "every score lies in 0..1": findings.select(
        pl.col("f1", "f1_low", "f1_high", "dense_f1").is_between(0, 1).all()
    ).row(0)
    == (True,) * 4,
    "intervals hold their estimate": bool(
        ((findings["f1_low"] <= findings["f1"]) & (findings["f1"] <= findings["f1_high"])).all()
    ),
    "at least 12 of 13 languages have a neuron with F1 >= 0.9": (languages["f1"] >= 0.9).sum() >= 12,
    "shuffled labels find no language": shuffled["f1"].median() < 0.5,
}
for name, fine in checks.items():
    print(f"{'ok  ' if fine else 'FAIL'} {name}")
sys.exit(0 if all(checks.values()) else 1)
