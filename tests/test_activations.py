"""Extraction: what is stored equals a plain forward pass, whatever the batches, shards, types and interruptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from sparse_probing.activations import extract
from sparse_probing.activations.batches import TokenBudget, batches_by_length, forward, run_batches
from sparse_probing.activations.extract import find_units, sequence_bounds, sequence_tokens, token_activations
from sparse_probing.activations.forecast import forecast
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import load_model
from sparse_probing.activations.pooling import BatchRows
from sparse_probing.activations.shard_buffer import ShardBuffer
from sparse_probing.activations.shards import STORED_TYPES, StoredType
from sparse_probing.activations.store import Activations
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.labelled_text import document_level_text
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.unlabelled import every_token
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.records import NEURONS, POOLINGS, Pooling, Site

from .conftest import SENTENCES

WIDTHS = {"gpt_neox": 48, "gpt2": 40, "llama": 56}
TOLERANCE: dict[str, dict[str, Any]] = {
    "float16": {"rtol": 1e-3, "atol": 2e-4},
    "bfloat16": {"rtol": 8e-3, "atol": 2e-4},
    "float32": {"rtol": 1e-5, "atol": 2e-5},
    "int8": {"rtol": 0, "atol": 0.05},  # half a step of 1/254 of the range, which is below 20 here
}


def dataset_for(model: LoadedModel, pooling: Pooling = Pooling.MEAN, window: int = 24) -> FeatureDataset:
    texts = [f"{SENTENCES[i % 10]} {SENTENCES[(i // 2) % 10]} {i}" for i in range(40)]
    labelled = document_level_text("c", texts, {"y": [i % 10 >= 5 for i in range(40)]})
    rules = SamplingRules(pooling=pooling, window=window, skip_first=3, min_rows=1, windows_per_document=2)
    return build_feature_dataset(labelled, model.tokenizer, rules, np.random.default_rng(0))


def neurons_of(
    model: LoadedModel, dataset: FeatureDataset, layers: list[int], cache: Path, **options: Any
) -> Activations:
    return extract.extract(model, dataset, find_units(model, NEURONS, layers), cache=cache, **options)[NEURONS]


def read_alone(model: LoadedModel, tokens: np.ndarray, sites: tuple[Site, ...]) -> dict[Site, torch.Tensor]:
    found: dict[Site, torch.Tensor] = {}
    forward(
        model, [tokens], sites, lambda site, hidden: found.__setitem__(site, hidden[0, : len(tokens)].float().clone())
    )
    return found


def pooled_alone(
    model: LoadedModel, dataset: FeatureDataset, row: int, sites: tuple[Site, ...]
) -> dict[Site, np.ndarray]:
    """One row from a batch of one, by the definition of its pooling."""
    found = read_alone(model, sequence_tokens(dataset, int(dataset.row_sequence[row])), sites)
    result = {}
    for site, hidden in found.items():
        piece = hidden[dataset.row_first[row] : dataset.row_last[row]]
        match POOLINGS[dataset.row_pooling[row]]:
            case Pooling.MEAN:
                result[site] = piece.mean(0).numpy()
            case Pooling.MAX:
                result[site] = piece.amax(0).numpy()
            case Pooling.LAST:
                result[site] = piece[-1].numpy()
            case _:
                result[site] = piece[0].numpy()
    return result


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
    sites = find_units(model)
    assert [site.width for site in sites] == [WIDTHS[name]] * 3
    ids = np.array([5, 9, 300, 17, 44, 260, 8])
    found = read_alone(model, ids, sites)
    network = AutoModel.from_pretrained(model_folders[name], dtype=torch.float32).eval()
    for site, expected in zip(sites, neurons_by_definition(name, network, torch.from_numpy(ids)[None]), strict=True):
        np.testing.assert_allclose(found[site], expected[0].detach(), atol=1e-5)


@pytest.mark.parametrize(("site", "blocks"), [("mlp.neurons", [0, 1]), ("resid.post", [0, 1]), ("resid.pre", [0, 1])])
def test_a_forward_pass_stops_after_the_last_wanted_site(tiny, site, blocks):
    ran: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_a, i=i: ran.append(i)) for i, block in enumerate(tiny.network.layers)
    ]
    found = read_alone(tiny, np.arange(5), find_units(tiny, site, [1]))
    for handle in handles:
        handle.remove()
    assert ran == blocks and len(found) == 1


def test_hooks_leave_no_trace_even_after_an_exception(tiny):
    def fail(_site: Site, _hidden: torch.Tensor) -> None:
        raise RuntimeError("from the caller")

    with pytest.raises(RuntimeError, match="from the caller"):
        forward(tiny, [np.arange(5)], find_units(tiny), fail)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in tiny.network.modules())


def test_pooling_by_hand():
    hidden = torch.tensor([[[1.0], [2.0], [6.0], [9.0]], [[5.0], [-3.0], [0.0], [0.0]]])
    index, first, last = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 1, 1, 1, 0, 1]), np.array([3, 3, 3, 3, 2, 2])
    modes = [Pooling.FIRST, Pooling.LAST, Pooling.MEAN, Pooling.MAX, Pooling.MEAN, Pooling.MAX]
    rows = BatchRows(index, first, last, np.array([POOLINGS.index(m) for m in modes]))
    assert rows.pool(hidden)[:, 0].tolist() == [2.0, 6.0, 4.0, 6.0, 1.0, -3.0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pooling_of_any_rows_equals_the_loop(data):
    longest, n_sequences = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    n = data.draw(st.integers(1, 12))
    index, first = rng.integers(0, n_sequences, n), rng.integers(0, longest, n)
    last = first + 1 + rng.integers(0, longest - first)
    pooling = rng.integers(0, len(POOLINGS), n)
    last[pooling == POOLINGS.index(Pooling.TOKEN)] = first[pooling == POOLINGS.index(Pooling.TOKEN)] + 1
    hidden = torch.from_numpy(rng.normal(size=(n_sequences, longest, 5)).astype(np.float32))
    pooled = BatchRows(index, first, last, pooling).pool(hidden)
    for row in range(n):
        piece = hidden[index[row], first[row] : last[row]]
        mode = POOLINGS[pooling[row]]
        expected = {Pooling.MEAN: piece.mean(0), Pooling.MAX: piece.amax(0), Pooling.LAST: piece[-1]}.get(
            mode, piece[0]
        )
        np.testing.assert_allclose(pooled[row], expected, atol=1e-6)


def test_batches_respect_the_budget_and_hold_everything_once():
    lengths = np.random.default_rng(1).integers(1, 50, 200)
    found = batches_by_length(lengths, 100)
    assert sorted(np.concatenate(found).tolist()) == list(range(200))
    assert all(len(b) * lengths[b].max() <= 100 or len(b) == 1 for b in found)


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MAX, Pooling.LAST, Pooling.FIRST])
@pytest.mark.parametrize("dtype", STORED_TYPES)
def test_stored_rows_equal_pooling_the_sequence_alone(tiny, tmp_path, pooling, dtype):
    dataset = dataset_for(tiny, pooling)
    store = neurons_of(tiny, dataset, [0, 2], tmp_path, dtype=dtype)
    sites = find_units(tiny, NEURONS, [0, 2])
    for row in (0, 7, dataset.n_rows - 1):
        for site, expected in pooled_alone(tiny, dataset, row, sites).items():
            np.testing.assert_allclose(store.read(site.layer, np.array([row]))[0], expected, **TOLERANCE[dtype])


def test_one_pass_serves_all_sites_layers_and_poolings(tiny, tmp_path, monkeypatch):
    dataset = dataset_for(tiny)
    order = np.argsort(np.tile(dataset.row_sequence, 3), kind="stable")
    modes = np.repeat([POOLINGS.index(m) for m in (Pooling.MEAN, Pooling.MAX, Pooling.LAST)], dataset.n_rows)
    names = ("row_sequence", "row_first", "row_last", "row_group", "row_split")
    dataset = replace(
        dataset,
        **{name: np.tile(getattr(dataset, name), 3)[order] for name in names},
        row_pooling=modes[order],
        positive=np.tile(dataset.positive, (3, 1))[order],
        eligible=np.tile(dataset.eligible, (3, 1))[order],
    )
    passes: list[int] = []
    monkeypatch.setattr(extract, "forward", lambda m, s, *rest: (passes.append(len(s)), forward(m, s, *rest)))
    found = extract.extract(tiny, dataset, tiny.sites.found, cache=tmp_path, dtype="float32")
    assert sum(passes) == dataset.n_sequences
    assert set(found) == set(tiny.sites.absent) | {site.name for site in tiny.sites.found} and len(found) == 7
    for row in (0, 1, 2, 50):
        for site, expected in pooled_alone(tiny, dataset, row, tiny.sites.found).items():
            np.testing.assert_allclose(found[site.name].read(site.layer, np.array([row]))[0], expected, atol=2e-5)


def many_shards(monkeypatch: pytest.MonkeyPatch, tokens: int = 200) -> None:
    monkeypatch.setattr(extract, "TOKENS_PER_SHARD", tokens)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens_per_shard=st.sampled_from([60, 200, 10_000]),
    tokens_per_batch=st.sampled_from([1, 50, 300, 5_000]),
    dtype=st.sampled_from(["float16", "float32"]),
    pooling=st.sampled_from([Pooling.MEAN, Pooling.LAST]),
)
def test_sharding_and_batch_size_change_nothing(
    tiny, tmp_path_factory, tokens_per_shard: int, tokens_per_batch: int, dtype: StoredType, pooling: Pooling
):
    dataset = dataset_for(tiny, pooling)
    plain = neurons_of(tiny, dataset, [1], tmp_path_factory.mktemp("a"), dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        many_shards(patch, tokens_per_shard)
        other = neurons_of(
            tiny, dataset, [1], tmp_path_factory.mktemp("b"), dtype=dtype, tokens_per_batch=tokens_per_batch
        )
    np.testing.assert_allclose(other.read(1), plain.read(1), **TOLERANCE[dtype])


def test_order_of_rows_changes_nothing(tiny, tmp_path):
    """The same texts in another order: each row keeps its numbers."""
    rng = np.random.default_rng(0)
    texts = [f"{SENTENCES[i % 10]} {i}" for i in range(30)]
    order = rng.permutation(30)
    first, second = (every_token(t, tiny.tokenizer, window=16) for t in (texts, [texts[i] for i in order]))
    a, b = (neurons_of(tiny, rows, [2], tmp_path, dtype="float32").read(2) for rows in (first, second))

    def rows_of(dataset: FeatureDataset, text: int) -> np.ndarray:
        return np.flatnonzero(dataset.sequence_document[dataset.row_sequence] == text)

    for place, text in enumerate(order):
        np.testing.assert_allclose(b[rows_of(second, place)], a[rows_of(first, int(text))], atol=2e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_does_not_matter(tiny, model_folders, tmp_path, tokenizer, side):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(model_folders["gpt_neox"], folder)
    tokenizer.__class__.from_pretrained(folder, padding_side=side, pad_token="<|end|>").save_pretrained(folder)
    model = load_model(str(folder), device="cpu")
    dataset = dataset_for(tiny)
    expected, found = (neurons_of(m, dataset, [1], tmp_path / side, dtype="float32").read(1) for m in (tiny, model))
    np.testing.assert_array_equal(found, expected)


def test_resumed_and_repaired_stores_are_byte_identical(tiny, tmp_path, monkeypatch):
    many_shards(monkeypatch)
    dataset = dataset_for(tiny)
    whole = neurons_of(tiny, dataset, [0, 1], tmp_path / "a")
    files = whole.shard_files(0)
    assert len(files) >= 4
    partly = neurons_of(tiny, dataset, [0, 1], tmp_path / "b").shard_files(0)
    partly[1].unlink()  # a killed run: shard missing
    partly[2].write_bytes(partly[2].read_bytes()[:-7])  # truncated
    damaged = bytearray(partly[3].read_bytes())
    damaged[-1] ^= 1  # one flipped bit
    partly[3].write_bytes(damaged)
    notes: list[str] = []
    neurons_of(tiny, dataset, [0, 1], tmp_path / "b", notify=notes.append)
    assert [str(partly[2]) in notes[0], str(partly[3]) in notes[1]] == [True, True] and len(notes) == 2
    assert "bytes instead of" in notes[0] and "checksum does not match. It is computed again." in notes[1]
    for first, second in zip(files, partly, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_a_run_killed_at_any_shard_goes_on_from_there(tiny, tmp_path, monkeypatch):
    many_shards(monkeypatch)
    dataset = dataset_for(tiny)
    whole = neurons_of(tiny, dataset, [1], tmp_path / "a")
    n_shards = len(whole.shard_files(1))
    real = extract.write_shard
    for stop in range(n_shards):
        written: list[Path] = []

        def write(path: Path, *rest: Any, stop: int = stop, written: list[Path] = written, **named: Any) -> None:
            if len(written) == stop:
                raise KeyboardInterrupt
            written.append(path)
            real(path, *rest, **named)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(extract, "write_shard", write)
            neurons_of(tiny, dataset, [1], tmp_path / f"b{stop}")
        done: list[int] = []
        again = neurons_of(tiny, dataset, [1], tmp_path / f"b{stop}", progress=done.append)
        assert sum(done) == len(dataset.tokens)
        for first, second in zip(whole.shard_files(1), again.shard_files(1), strict=True):
            assert first.read_bytes() == second.read_bytes()


def test_a_finished_store_is_not_computed_again_and_new_layers_are_added(tiny, tmp_path, monkeypatch):
    dataset = dataset_for(tiny)
    neurons_of(tiny, dataset, [0], tmp_path)
    read: list[Site] = []
    monkeypatch.setattr(extract, "forward", lambda m, s, sites, take: (read.extend(sites), forward(m, s, sites, take)))
    neurons_of(tiny, dataset, [0], tmp_path)
    assert read == []
    neurons_of(tiny, dataset, [0, 2], tmp_path)
    assert {site.layer for site in read} == {2}
    neurons_of(tiny, dataset, [0], tmp_path, dtype="float32")
    assert {site.layer for site in read} == {0, 2}


def test_address_changes_with_everything_that_matters(tiny, model_folders, tmp_path):
    dataset = dataset_for(tiny)
    other_rows = replace(dataset, row_first=dataset.row_first + 1)
    twin = load_model(str(model_folders["gpt_neox"]), device="cpu", random_weights_seed=1)
    half = load_model(str(model_folders["gpt_neox"]), device="cpu", dtype="bfloat16")
    closing = replace(tiny, tokenizer=replace(tiny.tokenizer, behind=(5,)))
    choices = [(tiny, dataset), (tiny, other_rows), (twin, dataset), (half, dataset), (closing, dataset)]
    folders = [extract.open_store(model, rows, tmp_path).folder for model, rows in choices]
    assert len(set(folders)) == 5
    assert extract.open_store(tiny, dataset, tmp_path).folder == folders[0]


def test_token_activations_equal_a_plain_forward_pass(tiny):
    dataset = dataset_for(tiny)
    sites = find_units(tiny)
    found = token_activations(tiny, dataset, sites, {3: {(0, 5), (2, 1)}, 7: {(2, 1)}})
    assert set(found) == {(3, 0, 5), (3, 2, 1), (7, 2, 1)}
    hidden = read_alone(tiny, sequence_tokens(dataset, 3), sites)
    np.testing.assert_allclose(found[3, 0, 5], hidden[sites[0]][:, 5], atol=2e-5)
    assert token_activations(tiny, dataset, sites, {}) == {}


# out of memory


def out_of_memory_above(limit: int, kind: type[RuntimeError] = torch.OutOfMemoryError) -> Callable[..., None]:
    def limited(model: LoadedModel, sequences: Any, *rest: Any) -> None:
        if max(len(ids) for ids in sequences) * len(sequences) > limit:
            raise kind("CUDA out of memory. Tried to allocate 3.00 GiB")
        forward(model, sequences, *rest)

    return limited


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_the_budget_and_goes_on(tiny, tmp_path, monkeypatch, kind):
    dataset = dataset_for(tiny)
    expected = neurons_of(tiny, dataset, [1], tmp_path / "a", dtype="float32").read(1)
    notes: list[str] = []
    monkeypatch.setattr(extract, "forward", out_of_memory_above(100, kind))
    found = neurons_of(tiny, dataset, [1], tmp_path / "b", dtype="float32", notify=notes.append).read(1)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert notes[0].startswith("out of memory with ") and len(notes) <= 5
    budget = int(notes[-1].split()[-1].rstrip(".").replace(",", ""))
    assert 25 <= budget <= 100


def test_memory_that_runs_out_while_values_are_stored_loses_none_of_them(tiny, tmp_path, monkeypatch):
    """The first copy of each batch fails half way: what counts as stored must be what was copied."""
    dataset = dataset_for(tiny)
    expected = neurons_of(tiny, dataset, [0, 1], tmp_path / "a", dtype="float32")
    real, failed = ShardBuffer._copy, set()

    def copy(self: ShardBuffer, where: Any, values: torch.Tensor) -> None:
        if len(values) > 3 and self.site not in failed:
            failed.add(self.site)
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, where, values)

    monkeypatch.setattr(ShardBuffer, "_copy", copy)
    found = neurons_of(tiny, dataset, [0, 1], tmp_path / "b", dtype="float32", tokens_per_batch=10_000)
    assert len(failed) == 2
    for layer in (0, 1):
        np.testing.assert_allclose(found.read(layer), expected.read(layer), atol=2e-5)


def test_a_sequence_that_never_fits_is_a_sentence(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "forward", out_of_memory_above(10))
    with pytest.raises(InputError, match=r"a single sequence of 24 tokens does not fit .* use a smaller --window"):
        neurons_of(tiny, dataset_for(tiny), [1], tmp_path)


def test_other_errors_of_the_model_are_not_taken_for_lack_of_memory(tiny):
    def step(_members: np.ndarray) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_batches(np.arange(3), np.array([2, 2, 2]), TokenBudget(tiny), step)


# values that cannot be stored


def scaled(model: LoadedModel, layer: int, unit: int, factor: float) -> Any:
    """A hook that blows one neuron up, at its site."""
    (site,) = find_units(model, NEURONS, [layer])

    def blow(_module: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = arguments[0].clone()
        hidden[..., unit] = hidden[..., unit].abs() * factor + factor
        return (hidden, *arguments[1:])

    return model.network.get_submodule(site.module_path).register_forward_pre_hook(blow)


def test_float16_overflow_is_reported_and_that_layer_goes_on_in_float32(tiny, tmp_path):
    dataset = dataset_for(tiny)
    handle = scaled(tiny, 1, 7, 80_000.0)
    notes: list[str] = []
    try:
        found = neurons_of(tiny, dataset, [0, 1, 2], tmp_path / "half", notify=notes.append)
        exact = neurons_of(tiny, dataset, [0, 1, 2], tmp_path / "full", dtype="float32")
    finally:
        handle.remove()
    assert len(notes) == 1 and notes[0].startswith("L1.N7 reaches ") and "beyond float16" in notes[0]
    assert [found.stored_type(layer, 0) for layer in (0, 1, 2)] == ["F16", "F32", "F16"]
    assert exact.column(1, 7).min() > 65_504
    np.testing.assert_allclose(found.column(1, 7), exact.column(1, 7), rtol=1e-6)
    for layer in (0, 1, 2):
        np.testing.assert_allclose(found.read(layer), exact.read(layer), **TOLERANCE["float16"])


def test_not_a_number_names_the_first_layer(tiny, tmp_path):
    handle = scaled(tiny, 1, 7, float("nan"))
    try:
        with pytest.raises(
            InputError, match=r"NaN or infinite activations, first in layer 1 \(mlp.neurons\), unit 7: try"
        ):
            neurons_of(tiny, dataset_for(tiny), [0, 1, 2], tmp_path)
    finally:
        handle.remove()


# limits


def test_sequences_longer_than_the_context_are_refused(tiny, tmp_path):
    with pytest.raises(InputError, match="do not fit the model's context of 16"):
        neurons_of(replace(tiny, context=16), dataset_for(tiny), [0], tmp_path)


def test_forecast_is_what_the_files_take(tiny, tmp_path):
    dataset = dataset_for(tiny)
    for dtype in STORED_TYPES:
        plan = forecast(dataset, find_units(tiny), dtype, tmp_path)
        files = [
            f
            for layer in range(3)
            for f in neurons_of(tiny, dataset, [0, 1, 2], tmp_path, dtype=dtype).shard_files(layer)
        ]
        real = sum(file.stat().st_size for file in files)
        assert plan.bytes_needed <= real <= plan.bytes_needed + 400 * len(files)
        assert (plan.rows, plan.tokens) == (dataset.n_rows, len(dataset.tokens))


def test_too_little_disk_is_noticed_before_the_first_forward_pass(tiny, tmp_path, monkeypatch):
    dataset = dataset_for(tiny)
    monkeypatch.setattr(extract, "forward", lambda *_: pytest.fail("computed"))
    monkeypatch.setattr("sparse_probing.activations.forecast.free_bytes", lambda _: 20_000_000)
    with pytest.raises(
        PrerequisiteError,
        match=r"need \d+ kB and 67 MB in reserve, 20 MB are free in .* fewer --layers",
    ):
        neurons_of(tiny, dataset, [0, 1], tmp_path)


def test_full_disk_while_writing_is_a_sentence_and_leaves_no_half_shard(tiny, tmp_path, monkeypatch):
    def full(*_arguments: Any, **_named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract, "write_shard", full)
    with pytest.raises(PrerequisiteError, match=r"No space left on device.*the same command goes on from there"):
        neurons_of(tiny, dataset_for(tiny), [0], tmp_path)
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.safetensors"))


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    density=st.integers(0, 3),
    neurons=st.integers(1, 10**6),
)
def test_shard_bounds_are_whole_sequences_in_order_and_small(lengths, density, neurons):
    n = len(lengths)
    with pytest.MonkeyPatch.context() as patch:
        many_shards(patch, 500)
        patch.setattr(extract, "BYTES_PER_SHARD", 2**20)
        bounds = sequence_bounds(np.array(lengths), np.full(n, density), neurons)
    assert bounds[0] == 0 and bounds[-1] == n and (np.diff(bounds) > 0).all()
    largest = max(max(lengths) / 500, density * neurons * 2 / 2**20)
    for a, b in pairwise(bounds):
        assert sum(lengths[a:b]) <= 500 * (1 + largest)
        assert density * (b - a) * neurons * 2 <= 2**20 * (1 + largest)
