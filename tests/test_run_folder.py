"""A run folder from outside: odd paths, odd manifests, odd tables. Read rightly, or refused in one sentence."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from joblib import delayed

import sparse_probing as sp
from sparse_probing.cli.main import main
from sparse_probing.datasets.readers import iter_rows
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.files import read_json, read_table, write_json, write_table
from sparse_probing.jobs.run import _begin
from sparse_probing.report.run_report import write_report
from sparse_probing.results.run_folder import FORMAT, LATER, TABLES, read_run
from sparse_probing.sweep.plan import Task
from sparse_probing.sweep.pool import in_pool
from sparse_probing.sweep.run_task import TaskResult
from sparse_probing.sweep.task_folder import read_finished

SOURCE = Path(__file__).parent.parent / "src" / "sparse_probing"
READERS_OF_TABLES = {"files.py": "read_parquet", "datasets/readers.py": "scan_parquet"}
"""The only places that may name polars' own readers, which take `[`, `*` and `?` in a path for patterns."""


@pytest.fixture(scope="module")
def run_folder(model_folders, reviews, tmp_path_factory) -> Path:
    config = sp.RunConfig(
        model=str(model_folders["gpt_neox"]), data=reviews, label=("german",), out=tmp_path_factory.mktemp("h") / "h1",
        workers=1, window=32, skip_first=3, min_rows=2, ks=(1, 2), layers=(1,), random_model=False, permutations=0,
    )  # fmt: skip
    return sp.run(config).folder


@pytest.fixture
def copy(run_folder, tmp_path) -> Path:
    shutil.copytree(run_folder, tmp_path / "copy")
    return tmp_path / "copy"


def change_manifest(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | values)


def change_table(folder: Path, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    write_table(folder / f"{name}.parquet", change(read_table(folder / f"{name}.parquet")))


# ---- paths -----------------------------------------------------------------------------------------------------------


def test_a_folder_named_like_a_pattern_shows_its_own_neurons(run_folder):
    """`h[1]` is a pattern that matches its neighbour `h1`."""
    odd = run_folder.with_name("h[1]")
    shutil.copytree(run_folder, odd)
    change_table(odd, "findings", lambda table: table.with_columns(neuron=pl.lit("L1.N47")))
    assert read_run(odd)[1]["findings"]["neuron"].to_list() == ["L1.N47"]
    assert "L1.N47" in write_report(odd).read_text(encoding="utf-8")
    assert "L1.N47" not in write_report(run_folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["rev[2]", "a*", "x?", "{a,b}"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_data_files_named_like_patterns_are_read_themselves(tmp_path, name, ending):
    def write(path: Path, text: str) -> None:
        if ending == "parquet":
            with path.open("wb") as file:
                pl.DataFrame({"text": [text]}).write_parquet(file)
        else:
            path.write_text(json.dumps({"text": text}) if ending == "jsonl" else f"text\n{text}\n")

    for neighbour in ("rev2", "ab", "xy", "a", "b"):
        write(tmp_path / f"{neighbour}.{ending}", "neighbour")
    write(tmp_path / f"{name}.{ending}", "mine")
    assert [row["text"] for row in iter_rows(tmp_path / f"{name}.{ending}")] == ["mine"]


def test_only_two_modules_name_the_readers_that_expand_patterns():
    for path in SOURCE.rglob("*.py"):
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute)
        }
        allowed = READERS_OF_TABLES.get(path.relative_to(SOURCE).as_posix())
        assert not names & {"read_parquet", "scan_parquet", "read_csv", "scan_csv", "read_ndjson", "scan_ndjson"} - {
            allowed
        }, path


# ---- manifests -------------------------------------------------------------------------------------------------------


MANIFESTS: dict[str, tuple[str | dict[str, Any], str]] = {
    "cut": ('{"options": {"mo', "damaged: manifest.json"),
    "empty": ("", "damaged: manifest.json"),
    "a list": ("[]", "no JSON object"),
    "nested without end": ("[" * 200_000, "nested too deeply"),
    "a number of 5,000 digits": ('{"rows": ' + "9" * 5_000 + "}", "damaged: manifest.json"),
    "NaN": ('{"rows": NaN}', "no JSON number"),
    "half a surrogate pair": ({"model": {"name": "\ud800"}}, "damaged: manifest.json"),
    "a newer format": ({"format": FORMAT + 1}, "newer version"),
    "a format in words": ({"format": "one"}, "format is no number"),
    "no model": ({"model": None}, "manifest.json, model"),
    "a model without layers": ({"model": {"name": "m"}}, r"manifest.json, model\.layers"),
    "rows in words": ({"rows": "many"}, "manifest.json, rows"),
    "no audit": ({"audits": {}}, "no audit of category"),
    "an audit in words": ({"audits": {"reviews": "clean"}}, "audits.reviews"),
    "no versions": ({"versions": []}, "manifest.json, versions"),
    "options in words": ({"options": "none"}, "manifest.json, options"),
    "identity in words": ({"identity": "me"}, "manifest.json, identity"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_an_odd_manifest_is_refused_in_one_sentence(name, copy, monkeypatch, capsys):
    value, message = MANIFESTS[name]
    if isinstance(value, str):
        (copy / "manifest.json").write_text(value)
    else:
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | value))
    with pytest.raises(InputError, match=message):
        read_run(copy)
    steer = ["steer", str(copy), "--zero", "--prompt", "a"]
    for call in (["report", str(copy)], ["verify", str(copy)], ["compare", str(copy), str(copy)], steer):
        with pytest.raises(SystemExit) as stop:
            main(call)
        assert stop.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


def test_a_run_from_before_formats_still_opens(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    assert manifest.pop("format") == FORMAT
    for name in ("unused", "random_split", "near_duplicates", "near_duplicates_across_splits"):
        manifest["audits"]["reviews"].pop(name, None)
    manifest["audits"]["reviews"]["leaked_by_random_split"] = 63
    del manifest["rows_used"]
    write_json(copy / "manifest.json", manifest)
    for name in ("numbers", "number_findings", "number_profiles"):
        (copy / f"{name}.parquet").unlink()
    (copy / "dataset" / "datasheet.json").unlink()
    for name, columns in LATER.items():
        if (copy / f"{name}.parquet").exists():
            change_table(copy, name, lambda table, columns=columns: table.drop(columns))
    assert write_report(copy).is_file()


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_an_odd_table_is_refused_in_one_sentence(name, copy):
    path, good = copy / f"{name}.parquet", read_table(copy / f"{name}.parquet")
    column = next(c for c, kind in TABLES[name].items() if kind == pl.Float64)
    for bad, message in (
        (good.drop(column), f"no column '{column}'"),
        (good.cast({column: pl.String}), f"column '{column}' of {name}.parquet holds String, not Float64"),
        (good.with_columns(pl.lit(None, dtype=pl.String).alias("category")), "empty cells"),
        (good.with_columns(pl.lit(float("nan")).alias(column)), "no number"),
    ):
        write_table(path, bad)
        with pytest.raises(InputError, match=message):
            read_run(copy)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"damaged: {name}.parquet"):
        read_run(copy)
    path.unlink()
    with pytest.raises(InputError, match=f"{name}.parquet is missing"):
        read_run(copy)


def test_tables_that_contradict_the_manifest_are_refused(copy):
    for change in (pl.lit(99), pl.lit(-1)):
        for column in ("layer", "unit"):
            change_table(copy, "findings", lambda t, c=column, v=change: t.with_columns(v.cast(pl.Int32).alias(c)))
            with pytest.raises(InputError, match="a layer that was not probed"):
                read_run(copy)


def test_names_that_only_another_version_knows_are_shown_as_they_are(copy, capsys):
    change_table(copy, "findings", lambda table: table.with_columns(best_baseline=pl.lit("last_token")))
    change_table(copy, "baselines", lambda table: table.with_columns(baseline=pl.lit("last_token")))
    assert "last token" in write_report(copy).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[3]", '[{"category": "reviews"}]', '[{"category": 3, "features": 4}]']
)
def test_an_odd_data_sheet_is_refused_in_one_sentence(text, copy, capsys):
    (copy / "dataset" / "datasheet.json").write_text(text)
    with pytest.raises(InputError, match=r"damaged|cannot be used"):
        write_report(copy)
    with pytest.raises(SystemExit) as stop:
        main(["datasets", "show", str(copy)])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_strict_json(tmp_path):
    path = tmp_path / "x.json"
    for text in ("NaN", "[" * 200_000, '"\\ud800"', '"\\uD800"', "", "{"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"."):
            read_json(path)
    path.write_text('"\\ud83d\\ude00 \\u00fc"')
    assert read_json(path) == "😀 ü"


# ---- claiming, resuming ----------------------------------------------------------------------------------------------

IDENTITY = {"options": 1}
CONFIG = sp.RunConfig(data=Path("x.csv"), label=("y",))


def test_a_folder_that_holds_nothing_but_our_own_beginnings_is_new(tmp_path):
    """What a stop or a full disk can leave, in this version and in earlier ones."""

    def beginnings(name: str, *files: str) -> Path:
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text("cut")
        (tmp_path / name / "tasks").mkdir(parents=True, exist_ok=True)
        return tmp_path / name

    for folder in (
        tmp_path / "absent",
        beginnings("a"),
        beginnings("b", "config.toml"),
        beginnings("c", ".config.toml.0.partial"),
        beginnings("d", "config.toml", "tasks/.identity.json.0.partial"),
        beginnings("e", "config.toml", "tasks/identity.json"),
    ):
        assert not _begin(folder, CONFIG, IDENTITY), folder
        assert not list(folder.rglob("*.partial"))
        assert read_json(folder / "tasks" / "identity.json") == IDENTITY
        assert not _begin(folder, CONFIG, IDENTITY), "claimed, unfinished"
        with pytest.raises(InputError, match="unfinished run with other options"):
            _begin(folder, CONFIG, {"options": 2})


def test_a_folder_with_anything_else_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.toml").write_text("written by hand")
    (tmp_path / "work" / "tasks").mkdir(parents=True)
    (tmp_path / "work" / "tasks" / "identity.json").write_text("")
    (tmp_path / "work" / "tasks" / "L000-c.json").write_text("{}")
    (tmp_path / "text").write_text("")
    for name, message in (
        ("mine", "holds no run"),
        ("work", "identity.json in its tasks is damaged"),
        ("text", "is a file"),
    ):
        with pytest.raises(InputError, match=message):
            _begin(tmp_path / name, CONFIG, IDENTITY)
    assert (tmp_path / "mine" / "config.toml").read_text() == "written by hand"


def test_leftovers_are_removed_from_a_finished_run(run_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    for name in (".report.html.0.partial", "dataset/.rows.parquet.0.partial", "tasks/L001.json"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("cut")
    assert _begin(copy, CONFIG, json.loads((copy / "manifest.json").read_text())["identity"])
    assert not list(copy.rglob("*.partial"))
    assert not (copy / "tasks").exists()


def test_files_are_on_the_disk_before_they_are_renamed(tmp_path, monkeypatch):
    order: list[str] = []
    flush, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("flushed"), flush(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("renamed"), rename(self, to))[1])
    write_json(tmp_path / "x.json", 1)
    assert order[:2] == ["flushed", "renamed"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"probes": [], "neurons": 3}', "\x00", "NaN"])
def test_a_cut_or_odd_task_file_is_computed_again(text, tmp_path):
    whole = TaskResult(probes=[{"k": 1}], neurons=[], null={"f": [0.5]}, largest={"f": 0.25}, resampled={})
    write_json(tmp_path / "task.json", asdict(whole))
    assert read_finished(tmp_path / "task.json", TaskResult) == whole
    (tmp_path / "task.json").write_text(text)
    assert read_finished(tmp_path / "task.json", TaskResult) is None
    assert read_finished(tmp_path / "absent.json", TaskResult) is None


# ---- names -----------------------------------------------------------------------------------------------------------


def test_no_two_categories_share_a_file(tmp_path):
    odd = [
        "a-b",
        "a_b",
        "a b",
        "a/b",
        "A_B",
        "../b",
        "x" * 5_000,
        "x" * 5_001,
        "数" * 300,
        "数" * 301,
        "\ud800",
        "",
        ".",
    ]
    tasks = [Task(layer=3, category=c, features=(0,), exact=exact) for c in odd for exact in (False, True)]
    files = {task.file.casefold() for task in tasks}
    assert len(files) == len(tasks)
    for name in files:
        assert len(f"{name}-k256.json".encode()) < 200
        (tmp_path / f"{name}.json").touch()


def test_a_run_folder_takes_a_short_name_from_a_long_one(tmp_path):
    for name in ("r" * 240, "数" * 80, "reviews"):
        folder = sp.RunConfig(data=tmp_path / f"{name}.csv", label=("y",)).folder()
        assert len(folder.name.encode()) < 200
        write_json(tmp_path / f"{folder.name}.json", 1)
    assert sp.RunConfig(data=tmp_path / "reviews.csv", label=("y",)).folder() == Path("runs/reviews")
    write_json(tmp_path / ("n" * 250), 1)  # the temporary file must fit, too


# ---- the pool --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "message"), [("killed", "worker process was killed"), ("memory", "memory ran out")])
def test_a_lost_worker_is_one_sentence_and_what_is_done_is_kept(what, message):
    def job(i: int) -> int:  # within the test, so that it is sent by value and workers need not import this file
        if i == 1 and what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if i == 1:
            raise MemoryError
        return i

    with pytest.raises(PrerequisiteError, match=f"{message}.*the same command goes on"):
        in_pool((delayed(job)(i) for i in range(4)), 2, lambda _: None)


def test_memory_that_runs_out_anywhere_is_one_sentence(monkeypatch, capsys):
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sparse_probing.report.run_report.write_report", exhausted)
    with pytest.raises(SystemExit) as stop:
        main(["report", "anywhere"])
    assert stop.value.code == 2
    assert "memory ran out" in capsys.readouterr().err


def test_workers_end_when_their_parent_is_killed(tmp_path):
    program = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from joblib import delayed\n"
        "from sparse_probing.sweep.pool import in_pool\n"
        "def work(i):\n"
        "    (Path(os.environ['HERE']) / str(os.getpid())).touch()\n"
        "    time.sleep(600)\n"
        "in_pool((delayed(work)(i) for i in range(2)), 2, print)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"HERE": str(tmp_path)})
    try:
        assert _until(lambda: len(list(tmp_path.iterdir())) == 2), "the workers never began"
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert _until(lambda: not any(map(_alive, workers))), "workers outlive their parent"


def _until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def _alive(process: int) -> bool:
    try:
        return (
            "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
        )  # a corpse that nobody collects is no worker
    except OSError:
        return False
