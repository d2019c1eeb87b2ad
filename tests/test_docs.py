"""Documentation cannot go stale: its examples run, its links lead somewhere, every table and source is described."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from tokenizers import Tokenizer, processors
from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

from sparse_probing.activations.batches import TOKENS_PER_BATCH
from sparse_probing.activations.extract import BYTES_PER_SHARD, TOKENS_PER_SHARD
from sparse_probing.activations.shards import STORED_TYPES
from sparse_probing.activations.site_names import HOOK_NAMES
from sparse_probing.activations.sites import SITES
from sparse_probing.config import DataConfig, RunConfig
from sparse_probing.datasets.hugging_face import HUB
from sparse_probing.datasets.sources import SOURCES
from sparse_probing.datasets.sources.demo_corpus import documents_of
from sparse_probing.results.verdict import DEDICATED_F1, FEW, FOUND_F1
from tests.test_text_format import CHATML

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_readme_example_runs_in_at_most_ten_lines(tmp_path, monkeypatch):
    """Its CSV: two columns, 500 rows, here *is the paragraph English or German?* in place of a sentiment."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    texts = [
        (d.text, int(d.labels["en"]))
        for d in documents_of("natural language").documents
        if d.labels["en"] or d.labels["de"]
    ]
    with open(tmp_path / "reviews.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "sentiment"])
        writer.writerows(texts)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    findings = pl.read_parquet(tmp_path / "runs/reviews/findings.parquet")
    assert findings["f1"][0] > 0.95


def test_activations_example_runs_and_the_page_names_everything(capsys):
    page = (ROOT / "docs/activations.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    scope: dict[str, object] = {}
    exec(compile(code, "activations.md", "exec"), scope)
    assert re.match(r"\(\d+, 1024\)\n\[", capsys.readouterr().out)
    for name in (*SITES, *HOOK_NAMES):
        if name not in ("hook_in", "hook_out", "attn.hook_out", "mlp.hook_out"):  # TransformerLens 3 renamed these
            assert f"`{name}`" in page, name
    for name in STORED_TYPES:
        assert f"`{name}`" in page
    assert f"{TOKENS_PER_SHARD:,} tokens" in page and f"{BYTES_PER_SHARD // 2**20} MiB" in page
    assert all(f"{tokens:,}" in page for tokens in TOKENS_PER_BATCH.values())


def test_exact_example_runs(tmp_path, capsys):
    page = (ROOT / "docs/exact.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    scope: dict[str, object] = {"tmp": tmp_path}
    exec(compile(code, "exact.md", "exec"), scope)
    out = capsys.readouterr().out
    assert "[ 3  7 11] optimal" in out
    assert "7 [ 3 11 20] +" in out, "the shadow stands in"


def test_texts_example_prints_what_the_page_says(model_folders, tokenizer, tmp_path, capsys):
    page = (ROOT / "docs/texts.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    (printed,) = re.findall(r"this prints\n\n```\n(.*?)```", page, re.S)
    network = GPTNeoXForCausalLM.from_pretrained(model_folders["gpt_neox"])
    network.resize_token_embeddings(410)
    network.save_pretrained(tmp_path / "m")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.ByteLevel(trim_offsets=False)  # it names a BOS and does not add it
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", chat_template=CHATML).save_pretrained(
        tmp_path / "m"
    )
    exec(compile(code, "texts.md", "exec"), {"folder": str(tmp_path / "m")})
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_in_the_docs_use_real_options():
    options = {f"--{name.replace('_', '-')}" for name in RunConfig.model_fields} | {"--config", "--dry-run"}
    data = {f"--{name.replace('_', '-')}" for name in DataConfig.model_fields} | {
        "--config",
        "--html",
        "--n",
        "--out",
        "--to",
    }
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for command in re.findall(r"^sprobe run .*$", text, re.M):
            assert set(re.findall(r"--[a-z-]+", command)) <= options, command
        for command in re.findall(r"^sprobe datasets .*$", text, re.M):
            assert set(re.findall(r"--[a-z-]+", command)) <= data, command
    named = set(re.findall(r"`(--[a-z-]+)", (ROOT / "docs/datasets.md").read_text(encoding="utf-8")))
    assert named <= data, named - data


def test_own_labels_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/datasets.md").read_text(encoding="utf-8"), re.S)
    exec(compile(code, "datasets.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "token [(3, 7), (6, 10)] document"
    assert second == "Ada Lovelace slept (Span(start=0, end=12, label='PER'),)"


def test_every_public_data_set_and_every_feature_count_is_in_the_docs():
    page = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    for hub in HUB.values():
        assert f"hf:{hub.name}" in page and hub.licence in page
    counts = (ROOT / "docs/paper-features.md").read_text(encoding="utf-8")
    for name, source in SOURCES.items():
        assert f"## {name.replace('-', ' ')}" in counts
        assert all(f"| `{feature}` |" in counts for feature in source.features)


def test_every_source_and_every_run_file_is_documented():
    datasets = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    names = [name for arg in get_args(RunConfig.model_fields["source"].annotation) for name in get_args(arg)]
    assert set(SOURCES) | {"demo"} == set(names)
    for name in names:
        assert f"`{name}`" in datasets
    folder = (ROOT / "docs/run-folder.md").read_text(encoding="utf-8")
    for name in ("findings", "probes", "neurons", "baselines", "examples", "histograms"):
        assert f"`{name}.parquet`" in folder


def test_verdict_thresholds_in_the_docs_are_those_in_the_code():
    method = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    assert f"test F1 {FOUND_F1:.2f}" in method
    assert f"reaches F1 {DEDICATED_F1:.2f}" in method
    assert f"at most {FEW} neurons" in method


def test_every_room_is_in_the_architecture_page():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "src/sparse_probing").iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert f"{path.name} " in page
        elif path.is_dir() and (path / "__init__.py").exists():
            assert f"{path.name}/" in page
