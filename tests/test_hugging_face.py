"""Hugging Face data sets from folders that the library wrote, and through the library itself, without network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sparse_probing.datasets.dataset_folder import export_hugging_face
from sparse_probing.datasets.hugging_face import (
    HUB,
    VALUES,
    folder_rows,
    hub_rows,
    is_hugging_face_folder,
    mapped,
    parse_hub_name,
)
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.records import Split

datasets = import_module("datasets")  # the library; linters take the name for benchmarks/datasets.py


@pytest.fixture(autouse=True)
def _no_network_and_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    monkeypatch.setattr("datasets.config.HF_MODULES_CACHE", cache / "modules")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache / "hub"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def nested() -> Any:
    """Five rows with a class label at every depth."""
    label = datasets.ClassLabel
    features = datasets.Features(
        {
            "text": datasets.Value("large_string"),
            "label": label(names=["neg", "pos"]),
            "ner_tags": datasets.List(label(names=["O", "B", "I"])),
            "meta": {"source": datasets.Value("string"), "kind": label(names=["x", "y"])},
            "spans": [{"start": datasets.Value("int32"), "type": label(names=["u", "v"])}],
            "columns": datasets.Sequence({"n": datasets.Value("int64"), "type": label(names=["m", "n"])}),
            "pages": datasets.LargeList(datasets.List(label(names=["p", "q"]))),
        }
    )
    rows = {
        "text": [f"text {i}\u2028é" for i in range(5)],
        "label": [0, 1, None, 1, -1],
        "ner_tags": [[], [0], [0, 1], [2, 1, 0], None],
        "meta": [{"source": "s", "kind": i % 2} for i in range(5)],
        "spans": [[{"start": i, "type": i % 2}] for i in range(5)],
        "columns": [{"n": [i], "type": [1]} for i in range(5)],
        "pages": [[[0, 1], []] for _ in range(5)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


NAMED = {
    "text": "text 3\u2028é",
    "label": "pos",
    "ner_tags": ["I", "B", "O"],
    "meta": {"source": "s", "kind": "y"},
    "spans": [{"start": 3, "type": "v"}],
    "columns": {"n": [3], "type": ["n"]},
    "pages": [["p", "q"], []],
}


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_saved_data_set_in_two_files(tmp_path):
    nested().save_to_disk(str(tmp_path / "one"), num_shards=2)
    assert len(list((tmp_path / "one").glob("*.arrow"))) == 2
    assert is_hugging_face_folder(tmp_path / "one")
    rows = list(folder_rows(tmp_path / "one"))
    assert rows[3] == (None, NAMED)
    assert [row["label"] for _, row in rows] == ["neg", "pos", None, "pos", None]
    assert [row["ner_tags"] for _, row in rows] == [[], ["O"], ["O", "B"], ["I", "B", "O"], None]


def test_saved_splits_come_under_our_names_and_in_order(tmp_path):
    data = nested()
    saved = datasets.DatasetDict(
        {"unsupervised": data, "test": data.select([3]), "dev": data.select([0]), "train": data}
    )
    saved.save_to_disk(str(tmp_path / "all"))
    rows = list(folder_rows(tmp_path / "all"))
    assert [split for split, _ in rows] == ["train"] * 5 + ["validation", "test"] + ["unsupervised"] * 5
    assert rows[6] == ("test", NAMED)


def test_a_single_split_prescribes_nothing(tmp_path):
    datasets.DatasetDict({"train": nested()}).save_to_disk(str(tmp_path / "all"))
    assert {split for split, _ in folder_rows(tmp_path / "all")} == {None}


def test_arrow_types_that_the_library_does_not_write_itself(tmp_path):
    import pyarrow as pa

    table = pa.table(
        {
            "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
            "large": pa.array(["x", "y", None], pa.large_string()),
            "view": pa.array(["x", "y", "z"], pa.string_view()),
            "half": pa.array([0.5, 1.0, 2.0], pa.float32()),
        }
    )
    datasets.Dataset.from_dict({"kind": ["a"]}).save_to_disk(str(tmp_path / "d"))
    with pa.ipc.new_stream(str(tmp_path / "d" / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)
        file.write_table(table)
    rows = [row for _, row in folder_rows(tmp_path / "d")]
    assert rows == table.to_pylist() * 2


def test_clone_of_a_repository(tmp_path):
    data = tmp_path / "clone" / "data"
    data.mkdir(parents=True)
    nested().to_parquet(str(data / "train-00000-of-00002.parquet"))
    nested().select([3]).to_parquet(str(data / "train-00001-of-00002.parquet"))
    nested().select([3]).to_parquet(str(data / "validation-00000-of-00001.parquet"))
    (tmp_path / "clone" / "README.md").write_text("---\nlicense: mit\n---\n", "utf-8")
    assert is_hugging_face_folder(tmp_path / "clone") and is_hugging_face_folder(data)
    rows = list(folder_rows(tmp_path / "clone"))
    assert [split for split, _ in rows] == ["train"] * 6 + ["validation"]
    assert rows[3] == ("train", NAMED) and rows[5][1] == rows[6][1] == NAMED


def test_own_export(tmp_path):
    documents = (
        Document(id="1", text="a", group="g", split=Split.TEST, labels={"x": True}),
        Document(id="2", text="b", group="g", split=Split.TRAIN),
    )
    export_hugging_face(
        LabelledText(category="c", features=("x",), level="document", documents=documents), tmp_path / "e"
    )
    assert is_hugging_face_folder(tmp_path / "e")
    assert [(split, row["id"]) for split, row in folder_rows(tmp_path / "e")] == [("train", "2"), ("test", "1")]


def test_integers_without_class_names_stay(tmp_path):
    pl.DataFrame({"label": [0, 1], "text": ["a", "b"]}).write_parquet(tmp_path / "train.parquet")
    assert [row for _, row in folder_rows(tmp_path)] == [{"label": 0, "text": "a"}, {"label": 1, "text": "b"}]


def test_damaged_folders(tmp_path):
    with pytest.raises(InputError, match="is no Hugging Face data set: give a folder of save_to_disk"):
        list(folder_rows(tmp_path))
    assert not is_hugging_face_folder(tmp_path) and not is_hugging_face_folder(tmp_path / "nowhere")
    (tmp_path / "part-0.parquet").write_bytes(b"")
    assert not is_hugging_face_folder(tmp_path)

    saved = tmp_path / "saved"
    nested().save_to_disk(str(saved))
    (arrow,) = saved.glob("*.arrow")
    good = arrow.read_bytes()
    for bad in (good[: len(good) // 2], b"", b"not arrow"):
        arrow.write_bytes(bad)
        with pytest.raises(InputError, match="cannot be read"):
            list(folder_rows(saved))
    arrow.unlink()
    with pytest.raises(InputError, match=r"arrow' does not exist: check the path"):
        list(folder_rows(saved))
    (saved / "dataset_info.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match=r"dataset_info\.json' is missing or damaged"):
        list(folder_rows(saved))

    (tmp_path / "lfs").mkdir()
    (tmp_path / "lfs" / "train.parquet").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "utf-8"
    )
    with pytest.raises(InputError, match="run `git lfs pull`"):
        list(folder_rows(tmp_path / "lfs"))


# ---- the library -----------------------------------------------------------------------------------------------------


def test_names_of_the_hub():
    assert parse_hub_name("hf:owner/name") == ("owner/name", None)
    assert parse_hub_name("hf:owner/na.me-1:20231101.en") == ("owner/na.me-1", "20231101.en")
    assert parse_hub_name("hf:imdb") == ("imdb", None)
    for bad in ("owner/name", "hf:", "hf:a/b/c", "hf:a/b:", "hf:/etc/passwd", "hf:a b"):
        with pytest.raises(InputError, match="write hf:owner/name or hf:owner/name:config"):
            parse_hub_name(bad)


def test_rows_through_the_library_are_those_of_the_folder(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    nested().to_parquet(str(folder / "train.parquet"))
    nested().select([3]).to_parquet(str(folder / "test.parquet"))
    assert list(hub_rows(str(folder))) == list(folder_rows(folder))
    assert list(hub_rows(str(folder), "default")) == list(folder_rows(folder))


def test_what_the_library_cannot_load(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    nested().to_parquet(str(folder / "train.parquet"))
    with pytest.raises(InputError, match=r"BuilderConfig 'fr' not found"):
        next(hub_rows(str(folder), "fr"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "code.py").write_text("raise SystemExit('code of a data set was run')", "utf-8")
    with pytest.raises(
        InputError, match="cannot be read from the Hugging Face hub: Dataset scripts are no longer supported"
    ):
        next(hub_rows(str(tmp_path / "code")))


def test_without_network_and_without_the_extra(monkeypatch):
    with pytest.raises(PrerequisiteError, match=r"'owner/name' is out of reach .*check the network"):
        next(hub_rows("owner/name"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PrerequisiteError, match=r"needs the extra: pip install 'sparse-probing\[hub\]'"):
        hub_rows("owner/name")


# ---- columns ---------------------------------------------------------------------------------------------------------


def test_columns_are_renamed_and_the_others_stay():
    row: dict[str, object] = {"content": "x", "lang": "C++", "meta": {"a": {"b": 1}}, "a.b": 2, "none": None, "n": 5}
    columns = {
        "text": "content",
        "code_language": "lang",
        "deep": "meta.a.b",
        "dots": "a.b",
        "null": "none.x",
        "content": "n",
    }
    ((split, found),) = mapped([("test", row)], columns, {"code_language": {"C++": "cpp"}, "n": {"5": "five"}})
    assert split == "test"
    assert found == row | {"text": "x", "code_language": "cpp", "deep": 1, "dots": 2, "null": None, "content": 5}
    assert next(mapped([(None, row)], {"code_language": "lang"}))[1]["code_language"] == "C++"


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        ("langauge", "the data set has no column 'langauge': did you mean 'language'?"),
        ("zzz", "the data set has no column 'zzz': it has 'language', 'meta'."),
        ("meta.pile_set", "the data set, column 'meta', has no column 'pile_set': did you mean 'pile_set_name'?"),
        (
            "language.x",
            "the data set, column 'language', has no column 'x': it holds no columns but values such as 'en'.",
        ),
    ],
)
def test_missing_columns(column, complaint):
    row: dict[str, object] = {"language": "en", "meta": {"pile_set_name": "ArXiv"}}
    with pytest.raises(InputError) as error:
        list(mapped([(None, row)], {"x": column}))
    assert str(error.value).startswith(complaint)


CLASSES = datasets.ClassLabel(names=["deu_Latn", "eng_Latn", "zul_Latn"])
TAGS = datasets.List(datasets.ClassLabel(names=["NOUN", "PUNCT", "VERB"]))
WORDS = datasets.List(datasets.Value("string"))
SHAPES: dict[str, tuple[dict[str, list[Any]], dict[str, Any], dict[str, object]]] = {
    "natural-language": (
        {"text": ["Guten Tag", "Hello"], "language": [0, 1], "dataset_source": ["news", "news"]},
        {"language": CLASSES},
        {"text": "Guten Tag", "natural_language": "de", "source": "news"},
    ),
    "programming-language": (
        {
            "task_url": ["u"] * 2, "task_name": ["Sum"] * 2, "task_description": ["Add."] * 2, "language_url": ["#"] * 2,
            "language_name": ["C#", "Ada"], "code": ["int x;", "x : Integer;"],
        },
        {},
        {"text": "int x;", "code_language": "csharp", "doc": "Sum"},
    ),
    "kind-of-text": (
        {"text": ["It rains.", "$x$"], "meta": [{"pile_set_name": "Wikipedia (en)"}, {"pile_set_name": "ArXiv"}]},
        {},
        {"text": "It rains.", "distribution": "wikipedia"},
    ),
    "part-of-speech": (
        {
            "sent_id": ["s1", "s2"], "text": ["Rain fell.", "Rain."], "tokens": [["Rain", "fell", "."], ["Rain", "."]],
            "lemmas": [["rain", "fall", "."], ["rain", "."]], "upos": [[0, 2, 1], [0, 1]],
            "feats": [["Number=Sing", "Tense=Past|VerbForm=Fin", None], ["Number=Sing", None]],
            "head": [["2", "0", "2"], ["0", "1"]], "deprel": [["nsubj", "root", "punct"], ["root", "punct"]],
        },
        {"upos": TAGS},
        {
            "sent_id": "s1", "text": "Rain fell.", "tokens": ["Rain", "fell", "."], "upos": ["NOUN", "VERB", "PUNCT"],
            "feats": ["Number=Sing", "Tense=Past|VerbForm=Fin", None], "head": ["2", "0", "2"],
            "deprel": ["nsubj", "root", "punct"],
        },
    ),
    "relations": (
        {
            "relation": ["capital"], "relation_prefix": [""], "relation_suffix": [" has the capital"],
            "prompt": ["Peru has the capital"], "relation_id": ["P36"], "target_false_id": ["Q1"], "target_true_id": ["Q2"],
            "target_true": [" Lima"], "target_false": [" Rome"], "subject": ["Peru"],
        },
        {},
        {
            "relation_id": "P36", "relation": "capital", "relation_prefix": "", "subject": "Peru",
            "relation_suffix": " has the capital", "prompt": "Peru has the capital", "target_true": " Lima",
            "target_false": " Rome",
        },
    ),
}  # fmt: skip
"""One source of each public data set: rows of its shape, types that are not plain, the first row in our layout."""


def test_every_public_data_set_has_a_shape_here():
    assert {HUB[source].name for source in SHAPES} == {hub.name for hub in HUB.values()}
    assert set(VALUES) == {"distribution", "code_language", "natural_language"}


@pytest.mark.parametrize("source", SHAPES)
def test_public_data_set_of_a_source(tmp_path, source):
    data, types, expected = SHAPES[source]
    table = datasets.Dataset.from_dict(data)
    for column, kind in types.items():
        table = table.cast_column(column, kind)
    table.to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    hub = HUB[source]
    for rows in (folder_rows(tmp_path), hub_rows(str(tmp_path))):
        _, found = next(mapped(rows, hub.columns, VALUES))
        assert {name: found[name] for name in hub.columns} == expected


def test_values_that_are_not_listed_stay(tmp_path):
    datasets.Dataset.from_dict(SHAPES["programming-language"][0]).to_parquet(str(tmp_path / "train.parquet"))
    rows = mapped(folder_rows(tmp_path), HUB["programming-language"].columns, VALUES)
    assert [row["code_language"] for _, row in rows] == ["csharp", "Ada"]
