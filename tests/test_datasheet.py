"""The data sheet: counts by hand, confounds that are planted, leaks by brute force, pages in a browser."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from sparse_probing.datasets.backends import FastBackend
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.feature_dataset import FeatureDataset, concatenate
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.text_tokenizer import TextTokenizer
from sparse_probing.errors import InputError
from sparse_probing.records import SPLITS
from sparse_probing.studies.datasheet.confounds import FEW, warnings_of
from sparse_probing.studies.datasheet.datasheet import BINS, MOST_NAMES, NOT_STATED, bin_width, datasheet
from sparse_probing.studies.datasheet.page import write_datasheet
from sparse_probing.studies.datasheet.view import dataset_view, read_run_sheets
from sparse_probing.studies.datasheet.words import KINDS, LOOK, MENDED

EVIL = "<script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def words() -> TextTokenizer:
    """One token per word."""
    vocabulary = {f"w{i}": i + 1 for i in range(2000)} | {"?": 0}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TextTokenizer(backend=FastBackend(backend), front=(1999,))


def texts(
    rng: np.random.Generator, n: int = 240, *, longer: int = 0, word: str | None = None, category: str = "c"
) -> LabelledText:
    """Random words, 60 groups; texts of the class are longer by so many words, and may hold a word of their own."""
    documents = []
    for i in range(n):
        label = bool(i % 2)
        chosen = [f"w{w}" for w in rng.integers(0, 900, rng.integers(20, 40) + longer * label)]
        if word is not None and label:
            chosen[15] = word
        documents.append(
            Document(
                id=str(i),
                text=" ".join(chosen),
                group=str(i // 4),
                labels={"f": label},
                source="book" if i % 3 else None,
                licence="CC0-1.0" if i % 4 else "CC-BY-4.0",
            )
        )
    return LabelledText(category=category, features=("f",), level="document", documents=tuple(documents))


def rows_of(labelled: LabelledText, tokenizer: TextTokenizer, **rules: Any) -> FeatureDataset:
    chosen = replace(SamplingRules(window=64, skip_first=2), **rules)
    return build_feature_dataset(labelled, tokenizer, chosen, np.random.default_rng(0))


def kinds(sheet: dict[str, Any]) -> list[str]:
    return [warning["kind"] for feature in sheet["features"] for warning in feature["warnings"]]


def test_counts_by_hand(words):
    labelled = texts(np.random.default_rng(0))
    labelled = replace(labelled, documents=(*labelled.documents, labelled.documents[0]), notes=("said before",))
    dataset = rows_of(labelled, words)
    sheet = datasheet(labelled, dataset)
    assert (sheet["level"], sheet["documents"], sheet["groups"], sheet["rows"]) == ("document", 240, 60, 240)
    assert sheet["characters"] == sum(len(d.text) for d in labelled.documents[:240])
    assert sheet["tokens"] == sum(len(d.text.split()) for d in labelled.documents[:240])  # the copy is gone
    assert sheet["sources"] == [{"name": "book", "documents": 160}, {"name": NOT_STATED, "documents": 80}]
    assert sheet["licences"] == [{"name": "CC0-1.0", "documents": 180}, {"name": "CC-BY-4.0", "documents": 60}]
    assert sheet["audit"]["duplicates_removed"] == 1
    assert sheet["audit"]["documents_read"] == 241
    assert sheet["notes"] == ["said before"]
    assert sheet["poolings"] == ["mean"]
    (feature,) = sheet["features"]
    for s, split in enumerate(SPLITS):
        positives = [bool(p) for p, where in zip(dataset.positive[:, 0], dataset.row_split, strict=True) if where == s]
        counted = feature["splits"][split.value]
        assert (counted["positive"], counted["negative"]) == (sum(positives), len(positives) - sum(positives))
        assert counted["share"] == pytest.approx(sum(positives) / len(positives))
    test = feature["splits"]["test"]
    always_yes = test["positive"] / (test["positive"] + 0.5 * test["negative"])  # F1 = tp / (tp + (fp + fn) / 2)
    assert feature["always_yes_f1"] == pytest.approx(always_yes)
    json.dumps(sheet, allow_nan=False)


def test_histograms_by_hand(words):
    labelled = texts(np.random.default_rng(1))
    dataset = rows_of(labelled, words)
    histogram = datasheet(labelled, dataset, text_only=False)["histograms"]["text_length"]
    width = histogram["bin_width"]
    slow = {"class": [0] * len(histogram["rows"]), "rest": [0] * len(histogram["rows"])}
    for row in range(dataset.n_rows):
        length = len(dataset.texts[dataset.sequence_document[dataset.row_sequence[row]]].split()) + 1
        slow["class" if dataset.positive[row, 0] else "rest"][length // width] += 1
    assert histogram["features"] == [{"name": "f"} | slow]
    assert histogram["rows"] == [a + b for a, b in zip(slow["class"], slow["rest"], strict=True)]


def test_bins_are_round_and_few():
    for largest in (0, 1, 24, 25, 49, 50, 256, 2048, 10**6):
        width = bin_width(largest)
        assert re.fullmatch(r"[125]0*", str(width))
        assert largest // width < BINS
    assert [bin_width(n) for n in (24, 25, 50, 125, 256)] == [1, 2, 5, 10, 20]


def test_rare_sources_are_summed(words):
    labelled = texts(np.random.default_rng(0))
    documents = tuple(replace(d, source=f"url {i // 2:03}") for i, d in enumerate(labelled.documents))
    sheet = datasheet(replace(labelled, documents=documents), rows_of(labelled, words), text_only=False)
    assert len(sheet["sources"]) == MOST_NAMES + 1
    assert sheet["sources"][-1] == {"name": "100 others", "documents": 200}


def test_planted_length_is_found_and_its_twin_is_not(words):
    for longer, expected in ((12, ["length"]), (0, [])):
        labelled = texts(np.random.default_rng(2), longer=longer)
        sheet = datasheet(labelled, rows_of(labelled, words), text_only=False)
        assert kinds(sheet) == expected
        found = sheet["features"][0]["confounds"]
        assert found["position"] is None  # windows all begin behind the skipped tokens
        assert found["row_length"] is None  # follows from the text length
        assert found["text_only"] is None
        if longer:
            assert found["text_length"]["direction"] == "larger"
            assert found["position_and_length"]["f1"] > 0.7
            assert "longer" in sheet["features"][0]["warnings"][0]["text"]


def test_length_auc_is_the_share_of_pairs_in_order(words):
    labelled = texts(np.random.default_rng(3), longer=4)
    dataset = rows_of(labelled, words)
    test = dataset.row_split == 2
    length = (dataset.row_last - dataset.row_first)[test]
    inside, outside = length[dataset.positive[test, 0]], length[~dataset.positive[test, 0]]
    pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    found = datasheet(labelled, dataset, text_only=False)["features"][0]["confounds"]["text_length"]
    assert found["direction"] == "larger"
    assert found["roc_auc"] == pytest.approx(np.mean(pairs))


def test_direction_comes_from_training_rows(words):
    labelled = texts(np.random.default_rng(4), longer=12)
    dataset = rows_of(labelled, words)
    flipped = dataset.positive.copy()
    flipped[dataset.row_split == 2] ^= True
    sheet = datasheet(labelled, replace(dataset, positive=flipped), text_only=False)
    assert sheet["features"][0]["confounds"]["text_length"]["roc_auc"] < 0.3
    assert kinds(sheet) == []  # what training rows show does not help on test rows


def test_planted_position_is_found(words):
    rng = np.random.default_rng(5)
    documents = []
    for i in range(120):
        text = " ".join(f"w{w}" for w in rng.integers(0, 900, 40))
        at = [text.index(" w", 60 + 5 * int(rng.integers(4))) + 1, text.index(" w", 130) + 1]
        spans = tuple(Span(a, text.index(" ", a), name) for a, name in zip(at, ("early", "late"), strict=True))
        documents.append(Document(id=str(i), text=text, group=str(i), spans=spans))
    labelled = LabelledText(category="c", features=("early", "late"), level="span", documents=tuple(documents))
    sheet = datasheet(labelled, rows_of(labelled, words), text_only=False)
    assert kinds(sheet) == ["position", "position"]
    assert [w["text"].split(" (")[0] for f in sheet["features"] for w in f["warnings"]] == [
        "Rows of the class stand earlier in their text",
        "Rows of the class stand later in their text",
    ]


def test_planted_word_is_found_and_its_twin_is_not(words):
    for word, expected in (("w1500", ["words"]), (None, [])):
        labelled = texts(np.random.default_rng(6), word=word)
        assert kinds(datasheet(labelled, rows_of(labelled, words))) == expected


def test_warnings_at_their_bounds():
    record: dict[str, Any] = {
        "splits": {"test": {"positive": FEW, "negative": 900}},
        "always_yes_f1": 0.95,
        "confounds": {
            "text_length": {"direction": "smaller", "roc_auc": 0.7, "train_roc_auc": 0.69},
            "row_length": None,
            "position": None,
            "position_and_length": {"f1": 0.9, "roc_auc": 0.69},
            "text_only": {"f1": 0.97, "roc_auc": 0.6},  # hardly more than always yes
            "token_identity": None,
            "last_token": {"f1": 0.59, "roc_auc": 0.9},
        },
    }
    assert warnings_of(record) == []
    record["splits"]["test"]["positive"] = FEW - 1
    record["confounds"]["text_length"]["train_roc_auc"] = 0.7
    record["confounds"]["position_and_length"]["roc_auc"] = 0.9  # said already
    record["always_yes_f1"] = 0.1
    assert [w["kind"] for w in warnings_of(record)] == ["few rows", "length", "words"]
    record["confounds"]["text_length"] = None
    assert [w["kind"] for w in warnings_of(record)] == ["few rows", "length", "words"]
    record["confounds"]["last_token"]["f1"] = 0.6
    assert [w["kind"] for w in warnings_of(record)] == ["few rows", "length", "words", "last token"]
    assert all(w["kind"] in KINDS for w in warnings_of(record))


def test_charts_of_many_features_are_drawn_whole(words):
    labelled = texts(np.random.default_rng(13))
    sheet = datasheet(labelled, rows_of(labelled, words), text_only=False)
    (histogram,) = (h for name, h in sheet["histograms"].items() if name == "text_length")
    bins = len(histogram["rows"])
    histogram["features"] = [
        {"name": f"f{i}", "class": [1] * bins, "rest": [1] * bins} for i in range(5_001 // (2 * bins) + 1)
    ]
    (shown,) = dataset_view([sheet])
    assert sum(map(len, shown["charts"]["text_length"]["datasets"].values())) > 5_000


def test_split_without_a_class_has_no_confounds(words):
    labelled = texts(np.random.default_rng(7))
    dataset = rows_of(labelled, words)
    positive = dataset.positive & (dataset.row_split != 2)[:, None]
    sheet = datasheet(labelled, replace(dataset, positive=positive))
    (feature,) = sheet["features"]
    assert set(feature["confounds"].values()) == {None}
    assert feature["always_yes_f1"] == 0.0
    dataset_view([sheet])


def test_leaks_of_a_row_split_by_brute_force(words):
    labelled = texts(np.random.default_rng(8))
    for way, leaks in (("row", True), ("group", False)):
        dataset = rows_of(labelled, words, split_by=way)
        pairs = list(zip(dataset.row_group.tolist(), dataset.row_split.tolist(), strict=True))
        torn = [g for g in {g for g, _ in pairs} if len({s for h, s in pairs if h == g}) > 1]
        split = datasheet(labelled, dataset, text_only=False)["split"]
        assert split["leaking_groups"] == len(torn)
        assert split["leaking_rows"] == sum(g in torn for g, _ in pairs)
        assert split["leaking_test_rows"] == sum(g in torn and s == 2 for g, s in pairs)
        assert bool(torn) is leaks
        assert split["groups"] == {name.value: len({g for g, s in pairs if s == i}) for i, name in enumerate(SPLITS)}


def test_numbers_per_split(words):
    labelled = texts(np.random.default_rng(9))
    documents = tuple(
        replace(d, labels={}, numbers={"x": float(i)} if i % 5 else {}) for i, d in enumerate(labelled.documents)
    )
    labelled = replace(labelled, documents=documents, features=(), numbers=("x",))
    dataset = rows_of(labelled, words)
    sheet = datasheet(labelled, dataset)
    (number,) = sheet["numbers"]
    for s, split in enumerate(SPLITS):
        values = sorted(float(dataset.targets[0].values[r]) for r in range(dataset.n_rows) if dataset.row_split[r] == s)
        found = number["splits"][split.value]
        assert found["n"] == len(values)
        assert found["mean"] == pytest.approx(sum(values) / len(values))
        assert found["sd"] == pytest.approx((sum((v - found["mean"]) ** 2 for v in values) / len(values)) ** 0.5)
        assert (found["quantiles"][0], found["quantiles"][-1]) == (values[0], values[-1])
    assert sheet["histograms"]["text_length"]["features"] == []
    assert dataset_view([sheet])[0]["charts"]
    json.dumps(sheet, allow_nan=False)


def test_one_category_of_several(words):
    one, two = (texts(np.random.default_rng(s), category=c) for s, c in ((10, "one"), (11, "two")))
    parts = [rows_of(one, words), rows_of(two, words)]
    both = concatenate(parts)
    for labelled, part in zip((one, two), parts, strict=True):
        assert datasheet(labelled, both) == datasheet(labelled, part)
    with pytest.raises(InputError, match="nothing of category 'three'"):
        datasheet(replace(one, category="three"), both)


def test_run_sheets_take_the_words_from_the_run(words, tmp_path):
    labelled = texts(np.random.default_rng(12))
    sheet = datasheet(labelled, rows_of(labelled, words), text_only=False)
    row = {"category": "c", "feature": "f", "baseline": "text_only", "f1": 0.99, "roc_auc": 0.99}
    baselines = pl.DataFrame([row, row | {"feature": "g", "f1": 0.1}, row | {"baseline": "majority_class", "f1": 0.2}])
    assert read_run_sheets(tmp_path, baselines) == []
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "datasheet.json").write_text(json.dumps([sheet]))
    (found,) = read_run_sheets(tmp_path, baselines)
    assert found["features"][0]["confounds"]["text_only"] == {"f1": 0.99, "roc_auc": 0.99}
    assert kinds(found) == ["words"]
    (tmp_path / "dataset" / "datasheet.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        read_run_sheets(tmp_path, baselines)


# ---- pages -----------------------------------------------------------------------------------------------------------


def evil_sheet(words: TextTokenizer) -> dict[str, Any]:
    labelled = texts(np.random.default_rng(13), longer=12)
    name = f"{EVIL}<b>f</b>"
    documents = tuple(
        replace(d, labels={name: d.labels["f"], "<i>g</i>": i % 3 == 0}, source=EVIL, licence=None)
        for i, d in enumerate(labelled.documents)
    )
    labelled = replace(
        labelled,
        category=f"c {EVIL}",
        features=(name, "<i>g</i>"),
        documents=(*documents, documents[0]),
        notes=(f"note {EVIL}",),
    )
    return datasheet(labelled, rows_of(labelled, words, split_by="row"), text_only=False)


def test_the_five_answers(words):
    view = dataset_view([evil_sheet(words)])[0]
    answers = {row["question"].split()[0]: row for row in view["glance"]}
    assert [row["question"] for row in view["glance"]][1] == "May I use it?"
    said = [row["text"] for row in view["glance"]]
    assert "240 texts (of 241 read) in 60 groups" in said[0]
    assert "No text states a licence" in said[1]
    assert "Groups lie on both sides" in said[2]
    assert "1 copy of another text removed" in said[2]
    assert [row["state"] for row in view["glance"]] == ["", LOOK, LOOK, LOOK, LOOK]
    assert answers["What"]["text"].startswith("It may read length instead of <script>")
    assert {line["state"] for line in view["checks"]} >= {"fine", MENDED, LOOK}


def test_page_and_json_are_written_and_escaped(words, tmp_path):
    sheet = evil_sheet(words)
    page_path = write_datasheet(tmp_path, [sheet])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasheet.html", "datasheet.json"]
    assert json.loads((tmp_path / "datasheet.json").read_text(encoding="utf-8")) == json.loads(json.dumps([sheet]))
    page = page_path.read_text(encoding="utf-8").split('<script type="application/json"')
    assert "<script>" not in page[0]
    assert "<b>" not in page[0]
    assert "<i>" not in page[0]
    assert "&lt;script&gt;" in page[0]
    assert "default-src 'none'" in page[0]
    assert "<" not in page[1].split(">", 1)[1].split("</script>")[0]


@pytest.mark.browser
def test_browser_draws_the_page(words, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    page_path: Path = write_datasheet(tmp_path, [evil_sheet(words)])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_path.as_uri())
        chart = page.locator("[data-chart='data-0-text_length']")
        chart.locator("svg.marks").wait_for()
        assert chart.locator("select option").all_text_contents() == [f"{EVIL}<b>f</b>", "<i>g</i>"]
        chart.locator("select").select_option(index=1)
        page.locator(".feature > summary").click()
        assert page.locator(".checks li").count() > 3
        assert page.evaluate("window.hacked") is None
        for width in (1280, 420):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
        browser.close()
    assert problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
