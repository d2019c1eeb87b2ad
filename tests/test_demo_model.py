"""The bundled model is a real language model of its size, loads like any other, and shows what its card says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sparse_probing
from sparse_probing.activations.model_files import DEMO_MODEL, find_model
from sparse_probing.activations.models import model_sites
from sparse_probing.datasets.sources.demo_corpus import documents_of


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(find_model(DEMO_MODEL).path)


def test_files_are_small_and_complete(folder):
    assert (folder / "model.safetensors").stat().st_size <= 20_000_000
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "tokenizer.json", "README.md", "loss.jsonl"} <= names
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "{{" not in card
    assert "nats per token" in card


def test_six_layers_of_1024_neurons():
    assert [site.width for site in model_sites(DEMO_MODEL).named("mlp.neurons")] == [1024] * 6


def test_it_predicts_text_in_every_language_far_better_than_chance(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chance = math.log(model.config.vocab_size)
    labelled = documents_of("natural language")
    for language in labelled.features:
        texts = [d.text for d in labelled.documents if d.labels[language]][:4]
        losses = []
        for text in texts:
            ids = tokenizer(text, return_tensors="pt").input_ids
            with torch.no_grad():
                losses.append(float(model(ids, labels=ids).loss))
        assert sum(losses) / len(losses) < 0.7 * chance, language


def test_tokenizer_reads_back_what_it_wrote(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ("Zażółć gęślą jaźń 42", "def f(x):\n\treturn x ** 2", "naïve 漢字 🙂"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_the_package_ships_its_assets():
    root = Path(sparse_probing.__file__).parent
    for name in ("assets/demo_corpus/LICENSE", "assets/demo_corpus/README.md", "pages/static/vendor/LICENSE.vega"):
        assert (root / name).is_file(), name
