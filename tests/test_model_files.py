"""What people hold: adapters, GGUF files, sentence-transformers, checkpoints in parts; and folders that hold something else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM

from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import load_model, model_sites, outline_model
from sparse_probing.cli.main import main
from sparse_probing.config import make_config
from sparse_probing.errors import InputError, PrerequisiteError

from .test_models import neurons

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of peft


def lora(model: Any, seed: int = 0, **options: Any) -> Any:
    """Adapters on all linear maps, with weights that change the model (peft begins with none)."""
    torch.manual_seed(seed)
    adapted: Any = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **options))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    return adapted


@pytest.fixture(scope="module")
def adapter(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on all linear maps of the Llama, trained with its head."""
    folder = tmp_path_factory.mktemp("adapter")
    lora(AutoModelForCausalLM.from_pretrained(model_folders["llama"]), task_type="CAUSAL_LM").save_pretrained(folder)
    return folder


def test_an_adapter_is_merged_into_the_model_that_it_names(adapter, model_folders):
    merged = load_model(str(adapter), device="cpu", with_head=True)
    network = AutoModelForCausalLM.from_pretrained(model_folders["llama"])
    own = lora(network)
    ids = torch.tensor([[5, 9, 30, 17]])
    with torch.no_grad():
        expected, found = (m(ids, output_hidden_states=True) for m in (own.eval(), cast(Any, merged.full)))
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=0)
    plain = load_model(str(model_folders["llama"]), device="cpu")
    assert np.abs(neurons(merged) - neurons(plain)).max() > 0.1
    assert load_model(str(adapter), device="cpu").fingerprint == merged.fingerprint != plain.fingerprint
    assert "lora" not in str(merged.network)


def test_an_adapter_of_a_base_model_and_one_with_another_head(model_folders, tmp_path):
    for seed, (auto, task) in enumerate([(AutoModel, "FEATURE_EXTRACTION"), (AutoModelForCausalLM, "CAUSAL_LM")]):
        folder = tmp_path / task
        lora(auto.from_pretrained(model_folders["gpt_neox"]), seed, task_type=task).save_pretrained(folder)
        found = neurons(load_model(str(folder), device="cpu"))
        own = lora(auto.from_pretrained(model_folders["gpt_neox"]), seed).merge_and_unload()
        own.save_pretrained(tmp_path / f"{task}-merged")
        shutil.copy(model_folders["gpt_neox"] / "tokenizer.json", tmp_path / f"{task}-merged")
        np.testing.assert_allclose(
            found, neurons(load_model(str(tmp_path / f"{task}-merged"), device="cpu")), atol=1e-4
        )


def test_the_base_of_an_adapter_can_be_named(adapter, model_folders, tmp_path, capsys):
    moved = tmp_path / "a"
    shutil.copytree(adapter, moved)
    settings = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "gone/for-ever"}))
    base = str(model_folders["llama"])
    with pytest.raises(InputError, match=r"model below this adapter, 'gone/for-ever', .*: name its folder with --base"):
        load_model(str(moved), device="cpu")
    assert (
        load_model(str(moved), base=base, device="cpu").fingerprint
        == load_model(str(adapter), device="cpu").fingerprint
    )
    main(["sites", str(moved), "--base", base])
    assert "layers.*.mlp.down_proj" in capsys.readouterr().out
    assert make_config({"model": str(moved), "base": base}).identity()["base"] == base
    with pytest.raises(InputError, match="--base belongs to the folder of a PEFT adapter"):
        model_sites(base, base=base)


def test_adapters_that_do_not_fit_are_named(adapter, model_folders, tmp_path, monkeypatch):
    with pytest.raises(
        InputError, match=r"adapter '.*' does not fit the model below it \(Target modules .*\): name the model"
    ):
        load_model(str(adapter), base=str(model_folders["gpt_neox"]), device="cpu")
    network = AutoModelForCausalLM.from_pretrained(model_folders["llama"])
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(network, prompts).save_pretrained(tmp_path / "p")
    with pytest.raises(InputError, match=r"\(.*PROMPT_TUNING\) puts virtual tokens in front"):
        load_model(str(tmp_path / "p"), device="cpu")
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(PrerequisiteError, match=r"needs the package peft: pip install 'sparse-probing\[adapters\]'"):
        load_model(str(adapter), device="cpu")


def test_an_adapter_of_tied_embeddings_has_no_loss(tmp_path, model_folders):
    network = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"])
    config = LoraConfig(target_modules=["wte", "c_fc"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    get_peft_model(network, config).save_pretrained(tmp_path)
    load_model(str(tmp_path), device="cpu")
    with pytest.raises(InputError, match="changes input or output embeddings, which share their weights"):
        load_model(str(tmp_path), device="cpu", with_head=True)


# folders


def same(a: LoadedModel, b: LoadedModel) -> None:
    assert a.fingerprint == b.fingerprint
    np.testing.assert_array_equal(neurons(a), neurons(b))


def test_checkpoints_in_parts_and_bin_files(model_folders, tmp_path, tokenizer):
    plain = load_model(str(model_folders["llama"]), device="cpu")
    network = LlamaForCausalLM.from_pretrained(model_folders["llama"])
    network.save_pretrained(tmp_path / "parts", max_shard_size="30KB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 1
    shutil.copytree(model_folders["llama"], tmp_path / "bin", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(network.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    tokenizer.save_pretrained(tmp_path / "parts")
    for kind in ("parts", "bin"):
        same(load_model(str(tmp_path / kind), device="cpu"), plain)
    part = next((tmp_path / "parts").glob("model-00002*"))
    kept = part.read_bytes()
    part.write_bytes(kept[:-50])
    with pytest.raises(InputError, match=rf"{part.name} is damaged \(SafetensorError: "):
        load_model(str(tmp_path / "parts"), device="cpu")
    part.unlink()
    with pytest.raises(InputError, match=part.name):
        load_model(str(tmp_path / "parts"), device="cpu")


def test_both_layouts_of_sentence_transformers(model_folders, tmp_path):
    plain = load_model(str(model_folders["gpt_neox"]), device="cpu")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    shutil.copytree(model_folders["gpt_neox"], tmp_path / "flat")
    (tmp_path / "flat" / "modules.json").write_text(json.dumps(modules))
    same(load_model(str(tmp_path / "flat"), device="cpu"), plain)
    shutil.copytree(model_folders["gpt_neox"], tmp_path / "old" / "0_Transformer")
    modules[0]["path"] = "0_Transformer"
    (tmp_path / "old" / "modules.json").write_text(json.dumps(modules))
    same(load_model(str(tmp_path / "old"), device="cpu"), plain)
    modules[0]["path"] = "../flat"
    (tmp_path / "old" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"modules.json names no transformer with config.json"):
        load_model(str(tmp_path / "old"), device="cpu")


def test_folders_that_hold_two_models_or_none(model_folders, adapter, tmp_path):
    def refused(name: Path, said: str) -> None:
        for read in (load_model, outline_model):
            with pytest.raises(InputError, match=said):
                read(str(name))

    for place in ("first", "second"):
        shutil.copytree(model_folders["llama"], tmp_path / "two" / place)
    refused(tmp_path / "two", r"holds several models \(first, second\): name that folder, --model .*/two/first'")
    shutil.copytree(adapter, tmp_path / "both")
    shutil.copytree(model_folders["llama"], tmp_path / "both", dirs_exist_ok=True)
    refused(tmp_path / "both", r"two models, a whole one \(model.safetensors\) and an adapter")
    shutil.copytree(model_folders["llama"], tmp_path / "again")
    (tmp_path / "again" / "model.safetensors.index.json").write_text("{}")
    refused(tmp_path / "again", r"two models, one in model.safetensors and one in parts")
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "a.gguf").touch()
    refused(tmp_path / "gguf", r"holds GGUF files \(a.gguf\): name one of them, --model .*a.gguf")
    refused(tmp_path / "first.txt", "neither a local model folder nor a hub model")
    refused(
        model_folders["llama"] / "model.safetensors", rf"is no model: .*: name its folder, '{model_folders['llama']}'"
    )
    shutil.copytree(adapter, tmp_path / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    refused(tmp_path / "empty", r"has no weights: it needs adapter_model.safetensors or adapter_model.bin")
    (tmp_path / "empty" / "adapter_model.bin").touch()
    (tmp_path / "empty" / "adapter_config.json").write_text("{")
    refused(tmp_path / "empty", r"adapter_config.json is not valid JSON")


# GGUF


def written(folder: Path, source: Path, architecture: str = "llama", kind: int = 0) -> Path:
    """A GGUF file with the weights of the tiny Llama and its tokenizer."""
    from gguf import GGUFWriter

    path = folder / "tiny.gguf"
    network = LlamaForCausalLM.from_pretrained(source)
    config: Any = network.config
    writer = GGUFWriter(str(path), architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(3)
    writer.add_feed_forward_length(56)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_vocab_size(400)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]
    pieces = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces + [f"<{i}>" for i in range(len(pieces), 400)])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        r"model.layers.(\d)": r"blk.\1", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for key, value in network.state_dict().items():
        for ours, theirs in names.items():
            key = re.sub(ours, theirs, key)
        if key.endswith(("attn_q.weight", "attn_k.weight")):  # llama.cpp pairs neighbouring coordinates for rotation
            value = value.reshape(2, 2, 4, 16).transpose(1, 2).reshape(16, 16)
        writer.add_tensor(key, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_read(model_folders, tmp_path):
    path = written(tmp_path, model_folders["llama"])
    plain = load_model(str(model_folders["llama"]), device="cpu", with_head=True)
    found = load_model(str(path), device="cpu", with_head=True)
    np.testing.assert_allclose(neurons(found), neurons(plain), atol=1e-5)
    assert found.full is not None and found.context == 64
    again = tmp_path / "elsewhere"
    again.mkdir()
    shutil.copy(path, again / "other.gguf")
    assert load_model(str(again / "other.gguf"), device="cpu").fingerprint == found.fingerprint
    assert outline_model(str(path)).tokenizer.fingerprint() == found.tokenizer.fingerprint()
    load_model(str(path), device="cpu", random_weights_seed=0)


def test_gguf_files_that_cannot_be_read(model_folders, tmp_path, monkeypatch):
    path = written(tmp_path, model_folders["llama"], architecture="cat")
    with pytest.raises(InputError, match=r"GGUF .*architecture cat"):
        load_model(str(path), device="cpu")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"tiny.gguf' cannot be loaded"):
        load_model(str(path), device="cpu")
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"tiny.gguf' cannot be loaded"):
        load_model(str(path), device="cpu")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(PrerequisiteError, match=r"'sparse-probing\[gguf\]'"):
        load_model(str(path), device="cpu")
