"""Networks in memory: unwrapped or refused, and left as they were."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from torch.testing._internal.two_tensor import TwoTensor
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM

from sparse_probing.activations.batches import forward
from sparse_probing.activations.effects import ScoredText, measure
from sparse_probing.activations.extract import extract, find_units
from sparse_probing.activations.fingerprint import _tensor_hash
from sparse_probing.activations.generate import generate
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import load_model, wrap_model
from sparse_probing.activations.weights import read_weights
from sparse_probing.datasets.unlabelled import every_token
from sparse_probing.errors import InputError
from sparse_probing.records import Site

from .conftest import SENTENCES
from .test_model_files import lora
from .test_models import neurons

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # of peft
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),  # of torch.compile
]


@pytest.fixture
def llama(model_folders: dict[str, Path]) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(model_folders["llama"], attention_dropout=0.5)


def modes(network: torch.nn.Module) -> Any:
    flags = {path: module.training for path, module in network.named_modules()}
    return flags, {name: parameter.requires_grad for name, parameter in network.named_parameters()}


def test_a_users_model_is_left_as_it_was(llama, tokenizer, model_folders, tmp_path):
    llama.train()
    llama.model.layers[1].eval()
    llama.model.embed_tokens.requires_grad_(requires_grad=False)
    before, settings = modes(llama), copy.deepcopy(llama.config.to_dict())
    weights = {key: value.clone() for key, value in llama.state_dict().items()}
    model = wrap_model(llama, tokenizer)
    plain = load_model(str(model_folders["llama"]), device="cpu")
    np.testing.assert_array_equal(neurons(model), neurons(plain))  # no dropout
    rows = every_token(SENTENCES[:2], model.tokenizer, window=32)
    extract(model, rows, find_units(model), cache=tmp_path)
    text = ScoredText(tokens=np.arange(5), targets=np.arange(5), number=0, labelled=np.ones(5, dtype=bool))
    first, again = (measure(model, [text], []).loss for _ in range(2))
    np.testing.assert_array_equal(first, again)
    generate(model, "The cat", seed=0, tokens=2)
    read_weights(llama, model.sites)
    assert modes(llama) == before and llama.config.to_dict() == settings
    assert all(torch.equal(value, weights[key]) for key, value in llama.state_dict().items())
    llama(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    assert llama.model.layers[0].mlp.up_proj.weight.grad is not None


def test_a_pass_that_fails_leaves_the_model_as_it_was(llama, tokenizer):
    model = wrap_model(llama.train(), tokenizer)

    def fail(_site: Site, _values: torch.Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        forward(model, [np.arange(3)], find_units(model), fail)
    assert llama.training and llama.model.training and llama.config.use_cache


def test_a_model_that_was_trained_on_is_wrapped_again(llama, tokenizer, tmp_path):
    model = wrap_model(llama, tokenizer)
    rows = every_token(SENTENCES[:2], model.tokenizer, window=32)
    first = extract(model, rows, find_units(model), cache=tmp_path)["mlp.neurons"].read(1)
    llama(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    torch.optim.SGD(llama.parameters(), lr=0.1).step()
    with pytest.raises(InputError, match="changed after wrap_model: wrap the model again"):
        extract(model, rows, find_units(model), cache=tmp_path)
    again = wrap_model(llama, tokenizer)
    assert np.abs(extract(again, rows, find_units(again), cache=tmp_path)["mlp.neurons"].read(1) - first).max() > 1e-3


class SentenceTransformer(torch.nn.Sequential):
    """As sentence-transformers holds its models."""

    __module__ = "sentence_transformers.SentenceTransformer"


class _Transformer(torch.nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.auto_model = inner


@pytest.mark.parametrize(
    "wrap",
    [
        torch.nn.DataParallel,
        torch.compile,
        lambda network: torch.nn.DataParallel(torch.compile(network)),  # pyright: ignore[reportArgumentType]
        lambda network: SentenceTransformer(_Transformer(network)),
        lambda network: torch.compile(network.model),
    ],
    ids=["DataParallel", "compile", "both", "sentence-transformers", "compiled base"],
)
def test_wrappers_are_taken_off(llama, tokenizer, model_folders, wrap):
    plain = load_model(str(model_folders["llama"]), device="cpu")
    model = wrap_model(wrap(llama), tokenizer)
    assert model.sites.found == plain.sites.found
    np.testing.assert_array_equal(neurons(model), neurons(plain))


def values(model: LoadedModel, site: str) -> np.ndarray:
    found: list[torch.Tensor] = []
    ids = np.array([5, 9, 30, 17])
    forward(model, [ids], find_units(model, site, [2]), lambda _site, v: found.append(v.cpu()))
    return found[0].numpy()


def test_adapters_in_memory_are_read_as_they_are(llama, tokenizer, model_folders):
    adapted = lora(llama)
    model = wrap_model(adapted, tokenizer)
    assert model.full is llama
    merged = wrap_model(
        lora(AutoModelForCausalLM.from_pretrained(model_folders["llama"])).merge_and_unload(), tokenizer
    )
    assert model.sites.absent == merged.sites.absent
    for site in dict.fromkeys(site.name for site in merged.sites.found):
        np.testing.assert_allclose(values(model, site), values(merged, site), atol=1e-4)
    with adapted.disable_adapter():  # the same weights, another model
        off = wrap_model(adapted, tokenizer)
        assert off.fingerprint != model.fingerprint
        plain = load_model(str(model_folders["llama"]), device="cpu")
        np.testing.assert_allclose(values(off, "resid.post"), values(plain, "resid.post"), atol=1e-6)


class HookedTransformer(torch.nn.Module):
    """As TransformerLens names its own."""

    __module__ = "transformer_lens.HookedTransformer"


def test_what_cannot_be_unwrapped_is_refused(llama, tokenizer):
    prompts = get_peft_model(llama, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with torch.device("meta"):
        empty = AutoModel.from_config(llama.config)
    for network, said in (
        (
            torch.nn.Linear(2, 2),
            r"'mine' is a torch.nn.modules.linear.Linear, which cannot be read: give a model of transf",
        ),
        (HookedTransformer(), r"is a transformer_lens.HookedTransformer.HookedTransformer, which folds and renames"),
        (prompts, r"puts virtual tokens in front of the text \(.*PROMPT_TUNING\)"),
        (empty, r"has no weights \(they are on the meta device\)"),
    ):
        with pytest.raises(InputError, match=said):
            wrap_model(network, tokenizer, "mine")  # pyright: ignore[reportArgumentType]


def test_quantised_tensors_made_of_others_are_hashed():
    a, b = torch.arange(3.0), torch.ones(3)
    hashes = {_tensor_hash(tensor) for tensor in (TwoTensor(a, b), TwoTensor(a, b), TwoTensor(a, a), a)}
    assert len(hashes) == 3
