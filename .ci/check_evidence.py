"""Is the second look at the demo sane? Effects of three language neurons measured, weights read, figures in range."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

folder = Path(sys.argv[1])
evidence, ablations, matrix, profiles, weights = (
    pl.read_parquet(folder / "evidence" / f"{name}.parquet")
    for name in ("evidence", "ablations", "effect_matrix", "profiles", "output_weights")
)
singles = ablations.filter(support="single", kind="zero")
own = matrix.filter(pl.col("switched_off") == pl.col("affected"))

checks = {
    "three languages were looked at": evidence["feature"].to_list() == ["fr", "hu", "sv"],
    "20 placebos beside each": (singles["placebos"] == 20).all(),
    "an interval for each, from 20 documents": singles["over_placebo_low"].null_count() == 0,
    "losses are those of a language model": singles["loss_in"].is_between(1, 9).all(),
    "Hungarian hurts more without its neuron than without most placebos": singles.filter(feature="hu")["exceeded_in"][0]
    >= 0.9,
    "a language suffers more than the others on average": own["effect"].mean() > matrix["effect"].mean(),
    "the neurons read the context": set(profiles["reading"]) == {"reads the context"},
    "their weights promote the words of the language": (weights["agreement"] > 0.6).all(),
    "the report has the second look": 'id="evidence"' in (folder / "report.html").read_text(encoding="utf-8"),
}
for name, fine in checks.items():
    print(f"{'ok  ' if fine else 'FAIL'} {name}")
sys.exit(0 if all(checks.values()) else 1)
