"""Weights that are not in a model's files, have another name or another shape: refused and named, never drawn at random."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from sparse_probing.activations.effects import measure
from sparse_probing.activations.models import load_model, no_head
from sparse_probing.cli.main import main
from sparse_probing.errors import InputError

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}


def _bert() -> BertForMaskedLM:
    return BertForMaskedLM(BertConfig(vocab_size=400, max_position_embeddings=32, **SIZES))


def _t5() -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=40, num_layers=2, num_heads=2))


@pytest.fixture(scope="module")
def folders(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Path]:
    """Five architectures: the three of every test, an encoder with its head, an encoder-decoder."""
    more: dict[str, Callable[[], PreTrainedModel]] = {"bert": _bert, "t5": _t5}
    found = dict(model_folders)
    for name, build in more.items():
        torch.manual_seed(3)
        found[name] = tmp_path_factory.mktemp(name)
        build().save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def with_weights(folder: Path, place: Path, weights: dict[str, torch.Tensor]) -> str:
    """A copy of a model's folder with other weights."""
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(
        {key: value.contiguous() for key, value in weights.items()}, place / "model.safetensors", {"format": "pt"}
    )
    return str(place)


def damaged(rng: random.Random, weights: dict[str, torch.Tensor]) -> tuple[str, dict[str, torch.Tensor]]:
    """One tensor, not of a part that nothing reads, removed, renamed or of another shape."""
    key = rng.choice(sorted(key for key in weights if not re.search(r"pooler|^decoder\.|lm_head|embed_out|cls", key)))
    rest = {name: value for name, value in weights.items() if name != key}
    match rng.choice(["removed", "renamed", "reshaped"]):
        case "renamed":
            parts = key.split(".")
            parts[rng.randrange(len(parts))] += "x"
            rest[".".join(parts)] = weights[key]
        case "reshaped":
            rest[key] = torch.cat([weights[key], weights[key]])
    return key, rest


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama", "bert", "t5"])
def test_a_single_tensor_that_is_wrong_is_named(folders, tmp_path, name):
    weights = weights_of(folders[name])
    for case in range(10):
        key, changed = damaged(random.Random(case), weights)
        place = with_weights(folders[name], tmp_path / str(case), changed)
        with pytest.raises(InputError, match=r"cannot be loaded: ") as caught:
            load_model(place, device="cpu")
        said = str(caught.value)
        assert re.sub(r"^(transformer|gpt_neox|model|bert)\.", "", key) in said and "\n" not in said


def test_the_command_line_names_it_and_ends_with_2(folders, tmp_path, reviews, capsys):
    weights = weights_of(folders["llama"])
    del weights["model.layers.1.mlp.up_proj.weight"]
    place = with_weights(folders["llama"], tmp_path / "m", weights)
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--model", place, "--data", str(reviews), "--label", "german", "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert "1 of its weights is not in its files (layers.1.mlp.up_proj.weight)" in said
    assert not (tmp_path / "run").exists()


def test_many_missing_weights_are_counted(folders, tmp_path):
    kept = {key: value for key, value in weights_of(folders["gpt2"]).items() if ".h.1." not in key}
    place = with_weights(folders["gpt2"], tmp_path / "m", kept)
    said = r"12 of its weights are not in its files \(h.1.attn.c_attn.bias, h.1.attn.c_attn.weight, .* and 9 more\)"
    for with_head in (False, True):
        with pytest.raises(InputError, match=said.replace("h.1", "(transformer.)?h.1")):
            load_model(place, device="cpu", with_head=with_head)


def test_weights_that_the_architecture_would_leave_out_are_named(folders, tmp_path):
    weights = weights_of(folders["llama"])
    bias = {"model.layers.0.self_attn.o_proj.bias": torch.ones(16)}
    with pytest.raises(InputError, match=r"does not have \(.*layers.0.self_attn.o_proj.bias\)"):
        load_model(with_weights(folders["llama"], tmp_path / "bias", weights | bias), device="cpu")
    harmless = {
        "score.weight": torch.ones(2, 16),  # the head of another task
        "model.layers.3.mlp.up_proj.weight": torch.ones(
            56, 16
        ),  # a block beyond the last, as for several tokens at once
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),  # a constant that older versions saved
    }
    plain = load_model(str(folders["llama"]), device="cpu")
    more = load_model(with_weights(folders["llama"], tmp_path / "more", weights | harmless), device="cpu")
    assert more.fingerprint == plain.fingerprint


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "base_model.model.", "module._orig_mod."])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_names_that_a_wrapper_lengthened_are_read_without_it(folders, tmp_path, wrapper, name):
    weights = {wrapper + key: value for key, value in weights_of(folders[name]).items()}
    place = with_weights(folders[name], tmp_path / "m", weights)
    plain = load_model(str(folders[name]), device="cpu", with_head=True)
    found = [load_model(place, device="cpu", with_head=head) for head in (False, True)]
    assert [model.fingerprint for model in found] == [plain.fingerprint] * 2
    assert found[1].full is not None


def test_compiled_blocks_and_bin_files_are_read_too(folders, tmp_path):
    weights = {
        "_orig_mod." + key.replace("layers.1.", "layers.1._orig_mod."): v
        for key, v in weights_of(folders["llama"]).items()
    }
    plain = load_model(str(folders["llama"]), device="cpu")
    place = with_weights(folders["llama"], tmp_path / "m", weights)
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "m" / "pytorch_model.bin")
    assert load_model(place, device="cpu").fingerprint == plain.fingerprint


def test_an_adapter_among_the_weights_says_what_to_do(folders, tmp_path):
    weights = {}
    for key, value in weights_of(folders["llama"]).items():
        weights["base_model.model." + key.replace("q_proj.", "q_proj.base_layer.")] = value
        if "q_proj" in key:
            weights["base_model.model." + key.replace("weight", "lora_A.default.weight")] = torch.ones(2, 16)
    place = with_weights(folders["llama"], tmp_path / "m", weights)
    with pytest.raises(
        InputError, match=r"adapter that was not merged \(.*lora_A.*\): save the model after merge_and_unload"
    ):
        load_model(place, device="cpu")


def test_what_nothing_reads_may_be_missing(tmp_path, tokenizer):
    torch.manual_seed(5)
    network = BertModel(BertConfig(vocab_size=400, max_position_embeddings=32, **SIZES))
    network.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    whole = load_model(str(tmp_path / "whole"), device="cpu", with_head=True)
    weights = {key: v for key, v in weights_of(tmp_path / "whole").items() if not key.startswith("pooler")}
    place = with_weights(tmp_path / "whole", tmp_path / "m", weights)
    assert {load_model(place, device="cpu").fingerprint for _ in range(2)} == {whole.fingerprint}
    assert whole.full is None and "cls.predictions" in no_head(whole)


def test_a_head_is_all_there_or_not_at_all(folders, tmp_path):
    weights = weights_of(folders["bert"])
    del weights["cls.predictions.transform.dense.bias"]
    place = with_weights(folders["bert"], tmp_path / "part", weights)
    load_model(place, device="cpu")
    with pytest.raises(InputError, match=r"head is not complete; 1 of its .*\(cls.predictions.transform.dense.bias\)"):
        load_model(place, device="cpu", with_head=True)
    weights = weights_of(folders["llama"])
    del weights["lm_head.weight"]
    model = load_model(with_weights(folders["llama"], tmp_path / "none", weights), device="cpu", with_head=True)
    with pytest.raises(InputError, match=r"no weights for a language-model head \(lm_head.weight\)"):
        measure(model, [], [])


def test_a_head_of_another_shape(folders, tmp_path):
    weights = weights_of(folders["llama"])
    weights["lm_head.weight"] = weights["lm_head.weight"][:399]
    place = with_weights(folders["llama"], tmp_path / "m", weights)
    with pytest.raises(InputError, match=r"lm_head.weight is 399 x 16 in its files and 400 x 16 by its config.json"):
        load_model(place, device="cpu", with_head=True)
    load_model(place, device="cpu")  # without a loss, the head is not read


def test_tables_of_sines_follow_from_positions_and_need_no_file(tmp_path, tokenizer):
    torch.manual_seed(3)
    config = MarianConfig(
        vocab_size=400, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=64, pad_token_id=0, decoder_start_token_id=0,
        eos_token_id=2, bos_token_id=1, forced_eos_token_id=2,
    )  # fmt: skip
    network = MarianMTModel(config)
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert not any("embed_positions" in name for name in load_file(tmp_path / "model.safetensors"))
    loaded = load_model(str(tmp_path), device="cpu").network
    table = network.model.encoder.embed_positions.weight
    torch.testing.assert_close(loaded.get_submodule("embed_positions").weight, table)
