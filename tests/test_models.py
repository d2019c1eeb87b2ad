"""Loading: local folders, precisions, device maps, encoders, quantised maps; and what goes wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CTRLTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from sparse_probing.activations.batches import forward
from sparse_probing.activations.effects import ScoredText, measure
from sparse_probing.activations.extract import extract, find_units
from sparse_probing.activations.generate import generate
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import load_model, model_sites, wrap_model
from sparse_probing.activations.roles import linear_shape
from sparse_probing.activations.sites import find_sites
from sparse_probing.cli.main import main
from sparse_probing.datasets.unlabelled import every_token
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.records import Site

from .conftest import SENTENCES


def neurons(model: LoadedModel, layer: int = 2, ids: tuple[int, ...] = (5, 9, 30, 17)) -> np.ndarray:
    found: list[torch.Tensor] = []
    forward(
        model, [np.array(ids)], find_units(model, "mlp.neurons", [layer]), lambda _s, v: found.append(v.float().cpu())
    )
    return found[0].numpy()


def test_untrained_twin_is_seeded_and_differs_from_the_model(tiny, model_folders):
    folder = str(model_folders["gpt_neox"])
    first, again, other = (load_model(folder, device="cpu", random_weights_seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert len({first.fingerprint, other.fingerprint, tiny.fingerprint}) == 3


def test_precision(model_folders):
    folder = str(model_folders["llama"])
    exact = neurons(load_model(folder, device="cpu"))  # auto: float32 on a CPU
    for dtype, tolerance in (("float32", 0.0), ("bfloat16", 0.1), ("float16", 0.02)):
        model = load_model(folder, device="cpu", dtype=dtype)
        assert model.network.dtype == getattr(torch, dtype)
        assert np.abs(neurons(model) - exact).max() <= tolerance * np.abs(exact).max()


def test_a_model_in_memory(model_folders, tokenizer):
    network = LlamaForCausalLM.from_pretrained(model_folders["llama"], dtype=torch.float32)
    model = wrap_model(network, tokenizer, "mine")
    loaded = load_model(str(model_folders["llama"]), device="cpu")
    assert model.network is network.model and model.name == "mine"
    np.testing.assert_array_equal(neurons(model), neurons(loaded))
    assert model.fingerprint == loaded.fingerprint


def test_a_device_map_leaves_the_numbers_as_they_are(model_folders, tmp_path):
    folder = str(model_folders["gpt_neox"])
    plain = load_model(folder, device="cpu")
    mapped = load_model(folder, device="cpu", device_map={"": "cpu"})
    assert mapped.fingerprint == plain.fingerprint
    np.testing.assert_array_equal(neurons(mapped), neurons(plain))


@pytest.mark.filterwarnings("ignore")
def test_weights_that_a_device_map_left_on_disk_are_read_and_hashed(model_folders, tmp_path, tokenizer):
    from accelerate import cpu_offload

    folder = str(model_folders["gpt_neox"])
    plain = load_model(folder, device="cpu")
    network = load_model(folder, device="cpu").network
    cpu_offload(network, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in network.parameters())
    network.hf_device_map = {"": "cpu"}  # pyright: ignore[reportArgumentType]
    mapped = wrap_model(network, tokenizer)
    assert mapped.fingerprint == plain.fingerprint and mapped.device.type == "cpu"
    np.testing.assert_array_equal(neurons(mapped), neurons(plain))


def test_a_device_map_without_accelerate_is_a_sentence(model_folders, monkeypatch):
    def needs_accelerate(*_arguments: Any, **_named: Any) -> None:
        raise ValueError("Using a `device_map` requires `accelerate`. Install it with pip install accelerate")

    monkeypatch.setattr("sparse_probing.activations.models.AutoModel.from_pretrained", needs_accelerate)
    with pytest.raises(
        PrerequisiteError, match=r"need the package accelerate: pip install 'sparse-probing\[multi-device\]'"
    ):
        load_model(str(model_folders["llama"]), device_map="auto")


def test_a_missing_package_of_a_quantised_checkpoint_is_a_sentence(model_folders, tmp_path):
    shutil.copytree(model_folders["llama"], tmp_path / "m")
    settings = json.loads((tmp_path / "m" / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "m" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(PrerequisiteError, match=r"needs a package that is not installed: .*bitsandbytes"):
        load_model(str(tmp_path / "m"), device="cpu")


class Int8Linear(torch.nn.Module):
    """A quantised linear map as libraries write them: not an `nn.Linear`, but with its two sizes."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight.detach() / self.scale).round().to(torch.int8))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.weight, torch.Tensor)
        return torch.nn.functional.linear(x, self.weight * self.scale, self.bias)


def test_quantised_linear_maps_are_found_by_their_sizes(model_folders, tokenizer, tiny):
    network = load_model(str(model_folders["gpt_neox"]), device="cpu").network
    for block in network.layers:  # pyright: ignore[reportGeneralTypeIssues]
        for owner, name in ((block.mlp, "dense_4h_to_h"), (block.mlp, "dense_h_to_4h"), (block.attention, "dense")):
            setattr(owner, name, Int8Linear(getattr(owner, name)))
    model = wrap_model(network, tokenizer)
    assert linear_shape(network.get_submodule("layers.0.mlp.dense_4h_to_h")) == (48, 16)
    assert model.sites.found == tiny.sites.found
    exact, found = neurons(tiny), neurons(model)
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


# encoders


def word_pieces() -> PreTrainedTokenizerFast:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *dict.fromkeys(w for s in SENTENCES for w in s.replace(".", " ").split()),
    ]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )


@pytest.mark.parametrize("asks", ["nothing", "padding", "padding left", "fixed length", "truncation"])
def test_encoders_read_texts_between_cls_and_sep(tmp_path, asks):
    """Whatever the tokenizer's file asks for: with padding, the last id of a short text is no [SEP]."""
    torch.manual_seed(0)
    tokenizer = word_pieces()
    if asks.startswith("padding"):
        side = "left" if asks.endswith("left") else "right"
        tokenizer.backend_tokenizer.enable_padding(direction=side, pad_id=0, pad_token="[PAD]", pad_to_multiple_of=8)
    if asks == "fixed length":
        tokenizer.backend_tokenizer.enable_padding(pad_id=0, pad_token="[PAD]", length=20)
    if asks == "truncation":
        tokenizer.backend_tokenizer.enable_truncation(max_length=2)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    BertModel(BertConfig(vocab_size=200, max_position_embeddings=32, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    assert (written["padding"] is not None, written["truncation"] is not None) == (
        asks in {"padding", "padding left", "fixed length"},
        asks == "truncation",
    )
    model = load_model(str(tmp_path), device="cpu")
    assert (model.tokenizer.front, model.tokenizer.behind) == ((2,), (3,))
    rows = every_token(SENTENCES[:3], model.tokenizer, window=32)
    expected = [word_pieces()(text).input_ids for text in SENTENCES[:3]]
    for sequence in range(3):
        begin, end = rows.sequence_starts[sequence : sequence + 2]
        assert rows.tokens[begin:end].tolist() == expected[sequence]
        assert rows.char_starts[begin] == rows.char_starts[end - 1] == -1
    assert rows.n_rows == sum(len(ids) - 2 for ids in expected)
    store = extract(model, rows, find_units(model, "resid.post"), cache=tmp_path / "cache", dtype="float32")[
        "resid.post"
    ]
    with torch.no_grad():
        hidden = model.network(torch.tensor([expected[0]]), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(store.read(1)[: len(expected[0]) - 2], hidden[2][0, 1:-1], atol=1e-5)


def test_robertas_context_counts_from_its_padding_token(tokenizer):
    config = RobertaConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=20, pad_token_id=1,
    )  # fmt: skip
    model = wrap_model(RobertaModel(config), tokenizer)
    assert model.context == 18
    assert neurons(model, 0, tuple(range(3, 21))).shape == (1, 18, 40)


# what goes wrong


def test_folder_that_is_no_model(tmp_path):
    with pytest.raises(InputError, match="is no model"):
        load_model(str(tmp_path))
    with pytest.raises(InputError, match="neither a local model folder nor a hub model"):
        load_model(str(tmp_path / "nothing-here"))


def test_a_tokenizer_without_offsets_says_which_one_to_use(model_folders, tmp_path):
    shutil.copytree(model_folders["llama"], tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "m" / name).unlink()
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "a</w>": 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    slow = CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    slow.save_pretrained(tmp_path / "m")
    with pytest.raises(
        InputError,
        match=r"\(CTRLTokenizer\) reports no character offsets: put a fast one \(.*tokenizer.json\) for llama models",
    ):
        load_model(str(tmp_path / "m"), device="cpu")


def test_neurons_may_be_fewer_than_the_residual_stream_is_wide(model_folders, tmp_path):
    settings = json.loads((model_folders["gpt_neox"] / "config.json").read_text())
    settings["intermediate_size"] = 8
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert [site.width for site in model_sites(str(tmp_path)).named("mlp.neurons")] == [8] * 3


def test_a_model_without_blocks(tokenizer):
    class Flat(torch.nn.Module):
        config = BertConfig()

    with pytest.raises(
        InputError, match=r"units of 'flat' cannot be found: it has no stack of equal blocks \(architecture Flat\)"
    ):
        find_sites(Flat(), "flat")


def test_declared_width_wins_over_a_wider_attention(model_folders, tmp_path):
    settings = json.loads((model_folders["llama"] / "config.json").read_text())
    settings |= {"head_dim": 64, "intermediate_size": 56}  # attention output is now 128 wide, wider than the MLP
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found = model_sites(str(tmp_path)).named("mlp.neurons")
    assert [site.module_path for site in found] == [f"layers.{i}.mlp.down_proj" for i in range(3)]


def test_cuda_where_there_is_none(model_folders):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(InputError, match=r"device 'cuda' cannot be used here .*: try --device cpu"):
        load_model(str(model_folders["llama"]), device="cuda")


def test_site_is_plain_data():
    site = Site(name="mlp.out", layer=1, width=4, module_path=str(Path("a")), side="output")
    assert hash(site) == hash(Site(name="mlp.out", layer=1, width=4, module_path="a", side="output"))


@pytest.fixture
def model_with_code(model_folders, tmp_path, monkeypatch) -> Path:
    """A model whose configuration, network and tokenizer are in a Python file beside them; when that runs, `it-ran` is there."""
    folder = tmp_path / "m"
    shutil.copytree(model_folders["gpt_neox"], folder)
    (folder / "mine.py").write_text(
        "from pathlib import Path\n"
        "from transformers import GPTNeoXConfig, GPTNeoXModel, PreTrainedTokenizerFast\n"
        f"Path({str(tmp_path / 'it-ran')!r}).touch()\n"
        "class MyConfig(GPTNeoXConfig):\n    model_type = 'mine'\n"
        "class MyModel(GPTNeoXModel):\n    config_class = MyConfig\n"
        "class MyTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))  # nobody may take this for an answer
    return folder


def change(path: Path, **values: Any) -> None:
    settings = json.loads(path.read_text()) | values
    path.write_text(json.dumps(settings))


def test_code_of_a_model_runs_only_when_that_is_asked_for(model_with_code, tmp_path, capsys):
    folder, ran = model_with_code, tmp_path / "it-ran"
    config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
    change(tokenizer, tokenizer_class="MyTokenizer", auto_map={"AutoTokenizer": [None, "mine.MyTokenizer"]})
    change(config, model_type="mine", auto_map={"AutoConfig": "mine.MyConfig", "AutoModel": "mine.MyModel"})
    with pytest.raises(InputError, match=r"'.*/m' needs program code that comes with it .*: add --trust-remote-code"):
        load_model(str(folder), device="cpu")
    with pytest.raises(SystemExit, match="2"):
        main(["sites", str(folder)])
    assert "needs program code that comes with it" in capsys.readouterr().err
    assert not ran.exists()
    main(["sites", str(folder), "--trust-remote-code"])
    said = capsys.readouterr()
    assert ran.exists() and "mlp.neurons" in said.out
    assert (
        said.err
        == "warning: --trust-remote-code is on: program code that comes with the model runs here with all your rights.\n"
    )
    model = load_model(str(folder), device="cpu", trust_remote_code=True)
    assert type(model.network).__name__ == "MyModel"
    twin = load_model(str(folder), device="cpu", random_weights_seed=0, trust_remote_code=True)
    assert twin.fingerprint != model.fingerprint


def test_code_of_a_model_that_transformers_knows_is_not_run(model_with_code, tmp_path):
    auto_map = {"AutoConfig": "mine.MyConfig", "AutoModel": "mine.MyModel"}
    change(model_with_code / "config.json", auto_map=auto_map)
    load_model(str(model_with_code), device="cpu")
    assert not (tmp_path / "it-ran").exists()


class Evil:
    """A pickle of this makes a folder when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


def as_bin(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


def resave(folder: Path, names: slice) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: weights[name] for name in sorted(weights)[names]}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path, n_bytes: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:n_bytes])


WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda f: cut(f, -100), r"model.safetensors is damaged \(SafetensorError: .*not fully covered"),
    "empty": (lambda f: cut(f, 0), r"model.safetensors is damaged \(SafetensorError: .*too small"),
    "gone": (lambda f: (f / "model.safetensors").unlink(), "no file named model.safetensors"),
    "one lost": (lambda f: resave(f, slice(0, -1)), "1 of its weights is not in its files"),
    "evil": (lambda f: as_bin(f, Evil(f / "it-ran")), r"its .bin file is damaged or holds more than tensors"),
    "evil pickle": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(f / "it-ran")))),
        r"its .bin file is damaged or holds more than tensors",
    ),
    "a list": (lambda f: as_bin(f, [1, 2]), "TypeError: "),
    "foreign tensors": (lambda f: as_bin(f, {"a": torch.zeros(3)}), "of its weights are not in its files"),
    "deep config": (lambda f: (f / "config.json").write_text("[" * 100_000), "recursion"),
    "tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "KeyError: 'added_tokens'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_model_files_are_one_sentence(model_folders, tmp_path, name):
    damage, said = WEIGHTS[name]
    folder = tmp_path / "m"
    shutil.copytree(model_folders["gpt_neox"], folder)
    damage(folder)
    with pytest.raises(InputError, match=rf"'.*/m' cannot be loaded: .*{said}") as caught:
        load_model(str(folder), device="cpu")
    assert "\n" not in str(caught.value) and not (folder / "it-ran").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hidden_size", -16, "states hidden_size -16, which is beyond any model"),
        ("hidden_size", 10**12, "states hidden_size 1000000000000, which"),
        ("hidden_size", "sixteen", "expected int, got str"),
        ("num_hidden_layers", 10**9, "states num_hidden_layers 1000000000"),  # would fill the memory with blocks
        ("num_attention_heads", 3, "not a multiple of the number of attention heads|not divisible"),
        ("num_attention_heads", 0, "ZeroDivisionError"),
        ("hidden_act", "nope", "KeyError: 'nope'"),
        ("dtype", "float7", "no attribute 'float7'"),
    ],
)
def test_absurd_configurations_are_one_sentence(model_folders, tmp_path, key, value, said):
    shutil.copytree(model_folders["gpt_neox"], tmp_path / "m")
    change(tmp_path / "m" / "config.json", **{key: value})
    for read in (model_sites, load_model):
        with pytest.raises(InputError, match=rf"'.*/m' cannot be loaded: .*({said})") as caught:
            read(str(tmp_path / "m"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["meta", "nonsense", "", "hpu", "mps:99"])
def test_devices_that_cannot_be_used(model_folders, device):
    with pytest.raises(InputError, match=rf"device {device!r} cannot be used here \(.*\): try --device cpu") as caught:
        load_model(str(model_folders["gpt_neox"]), device=device)
    assert len(str(caught.value)) < 400


def test_a_tokenizer_of_another_model(tiny, tmp_path):
    rows = every_token(SENTENCES[:1], tiny.tokenizer, window=32)
    rows.tokens[3] = 400
    with pytest.raises(InputError, match="gives token 400, but the model knows 400 tokens only"):
        extract(tiny, rows, find_units(tiny), cache=tmp_path)


def test_a_tokenizer_larger_than_the_embedding_is_refused_by_every_pass(model_folders, tmp_path):
    """It knows 400 tokens; the model has 100 of them only."""
    network = LlamaForCausalLM.from_pretrained(model_folders["llama"])
    network.resize_token_embeddings(100)
    network.save_pretrained(tmp_path)
    shutil.copy(model_folders["llama"] / "tokenizer.json", tmp_path)
    model = load_model(str(tmp_path), device="cpu", with_head=True)
    said = "gives token [0-9]+, but the model knows 100 tokens only: they do not belong together"
    ids = np.array([3, 250, 7])
    text = ScoredText(tokens=ids, targets=ids, number=0, labelled=np.ones(3, dtype=bool))
    for read in (
        lambda: neurons(model, ids=(3, 250, 7)),
        lambda: measure(model, [text], []),
        lambda: generate(model, SENTENCES[0], seed=0),
    ):
        with pytest.raises(InputError, match=said):
            read()


def test_a_precision_that_the_device_lacks(model_folders, tokenizer):
    network: Any = LlamaForCausalLM.from_pretrained(model_folders["llama"])
    network.to(torch.float8_e4m3fn)
    with pytest.raises(
        InputError, match=r"has weights in float8_e4m3fn, which device cpu does not compute with \(.*\): use --dt"
    ):
        wrap_model(network, tokenizer)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"model_type": "llama", "hidden_size": 64},
            "does not state num_hidden_layers, which a model of type llama needs",
        ),
        ({"model_type": "gpt2", "n_layer": 2}, "does not state n_embd, which a model of type gpt2 needs"),
        (
            {"model_type": "cat"},
            "the installed transformers does not know its type 'cat': install a newer transformers",
        ),
        ({"hidden_size": 16}, r"its config.json does not say what type of model it is \(model_type\)"),
        (
            {"model_type": "fsmt", "encoder_layers": 2, "d_model": 64},
            r"models of type fsmt cannot be read: their encoder \(FSMTEncoder\) is no model",
        ),
        (
            {"model_type": "musicgen", "decoder": {}},
            r"several text models \['text_encoder', 'decoder'\], and which of them",
        ),
        ({"model_type": "trocr", "decoder_layers": 2, "d_model": 64}, "transformers has no text model for its type"),
        ({"model_type": "encoder-decoder"}, "cannot be loaded: "),
        ({"model_type": "gemma4_assistant", "text_config": {}}, "cannot be loaded: "),
    ],
    ids=lambda value: value.get("model_type", "none") if isinstance(value, dict) else "",
)
def test_configurations_of_which_no_model_can_be_made(tmp_path, settings, said):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=said) as caught:
        model_sites(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_without_tokenizer(model_folders, tmp_path):
    shutil.copytree(model_folders["llama"], tmp_path / "m", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    with pytest.raises(
        InputError, match=r"the tokenizer of '.*' cannot be loaded: its files hold no tokenizer .*: put tokenizer.json"
    ):
        load_model(str(tmp_path / "m"), device="cpu")
