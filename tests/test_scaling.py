"""Comparison of runs: every dynamic planted by hand beside a twin in the noise, tables by hand, and real runs of tiny models."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import sparse_probing as sp
from sparse_probing.cli.compare import compare
from sparse_probing.errors import InputError
from sparse_probing.results import tables as schema
from sparse_probing.results.verdict import FEW
from sparse_probing.studies.comparison import dynamics as rules
from sparse_probing.studies.comparison.comparison import Comparison, FinishedRun, compare_runs
from sparse_probing.studies.comparison.dynamics import Point, Score, dynamic
from sparse_probing.studies.comparison.page import read_runs, write_comparison
from sparse_probing.studies.comparison.tables import COMPARISON_TABLES
from sparse_probing.studies.comparison.view import comparison_charts, comparison_view, size_words, verdict_path
from sparse_probing.sweep.choose import best
from sparse_probing.views.run_view import CHOOSING, TABLES

PAGE = Path(__file__).parent.parent / "docs/compare.md"
EVIL = "<b>x</b>{{ 7*7 }}"
FILES = {*(f"{name}.parquet" for name in COMPARISON_TABLES), "comparison.csv", "comparison.json", "comparison.html"}


def score(f1: float, half: float) -> Score:
    return Score(f1=f1, low=max(0.0, f1 - half), high=min(1.0, f1 + half))


def points(
    singles: list[float],
    dense: list[float] | None = None,
    few: list[float] | None = None,
    *,
    half: float,
    chance: float = 0.3,
) -> list[Point]:
    return [
        Point(
            run=f"m{i}", single=score(f1, half), chance=chance,
            larger={"all neurons": score((dense or [1.0] * 9)[i], half), **({"16 neurons": score(few[i], half)} if few else {})},
        )
        for i, f1 in enumerate(singles)
    ]  # fmt: skip


PLANTED: dict[str, tuple[str, list[float], list[float] | None]] = {
    "in the last step": ("appears suddenly", [0.30, 0.38, 0.35, 0.95], None),
    "in the first step": ("appears suddenly", [0.35, 0.90, 0.95], None),
    "four fifths of the way": ("appears suddenly", [0.30, 0.82, 0.95], None),
    "in two steps": ("sharpens", [0.30, 0.70, 0.95], None),
    "in several": ("sharpens", [0.50, 0.62, 0.74, 0.86, 0.97], None),
    "in a jump, but was there before": ("sharpens", [0.60, 0.60, 0.95], None),
    "rise and plateau": ("sharpens", [0.50, 0.93, 0.92, 0.94], None),
    "falls, all neurons stay": ("splits", [0.97, 0.85, 0.70], [1.0, 1.0, 0.98]),
    "peaks in the middle": ("splits", [0.70, 0.97, 0.80], [0.95, 1.0, 0.99]),
    "falls with all neurons": ("fades", [0.97, 0.80, 0.60], [0.99, 0.85, 0.70]),
    "falls below all neurons that never were better": ("no trend", [0.95, 0.90, 0.80], [0.80, 0.80, 0.80]),
    "down and up": ("no trend", [0.80, 0.60, 0.90], None),
    "up, down, up a little": ("no trend", [0.40, 0.95, 0.50, 0.75], None),
    "down, up and down again": ("no trend", [0.90, 0.50, 0.95, 0.60], None),
    "twice the same peak": ("no trend", [0.95, 0.60, 0.95, 0.60], None),
    "plateau, then a fall": ("splits", [0.95, 0.95, 0.60], [1.0, 0.9, 1.0]),
    "flat": ("no trend", [0.90, 0.93, 0.91], None),
    "two models": ("too few models", [0.30, 0.95], None),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_dynamic_is_found_and_its_twin_within_noise_is_not(name):
    label, singles, dense = PLANTED[name]
    assert dynamic(points(singles, dense, half=0.03))[0] == label
    twin, why = dynamic(points(singles, dense, half=0.4))
    assert twin == ("too few models" if len(singles) < 3 else "no trend"), why


def test_small_changes_are_none_however_sure():
    assert dynamic(points([0.90, 0.92, 0.949], half=0.001))[0] == "no trend"
    assert dynamic(points([0.90, 0.92, 0.951], half=0.001))[0] == "sharpens"
    assert dynamic(points([0.95, 0.92, 0.901], half=0.001))[0] == "no trend"
    assert dynamic(points([0.95, 0.92, 0.899], half=0.001))[0] == "splits"


def test_absence_is_measured_from_chance():
    """F1 0.55 is nothing where always answering yes gives 0.50, and something where that gives 0.20."""
    singles = [0.55, 0.56, 0.95]
    assert dynamic(points(singles, half=0.03, chance=0.5))[0] == "appears suddenly"
    assert dynamic(points(singles, half=0.03, chance=0.2))[0] == "sharpens"


def test_a_few_neurons_that_stay_are_enough_for_a_split():
    assert dynamic(points([0.97, 0.8, 0.6], [0.99, 0.85, 0.7], [0.97, 0.96, 0.95], half=0.02))[0] == "splits"


def test_all_neurons_that_fall_within_noise_decide_nothing():
    label, why = dynamic(points([0.97, 0.80, 0.60], [0.99, 0.93, 0.91], half=0.05))
    assert label == "no trend" and "cannot be told" in why


def one_after_the_other(singles: list[float], *larger: dict[str, Score]) -> str:
    """Single neurons that are known exactly, beside larger probes with intervals of their own."""
    rows = zip(singles, larger, strict=True)
    return dynamic([Point(run="r", single=score(f1, 0.001), chance=0.1, larger=probes) for f1, probes in rows])[0]


def test_a_split_needs_a_larger_probe_clearly_above_the_neuron():
    def ends(f1: float, half: float) -> str:
        last = {"all neurons": score(f1, half)}
        return one_after_the_other([0.9, 0.85, 0.8], {"all neurons": score(0.9, half)}, last, last)

    assert ends(0.87, 0.01) == "splits"
    assert ends(0.87, 0.08) == "no trend", "its interval holds the neuron's score"
    assert one_after_the_other([0.9, 0.85, 0.83], *[{"all neurons": score(0.87, 0.01)}] * 3) == "no trend", "0.04 above"


def test_a_feature_fades_only_where_all_larger_probes_fall():
    first = {"16 neurons": score(0.95, 0.01), "all neurons": score(0.99, 0.1)}
    last = {"16 neurons": score(0.60, 0.01), "all neurons": score(0.90, 0.1)}
    assert one_after_the_other([0.95, 0.8, 0.6], first, first, last) == "no trend"
    surely = last | {"all neurons": score(0.70, 0.1)}
    assert one_after_the_other([0.95, 0.8, 0.6], first, first, surely) == "fades"


def test_unknown_intervals_show_nothing():
    bare = [Point(run=str(i), single=Score(f1=f1), chance=0.1, larger={}) for i, f1 in enumerate((0.1, 0.5, 0.99))]
    assert dynamic(bare)[0] == "no trend"


def test_the_explanation_names_runs_and_scores():
    assert dynamic(points([0.30, 0.35, 0.95], half=0.03))[1] == "one neuron: F1 0.35 in m1 (chance 0.30), 0.95 in m2"
    assert (
        dynamic(points([0.97, 0.85, 0.7], half=0.03))[1]
        == "one neuron: F1 0.97 in m0, 0.70 in m2; all neurons: 1.00, 1.00"
    )


@pytest.mark.parametrize("models", [3, 7])
def test_noise_alone_is_rarely_a_dynamic(models):
    """Honest 95 % intervals around one true value: 1,000 features, models scored independently of each other."""
    rng, error, found = np.random.default_rng(0), 0.05, 0
    for _ in range(1_000):
        drawn = rng.normal(0.7, error, models)
        measured = [Score(f1=f, low=f - 1.96 * error, high=f + 1.96 * error) for f in drawn.tolist()]
        series = [Point(run="", single=s, chance=0.2, larger={"all neurons": Score(f1=1.0, low=1.0)}) for s in measured]
        found += dynamic(series)[0] != "no trend"
    assert found / 1_000 < 0.02


f1s = st.floats(0, 1, allow_nan=False)


@settings(deadline=None)
@given(st.lists(st.tuples(f1s, f1s, f1s), min_size=3, max_size=7), f1s)
def test_every_series_has_one_label_and_overlapping_intervals_none(rows, chance):
    series = [
        Point(run="r", single=score(a, half / 10), chance=chance, larger={"all neurons": score(b, half / 10)})
        for a, b, half in rows
    ]
    label, _ = dynamic(series)
    assert label in rules.DYNAMICS and label != "too few models"
    lows, highs = [p.single.low for p in series], [p.single.high for p in series]
    if max(lows) <= min(highs):
        assert label == "no trend"
    if all(b.single.f1 < a.single.f1 for a, b in pairwise(series)):
        assert label in ("splits", "fades", "no trend")


def made_run(
    folder: Path, *, model: str = "m", f1: float = 0.9, features: tuple[str, ...] = ("a", "b"), layers: int = 3, width: int = 8,
    parameters: int | None = None, half: float = 0.02, options: dict[str, Any] | None = None, **facts: Any,
) -> Path:  # fmt: skip
    """A run folder by hand. Layer 1 holds the best neuron (N5), layer 0 the second (N2); k = 4 reaches 0.95, all neurons 0.98."""
    folder.mkdir(parents=True)
    probes, findings = [], []
    for feature in features:
        key = {"category": "c", "feature": feature}
        for layer in range(layers):
            low = f1 - (0.3 if layer > 1 else 0.1 * (1 - layer))
            for k, method, columns, value in (
                (1, "single_neuron", [5 if layer else 2], low),
                (4, "greedy_swap", [0, 1, 2, 5], 0.95 - 0.01 * abs(layer - 1)),
                (FEW + 1, "greedy_swap", [5], 0.97),
                (6, "random_neurons", [0, 1, 2, 3, 4, 5], 0.999),
                (width, "dense", None, 0.98 - 0.01 * abs(layer - 1)),
            ):
                fit = {"method": method, "k": k, "layer": layer, "columns": columns, "objective": 1 - value}
                for split, extra in (("train", 0.01), ("validation", 0.0)):
                    probes.append(key | fit | {"split": split, "f1": value + extra, "average_precision": value + extra})
                if layer == min(1, layers - 1) and k in (1, 4, width):
                    test = fit | {"split": "test", "f1": value - 0.05, "f1_low": value - 0.05 - half}
                    test |= {"f1_high": value - 0.05 + half, "average_precision": value}
                    roles = {1: ["single", "sparse k=1"], 4: ["sparse k=4", "enough"]}.get(k, ["dense"])
                    probes += [key | test | {"role": role} for role in roles]
        finding = {"neuron": "L1.N5", "layer": min(1, layers - 1), "f1": f1 - 0.05, "f1_low": f1 - 0.05 - half}
        finding |= {"f1_high": f1 - 0.05 + half, "k_enough": 4, "verdict": "few neurons (4)"}
        finding |= {
            "unit": 5,
            "fires": "more in class",
            "dense_f1": 0.93,
            "stability": 1.0,
            "stand_ins": [],
            "explanation": "",
        }
        finding |= {"best_baseline": "majority_class", "best_baseline_f1": 0.4}
        findings.append(key | finding | {"n_test_positive": 20, "n_test_negative": 60})
    rows = {"probes": probes, "findings": findings}
    for name in TABLES:
        schema.table(rows.get(name, []), getattr(schema, name.upper())).write_parquet(folder / f"{name}.parquet")
    place = {
        "name": model,
        "layers": layers,
        "width": width,
        "site": "mlp.neurons",
        "probed_layers": list(range(layers)),
    }
    audit = {"documents_read": 80, "groups": 80, "duplicates_removed": 0, "conflicts_removed": 0}
    manifest = {"identity": {}, "versions": {}, "rows": 80, "tokens": 800, "audits": {"c": audit}} | {
        "model": place | {"parameters": parameters} | facts,
        "options": {"data": "x.csv", "source": None, "seed": 0, "model": model, "ks": [1, 4], "pooling": None}
        | (options or {}),
        "counts": {f"c/{feature}": {"test": [20, 60]} for feature in features},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def compared(*folders: Path, **options: Any) -> Comparison:
    return compare_runs(read_runs(folders), **options)


def names(found: Comparison) -> list[str]:
    return [run["run"] for run in found.runs]


def test_tables_by_hand(tmp_path):
    found = compared(
        made_run(tmp_path / "big", model="x/big", parameters=9, layers=5),
        made_run(tmp_path / "one", model="x/one", parameters=3, layers=1, f1=0.8),
    )
    assert names(found) == ["one", "big"] and found.size_unit == "parameters" and found.by_size
    for name, table in found.tables.items():
        assert dict(table.schema) == COMPARISON_TABLES[name], name
    rows = found.tables["comparison"]
    assert rows.select("feature", "run", "probe", "k").rows()[:6] == [
        ("a", "one", "single", 1), ("a", "one", "sparse", 4), ("a", "one", "dense", 8),
        ("a", "big", "single", 1), ("a", "big", "sparse", 4), ("a", "big", "dense", 8),
    ]  # fmt: skip
    single = rows.row(3, named=True)
    assert (single["layer"], single["relative_depth"], single["neuron"]) == (1, 0.25, "L1.N5")
    assert [single[n] for n in ("validation_f1", "test_f1", "test_f1_low", "test_f1_high")] == pytest.approx(
        [0.9, 0.85, 0.83, 0.87]
    )
    assert rows.row(0, named=True)["relative_depth"] == 0.0 and rows["neuron"].null_count() == 8
    assert found.tables["summary"]["chance"].unique().to_list() == pytest.approx([40 / 100])
    depth = found.tables["depths"].filter(feature="a", run="big")
    assert depth["relative_depth"].to_list() == [0, 0.25, 0.5, 0.75, 1]
    assert depth["single_f1"].to_list() == pytest.approx([0.8, 0.9, 0.6, 0.6, 0.6])
    assert depth["sparse_f1"].to_list() == pytest.approx([0.94, 0.95, 0.94, 0.93, 0.92]), (
        "neither random nor larger probes"
    )
    assert depth["sparse_k"].to_list() == [4] * 5


def test_means_over_features_with_and_without_layer_0(tmp_path):
    one, big = (
        made_run(tmp_path / "one", layers=1, f1=0.8),
        made_run(tmp_path / "big", model="n", features=("a", "b", "z")),
    )
    probes = pl.read_parquet(big / "probes.parquet")  # for b the neuron of layer 0 becomes the best
    at_0 = (pl.col("feature") == "b") & (pl.col("layer") == 0) & (pl.col("k") == 1)
    better = [pl.when(at_0).then(0.99).otherwise(name).alias(name) for name in ("f1", "average_precision")]
    probes.with_columns(better).write_parquet(big / "probes.parquet")
    findings = pl.read_parquet(big / "findings.parquet")
    findings.with_columns(k_enough=pl.when(feature="b").then(None).otherwise("k_enough")).write_parquet(
        big / "findings.parquet"
    )
    small, large = compared(big, one).tables["categories"].to_dicts()
    assert (small["features"], large["features"]) == (2, 2), "z is in one run only"
    assert small["f1"] == pytest.approx(0.75) and small["validation_f1"] == pytest.approx(0.7)
    assert small["validation_f1_above_layer_0"] is None and small["relative_depth"] == 0.0
    assert large["f1"] == pytest.approx(0.85) and large["validation_f1_above_layer_0"] == pytest.approx(0.9)
    assert (large["k_enough"], large["without_k_enough"]) == (4, 1)


def test_dynamics_of_made_runs(tmp_path):
    """Feature by feature the same, 0.45, 0.47 and 0.95 on test; chance is 0.40."""
    folders = [made_run(tmp_path / str(i), f1=f1, parameters=i) for i, f1 in ((3, 1.0), (1, 0.5), (2, 0.52))]
    found = compared(*folders, names=["large", "small", "middle"])
    rows = found.tables["dynamics"].to_dicts()
    assert [row["dynamic"] for row in rows] == ["appears suddenly"] * 2
    assert (rows[0]["runs"], rows[0]["best_run"]) == (3, "large")
    assert [rows[0][n] for n in ("first_f1", "last_f1", "best_f1")] == pytest.approx([0.45, 0.95, 0.95])
    down = compared(*folders, names=["large", "small", "middle"], order="given").tables["dynamics"]
    assert down["dynamic"].to_list() == ["splits"] * 2
    assert "4 neurons: 0.90, 0.90" in down["explanation"][0]
    noisy = [made_run(tmp_path / f"n{i}", f1=f1, parameters=i, half=0.3) for i, f1 in ((3, 1.0), (1, 0.5), (2, 0.52))]
    assert compared(*noisy).tables["dynamics"]["dynamic"].to_list() == ["no trend"] * 2


def test_order_and_names(tmp_path):
    a, b, c = (
        made_run(tmp_path / n, model=m, parameters=p) for n, m, p in (("a", "x/m", 5), ("b", "y/n", 2), ("c", "x/m", 5))
    )
    assert names(compared(a, b, c)) == ["n", "a", "c"], "models that repeat are called by their folder"
    assert names(compared(c, b, a)) == ["n", "c", "a"]
    assert names(compared(a, b, c, order="given")) == ["a", "n", "c"]
    assert names(compared(a, b, c, names=("A", "B", "C"))) == ["B", "A", "C"]
    named = made_run(tmp_path / "d", model="x/m", parameters=5, options={"name": "m on reviews"})
    assert names(compared(a, b, named)) == ["n", "m", "m on reviews"], "a run that was named keeps its name"
    assert not any("reviews" in note for note in compared(a, named).notes), "a name is no other method"
    found = compared(a, b, c)
    assert not found.by_size and any("equal size" in note for note in found.notes)
    old = made_run(tmp_path / "old", model="o", width=6)
    assert names(compared(a, old)) == ["o", "m"] and compared(a, old).size_unit == "units"
    same = made_run(tmp_path / "deep" / "a", model="x/m", parameters=5)
    assert names(compared(a, same)) == [str(a.resolve()), str(same.resolve())]
    for wrong in (["A"], ["A", "A"], ["A", " "]):
        with pytest.raises(InputError, match="2 different names"):
            compared(a, b, names=wrong)


def test_what_makes_runs_less_comparable_is_said(tmp_path):
    a = made_run(tmp_path / "a", model="a", parameters=1, features=("a", "b", "only"))
    assert compared(a, made_run(tmp_path / "twin", model="twin", parameters=2, features=("a", "b", "only"))).notes == []
    other = {"data": "y.csv", "seed": 1, "pooling": "max", "added": 1}
    b = made_run(
        tmp_path / "b",
        model="b",
        parameters=2,
        options=other,
        site="resid.post",
        probed_layers=[1],
        features=("b", "a"),
    )
    manifest = json.loads((b / "manifest.json").read_text())
    manifest["counts"]["c/a"] = {"test": [21, 60]}
    (b / "manifest.json").write_text(json.dumps(manifest))
    found = compared(a, b)
    assert found.notes == [
        "Different data: x.csv (a), y.csv (b). Differences between runs may come from the data.",
        "Different seeds: 0 (a), 1 (b). Test rows differ, too.",
        "Different sites: mlp.neurons (a), resid.post (b). Their units are not alike.",
        "Options differ: pooling.",
        "Numbers of rows differ for 1 of 2 features (c/a): other rows, or another tokenizer.",
        "b probes layers 1 of its 3 only.",
        "Only in a, left out: c/only.",
    ]
    assert found.tables["dynamics"]["feature"].to_list() == ["a", "b"]
    assert "L1.resid.post.5" in found.tables["comparison"]["neuron"].to_list()


def test_odd_options_of_a_run_are_compared_as_they_are(tmp_path):
    a = made_run(tmp_path / "a", model="a", parameters=1)
    found = compared(a, made_run(tmp_path / "b", model="b", parameters=2, options={"data": {"file": "y.csv"}}))
    assert found.notes[0].startswith("Different data: x.csv (a), {'file': 'y.csv'} (b).")


def test_a_feature_in_some_runs_is_listed_and_has_too_few_models(tmp_path):
    three = [
        made_run(tmp_path / n, model=n, features=f) for n, f in (("a", ("a", "b")), ("b", ("a", "b")), ("c", ("a",)))
    ]
    found = compared(*three)
    assert "Only in a and b: c/b." in found.notes
    assert found.tables["dynamics"].select("feature", "dynamic").rows() == [("a", "no trend"), ("b", "too few models")]
    assert comparison_view(found)["categories"][0]["features"][1]["cells"][2] is None
    assert found.tables["categories"]["features"].to_list() == [1, 1, 1], (
        "means are over the features that all runs have"
    )


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda run: (run / "manifest.json").write_text("{}"), "damaged: manifest.json"),
        (lambda run: (run / "manifest.json").write_text("{"), "damaged"),
        (lambda run: (run / "probes.parquet").write_bytes(b"no"), "damaged"),
        (lambda run: pl.DataFrame({"x": [1]}).write_parquet(run / "probes.parquet"), "probes.parquet has no column"),
        (lambda run: (run / "manifest.json").unlink(), "no run folder"),
        (lambda run: ((run / "manifest.json").unlink(), (run / "config.toml").touch()), "unfinished run"),
    ],
)
def test_runs_that_cannot_be_read(tmp_path, harm, says):
    good, bad = made_run(tmp_path / "good"), made_run(tmp_path / "bad")
    harm(bad)
    with pytest.raises(InputError, match=says):
        compared(good, bad)


def test_runs_that_cannot_be_compared(tmp_path):
    a, b = made_run(tmp_path / "a"), made_run(tmp_path / "b", features=("other",))
    (tmp_path / "link").symlink_to(a)
    with pytest.raises(InputError, match="share no feature"):
        compared(a, b)
    with pytest.raises(InputError, match="named twice"):
        compared(a, tmp_path / "link")
    for few in ((), (a,)):
        with pytest.raises(InputError, match="at least 2 runs"):
            compared(*few)


def test_only_a_comparison_is_overwritten(tmp_path):
    found = compared(made_run(tmp_path / "a", model="a"), made_run(tmp_path / "b", model="b"))
    write_comparison(tmp_path / "out", found)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(first) == FILES
    write_comparison(tmp_path / "out", found)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    (tmp_path / "file").touch()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/comparison.json").write_text('{"program": "another"}')
    for place, says in (("a", "something else"), ("strange", "something else"), ("file", "is a file")):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(InputError, match=says):
            write_comparison(tmp_path / place, found)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert pl.read_csv(tmp_path / "out/comparison.csv").height == found.tables["comparison"].height


def test_names_from_data_cannot_break_the_page(tmp_path):
    runs = [made_run(tmp_path / str(i), features=(EVIL,), parameters=i + 1) for i in range(3)]
    page = write_comparison(tmp_path / "out", compared(*runs, names=["one", "<i>two</i>", "three"])).read_text(
        encoding="utf-8"
    )
    html, data = page.split('<script type="application/json" id="charts">')
    assert "<b>x" not in html and "<i>two" not in html and "&lt;b&gt;x&lt;/b&gt;{{ 7*7 }}" in html
    assert "<" not in data.split("</script>")[0]
    assert not re.search(r"<(script|img|iframe|link)[^>]*\s(src|href)=", html) and "default-src 'none'" in html
    assert {m for m in re.findall(r'data-chart="([^"]+)"', html)} == {"size-0", "depth-0", "heatmap-0"}


def test_charts_show_every_feature_and_run(tmp_path):
    runs = [made_run(tmp_path / str(i), f1=0.5 + 0.2 * i, parameters=10**i) for i in range(3)]
    found = compared(*runs)
    charts = comparison_charts(found)
    (rows,) = charts["size-0"]["datasets"].values()
    assert len(rows) == 2 * 3 * 2 and {row["panel"] for row in rows} == {"a · sharpens", "b · sharpens"}
    text = json.dumps(charts["size-0"])
    assert '"type": "log"' in text
    (rows,) = charts["depth-0"]["datasets"].values()
    assert len(rows) == 2 * 2 * 3 * 3 and {row["probe"] for row in rows} == {"one neuron", f"up to {FEW} neurons"}
    (rows,) = charts["heatmap-0"]["datasets"].values()
    assert len(rows) == 6
    reverse = compared(*reversed(runs), order="given")
    assert not reverse.by_size and '"type": "log"' not in json.dumps(comparison_charts(reverse)["size-0"])


def test_words():
    assert [size_words(n) for n in (48, 6_144, 70_426_624, 1_400_000_000)] == ["48", "6,144", "70.4 M", "1.4 G"]
    path = ["not found", "few neurons (3)", "few neurons (5)", "dedicated neuron", "distributed (32)", "distributed"]
    assert verdict_path(path) == "not found → few → dedicated → distributed"
    assert (
        verdict_path(["readable from the text alone", "one of several stand-ins"])
        == "text alone → one of several stand-ins"
    )


@pytest.fixture(scope="module")
def family(tmp_path_factory, tokenizer) -> list[str]:
    """Untrained models of 1, 2 and 3 layers."""
    root = tmp_path_factory.mktemp("family")
    for layers in (1, 2, 3):
        torch.manual_seed(layers)
        network = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=400, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=24 * layers,
                max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
        network.save_pretrained(root / f"tiny-{layers}")
        tokenizer.save_pretrained(root / f"tiny-{layers}")
    return [str(root / f"tiny-{layers}") for layers in (3, 1, 2)]


@pytest.fixture(scope="module")
def example(tmp_path_factory, family, reviews) -> dict[str, Any]:
    """The example of the page, with tiny models in place of Pythia and small settings; run in its own folder."""
    where = tmp_path_factory.mktemp("example")
    shutil.copy(reviews, where / "reviews.csv")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    code, swapped = re.subn(r"models = .*", f"models = {family!r}", code)
    quick = "window=32, skip_first=3, min_rows=2, ks=(1, 2, 4), permutations=0, random_model=False, workers=1"
    code, quickened = re.subn(r"sp\.RunConfig\(", f"sp.RunConfig({quick}, ", code)
    assert (swapped, quickened) == (1, 1)
    scope: dict[str, Any] = {"where": where}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        exec(compile(code, "compare.md", "exec"), scope)
    return scope


def test_example_of_the_page_runs(example):
    found, where = example["found"], example["where"]
    assert names(found) == ["tiny-1", "tiny-2", "tiny-3"] and found.by_size
    assert found.notes == []
    assert found.tables["dynamics"]["runs"].to_list() == [3]
    assert {path.name for path in (where / "comparison").iterdir()} == FILES
    assert example["page"] == Path("comparison/comparison.html")
    assert found.tables["depths"].filter(run="tiny-1")["relative_depth"].to_list() == [0.0]


def test_scores_are_those_of_the_runs(example):
    for model, folder in zip(example["models"], example["runs"], strict=True):
        run = example["where"] / folder
        finding = pl.read_parquet(run / "findings.parquet").to_dicts()[0]
        row = example["found"].tables["comparison"].filter(run=Path(model).name, probe="single").to_dicts()[0]
        assert (
            row["test_f1"] == finding["f1"] and row["neuron"] == finding["neuron"] and row["layer"] == finding["layer"]
        )
        assert (row["test_f1_low"], row["test_f1_high"]) == (finding["f1_low"], finding["f1_high"])
        assert row["validation_f1"] == finding["validation_f1"]
        ks = example["found"].tables["comparison"].filter(run=Path(model).name)["k"].to_list()
        assert ks == [1, 2, 4, 24 * int(model[-1])]


def test_best_of_each_layer_agrees_with_the_choice_of_the_run(example):
    """The vectorised order by merit against `sweep.choose.best`, row by row."""
    for model, folder in zip(example["models"], example["runs"], strict=True):
        probes = pl.read_parquet(example["where"] / folder / "probes.parquet").filter(pl.col("method").is_in(CHOOSING))
        found = example["found"].tables["depths"].filter(run=Path(model).name)
        for row in found.to_dicts():
            fits: dict[tuple[str, int], dict[str, Any]] = {}
            for p in probes.filter(layer=row["layer"]).filter(pl.col("split") != "test").to_dicts():
                scores = {f"{p['split']}_{m}": p[m] for m in ("f1", "average_precision")}
                fits.setdefault((p["method"], p["k"]), {"objective": p["objective"], "layer": 0, "k": p["k"]}).update(
                    scores
                )
            chosen = best(fit for fit in fits.values() if fit["k"] <= FEW)
            assert (row["sparse_k"], row["sparse_f1"]) == (chosen["k"], chosen["validation_f1"])
            assert row["single_f1"] == best(fit for fit in fits.values() if fit["k"] == 1)["validation_f1"]


def test_other_seeds_of_one_model_show_no_trend(example, reviews, tmp_path):
    smallest = example["where"] / example["runs"][1]
    manifest = json.loads((smallest / "manifest.json").read_text())
    runs = [smallest]
    for seed in (1, 2):
        options = manifest["options"] | {"seed": seed, "data": reviews, "out": tmp_path / str(seed)}
        runs.append(sp.run(sp.RunConfig(**options)).folder)
    found = compared(*runs)
    assert names(found) == ["tiny-1", "1", "2"] and not found.by_size
    assert found.tables["dynamics"]["dynamic"].to_list() == ["no trend"]
    assert any(note.startswith("Different seeds: 0 (tiny-1)") for note in found.notes)


def command(*words: str) -> None:
    app = cyclopts.App(name="sprobe")
    app.command(compare)
    app(["compare", *words], result_action="return_value", exit_on_error=False, print_error=False)


def test_command_prints_a_table_and_writes_the_folder(tmp_path, capsys):
    runs = [str(made_run(tmp_path / f"run{i}", f1=f1, parameters=10**i)) for i, f1 in enumerate((0.5, 0.52, 1.0))]
    out = tmp_path / "out"
    command(*reversed(runs), "--out", str(out), "--names", "large", "[b]mid", "small")
    said = capsys.readouterr().out
    (row,) = (line for line in said.splitlines() if line.split()[:1] == ["a"])
    assert row.split() == ["a", "0.45", "k4", "0.47", "k4", "0.95", "k4", "few", "appears", "suddenly"]
    assert "small" in said and "[b]mid" in said and str(out / "comparison.html") in said
    assert {path.name for path in out.iterdir()} == FILES
    command(*runs, "--out", str(out), "--order", "given")
    with pytest.raises(InputError, match="at least 2 runs"):
        command(runs[0], "--out", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match="something else"):
        command(*runs, "--out", runs[0])


def test_the_page_names_every_option_file_rule_and_threshold():
    page = PAGE.read_text(encoding="utf-8")
    options = [name for name, p in inspect.signature(compare).parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert all(f"| `--{name}` |" in page for name in options)
    for line in re.findall(r"^sprobe compare .*$", page, re.M):
        assert set(re.findall(r"--([a-z-]+)", line)) <= set(options)
    assert all(f"`{name}`" in page for name in FILES)
    assert all(f"*{name}*" in page for name in rules.DYNAMICS)
    assert f"at least {rules.MARGIN:.2f} of F1" in page and f"at most {rules.ABSENT:.2f} above" in page
    assert f"at least {100 * rules.FULL:.0f} %" in page and f"fewer than {rules.MODELS} runs" in page


def test_analysis_takes_what_was_read_and_nothing_else(tmp_path):
    """Tables in memory are enough: the folder of a run may be gone."""
    runs = read_runs([made_run(tmp_path / "a", model="a"), made_run(tmp_path / "b", model="b")])
    moved = [
        FinishedRun(folder=tmp_path / f"gone{i}", manifest=r.manifest, tables=r.tables) for i, r in enumerate(runs)
    ]
    assert names(compare_runs(moved)) == ["a", "b"]
