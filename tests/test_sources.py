"""Sources: on samples written here, and on the real folders where they are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sparse_probing.datasets.sources import SOURCES
from sparse_probing.datasets.sources.demo_corpus import demo_categories, documents_of
from sparse_probing.datasets.sources.natural_language import natural_language
from sparse_probing.datasets.sources.part_of_speech import part_of_speech
from sparse_probing.datasets.sources.programming_language import programming_language
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.datasets.sources.text_features import PATTERNS
from sparse_probing.errors import InputError
from sparse_probing.records import Split

TREEBANK = """\
# newdoc id = doc-1
# sent_id = s1
# text = Don't panic, Zoë!
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\t_\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\t_\t_\t3\tadvmod\t_\t_
3\tpanic\tpanic\tVERB\t_\t_\t0\troot\t_\tSpaceAfter=No
4\t,\t,\tPUNCT\t_\t_\t5\tpunct\t_\t_
5\tZoë\tZoë\tPROPN\t_\t_\t3\tvocative\t_\tSpaceAfter=No
6\t!\t!\tPUNCT\t_\t_\t3\tpunct\t_\t_

# sent_id = s2
# text = It is fine.
1\tIt\tit\tPRON\t_\t_\t3\tnsubj\t_\t_
2\tis\tbe\tAUX\t_\t_\t3\tcop\t_\t_
3\tfine\tfine\tADJ\t_\t_\t0\troot\t_\tSpaceAfter=No
4\t.\t.\tPUNCT\t_\t_\t3\tpunct\t_\t_

"""


def test_treebank_words_are_spans_with_their_tags(tmp_path: Path):
    with gzip.open(tmp_path / "x-ud-dev.conllu.gz", "wt", encoding="utf-8") as file:
        file.write(TREEBANK)
    (document,) = part_of_speech(tmp_path, BuildOptions()).documents
    assert document.text == "Don't panic, Zoë! It is fine."
    assert document.split is Split.VALIDATION
    assert [(document.text[s.start : s.end], s.label) for s in document.spans] == [
        ("Do", "upos_AUX"), ("n't", "upos_PART"), ("panic", "upos_VERB"), (",", "upos_PUNCT"), ("Zoë", "upos_PROPN"),
        ("!", "upos_PUNCT"), ("It", "upos_PRON"), ("is", "upos_AUX"), ("fine", "upos_ADJ"), (".", "upos_PUNCT"),
    ]  # fmt: skip


def test_malformed_treebank_names_the_line(tmp_path: Path):
    (tmp_path / "x-ud-dev.conllu").write_text(TREEBANK.replace("2\tn't\tnot\tPART", "2 n't"), encoding="utf-8")
    with pytest.raises(InputError, match="line 6 has 7 tab-separated columns"):
        part_of_speech(tmp_path, BuildOptions())


def corpus(folder: Path) -> Path:
    for stem in ("train", "valid", "test"):
        rows = [
            {"natural_language": ["en", "de"][i % 2], "code_language": None, "distribution": "fiction"}
            | {"id": f"{stem}{i}", "doc": f"{stem}d{i // 2}", "text": f"text {stem} {i}"}
            for i in range(6)
        ]
        code = {"natural_language": None, "code_language": "c", "distribution": "github"}
        rows.append(code | {"id": f"{stem}c", "doc": f"{stem}c", "text": "int x;"})
        rows.append(code | {"id": f"{stem}r", "doc": f"{stem}r", "text": "let x = 1;", "code_language": "rust"})
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_corpus_classes_keep_the_split_of_their_file_and_only_fiction(tmp_path: Path):
    labelled = natural_language(corpus(tmp_path), BuildOptions())
    assert labelled.features == ("de", "en")
    assert len(labelled.documents) == 18
    assert {d.split for d in labelled.documents if d.id.startswith("valid")} == {Split.VALIDATION}
    assert {d.group for d in labelled.documents if d.id in ("train0", "train1")} == {"traind0"}
    assert programming_language(tmp_path, BuildOptions()).features == ("c", "rust")


def test_a_folder_without_rows_and_a_class_without_company_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no \.jsonl file"):
        natural_language(tmp_path, BuildOptions())
    row = {"id": "1", "text": "int x;", "natural_language": None, "code_language": "c", "distribution": "github"}
    (tmp_path / "any.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"holds 1 class\(es\) of programming language: at least 2 are needed"):
        programming_language(tmp_path, BuildOptions())


def test_text_features_by_hand():
    import re

    def of(token: str) -> set[str]:
        return {name for name, pattern in PATTERNS.items() if re.search(pattern, token)}

    assert of(" The") == {"contains_capital", "leading_capital", "contains_whitespace", "has_leading_space"}
    assert of("USA") == {"contains_capital", "leading_capital", "all_capitals"}
    assert of(" I") == {"contains_capital", "leading_capital", "contains_whitespace", "has_leading_space"}
    assert of("42") == {"contains_digit", "all_digits"}
    assert of("ing") == {"no_leading_space_and_loweralpha"}
    assert of("\n\n") == {"contains_whitespace", "contains_all_whitespace", "is_not_alphanumeric"}
    assert of(" é") == {"contains_whitespace", "has_leading_space", "is_not_ascii"}


@pytest.mark.parametrize(
    ("category", "classes", "topics"),
    [("natural language", 13, 72), ("programming language", 10, 40), ("kind of text", 7, 40)],
)
def test_the_bundled_corpus_is_parallel_and_free_of_repetition(category, classes, topics):
    labelled = documents_of(category)
    assert len(labelled.features) == classes
    assert len(labelled.documents) == classes * topics
    assert len({d.group for d in labelled.documents}) == topics
    assert len({d.text for d in labelled.documents}) == len(labelled.documents)
    for document in labelled.documents:
        assert sum(document.labels.values()) == 1
    if category == "natural language":
        assert all(45 <= len(d.text.split()) <= 100 for d in labelled.documents)


def test_bundled_texts_are_long_enough_to_probe_and_named_in_four_categories():
    categories = demo_categories()
    assert [c.category for c in categories] == [
        "natural language",
        "programming language",
        "kind of text",
        "text feature",
    ]
    assert all(len(d.text) > 150 for c in categories for d in c.documents)


@pytest.mark.real_data
def test_every_source_reads_the_real_folders(real_data: Path):
    built = {
        name: SOURCES[name].build(real_data / "corpus", BuildOptions())
        for name in SOURCES
        if SOURCES[name].layout == "corpus"
    }
    assert len(built["natural-language"].features) == 13
    assert len(built["programming-language"].features) == 14
    assert len(built["kind-of-text"].features) >= 15
    assert len(built["text-features"].documents) == 1_200


@pytest.mark.real_data
def test_treebank_counts(real_data: Path):
    labelled = part_of_speech(real_data / "ewt", BuildOptions())
    documents = {split: [d for d in labelled.documents if d.split is split] for split in Split}
    assert {split.value: len(d) for split, d in documents.items()} == {"train": 540, "validation": 318, "test": 316}
    # words of the test file per its own counts: 25,094 (contraction ranges excluded)
    words = sum(len(d.spans) for d in documents[Split.TEST])
    assert words == pytest.approx(25_094, rel=0.002)


def test_every_class_of_the_paper_is_built_where_a_folder_has_its_text(tmp_path: Path):
    """Greek, XML, Hacker News and rare compounds are in no text at hand; a page written for them is enough."""
    rows = [
        {"id": f"{field}-{name}-{i}", "text": f"{name} text number {i}, of its own.", field: name}
        | ({"natural_language": "en"} if field == "distribution" else {})
        for field, names in (
            ("natural_language", SOURCES["natural-language"].features),
            ("code_language", SOURCES["programming-language"].features),
            ("distribution", SOURCES["kind-of-text"].features),
        )
        for name in names
        for i in range(3)
    ]
    for pair in SOURCES["compound-words"].features:
        first, second = pair.split("-")
        for i in range(12):
            text = (
                f"{pair} {i}: here comes {first} {second}, there {first} someone{i}; later on a plain{i} {second} came."
            )
            rows.append(
                {
                    "id": f"{pair}-{i}",
                    "doc": f"{pair}-{i}",
                    "text": text,
                    "natural_language": "en",
                    "distribution": "wikipedia",
                }
            )
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name in ("natural-language", "programming-language", "kind-of-text", "compound-words"):
        for paper_rules in (False, True):
            labelled = SOURCES[name].build(tmp_path, BuildOptions(paper_rules=paper_rules))
            assert set(SOURCES[name].features) == set(labelled.features), name
