"""The script that made the demo model: it trains, exports, and a stopped training goes on to the same weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from .conftest import SENTENCES

SCRIPT = Path(__file__).parent.parent / "tools" / "demo_model" / "train.py"
RECIPE: dict[str, Any] = {
    "tokenizer": {"vocab_size": 300, "sample_every": 1},
    "model": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 32,
    },
    "data": {"weight_code": 2.0},
    "training": {
        "context_length": 16, "tokens": 64 * 12, "batch_tokens": 64, "warmup_steps": 2, "cooldown_fraction": 0.3, "muon_rate": 0.02,
        "adam_rate": 0.003, "weight_decay": 0.05, "gradient_clip": 1.0, "seed": 1, "evaluate_every_steps": 6,
        "checkpoint_every_s": 0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def train() -> Any:
    specification = importlib.util.spec_from_file_location("demo_model_train", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def build(train: Any, folder: Path, *, stop_after: int | None = None) -> Any:
    """Train in `folder`, where a checkpoint may lie; optionally be interrupted after some steps."""
    folder.mkdir(exist_ok=True)
    for split in ("train", "valid"):
        rows = [
            {"text": sentence * 3, "code_language": "c" if i % 5 == 0 else None} for i, sentence in enumerate(SENTENCES)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokens = train.prepare(folder, folder, RECIPE)
    model = train.new_model(RECIPE, 300)
    steps = 0

    def counted(network: Any, ids: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if stop_after is not None and steps > stop_after:
            raise KeyboardInterrupt
        return original(network, ids)

    original = train.next_token_loss
    train.next_token_loss = counted
    try:
        train.train(model, tokens, RECIPE["training"], folder, compiled=False)
    except KeyboardInterrupt:
        return None
    finally:
        train.next_token_loss = original
    return model


def test_stopped_and_resumed_training_gives_the_same_weights_and_a_model_that_loads(train, tmp_path):
    whole = build(train, tmp_path / "whole")
    assert build(train, tmp_path / "parts", stop_after=5) is None
    resumed = build(train, tmp_path / "parts")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    log = [json.loads(line) for line in (tmp_path / "whole" / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [6, 12]
    assert log[-1]["held_out_loss_nats"] < 5.7  # ln 300 = 5.70: already better than guessing
    train.export(whole, tmp_path / "whole")
    folder = tmp_path / "whole" / "model"
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.float16}
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(folder)("The cat sat", return_tensors="pt").input_ids
    assert loaded(ids).logits.shape[-1] == 300


def test_rate_warms_up_stays_and_cools_down(train):
    factors = [train.rate_factor(step, 100, {"warmup_steps": 10, "cooldown_fraction": 0.2}) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10:80] == [1.0] * 70
    assert factors[99] == pytest.approx(0.05)
