"""The report: self-contained, escaped, and drawn by a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import sparse_probing as sp
from sparse_probing.cli.main import main
from sparse_probing.errors import InputError
from sparse_probing.jobs.run import _rename
from sparse_probing.pages.render import json_for_script, token_shades
from sparse_probing.report.run_report import write_report
from sparse_probing.views.charts import activation_histogram, f1_against_k, layer_heatmap

EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1> {{ 7*7 }} %s </details> \u202e\u2066"


@pytest.fixture(scope="module")
def run_folder(model_folders, tmp_path_factory) -> Path:
    """A run whose texts, feature names and document ids try to break out."""
    folder = tmp_path_factory.mktemp("evil")
    rows = [
        {
            "text": f"{EVIL} harbour and rain, ship number {i}, {'kalter Wind' if i % 2 else 'warm bread'} again and again",
            "y": i % 2,
            "z": i // 2 % 2,
        }
        for i in range(60)
    ]
    path = folder / "evil.jsonl"
    path.write_text(
        "\n".join(json.dumps(row | {name: f"<b>{row[name]}</b>\u202e\x9b" for name in "yz"}) for row in rows)
    )
    config = sp.RunConfig(
        model=str(model_folders["gpt_neox"]), data=path, label=("y", "z"), out=folder / "run", workers=1, window=64,
        skip_first=2, ks=(1, 2), random_model=False, positive=("y=<b>1</b>\u202e\x9b",),
    )  # fmt: skip
    made = sp.run(config).folder
    text = folder / "<i>text.txt"
    text.write_text("\n\n".join(EVIL for _ in range(8)), encoding="utf-8")
    sp.verify(made, sp.VerifyConfig(texts=3, text=text, kinds=("zero", "clamp"), doses=("1x", "2x")))
    return made


def test_page_asks_for_nothing_from_the_network(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(
        r"<(script|img|iframe|link)[^>]*\s(src|href)=", page.split('<script type="application/json"')[0]
    )
    assert "default-src 'none'" in page
    assert len(page) < 5_000_000


def test_text_from_data_is_escaped(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    before_data = page.split('<script type="application/json"')[0]
    assert "<script>" not in before_data
    assert "<b>" not in before_data
    assert "&lt;b&gt;1&lt;/b&gt;" in before_data
    assert "49" not in re.sub(r"[^{}7*49 ]", "", before_data.split("examples")[1])[:4]
    data = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert data is not None
    assert "<" not in data[1]
    json.loads(data[1])


def test_hidden_characters_are_seen_on_the_page(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    text, data = page.split('<script type="application/json" id="charts">')
    assert not set("\u202e\u2066\x9b") & set(page)
    assert "&lt;/b&gt;\\u202e\\u009b" in text
    assert "/b\\u003e\\\\u202e\\\\u009b" in data.split("</script>")[0]


def test_a_run_is_called_by_its_name_which_may_change(run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    _rename(folder, None)
    assert (folder / "manifest.json").read_bytes() == (run_folder / "manifest.json").read_bytes()
    _rename(folder, "tiny on <b>reviews")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<title>Sparse probes: tiny on &lt;b&gt;reviews</title>" in page
    assert "of <em>tiny on &lt;b&gt;reviews</em> carry" in page
    model = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["model"]["name"]
    assert f"Model: {model}." in page, "where the weights come from is still said"


def test_json_in_a_script_cannot_close_it_and_reads_back():
    value = {"x": "</script><!-- & é \\"}
    text = json_for_script(value | {"y": "\u2028\u202e"})
    assert not set("<>&\u2028\u202e") & set(text)
    assert json.loads(text) == value | {"y": "\\u2028\\u202e"}


def test_report_is_rewritten_from_the_folder_alone(run_folder, tmp_path, capsys):
    copy = tmp_path / "elsewhere"
    shutil.copytree(run_folder, copy)
    (copy / "report.html").unlink()
    main(["report", str(copy)])
    assert (copy / "report.html").read_bytes() == (run_folder / "report.html").read_bytes()
    assert "elsewhere" in capsys.readouterr().out


def test_damaged_run_is_named(run_folder, tmp_path):
    copy = tmp_path / "damaged"
    shutil.copytree(run_folder, copy)
    (copy / "findings.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        write_report(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        write_report(copy)


def test_token_shades_by_hand():
    example = {"tokens": ["a", "b", "c"], "activations": [-1.0, 2.0, 4.0], "first": 1, "last": 3}
    assert [(t["shade"], t["in_row"]) for t in token_shades(example, 1, 4.0)] == [(0, False), (4, True), (9, True)]
    assert [t["shade"] for t in token_shades(example, -1, 1.0)] == [9, 0, 0]


def test_charts_hold_their_data():
    curve = f1_against_k(pl.DataFrame({"k": [1, 2], "layer": [0, 0], "f1": [0.5, 0.75]}))
    heat = layer_heatmap(
        pl.DataFrame({"feature": ["b", "a"], "layer": [0, 0], "f1": [0.1, 0.9], "neuron": ["L0.N1", "L0.N2"]})
    )
    bins = {"bin_low": [0.0, 1.0], "bin_high": [1.0, 2.0], "in_class": [1, 3], "out_of_class": [4, 0]}
    histogram = activation_histogram(pl.DataFrame(bins))
    assert next(iter(curve["datasets"].values())) == [{"k": 1, "layer": 0, "f1": 0.5}, {"k": 2, "layer": 0, "f1": 0.75}]
    assert heat["layer"][0]["encoding"]["y"]["sort"] == ["b", "a"]
    shares = {(r["rows"], r["bin_low"]): r["share"] for r in next(iter(histogram["datasets"].values()))}
    assert shares == {
        ("in class", 0.0): 0.25,
        ("in class", 1.0): 0.75,
        ("out of class", 0.0): 1.0,
        ("out of class", 1.0): 0.0,
    }


def boxed(place: Any) -> dict[str, float]:
    """Where an element stands that can be seen."""
    assert place.is_visible()
    return place.bounding_box()


@pytest.mark.browser
def test_browser_draws_the_charts_and_runs_no_foreign_script(run_folder):
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
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*flags, "--no-first-run"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("request", lambda request: asked.append(request.url))
        page.goto((run_folder / "report.html").as_uri())
        page.locator("[data-chart='heatmap-0'] svg.marks").wait_for()
        page.locator("table.headline a").first.click()
        page.locator("[data-chart='histogram-0-0'] svg.marks").wait_for()
        page.locator("[data-chart='curve-0-0'] svg.marks").wait_for()
        for chart in (
            "effects-0-0-placebos",
            "effects-0-0-doses",
            "structure-0-0-pruning",
            "evidence-weights-bias",
            "effects-0-matrix",
        ):
            place = page.locator(f"[data-chart='{chart}']")
            place.scroll_into_view_if_needed()
            place.locator("svg.marks").wait_for()
        assert page.locator("#feature-0-0 .examples li").count() >= 4
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "wider than a phone"
        name, below = page.locator("table.headline tbody th").first, page.locator("table.headline tbody tr").first
        bottom = boxed(name)["y"] + boxed(name)["height"]
        for what in ("td:last-child", "td[data-label='best baseline']"):
            assert boxed(below.locator(what))["y"] >= bottom - 1, "under the feature's name"
        inside = [*below.locator("td").all(), *page.locator("#data > .scroll table.glance td:last-child").all()]
        assert len(inside) >= 12
        for cell in inside:
            box = boxed(cell)
            assert box["width"] > 8
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390, cell.inner_text()
        browser.close()
    assert problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
