"""End to end on a tiny model: the run folder, the command line, bad input, resuming, determinism."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import sparse_probing as sp
from sparse_probing.cli.cache import parse_size
from sparse_probing.cli.main import main
from sparse_probing.errors import InputError
from sparse_probing.sweep.plan import SELECTED

from .conftest import Counted

TABLES = (
    "findings",
    "probes",
    "neurons",
    "baselines",
    "differences",
    "examples",
    "histograms",
    "dataset/rows",
    "dataset/labels",
    "dataset/documents",
)
QUICK = {"skip_first": 3, "window": 32, "min_rows": 2, "ks": (1, 2, 4)}


@pytest.fixture(scope="module")
def finished(model_folders, reviews, tmp_path_factory) -> sp.RunResult:
    out = tmp_path_factory.mktemp("runs") / "one"
    config = sp.RunConfig(
        model=str(model_folders["gpt_neox"]),
        data=reviews,
        label=("german",),
        group_column="author",
        out=out,
        workers=1,
        **QUICK,
    )
    result = sp.run(config, reporter=(counted := Counted()))
    assert counted.unfinished() == []
    assert {"read data", "activations", "probes", "test scores", "examples"} <= {name for name, _, _ in counted.stages}
    return result


def arguments(model_folders, reviews: Path, out: Path, *more: str) -> list[str]:
    return [
        "run", "--model", str(model_folders["gpt_neox"]), "--data", str(reviews), "--label", "german", "--group-column", "author",
        "--skip-first", "3", "--window", "32", "--min-rows", "2", "--ks", "1", "2", "4", "--out", str(out), *more,
    ]  # fmt: skip


def tables_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


def test_run_folder_is_complete(finished):
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    assert manifest["model"]["probed_layers"] == [0, 1, 2]
    assert manifest["ks"] == [1, 2, 4]
    assert manifest["audits"]["reviews"]["documents_read"] == 120
    assert manifest["audits"]["reviews"]["random_split"]["torn"] > 60  # five texts per author
    assert set(tables_of(finished.folder)) == set(TABLES)
    assert not (finished.folder / "tasks").exists()
    assert finished.report.is_file()


def test_findings_are_recomputed_by_a_script_that_imports_nothing_of_ours(finished, model_folders, capsys):
    script = Path(__file__).parent.parent / "tools" / "recompute.py"
    source = script.read_text(encoding="utf-8")
    assert "sparse_probing" not in source
    specification = importlib.util.spec_from_file_location("recompute", script)
    assert specification is not None
    assert specification.loader is not None
    recompute = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(recompute)
    arguments = [str(finished.folder), str(model_folders["gpt_neox"])]
    assert recompute.main(arguments) == 0, capsys.readouterr().out
    assert "1 of 1 findings equal" in capsys.readouterr().out


def test_findings_agree_with_the_probe_table(finished):
    (finding,) = finished.findings.to_dicts()
    probes = pl.read_parquet(finished.folder / "probes.parquet")
    (row,) = probes.filter(split="test", role="single").to_dicts()
    assert finding["f1"] == row["f1"]
    assert [finding["unit"]] == row["columns"]
    assert finding["f1_low"] <= finding["f1"] <= finding["f1_high"]
    key = ["layer", "method", "columns"]
    halves = [
        probes.filter(split=split, k=1).with_columns(
            ((pl.col("f1") + pl.col("average_precision")) / 2).alias(f"{split}_merit")
        )
        for split in ("train", "validation")
    ]
    choosing = [m.value for m in SELECTED] + ["single_neuron"]
    singles = halves[1].join(halves[0].select(*key, "train_merit"), on=key).filter(pl.col("method").is_in(choosing))
    merit = singles.select(pl.min_horizontal("train_merit", "validation_merit")).to_series()
    assert finding["validation_f1"] in singles.filter(merit == merit.max())["f1"].to_list()


def test_only_chosen_probes_were_scored_on_test(finished):
    probes = pl.read_parquet(finished.folder / "probes.parquet")
    test = probes.filter(split="test")
    assert test["role"].null_count() == 0
    assert sorted(test["role"].to_list()) == sorted(set(test["role"]))
    assert len(test) < 12 < len(probes.filter(split="validation"))


def test_test_scores_can_be_recomputed_from_the_run_folder_and_the_model(finished, model_folders):
    """An independent path: text -> tokenizer -> Hugging Face model -> numpy, no code of the pipeline."""
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    probe = pl.read_parquet(finished.folder / "probes.parquet").filter(split="test", role="single").to_dicts()[0]
    rows = pl.read_parquet(finished.folder / "dataset/rows.parquet").filter(split="test")
    labels = pl.read_parquet(finished.folder / "dataset/labels.parquet")
    documents = pl.read_parquet(finished.folder / "dataset/documents.parquet")
    tokenizer = AutoTokenizer.from_pretrained(model_folders["gpt_neox"])
    network = AutoModel.from_pretrained(model_folders["gpt_neox"], dtype=torch.float32).eval()
    kept: list[torch.Tensor] = []
    mlp = network.layers[probe["layer"]].mlp
    mlp.dense_4h_to_h.register_forward_pre_hook(lambda _m, a: kept.append(a[0]))
    hits = calls = found = 0
    for row in rows.to_dicts():
        text = documents["text"][row["document"]]
        encoding = tokenizer(text, return_offsets_mapping=True)
        starts = [start for start, _ in encoding["offset_mapping"]]
        first = starts.index(row["char_start"])  # rows begin 3 positions in: BOS and two tokens before
        ids = [0, *encoding["input_ids"][first - 2 : first - 2 + 31]]
        with torch.no_grad():
            network(torch.tensor([ids]))
        value = kept[-1][0, 3:].mean(dim=0)[probe["columns"]].half().double().numpy()
        called = value @ np.array(probe["coefficients"]) + probe["intercept"] > probe["threshold"]
        positive = labels.filter(row=row["row"])["positive"][0]
        hits, calls, found = hits + (called and positive), calls + called, found + positive
    assert 2 * hits / (calls + found) == pytest.approx(probe["f1"], abs=0.03)


def test_another_number_of_workers_gives_the_same_bytes(finished, model_folders, reviews, tmp_path, capsys):
    main(arguments(model_folders, reviews, tmp_path / "two", "--workers", "2"))
    assert tables_of(tmp_path / "two") == tables_of(finished.folder)
    assert (tmp_path / "two" / "report.html").read_bytes() == finished.report.read_bytes(), "no time, no place"
    out = capsys.readouterr().out
    assert "german" in out
    assert str(tmp_path / "two" / "report.html") in out.replace("\n", "")


def test_a_finished_run_is_read_not_repeated(finished, model_folders, reviews, monkeypatch, capsys):
    monkeypatch.setattr("sparse_probing.jobs.run.run_tasks", lambda *_a, **_k: pytest.fail("ran again"))
    before = (finished.folder / "manifest.json").stat().st_mtime_ns
    main(arguments(model_folders, reviews, finished.folder, "--workers", "1"))
    assert (finished.folder / "manifest.json").stat().st_mtime_ns == before
    assert "german" in capsys.readouterr().out


def test_another_run_in_the_same_folder_is_refused_and_nothing_is_touched(finished, model_folders, reviews, capsys):
    before = tables_of(finished.folder)
    with pytest.raises(SystemExit) as stop:
        main(arguments(model_folders, reviews, finished.folder, "--seed", "5"))
    assert stop.value.code == 2
    assert "holds the results of another run" in capsys.readouterr().err
    assert tables_of(finished.folder) == before


def test_options_from_a_file_and_the_command_line_wins(model_folders, reviews, tmp_path):
    settings = {
        "model": str(model_folders["gpt2"]),
        "data": str(reviews),
        "label": ["german"],
        "min-rows": 2,
        "seed": 3,
        "layers": [1],
    }
    (tmp_path / "run.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in settings.items()))
    main(
        [
            "run",
            "--config",
            str(tmp_path / "run.toml"),
            "--seed",
            "4",
            "--ks",
            "1",
            "--no-random-model",
            "--out",
            str(tmp_path / "o"),
        ]
    )
    options = json.loads((tmp_path / "o" / "manifest.json").read_text())["options"]
    assert (options["seed"], options["layers"], options["random_model"]) == (4, [1], False)


def test_spans_of_a_user(model_folders, tmp_path):
    rows = []
    for i in range(60):
        text = f"The old harbour of town {i} was quiet, and ship {i * 7} left before the rain began to fall."
        spans = [{"start": m.start(), "end": m.end(), "label": "number"} for m in re.finditer(r"\d+", text)]
        rows.append(json.dumps({"text": text, "spans": spans}))
    (tmp_path / "s.jsonl").write_text("\n".join(rows))
    config = sp.RunConfig(
        model=str(model_folders["llama"]), data=tmp_path / "s.jsonl", spans_column="spans", out=tmp_path / "o", workers=1,
        skip_first=2, window=64, ks=(1, 2), random_model=False,
    )  # fmt: skip
    result = sp.run(config)
    assert result.findings["feature"].to_list() == ["number"]
    examples = pl.read_parquet(tmp_path / "o" / "examples.parquet")
    for example in examples.to_dicts():
        joined = "".join(example["tokens"])
        assert joined in "\n".join(json.loads(row)["text"] for row in rows)
        assert len(example["tokens"]) == len(example["activations"])


BAD_CALLS = [
    (
        ["run", "--data", "REVIEWS", "--label", "cheerful", "--methods", "foo"],
        "option methods.0: Input should be 'greedy_swap'",
    ),
    (
        ["run", "--data", "REVIEWS", "--label", "cheerful", "--permutations", "5"],
        "error: permutations must be 0 (none) or at least 100",
    ),
    (["run", "--data", "nowhere.csv", "--label", "y"], "'nowhere.csv' does not exist: check the path"),
    (["run", "--label", "y"], "no data named"),
    (["run", "--data", "REVIEWS"], "no label column named"),
    (["run", "--data", "REVIEWS", "--label", "germann"], "did you mean 'german'?"),
    (["run", "--data", "REVIEWS", "--label", "german", "--ks", "4000"], "k = 4000 is not possible"),
    (["run", "--data", "REVIEWS", "--label", "german", "--layers", "9"], "layer 9 does not exist"),
    (
        ["run", "--data", "REVIEWS", "--label", "german", "--min-rows", "500"],
        "at least 500 of each are needed in every split",
    ),
    (["run", "--data", "REVIEWS", "--label", "german", "--pooling", "token"], "pooling 'token' is for single tokens"),
    (
        ["run", "--data", "REVIEWS", "--label", "german", "--window", "5"],
        "window (5) must be larger than skip_first (10)",
    ),
    (["run", "--data", "REVIEWS", "--label", "german", "--seed", "x"], "x"),
    (
        ["run", "--data", "REVIEWS", "--label", "german", "--model", "no/such-model"],
        "model 'no/such-model' cannot be loaded",
    ),
    (["run", "--config", "nowhere.toml"], "configuration file 'nowhere.toml' does not exist"),
    (["run", "--source", "natural-language", "--data", "nowhere"], "holds no .jsonl file"),
    (["run", "--data", "REVIEWS", "--label", "german", "--out", "/proc/nothing"], "/proc/nothing"),
    (["run", "--data", "REVIEWS", "--label", "german", "--device", "warp"], "device 'warp' cannot be used here"),
    (["run", "--data", "REVIEWS", "--label", "german", "--device", "meta:x"], "device 'meta:x' cannot be used here"),
    (["run", "--data", "REVIEWS", "--label", "german", "--out", "REVIEWS"], "is a file, a run needs a folder"),
    (["run", "--data", "REVIEWS", "--label", "german", "--site", "mlp.neuron"], "it has mlp.neurons, mlp.pre, mlp.out"),
    (["run", "--data", "REVIEWS", "--label", "german", "--layers", "3"], "layer 3 does not exist"),
    (["run", "--data", "REVIEWS", "--label", "german", "--window", "65"], "which takes 64: use --window 64 or less"),
    (
        ["run", "--data", "REVIEWS", "--label", "german", "--window", "20", "--long-texts", "error"],
        "120 text(s) of reviews do not fit into a window of 19 tokens",
    ),
    (
        ["run", "--data", "REVIEWS", "--label", "german", "--device-map", "auto"],
        "add --no-random-model to --device-map",
    ),
    (
        ["run", "--data", "REVIEWS", "--label", "german", "--site", "layers.*.mlp.act", "--dry-run"],
        "needs the weights: leave out --dry-run",
    ),
    (["run", "--data", "REVIEWS", "--label", "german", "--store-dtype", "float8"], "float8"),
    (
        ["run", "--data", "REVIEWS", "--label", "german", "--methods", "exact", "--exact-layers", "7"],
        "layer 7 of --exact-layers is not probed: choose from 0, 1, 2",
    ),
    (["run", "--data", "REVIEWS", "--label", "german", "--exact-gap", "0"], "exact_gap must be from 1e-05 to 1"),
    (["run", "--data", "REVIEWS", "--label", "german", "--selection-ridge", "0"], "selection_ridge must be above 0"),
    (["check-certificate", "nowhere.npz"], "nowhere.npz"),
    (["cache", "prune"], "nothing named: give names of stores, --older-than DAYS"),
    (["cache", "prune", "--keep", "much"], "'much' is no size: write it like 20GB"),
    (["cache", "prune", "nothing-here"], "0 stores begin with 'nothing-here'"),
    (["sites", "nowhere"], "model 'nowhere' cannot be loaded"),
    (["report", "nowhere"], "is no run folder"),
    (["frobnicate"], "frobnicate"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS, ids=[m[:40] for _, m in BAD_CALLS])
def test_bad_input_is_one_line_and_exit_code_2(call, message, model_folders, reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    call = [str(reviews) if part == "REVIEWS" else part for part in call]
    if call[0] == "run" and "--model" not in call:
        call += ["--model", str(model_folders["gpt_neox"])]
    with pytest.raises(SystemExit) as stop:
        main(call)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in error
    assert not list(tmp_path.glob("runs/*/*.parquet"))


def test_disk_full_while_writing_results_is_one_line(model_folders, reviews, tmp_path, monkeypatch, capsys):
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "findings.parquet")

    monkeypatch.setattr("sparse_probing.jobs.run._write_tables", full)
    with pytest.raises(SystemExit) as stop:
        main(arguments(model_folders, reviews, tmp_path / "o", "--workers", "1"))
    assert stop.value.code == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list((tmp_path / "o" / "tasks").glob("L*.json")), "finished tasks are kept"


def test_disk_full_between_tasks_is_one_line_without_warnings(model_folders, reviews, tmp_path):
    program = (
        "import sparse_probing.sweep.local_runner as runner\n"
        "def full(*_): raise OSError(28, 'No space left on device', 'task.json')\n"
        "runner.write_json = full\n"
        "from sparse_probing.cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, *arguments(model_folders, reviews, tmp_path / "o", "--workers", "2")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_says_how_to_go_on(model_folders, reviews, tmp_path, monkeypatch, capsys):
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparse_probing.jobs.run.run_tasks", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(arguments(model_folders, reviews, tmp_path / "o"))
    assert stop.value.code == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_another_site_and_type_from_end_to_end(model_folders, reviews, tmp_path, capsys):
    more = ("--site", "blocks.*.hook_resid_post", "--store-dtype", "int8", "--layers", "1", "2", "--no-random-model")
    main(arguments(model_folders, reviews, tmp_path / "o", *more))
    findings = pl.read_parquet(tmp_path / "o" / "findings.parquet")
    assert re.fullmatch(r"L[12]\.resid\.post\.\d+", findings["neuron"][0])
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert manifest["model"] | {"name": ""} == {
        "name": "", "layers": 3, "site": "resid.post", "width": 16, "probed_layers": [1, 2],
        "parameters": 14_688,
    }  # fmt: skip
    assert "16 units at resid.post" in " ".join((tmp_path / "o" / "report.html").read_text().split())


def test_a_dry_run_prints_size_and_room_and_writes_nothing(model_folders, reviews, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sparse_probing.jobs.run.model_of", lambda *_a, **_n: pytest.fail("weights loaded"))
    main(arguments(model_folders, reviews, tmp_path / "o", "--dry-run"))
    shown = capsys.readouterr().out
    assert re.search(r"rows +120 from [\d,]+ tokens per model", shown)
    assert re.search(r"on disk +\d+ kB as float16", shown) and re.search(r"free +[\d.,]+ GB in", shown)
    assert "2 models (the second untrained)" in shown
    assert re.search(r"memory +weights \d+ kB \(float32\), activations about \d+ MB, free [\d,.]+ GB", shown)
    assert re.search(r"time +about \d+ \w+ on this machine \(activations \d+ \w+, probes \d+ \w+\)", shown)
    assert "reviews: 120 rows from 120 of 120 texts." in shown
    assert not (tmp_path / "o").exists()
    monkeypatch.setattr("sparse_probing.activations.forecast.free_bytes", lambda _: 1_000)
    with pytest.raises(SystemExit) as stop:
        main(arguments(model_folders, reviews, tmp_path / "o", "--dry-run"))
    assert stop.value.code == 2
    assert "1 kB are free in" in capsys.readouterr().err


def test_the_cache_is_listed_measured_and_pruned(model_folders, reviews, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SPROBE_CACHE", str(tmp_path / "cache"))
    main(["cache", "ls"])
    assert "nothing is stored in" in capsys.readouterr().out
    main(arguments(model_folders, reviews, tmp_path / "o", "--layers", "0"))
    capsys.readouterr()
    main(["cache", "ls"])
    shown = capsys.readouterr().out
    assert shown.count("mlp.neurons 1 x float16") == 2 and "2 stores, " in shown
    main(["cache", "size"])
    assert re.search(r"\d+ kB in .*, [\d.,]+ GB free on its disk", capsys.readouterr().out)
    main(["cache", "prune", "--all", "--dry-run"])
    assert "would be freed, 2 stores" in capsys.readouterr().out
    main(["cache", "prune", "--keep", "1GB", "--older-than", "1", "--stale"])
    assert "freed, 0 stores" in capsys.readouterr().out
    name = next((tmp_path / "cache" / "activations").iterdir()).name
    main(["cache", "prune", name[:10]])
    assert "freed, 1 stores" in capsys.readouterr().out
    main(["cache", "prune", "--keep", "0"])
    assert list((tmp_path / "cache" / "activations").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("1.5 M", 1_500_000), ("7", 7), ("0", 0), ("2tb", 2 * 10**12)]
)
def test_sizes_by_hand(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "9" * 400])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="is no size"):
        parse_size(text)


def test_remarks_reach_the_user(model_folders, reviews, tmp_path, capsys, monkeypatch):
    from sparse_probing.activations import batches

    monkeypatch.setattr(batches, "LENGTH_STEP", 1)
    real = batches.reading
    limit = 200

    def limited(network, sites, take):
        def narrow(site, values):
            if values.shape[:-1].numel() > limit:
                raise RuntimeError("CUDA out of memory. Tried to allocate [3 GiB]")
            take(site, values)

        return real(network, sites, narrow)

    monkeypatch.setattr(batches, "reading", limited)
    main(arguments(model_folders, reviews, tmp_path / "o", "--site", "resid.pre", "--layers", "0", "--no-random-model"))
    shown = " ".join(capsys.readouterr().err.split())
    assert re.search(r"note: out of memory with [\d,]+ tokens in a batch: going on with \d+\.", shown)


def test_an_unknown_option_in_a_file_is_named(tmp_path, capsys):
    (tmp_path / "run.toml").write_text('modle = "demo"\n')
    with pytest.raises(SystemExit):
        main(["run", "--config", str(tmp_path / "run.toml")])
    assert "modle" in capsys.readouterr().err


def test_every_option_is_explained_in_help(capsys):
    main(["run", "--help"])
    out = re.sub(r"\s+", " ", capsys.readouterr().out.replace("│", " "))
    for name, field in sp.RunConfig.model_fields.items():
        assert f"--{name.replace('_', '-')}" in out
        assert field.description, name
        words = field.description.replace("`", "").split()
        assert " ".join(words[:2]) in out, name


def test_public_names_exist_and_unknown_ones_are_refused():
    for name in sp.__all__:
        assert getattr(sp, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = sp.nothing_here  # pyright: ignore[reportAttributeAccessIssue]


def test_config_in_python_refuses_contradictions():
    from sparse_probing.config import make_config

    with pytest.raises(InputError, match="window"):
        make_config({"window": 4, "skip_first": 4})
