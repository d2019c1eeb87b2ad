"""Interventions: equal to edited weights and to a slow reimplementation, whatever is shared, batched or interrupted; no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparse_probing.activations import effects, replay
from sparse_probing.activations.batches import TokenBudget, forward
from sparse_probing.activations.effects import Effects, Reads, ScoredText, Variant, measure
from sparse_probing.activations.extract import extract, find_units, sequence_tokens
from sparse_probing.activations.interventions import Intervention, intervening
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import HEADS, head_of, load_model, no_head, wrap_model
from sparse_probing.activations.replay import NOWHERE, Replay
from sparse_probing.activations.token_statistics import output_norms, unit_statistics
from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS, POOLINGS, Pooling, Site, task_rng
from tests.test_activations import dataset_for
from tests.test_architectures import FAMILIES, IDS, TOKENS

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 40}
BERT: dict[str, Any] = TOKENS | SMALL | {"max_position_embeddings": 64}
T5: dict[str, Any] = TOKENS | {"d_model": 32, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_heads": 4}
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A second one only waits for so small matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def words() -> hf.PreTrainedTokenizerFast:
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")),
        mask_token="?",
    )


def shaken(network: Any, by: float = 0.2) -> Any:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return network.eval().float()


@pytest.fixture(scope="module")
def heads(model_folders, words) -> dict[str, LoadedModel]:
    """Three architectures that predict the next token, and one that guesses masked ones."""
    found = {name: load_model(str(folder), device="cpu", with_head=True) for name, folder in model_folders.items()}
    torch.manual_seed(0)
    return found | {"bert": wrap_model(shaken(hf.BertForMaskedLM(hf.BertConfig(**BERT))), words, "bert")}


@pytest.fixture(scope="module")
def neox(heads) -> LoadedModel:
    return heads["gpt_neox"]


def texts_for(
    model: LoadedModel, lengths: Sequence[int] = (5, 19, 11, 3, 8), vocabulary: int = 300
) -> list[ScoredText]:
    """Unequal lengths; some positions are scored, some labelled, one text is labelled nowhere."""
    rng = np.random.default_rng(1)
    result = []
    for i, length in enumerate(lengths):
        tokens = rng.integers(3, vocabulary, length)
        if model.objective == "masked token":
            chosen = np.sort(rng.choice(length, size=max(1, length // 4), replace=False))
            targets = np.full(length, NOWHERE)
            targets[chosen], tokens[chosen] = tokens[chosen], 4
        else:
            targets = np.append(tokens[1:], NOWHERE)
            targets[rng.random(length) < 0.2] = NOWHERE
        labelled = (rng.random(length) < 0.5) & (i != 3)
        result.append(ScoredText(tokens=tokens, targets=targets, number=40 + 3 * i, labelled=labelled))
    return result


# the slow way: one text at a time on a copy, without padding, hooks, sharing


def copy_of(model: LoadedModel) -> tuple[Any, Any]:
    full: Any = copy.deepcopy(model.full)
    return full, getattr(full, full.base_model_prefix)


def values_for(intervention: Intervention, text: ScoredText) -> torch.Tensor:
    """[position, unit]."""
    length = len(text.tokens)
    if len(intervention.values) == 1:
        return torch.from_numpy(np.repeat(intervention.values, length, axis=0))
    drawn = task_rng(intervention.seed, "resample", text.number).integers(len(intervention.values), size=length)
    return torch.from_numpy(intervention.values[drawn])


def patch(base: nn.Module, intervention: Intervention, text: ScoredText, *, labelled_only: bool) -> None:
    """Another forward for one module of the copy."""
    module: Any = base.get_submodule(intervention.site.module_path)
    real, new = module.forward, values_for(intervention, text)

    def put(hidden: torch.Tensor) -> torch.Tensor:
        flat = hidden.reshape(len(text.tokens), -1).clone()
        for position in range(len(text.tokens)):
            if labelled_only and text.labelled is not None and not text.labelled[position]:
                continue
            for i, unit in enumerate(intervention.units):
                flat[position, unit] = float(new[position, i])
        return flat.reshape(hidden.shape)

    def forward_(*arguments: Any, **named: Any) -> Any:
        if intervention.site.side == "input":
            if arguments:
                return real(put(arguments[0]), *arguments[1:], **named)
            return real(**(named | {"hidden_states": put(named["hidden_states"])}))
        out = real(*arguments, **named)
        return put(out) if isinstance(out, torch.Tensor) else (put(out[0]), *out[1:])

    module.forward = forward_


@torch.no_grad()
def losses_of(full: Any, text: ScoredText) -> list[float]:
    logits = full(input_ids=torch.from_numpy(text.tokens)[None]).logits[0].double()
    at = [(p, int(t)) for p, t in enumerate(text.targets) if t != NOWHERE]
    return [float(torch.logsumexp(logits[p], 0) - logits[p, t]) for p, t in at]


def slow_losses(model: LoadedModel, texts: Sequence[ScoredText], variant: Variant | None) -> np.ndarray:
    result: list[float] = []
    for text in texts:
        full, base = copy_of(model)
        for intervention in variant.interventions if variant else ():
            patch(base, intervention, text, labelled_only=bool(variant and variant.labelled_only))
        result += losses_of(full, text)
    return np.array(result)


def change(
    model: LoadedModel, name: str, layer: int, units: tuple[int, ...], values: Any, seed: int = 0
) -> Intervention:
    site = find_units(model, name, [layer])[0]
    return Intervention(site=site, units=units, values=np.atleast_2d(np.array(values, dtype=float)), seed=seed)


def agrees(model: LoadedModel, texts: list[ScoredText], variants: list[Variant], **options: Any) -> Effects:
    found = measure(model, texts, variants, **options)
    for i, variant in enumerate([None, *variants]):
        np.testing.assert_allclose(found.loss[i], slow_losses(model, texts, variant), **CLOSE, err_msg=str(variant))
    return found


def edited(model: LoadedModel, site: Site, unit: int, value: float) -> Any:
    """A copy whose weights do what the intervention does: a unit's column is taken out, what it writes goes to the bias."""
    full, base = copy_of(model)
    module: Any = base.get_submodule(site.module_path)
    with torch.no_grad():
        column = module.weight[unit] if isinstance(module, Conv1D) else module.weight[:, unit]
        written = value * column.clone()
        column.zero_()
        if module.bias is None:
            module.bias = nn.Parameter(written)
        else:
            module.bias.add_(written)
    return full


# 1. equal


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "sizes"), [family[:2] for family in FAMILIES], ids=IDS)
def test_a_neuron_that_is_set_equals_a_copy_with_edited_weights_in_every_architecture(kind, sizes, words):
    config = kind(**sizes)
    head = head_of(config)
    if head is None:
        assert kind is hf.T5Config
        return
    torch.manual_seed(1)
    model = wrap_model(shaken(HEADS[head].from_config(config), 0.1), words)
    assert model.objective == (
        "masked token" if "Bert" in kind.__name__ or "Roberta" in kind.__name__ else "next token"
    )
    texts = texts_for(model, (4, 11, 7))
    cases = [(NEURONS, 0, 3, 0.0), (NEURONS, 1, 17, 4.0), ("attn.heads", 1, 5, 0.0), ("attn.heads", 0, 2, -3.0)]
    variants = [Variant(interventions=(change(model, name, layer, (u,), v),)) for name, layer, u, v in cases]
    trusted: dict[int, bool] = {}
    found = measure(model, texts, variants, trusted=trusted)
    assert trusted[1] and all(trusted.values())
    for i, variant in enumerate(variants, 1):
        network = edited(model, variant.interventions[0].site, cases[i - 1][2], cases[i - 1][3])
        expected = np.concatenate([losses_of(network, text) for text in texts])
        np.testing.assert_allclose(found.loss[i], expected, rtol=0, atol=2e-5, err_msg=str(cases[i - 1]))
        assert np.abs(found.loss[i] - found.loss[0]).max() > 1e-4


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama", "bert"])
def test_losses_equal_the_slow_way(name, heads):
    model = heads[name]
    texts = texts_for(model)
    donors = np.random.default_rng(4).normal(size=(7, 2))
    everywhere = [
        (change(model, NEURONS, 1, (5,), 0.0),),
        (change(model, NEURONS, 2, (7, 3, 30), [0.2, -0.4, 1.5]),),
        (change(model, NEURONS, 0, (9, 2), donors, seed=6),),
        (change(model, "resid.post", 1, (15, 4), donors),),
        (change(model, "resid.pre", 1, (1,), 2.0),),
        (change(model, "attn.heads", 0, (12, 1), [1.0, 0.0]),),
        (change(model, "mlp.out", 2, (3,), -2.0),),
        (change(model, "attn.out", 1, (0, 8), donors),),
        (change(model, NEURONS, 2, (1,), 3.0), change(model, "resid.post", 0, (2,), 0.0), change(model, NEURONS, 1, (4,), 0.0)),
    ]  # fmt: skip
    variants = [
        Variant(interventions=made, labelled_only=labelled) for made in everywhere for labelled in (False, True)
    ]
    found = agrees(model, texts, variants)
    assert (np.abs(found.loss[1:] - found.loss[0]).max(axis=1) > 1e-4).all()
    unlabelled = found.text == 3  # interventions at labelled positions leave it alone
    assert unlabelled.any() and (np.abs(found.loss[2::2, unlabelled] - found.loss[0, unlabelled]) < 1e-5).all()
    where = [(t, p) for t, text in enumerate(texts) for p in np.flatnonzero(text.targets != NOWHERE).tolist()]
    assert list(zip(found.text.tolist(), found.position.tolist(), strict=True)) == where


def test_a_unit_named_twice_takes_the_later_value(neox):
    texts = texts_for(neox)
    first, later = change(neox, NEURONS, 1, (5,), 9.0), change(neox, NEURONS, 1, (5, 6), [1.0, 2.0])
    found = measure(neox, texts, [Variant(interventions=(first, later)), Variant(interventions=(later,))])
    np.testing.assert_array_equal(found.loss[1], found.loss[2])


def test_texts_without_a_scored_token_and_no_texts_at_all(neox):
    texts = texts_for(neox)
    silent = ScoredText(
        tokens=texts[0].tokens, targets=np.full(len(texts[0].tokens), NOWHERE), number=0, labelled=texts[0].labelled
    )
    variants = [Variant(interventions=(change(neox, NEURONS, 1, (5,), 0.0),))]
    found = measure(neox, [silent, texts[1], silent], variants)
    np.testing.assert_allclose(found.loss[1], slow_losses(neox, [texts[1]], variants[0]), **CLOSE)
    assert set(found.text.tolist()) == {1}
    assert measure(neox, [], variants).loss.shape == (2, 0)


def reads_of(dataset: Any, sequences: Sequence[int], units: dict[Site, np.ndarray]) -> tuple[Reads, np.ndarray]:
    rows = np.flatnonzero(np.isin(dataset.row_sequence, sequences))
    text = np.searchsorted(sequences, dataset.row_sequence[rows])
    reads = Reads(
        units=units, text=text, first=dataset.row_first[rows], last=dataset.row_last[rows], pooling=dataset.row_pooling[rows]
    )  # fmt: skip
    return reads, rows


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MAX, Pooling.LAST, Pooling.FIRST])
def test_later_units_are_read_as_extraction_reads_an_edited_network(pooling, neox, tokenizer, tmp_path):
    dataset = dataset_for(neox, pooling)
    sequences = list(range(2, 9))
    texts = [
        ScoredText(tokens=t, targets=np.append(t[1:], NOWHERE), number=s, labelled=np.ones(len(t), dtype=bool))
        for s in sequences
        for t in [sequence_tokens(dataset, s).astype(np.int64)]
    ]
    later, last = find_units(neox, NEURONS, [1, 2])
    reads, rows = reads_of(dataset, sequences, {later: np.array([3, 30]), last: np.array([40, 0, 7])})
    cleared, clamped = change(neox, NEURONS, 0, (5,), 0.0), change(neox, "attn.heads", 1, (2,), 3.0)
    found = measure(
        neox, texts, [Variant(interventions=(c,)) for c in (cleared, clamped)], reads=reads, budget=TokenBudget(neox, 60)
    )  # fmt: skip
    networks = [neox.full, edited(neox, cleared.site, 5, 0.0), edited(neox, clamped.site, 2, 3.0)]
    for i, network in enumerate(networks):
        stored = extract(wrap_model(network, tokenizer), dataset, (later, last), cache=tmp_path, dtype="float32")[
            NEURONS
        ]
        for site, units in reads.units.items():
            np.testing.assert_allclose(found.read[site][i], stored.read(site.layer)[rows][:, units], rtol=0, atol=2e-5)
    assert np.abs(found.read[last][1] - found.read[last][0]).max() > 1e-3


# 2. shared passes


def calls_of(model: LoadedModel) -> tuple[list[int], list[Any]]:
    """How often each block's MLP is computed; blocks that are given back do not compute theirs."""
    counts = [0] * model.sites.n_layers

    def count(layer: int) -> Callable[..., None]:
        def add(*_: Any) -> None:
            counts[layer] += 1

        return add

    blocks: Any = model.network.get_submodule(model.sites.stack)
    return counts, [block.mlp.register_forward_hook(count(i)) for i, block in enumerate(blocks)]


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama"])
def test_shared_passes_equal_full_passes_bit_for_bit(name, heads):
    model, texts = heads[name], texts_for(heads[name])
    donors = np.random.default_rng(4).normal(size=(7, 2))
    variants = [
        Variant(interventions=(change(model, site, layer, (3, 11), donors),))
        for site in (NEURONS, "resid.pre", "resid.post", "attn.heads")
        for layer in (2, 0, 1)
    ]
    last = find_units(model, NEURONS, [2])[0]
    reads = Reads(
        units={last: np.arange(9)}, text=np.arange(5), first=np.zeros(5, int), last=np.full(5, 3), pooling=np.full(5, 3)
    )  # fmt: skip
    assert POOLINGS[3] is Pooling.MEAN
    trusted: dict[int, bool] = {}
    first = measure(model, texts, variants, reads=reads, trusted=trusted)
    assert all(trusted.values()) and {1, 2} <= set(trusted)
    counts, handles = calls_of(model)
    try:
        shared = measure(model, texts, variants, reads=reads, trusted=trusted)
        assert counts == [1 + 4, 1 + 8, 1 + 12]  # the bare pass, and four variants of each layer up to the block's own
        counts[:] = [0, 0, 0]
        full = measure(model, texts, variants, reads=reads, trusted=dict.fromkeys(range(3), False))
        assert counts == [13, 13, 13]
    finally:
        for handle in handles:
            handle.remove()
    np.testing.assert_array_equal(first.loss, full.loss)
    np.testing.assert_array_equal(shared.loss, full.loss)
    np.testing.assert_array_equal(shared.read[last], full.read[last])


def in_place(block: Any) -> None:
    """The block adds to its input where it lies, so what the block below gave is no longer what it gave."""
    real = block.forward

    def forward_(hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        return real(hidden_states.add_(0.5 * hidden_states.tanh()), *arguments, **named)

    block.forward = forward_


def in_place_twice(network: Any) -> None:
    in_place(network.layers[1])
    in_place(network.layers[2])


def remembering(early: Any, late: Any) -> None:
    """A late block reads what an early block left behind in the same pass."""
    first, second, kept = early.forward, late.forward, {}

    def leave(hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        out = first(hidden_states, *arguments, **named)
        kept["x"] = out if isinstance(out, torch.Tensor) else out[0]
        return out

    def take(hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        return second(hidden_states + kept["x"].roll(1, dims=-1), *arguments, **named)

    early.forward, late.forward = leave, take


def forgetting(early: Any, late: Any) -> None:
    """The same, but what was left is used up."""
    first, second, kept = early.forward, late.forward, []

    def leave(hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        out = first(hidden_states, *arguments, **named)
        kept.append(out if isinstance(out, torch.Tensor) else out[0])
        return out

    def take(hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        return second(hidden_states + kept.pop().roll(1, dims=-1), *arguments, **named)

    early.forward, late.forward = leave, take


def counting(block: Any) -> None:
    """A block that is different in every pass."""
    real, n = block.forward, [0]

    def forward_(hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        n[0] += 1
        return real(hidden_states * (1 + n[0]), *arguments, **named)

    block.forward = forward_


def odd(model_folders: dict[str, Path], spoil: Callable[[Any], None]) -> tuple[LoadedModel, LoadedModel]:
    """A network that does not repeat itself, and a plain one for the slow way, spoiled after each copy."""
    model, twin = (load_model(str(model_folders["gpt_neox"]), device="cpu", with_head=True) for _ in range(2))
    spoil(model.network)
    return model, twin


SPOILED: dict[str, Callable[[Any], None]] = {
    "in place": lambda network: in_place(network.layers[2]),
    "in place, twice": in_place_twice,
    "remembering": lambda network: remembering(network.layers[0], network.layers[2]),
    "forgetting": lambda network: forgetting(network.layers[0], network.layers[2]),
}


def slow_on_spoiled(
    twin: LoadedModel, spoil: Callable[[Any], None], texts: list[ScoredText], variant: Variant | None
) -> np.ndarray:
    result: list[float] = []
    for text in texts:
        full, base = copy_of(twin)
        spoil(base)
        for intervention in variant.interventions if variant else ():
            patch(base, intervention, text, labelled_only=False)
        result += losses_of(full, text)
    return np.array(result)


@pytest.mark.parametrize("name", list(SPOILED))
def test_a_network_that_does_not_repeat_itself_gets_full_passes(name, model_folders):
    model, twin = odd(model_folders, SPOILED[name])
    texts = texts_for(model)
    variants = [Variant(interventions=(change(model, NEURONS, layer, (3,), 2.0),)) for layer in (0, 2, 1)]
    trusted: dict[int, bool] = {}
    found = measure(model, texts, variants, trusted=trusted, budget=TokenBudget(model, 40))
    assert not trusted[2]
    for i, variant in enumerate([None, *variants]):
        expected = slow_on_spoiled(twin, SPOILED[name], texts, variant)
        np.testing.assert_allclose(found.loss[i], expected, **CLOSE, err_msg=f"pass {i}")


SHARING: dict[str, Any] = TOKENS | {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "vocab_size_per_layer_input": 300, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["Gemma3nText", "Gemma4Text"])
def test_late_blocks_that_use_keys_and_values_of_early_ones(kind, words):
    if not hasattr(hf, f"{kind}Config"):
        pytest.skip("not in this version of transformers")
    more: dict[str, Any] = (
        {"laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [80] * 4}
        if kind == "Gemma3nText"
        else {"global_head_dim": 8, "intermediate_size": 80}
    )
    torch.manual_seed(1)
    config = getattr(hf, f"{kind}Config")(**SHARING, **more)
    model = wrap_model(shaken(HEADS["next token"].from_config(config), 0.1), words)
    texts = texts_for(model, (4, 11, 7))
    cases = [(0, 3, 2.0), (3, 5, 0.0), (2, 9, -1.0)]
    variants = [Variant(interventions=(change(model, "mlp.neurons", layer, (u,), v),)) for layer, u, v in cases]
    found = measure(model, texts, variants)
    for i, (_, unit, value) in enumerate(cases, 1):
        network = edited(model, variants[i - 1].interventions[0].site, unit, value)
        expected = np.concatenate([losses_of(network, text) for text in texts])
        np.testing.assert_allclose(found.loss[i], expected, rtol=0, atol=2e-5)


def test_reads_of_the_bare_model_are_not_those_of_the_check(model_folders):
    """A network that changes its input in place: the check fails, and leaves its own values nowhere."""
    model, twin = odd(model_folders, SPOILED["in place"])
    text = texts_for(model)[1]
    last = find_units(model, NEURONS, [2])[0]
    one = np.zeros(1, int)
    reads = Reads(units={last: np.arange(9)}, text=one, first=one, last=one + 4, pooling=one + 3)
    found = measure(model, [text], [Variant(interventions=(change(model, NEURONS, 2, (30,), 0.0),))], reads=reads)
    full, base = copy_of(twin)
    SPOILED["in place"](base)
    seen: list[torch.Tensor] = []
    base.get_submodule(last.module_path).register_forward_pre_hook(lambda _m, a: seen.append(a[0]))
    losses_of(full, text)
    np.testing.assert_allclose(found.read[last][0, 0], seen[0][0, :4, :9].mean(0), **CLOSE)


def test_a_network_that_never_repeats_itself_is_noticed(model_folders):
    model, _ = odd(model_folders, lambda network: counting(network.layers[1]))
    trusted: dict[int, bool] = {}
    measure(model, texts_for(model), [Variant(interventions=(change(model, NEURONS, 2, (3,), 0.0),))], trusted=trusted)
    assert trusted[2]  # block 1 is below: it is given back, and the rest repeats
    trusted = {}
    measure(model, texts_for(model), [Variant(interventions=(change(model, NEURONS, 1, (3,), 0.0),))], trusted=trusted)
    assert not trusted[1]


def test_units_below_the_changed_layer_read_what_they_read_without_change(neox):
    """Nothing above them can reach them."""
    text = texts_for(neox)[1]
    sites = [find_units(neox, name, [0])[0] for name in (NEURONS, "resid.pre", "resid.post")]
    one = np.zeros(1, int)
    reads = Reads(units=dict.fromkeys(sites, np.arange(9)), text=one, first=one, last=one + 4, pooling=one + 3)
    found = measure(neox, [text], [Variant(interventions=(change(neox, NEURONS, 2, (30,), 0.0),))], reads=reads)
    for site in sites:
        np.testing.assert_array_equal(found.read[site][1], found.read[site][0])


def drawn_variants(model: LoadedModel) -> list[Variant]:
    donors = np.random.default_rng(4).normal(size=(7, 2))
    return [
        Variant(interventions=(change(model, NEURONS, layer, (3, 11), donors, seed=layer),), labelled_only=labelled)
        for layer in (0, 2)
        for labelled in (False, True)
    ]


def test_draws_belong_to_the_sequence_not_to_the_batch(neox):
    texts, variants = texts_for(neox), drawn_variants(neox)
    together = measure(neox, texts, variants)
    for tokens in (1, 16, 27):
        found = measure(neox, texts, variants, budget=TokenBudget(neox, tokens))
        np.testing.assert_allclose(found.loss, together.loss, **CLOSE)
    turned = measure(neox, texts[::-1], variants)
    for i in range(len(texts)):
        np.testing.assert_allclose(
            turned.loss[:, turned.text == len(texts) - 1 - i], together.loss[:, together.text == i], **CLOSE
        )


def test_other_seeds_and_other_sequences_draw_otherwise():
    site = Site(name=NEURONS, layer=0, width=4, module_path="x", side="input")
    values = np.arange(100.0)[:, None]

    def drawn(seed: int, number: int, longest: int = 30) -> list[float]:
        made = Intervention(site=site, units=(0,), values=values, seed=seed)
        return made.new(np.array([9, number]), longest)[1, :, 0].tolist()

    assert drawn(0, 1) == drawn(0, 1, 200)[:30]
    assert len({tuple(drawn(seed, number)) for seed in (0, 1) for number in (1, 2)}) == 4
    pair = Intervention(site=site, units=(0, 3), values=np.stack([np.arange(50.0), -np.arange(50.0)], axis=1))
    both = pair.new(np.array([5]), 40)
    np.testing.assert_array_equal(both[..., 0], -both[..., 1])  # all units from the same sample


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("fails_in", ["record", "changed"])
def test_memory_that_runs_out_changes_no_number(kind, fails_in, neox, monkeypatch):
    texts, variants = texts_for(neox), drawn_variants(neox)
    last = find_units(neox, NEURONS, [2])[0]
    reads = Reads(
        units={last: np.arange(9)}, text=np.arange(5), first=np.zeros(5, int), last=np.full(5, 3), pooling=np.full(5, 3)
    )  # fmt: skip
    expected = measure(neox, texts, variants, reads=reads)
    real, calls = Replay._losses, [0]

    def losses(self: Replay) -> torch.Tensor:
        calls[0] += 1
        if self._scored.numel() > 30 and (fails_in == "record" or calls[0] % 7 == 6):
            raise kind("CUDA out of memory. Tried to allocate 3.00 GiB")
        return real(self)

    monkeypatch.setattr(Replay, "_losses", losses)
    notes: list[str] = []
    found = measure(neox, texts, variants, reads=reads, budget=TokenBudget(neox, 10_000, notes.append))
    assert notes and notes[0].startswith("out of memory with ")
    np.testing.assert_allclose(found.loss, expected.loss, **CLOSE)
    np.testing.assert_allclose(found.read[last], expected.read[last], **CLOSE)
    assert traces(neox) == []


def test_a_text_that_never_fits_is_a_sentence(neox, monkeypatch):
    def never(_: Replay) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Replay, "_losses", never)
    with pytest.raises(InputError, match="a single sequence of 19 tokens does not fit"):
        measure(neox, texts_for(neox), drawn_variants(neox))
    assert traces(neox) == []


def test_progress_counts_passes(neox):
    told: list[int] = []
    measure(neox, texts_for(neox), drawn_variants(neox), progress=told.append, budget=TokenBudget(neox, 30))
    assert sum(told) == 5 * (1 + 4) and len(told) > 2


# 3. no trace


def traces(model: LoadedModel) -> list[str]:
    """Whatever an intervention could have left behind."""
    assert model.full is not None
    found = []
    for path, module in model.full.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._forward_hooks_with_kwargs:
            found.append(f"hook at {path}")
        if "forward" in module.__dict__:
            found.append(f"forward at {path}")
    return found


@torch.no_grad()
def logits_of(model: LoadedModel) -> torch.Tensor:
    assert model.full is not None
    return model.full(input_ids=torch.arange(3, 23).reshape(2, 10)).logits


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama", "bert"])
def test_logits_and_modules_are_what_they_were(name, heads):
    model = heads[name]
    before, weights = logits_of(model), {k: v.clone() for k, v in model.full.state_dict().items()}
    assert traces(model) == []
    measure(model, texts_for(model), drawn_variants(model))
    assert torch.equal(logits_of(model), before) and traces(model) == []
    assert all(torch.equal(v, weights[k]) for k, v in model.full.state_dict().items())
    with intervening(model.network, [change(model, NEURONS, 0, (3,), 9.0)], np.array([0, 1])):
        assert not torch.equal(logits_of(model), before)
    assert torch.equal(logits_of(model), before) and traces(model) == []


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, InputError])
@pytest.mark.parametrize("call", range(0, 9))
def test_whatever_happens_in_whichever_pass_nothing_stays(kind, call, neox):
    before = logits_of(neox)
    assert neox.full is not None
    head: Any = neox.full.get_output_embeddings()
    real, calls = head.forward, [0]

    def failing(hidden: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] > call:
            raise kind("now")
        return real(hidden)

    last = find_units(neox, NEURONS, [2])[0]
    one = np.zeros(1, int)
    reads = Reads(units={last: np.arange(3)}, text=one, first=one, last=one + 2, pooling=one + 3)
    head.forward = failing
    with pytest.raises(kind, match="now"):  # bare, a check of each of two layers, four variants; then the next batch
        measure(neox, texts_for(neox), drawn_variants(neox), reads=reads, budget=TokenBudget(neox, 60))
    del head.forward
    assert traces(neox) == [] and torch.equal(logits_of(neox), before)


@pytest.mark.parametrize("where", ["hook", "block", "values"])
def test_an_error_in_a_hook_or_block_leaves_nothing(where, neox, monkeypatch):
    before, first = logits_of(neox), change(neox, NEURONS, 1, (3,), 0.0)
    texts = texts_for(neox)
    session = Replay(neox, [1], {})
    session.record([t.tokens for t in texts], [t.targets for t in texts], [t.number for t in texts])
    with monkeypatch.context() as m:
        if where == "hook":
            m.setattr("sparse_probing.activations.interventions._replaced", lambda *_: 1 / 0)
        elif where == "block":
            m.setattr(type(neox.network.layers[2].mlp), "forward", lambda *_: 1 / 0)
        else:
            m.setattr(Intervention, "new", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.changed([first])
    assert traces(neox) == [] and torch.equal(logits_of(neox), before)
    # and the same session goes on
    found = session.changed([first]).numpy()
    np.testing.assert_allclose(found, slow_losses(neox, texts, Variant(interventions=(first,))), **CLOSE)


def test_a_site_that_is_not_there_leaves_no_hook_of_the_others(neox):
    good = change(neox, NEURONS, 1, (3,), 0.0)
    lost = Intervention(
        site=Site(name="x", layer=2, width=5, module_path="layers.2.nothing", side="input"), units=(0,), values=np.zeros((1, 1))
    )  # fmt: skip
    with pytest.raises(AttributeError), intervening(neox.network, [good, lost], np.array([0])):
        pass
    assert traces(neox) == []


def test_a_forward_of_its_own_comes_back(model_folders):
    """accelerate puts one on every module that it moves."""
    model = load_model(str(model_folders["gpt_neox"]), device="cpu", with_head=True)
    plain = measure(model, texts_for(model), drawn_variants(model))
    own: list[Any] = []
    blocks: Any = model.network.get_submodule(model.sites.stack)
    for block in blocks:
        real = block.forward

        def forward_(*arguments: Any, real: Any = real, **named: Any) -> Any:
            return real(*arguments, **named)

        block.forward = forward_
        own.append(forward_)
    found = measure(model, texts_for(model), drawn_variants(model))
    assert [block.__dict__["forward"] for block in blocks] == own
    np.testing.assert_array_equal(found.loss, plain.loss)


def test_two_analyses_in_turn_do_not_meet(neox):
    texts = texts_for(neox)
    one, two = texts[:3], texts[2:]
    first, second = change(neox, NEURONS, 1, (3,), 0.0), change(neox, "resid.post", 2, (4,), 3.0)
    a, b = Replay(neox, [1], {}), Replay(neox, [2], {})
    for session, mine in ((a, one), (b, two)):
        session.record([t.tokens for t in mine], [t.targets for t in mine], [t.number for t in mine])
    for _ in range(2):
        for session, made, mine in ((b, second, two), (a, first, one)):
            expected = slow_losses(neox, mine, Variant(interventions=(made,)))
            np.testing.assert_allclose(session.changed([made]).numpy(), expected, **CLOSE)
    assert traces(neox) == []


def test_interventions_within_interventions(neox):
    """The outer one stays in force inside of `measure`, bare pass included, and when the inner one has gone."""
    texts = texts_for(neox, (19,))
    outer, inner = change(neox, NEURONS, 0, (3,), 4.0), change(neox, NEURONS, 1, (5,), 2.0)
    with intervening(neox.network, [outer], np.array([0])):
        found = measure(neox, texts, [Variant(interventions=(inner,))])
        again = measure(neox, texts, [])
    np.testing.assert_allclose(found.loss[0], slow_losses(neox, texts, Variant(interventions=(outer,))), **CLOSE)
    np.testing.assert_allclose(found.loss[1], slow_losses(neox, texts, Variant(interventions=(outer, inner))), **CLOSE)
    np.testing.assert_array_equal(again.loss[0], found.loss[0])
    assert traces(neox) == []


class Wrapped(nn.Module):
    """A block that is called with keywords only, the hidden states not first among them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, scale: float, x: torch.Tensor) -> torch.Tensor:
        return scale * self.inner(x)


class Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Wrapped()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(scale=2.0, x=x)


def test_what_is_changed_is_what_is_read_of_a_module_called_with_keywords():
    from sparse_probing.activations.hooks import watching

    network, x = Caller(), torch.randn(1, 3, 4)
    site = Site(name="x", layer=0, width=4, module_path="part", side="input")
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        seven = Intervention(site=site, units=(2,), values=np.full((1, 1), 7.0))
        reads = watching(network, [site], lambda _s, values: seen.append(values))
        with intervening(network, [seven], np.array([0])), reads:
            network(x)
    expected = x.clone()
    expected[..., 2] = 7
    assert torch.equal(seen[0], expected)


# 4. heads


def test_the_head_changes_no_fingerprint(model_folders, heads):
    for name, folder in model_folders.items():
        bare = load_model(str(folder), device="cpu")
        assert bare.full is None and bare.objective is None
        assert bare.fingerprint == heads[name].fingerprint
        assert heads[name].full is not None and heads[name].objective == "next token"
        assert heads[name].network is getattr(heads[name].full, heads[name].full.base_model_prefix)


@pytest.mark.parametrize(("tied", "kind"), [(True, "gpt2"), (False, "gpt2"), (True, "llama"), (False, "llama")])
def test_tied_and_missing_heads(tied, kind, tokenizer, tmp_path):
    if kind == "gpt2":
        config = hf.GPT2Config(vocab_size=400, n_embd=16, n_layer=2, n_head=2, n_positions=64, tie_word_embeddings=tied)
        network = shaken(hf.GPT2LMHeadModel(config))
    else:
        config = hf.LlamaConfig(
            vocab_size=400, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
            max_position_embeddings=64, tie_word_embeddings=tied,
        )  # fmt: skip
        network = shaken(hf.LlamaForCausalLM(config))
    for folder, saved in (("full", network), ("base", network.base_model)):
        saved.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
        model, bare = (load_model(str(tmp_path / folder), device="cpu", with_head=w) for w in (True, False))
        assert model.fingerprint == bare.fingerprint and bare.full is None
        if folder == "full" or tied:
            agrees(model, texts_for(model), [Variant(interventions=(change(model, NEURONS, 1, (5,), 0.0),))])
            assert torch.equal(logits_of(model), logits_of(wrap_model(network, tokenizer)))
        else:
            assert model.full is None and model.objective is None
            assert no_head(model) == "the checkpoint has no weights for a language-model head (lm_head.weight)"
            with pytest.raises(InputError, match=r"losses of .* are not defined: the checkpoint has no weights"):
                measure(model, texts_for(model), [])


def test_bert_with_pooler_and_without(words, tmp_path):
    config = hf.BertConfig(**BERT)
    torch.manual_seed(0)
    masked = shaken(hf.BertForMaskedLM(config))
    pooled = hf.BertModel(config)
    pooled.load_state_dict(masked.base_model.state_dict(), strict=False)
    assert pooled.pooler is not None and masked.base_model.pooler is None
    for folder, network in (("masked", masked), ("pooled", pooled)):
        network.save_pretrained(tmp_path / folder)
        words.save_pretrained(tmp_path / folder)
    loaded = {
        (folder, head): load_model(str(tmp_path / folder), device="cpu", with_head=head)
        for folder in ("masked", "pooled")
        for head in (True, False)
    }
    for folder in ("masked", "pooled"):
        assert loaded[folder, True].fingerprint == loaded[folder, False].fingerprint
    assert loaded["masked", True].objective == "masked token"
    assert loaded["pooled", True].full is None
    assert no_head(loaded["pooled", True]).startswith(
        "the checkpoint has no weights for a language-model head (cls.pred"
    )
    with torch.no_grad():
        masked.base_model.encoder.layer[0].output.dense.weight[0, 0] += 1
    masked.save_pretrained(tmp_path / "other")
    words.save_pretrained(tmp_path / "other")
    assert load_model(str(tmp_path / "other"), device="cpu").fingerprint != loaded["masked", True].fingerprint


def test_models_that_are_no_language_models(words, tmp_path):
    t5 = hf.T5ForConditionalGeneration(hf.T5Config(**T5))
    t5.save_pretrained(tmp_path / "t5")
    words.save_pretrained(tmp_path / "t5")
    for model in (load_model(str(tmp_path / "t5"), device="cpu", with_head=True), wrap_model(t5, words)):
        assert model.full is None and model.objective is None
        assert no_head(model).endswith("is no language model by itself")
        with pytest.raises(InputError, match="is no language model by itself"):
            measure(model, texts_for(model), [])
    text_encoder = wrap_model(
        hf.CLIPTextModel(
            hf.CLIPTextConfig(
                vocab_size=300, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
                max_position_embeddings=64, eos_token_id=2, bos_token_id=1, pad_token_id=0,
            )
        ),
        words,
    )  # fmt: skip
    assert text_encoder.full is None and "is no language model" in no_head(text_encoder)


def test_wrapped_models(model_folders, tokenizer, words):
    full = hf.GPTNeoXForCausalLM.from_pretrained(model_folders["gpt_neox"], dtype=torch.float32)
    with_head, without = wrap_model(full, tokenizer), wrap_model(full.gpt_neox, tokenizer)
    assert with_head.full is full and with_head.network is without.network and without.full is None
    assert with_head.fingerprint == without.fingerprint
    classifier = hf.BertForSequenceClassification(hf.BertConfig(**BERT))
    assert wrap_model(classifier, words).full is None


def test_a_network_with_a_head_for_more_than_words(words):
    """BertForPreTraining names its logits otherwise: its loss is taken, or it counts as a model without one."""
    torch.manual_seed(0)
    model = wrap_model(shaken(hf.BertForPreTraining(hf.BertConfig(**BERT))), words)
    if model.full is not None:
        assert measure(model, texts_for(model), []).loss.shape[0] == 1


def test_bert_as_a_decoder_predicts_the_next_token(words):
    config = hf.BertConfig(**BERT, is_decoder=True)
    torch.manual_seed(0)
    model = wrap_model(shaken(hf.BertLMHeadModel(config)), words)
    assert model.objective == "next token"
    agrees(model, texts_for(model), [Variant(interventions=(change(model, NEURONS, 1, (5,), 0.0),))])


def test_the_device_of_a_network_whose_map_is_with_its_head(model_folders, tokenizer):
    """A device map leaves weights elsewhere (meta tensors until they are needed): token ids go where the map says."""
    pytest.importorskip("accelerate")
    from accelerate import cpu_offload

    full: Any = hf.GPTNeoXForCausalLM.from_pretrained(model_folders["gpt_neox"], dtype=torch.float32)
    cpu_offload(full, execution_device=torch.device("cpu"))
    full.hf_device_map = {"": "cpu"}
    assert wrap_model(full, tokenizer).device.type == "cpu"


# unit statistics


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama"])
def test_unit_statistics_by_hand(name, heads):
    model, texts = heads[name], texts_for(heads[name])
    sites = find_units(model, NEURONS, [0, 2])
    flags = [t.labelled if t.labelled is not None else np.ones(len(t.tokens), bool) for t in texts]
    found = unit_statistics(
        model, [t.tokens for t in texts], flags, sites, n_donors=5, rng=np.random.default_rng(0)
    )  # fmt: skip
    for site in sites:
        values = []
        for text in texts:
            seen: list[torch.Tensor] = []
            forward(model, [text.tokens], [site], lambda _s, v, seen=seen: seen.append(v[0].clone()))
            values.append(seen[0][: len(text.tokens)].numpy())
        inside = np.concatenate([v[f] for v, f in zip(values, flags, strict=True)])
        made = found[site]
        np.testing.assert_allclose(made.mean, inside.mean(axis=0), rtol=0, atol=1e-5)
        np.testing.assert_allclose(made.active, (inside > 0).mean(axis=0), rtol=0, atol=1e-12)
        places = list(zip(made.donor_sequence.tolist(), made.donor_position.tolist(), strict=True))
        assert len(set(places)) == 5 and all(flags[s][p] for s, p in places)
        np.testing.assert_allclose(made.donors, [values[s][p] for s, p in places], rtol=0, atol=1e-5)
        module: Any = model.network.get_submodule(site.module_path)
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
        np.testing.assert_allclose(made.output_norm, [float(weight[:, u].norm()) for u in range(site.width)], rtol=1e-5)
    residual = find_units(model, "resid.post", [1])[0]
    np.testing.assert_array_equal(output_norms(model, residual), np.ones(16))
    few = unit_statistics(
        model, [texts[0].tokens], [np.arange(5) < 2], sites[:1], n_donors=99, rng=np.random.default_rng(0)
    )  # fmt: skip
    assert len(few[sites[0]].donors) == 2


# 7. bad input


SITE = Site(name=NEURONS, layer=3, width=48, module_path="x", side="input")


@pytest.mark.parametrize(
    ("units", "said"), [((48,), "unit 48 "), ((-1,), "unit -1 "), ((0, 99), "unit 99 "), ((), r"unit \(none\) ")]
)
def test_units_that_are_not_there(units, said):
    with pytest.raises(InputError, match=said + r"cannot be changed: layer 3 has units 0 to 47 at mlp\.neurons\."):
        Intervention(site=SITE, units=units, values=np.zeros((1, len(units))))


@pytest.mark.parametrize("values", [[[np.nan]], [[np.inf]], [[0.0], [-np.inf]], np.zeros((0, 1))])
def test_values_that_are_no_numbers(values):
    with pytest.raises(InputError, match="can only be set to a finite number"):
        Intervention(site=SITE, units=(1,), values=np.array(values))


def test_no_head_is_a_sentence(tiny):
    with pytest.raises(InputError, match=r"losses of .* are not defined: .*head"):
        measure(tiny, texts_for(tiny), [])


@pytest.fixture(autouse=True)
def _nothing_stays(heads) -> Iterator[None]:
    yield
    for model in heads.values():
        assert traces(model) == []
    assert effects.Replay is replay.Replay
