"""Tiny models and texts, made here: nothing is downloaded, nothing needs a GPU."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import load_model
from sparse_probing.results.verdict import Rival, Rivals

SENTENCES = [
    "The cat sat quietly on the warm windowsill and watched the rain.",
    "Seven ships left the harbour before dawn, heavy with salt and wool.",
    "Nobody knew why the old clock struck thirteen that evening.",
    "She folded the letter twice and hid it under the bread.",
    "Number 42 is the last house, 17 steps above the river.",
    "Ein kalter Wind wehte durch die leeren Gassen der Stadt.",
    "Unter dem Dach wohnte ein Mann, der nur nachts spazieren ging.",
    "Die Kinder sammelten Kastanien und warfen sie in den Brunnen.",
    "Morgen backen wir zwei Kuchen für das Fest im Garten.",
    "Im Winter lag der Hafen still, und die Boote froren fest.",
]


def rivals(**scores: float | tuple[float, float]) -> Rivals:
    """F1 of each baseline, or F1 and the low end of the neuron's lead, which is 0.05 otherwise."""
    given = {name: score if isinstance(score, tuple) else (score, 0.05) for name, score in scores.items()}
    return Rivals(
        tuple(
            Rival(name=n, score=score, lead=low + 0.02, low=low, high=low + 0.04) for n, (score, low) in given.items()
        )
    )


class Counted:
    """A reporter that knows what every stage promised and what it did."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None, list[int]]] = []

    def stage(self, name: str, total: int | None, unit: str):
        counts: list[int] = []
        self.stages.append((name, total, counts))
        return nullcontext(counts.append)

    def note(self, text: str) -> None:
        """Nothing."""

    def unfinished(self) -> list[tuple[str, int, int]]:
        """Stages that did not do what they promised: name, promised, done."""
        return [(name, total, sum(counts)) for name, total, counts in self.stages if total not in (None, sum(counts))]


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One activation cache for the whole session, away from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    old = os.environ.get("SPROBE_CACHE")
    os.environ["SPROBE_CACHE"] = str(folder)
    yield folder
    if old is None:
        del os.environ["SPROBE_CACHE"]
    else:
        os.environ["SPROBE_CACHE"] = old


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 400 pieces, trained on ten sentences."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    template = processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>")


def _neox() -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=400, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def _gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=400, n_embd=16, n_layer=3, n_head=2, n_inner=40, n_positions=64, bos_token_id=0, eos_token_id=0
        )
    )


def _llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=56,
            max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


ARCHITECTURES: dict[str, Callable[[], torch.nn.Module]] = {"gpt_neox": _neox, "gpt2": _gpt2, "llama": _llama}


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> dict[str, Path]:
    """Saved tiny models of the three architectures."""
    folders = {}
    for name, build in ARCHITECTURES.items():
        torch.manual_seed(7)
        folder = tmp_path_factory.mktemp(name)
        network = build()
        with torch.no_grad():
            for parameter in network.parameters():  # the default initialisation is too close to linear to test anything
                parameter.add_(0.3 * torch.randn_like(parameter))
        network.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        tokenizer.save_pretrained(folder)
        folders[name] = folder
    return folders


@pytest.fixture(scope="session")
def tiny(model_folders: dict[str, Path]) -> LoadedModel:
    return load_model(str(model_folders["gpt_neox"]), device="cpu")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's CSV: 120 texts, label `german`, 24 groups."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "german", "author"])
        for i in range(120):
            a, b = SENTENCES[i % 10], SENTENCES[(i * 3 + i // 10) % 5 + 5 * (i % 10 >= 5)]
            writer.writerow([f"{a} {b} Part {i}.", int(i % 10 >= 5), f"author {i // 5}"])
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real labelled text; tests that need it are skipped where it is absent."""
    folder = os.environ.get("SPROBE_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real text is not here: set SPROBE_TEST_DATA to its folder")
    return Path(folder)
