"""Facts about people: on tables and texts written here, and on the real tables where they are."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.sources.name_search import NameIndex
from sparse_probing.datasets.sources.people import CLASSES, FEATURES, TEMPLATES, people
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError

WORDS = ["Ann", "Bo", "Bo-Lee", "Élan", "de", "J.", "X"]


def brute_force(names: list[str], text: str) -> list[tuple[int, str]]:
    hits, at = [], 0
    while at < len(text):
        patterns = (rf"(?<!\w)(?<!\w-){re.escape(name)}(?!\w|-\w)" for name in names)
        here = [match[0] for pattern in patterns if (match := re.compile(pattern).match(text, at))]
        if here:
            hits.append((at, max(here, key=len)))
        at += len(hits[-1][1]) if here else 1
    return hits


@given(
    names=st.lists(st.lists(st.sampled_from(WORDS), min_size=2, max_size=4).map(" ".join), max_size=6),
    pieces=st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from([" ", " ", " ", "-", "", ". ", "\n"])), max_size=12),
)  # fmt: skip
def test_names_are_found_as_by_brute_force(names: list[str], pieces: list[tuple[str, str]]):
    names = [name for name in names if name[0].isupper()]
    text = "".join(word + gap for word, gap in pieces)
    assert list(NameIndex(names).find(text)) == brute_force(names, text)


def test_the_longest_name_at_word_boundaries():
    index = NameIndex(["Ada Lind", "Ada Lind Moe", "Lind Moe", "J. Q. Ray"])
    text = "Ada Lind Moe met Ada Lind, Ada Linda, MacAda Lind, Ada Lind-Berg, O-Ada Lind and J. Q. Ray's Ada Lind"
    found = list(index.find(text))
    assert [name for _, name in found] == ["Ada Lind Moe", "Ada Lind", "J. Q. Ray", "Ada Lind"]
    assert all(text.startswith(name, start) for start, name in found)


def table(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def corpus(folder: Path, *texts: str) -> None:
    folder.mkdir()
    rows = [
        {"id": f"r{i}", "doc": f"d{i}", "text": text, "source": "a shelf", "license": "CC0"}
        for i, text in enumerate(texts)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def name_of(document: Document) -> str:
    return document.id.split("/")[0]


def labels_of(labelled: LabelledText) -> dict[str, set[str]]:
    return {name_of(document): {span.label for span in document.spans} for document in labelled.documents}


FACTS = """\
name,sex_or_gender,political_party,is_alive,birth_year,death_year,is_actor,is_singer,is_politician,sport
Orla Vennick,female,,,,,1,,,
Tomas Quill,male,,,,,,1,,
Petra Halloway,F,Democratic Party,,,,,,1,
Niels Abernathy,Male,Republican,,,,,,1,
Wanda Ostrow,,Republican,,,,1,,,
Viktor Slade,,Republican,,,,,,0,
Hilde Marrow,,,1,1950,,,,,football
Bruno Castell,,,0,1900,1990,,,,Basketball player
Greta Lindqvist,,,,1900,,,,,soccer
Ivo Sandoval,,,0,1901,1979,,,,ice hockey
Marta Kilbride,X,Whig,,,,1,1,,curling
"""


def test_each_property_has_its_classes(tmp_path: Path):
    table(tmp_path / "facts", "people_a.csv", FACTS)
    labelled = people(tmp_path / "facts", BuildOptions())
    assert labels_of(labelled) == {
        "Orla Vennick": {"gender_female", "occupation_actor"},
        "Tomas Quill": {"gender_male", "occupation_singer"},
        "Petra Halloway": {"gender_female", "party_democratic", "occupation_politician"},
        "Niels Abernathy": {"gender_male", "party_republican", "occupation_politician"},
        "Wanda Ostrow": {"occupation_actor"},  # a party is asked of politicians
        "Hilde Marrow": {"alive_true", "sport_american_football", "occupation_athlete"},
        "Bruno Castell": {"alive_false", "sport_basketball", "occupation_athlete"},
        "Greta Lindqvist": {"sport_association_football", "occupation_athlete"},  # no death year is not *alive*
        "Ivo Sandoval": {"alive_false", "sport_ice_hockey", "occupation_athlete"},
    }
    nobody = {"occupation_researcher", "occupation_journalist", "sport_baseball"}
    assert labelled.features == tuple(feature for feature in FEATURES if feature not in nobody)
    assert labelled.contrasts["gender_male"] == ("gender_female",)
    others = {"occupation_politician", "occupation_singer", "occupation_athlete"}
    assert set(labelled.contrasts["occupation_actor"]) == others
    assert set(labelled.contrasts) == set(labelled.features)
    assert "occupation: 1 names have several values and are left out." in labelled.notes
    assert any("nobody for sport_baseball: fill the column `sport`" in note for note in labelled.notes)


def test_the_seventeen_features_of_the_paper():
    assert [len(classes) for classes in CLASSES.values()] == [2, 2, 2, 6, 5] and len(set(FEATURES)) == 17


def test_namesakes_that_disagree_have_no_value(tmp_path: Path):
    table(tmp_path, "people_a.csv", "name,is_male,is_alive\nOrla Vennick,0,1\nTomas Quill,1,0\nLou Brandt Ash,1,1\n")
    second = "Lou  Brandt Ash,female,\nOrla Vennick,Female,2001\nEva Tarn Hill,Female,\nUwe Tarn Hill,Male,\n"
    table(tmp_path, "people_b.csv", "name,gender,death_year\n" + second)
    labelled = people(tmp_path, BuildOptions())
    assert labels_of(labelled) == {
        "Orla Vennick": {"gender_female"},
        "Tomas Quill": {"gender_male", "alive_false"},
        "Lou Brandt Ash": {"alive_true"},
        "Eva Tarn Hill": {"gender_female"},
        "Uwe Tarn Hill": {"gender_male"},
    }
    for document in labelled.documents:
        check_ends_in_surname(document)  # "Brandt Ash" is a surname
    assert {note for note in labelled.notes if "several" in note} == {
        "gender: 1 names have several values and are left out.",
        "alive: 1 names have several values and are left out.",
    }


def test_a_file_with_one_class_is_not_compared_with_other_files(tmp_path: Path):
    mixed = "Orla Vennick,baseball\nTomas Quill,basketball\nNiels Abernathy,baseball\n"
    table(tmp_path, "people_mixed.csv", "name,sport\n" + mixed)
    table(tmp_path, "people_one.csv", "name,sport\nPetra Halloway,basketball\nNiels Abernathy,basketball\n")
    labelled = people(tmp_path, BuildOptions())
    assert set(labels_of(labelled)) == {"Orla Vennick", "Tomas Quill"}  # and Niels Abernathy is two people
    note = "sport: people_one.csv knows basketball only and is not used, for the file would be the label."
    assert note in labelled.notes


def test_names_that_are_no_plain_full_names_are_left_out(tmp_path: Path):
    rows = "Al Gray,1\nMononymous,1\nLeo Hart Vane,1\nLeo Hart Vane; Jr.,1\nof Brandt Vane,1\nMia Hart Vane,0\n"
    table(tmp_path, "people.csv", "name,is_male\n" + rows.replace("Leo Hart Vane; Jr.", '"Leo Hart Vane, Jr."'))
    assert set(labels_of(people(tmp_path, BuildOptions()))) == {"Leo Hart Vane", "Mia Hart Vane"}


def check_ends_in_surname(document: Document) -> None:
    assert document.text.endswith(name_of(document)) and document.split is None
    for span in document.spans:
        assert document.text[span.start : span.end] == name_of(document).split(" ", 1)[1]
        assert span.end == len(document.text)


def test_names_end_neutral_sentences(tmp_path: Path):
    for template in TEMPLATES:
        words = set(re.findall(r"\w+", template.lower()))
        assert template.endswith(" {name}") and template.count("{") == 1
        assert not words & {
            "he",
            "she",
            "his",
            "her",
            "mr",
            "mrs",
            "late",
            "died",
            "born",
            "actor",
            "player",
            "senator",
        }
    table(tmp_path, "people.csv", FACTS)
    labelled = people(tmp_path, BuildOptions())
    texts: dict[str, set[str]] = {}
    for document in labelled.documents:
        check_ends_in_surname(document)
        texts.setdefault(name_of(document), set()).add(document.text.removesuffix(name_of(document)) + "{name}")
    assert all(len(of_person) == 2 and of_person <= set(TEMPLATES) for of_person in texts.values())
    assert len({frozenset(of_person) for of_person in texts.values()}) > 1
    assert labelled.level == "span" and labelled.near_duplicates == "by_design"


def test_contexts_from_a_corpus_beside_the_facts(tmp_path: Path):
    long = "word " * 400 + "then came Orla Vennick, and later Orla Vennick again; Tomas Quill too."
    table(tmp_path / "facts", "people.csv", FACTS)
    corpus(tmp_path / "corpus", long, "x" * 3000 + ": Orla Vennick", "Nobody, Tomas Quillan")
    labelled = people(tmp_path / "facts", BuildOptions())
    real = [document for document in labelled.documents if document.source]
    assert Counter(name_of(document) for document in real) == {"Orla Vennick": 2, "Tomas Quill": 1}
    for document in real:
        check_ends_in_surname(document)
        assert document.licence == "CC0" and 900 < len(document.text) <= 1_000 + len(name_of(document))
        assert document.text in long or document.text in "x" * 3000 + ": Orla Vennick"
        assert document.text.startswith(("word ", "xxx"))
    assert any(note.startswith("2 of 9 names were found in the corpus 'corpus' (4 places)") for note in labelled.notes)
    assert len({document.id for document in labelled.documents}) == len(labelled.documents)
    group_of = {name_of(document): document.group for document in labelled.documents}
    assert group_of["Orla Vennick"] == group_of["Tomas Quill"], "they stand in one document, which must be in one split"
    assert len(set(group_of.values())) == len(group_of) - 1
    inside = tmp_path / "other"
    table(inside, "people.csv", FACTS)
    (tmp_path / "corpus").rename(inside / "corpus")
    assert people(inside, BuildOptions()).documents == labelled.documents


PAPER_FACTS = """\
name,gender,death_year,is_alive,birth_year,extra
Orla Vennick,female,1970,,,
Ruth Behindley,female,1970,,,
Una Oncesaid,female,1970,,,
Tomas Quill,male,,1,1960,
Niels Abernathy,male,,1,,much
Petra Halloway,female,1981,0,1900,more
"""


def test_the_papers_rules(tmp_path: Path):
    table(tmp_path / "facts", "people.csv", PAPER_FACTS)
    with pytest.raises(InputError, match="paper_rules take names from running text"):
        people(tmp_path / "facts", BuildOptions(paper_rules=True))
    pair = "By Orla Vennick, and by Ruth Behindley."  # only the first of a group of 500 names is found in a document
    alone = ["Tomas Quill", "Niels Abernathy", "Petra Halloway"] * 2
    corpus(tmp_path / "corpus", pair, pair, "Una Oncesaid", *alone)
    labelled = people(tmp_path / "facts", BuildOptions(paper_rules=True))
    assert labels_of(labelled) == {
        "Petra Halloway": {"gender_female"},  # died after 1980
        "Tomas Quill": {"gender_male", "alive_true"},
        "Niels Abernathy": {"gender_male"},  # no birth year
        "Orla Vennick": {"gender_female", "alive_false"},
    }
    assert name_of(labelled.documents[0]) == "Petra Halloway"  # all six cells are filled
    assert len(labelled.documents) == 4 and all(document.source for document in labelled.documents)
    first = people(tmp_path / "facts", BuildOptions(paper_rules=True, most=1))
    assert labels_of(first)["Orla Vennick"] == {"alive_false"}  # the class of women is full


def many(folder: Path) -> Path:
    names = [f"{first}{a} {last}er" for first in ("Ola", "Ina", "Udo") for a in "bcdfg" for last in ("Brandt", "Holm")]
    rows = [f"{name},{'male' if i % 3 else 'female'}\n" for i, name in enumerate(names)]
    table(folder, "people.csv", "name,gender\n" + "".join(rows))
    return folder


def test_a_seed_draws_the_same_people_again(tmp_path: Path):
    place = many(tmp_path)
    drawn = people(place, BuildOptions(seed=3, most=4))
    assert drawn == people(place, BuildOptions(seed=3, most=4))
    counts = Counter(label for labels in labels_of(drawn).values() for label in labels)
    assert counts == {"gender_male": 4, "gender_female": 4}
    others = [set(labels_of(people(place, BuildOptions(seed=seed, most=4)))) for seed in range(4)]
    assert any(names != others[0] for names in others)


def test_progress_counts_people_and_texts_and_packed_files_are_read(tmp_path: Path):
    facts = tmp_path / "facts"
    facts.mkdir()
    with gzip.open(facts / "people.csv.gz", "wt", encoding="utf-8") as file:
        file.write(FACTS)
    corpus(tmp_path / "corpus", "One text.", "Two texts.")
    told: list[int] = []
    people(facts, BuildOptions(progress=told.append))
    assert sum(told) == 11 + 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title,is_male\nOrla Vennick,0\n", "people.csv has no column 'name': it has 'title', 'is_male'"),
        ("name,is_male\nOrla Vennick,perhaps\n", "people.csv, row 1: is_male is 'perhaps'; write 1, 0 or nothing"),
        ("name,death_year\nOrla Vennick,long ago\n", "people.csv, row 1: death_year is 'long ago'"),
        ("name,is_male\nOrla Vennick,0\n", "no property of which two classes are known: .*gender: people.csv knows female only"),
    ],
)  # fmt: skip
def test_bad_tables_are_named(tmp_path: Path, text: str, message: str):
    table(tmp_path, "people.csv", text)
    with pytest.raises(InputError, match=message):
        people(tmp_path, BuildOptions())


def test_a_folder_without_people(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no people\*\.csv file"):
        people(tmp_path, BuildOptions())


def test_rules_are_sampling_rules(tmp_path: Path):
    table(tmp_path / "facts", "people.csv", PAPER_FACTS)
    corpus(tmp_path / "corpus", *["Tomas Quill", "Petra Halloway"] * 2)
    ours, papers = (
        SamplingRules().adapted(people(tmp_path / "facts", BuildOptions(paper_rules=paper)).rules, {})
        for paper in (False, True)
    )
    assert (ours.pooling, ours.anchor, ours.window, ours.split_by) == ("max", "end", 128, "given")
    assert (papers.split_by, papers.fractions) == ("row", (0.5, 0.2, 0.3))


@pytest.mark.real_data
def test_real_people(real_data: Path, tmp_path: Path):
    facts, small = tmp_path / "real", tmp_path / "corpus"
    facts.mkdir()
    small.mkdir()
    for path in (real_data / "facts").glob("people*"):
        (facts / path.name).symlink_to(path)
    (small / "test.jsonl.zst").symlink_to(real_data / "corpus" / "test.jsonl.zst")
    labelled = people(facts, BuildOptions())
    assert set(FEATURES) - set(labelled.features) == {"sport_association_football", "sport_ice_hockey"}
    groups: dict[str, set[str]] = {}
    for document in labelled.documents:
        check_ends_in_surname(document)
        for span in document.spans:
            groups.setdefault(span.label, set()).add(name_of(document))
    assert min(len(names) for names in groups.values()) >= 500
    assert len(groups["gender_female"]) == len(groups["alive_true"]) == 3_000
    assert {"Brett Favre", "Derrick Mason"} & groups["sport_american_football"]
    assert sum(document.source is not None for document in labelled.documents) > 30
