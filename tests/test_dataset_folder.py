"""Labelled text on disk: three forms, one fingerprint; what was changed by hand or cut off is refused."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_probing.datasets.dataset_folder import (
    export_file,
    export_hugging_face,
    export_jsonl,
    fingerprint,
    is_dataset_folder,
    read_dataset_folder,
    write_dataset_folder,
)
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.readers import iter_rows
from sparse_probing.errors import InputError
from sparse_probing.records import SPLITS, Split

datasets = import_module("datasets")  # the library; linters take the name for benchmarks/datasets.py

SMALL = LabelledText(
    category="weather",
    features=("rain", "sun"),
    level="token",
    documents=(
        Document(
            id="b",
            text="Rain fell.",
            group="g",
            labels={"sun": False, "rain": True},
            numbers={"mm": 3.0},
            spans=(Span(0, 4, "rain"),),
            breaks=(0, 5),
            split=Split.TEST,
            source="diary",
            licence="CC BY-SA 4.0",
        ),
        Document(id="a", text="Sun\u2028shone\n", group="g", licence="CC BY-SA 4.0"),
        Document(id="c", text="Snow", group="h", split=Split.TRAIN, licence="CC BY-SA 4.0"),
    ),
    numbers=("mm",),
    contrasts={"rain": ("snow", "hail")},
    hard_negatives={"rain": "snow"},
    token_patterns={"x": "[x]", "a": "a"},
    rules={"fractions": (0.5, 0.2, 0.3), "window": 24, "full_windows_only": True},
    notes=("nothing left out",),
)

FORMS: dict[str, Callable[[Path, LabelledText], None]] = {
    "packed": write_dataset_folder,
    "jsonl": lambda folder, labelled: export_jsonl(labelled, folder),
    "hugging face": lambda folder, labelled: export_hugging_face(labelled, folder),
}
form = pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- what is kept ----------------------------------------------------------------------------------------------------

NAMES = st.text(max_size=8)
SPANS = st.tuples(st.integers(0, 9), st.integers(0, 9), NAMES)
DOCUMENTS = st.fixed_dictionaries(
    {
        "id": NAMES,
        "text": st.text(max_size=40),
        "group": NAMES,
        "labels": st.dictionaries(NAMES, st.booleans(), max_size=4),
        "numbers": st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
        "spans": st.lists(SPANS, max_size=3),
        "breaks": st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
        "split": st.none() | st.sampled_from(SPLITS),
        "source": st.none() | NAMES,
        "licence": st.none() | NAMES,
    }
)
TEXTS = st.fixed_dictionaries(
    {
        "category": NAMES,
        "features": st.lists(NAMES, max_size=3).map(tuple),
        "level": st.sampled_from(("document", "span", "token")),
        "documents": st.lists(DOCUMENTS, max_size=6),
        "numbers": st.lists(NAMES, max_size=2).map(tuple),
        "only_spanned_tokens": st.booleans(),
        "contrasts": st.dictionaries(NAMES, st.lists(NAMES, max_size=2).map(tuple), max_size=2),
        "hard_negatives": st.dictionaries(NAMES, NAMES, max_size=2),
        "token_patterns": st.dictionaries(NAMES, NAMES, max_size=3),
        "near_duplicates": st.sampled_from(("group", "count", "by_design")),
        "rules": st.dictionaries(NAMES, st.integers() | st.booleans() | NAMES | st.just((0.5, 0.2, 0.3)), max_size=3),
        "notes": st.lists(NAMES, max_size=2).map(tuple),
    }
)
"""Fields, not objects: making an object checks its types at random places, which strategies must not do."""


def document_of(drawn: dict[str, Any]) -> Document:
    spans = tuple(Span(*span) for span in drawn.pop("spans"))
    return Document(**drawn, spans=spans)


def check_round_trip(labelled: LabelledText) -> None:
    for write in FORMS.values():
        with tempfile.TemporaryDirectory() as place:
            one, two = Path(place) / "one", Path(place) / "two"
            write(one, labelled)
            found = read_dataset_folder(one)
            assert found == labelled
            assert fingerprint(found) == fingerprint(labelled)
            write(two, found)
            assert files_of(one) == files_of(two)
            assert is_dataset_folder(one)
    with tempfile.TemporaryDirectory() as place:
        one, two = Path(place) / "one.jsonl", Path(place) / "two.jsonl"
        export_file(labelled, one)
        assert is_dataset_folder(one)
        found = read_dataset_folder(one)
        assert found == labelled
        export_file(found, two)
        assert one.read_bytes() == two.read_bytes()
        assert len(one.read_bytes().splitlines()) >= max(1, len(labelled.documents))


@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_every_form_gives_back_the_same_text_and_the_same_bytes(drawn):
    documents = tuple(document_of(document) for document in drawn.pop("documents"))
    check_round_trip(LabelledText(**drawn, documents=documents))


def test_small_text_survives_every_form():
    check_round_trip(SMALL)


def test_order_of_patterns_is_kept_and_tuples_stay_tuples(tmp_path):
    write_dataset_folder(tmp_path, SMALL)
    found = read_dataset_folder(tmp_path)
    assert list(found.token_patterns) == ["x", "a"]
    assert isinstance(found.rules["fractions"], tuple)


def test_files_by_hand(tmp_path):
    export_jsonl(SMALL, tmp_path)
    first = (
        '{"id":"b","text":"Rain fell.","group":"g","labels":{"rain":true,"sun":false},"numbers":{"mm":3.0},'
        '"spans":[{"start":0,"end":4,"label":"rain"}],"breaks":[0,5],"split":"test","source":"diary","licence":"CC BY-SA 4.0"}'
    )
    assert (tmp_path / "documents.jsonl").read_text("utf-8").split("\n")[0] == first
    header = json.loads((tmp_path / "dataset.json").read_text("utf-8"))
    assert header["format_version"] == 1 and header["n_documents"] == 3 and header["files"] == ["documents.jsonl"]
    assert header["contrasts"] == {"rain": ["snow", "hail"]} and header["fingerprint"] == fingerprint(SMALL)
    write_dataset_folder(tmp_path / "packed", SMALL)
    packed = (
        zstandard.ZstdDecompressor().stream_reader((tmp_path / "packed" / "documents.jsonl.zst").read_bytes()).read()
    )
    assert packed == (tmp_path / "documents.jsonl").read_bytes()


OTHER_DOCUMENT: dict[str, Any] = {
    "id": "z", "text": "Rain fell!", "group": "h", "labels": {"rain": True}, "numbers": {"mm": 3.5}, "spans": (),
    "breaks": (0,), "split": None, "source": None, "licence": None,
}  # fmt: skip
OTHER_TEXT: dict[str, Any] = {
    "category": "w", "features": ("sun", "rain"), "level": "span", "documents": SMALL.documents[::-1], "numbers": (),
    "only_spanned_tokens": True, "contrasts": {"rain": ("hail", "snow")}, "hard_negatives": {},
    "token_patterns": {"a": "a", "x": "[x]"}, "near_duplicates": "count", "rules": {"window": 25}, "notes": (),
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Document)])
def test_fingerprint_depends_on_every_field_of_a_document(name):
    changed = replace(SMALL.documents[0], **{name: OTHER_DOCUMENT[name]})
    assert fingerprint(replace(SMALL, documents=(changed, *SMALL.documents[1:]))) != fingerprint(SMALL)


@pytest.mark.parametrize("name", [field.name for field in fields(LabelledText)])
def test_fingerprint_depends_on_every_field_but_the_notes(name):
    assert (fingerprint(replace(SMALL, **{name: OTHER_TEXT[name]})) == fingerprint(SMALL)) == (name == "notes")


def test_fingerprint_does_not_depend_on_the_order_of_labels():
    one = Document(id="a", text="a", group="a", labels={"x": True, "y": False}, numbers={"n": 1.0, "m": 2.0})
    two = Document(id="a", text="a", group="a", labels={"y": False, "x": True}, numbers={"m": 2.0, "n": 1.0})
    assert fingerprint(replace(SMALL, documents=(one,))) == fingerprint(replace(SMALL, documents=(two,)))


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labelled",
    [
        replace(SMALL, documents=(Document(id="d7", text="a\ud800", group="g"),)),
        replace(SMALL, documents=(Document(id="d7", text="a", group="g", labels={"\udfff": True}),)),
        replace(SMALL, documents=(Document(id="d7", text="a", group="g", numbers={"x": float("nan")}),)),
        replace(SMALL, documents=(Document(id="d7", text="a", group="g", numbers={"x": float("inf")}),)),
    ],
)
@form
def test_what_cannot_be_stored_is_refused_with_its_document_and_nothing_is_touched(tmp_path, write, labelled):
    write(tmp_path, SMALL)
    before = files_of(tmp_path)
    with pytest.raises(InputError, match=r"document 'd7' holds"):
        write(tmp_path, labelled)
    assert files_of(tmp_path) == before


def test_lone_surrogate_in_the_description_is_refused():
    with pytest.raises(InputError, match=r"the description holds half a surrogate pair \(\\ud800\)"):
        fingerprint(replace(SMALL, category="\ud800"))


def header_with(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes), "utf-8")


@form
def test_header_that_was_changed_is_refused(tmp_path, write):
    write(tmp_path, SMALL)
    good = (tmp_path / "dataset.json").read_bytes()
    for changes, complaint in [
        ({"format_version": 2}, "has format version 2, this program reads 1"),
        ({"colour": "red"}, "has an unknown field 'colour'"),
        ({"features": ["rain", "snow"]}, "does not have the fingerprint"),
        ({"rules": {"window": 25}}, "does not have the fingerprint"),
        ({"fingerprint": "0" * 32}, "does not have the fingerprint"),
        ({"n_documents": 4}, "holds 3 documents, its dataset.json says 4"),
        ({"files": ["../elsewhere.jsonl"]}, "names files that no data set has"),
        ({"files": []}, "names files that no data set has"),
        ({"files": "documents.jsonl"}, "field 'files' holds 'documents.jsonl', which is not what it can hold"),
        ({"features": "rain"}, "field 'features' holds 'rain'"),
        ({"numbers": [1]}, "field 'numbers' holds '[1]'"),
        ({"category": None}, "field 'category' holds 'None'"),
        ({"level": "page"}, "field 'level' holds 'page'"),
        ({"contrasts": {"rain": "snow"}}, "field 'contrasts' holds"),
        ({"token_patterns": ["a"]}, "field 'token_patterns' holds"),
        ({"rules": [1]}, "field 'rules' holds"),
        ({"n_documents": "3"}, "field 'n_documents' holds '3'"),
    ]:
        header_with(tmp_path, **changes)
        with pytest.raises(InputError, match=re.escape(complaint)):
            read_dataset_folder(tmp_path)
        (tmp_path / "dataset.json").write_bytes(good)
    header = json.loads(good)
    del header["level"]
    (tmp_path / "dataset.json").write_text(json.dumps(header), "utf-8")
    with pytest.raises(InputError, match="has no field 'level'"):
        read_dataset_folder(tmp_path)
    for cut in (b"", good[:200], b"[1]"):
        (tmp_path / "dataset.json").write_bytes(cut)
        with pytest.raises(InputError, match="not a JSON object"):
            read_dataset_folder(tmp_path)
    (tmp_path / "dataset.json").write_bytes(good)
    assert read_dataset_folder(tmp_path) == SMALL


def test_notes_may_be_changed_by_hand(tmp_path):
    write_dataset_folder(tmp_path, SMALL)
    header_with(tmp_path, notes=["mine"])
    assert read_dataset_folder(tmp_path).notes == ("mine",)


def test_documents_that_were_changed_are_refused(tmp_path):
    export_jsonl(SMALL, tmp_path)
    path = tmp_path / "documents.jsonl"
    good = path.read_text("utf-8")
    lines = good.split("\n")[:-1]
    for changed, complaint in [
        (good.replace("fell", "Fell"), "does not have the fingerprint"),
        (good.replace('"rain":true', '"rain":false'), "does not have the fingerprint"),
        ("\n".join([lines[1], lines[0], lines[2]]), "does not have the fingerprint"),
        ("\n".join(lines[:2]), "holds 2 documents, its dataset.json says 3"),
        (good[:-20], "line 3 is not JSON"),
        (good.replace('"group":"g",', "", 1), "row 1 has no field 'group'"),
        (good.replace('"group"', '"clan"', 1), "row 1 has an unknown field 'clan'"),
        (good.replace('"split":"train"', '"split":"trian"'), "row 3 is no document"),
        (good.replace('"end":4', '"to":4'), "row 1 is no document"),
        (good.replace('"labels":{}', '"labels":null', 1), "row 2 is no document"),
    ]:
        assert changed != good
        path.write_text(changed, "utf-8")
        with pytest.raises(InputError, match=re.escape(complaint)):
            read_dataset_folder(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_dataset_folder(tmp_path)


def test_every_cut_and_every_changed_byte_of_a_packed_file_is_noticed(tmp_path):
    write_dataset_folder(tmp_path, SMALL)
    path = tmp_path / "documents.jsonl.zst"
    good = path.read_bytes()
    for at in range(len(good)):
        for bad in (good[:at], good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]):
            path.write_bytes(bad)
            try:
                same = (
                    read_dataset_folder(tmp_path) == SMALL
                )  # a bit of the frame's header may say nothing about the content
            except InputError:
                continue
            assert same and len(bad) == len(good)


def test_tables_that_were_changed_are_refused(tmp_path):
    export_hugging_face(SMALL, tmp_path)
    path = tmp_path / "data" / "train.parquet"
    good = pl.read_parquet(path)
    for changed, complaint in [
        (good.with_columns(pl.col("text").str.to_uppercase()), "does not have the fingerprint"),
        (good.head(1), "holds 2 documents, its dataset.json says 3"),
        (good.with_columns(order=-pl.col("order")), "does not have the fingerprint"),
        (good.drop("breaks"), "row 1 has no field 'breaks'"),
        (good.drop("order"), "row 1 has no field 'order'"),
        (good.with_columns(colour=pl.lit("red")), "row 1 has an unknown field 'colour'"),
    ]:
        changed.write_parquet(path)
        with pytest.raises(InputError, match=re.escape(complaint)):
            read_dataset_folder(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        read_dataset_folder(tmp_path)


def test_folder_without_a_data_set(tmp_path):
    assert not is_dataset_folder(tmp_path) and not is_dataset_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"is not a data set: it holds no dataset\.json"):
        read_dataset_folder(tmp_path)
    (tmp_path / "dataset.json").write_text('{"name": "someone else\'s"}', "utf-8")
    assert not is_dataset_folder(tmp_path)


# ---- writing ---------------------------------------------------------------------------------------------------------


@form
def test_killed_writer_leaves_no_data_set(tmp_path, write, monkeypatch):
    write(tmp_path, SMALL)

    def killed(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparse_probing.datasets.dataset_folder.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, replace(SMALL, documents=SMALL.documents[:1]))
    assert not is_dataset_folder(tmp_path)
    assert not list(tmp_path.rglob("*.partial"))


def test_other_files_stay_and_the_last_form_counts(tmp_path):
    (tmp_path / "audit.json").write_text("{}", "utf-8")
    write_dataset_folder(tmp_path, SMALL)
    fewer = replace(SMALL, documents=SMALL.documents[1:])
    for write in [*FORMS.values(), write_dataset_folder]:
        write(tmp_path, SMALL)
        assert read_dataset_folder(tmp_path) == SMALL
        write(tmp_path, fewer)
        assert read_dataset_folder(tmp_path) == fewer
    assert (tmp_path / "audit.json").read_text("utf-8") == "{}"
    assert not (tmp_path / "data" / "test.parquet").exists()  # of the longer one


def test_export_does_not_overwrite_a_readme(tmp_path):
    (tmp_path / "README.md").write_text("my project", "utf-8")
    with pytest.raises(InputError, match=r"README.md' is there already and not from an export"):
        export_hugging_face(SMALL, tmp_path)
    assert files_of(tmp_path) == {"README.md": b"my project"}


def test_card_names_the_files_and_a_licence_that_all_share(tmp_path):
    export_hugging_face(SMALL, tmp_path)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert card.startswith(
        '---\nlicense: "cc-by-sa-4.0"\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n'
        "    path: data/train.parquet\n  - split: test\n    path: data/test.parquet\n---\n"
    )
    mixed = replace(SMALL, documents=(replace(SMALL.documents[0], licence="MIT"), *SMALL.documents[1:]))
    export_hugging_face(mixed, tmp_path)
    assert "license" not in (tmp_path / "README.md").read_text("utf-8")


def test_two_hundred_features_of_any_name(tmp_path):
    features = tuple(f"language=é {i}\n" for i in range(200))
    documents = tuple(
        Document(id=str(i), text="x", group="x", labels={name: j % 7 == i % 7 for j, name in enumerate(features)})
        for i in range(30)
    )
    labelled = LabelledText(category="many", features=features, level="document", documents=documents)
    export_hugging_face(labelled, tmp_path)
    assert read_dataset_folder(tmp_path) == labelled
    first = pl.read_parquet(tmp_path / "data" / "train.parquet").row(0, named=True)
    assert {item["feature"] for item in first["labels"] if item["positive"]} == set(features[::7])


def test_the_library_reads_the_export(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    export_hugging_face(SMALL, tmp_path / "export")
    found = datasets.load_dataset(str(tmp_path / "export"), cache_dir=str(tmp_path / "cache"))
    assert {split: part["id"][:] for split, part in found.items()} == {"train": ["a", "c"], "test": ["b"]}
    assert found["test"][0] == {
        "order": 0, "id": "b", "text": "Rain fell.", "group": "g",
        "labels": [{"feature": "rain", "positive": True}, {"feature": "sun", "positive": False}],
        "numbers": [{"feature": "mm", "value": 3.0}], "spans": [{"start": 0, "end": 4, "label": "rain"}],
        "breaks": [0, 5], "split": "test", "source": "diary", "licence": "CC BY-SA 4.0",
    }  # fmt: skip
    assert found["train"]["split"][:] == [None, "train"]


@pytest.mark.real_data
def test_real_text_survives_every_form(tmp_path, real_data):
    rows = list(iter_rows(real_data / "corpus" / "valid.jsonl.zst"))
    languages = tuple(sorted({str(row["natural_language"]) for row in rows}))
    documents = tuple(
        Document(
            id=str(row["id"]),
            text=str(row["text"]),
            group=str(row["doc"]),
            labels={name: name == row["natural_language"] for name in languages},
            split=SPLITS[i % 3] if i % 5 else None,
            source=str(row["source"]),
            licence=str(row["license"]),
        )
        for i, row in enumerate(rows)
    )
    labelled = LabelledText(category="natural language", features=languages, level="document", documents=documents)
    assert len(documents) == 1521
    for name, write in FORMS.items():
        write(tmp_path / name, labelled)
        found = read_dataset_folder(tmp_path / name)
        assert found == labelled and fingerprint(found) == fingerprint(labelled)
