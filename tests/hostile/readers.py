"""Data files: CSV, TSV, JSONL, Parquet, CoNLL-U, packed or not, under every way of labelling; rows and preview for a model."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import zstandard

from sparse_probing.activations.loaded import ModelOutline
from sparse_probing.activations.models import outline_model
from sparse_probing.config import make_data_config
from sparse_probing.datasets.text_folder import read_texts
from sparse_probing.inputs import build_dataset, labelled_text_of
from sparse_probing.records import task_rng
from sparse_probing.studies.datasheet.preview import preview_rows
from tests.hostile.engine import Target, changed_bytes, changed_json, odd

WORDS = ("sea", "harbour", "bread", "42", "oven", "gull", "été", "Straße", "mast", "flour", "7", "tide")
SMALL = {"window": 32, "skip_first": 1, "min_rows": 1}
TREEBANK = """# newdoc id = {i}
# sent_id = {i}-0001
# text = The {a} sees del mar
1\tThe\tthe\tDET\tDT\tDefinite=Def\t2\tdet\t_\t_
2\t{a}\t{a}\tNOUN\tNN\tNumber=Sing\t3\tnsubj\t_\t_
3\tsees\tsee\tVERB\tVB\tTense=Pres|Person=3\t0\troot\t_\t_
4-5\tdel\t_\t_\t_\t_\t_\t_\t_\t_
4\tde\tde\tADP\tIN\t_\t6\tcase\t_\t_
5\tel\tel\tDET\tDT\t_\t6\tdet\t_\t_
6\tmar\tmar\tNOUN\tNN\tNumber=Sing\t3\tobl\t_\tSpaceAfter=No

"""
WAYS: tuple[dict[str, Any], ...] = (
    {"label": ("y",)},
    {"label": ("kind",)},
    {"label": ("x",)},
    {"number": ("x",)},
    {"label": ("y", "kind"), "group_column": "g"},
    {"label": ("y",), "pair_column": "g"},
    {"label": ("y",), "split_column": "s"},
    {"label": ("y",), "max_documents": 12},
    {"spans_column": "spans"},
    {"spans_column": "spans", "rows": "spans"},
    {"tags_column": "tags", "tokens_column": "words"},
    {"label_regex": (r"digit=\d",)},
    {"template": ("{kind} eats {text}.",), "label": ("y",)},
    {"template": ("{x} and {kind}",), "label": ("y",), "number": ("x",), "target": "x"},
)
TREEBANK_WAYS: tuple[dict[str, Any], ...] = (
    {"label": ("upos",)},
    {"label": ("feats.Tense", "deprel")},
    {"label": ("xpos",), "rows": "spans"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Good files by ending, and what a model brings."""

    rows: list[dict[str, Any]]
    files: dict[str, bytes]
    model: ModelOutline


def rows() -> list[dict[str, Any]]:
    """Twenty-four rows with every kind of column."""
    found = []
    for i in range(24):
        words = [WORDS[(i + j) % len(WORDS)] for j in range(6)]
        text = " ".join(words)
        spans = [{"start": 0, "end": len(words[0]), "label": "first" if i % 2 else "other"}]
        tags = ["B-A", "I-A", "O", "B-B", "O", "O"] if i % 2 else ["O", "B-B", "O", "O", "B-A", "O"]
        split = ("train", "valid", "test")[i % 3]
        found.append(
            {
                "text": text,
                "y": i % 2,
                "kind": ("red", "green", "blue")[i % 3],
                "x": i * 0.37,
                "g": f"g{i // 2}",
                "s": split,
                "spans": spans,
                "words": words,
                "tags": tags,
            }
        )
    return found


def prepare(folder: Path) -> Seeds:
    """The good files."""
    folder.mkdir(parents=True, exist_ok=True)
    good = rows()
    flat = [row | {name: json.dumps(row[name]) for name in ("spans", "words", "tags")} for row in good]
    table = pl.DataFrame(good)
    table.write_parquet(folder / "a.parquet")
    pl.DataFrame(flat).write_csv(folder / "a.csv")
    pl.DataFrame(flat).write_csv(folder / "a.tsv", separator="\t")
    files = {path.suffix: path.read_bytes() for path in sorted(folder.iterdir())}
    files[".jsonl"] = "".join(json.dumps(row) + "\n" for row in good).encode()
    files[".conllu"] = "".join(TREEBANK.format(i=i, a=WORDS[i % len(WORDS)]) for i in range(24)).encode()
    return Seeds(rows=good, files=files, model=outline_model("demo"))


def packed(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Perhaps packed, and the ending that says so."""
    match rng.randrange(4):
        case 0:
            return gzip.compress(content, 1), ".gz"
        case 1:
            return zstandard.ZstdCompressor(level=1).compress(content), ".zst"
    return content, ""


def changed_rows(rng: random.Random, good: Sequence[dict[str, Any]]) -> list[Any]:
    """Rows of which some hold other values, or a column holds the same odd value throughout."""
    if rng.random() < 0.3:
        column, value = rng.choice(list(good[0])), odd(rng)
        return [row | {column: value} for row in good]
    return [changed_json(rng, row) if rng.random() < 0.2 else row for row in good]


def case(rng: random.Random, seeds: Seeds, folder: Path) -> None:
    """One file, read, made to rows and shown."""
    ending = rng.choice(list(seeds.files))
    content = seeds.files[ending]
    if ending == ".jsonl" and rng.random() < 0.6:
        content = "".join(json.dumps(row) + "\n" for row in changed_rows(rng, seeds.rows)).encode()
        if rng.random() < 0.5:
            content = changed_bytes(rng, content)
    else:
        content = changed_bytes(rng, content)
    pack = ""
    if ending != ".parquet":
        content, pack = packed(rng, content)
        if pack and rng.random() < 0.3:
            content = changed_bytes(rng, content)
    path = folder / f"a{ending}{pack}"
    path.write_bytes(content)
    if rng.random() < 0.1:
        read_texts(rng.choice((path, folder)), most=12)
        return
    way = rng.choice(TREEBANK_WAYS if ending == ".conllu" else WAYS)
    rows_of(way | {"data": path}, seeds.model)


def rows_of(options: dict[str, Any], model: ModelOutline) -> None:
    """What `sprobe datasets preview` does, without printing."""
    config = make_data_config(SMALL | options)
    dataset = build_dataset(config, labelled_text_of(config), model)
    preview_rows(dataset, n=3, rng=task_rng(0, "preview"))


TARGET = Target(name="readers", prepare=prepare, case=case, share=40)
