"""Names of sites: ours, TransformerLens', module paths; and what a wrong one is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparse_probing.activations.batches import forward
from sparse_probing.activations.extract import find_units
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import model_sites, outline_model
from sparse_probing.activations.site_names import HOOK_NAMES, parse_site
from sparse_probing.activations.sites import OF_EXPERTS, SITES
from sparse_probing.cli.main import main
from sparse_probing.cli.sites import ranges
from sparse_probing.errors import InputError
from sparse_probing.records import Site, unit_name

WIDTHS = {"gpt_neox": 48, "gpt2": 40, "llama": 56}


def values_at(model: LoadedModel, name: str, layers: list[int] | None = None) -> dict[int, torch.Tensor]:
    found: dict[Site, torch.Tensor] = {}
    sites = find_units(model, name, layers)
    forward(model, [np.array([5, 9, 300, 17])], sites, lambda s, v: found.__setitem__(s, v.clone()))
    assert all(values.shape[-1] == site.width for site, values in found.items())
    return {site.layer: values for site, values in found.items()}


@pytest.mark.parametrize(("hook", "name"), HOOK_NAMES.items())
def test_hook_names_mean_our_sites(tiny, hook, name):
    assert find_units(tiny, hook) == find_units(tiny, name)
    assert find_units(tiny, f"blocks.*.{hook}") == find_units(tiny, name)
    assert find_units(tiny, f"blocks.1.{hook}") == find_units(tiny, name, [1])
    assert set(HOOK_NAMES.values()) == set(SITES) - set(OF_EXPERTS)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("layers.*.mlp.dense_4h_to_h:input", "mlp.neurons"),
        ("gpt_neox.layers.*.mlp.dense_4h_to_h:input", "mlp.neurons"),
        ("layers.*.mlp.act", "mlp.neurons"),
        ("layers.*.mlp.act:output", "mlp.neurons"),
        ("layers.*.mlp.dense_h_to_4h", "mlp.pre"),
        ("layers.*.mlp", "mlp.out"),
        ("layers.*.attention", "attn.out"),
    ],
)
def test_module_paths_read_what_they_say(tiny, path, name):
    expected, found = values_at(tiny, name), values_at(tiny, path)
    assert set(found) == {0, 1, 2}
    for layer in found:
        np.testing.assert_array_equal(found[layer], expected[layer])


def test_a_path_with_a_number_is_one_layer(tiny):
    (site,) = find_units(tiny, "layers.2.mlp.act")
    assert (site.name, site.layer, site.width, site.module_path) == ("layers.*.mlp.act", 2, 48, "layers.2.mlp.act")
    assert unit_name(site.name, 2, 7) == "L2.layers.*.mlp.act.7"
    assert unit_name("mlp.neurons", 3, 609) == "L3.N609" and unit_name("resid.post", 3, 17) == "L3.resid.post.17"


@pytest.mark.parametrize(
    "name", ["mlp.neuron", "blocks.1.hook_resid_mid", "layers.1.mlp.nothing", "embed_in", "layers.*.mlp.act:side", ""]
)
def test_unknown_sites_list_what_exists(tiny, name):
    with pytest.raises(
        InputError, match=r"does not exist in .*: it has mlp.neurons, .*, resid.post; a module within a block is"
    ):
        find_units(tiny, name)


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("mlp.neurons", [3], r"layer 3 does not exist: .* has layers 0 to 2"),
        ("mlp.neurons", [-1], "layer -1 does not exist"),
        ("blocks.7.hook_resid_post", None, "layer 7 does not exist"),
        ("layers.7.mlp.act", None, "layer 7 does not exist"),
        ("blocks.1.hook_resid_post", [0, 1], r"layers \[0, 1\] contradict the site, which names layer 1"),
    ],
)
def test_layers_out_of_range(tiny, name, layers, message):
    with pytest.raises(InputError, match=message):
        find_units(tiny, name, layers)


def test_modules_that_give_no_vector_per_token_are_refused(tiny):
    tiny.network.layers[1].attention.register_module("unused", torch.nn.Identity())
    try:
        with pytest.raises(InputError, match=r"layers.1.attention.unused is not used in a forward pass"):
            find_units(tiny, "layers.1.attention.unused")
    finally:
        del tiny.network.layers[1].attention.unused


def test_sites_need_no_weights(model_folders, tmp_path):
    for name, folder in model_folders.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text((folder / "config.json").read_text())
        sites = model_sites(str(tmp_path / name))
        assert [s.width for s in sites.named("mlp.neurons")] == [WIDTHS[name]] * 3
        assert {s.name for s in sites.found} == set(SITES) - set(OF_EXPERTS)


def test_an_outline_has_no_weights_but_everything_else(model_folders):
    outline = outline_model(str(model_folders["llama"]))
    assert all(parameter.is_meta for parameter in outline.network.parameters())
    assert outline.context == 64 and outline.tokenizer.front == (0,)
    assert parse_site("mlp.hook_pre", outline.sites, outline.network).name == "mlp.pre"
    assert [site.width for site in find_units(outline, "layers.*.mlp.act_fn")] == [0, 0, 0]  # unknown without weights


def test_the_command_shows_sites_layers_widths_and_paths(capsys, model_folders):
    main(["sites", str(model_folders["gpt2"])])
    shown = capsys.readouterr().out
    for words in ("mlp.neurons", "0-2", "40", "h.*.mlp.c_proj", "input", "2 heads x 8", "resid.post"):
        assert words in shown
    assert "not here" not in shown


def test_the_command_says_what_is_not_there_and_why(capsys, tmp_path):
    from transformers import MixtralConfig

    MixtralConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    ).save_pretrained(tmp_path)
    main(["sites", str(tmp_path)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "not here: mlp.neurons, mlp.pre, mlp.out." in shown and "is a mixture of experts" in shown
    assert "resid.post" in shown


def test_ranges_by_hand():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8" and ranges([4]) == "4"
