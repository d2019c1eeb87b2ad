"""Folders of data: our dataset folders (also with their seal made anew), folders of save_to_disk, folders of the sources."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from sparse_probing.activations.loaded import ModelOutline
from sparse_probing.activations.models import outline_model
from sparse_probing.config import make_data_config
from sparse_probing.datasets import dataset_folder
from sparse_probing.datasets.dataset_folder import export_hugging_face, export_jsonl, write_dataset_folder
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.inputs import labelled_text_of
from tests.hostile.engine import Target, changed_bytes, changed_json, write_changed_json
from tests.hostile.readers import SMALL, TREEBANK, WORDS, changed_rows, rows, rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Good folders with the options that read them."""

    ours: list[Path]
    hugging_face: list[Path]
    sources: dict[str, Path]
    model: ModelOutline


def prepare(folder: Path) -> Seeds:
    """The good folders."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()), "utf-8")
    ours = []
    for i, way in enumerate(({"label": ("y", "kind")}, {"spans_column": "spans"}, {"number": ("x",)})):
        (labelled,) = labelled_text_of(make_data_config(way | {"data": folder / "a.jsonl"}))
        labelled = replace(labelled, rules={**labelled.rules, **SMALL})
        for j, write in enumerate((write_dataset_folder, export_jsonl, export_hugging_face)):
            place = folder / f"ours{i}{j}"
            write(*((place, labelled) if write is write_dataset_folder else (labelled, place)))  # pyright: ignore[reportArgumentType]
            ours.append(place)
    return Seeds(
        ours=ours, hugging_face=_saved(folder), sources=_sources(folder / "sources"), model=outline_model("demo")
    )


def _saved(folder: Path) -> list[Path]:
    """What `save_to_disk` writes, made by hand: the library is an extra."""
    table = pl.DataFrame([{name: row[name] for name in ("text", "y", "kind", "g")} for row in rows()])
    features = {"text": {"dtype": "string", "_type": "Value"}, "y": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    one = folder / "one"
    many = folder / "many"
    parts = {"": one, "train": many / "train", "validation": many / "validation", "test": many / "test"}
    for place in parts.values():
        place.mkdir(parents=True)
        table.write_ipc_stream(place / "data-00000-of-00001.arrow")
        (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
        (place / "dataset_info.json").write_text(json.dumps({"features": features}))
    (many / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    plain = folder / "plain"
    plain.mkdir()
    for split in ("train", "validation", "test"):
        table.write_parquet(plain / f"{split}.parquet")
    return [one, many, plain]


def _sources(folder: Path) -> dict[str, Path]:
    corpus, trees, tables, facts, people = (folder / n for n in ("corpus", "trees", "tables", "facts", "people"))
    for place in (corpus, trees, tables, facts, people):
        place.mkdir(parents=True)
    lines = [
        {
            "id": str(i),
            "doc": f"d{i // 2}",
            "text": row["text"] + " high school \\frac{a}{b} $x_1$",
            "natural_language": "en",
            "code_language": ("python", "c", None)[i % 3],
            "distribution": ("latex", "legal", "fiction")[i % 3],
        }
        for i, row in enumerate(rows())
    ]
    _jsonl(corpus / "train.jsonl", lines)
    (trees / "en-train.conllu").write_text("".join(TREEBANK.format(i=i, a=WORDS[i % 12]) for i in range(24)), "utf-8")
    tokens = {
        "text": "the sea sees",
        "tokens": ["the", "sea", "sees"],
        "lemmas": ["the", "sea", "see"],
        "upos": [8, 0, 16],
        "xpos": [None] * 3,
        "feats": ["None", "{'Number': 'Sing'}", "None"],
        "head": ["2", "3", "0"],
        "deprel": ["det", "nsubj", "root"],
        "misc": ["None"] * 3,
    }
    _jsonl(tables / "train.jsonl", [{"sent_id": f"a{i}"} | tokens for i in range(24)])
    fact = {
        "relation_id": "P1",
        "relation": "born in",
        "prompt": "Ada was born in",
        "target_true": " Rome",
        "target_false": " Ulm",
    }
    _jsonl(facts / "pararel_facts.jsonl", [fact | {"subject": f"Ada {word}"} for word in WORDS])
    names = [
        {
            "name": f"Ada {word.title()}",
            "gender": "female" if i % 2 else "male",
            "is_alive": i % 2,
            "death_year": 1900 * (1 - i % 2),
        }
        for i, word in enumerate(WORDS * 2)
    ]
    pl.DataFrame(names).write_csv(people / "people.csv")
    return {
        "natural-language": corpus,
        "programming-language": corpus,
        "kind-of-text": corpus,
        "latex": corpus,
        "compound-words": corpus,
        "text-features": corpus,
        "sequence-position": corpus,
        "part-of-speech": trees,
        "dependencies": trees,
        "morphology": tables,
        "relations": facts,
        "people": people,
    }


def _jsonl(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def case_ours(rng: random.Random, seeds: Seeds, folder: Path) -> None:
    """A dataset folder; in a third of the cases its seal is taken for whole, as a forger would make it."""
    place = folder / "a"
    shutil.copytree(rng.choice(seeds.ours), place)
    chosen = rng.choice([path for path in sorted(place.rglob("*")) if path.is_file() and path.suffix != ".md"])
    if chosen.suffix == ".json":
        write_changed_json(rng, chosen)
    elif chosen.suffix == ".jsonl":
        _jsonl(chosen, changed_rows(rng, [json.loads(line) for line in chosen.read_text("utf-8").splitlines()]))
    elif chosen.suffix == ".parquet" and rng.random() < 0.6:
        changed_table(rng, chosen)
    else:
        chosen.write_bytes(changed_bytes(rng, chosen.read_bytes()))
    seal = dataset_folder.fingerprint

    def forged(labelled: LabelledText) -> str:
        seal(labelled)
        return json.loads((place / "dataset.json").read_bytes())["fingerprint"]

    if rng.random() < 0.4:
        dataset_folder.fingerprint = forged
    try:
        rows_of({"data": place}, seeds.model)
    finally:
        dataset_folder.fingerprint = seal


def changed_table(rng: random.Random, path: Path) -> None:
    """A Parquet file with a column dropped, renamed, retyped, emptied or in another order, or with fewer rows."""
    table = pl.read_parquet(path, glob=False)
    for _ in range(rng.choice((1, 1, 2))):
        if not table.width:
            break
        name = rng.choice(table.columns)
        match rng.randrange(7):
            case 0:
                table = table.drop(name)
            case 1:
                table = table.rename({name: f"{name}{rng.choice(('', 'a', 'b' * 300))}"})
            case 2:
                value = rng.choice(
                    (None, 0, -1, 10**15, 0.5, float("nan"), float("inf"), "", "x", "\0", True, [1], [], {"a": 1})
                )
                table = table.with_columns(pl.lit(pl.Series([value] * table.height, strict=False)).alias(name))
            case 3:
                table = table.head(rng.choice((0, 1, 2)))
            case 4:
                table = table.with_columns(pl.lit(None).alias(name))
            case 5:
                table = pl.concat([table, table])
            case _:
                table = table.select(rng.sample(table.columns, table.width)).reverse()
    table.write_parquet(path)


def case_hugging_face(rng: random.Random, seeds: Seeds, folder: Path) -> None:
    """A folder of save_to_disk, or of Parquet files named after splits."""
    place = folder / "a"
    shutil.copytree(rng.choice(seeds.hugging_face), place)
    chosen = rng.choice([path for path in sorted(place.rglob("*")) if path.is_file()])
    if chosen.suffix == ".json":
        write_changed_json(rng, chosen)
    elif chosen.suffix == ".parquet" and rng.random() < 0.6:
        changed_table(rng, chosen)
    else:
        chosen.write_bytes(changed_bytes(rng, chosen.read_bytes()))
    rows_of({"data": place, "label": (rng.choice(("y", "kind")),)}, seeds.model)


def case_sources(rng: random.Random, seeds: Seeds, folder: Path) -> None:
    """A folder in a source's layout."""
    name = rng.choice(list(seeds.sources))
    place = folder / "a"
    shutil.copytree(seeds.sources[name], place)
    chosen = rng.choice([path for path in sorted(place.rglob("*")) if path.is_file()])
    if chosen.suffix == ".jsonl" and rng.random() < 0.7:
        _jsonl(chosen, [changed_json(rng, json.loads(line)) for line in chosen.read_text("utf-8").splitlines()])
    else:
        chosen.write_bytes(changed_bytes(rng, chosen.read_bytes()))
    labelled_text_of(make_data_config({"source": name, "data": place, "paper_rules": rng.random() < 0.2}))


TARGETS = (
    Target(name="dataset folders", prepare=prepare, case=case_ours, share=14),
    Target(name="hugging face", prepare=prepare, case=case_hugging_face, share=10),
    Target(name="sources", prepare=prepare, case=case_sources, share=10),
)
