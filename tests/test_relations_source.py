"""Relations and sequence position: on files written here, and on the real ones where they are."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.sources.relations import FALSE, TRUE, relations
from sparse_probing.datasets.sources.sequence_position import sequence_position
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError
from sparse_probing.records import Split

Fact = dict[str, object]


def write(path: Path, rows: list[Fact]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def pararel(relation: str, name: str, n: int) -> list[Fact]:
    return [
        {
            "relation_id": relation,
            "relation": name,
            "subject": f"Place {i}",
            "prompt": f"Place {i} and its {name} is",
            "target_true": f" Yes{i} of{relation}",
            "target_false": f" No{i}",
        }
        for i in range(n)
    ]


def lre(relation: str, n: int, n_objects: int) -> list[Fact]:
    return [
        {
            "relation": relation,
            "type": "factual",
            "prompt_templates": [f"The {relation} of {{}} is", f"{{}} has as its {relation} the"],
            "subject": f"Place {i // 2}",
            "object": f"{relation} {(i // 2 + i % 2) % n_objects}",
        }
        for i in range(n)
    ]


def spans_of(labelled: LabelledText) -> dict[str, dict[str, str]]:
    """Label -> document id -> the labelled characters."""
    spans: dict[str, dict[str, str]] = defaultdict(dict)
    for document in labelled.documents:
        assert document.split is None and {span.end for span in document.spans} == {len(document.text)}
        for span in document.spans:
            spans[span.label][document.id] = document.text[span.start : span.end]
    return spans


def test_true_and_false_completions_of_a_prompt(tmp_path: Path):
    write(tmp_path / "pararel_facts.jsonl", pararel("P9", "sea", 3))
    labelled = relations(tmp_path, BuildOptions())
    assert labelled.features == (TRUE,) and labelled.contrasts == {TRUE: (FALSE,)}
    assert labelled.notes == ("1 relations have fewer than 100 facts and are no features.",)
    assert [(d.id, d.text, d.group) for d in labelled.documents[:2]] == [
        ("pararel/1/true", "Place 0 and its sea is Yes0 ofP9", "Place 0"),
        ("pararel/1/false", "Place 0 and its sea is No0", "Place 0"),
    ]
    assert spans_of(labelled) == {
        TRUE: {f"pararel/{i + 1}/true": f"Yes{i} ofP9" for i in range(3)},
        FALSE: {f"pararel/{i + 1}/false": f"No{i}" for i in range(3)},
    }


def test_large_relations_are_told_apart_within_their_file(tmp_path: Path):
    large = pararel("P9", "sea, or lake", 120) + pararel("P8", "hill", 100)
    write(tmp_path / "pararel_facts.jsonl", large + pararel("P7", "bay", 99))
    write(tmp_path / "lre_relations.jsonl", lre("river", 110, 9) + lre("sea_or_lake", 110, 9))
    labelled = relations(tmp_path, BuildOptions(most=30))
    assert labelled.contrasts == {
        TRUE: (FALSE,),
        "relation_P9_sea_or_lake": ("relation_P8_hill",),
        "relation_P8_hill": ("relation_P9_sea_or_lake",),
        "relation_river": ("relation_sea_or_lake",),
        "relation_sea_or_lake": ("relation_river",),
    }
    spans = spans_of(labelled)
    assert {label: len(spans[label]) for label in spans} == dict.fromkeys([*labelled.contrasts, FALSE], 30)
    assert set(spans[FALSE]) == {name.replace("/true", "/false") for name in spans[TRUE]}
    assert all(name.endswith("/true") for label in labelled.contrasts for name in spans[label])
    assert {document.group for document in labelled.documents} <= {f"Place {i}" for i in range(120)}


def test_false_targets_come_from_the_relation_and_are_never_true(tmp_path: Path):
    rows = lre("river", 60, 9) + lre("sea", 60, 3) + lre("only", 4, 1)
    write(tmp_path / "lre_relations.jsonl", rows)
    labelled = relations(tmp_path, BuildOptions())
    true_of: dict[object, set[object]] = defaultdict(set)
    for row in rows:
        true_of[row["subject"]].add(row["object"])
    group = {document.id: document.group for document in labelled.documents}
    text = {document.id: document.text for document in labelled.documents}
    spans = spans_of(labelled)
    for name, target in spans[FALSE].items():
        number = int(name.split("/")[1])
        assert target.split()[0] == rows[number - 1]["relation"] and target not in true_of[group[name]]
        prompt = text[name].removesuffix(" " + target)
        templates = rows[number - 1]["prompt_templates"]
        assert isinstance(templates, list)
        assert prompt in [template.format(group[name]) for template in templates]
        true_name = name.replace("/false", "/true")
        assert text[true_name] == f"{prompt} {rows[number - 1]['object']}"
    assert len(spans[FALSE]) == 120  # nothing false can be said with the one object of the third relation
    assert len({text[name].split()[0] for name in spans[TRUE]}) == 2  # both templates are drawn
    assert len(set(Counter(spans[FALSE].values()))) == 9 + 3


def test_a_seed_draws_the_same_facts_again(tmp_path: Path):
    write(tmp_path / "lre_relations.jsonl", lre("river", 110, 9) + lre("sea", 110, 9))
    told: list[int] = []
    first = relations(tmp_path, BuildOptions(seed=1, most=20, progress=told.append))
    assert first == relations(tmp_path, BuildOptions(seed=1, most=20)) and sum(told) == 220
    assert first.documents != relations(tmp_path, BuildOptions(seed=2, most=20)).documents


def test_the_papers_rules_for_relations(tmp_path: Path):
    write(tmp_path / "pararel_facts.jsonl", pararel("P9", "sea", 2_200) + pararel("P8", "hill", 100))
    labelled = relations(tmp_path, BuildOptions(paper_rules=True))
    assert labelled.features == (TRUE,) and len(labelled.documents) == 2 * 2_300
    rules = SamplingRules().adapted(labelled.rules, {})
    assert (rules.split_by, rules.fractions, rules.pooling, rules.anchor) == ("row", (0.5, 0.2, 0.3), "last", "end")


@pytest.mark.parametrize(
    ("stem", "change", "message"),
    [
        ("pararel_facts", {"target_false": ""}, "pararel_facts.jsonl, row 1 has no 'target_false'"),
        ("pararel_facts", {"subject": 7}, "pararel_facts.jsonl, row 1 has no 'subject'"),
        ("lre_relations", {"object": None}, "lre_relations.jsonl, row 1 has no 'object'"),
        ("lre_relations", {"prompt_templates": ["no place"]}, "row 1: prompt_templates is not a list of texts with {}"),
        ("lre_relations", {"prompt_templates": []}, "row 1: prompt_templates is not a list"),
    ],
)
def test_bad_facts_are_named(tmp_path: Path, stem: str, change: Fact, message: str):
    row = pararel("P9", "sea", 1)[0] if stem == "pararel_facts" else lre("river", 1, 1)[0]
    write(tmp_path / f"{stem}.jsonl", [row | change])
    with pytest.raises(InputError, match=message):
        relations(tmp_path, BuildOptions())


def test_folders_without_relations(tmp_path: Path):
    with pytest.raises(InputError, match="holds neither pararel_facts"):
        relations(tmp_path, BuildOptions())
    write(tmp_path / "lre_relations.jsonl", lre("only", 2, 1))
    with pytest.raises(InputError, match="no false targets and no two relations of 100 facts"):
        relations(tmp_path, BuildOptions())


def corpus(folder: Path, kinds: str) -> Path:
    for stem, n in (("train", 30), ("valid", 10), ("test", 10)):
        rows: list[Fact] = [
            {"id": f"{stem}{i}", "doc": f"d{stem}{i // 2}", "text": f"Text {i}.", "distribution": kinds[i % len(kinds)]}
            for i in range(n)
        ]
        write(folder / f"{stem}.jsonl", rows)
    return folder


def test_positions_are_asked_of_all_kinds_of_text(tmp_path: Path):
    place = corpus(tmp_path / "corpus", "zyxwv")
    told: list[int] = []
    labelled = sequence_position(place, BuildOptions(most=8, progress=told.append))
    assert sum(told) == 50 and labelled.level == "token"
    assert labelled.features == () and labelled.numbers == ("position", "log2_position")
    assert Counter(document.split for document in labelled.documents) == dict.fromkeys(Split, 8)
    kinds = {int(document.id.strip("trainvldes")) % 5 for document in labelled.documents}
    assert len(kinds) == 5
    assert labelled == sequence_position(place, BuildOptions(most=8))
    assert labelled.documents != sequence_position(place, BuildOptions(most=8, seed=1)).documents
    rules = SamplingRules().adapted(labelled.rules, {})
    assert rules.full_windows_only and rules.skip_first == 0 and rules.window == SamplingRules().window


def test_the_papers_positions_come_from_the_first_kinds_of_the_alphabet(tmp_path: Path):
    place = corpus(tmp_path / "corpus", "zyxwv")
    labelled = sequence_position(place, BuildOptions(most=12, paper_rules=True))
    assert [document.id for document in labelled.documents] == [
        *(f"train{i}" for i in range(4, 30, 5)), "valid4", "valid9", "test4", "test9", "train3", "train8",
    ]  # fmt: skip
    assert {document.split for document in labelled.documents} == {None}
    rules = SamplingRules().adapted(labelled.rules, {})
    assert (rules.window, rules.max_rows, rules.split_by) == (1_024, 50_000, "row")


def test_positions_need_a_corpus(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no \.jsonl file"):
        sequence_position(tmp_path, BuildOptions())


@pytest.mark.real_data
def test_real_relations(real_data: Path):
    labelled = relations(real_data / "facts", BuildOptions())
    spans = spans_of(labelled)
    assert len(spans[TRUE]) == len(spans[FALSE]) == 2_000
    assert len(labelled.features) == 1 + 38 + 17  # of 39 and 40 relations these have 100 facts
    assert min(len(spans[feature]) for feature in labelled.features) >= 100
    assert "relation_P19_place_of_birth" in labelled.features and "relation_person_mother" in labelled.features
    texts = {document.text for document in labelled.documents if document.id.endswith("/true")}
    false = [document.text for document in labelled.documents if document.id.endswith("/false")]
    assert not texts.intersection(false)


@pytest.mark.real_data
def test_real_positions(real_data: Path):
    labelled = sequence_position(real_data / "corpus", BuildOptions(most=100))
    assert len(labelled.documents) == 300
    assert len({document.source for document in labelled.documents}) > 30
