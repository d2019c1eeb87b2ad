"""Compound words: contexts by hand and by brute force, sampling, both layouts, the real corpus."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.sources import compound_words as module
from sparse_probing.datasets.sources.compound_words import CHARACTERS, CONTEXTS, PAPER_PAIRS, compound_words
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError
from sparse_probing.records import Split

SCHOOL = (("high", "school"),)


def write(folder: Path, texts: list[str], file: str = "train.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        {"id": f"r{i}", "doc": f"d{i}", "text": text, "source": "here", "license": "CC0"}
        for i, text in enumerate(texts)
    ]
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def contexts(folder: Path, text: str, *, paper_rules: bool = False, pairs: tuple = SCHOOL) -> list[tuple[str, str]]:
    """Label and probed word of every context of one text."""
    place = write(folder, [text])
    found = module._search(place, BuildOptions(paper_rules=paper_rules), pairs)
    return [(span.label, document.text[span.start :]) for document in found for span in document.spans]


POSITIVE, SECOND, FIRST = "high-school", "high-school:second_only", "high-school:first_only"


@pytest.mark.parametrize(
    ("text", "ours", "papers"),
    [
        ("A High School stands", [(POSITIVE, "School")], [(POSITIVE, "School")]),
        ("a high-school girl", [(POSITIVE, "school")], [(FIRST, "-"), (SECOND, "school")]),
        ("the high\n  school bell", [(POSITIVE, "school")], [(SECOND, "school")]),
        ("so high.\n\nSchool ended", [(SECOND, "School")], [(FIRST, "."), (SECOND, "School")]),
        ("so high\n\nSchool ended", [(SECOND, "School")], [(SECOND, "School")]),
        ("high (school) walls", [(SECOND, "school")], [(FIRST, "("), (SECOND, "school")]),
        ("old school, high walls", [(SECOND, "school"), (FIRST, "walls")], [(SECOND, "school"), (FIRST, "walls")]),
        ("high high school", [(FIRST, "high"), (POSITIVE, "school")], [(FIRST, "high"), (POSITIVE, "school")]),
        ("highschool schools high_school higher", [], []),
        ("very high", [], []),
        ("school's out", [(SECOND, "school")], [(SECOND, "school")]),
        ("İ HIGH SCHOOL", [(POSITIVE, "SCHOOL")], [(POSITIVE, "SCHOOL")]),
    ],
)
def test_contexts_by_hand(tmp_path: Path, text: str, ours: list, papers: list) -> None:
    assert sorted(contexts(tmp_path / "c", text)) == sorted(ours)
    assert sorted(contexts(tmp_path / "c", text, paper_rules=True)) == sorted(papers)


def test_one_word_serves_several_pairs(tmp_path: Path) -> None:
    pairs = (("public", "health"), ("mental", "health"), ("social", "media"), ("social", "security"))
    assert contexts(tmp_path / "c", "public health", pairs=pairs) == [
        ("public-health", "health"),
        ("mental-health:second_only", "health"),
    ]
    assert contexts(tmp_path / "c", "social media", pairs=pairs) == [
        ("social-security:first_only", "media"),
        ("social-media", "media"),
    ]


WORDS = st.lists(st.sampled_from(["high", "School", "social", "media", "security", "walls", "of"]), max_size=12)


@settings(max_examples=100, deadline=None)
@given(WORDS)
def test_contexts_by_brute_force(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    pairs = (("high", "school"), ("social", "media"), ("social", "security"))
    expected = []
    for first, second in pairs:
        for before, word in pairwise(["", *words]):
            is_first, is_second = before.lower() == first, word.lower() == second
            if is_first or is_second:
                kind = "" if is_first and is_second else ":second_only" if is_second else ":first_only"
                expected.append((f"{first}-{second}{kind}", word))
    found = contexts(tmp_path_factory.getbasetemp() / "brute", " ".join(words), pairs=pairs)
    assert sorted(found) == sorted(expected)


def test_window_ends_with_the_word_and_begins_at_one(tmp_path: Path) -> None:
    filler = "".join(f"word{i} " for i in range(200))
    place = write(tmp_path / "c", [f"{filler}high school {filler}", "x" * 900 + "-high school", "School"])
    long, endless, alone = module._search(place, BuildOptions(), SCHOOL)
    assert long.text.endswith(" high school") and re.match(r"word\d+ ", long.text)
    assert CHARACTERS < len(long.text) <= CHARACTERS + len("high school")
    assert endless.text == "x" * (CHARACTERS - 1) + "-high school"  # no blank to begin at; the compound stays whole
    assert (alone.text, alone.spans[0].start, alone.spans[0].end) == ("School", 0, 6)
    assert (long.group, long.source, long.licence) == ("d0", "here", "CC0")


def texts_of(compounds: int, others: int) -> list[str]:
    return [
        *(f"Number {i} went to high school." for i in range(compounds)),
        *(f"In valley {i} the school burned and high waters came." for i in range(others)),
    ]


def counts(labelled: LabelledText) -> Counter[str]:
    return Counter(span.label for document in labelled.documents for span in document.spans)


def test_two_negatives_of_either_kind_for_each_positive(tmp_path: Path) -> None:
    labelled = compound_words(write(tmp_path / "c", texts_of(12, 60)), BuildOptions())
    assert counts(labelled) == {POSITIVE: 12, SECOND: 24, FIRST: 24}
    assert labelled.features == ("high-school",)
    assert labelled.contrasts == {"high-school": (SECOND, FIRST)}
    assert labelled.level == "span" and labelled.near_duplicates == "group"
    assert all(
        len({(s.start, s.end) for s in d.spans}) == 1 and d.spans[0].end == len(d.text) for d in labelled.documents
    )
    assert {d.split for d in labelled.documents} == {Split.TRAIN}
    assert len({d.id for d in labelled.documents}) == len(labelled.documents)


def test_most_and_the_papers_rules(tmp_path: Path) -> None:
    place = write(tmp_path / "c", texts_of(30, 80))
    assert counts(compound_words(place, BuildOptions(most=15))) == {POSITIVE: 15, SECOND: 30, FIRST: 30}
    paper = compound_words(place, BuildOptions(paper_rules=True))
    assert counts(paper) == {POSITIVE: 30, SECOND: 80, FIRST: 80}  # negatives are not limited by the positives
    assert {d.split for d in paper.documents} == {None}
    assert paper.rules["fractions"] == (0.5, 0.2, 0.3) and paper.rules["full_windows_only"]


def test_same_seed_same_sample(tmp_path: Path) -> None:
    place = write(tmp_path / "c", texts_of(20, 60))

    def ids(seed: int) -> list[str]:
        return [d.id for d in compound_words(place, BuildOptions(seed=seed, most=10)).documents]

    assert ids(0) == ids(0)
    assert len({frozenset(ids(seed)) for seed in range(5)}) == 5


def test_text_that_recurs_is_taken_once(tmp_path: Path) -> None:
    texts = [*texts_of(12, 0), *["Our public health office."] * 9, *(f"Law {i}: public health." for i in range(9))]
    pairs = (("high", "school"), ("public", "health"), ("mental", "health"))
    labelled = compound_words(write(tmp_path / "c", texts), BuildOptions(), pairs)
    (office,) = (d for d in labelled.documents if d.text == "Our public health")
    assert (office.spans[0].label, office.group) == ("public-health", office.id.split(":")[0].replace("r", "d"))
    assert "mental-health is left out: 0 context(s) here, at least 10 are needed." in labelled.notes


def test_pairs_without_enough_text(tmp_path: Path) -> None:
    texts = [*texts_of(10, 0), *(f"The prime factors of {i}." for i in range(9))]
    labelled = compound_words(write(tmp_path / "c", texts), BuildOptions())
    assert labelled.features == ("high-school",)
    assert len(labelled.notes) == len(PAPER_PAIRS) - 1
    assert "prime-factors is left out: 9 context(s) here, at least 10 are needed." in labelled.notes
    assert not any("prime" in span.label for d in labelled.documents for span in d.spans)
    with pytest.raises(InputError, match="holds at most 9 contexts of any compound"):
        compound_words(write(tmp_path / "few", texts_of(9, 30)), BuildOptions())


def test_papers_pairs() -> None:
    assert len(PAPER_PAIRS) == len(set(PAPER_PAIRS)) == 21
    assert all(word.islower() for pair in PAPER_PAIRS for word in pair)


def write_contexts(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    with gzip.open(folder / CONTEXTS, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def ready(kind: str, text: str, number: int, split: str = "valid") -> dict:
    return {
        "compound": "tide pool",
        "kind": kind,
        "text": text,
        "target": text.split()[-1],
        "doc": f"d{number}",
        "split": split,
    }


def test_ready_contexts_with_pairs_of_their_own(tmp_path: Path) -> None:
    rows = [
        *(ready("bigram", f"Crab {i} left its tide pool", i) for i in range(11)),
        *(ready("second_only", f"Child {i} left the pool", i) for i in range(30)),
        *(ready("first_only", f"Gull {i} saw the tide turn", i, "test") for i in range(5)),
    ]
    seen: list[int] = []
    labelled = compound_words(write_contexts(tmp_path / "n", rows), BuildOptions(progress=seen.append))
    assert sum(seen) == 46
    assert labelled.features == ("tide-pool",)
    assert counts(labelled) == {"tide-pool": 11, "tide-pool:second_only": 22, "tide-pool:first_only": 5}
    assert all(
        d.text[d.spans[0].start :] in ("pool", "turn") and d.text[d.spans[0].start - 1] == " "
        for d in labelled.documents
    )
    assert {(d.spans[0].label, d.split) for d in labelled.documents} == {
        ("tide-pool", Split.VALIDATION),
        ("tide-pool:second_only", Split.VALIDATION),
        ("tide-pool:first_only", Split.TEST),
    }
    assert "high-school is left out: 0 context(s) here, at least 10 are needed." in labelled.notes


@pytest.mark.parametrize(
    "damage", [{"kind": "third_only"}, {"target": "beach"}, {"target": ""}, {"compound": None}, {"text": None}]
)
def test_malformed_context(tmp_path: Path, damage: dict) -> None:
    good = ready("bigram", "Crab left its tide pool", 0)
    place = write_contexts(tmp_path / "n", [good, {**good, **damage}])
    with pytest.raises(InputError, match=r"compound_contexts.jsonl.gz, row 2: a context needs"):
        compound_words(place, BuildOptions())


@pytest.mark.real_data
def test_real_contexts(real_data: Path) -> None:
    labelled = compound_words(real_data / "ngrams", BuildOptions())
    assert len(labelled.features) == 51
    found = counts(labelled)
    for name in labelled.features:
        assert 10 <= found[name] <= 200
        assert 0 < found[f"{name}:second_only"] <= 2 * 200 and 0 < found[f"{name}:first_only"] <= 2 * 200
    assert all({(s.start, s.end) for s in d.spans} == {(d.spans[0].start, len(d.text))} for d in labelled.documents)


@pytest.mark.real_data
def test_real_corpus(real_data: Path) -> None:
    labelled = compound_words(real_data / "corpus", BuildOptions(), (("high", "school"), ("human", "rights")))
    found = counts(labelled)
    assert found["high-school"] > 300 and found["human-rights"] > 500
    for document in labelled.documents:
        for span in document.spans:
            first, second = span.label.partition(":")[0].split("-")
            compound = re.search(rf"\b{first}(-|\s+){second}\Z", document.text.lower())
            assert (compound is not None) == (":" not in span.label), document.text[-60:]
