"""A finished run opened again: the same model, rows and activations, or a sentence that says what has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sparse_probing as sp
from sparse_probing.activations.models import load_model
from sparse_probing.datasets.labelled_text import LabelledText, document_level_text
from sparse_probing.errors import InputError
from sparse_probing.open_run import open_model, open_run, problem_of_run
from sparse_probing.records import Split
from tests.conftest import SENTENCES
from tests.test_run import QUICK

SMALL = QUICK | {"random_model": False, "permutations": 0, "workers": 1, "ks": (1, 2)}


@pytest.fixture(scope="module")
def data(reviews, tmp_path_factory) -> Path:
    """A copy that a test may change and bring back."""
    path = tmp_path_factory.mktemp("own") / "reviews.csv"
    shutil.copy(reviews, path)
    return path


@pytest.fixture(scope="module")
def folder(model_folders, data, tmp_path_factory) -> Path:
    model = tmp_path_factory.mktemp("model") / "m"
    shutil.copytree(model_folders["gpt_neox"], model)
    config = sp.RunConfig(
        model=str(model), data=data, label=("german",), group_column="author", out=tmp_path_factory.mktemp("runs") / "one", **SMALL
    )  # fmt: skip
    return sp.run(config).folder


def labelled_here() -> list[LabelledText]:
    texts = [
        f"{SENTENCES[i % 10]} {SENTENCES[(i * 3 + i // 10) % 5 + 5 * (i % 10 >= 5)]} Part {i}." for i in range(120)
    ]
    labels = {"german": [i % 10 >= 5 for i in range(120)]}
    return [document_level_text("c", texts, labels, [f"author {i // 5}" for i in range(120)])]


@pytest.fixture(scope="module")
def from_python(model_folders, tmp_path_factory) -> Path:
    config = sp.RunConfig(model=str(model_folders["gpt_neox"]), out=tmp_path_factory.mktemp("runs") / "two", **SMALL)
    return sp.run(config, labelled_here()).folder


def test_a_run_is_opened_as_it_was(folder):
    run = open_run(folder)
    assert run.folder == folder and run.config.ks == (1, 2) and run.model.full is None
    assert run.manifest["identity"]["weights"] == run.model.fingerprint
    assert run.manifest["identity"]["dataset"] == run.dataset.content_hash()
    assert [site.layer for site in run.sites] == [0, 1, 2]
    assert run.feature(run.dataset.categories[0], "german") == 0
    assert run.store.read(1).shape == (run.dataset.n_rows, 48)
    finding = run.tables["findings"].row(0, named=True)
    split = run.dataset.row_split == 0
    values, inside = run.store.read(finding["layer"])[:, finding["unit"]].astype(float), run.dataset.positive[:, 0]
    neuron = run.tables["neurons"].filter(layer=finding["layer"], unit=finding["unit"]).row(0, named=True)
    assert neuron["mean_in_class"] == pytest.approx(values[split & inside].mean(), rel=1e-5)


def test_with_its_head(folder):
    run = open_run(folder, with_head=True, device="cpu")
    assert run.model.full is not None and run.model.objective == "next token"
    config, model = open_model(folder, with_head=True)
    assert model.fingerprint == run.model.fingerprint and config == run.config


def test_activations_are_made_anew_where_the_cache_was_cleared(folder, tmp_path, monkeypatch):
    expected = open_run(folder).store.read(2)
    monkeypatch.setenv("SPROBE_CACHE", str(tmp_path))
    np.testing.assert_array_equal(open_run(folder).store.read(2), expected)
    assert any(tmp_path.iterdir())


def test_another_model_is_a_sentence(folder, tmp_path):
    model = Path(open_run(folder).config.model)
    weights = (model / "model.safetensors").read_bytes()
    twin = load_model(str(model), device="cpu", with_head=True)
    assert twin.full is not None
    twin.network.get_submodule("layers.2.mlp.dense_4h_to_h").get_parameter("weight").data[3, 5] += 0.01
    twin.full.save_pretrained(tmp_path / "other")
    try:
        shutil.copy(tmp_path / "other" / "model.safetensors", model / "model.safetensors")
        with pytest.raises(InputError, match=r"is not the one that run .* probed"):
            open_run(folder)
        with pytest.raises(InputError, match=r"is not the one that run .* probed"):
            open_model(folder)
    finally:
        (model / "model.safetensors").write_bytes(weights)
    open_model(folder)


def test_a_run_from_before_special_tokens_were_a_choice_is_read_as_it_was_made(folder, tmp_path):
    """Then a BOS was put in front wherever the tokenizer named one, though it adds none itself."""
    copy, model = tmp_path / "run", tmp_path / "m"
    shutil.copytree(folder, copy)
    shutil.copytree(open_run(folder).config.model, model)
    written = json.loads((model / "tokenizer.json").read_text())
    written["post_processor"] = written["post_processor"]["processors"][0]
    (model / "tokenizer.json").write_text(json.dumps(written))
    lines = (copy / "config.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("model =", "special_tokens ="))]
    assert 'special_tokens = "auto"' in lines and len(kept) == len(lines) - 2
    (copy / "config.toml").write_text("\n".join([*kept, f'model = "{model}"']))
    run = open_run(copy)
    assert run.config.special_tokens is None and run.model.tokenizer.front == (0,)
    (copy / "config.toml").write_text("\n".join([*kept, f'model = "{model}"', 'special_tokens = "auto"']))
    with pytest.raises(InputError, match=r"the labelled text of run .* is not what it was"):
        open_run(copy)


def test_another_precision_is_another_model(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    text = (copy / "config.toml").read_text()
    assert 'dtype = "auto"' in text
    (copy / "config.toml").write_text(text.replace('\ndtype = "auto"', '\ndtype = "bfloat16"', 1))
    with pytest.raises(InputError, match=r"other weights, precision or settings"):
        open_run(copy)


@pytest.mark.parametrize("change", ["label", "word", "gone"])
def test_changed_data_are_a_sentence(change, folder, data):
    before = data.read_bytes()
    text = before.decode()
    try:
        if change == "gone":
            data.unlink()
        elif change == "label":
            data.write_text(text.replace(",1,author 7", ",0,author 7"))
        else:
            data.write_text(text.replace("harbour", "garden"))
        with pytest.raises(
            InputError, match="which is not there" if change == "gone" else "is not what it was: bring back the data"
        ):
            open_run(folder)
    finally:
        data.write_bytes(before)
    open_run(folder)


def test_a_run_made_in_python_needs_its_text(from_python):
    with pytest.raises(
        InputError,
        match=r"was made from labelled text in Python: give the same text, verify\(folder, labelled=\.\.\.\)",
    ):
        open_run(from_python)
    run = open_run(from_python, labelled_here())
    assert run.feature("c", "german") == 0
    other = [
        document_level_text(
            "c", [d.text + " More." for d in labelled_here()[0].documents], {"german": [i % 2 == 0 for i in range(120)]}
        )
    ]
    with pytest.raises(InputError, match="is not what it was"):
        open_run(from_python, other)


def test_folders_that_are_no_finished_run(folder, tmp_path):
    with pytest.raises(InputError, match="is no run folder"):
        open_run(tmp_path)
    shutil.copy(folder / "config.toml", tmp_path)
    for opened in (open_run, open_model):
        with pytest.raises(InputError, match="an unfinished run"):
            opened(tmp_path)


def test_a_manifest_of_an_older_version_is_a_sentence(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["identity"]["weights"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError):
        open_run(copy)


def test_a_copy_of_the_folder_is_as_good(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    assert open_run(tmp_path / "moved").dataset.content_hash() == open_run(folder).dataset.content_hash()


def test_features_and_layers_that_are_not_there(folder):
    run = open_run(folder)
    category = run.dataset.categories[0]
    for names in ((category, "french"), ("other", "german")):
        with pytest.raises(InputError, match=f"has no feature '{names[1]}' in category '{names[0]}'"):
            run.feature(*names)
    with pytest.raises(InputError, match="does not probe layer 3"):
        problem_of_run(folder, category, "german", 3)


def test_the_problem_of_a_run_is_that_of_its_training_rows(folder):
    run = open_run(folder)
    problem = problem_of_run(folder, run.dataset.categories[0], "german", 1)
    train = run.dataset.rows_of(0, Split.TRAIN)
    assert problem.z.shape == (len(train), 48)
    np.testing.assert_array_equal(problem.target, run.dataset.positive[train, 0])
    raw = run.store.read(1)[train].astype(float)
    np.testing.assert_allclose(problem.z, (raw - raw.mean(0)) / raw.std(0), rtol=0, atol=1e-3)


def test_a_run_folder_cannot_ask_for_the_models_code(folder, tmp_path, monkeypatch):
    copy, asked = tmp_path / "run", []
    shutil.copytree(folder, copy)
    with (copy / "config.toml").open("a") as file:
        file.write("trust_remote_code = true\n")

    def load(*arguments, trust_remote_code, **named):
        asked.append(trust_remote_code)
        return load_model(*arguments, **named)

    monkeypatch.setattr("sparse_probing.open_run.load_model", load)
    config, _ = open_model(copy)
    assert config.trust_remote_code
    open_model(copy, trust_remote_code=True)
    assert asked == [False, True]


def test_runs_from_before_an_option_are_still_the_same_runs():
    assert "trust_remote_code" not in sp.RunConfig().identity()
    assert sp.RunConfig(trust_remote_code=True).identity()["trust_remote_code"] is True
