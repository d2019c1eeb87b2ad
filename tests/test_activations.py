"""Neurons are found in three architectures, and their stored values equal an independent computation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from sparse_probing.activations.extract import (
    batches_by_length,
    extract,
    forward,
    open_store,
    pool,
    sequence_tokens,
    token_activations,
)
from sparse_probing.activations.models import LoadedModel, load_model, model_sites
from sparse_probing.activations.store import ActivationStore
from sparse_probing.datasets.feature_dataset import FeatureDataset, SamplingRules, build_feature_dataset
from sparse_probing.datasets.labelled_text import document_level_text
from sparse_probing.errors import InputError, PrerequisiteError, StaleCacheError
from sparse_probing.records import POOLINGS, Pooling

from .conftest import SENTENCES

WIDTHS = {"gpt_neox": 48, "gpt2": 40, "llama": 56}


def dataset_for(model: LoadedModel, pooling: Pooling = Pooling.MEAN, window: int = 24) -> FeatureDataset:
    texts = [f"{SENTENCES[i % 10]} {SENTENCES[(i // 2) % 10]} {i}" for i in range(40)]
    labelled = document_level_text("c", texts, {"y": [i % 10 >= 5 for i in range(40)]})
    rules = SamplingRules(pooling=pooling, window=window, skip_first=3, min_rows=1, windows_per_document=2)
    return build_feature_dataset(labelled, model.tokenizer, rules, np.random.default_rng(0))


def neurons_by_definition(name: str, network: torch.nn.Module, ids: torch.Tensor) -> list[torch.Tensor]:
    """Neuron vectors from the architecture's own formula, with forward hooks on the *input side* of the MLP."""
    inputs: list[torch.Tensor] = []
    blocks: Any = network.h if name == "gpt2" else network.layers
    handles = [block.mlp.register_forward_pre_hook(lambda _m, a: inputs.append(a[0])) for block in blocks]
    with torch.no_grad():
        network(ids)
    for handle in handles:
        handle.remove()
    result = []
    for block, x in zip(blocks, inputs, strict=True):
        mlp = block.mlp
        if name == "gpt_neox":
            result.append(torch.nn.functional.gelu(x @ mlp.dense_h_to_4h.weight.T + mlp.dense_h_to_4h.bias))
        elif name == "gpt2":
            result.append(torch.nn.functional.gelu(x @ mlp.c_fc.weight + mlp.c_fc.bias, approximate="tanh"))
        else:
            result.append(torch.nn.functional.silu(x @ mlp.gate_proj.weight.T) * (x @ mlp.up_proj.weight.T))
    return result


@pytest.mark.parametrize("name", WIDTHS)
def test_neurons_equal_the_architectures_formula(name, model_folders):
    model = load_model(str(model_folders[name]), device="cpu")
    assert [site.width for site in model.sites] == [WIDTHS[name]] * 3
    ids = np.array([5, 9, 300, 17, 44, 260, 8])
    found: dict[int, torch.Tensor] = {}
    forward(model, [ids], model.sites, lambda layer, hidden: found.__setitem__(layer, hidden.clone()))
    network = AutoModel.from_pretrained(model_folders[name], dtype=torch.float32).eval()
    for layer, expected in enumerate(neurons_by_definition(name, network, torch.from_numpy(ids)[None])):
        np.testing.assert_allclose(found[layer].numpy(), expected.detach().numpy(), atol=1e-5)


def test_sites_need_no_weights(model_folders, tmp_path):
    for name, folder in model_folders.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text((folder / "config.json").read_text())
        assert [s.width for s in model_sites(str(tmp_path / name))] == [WIDTHS[name]] * 3


def test_a_forward_pass_stops_after_the_last_wanted_layer(tiny):
    ran: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_a, i=i: ran.append(i)) for i, block in enumerate(tiny.network.layers)
    ]
    forward(tiny, [np.arange(5)], [tiny.sites[1]], lambda *_: None)
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


def test_hooks_leave_no_trace_even_after_an_exception(tiny):
    def fail(_layer: int, _hidden: torch.Tensor) -> None:
        raise RuntimeError("from the caller")

    with pytest.raises(RuntimeError, match="from the caller"):
        forward(tiny, [np.arange(5)], tiny.sites, fail)
    assert not any(module._forward_pre_hooks for module in tiny.network.modules())


def test_batch_of_one_equals_batch_of_many(tiny):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 400, n) for n in (3, 30, 11, 64, 7)]
    together: dict[int, torch.Tensor] = {}
    forward(tiny, sequences, tiny.sites, lambda layer, hidden: together.__setitem__(layer, hidden.clone()))
    for i, sequence in enumerate(sequences):
        alone: dict[int, torch.Tensor] = {}
        forward(tiny, [sequence], tiny.sites, lambda layer, hidden, a=alone: a.__setitem__(layer, hidden.clone()))
        for layer, hidden in alone.items():
            np.testing.assert_allclose(together[layer][i, : len(sequence)], hidden[0], atol=2e-5)


def test_pooling_by_hand():
    hidden = torch.tensor([[[1.0], [2.0], [6.0], [9.0]], [[5.0], [-3.0], [0.0], [0.0]]])
    index, first, last = np.array([0, 0, 0, 0, 1]), np.array([1, 1, 1, 1, 0]), np.array([3, 3, 3, 3, 2])
    modes = [Pooling.FIRST, Pooling.LAST, Pooling.MEAN, Pooling.MAX, Pooling.MEAN]
    pooled = pool(hidden, index, first, last, np.array([POOLINGS.index(m) for m in modes]))
    assert pooled[:, 0].tolist() == [2.0, 6.0, 4.0, 6.0, 1.0]


def test_batches_respect_the_budget_and_hold_everything_once():
    lengths = np.random.default_rng(1).integers(1, 50, 200)
    batches = batches_by_length(lengths, 100)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    assert all(len(b) * lengths[b].max() <= 100 or len(b) == 1 for b in batches)


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MAX, Pooling.LAST])
def test_stored_rows_equal_pooling_the_sequence_alone(tiny, tmp_path, pooling):
    dataset = dataset_for(tiny, pooling)
    store = extract(tiny, dataset, [0, 2], tmp_path)
    for row in (0, 7, dataset.n_rows - 1):
        found: dict[int, torch.Tensor] = {}
        tokens = sequence_tokens(dataset, int(dataset.row_sequence[row]))
        forward(tiny, [tokens], tiny.sites, lambda layer, hidden, f=found: f.__setitem__(layer, hidden.clone()))
        for layer in (0, 2):
            piece = found[layer][0, dataset.row_first[row] : dataset.row_last[row]]
            expected = {"mean": piece.mean(0), "max": piece.amax(0), "last": piece[-1]}[pooling.value]
            np.testing.assert_allclose(store.read(layer, np.array([row]))[0], expected, rtol=2e-3, atol=1e-3)


def many_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_probing.activations.extract.TOKENS_PER_SHARD", 200)


def test_resumed_and_repaired_stores_are_byte_identical(tiny, tmp_path, monkeypatch):
    many_shards(monkeypatch)
    dataset = dataset_for(tiny)
    whole = extract(tiny, dataset, [0, 1], tmp_path / "a")
    assert whole.n_shards >= 4
    partly = extract(tiny, dataset, [0, 1], tmp_path / "b")
    shards = sorted(partly.folder.glob("*.safetensors"))
    shards[1].unlink()  # a killed run: shard missing
    shards[2].write_bytes(shards[2].read_bytes()[:-7])  # truncated
    damaged = bytearray(shards[3].read_bytes())
    damaged[-1] ^= 1  # one flipped bit
    shards[3].write_bytes(damaged)
    assert [partly.is_complete(i) for i in range(4)] == [True, False, False, False]
    repaired = extract(tiny, dataset, [0, 1], tmp_path / "b")
    for first, second in zip(sorted(whole.folder.iterdir()), sorted(repaired.folder.iterdir()), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_a_finished_store_is_not_computed_again(tiny, tmp_path, monkeypatch):
    dataset = dataset_for(tiny)
    extract(tiny, dataset, [0], tmp_path)
    monkeypatch.setattr("sparse_probing.activations.extract.forward", lambda *_: pytest.fail("computed again"))
    extract(tiny, dataset, [0], tmp_path)


def test_address_changes_with_everything_that_matters(tiny, model_folders, tmp_path):
    dataset = dataset_for(tiny)
    other_rows = replace(dataset, row_first=dataset.row_first + 1)
    twin = load_model(str(model_folders["gpt_neox"]), device="cpu", random_weights_seed=1)
    half = load_model(str(model_folders["gpt_neox"]), device="cpu", dtype="bfloat16")
    choices = [
        (tiny, dataset, [0]),
        (tiny, dataset, [1]),
        (tiny, other_rows, [0]),
        (twin, dataset, [0]),
        (half, dataset, [0]),
    ]
    stores = [open_store(model, rows, layers, tmp_path) for model, rows, layers in choices]
    assert len({store.folder for store in stores}) == 5
    assert open_store(tiny, dataset, [0], tmp_path).folder == stores[0].folder


def test_untrained_twin_is_seeded_and_differs_from_the_model(tiny, model_folders):
    first, again, other = (
        load_model(str(model_folders["gpt_neox"]), device="cpu", random_weights_seed=seed) for seed in (0, 0, 1)
    )
    assert first.fingerprint == again.fingerprint
    assert len({first.fingerprint, other.fingerprint, tiny.fingerprint}) == 3


def test_token_activations_equal_a_plain_forward_pass(tiny):
    dataset = dataset_for(tiny)
    found = token_activations(tiny, dataset, {3: {(0, 5), (2, 1)}, 7: {(2, 1)}})
    assert set(found) == {(3, 0, 5), (3, 2, 1), (7, 2, 1)}
    hidden: dict[int, torch.Tensor] = {}
    forward(tiny, [sequence_tokens(dataset, 3)], tiny.sites, lambda layer, h: hidden.__setitem__(layer, h.clone()))
    np.testing.assert_allclose(found[3, 0, 5], hidden[0][0, :, 5], atol=2e-5)


def test_store_reads_rows_in_any_order_across_shards(tmp_path):
    store = ActivationStore(tmp_path / "s", [3, 2], [0])
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    store.write(0, {0: values[:3]})
    store.write(1, {0: values[3:]})
    np.testing.assert_array_equal(store.read(0, np.array([4, 0, 2])), values[[4, 0, 2]])


def test_store_refuses_what_float16_cannot_hold(tmp_path):
    store = ActivationStore(tmp_path / "s", [1], [0])
    with pytest.raises(InputError, match="unit 1 of layer 0 reaches 7e"):
        store.write(0, {0: np.array([[0.0, 70_000.0]], dtype=np.float32)})
    with pytest.raises(InputError, match="NaN or infinite activations, first in layer 0, unit 0"):
        store.write(0, {0: np.array([[np.nan, 1.0]], dtype=np.float32)})


def test_store_of_another_layout_is_stale(tmp_path):
    ActivationStore(tmp_path / "s", [3], [0])
    with pytest.raises(StaleCacheError, match="another layout"):
        ActivationStore(tmp_path / "s", [4], [0])


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PrerequisiteError, match="set SPROBE_CACHE to a writable folder"):
        ActivationStore(tmp_path / "file" / "s", [3], [0])


def test_full_disk_is_a_sentence_and_leaves_no_half_shard(tmp_path):
    store = ActivationStore(Path("/dev/full").parent / "shm" / tmp_path.name, [1], [0])
    try:
        with pytest.MonkeyPatch.context() as patch:

            def full(*_arguments: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr("sparse_probing.activations.store.save_file", full)
            with pytest.raises(PrerequisiteError, match=r"No space left on device.*free some space"):
                store.write(0, {0: np.zeros((1, 2), dtype=np.float32)})
        assert not store.is_complete(0)
        assert not list(store.folder.glob("*.partial"))
    finally:
        for path in store.folder.iterdir():
            path.unlink()
        store.folder.rmdir()


def test_folder_that_is_no_model(tmp_path):
    with pytest.raises(InputError, match="is no model"):
        load_model(str(tmp_path))
    with pytest.raises(InputError, match="neither a local model folder nor a hub model"):
        load_model(str(tmp_path / "nothing-here"))


def test_model_without_neurons(model_folders, tmp_path):
    settings = json.loads((model_folders["gpt_neox"] / "config.json").read_text())
    settings["intermediate_size"] = 8  # narrower than the residual stream: no down projection to be recognised
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(
        InputError, match=r"neurons of .* cannot be found: block 0 .* from 8 units down to 16, it has 1"
    ):
        model_sites(str(tmp_path))


def test_mixture_of_experts_is_refused(tmp_path):
    from transformers import MixtralConfig

    MixtralConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    ).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a mixture of experts"):
        model_sites(str(tmp_path))


def test_declared_width_wins_over_a_wider_attention(model_folders, tmp_path):
    settings = json.loads((model_folders["llama"] / "config.json").read_text())
    settings |= {"head_dim": 64, "intermediate_size": 56}  # attention output is now 128 wide, wider than the MLP
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert [site.module_path for site in model_sites(str(tmp_path))] == [f"layers.{i}.mlp.down_proj" for i in range(3)]


def test_sequences_longer_than_the_context_are_refused(tiny, tmp_path):
    with pytest.raises(InputError, match="do not fit the model's context of 16"):
        extract(replace(tiny, context=16), dataset_for(tiny), [0], tmp_path)
