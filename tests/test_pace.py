"""Forecasts of time: what is counted, by hand; that a run announces them. How good they are is in docs/benchmarks.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparse_probing.activations import memory, pace
from sparse_probing.activations.extract import find_units
from sparse_probing.activations.forecast import Forecast
from sparse_probing.activations.memory import memory_needed
from sparse_probing.activations.models import outline_model
from sparse_probing.activations.pace import EFFICIENCY, estimated_pace, measured_pace
from sparse_probing.config import RunConfig
from sparse_probing.datasets.unlabelled import every_token
from sparse_probing.errors import InputError
from sparse_probing.jobs.run import forecast_words, run
from sparse_probing.sweep.pace import PER_CELL, PER_TASK, START, TWIN, probing_seconds

from .conftest import SENTENCES, Counted


def test_estimated_pace_by_hand(model_folders, monkeypatch):
    monkeypatch.setattr(pace, "multiplications_per_second", lambda: 1e6)
    outline = outline_model(str(model_folders["gpt_neox"]))
    dataset = every_token(SENTENCES, outline.tokenizer, window=32)
    # per layer: attention 16 x 48 + 48 and 16 x 16 + 16, MLP 16 x 48 + 48 and 48 x 16 + 16, two layer norms of 32; one at the end
    multiplied = 3 * (816 + 272 + 816 + 784 + 64) + 32
    attention = 2 * 16 * 3 * len(dataset.tokens) / dataset.n_sequences
    found = estimated_pace(outline, dataset, find_units(outline))
    assert found == pytest.approx((multiplied + attention) / (EFFICIENCY * 1e6))
    first = estimated_pace(outline, dataset, find_units(outline, layers=[0]))
    assert first == pytest.approx(found / 3)


def test_measured_pace_reads_few_tokens_of_the_sequences(tiny, monkeypatch):
    dataset = every_token(SENTENCES * 20, tiny.tokenizer, window=32)
    read = []
    monkeypatch.setattr(pace, "forward", lambda _model, batch, _sites, _take: read.append(sum(map(len, batch))))
    assert measured_pace(tiny, dataset, find_units(tiny)) > 0
    assert len(read) == 2
    assert 256 < read[1] <= pace.TRIED < len(dataset.tokens)


def test_probing_seconds_by_hand(tiny):
    dataset = every_token(SENTENCES, tiny.tokenizer, window=32)
    dataset = replace(
        dataset, features=("a",), categories=("c",), positive=dataset.positive[:, :0].sum(axis=1, keepdims=True) > 0,
        eligible=dataset.row_first[:, None] >= 0,
    )  # fmt: skip
    alone = probing_seconds(dataset, 4, 48, random_model=False, workers=1)
    assert alone == pytest.approx(START + 4 * (PER_TASK + dataset.n_rows * 48 * PER_CELL))
    assert probing_seconds(dataset, 4, 48, random_model=True, workers=2) - START == pytest.approx(
        (alone - START) * (1 + TWIN) / 2
    )
    assert probing_seconds(dataset, 1, 48, random_model=False, workers=8) == pytest.approx(
        probing_seconds(dataset, 1, 48, random_model=False, workers=1)
    )


def test_a_run_is_announced_with_its_tokens_models_and_time():
    plan = Forecast(
        tokens=722_647, rows=684, bytes_needed=0, bytes_free=0, seconds_per_token=0.001, probing_seconds=130.0
    )
    assert forecast_words(RunConfig(), plan) == (
        "722,647 tokens through 2 models (the second untrained): about 26 min on this machine (activations 24 min, probes 2 min), "
        "less what is stored already."
    )
    assert "through 1 model: about 14 min" in forecast_words(RunConfig(random_model=False), plan)


def test_memory_by_hand(model_folders, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda _kind: 10**9)
    folder = str(model_folders["gpt_neox"])
    weights = sum(parameter.numel() for parameter in outline_model(folder).network.parameters())
    # a batch of 2,048 tokens: ten vectors of 16 and three of 48; and a shard
    found = memory_needed(folder, device="cpu", models=2)
    assert found is not None
    assert found.weights == 2 * 4 * weights and found.activations == 2_048 * (10 * 16 + 3 * 48) * 4 + 256 * 2**20
    half = memory_needed(folder, device="cpu", dtype="bfloat16")
    assert half is not None and (half.weights, half.precision) == (2 * weights, "bfloat16")
    assert found.warning() is None and found.words().endswith("free 1.00 GB")
    assert "probably not fit into memory (weights" in str(replace(found, free=10**6).warning())
    assert replace(found, free=None).warning() is None


def test_a_run_that_will_not_fit_says_so_before_the_model_is_loaded(reviews, model_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda _kind: 10**6)

    def stop(_config: RunConfig) -> None:
        raise InputError("stopped here")

    monkeypatch.setattr("sparse_probing.jobs.run.model_of", stop)
    notes = []
    monkeypatch.setattr(Counted, "note", lambda _self, text: notes.append(text))
    config = RunConfig(model=str(model_folders["llama"]), data=reviews, label=("german",), out=tmp_path / "o")
    with pytest.raises(InputError, match="stopped here"):
        run(config, reporter=Counted())
    assert any("will probably not fit into memory" in note for note in notes)


def test_free_memory_is_what_the_system_says():
    free = memory.free_memory("cpu")
    assert free is None or 10**6 < free < 10**15
    assert memory.free_memory("mps") is None
