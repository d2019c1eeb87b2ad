"""The simulator: what it plants is measured by hand, what it reports does not depend on how it was run."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sparse_probing.cli.main import main
from sparse_probing.cli.simulate import simulate
from sparse_probing.records import task_rng
from sparse_probing.selection.methods import SELECTORS
from sparse_probing.studies.simulation import simulation
from sparse_probing.studies.simulation.charts import recall_against_rows
from sparse_probing.studies.simulation.page import write_simulation_report
from sparse_probing.studies.simulation.planted import Planted, Wiring, activate, plant, wire
from sparse_probing.studies.simulation.simulation import MEASURES, recall_curve, recalls

PAGE = Path(__file__).parent.parent / "docs/simulate.md"
EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1> {{ 7*7 }}"
WRITTEN = ("recall.parquet", "recall.csv", "config.json", "report.html")


def small(out: Path, *more: str, rows: str = "60 120", repeats: int = 3, workers: int = 1, shift: float = 1.0) -> None:
    """A simulation that takes a blink."""
    sizes = ["--rows", *rows.split(), "--units", "40", "--k", "3", "--repeats", str(repeats), "--shift", str(shift)]
    main(["simulate", "--out", str(out), "--workers", str(workers), *sizes, *more])


def difference(x: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return x[positive].mean(axis=0) - x[~positive].mean(axis=0)


def one_row(table: pl.DataFrame, method: str, rows: int) -> dict[str, float]:
    return table.filter(method=method, rows=rows).to_dicts()[0]


def test_planted_structure_on_a_large_sample():
    options = Planted(rows=40_000, units=30, k=3, shift=0.7, positive_share=0.3, correlated=2, correlation=0.8)
    rng = task_rng(0, "structure")
    wiring = wire(options, rng)
    x, positive = activate(wiring, options, rng)
    y, support, sign = positive[:, 0], wiring.supports[0], wiring.signs[0]
    assert x.dtype == np.float32 and x.shape == (40_000, 30)
    assert y.sum() == 12_000
    moved = difference(x, y)
    np.testing.assert_allclose(moved[support], 0.7 * sign, atol=0.04)
    followers = np.flatnonzero(wiring.leader >= 0)
    assert sorted(wiring.leader[followers]) == sorted([*support, *support])
    assert not set(followers) & set(support)
    at = {unit: s for unit, s in zip(support, sign, strict=True)}
    np.testing.assert_allclose(moved[followers], [0.8 * 0.7 * at[u] for u in wiring.leader[followers]], atol=0.04)
    others = np.setdiff1d(np.arange(30), [*support, *followers])
    assert len(others) == 21
    np.testing.assert_allclose(moved[others], 0.0, atol=0.04)
    within = np.where(y[:, None], x - x[y].mean(axis=0), x - x[~y].mean(axis=0))
    np.testing.assert_allclose(within.std(axis=0), 1.0, atol=0.02)
    loading = np.eye(30)  # how much of each planted unit is in each unit: 0.8 * 0.8 between two distractors of one
    loading[followers] = 0.8 * np.eye(30)[wiring.leader[followers]]
    expected = loading @ loading.T
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(np.corrcoef(within.T), expected, atol=0.03)


def test_label_noise_flips_its_share_of_each_class():
    """Of 40,000 labels 12,000 are positive; 1,200 of them and 2,800 of the others are flipped: 13,600 stay or become positive."""
    options = Planted(rows=40_000, units=8, k=2, shift=1.0, positive_share=0.3, label_noise=0.1, correlated=0)
    rng = task_rng(1, "noise")
    wiring = wire(options, rng)
    x, positive = activate(wiring, options, rng)
    assert positive.sum() == 13_600
    kept = 10_800 / 13_600 - 1_200 / 26_400
    np.testing.assert_allclose(difference(x, positive[:, 0])[wiring.supports[0]], kept * wiring.signs[0], atol=0.04)


def test_features_in_superposition_share_units_and_keep_their_effect():
    options = Planted(rows=40_000, units=20, k=3, shift=0.5, features=40, correlated=0)
    rng = task_rng(2, "many")
    wiring = wire(options, rng)
    x, positive = activate(wiring, options, rng)
    assert positive.shape == (40_000, 40)
    assert np.bincount(wiring.supports.ravel(), minlength=20).max() >= 3
    assert (np.diff(wiring.supports, axis=1) > 0).all()
    assert np.abs(np.corrcoef(positive.T.astype(float)) - np.eye(40)).max() < 0.03
    for feature in (0, 17, 39):
        expected = np.zeros(20)
        expected[wiring.supports[feature]] = 0.5 * wiring.signs[feature]
        np.testing.assert_allclose(difference(x, positive[:, feature]), expected, atol=0.12)


def test_gelu_is_the_quick_gelu_of_the_gaussian_value():
    plain, _, _ = plant(Planted(rows=50, units=9, k=2), task_rng(3, "same"))
    bent, _, _ = plant(Planted(rows=50, units=9, k=2, activation="gelu"), task_rng(3, "same"))
    np.testing.assert_allclose(bent, plain / (1 + np.exp(-1.702 * plain.astype(float))), rtol=1e-5)


def test_recall_and_stand_ins_by_hand():
    wiring = Wiring(
        supports=np.array([[1, 4, 6]]), signs=np.ones((1, 3)), leader=np.array([4, -1, 4, 1, -1, -1, -1, 6])
    )
    options = Planted(units=8, k=3, correlated=1)
    assert recalls(np.array([0, 1, 2]), wiring, options) == (1 / 3, 2 / 3)
    assert recalls(np.array([1, 3, 5]), wiring, options) == (1 / 3, 1 / 3)
    assert recalls(np.array([2, 3, 7]), wiring, options) == (0.0, 1.0)
    assert recalls(np.array([2, 3, 7]), wiring, Planted(units=8, k=3, correlated=1, correlation=0.89)) == (0.0, 0.0)


def test_a_strong_effect_is_found_by_every_selector():
    table = recall_curve(Planted(units=80, k=4, shift=2.5, correlated=0), [500], repeats=3, workers=1)
    assert table["method"].to_list() == list(SELECTORS)
    for method in SELECTORS:
        row = one_row(table, method, 500)
        if method != "random":
            assert row["recall"] == 1.0 and row["recall_se"] == 0.0, method
            assert row["average_precision"] > 0.97


def test_random_choice_is_at_chance():
    """Hypergeometric: mean k / units = 0.2, variance of one recall 0.2 * 0.8 / 8 * 32 / 39."""
    table = recall_curve(Planted(units=40, k=8, correlated=0), [40], methods=["random"], repeats=150, workers=1)
    row = one_row(table, "random", 40)
    error = (0.2 * 0.8 / 8 * 32 / 39 / 150) ** 0.5
    assert abs(row["recall"] - 0.2) < 4 * error
    assert row["recall_se"] == pytest.approx(error, rel=0.25)


def test_recall_rises_with_rows_and_distractors_hurt_the_mean_difference_more():
    """Measured with the defaults and 10 repeats: at 1,000 rows 0.88 against 0.56, at 3,000 rows 1.00 against 0.70."""
    methods = ["greedy_swap", "mean_difference"]
    table = recall_curve(Planted(), [100, 300, 1_000, 3_000], methods=methods, repeats=6, workers=1)
    for method in methods:
        for measure in MEASURES:
            values = table.filter(method=method)[measure].to_list()
            assert values == sorted(values), (method, measure)
    with_distractors = {rows: {m: one_row(table, m, rows)["recall"] for m in methods} for rows in (1_000, 3_000)}
    for found in with_distractors.values():
        assert found["greedy_swap"] > found["mean_difference"] + 0.15
    alone = recall_curve(Planted(correlated=0), [1_000], methods=methods, repeats=6, workers=1)
    assert all(one_row(alone, m, 1_000)["recall"] > 0.9 for m in methods)


def test_same_bytes_for_any_workers_and_after_a_stop(tmp_path, capsys, monkeypatch):
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    small(one)
    printed = capsys.readouterr().out
    assert re.search(r"greedy_swap +\d\.\d\d ± \d\.\d\d", printed)
    assert "with stand-ins" in printed and "report.html" in printed
    small(two, workers=2)
    small(resumed, rows="60", repeats=2)
    assert len(list((resumed / "cells").iterdir())) == 2
    small(resumed)
    assert len(list((resumed / "cells").iterdir())) == 6
    for name in WRITTEN:
        assert (one / name).read_bytes() == (two / name).read_bytes() == (resumed / name).read_bytes(), name

    def not_again(*_: object) -> None:
        raise AssertionError("a finished cell was computed again")

    monkeypatch.setattr(simulation, "run_cell", not_again)
    (one / "report.html").unlink()
    small(one)
    assert (one / "report.html").read_bytes() == (two / "report.html").read_bytes()


def test_files_hold_what_was_measured(tmp_path, capsys):
    small(tmp_path / "s", "--methods", "random", "mean_difference")
    table = pl.read_parquet(tmp_path / "s/recall.parquet")
    assert table.columns == ["method", "rows", "repeats", *(c for m in MEASURES for c in (m, f"{m}_se"))]
    assert table["method"].to_list() == ["mean_difference"] * 2 + ["random"] * 2
    assert pl.read_csv(tmp_path / "s/recall.csv").equals(table)
    cells = [json.loads((tmp_path / f"s/cells/rows-60-repeat-{i}.json").read_text()) for i in range(3)]
    values = [cell["mean_difference"]["recall"] for cell in cells]
    row = one_row(table, "mean_difference", 60)
    assert row["recall"] == pytest.approx(sum(values) / 3)
    assert row["recall_se"] == pytest.approx(np.std(values, ddof=1) / 3**0.5)


def test_one_repeat_has_no_standard_error(tmp_path, capsys):
    small(tmp_path / "s", "--methods", "random", repeats=1)
    assert "±" not in capsys.readouterr().out
    assert pl.read_parquet(tmp_path / "s/recall.parquet")["recall_se"].null_count() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "600"], "k = 600 units cannot be planted among 512"),
        (["--correlated", "200"], "5 planted units with 200 distractors each need 1005 units, there are 512"),
        (["--positive-share", "1"], "positive share must lie between 0 and 1, both excluded, got 1.0"),
        (["--positive-share", "0"], "got 0.0"),
        (["--label-noise", "0.5"], "label noise must be at least 0 and below 0.5"),
        (["--correlation", "1.5"], "correlation must lie between 0 and 1, got 1.5"),
        (["--methods", "guess"], "there is no selector 'guess': choose among greedy_swap,"),
        (["--rows", "300", "19"], "19 rows are too few: give at least 20"),
        (["--rows", "100", "--positive-share", "0.01"], "leave fewer than 5 of a class"),
        (["--rows", "10000000"], "too many for one piece of memory"),
        (["--rows"], "nothing to simulate"),
        (["--shift", "nan"], "shift must be 0 or more"),
        (["--features", "0"], "features must be at least 1, got 0"),
        (["--repeats", "0"], "repeats must be at least 1, got 0"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--seed", "-1"], "seed must not be negative, got -1"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["simulate", "--out", str(tmp_path / "s"), *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_foreign_folders_are_refused(tmp_path, capsys):
    def refused(folder: Path, *more: str, method: str = "random", shift: float = 1.0) -> str:
        with pytest.raises(SystemExit) as stop:
            small(folder, "--methods", method, *more, shift=shift)
        assert stop.value.code == 2
        return capsys.readouterr().err

    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(tmp_path / "file")
    assert "cannot be written" in refused(tmp_path / "file/below")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/manifest.json").write_text("{}")
    assert "something else than a simulation" in refused(tmp_path / "run")
    for text in ("{", "[]", '{"program": "another"}'):
        (tmp_path / "run/config.json").write_text(text)
        assert "something else than a simulation" in refused(tmp_path / "run")
    mine = tmp_path / "mine"
    small(mine, "--methods", "random")
    before = {name: (mine / name).read_bytes() for name in WRITTEN}
    assert "other options (shift, seed)" in refused(mine, "--seed", "3", shift=2.0)
    assert "other options (methods)" in refused(mine, method="mean_difference")
    assert before == {name: (mine / name).read_bytes() for name in WRITTEN}
    (mine / "cells/rows-60-repeat-0.json").write_text('{"random": 3}')
    assert "is damaged: delete that file" in refused(mine)


def test_chart_keeps_its_numbers_and_sets_points_side_by_side():
    points = pl.DataFrame({"method": ["a", "b"], "rows": [100, 100], "value": [0.02, 0.5], "se": [0.05, None]})
    spec = recall_against_rows(points, "recall")
    a, b = next(iter(spec["datasets"].values()))
    assert (a["low"], a["high"], b["low"], b["high"]) == (0.0, pytest.approx(0.07), 0.5, 0.5)
    assert a["x"] < 100 < b["x"] and a["rows"] == b["rows"] == 100
    assert spec["layer"][0]["encoding"]["x"]["scale"]["base"] == 2
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["a", "b"]


@pytest.fixture(scope="module")
def evil_folder(tmp_path_factory) -> Path:
    """A finished simulation whose names try to break out."""
    folder = tmp_path_factory.mktemp("simulation") / "s"
    small(folder, "--methods", "greedy_swap", "random")
    table = pl.read_parquet(folder / "recall.parquet")
    table.with_columns(method=pl.col("method").replace("random", EVIL)).write_parquet(folder / "recall.parquet")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"version": EVIL}))
    write_simulation_report(folder)
    return folder


def test_page_is_self_contained_and_escaped(evil_folder):
    page = (evil_folder / "report.html").read_text(encoding="utf-8")
    before_data = page.split('<script type="application/json"')[0]
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|img|iframe|link)[^>]*\s(src|href)=", before_data)
    assert "<script>" not in before_data and "&lt;script&gt;" in before_data and "{{ 7*7 }}" in before_data
    assert before_data.count("&lt;img src=x") == 4  # three tables and the version
    data = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert data is not None and "<" not in data[1]
    assert set(json.loads(data[1])) == set(MEASURES)


def test_stand_ins_are_shown_only_where_there_are_any(tmp_path, capsys):
    for number, more in enumerate((["--correlated", "0"], ["--correlation", "0.5"])):
        small(tmp_path / str(number), "--methods", "random", *more, repeats=1)
        assert "stand-ins" not in capsys.readouterr().out
        assert "stand-ins" not in (tmp_path / str(number) / "report.html").read_text(encoding="utf-8")


@pytest.mark.browser
def test_browser_draws_the_charts_without_network(evil_folder):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("request", lambda request: asked.append(request.url))
        page.goto((evil_folder / "report.html").as_uri())
        for measure in MEASURES:
            chart = page.locator(f"[data-chart='{measure}']")
            chart.scroll_into_view_if_needed()
            chart.locator("svg.marks").wait_for()
        assert page.evaluate("window.hacked") is None
        for width in (1280, 420):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"wider than {width}"
        browser.close()
    assert problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def test_page_of_the_docs_names_every_option_and_its_default():
    page = PAGE.read_text(encoding="utf-8")
    parameters = inspect.signature(simulate).parameters
    options = {f"--{name.replace('_', '-')}": p.default for name, p in parameters.items()}
    table = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([^|]+) \|", page, re.M))
    assert set(table) == set(options)
    for name, default in options.items():
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        if default is not None:
            assert table[name] == (f"{default:g}" if isinstance(default, float) else shown), name
    for command in re.findall(r"^sprobe simulate .*$", page, re.M):
        assert set(re.findall(r"--[a-z-]+", command)) <= set(options), command
    for measure in MEASURES:
        assert f"**{measure}**" in page
