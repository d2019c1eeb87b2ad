"""`sprobe verify` end to end on tiny models: tables, report, resuming, same bytes, bad input, models without a loss."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

import sparse_probing as sp
from sparse_probing.cli.main import main
from sparse_probing.datasets.labelled_text import document_level_text
from sparse_probing.errors import InputError
from sparse_probing.jobs.verify import verify
from sparse_probing.open_run import open_run
from sparse_probing.results.verdict import CAUSAL, COMBINATION, NO_EFFECT, STAND_INS
from sparse_probing.studies.effects import interventions as effects_module
from sparse_probing.studies.effects import measure as tasks_module
from sparse_probing.studies.effects.texts import EvidenceTexts, Scoring, evidence_texts, parts_of
from sparse_probing.studies.evidence import evidence_tables, read_evidence

from .conftest import SENTENCES, Counted

QUICK = {
    "skip_first": 3,
    "window": 32,
    "min_rows": 2,
    "ks": (1, 2, 4),
    "random_model": False,
    "permutations": 0,
    "workers": 1,
}
OPTIONS = sp.VerifyConfig(texts=20, sizes=(1, 2))


def run_on(model: Path, data: Path, out: Path) -> Path:
    config = sp.RunConfig(
        model=str(model), data=data, label=("german",), group_column="author", out=out, device="cpu", **QUICK
    )
    return sp.run(config).folder


@pytest.fixture(scope="module")
def run_folder(model_folders, reviews, tmp_path_factory) -> Path:
    return run_on(model_folders["gpt_neox"], reviews, tmp_path_factory.mktemp("verify") / "run")


@pytest.fixture(scope="module")
def verified(run_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verified") / "run"
    shutil.copytree(run_folder, folder)
    verify(folder, OPTIONS, reporter=(counted := Counted()))
    assert counted.unfinished() == []
    assert {"interventions", "profiles", "redundancy"} <= {name for name, _, _ in counted.stages}
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "evidence").glob("*.parquet"))}


def test_every_table_is_written_and_typed(verified):
    tables = read_evidence(verified)
    assert tables is not None
    for name, columns in evidence_tables().items():
        assert tables[name].schema == pl.Schema(columns), name
    for name in ("ablations", "effect_matrix", "evidence", "profiles", "output_weights", "pruning", "basis"):
        assert len(tables[name]), name
    assert not (verified / "evidence" / "tasks").exists()


def test_the_ablation_is_what_editing_the_weights_gives(verified):
    """An independent path: the run's texts one by one through a network whose down projection has lost a column."""
    (row,) = pl.read_parquet(verified / "evidence/ablations.parquet").filter(support="single").to_dicts()
    opened = open_run(verified, with_head=True)
    dataset, network = opened.dataset, opened.model.full
    assert network is not None
    evidence = evidence_texts(
        dataset,
        0,
        per_class=OPTIONS.texts,
        parts=parts_of(dataset, "reviews"),
        scoring=Scoring(None),
        seed=OPTIONS.seed,
    )

    def losses() -> dict[bool, float]:
        total, count = {True: 0.0, False: 0.0}, {True: 0, False: 0}
        for r, positive in zip(evidence.row.tolist(), evidence.positive.tolist(), strict=True):
            s = dataset.row_sequence[r]
            ids = torch.from_numpy(dataset.tokens[dataset.sequence_starts[s] : dataset.sequence_starts[s + 1]]).long()
            with torch.no_grad():
                logits = network(input_ids=ids[None]).logits[0].double()
            here = np.arange(int(dataset.row_first[r]), min(int(dataset.row_last[r]), len(ids) - 1))
            loss = torch.nn.functional.cross_entropy(logits[here], ids[here + 1], reduction="sum")
            total[positive] += float(loss)
            count[positive] += len(here)
        return {positive: total[positive] / count[positive] for positive in total}

    before = losses()
    unit = int(row["neurons"][0].split("N")[1])
    down = opened.model.network.get_submodule(opened.sites[row["layer"]].module_path)
    assert isinstance(down, torch.nn.Linear)
    with torch.no_grad():
        down.weight[:, unit] = 0.0
    after = losses()
    (summary,) = pl.read_parquet(verified / "evidence/evidence.parquet").to_dicts()
    assert summary["effect_in"] == row["effect_in"] and 1 <= summary["equals"] <= 11
    assert row["loss_in"] == pytest.approx(before[True], abs=1e-5)
    assert row["effect_in"] == pytest.approx(after[True] - before[True], abs=1e-5)
    assert row["effect_out"] == pytest.approx(after[False] - before[False], abs=1e-5)


def test_same_seed_same_bytes_also_after_a_stop(run_folder, verified, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    whole = tasks_module.set_effects

    def stop(*_args: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparse_probing.studies.structure.measure.structure_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        verify(folder, OPTIONS)
    assert len(list((folder / "evidence/tasks").glob("*/0000.json"))) == 1
    monkeypatch.undo()
    (profile,) = (folder / "evidence/tasks").glob("*/profile.json")
    profile.write_bytes(profile.read_bytes()[:100])  # cut off: made again
    calls = []
    monkeypatch.setattr(tasks_module, "set_effects", lambda *a, **k: calls.append(1) or whole(*a, **k))
    verify(folder, OPTIONS, reporter=(counted := Counted()))
    assert counted.unfinished() == [], "what is read from a stopped look counts, too"
    assert not calls, "the finished interventions are not made again"
    assert bytes_of(folder) == bytes_of(verified)
    assert (folder / "report.html").read_bytes() == (verified / "report.html").read_bytes(), "no time, no place"


def test_stopped_between_tables_it_is_not_taken_for_finished(verified, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(verified, folder)
    written = []

    def write_some(path: Path, table: pl.DataFrame) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        table.write_parquet(path)

    monkeypatch.setattr("sparse_probing.jobs.verify.write_table", write_some)
    with pytest.raises(KeyboardInterrupt):
        verify(folder, OPTIONS.model_copy(update={"seed": 1, "replace": True}))
    monkeypatch.undo()
    verify(folder, OPTIONS)
    assert bytes_of(folder) == bytes_of(verified)


@pytest.mark.parametrize("site", ["resid.post", "attn.heads"])
def test_units_of_other_sites_are_verified(site, model_folders, reviews, tmp_path):
    config = sp.RunConfig(
        model=str(model_folders["llama"]), data=reviews, label=("german",), group_column="author", site=site,
        layers=(1,), out=tmp_path / "run", device="cpu", **QUICK,
    )  # fmt: skip
    folder = sp.run(config).folder
    found = verify(folder, sp.VerifyConfig(texts=3, placebos=20, sizes=(1,)))
    (row,) = found.evidence.to_dicts()
    assert row["neuron"].startswith(f"L1.{site}.") and row["effect_in"] is not None
    assert len(pl.read_parquet(folder / "evidence/output_weights.parquet")) == 0
    assert "The second look" in found.report.read_text(encoding="utf-8")


def test_finished_evidence_is_only_read_and_other_options_replace_it(verified, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(verified, folder)
    monkeypatch.setattr(effects_module, "measure", lambda *_a, **_k: pytest.fail("measured again"))
    again = verify(folder, OPTIONS)
    assert len(again.evidence) == 1
    monkeypatch.undo()
    other = sp.VerifyConfig(
        texts=5,
        sizes=(0,),
        kinds=("mean", "resample", "clamp"),
        doses=("1x", "q0.9", "3"),
        where="labelled",
        replace=True,
    )
    with pytest.raises(InputError, match="add --replace"):
        verify(folder, other.model_copy(update={"replace": False}))
    assert bytes_of(folder) == bytes_of(verified)
    assert verify(folder, other).evidence["ablation"].to_list() == ["mean"]
    ablations = pl.read_parquet(folder / "evidence/ablations.parquet").filter(support="single")
    assert ablations["kind"].to_list() == ["mean", "resample", "clamp", "clamp", "clamp"]
    assert ablations["dose"].to_list() == [None, None, "1x", "q0.9", "3"]
    assert ablations["values"].to_list()[-1] == [3.0]
    assert set(ablations["where"]) == {"labelled"}
    assert len(pl.read_parquet(folder / "evidence/effect_matrix.parquet")) == 0


def test_the_model_is_left_as_it_was(run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    opened = open_run(folder, with_head=True)
    network = opened.model.full
    assert network is not None
    ids = torch.arange(1, 30)[None]
    before = network(input_ids=ids).logits
    tasks_module.run_effects(opened, [0], effects_module.Treatment(), Scoring(None), OPTIONS, folder, opened.reporter)
    assert torch.equal(network(input_ids=ids).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_the_verdict_of_the_report_rests_on_the_evidence(verified):
    evidence = pl.read_parquet(verified / "evidence/evidence.parquet").to_dicts()[0]
    page = (verified / "report.html").read_text(encoding="utf-8")
    assert evidence["verdict"] in page
    assert "The second look" in page and "effects-0-0-placebos" in page
    assert f"{evidence['effect_in']:+.4f}" in page


def test_command_prints_and_folder_of_text_gives_examples(run_folder, tmp_path, capsys):
    folder, texts = tmp_path / "run", tmp_path / "texts"
    shutil.copytree(run_folder, folder)
    texts.mkdir()
    for i, sentence in enumerate(SENTENCES):
        (texts / f"{i}.txt").write_text(f"{sentence} {sentence[::-1]}", encoding="utf-8")
    main(["verify", str(folder), "--texts", "6", "--sizes", "0", "--text", str(texts), "--feature", "german"])
    out, err = capsys.readouterr()
    assert "--texts 6 is too few for intervals, which need 20 documents" in (words := " ".join(err.split()))
    assert words.index("--texts 6 is too few") < words.index("load model"), "before the work"
    assert "german" in out and "beyond placebos" in out and "report.html" in out
    examples = pl.read_parquet(folder / "evidence/evidence_examples.parquet")
    assert set(examples["source"]) == {"labelled", "text"}
    row = pl.read_parquet(folder / "evidence/ablations.parquet").to_dicts()[0]
    assert row["effect_in_low"] is None, "six documents give no interval"
    assert "fewer than 20 documents" in (folder / "report.html").read_text(encoding="utf-8")


def test_texts_of_too_few_documents_are_named_before_the_work():
    def texts(documents_in: int, documents_out: int) -> EvidenceTexts:
        documents = [*range(documents_in), *range(100, 100 + documents_out)] * 2  # each document has two rows
        number = np.arange(len(documents))
        positive = np.array(documents) < 100
        return EvidenceTexts(
            texts=[], row=number, row_text=number, positive=positive, group=np.array(documents), own_tokens=False
        )

    assert tasks_module.few_documents({"german": texts(20, 20), "latin": None}) is None
    said = tasks_module.few_documents({"german": texts(20, 20), "french": texts(24, 19)})
    assert said is not None and "need 20 on each side: french (24 in class, 19 out of class)." in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--feature", "french"], "has no feature 'french': it has german"),
        (["--placebos", "5"], "placebos must be at least 20"),
        (["--kinds", "zero", "clamp", "--doses", "nan"], "is no level for a clamp"),
        (["--kinds", "zero", "clamp", "--doses", "1e39"], "cannot be set to 1e+39"),
        (["--kinds", "clamp"], "a clamp is no ablation"),
        (["--doses", "2x"], "add clamp to kinds"),
        (["--text", "/nowhere/at/all"], "'/nowhere/at/all'"),
    ],
)
def test_bad_options_in_one_sentence(run_folder, tmp_path, capsys, options, said):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(folder), "--texts", "4", "--sizes", "0", *options])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert not (folder / "evidence" / "manifest.json").exists()


def test_other_model_other_data_and_no_run_are_refused(run_folder, model_folders, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    with pytest.raises(InputError, match="is no run folder"):
        verify(tmp_path)
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace(str(model_folders["gpt_neox"]), str(model_folders["gpt2"])))
    with pytest.raises(InputError, match=r"is not the one that run .* probed"):
        verify(folder)
    (folder / "config.toml").write_text(config.replace("seed = 0", "seed = 1"))
    with pytest.raises(InputError, match="is not what it was"):
        verify(folder)


def test_text_made_in_python_must_be_given_again(model_folders, tmp_path):
    labelled = document_level_text(
        "made",
        [f"{SENTENCES[i % 10]} {i} {SENTENCES[(3 * i) % 10]}" for i in range(80)],
        {"german": [i % 10 >= 5 for i in range(80)]},
    )
    folder = sp.run(
        sp.RunConfig(model=str(model_folders["gpt2"]), out=tmp_path / "run", device="cpu", **QUICK), [labelled]
    ).folder
    with pytest.raises(InputError, match="made from labelled text in Python"):
        verify(folder)
    assert len(verify(folder, sp.VerifyConfig(texts=4, sizes=(0,)), [labelled]).evidence) == 1


def bert(folder: Path, tokenizer: PreTrainedTokenizerFast, *, head: bool) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=402,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    (BertForMaskedLM(config) if head else BertModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_encoders_are_measured_by_masked_tokens_or_by_probes_alone(tokenizer, reviews, tmp_path):
    masked = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|end|>")
    masked.add_special_tokens({"mask_token": "[MASK]"})
    with_head = run_on(bert(tmp_path / "head", masked, head=True), reviews, tmp_path / "a")
    found = verify(with_head, sp.VerifyConfig(texts=20, sizes=(1,)))
    (row,) = found.evidence.to_dicts()
    assert row["effect_in"] is not None and "too few documents" in row["remark"], "twelve authors of each class"
    without = run_on(bert(tmp_path / "bare", masked, head=False), reviews, tmp_path / "b")
    found = verify(without, sp.VerifyConfig(texts=20))
    (row,) = found.evidence.to_dicts()
    assert row["effect_in"] is None and "no weights for a language-model head" in row["remark"]
    assert row["verdict"] == pl.read_parquet(without / "findings.parquet")["verdict"][0]
    assert len(pl.read_parquet(without / "evidence/profiles.parquet")) == 1
    manifest = json.loads((without / "evidence/manifest.json").read_text())
    assert manifest["objective"] is None


PAGE = (Path(__file__).parent.parent / "docs/evidence.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_runs(run_folder, tmp_path, capsys):
    shutil.copytree(run_folder, tmp_path / "run")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(code, "evidence.md", "exec"), {"run_folder": tmp_path / "run"})
    assert "german" in capsys.readouterr().out


def test_the_page_names_real_options_tables_and_verdicts():
    options = {f"--{name.replace('_', '-')}" for name in sp.VerifyConfig.model_fields}
    assert set(re.findall(r"`?(--[a-z]+)", PAGE)) <= options
    folder = (Path(__file__).parent.parent / "docs/run-folder.md").read_text(encoding="utf-8")
    for name in evidence_tables():
        assert f"`{name}.parquet`" in folder, name
    for words in (CAUSAL, STAND_INS, NO_EFFECT, COMBINATION):
        assert f"**{words}" in PAGE
    for field in ("texts", "placebos"):
        assert str(sp.VerifyConfig.model_fields[field].default) in PAGE
    for kind in get_args(get_args(sp.VerifyConfig.model_fields["kinds"].annotation)[0]):
        assert f"`{kind}`" in PAGE
