"""Shards and the store: any rows and columns, any type, any damage."""

from __future__ import annotations

import json
import multiprocessing
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from sparse_probing.activations.cache import choose_to_prune, list_stores, remove, remove_leftovers
from sparse_probing.activations.extract import extract, find_units
from sparse_probing.activations.models import load_model
from sparse_probing.activations.shard_buffer import ShardBuffer
from sparse_probing.activations.shards import (
    STORED_TYPES,
    DamagedShard,
    StoredType,
    check_shard,
    read_column,
    read_header,
    read_rows,
    shard_bytes,
    write_shard,
)
from sparse_probing.activations.store import Activations, ActivationStore
from sparse_probing.datasets.unlabelled import every_token
from sparse_probing.errors import InputError, PrerequisiteError, StaleCacheError
from sparse_probing.records import NEURONS, Site

from .conftest import SENTENCES

RELATIVE = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 0.0}
"""Rounding to nearest: half a unit in the last place."""


def site(width: int, layer: int = 0) -> Site:
    return Site(name=NEURONS, layer=layer, width=width, module_path="m", side="input")


def write(path: Path, values: np.ndarray, dtype: StoredType, batches: int = 1) -> None:
    buffer = ShardBuffer(site(values.shape[1]), len(values), dtype)
    for rows in np.array_split(np.arange(len(values)), batches):
        buffer.put(rows, torch.from_numpy(values[rows]))
    write_shard(path, buffer.tensors(), rows=len(values), width=values.shape[1])


def store_of(folder: Path, values: np.ndarray, bounds: list[int], dtype: StoredType = "float32") -> Activations:
    store = ActivationStore(
        folder, np.array(bounds), np.array(bounds), {"model": "m", "rows": len(values), "tokens": 0}
    )
    array = store.array(site(values.shape[1]), dtype)
    array.folder.mkdir(parents=True)
    for shard, (a, b) in enumerate(pairwise(bounds)):
        write(array.path(shard), values[a:b], dtype)
    return Activations({0: array})


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    width=st.sampled_from([1, 5, 63, 64, 65, 128, 150]),
    dtype=st.sampled_from(STORED_TYPES),
    batches=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_rows_and_columns_come_back_within_the_types_rounding(tmp_path_factory, rows, width, dtype, batches, seed):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(rows, width)) * 10 ** rng.uniform(-2, 3, width)).astype(np.float32)
    values[:, 0] = values[0, 0]  # a unit that never changes
    path = tmp_path_factory.mktemp("s") / "00000.safetensors"
    write(path, values, dtype, batches)
    check_shard(path, rows=rows, width=width)
    assert 0 < path.stat().st_size - shard_bytes(rows, width, dtype) < 500
    back = np.empty_like(values)
    read_rows(path, slice(None), back)
    if dtype == "int8":
        # half a step, plus float32 rounding of offset, scale and their sum
        bound = np.ptp(values, axis=0) / 254 * 0.51 + np.abs(values).max(axis=0) * 1e-6
        assert (np.abs(back - values) <= bound).all()
        np.testing.assert_array_equal(back[:, 0], values[:, 0])
    else:
        np.testing.assert_array_less(np.abs(back - values), np.abs(values) * RELATIVE[dtype] + 1e-7)
    chosen = rng.integers(0, rows, 7)
    some = np.empty((7, width), dtype=np.float32)
    read_rows(path, chosen, some)
    np.testing.assert_array_equal(some, back[chosen])
    for unit in {0, width // 2, width - 1}:
        np.testing.assert_array_equal(read_column(path, unit, slice(None)), back[:, unit])
        np.testing.assert_array_equal(read_column(path, unit, chosen), back[chosen, unit])


def test_values_arrive_in_any_order(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 70)).astype(np.float32)
    buffer = ShardBuffer(site(70), 20, "float32")
    for rows in (np.arange(1, 20, 2), np.arange(0, 20, 2), np.array([], dtype=int)):
        buffer.put(rows, torch.from_numpy(values[rows]))
    write_shard(tmp_path / "s", buffer.tensors(), rows=20, width=70)
    back = np.empty_like(values)
    read_rows(tmp_path / "s", slice(None), back)
    np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize("dtype", STORED_TYPES)
def test_files_open_with_the_safetensors_library(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(6, 70)).astype(np.float32)
    write(tmp_path / "s.safetensors", values, dtype)
    with safe_open(tmp_path / "s.safetensors", "pt") as file:
        tensor = file.get_tensor("activations").float()
        assert file.metadata()["width"] == "70"
        if dtype == "int8":
            scale, offset = (torch.nn.functional.pad(file.get_tensor(n), (0, 58)) for n in ("scale", "offset"))
            tensor = tensor * scale.view(2, 1, 64) + offset.view(2, 1, 64)
    plain = tensor.permute(1, 0, 2).reshape(6, 128)[:, :70].numpy()
    back = np.empty_like(values)
    read_rows(tmp_path / "s.safetensors", slice(None), back)
    np.testing.assert_allclose(plain, back, rtol=1e-6)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_any_flipped_bit_is_found_or_changes_nothing(tmp_path_factory, place, bit):
    """Only blanks in the header may change without notice: they carry nothing."""
    path = tmp_path_factory.getbasetemp() / "flip.safetensors"
    values = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    write(path, values, "float16")
    expected = np.empty_like(values)
    read_rows(path, slice(None), expected)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    try:
        check_shard(path, rows=5, width=10)
    except DamagedShard:
        return
    back = np.empty_like(values)
    read_rows(path, slice(None), back)
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("cut", [1, 100, 1280])
def test_truncated_and_lengthened_shards_are_found(tmp_path, cut):
    path = tmp_path / "s"
    write(path, np.ones((10, 64), dtype=np.float32), "float16")
    whole = path.read_bytes()
    for data in (whole[:-cut], whole + b"x", b"", whole[:20]):
        path.write_bytes(data)
        with pytest.raises(DamagedShard):
            check_shard(path, rows=10, width=64)
    with pytest.raises(DamagedShard, match="10 rows of 64 units instead of 11 of 64"):
        path.write_bytes(whole)
        check_shard(path, rows=11, width=64)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_rows_in_any_order_across_shards(tmp_path_factory, data):
    n = data.draw(st.integers(1, 30))
    cuts = data.draw(st.lists(st.integers(0, n), max_size=4))
    bounds = sorted({0, n, *cuts})
    values = np.random.default_rng(n).normal(size=(n, 66)).astype(np.float32)
    store = store_of(tmp_path_factory.mktemp("r") / "s", values, bounds)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=20)), dtype=int)
    np.testing.assert_array_equal(store.read(0, rows), values[rows])
    np.testing.assert_array_equal(store.column(0, 65, rows), values[rows, 65])
    np.testing.assert_array_equal(store.read(0), values)
    np.testing.assert_array_equal(store.column(0, 3), values[:, 3])
    assert (store.n_rows, store.layers, store.width(0), store.site) == (n, (0,), 66, NEURONS)


def test_reading_what_is_not_there_is_a_sentence(tmp_path):
    store = store_of(tmp_path / "s", np.ones((4, 3), dtype=np.float32), [0, 4])
    with pytest.raises(InputError, match=r"layer 2 of mlp.neurons is not stored here: layers \[0\] are"):
        store.read(2)
    with pytest.raises(InputError, match=r"unit 3 does not exist: mlp.neurons of layer 0 has units 0 to 2"):
        store.column(0, 3)
    with pytest.raises(InputError, match="rows 1 to 4 were asked for, rows 0 to 3 are stored"):
        store.read(0, np.array([1, 4]))
    (file,) = store.shard_files(0)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(StaleCacheError, match=r"is damaged .* run the same command again"):
        store.read(0)
    file.unlink()
    with pytest.raises(PrerequisiteError, match=r"was removed from the cache: run the same command again"):
        store.column(0, 1)


def test_reading_a_column_does_not_load_the_rest(tmp_path):
    """Whoever copied the shard, or one slab of it, would allocate far more than the column: 5 MB, or 2.5 MB."""
    import tracemalloc

    values = np.zeros((20_000, 128), dtype=np.float32)
    store = store_of(tmp_path / "s", values, [0, 20_000], "float16")
    tracemalloc.start()
    store.column(0, 100)
    rows = store.read(0, np.array([5, 19_000]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.shape == (2, 128)
    assert peak < 20_000 * 4 * 4  # the column in float16 and float32 with room to spare: 320 kB of 5 MB


def test_another_versions_store_is_stale(tmp_path):
    folder = tmp_path / "activations" / "abc"
    arguments = np.array([0, 1]), np.array([0, 3]), {"model": "m", "rows": 3, "tokens": 9}
    ActivationStore(folder, *arguments)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(
        StaleCacheError, match=r"another version \(format 1, this one writes 2\): .*sprobe cache prune --stale"
    ):
        ActivationStore(folder, *arguments)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"row_bounds": [0, 4]}))
    with pytest.raises(StaleCacheError, match="does not fit its data: remove it with `sprobe cache prune abc`"):
        ActivationStore(folder, *arguments)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(StaleCacheError, match="another version"):
        ActivationStore(folder, *arguments)


def test_a_store_keeps_the_bounds_that_it_was_made_with(tmp_path):
    facts = {"model": "m", "rows": 3, "tokens": 9}
    ActivationStore(tmp_path / "s", np.array([0, 1, 2]), np.array([0, 2, 3]), facts)
    again = ActivationStore(tmp_path / "s", np.array([0, 2]), np.array([0, 3]), facts)
    assert (again.sequence_bounds, again.row_bounds) == ((0, 1, 2), (0, 2, 3))


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PrerequisiteError, match="set SPROBE_CACHE to a writable folder"):
        ActivationStore(tmp_path / "file" / "s", np.array([0, 1]), np.array([0, 1]), {})


# two processes


def _extract(model_folder: str, cache: str, ready: object) -> None:
    torch.set_num_threads(1)
    model = load_model(model_folder, device="cpu")
    rows = every_token([f"{s} {i}" for i in range(6) for s in SENTENCES], model.tokenizer, window=32)
    ready.wait()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparse_probing.activations.extract.TOKENS_PER_SHARD", 100)
        extract(model, rows, find_units(model), cache=Path(cache))


def test_two_processes_extract_into_one_cache_at_once(model_folders, tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(2)
    folder = str(model_folders["gpt_neox"])
    processes = [context.Process(target=_extract, args=(folder, str(tmp_path / "both"), ready)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]

    class Nobody:
        def wait(self) -> None:
            pass

    _extract(folder, str(tmp_path / "alone"), Nobody())
    both, alone = ({p.relative_to(tmp_path / n): p for p in (tmp_path / n).rglob("*.*")} for n in ("both", "alone"))
    assert set(both) == set(alone) and len(both) > 20
    for name in both:
        if name.suffix == ".safetensors":
            header = read_header(both[name])
            check_shard(both[name], rows=header.rows, width=header.width)
            a, b = (np.empty((header.rows, header.width), dtype=np.float32) for _ in range(2))
            read_rows(both[name], slice(None), a)
            read_rows(alone[name], slice(None), b)
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


# the cache


def cache_with(cache: Path, ages_days: dict[str, float], now: float) -> None:
    for name, age in ages_days.items():
        folder = cache / "activations" / name
        store_of(folder, np.zeros((8, 64), dtype=np.float32), [0, 8])
        os.utime(folder / "manifest.json", (now - age * 86_400, now - age * 86_400))


def test_list_and_prune(tmp_path):
    now = 1.8e9
    cache_with(tmp_path, {"aa": 1.0, "ab": 10.0, "b": 40.0}, now)
    (tmp_path / "activations" / "old").mkdir()
    (tmp_path / "activations" / "old" / "manifest.json").write_text('{"format": 1}')
    stores = {store.address: store for store in list_stores(tmp_path)}
    assert set(stores) == {"aa", "ab", "b", "old"}
    assert stores["old"].stale and not stores["aa"].stale
    assert stores["aa"].sites == ("mlp.neurons 1 x float32",) and stores["aa"].bytes > 8 * 64 * 4
    known = sorted((stores[n] for n in ("aa", "ab", "b")), key=lambda s: -s.last_used)

    def chosen(**rules: object) -> list[str]:
        return [store.address for store in choose_to_prune([*known, stores["old"]], now=now, **rules)]  # pyright: ignore

    assert chosen() == []
    assert chosen(addresses=["b"]) == ["b"]
    assert chosen(stale=True) == ["old"]
    assert chosen(everything=True) == ["aa", "ab", "b", "old"]
    assert set(chosen(older_than_days=5.0)) >= {"ab", "b"} and "aa" not in chosen(older_than_days=5.0)
    assert chosen(keep_bytes=2 * stores["aa"].bytes + 10, addresses=["old"]) == ["b", "old"]
    assert chosen(keep_bytes=0) == ["aa", "ab", "b", "old"]
    with pytest.raises(InputError, match="2 stores begin with 'a'"):
        chosen(addresses=["a"])
    remove(stores["ab"])
    assert {store.address for store in list_stores(tmp_path)} == {"aa", "b", "old"}


def test_leftovers_of_killed_processes_go_after_a_day(tmp_path):
    folder = tmp_path / "activations" / "x"
    folder.mkdir(parents=True)
    (folder / ".00000.abc.partial").write_bytes(b"12345")
    old = (folder / ".00000.abc.partial").stat().st_mtime
    assert remove_leftovers(tmp_path, now=old + 3_600) == 0
    assert remove_leftovers(tmp_path, now=old + 90_000) == 5
    assert list(folder.iterdir()) == []


def test_an_empty_cache(tmp_path):
    assert list_stores(tmp_path) == [] and remove_leftovers(tmp_path) == 0
