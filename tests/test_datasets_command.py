"""`sprobe datasets`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sparse_probing.cli.main import main
from sparse_probing.config import DataConfig
from sparse_probing.datasets.dataset_folder import fingerprint, read_dataset_folder
from sparse_probing.datasets.sources import SOURCES
from sparse_probing.inputs import labelled_text_of

NEUTRAL = [
    "film",
    "story",
    "plot",
    "actor",
    "scene",
    "music",
    "light",
    "slow",
    "quiet",
    "loud",
    "long",
    "short",
    "old",
    "new",
    "red",
    "blue",
]
WORDS = {"Positive": ["wonderful", "lovely", "great"], "Negative": ["dreadful", "boring", "awful"]}


@pytest.fixture(scope="module")
def untidy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV that nobody prepared: BOM, Windows line ends, quoted newlines, empty cells, labels in several spellings."""
    rng = np.random.default_rng(0)
    lines = ["text,sentiment,stars"]
    for i in range(160):
        label = ["Negative", "Positive"][i % 2]
        text = " ".join(rng.permutation([*rng.choice(NEUTRAL, 20), *rng.choice(WORDS[label], 4)]))
        text = text.replace(" ", "\r\n", 1) if i % 20 == 3 else text
        shown = {0: label.upper(), 1: f" {label.lower()} ", 2: ""}.get(i % 30, label)
        lines.append(f'"{"" if i == 50 else text}",{shown},{rng.integers(1, 5) + 0.5}')
    path = tmp_path_factory.mktemp("untidy") / "reviews.csv"
    path.write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["datasets", *arguments])
    return capsys.readouterr().out


def test_list_names_every_source(capsys):
    out = said(capsys, "list")
    for name in SOURCES:
        assert name in out


def test_audit_reports_what_was_merged_and_left_out(untidy, capsys, tmp_path):
    page = tmp_path / "audit.html"
    out = said(capsys, "audit", "--data", str(untidy), "--label", "sentiment", "--number", "stars", "--html", str(page))
    assert "1 of 160 rows have no text and were left out: rows 51." in out
    assert "were read as 'Positive'" in out and "were read as 'Negative'" in out
    assert "It may read words instead of sentiment=Negative" in out
    assert "stars (number)" in out
    assert "What could a probe cheat with?" in page.read_text(encoding="utf-8")


def test_build_show_export_and_back(untidy, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(capsys, "build", "--data", str(untidy), "--label", "sentiment", "--window", "64", "--skip-first", "2")
    folder = tmp_path / "datasets" / "reviews"
    assert {p.name for p in folder.iterdir()} == {
        "dataset.json", "documents.jsonl.zst", "datasheet.json", "datasheet.html", "audit.json",
    }  # fmt: skip
    labelled = read_dataset_folder(folder)
    assert labelled.rules == {"window": 64, "skip_first": 2}, "the options go with the text"
    (sheet,) = json.loads((folder / "datasheet.json").read_text(encoding="utf-8"))
    test = sheet["features"][0]["splits"]["test"]
    assert test["positive"] + test["negative"] > 30
    assert "sentiment=Negative" in said(capsys, "show", "datasets/reviews")
    for form in ("jsonl", "hugging-face"):
        said(capsys, "export", "datasets/reviews", f"out-{form}", "--to", form)
        assert fingerprint(read_dataset_folder(tmp_path / f"out-{form}")) == fingerprint(labelled)
        assert "reviews" in said(capsys, "audit", f"out-{form}")
        shown = said(capsys, "show", f"out-{form}")
        assert "level: document" in shown and "sentiment=Negative" in shown, "an export has no datasheet"
        assert f"sprobe datasets audit out-{form}" in shown
    said(capsys, "export", "datasets/reviews", "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")
    assert len(lines) == len(labelled.documents) + 1 and all(json.loads(line)["text"] for line in lines[:-1])
    (again,) = labelled_text_of(DataConfig(data=Path("out.jsonl")))
    assert again == labelled
    assert "sentiment=Negative" in said(capsys, "show", "out.jsonl")
    said(capsys, "export", "out.jsonl", "out.jsonl")
    assert read_dataset_folder(Path("out.jsonl")) == labelled


def test_same_options_same_bytes(untidy, capsys, tmp_path):
    for name in ("a", "b"):
        said(capsys, "build", "--data", str(untidy), "--label", "sentiment", "--out", str(tmp_path / name))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_preview_marks_tokens_in_the_terminal_and_on_a_page(untidy, capsys, tmp_path):
    page = tmp_path / "preview.html"
    regex = r"praise=\b(wonderful|lovely|great)\b"
    out = said(capsys, "preview", "--data", str(untidy), "--label-regex", regex, "--rows", "spans", "--n", "6", "--html", str(page),
               *("--label-regex", r"blame=\b(dreadful|boring|awful)\b"))  # fmt: skip
    marked = [line.split("⟦")[1].split("⟧")[0].replace("│", "").strip() for line in out.splitlines() if "⟦" in line][1:]
    assert len(marked) == 6 and set(marked) <= set(WORDS["Positive"] + WORDS["Negative"])
    assert "praise" in page.read_text(encoding="utf-8")


def test_a_run_takes_the_folder(untidy, capsys, tmp_path, model_folders):
    said(capsys, "build", "--data", str(untidy), "--label", "sentiment", "--number", "stars", "--window", "64", "--skip-first",
         "2", "--out", str(tmp_path / "set"))  # fmt: skip
    main(["run", "--data", str(tmp_path / "set"), "--model", str(model_folders["gpt2"]), "--out", str(tmp_path / "run"),
          "--ks", "1", "2", "--permutations", "100", "--workers", "1"])  # fmt: skip
    out = capsys.readouterr().out
    assert "rows from" in out and out.index("reviews: ") < out.index("F1 of the best single neuron")
    account = f"reviews: {json.loads((tmp_path / 'run' / 'manifest.json').read_text())['rows']} rows from "
    assert account in out, "rows used are told before the findings"
    assert "label column 'sentiment' has two values" in out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.index(account) < page.index("<nav"), "and at the top of the report"
    findings = pl.read_parquet(tmp_path / "run" / "findings.parquet")
    assert findings["feature"].to_list() == ["sentiment=Negative"]
    assert pl.read_parquet(tmp_path / "run" / "number_findings.parquet").height == 1
    assert "The data" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert "sentiment=Negative" in said(capsys, "show", str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nowhere"], "holds no datasheet.json"),
        (["audit"], "no data named"),
        (["audit", "--data", "REVIEWS", "--label", "sentimant"], "did you mean 'sentiment'?"),
        (["build", "--data", "REVIEWS", "--label", "sentiment", "--out", "FULL"], "is not empty and holds no dataset"),
        (["export", "FULL", "elsewhere"], "dataset"),
        (["audit", "FULL", "--data", "REVIEWS"], "leave out one of the two"),
        (["export", "REVIEWS", "FULL"], "is not empty and holds no dataset"),
        (["export", "FULL", "LINES"], "is a file and no export of a data set"),
        (["export", "FULL", "new.jsonl", "--to", "hugging-face"], "give a name without .jsonl"),
        (["show", "LINES"], "holds no datasheet.json"),
        (["export", "FULL", "REVIEWS"], "is a file, a data set needs a folder"),
        (["audit", "--data", "REVIEWS", "--label", "sentiment", "--html", "FULL"], "full"),
        (["build", "--source", "people", "--data", "nowhere"], "nowhere"),
        (["build", "--source", "peple", "--data", "nowhere"], "peple"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(untidy, capsys, tmp_path, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "lines.jsonl").write_text('{"text": "mine"}\n')
    known = {"REVIEWS": str(untidy), "FULL": str(tmp_path / "full"), "LINES": str(tmp_path / "lines.jsonl")}
    with pytest.raises(SystemExit) as stop:
        main(["datasets", *(str(known.get(a, a)) for a in arguments)])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"
