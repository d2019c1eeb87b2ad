"""Labels that people bring: by hand, against brute force, and every way to get them wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_probing.datasets.cells import decode_tags
from sparse_probing.datasets.label_columns import LabelColumn, label_column
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.own_labels import (
    labelled_by,
    labelled_documents,
    labelled_spans,
    labelled_tags,
    parse_labeller,
)
from sparse_probing.datasets.readers import Row
from sparse_probing.datasets.templates import filled_templates
from sparse_probing.errors import InputError
from sparse_probing.records import Split


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labels(labelled: LabelledText) -> list[dict[str, bool]]:
    return [dict(document.labels) for document in labelled.documents]


def spanned(labelled: LabelledText) -> list[list[tuple[str, str]]]:
    """Text and label of each span."""
    return [[(d.text[s.start : s.end], s.label) for s in d.spans] for d in labelled.documents]


# ---- label columns -------------------------------------------------------------------------------------------------


def test_categories_become_one_feature_each():
    column = label_column("c", ["x", "y", None, "z", "x"])
    assert column.features == ("c=x", "c=y", "c=z")
    x, y, z = ({f"c={name}": name == mine for name in "xyz"} for mine in "xyz")
    assert column.labels == [x, y, {}, z, x]


@pytest.mark.parametrize(
    ("values", "positive", "feature", "expected"),
    [
        (["house"] * 3 + ["senate", None], None, "c=senate", [False] * 3 + [True, None]),
        (["house"] * 3 + ["senate", None], " House", "c=house", [True] * 3 + [False, None]),
        (["b", "a"], None, "c=a", [False, True]),  # as frequent: the first in sorted order
        ([1, 2, 2.0], None, "c=1", [True, False, False]),
        ([1, 2, 2.0], "2.0", "c=2", [False, True, True]),
        (["yes", 0, "no"], "no", "c=no", [False, True, True]),
        (["yes", 0, "no"], "1", "c", [True, False, False]),
    ],
)
def test_two_values_are_one_feature(values, positive, feature, expected):
    column = label_column("c", values, positive=positive)
    assert column.features == (feature,)
    assert [row.get(feature) for row in column.labels] == expected
    assert any("--positive" in note for note in column.notes) == (positive is None)


def test_the_note_says_which_of_two_values_is_the_feature():
    (note,) = label_column("c", ["house"] * 3 + ["senate"]).notes
    assert note == (
        "label column 'c' has two values and is one feature, 'c=senate' (1 of 4 rows, the rarer value); 'house' is its opposite "
        "(--positive names another)."
    )


@pytest.mark.parametrize(
    ("labels", "positive", "message"),
    [
        (["c"], ["mayor"], r"column 'c' has no value 'mayor': --positive takes 'house' or 'senate'"),
        (["y"], ["maybe"], r"column 'y' has no value 'maybe': --positive takes '0' or '1'"),
        (["t"], ["x"], r"'t' has 3 values, each of which is a feature: --positive \('x'\) is for columns of two"),
        (["n"], ["0.5"], r"'n' is read as numbers"),
        (["c", "y"], ["house"], r"which column it is a value of: write c=VALUE, y=VALUE"),
        (["c"], ["house", "c=senate"], r"names two values of the column 'c'"),
    ],
)
def test_a_value_that_is_none_of_two_is_refused(labels, positive, message):
    rows: list[Row | str] = [
        {"text": f"text {i}", "c": ["house", "senate"][i % 2], "y": i % 2, "t": "xyz"[i % 3], "n": i + 0.5}
        for i in range(6)
    ]
    with pytest.raises(InputError, match=message):
        labelled_documents(rows, labels=labels, positive=positive)
    named = labelled_documents(rows, labels=["c", "y"], positive=["y=0", "c=house"])
    assert named.features == ("c=house", "y=0")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, "no", "YES ", 0, None, "n/a", "1.0"], [True, False, True, False, None, None, True]),
        (["t", "F", "", "NaN", float("nan"), "１"], [True, False, None, None, None, True]),
    ],
)
def test_boolean_words_become_one_feature(values, expected):
    column = label_column("c", values)
    assert column.features == ("c",)
    assert [row.get("c") for row in column.labels] == expected


def test_spellings_of_a_label_are_merged_and_reported():
    values = ["Positive"] * 5 + ["POSITIVE "] + ["positive"] * 3 + ["Ｐｏｓｉｔｉｖｅ", "neg", "café", "cafe\u0301"]
    column = label_column("s", values)
    assert column.features == ("s=Positive", "s=café", "s=neg")
    assert [next((f for f, yes in row.items() if yes), "") for row in column.labels] == (
        ["s=Positive"] * 10 + ["s=neg", "s=café", "s=café"]
    )
    assert column.notes == (
        "label column 's': 'POSITIVE ' (1), 'positive' (3), 'Ｐｏｓｉｔｉｖｅ' (1) were read as 'Positive' (5).",
        "label column 's': 'cafe\u0301' (1) were read as 'café' (1).",
    )


def test_missing_words_are_counted():
    column = label_column("s", ["a", "", None, " ", "NA", "NA", "Null", "b"], positive="a")
    assert [bool(row) for row in column.labels] == [True] + [False] * 6 + [True]
    assert column.notes == (
        "label column 's': 6 of 8 rows have no label and are not eligible (3 empty, 2 'NA', 1 'Null').",
    )


@pytest.mark.parametrize(
    ("values", "number", "expected"),
    [
        (["0.5", "2", "", "-1e2"], False, [0.5, 2.0, None, -100.0]),
        (list(range(11)), False, [float(i) for i in range(11)]),
        ([1, 2, None], True, [1.0, 2.0, None]),
        (["0", "1"], True, [0.0, 1.0]),
        (list(range(10)), False, []),
        (["1.0", "2.0"], False, []),
        (["1", "2", "three"], False, []),
    ],
)
def test_numbers_become_a_regression_target(values, number, expected):
    column = label_column("n", values, number=number)
    assert list(column.numbers) == expected
    assert bool(column.features) == (not expected)


@pytest.mark.parametrize(
    ("values", "number", "complaint"),
    [
        (["0.5", "1e999"], False, r"row 2: column 'n' holds '1e999'\. Numbers are predicted up to 1e\+150, beyond"),
        ([1, 2, -1e200], True, r"row 3: column 'n' holds '-1e\+200'\. Numbers are predicted up to"),
        (["1e-200", "2e-200"], True, r"the numbers of column 'n' differ by 1e-200 at most, whose square is 0"),
        ([0.5, float("inf")], True, r"row 2: column 'n' holds 'inf', which is no number"),
    ],
)
def test_numbers_whose_squares_overflow_or_vanish_are_refused(values, number, complaint):
    with pytest.raises(InputError, match=complaint):
        label_column("n", values, number=number)


def test_numbers_among_words_are_told():
    assert label_column("n", ["a", "b", "3", "3.5", 4]).notes == (
        "label column 'n' holds numbers among words (3 rows, such as '3'): all of them are read as categories.",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([f"id {i}" for i in range(10_000)], r"10,000 values in 10,000 labelled rows: it names rows and is no label"),
        ([f"id {i}" for i in range(10_000)] * 2, r"has 10,000 different values; at most 200 .* Name another column"),
        ([f"id {i}" for i in range(201)] * 3, r"has 201 different values"),
        ([None, "", "nan"], r"label column 'c' is empty in every row"),
        (["A", "a ", None], r"holds one class only \('a' in every labelled row\)"),
        (["yes", "1", True], r"holds one class only"),
        (["a", ["b"]], r"row 2: label column 'c' holds a list, \['b'\]"),
        (["a", "b", {"x": 1}], r"row 3: label column 'c' holds an object"),
    ],
)
def test_columns_that_cannot_be_labels(values, message):
    with pytest.raises(InputError, match=message):
        label_column("c", values)


def test_two_hundred_categories_are_enough_for_anyone():
    assert len(label_column("c", [f"id {i}" for i in range(200)] * 2).features) == 200


def test_a_word_in_a_column_of_numbers_names_its_row():
    with pytest.raises(InputError, match=r"row 7: column 'n' holds 'many', which is no number"):
        label_column("n", ["1", "many"], number=True, rows=[5, 7])


@given(st.lists(st.sampled_from(["a", "A", "ａ", " a", "b", "B ", "", "NA", "c  d", "C D"]), min_size=1, max_size=30))
def test_merged_spellings_keep_every_row(values):
    try:
        column: LabelColumn = label_column("c", values)
    except InputError as error:
        assert re.search("one class only|empty in every row", str(error))
        return
    true_class = {"a": "a", "ａ": "a", "b": "b", "": None, "na": None, "c d": "c d"}
    expected = [true_class[" ".join(value.lower().split())] for value in values]
    for row, kind in zip(column.labels, expected, strict=True):
        positive = [feature for feature, yes in row.items() if yes]
        assert len(positive) <= (kind is not None)
        assert positive or kind is None or len(column.features) == 1  # the opposite of one of two
        assert set(row) == (set(column.features) if kind else set())
    by_row = [next((f for f, yes in row.items() if yes), "the other" if row else None) for row in column.labels]
    assert len(set(zip(by_row, expected, strict=True))) == len(set(expected))  # a bijection


# ---- documents -----------------------------------------------------------------------------------------------------


def test_a_file_that_nobody_prepared(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_bytes(
        "\ufeff,text,sentiment,stars,author\r\n"
        '0,"Good,\r\nvery ""good"".",Positive,4.5,ann\r\n'
        "1,Bad.,negative,1,ann\r\n"
        "2,,negative,2,bob\r\n"
        "3,Fine.,POSITIVE ,,\r\n"
        "4,Hm.,n/a,3,bob\r\n"
        "5,Nice.,Positive,5,cid\r\n".encode()
    )
    labelled = labelled_documents(path, labels=["sentiment", "stars"], group_column="author")
    assert labelled.category == "reviews"
    assert (labelled.level, labelled.near_duplicates) == ("document", "group")
    assert (labelled.features, labelled.numbers) == (("sentiment=negative",), ("stars",))
    assert [d.text for d in labelled.documents] == ['Good,\r\nvery "good".', "Bad.", "Fine.", "Hm.", "Nice."]
    assert [d.id for d in labelled.documents] == ["1", "2", "4", "5", "6"]
    assert [d.group for d in labelled.documents] == ["ann", "ann", "row 4", "bob", "cid"]
    good, bad = {"sentiment=negative": False}, {"sentiment=negative": True}
    assert labels(labelled) == [good, bad, good, {}, good]
    assert [dict(d.numbers) for d in labelled.documents] == [
        {"stars": 4.5},
        {"stars": 1.0},
        {},
        {"stars": 3.0},
        {"stars": 5.0},
    ]
    assert labelled.notes == (
        "1 of 6 rows have no text and were left out: rows 3.",
        "1 rows have no 'author': each of them is a group of its own.",
        "label column 'sentiment': 1 of 5 rows have no label and are not eligible (1 'n/a').",
        "label column 'sentiment': 'POSITIVE ' (1) were read as 'Positive' (2).",
        "label column 'sentiment' has two values and is one feature, 'sentiment=negative' (1 of 4 rows, the rarer value); "
        "'Positive' is its opposite (--positive names another).",
        "label column 'stars': 1 of 5 rows have no label and are not eligible (1 empty).",
        "label column 'stars' holds 4 different numbers and is read as a regression target.",
    )


def test_rows_in_memory_ids_splits_and_several_columns():
    rows: list[Row | str] = [
        {"text": "a", "y": 1, "z": True, "name": "p", "part": "train"},
        {"text": "b", "y": 2, "z": False, "name": "q", "part": "Valid"},
        {"text": "c", "y": 1, "z": None, "name": None, "part": "test"},
    ]
    labelled = labelled_documents(
        rows, labels=["z"], numbers=["y"], id_column="name", split_column="part", category="mine"
    )
    assert [d.id for d in labelled.documents] == ["p", "q", "3"]
    assert [d.split for d in labelled.documents] == [Split.TRAIN, Split.VALIDATION, Split.TEST]
    assert labels(labelled) == [{"z": True}, {"z": False}, {}]
    assert [dict(d.numbers) for d in labelled.documents] == [{"y": 1.0}, {"y": 2.0}, {"y": 1.0}]
    assert labelled.category == "mine"
    two = labelled_documents(rows, labels=["y", "z"])
    assert labels(two)[2] == {"y=2": False}
    assert labels(two)[0] == {"y=2": False, "z": True}
    assert all(d.split is None for d in two.documents)  # a column is a split only when it is named


def test_a_sample_of_the_rows(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", *({"text": f"t{i}" if i % 5 else "", "y": i % 2} for i in range(100)))
    few = labelled_documents(path, labels=["y"], most=30, seed=1)
    assert len(few.documents) == 30
    assert all(
        (d.text == f"t{int(d.id) - 1}", dict(d.labels)) == (True, {"y": int(d.id) % 2 == 0}) for d in few.documents
    )
    assert few == labelled_documents(path, labels=["y"], most=30, seed=1)
    assert few != labelled_documents(path, labels=["y"], most=30, seed=2)
    assert few.notes == (
        "20 of 100 rows have no text and were left out: rows 1, 6, 11, 16, 21, ....",
        "30 of 80 rows with text were drawn (seed 1).",
    )


def test_minimal_pairs():
    rows: list[Row | str] = [
        {"text": f"{word} {i}", "good": word == "is", "pair": f"p{i}"} for i in range(3) for word in ("is", "are")
    ]
    rows += [{"text": "alone", "good": True, "pair": "p9"}, {"text": "same", "good": True, "pair": "p8"}]
    rows += [{"text": "same too", "good": True, "pair": "p8"}, {"text": "none", "good": False, "pair": None}]
    labelled = labelled_documents(rows, labels=["good"], pair_column="pair")
    assert [d.group for d in labelled.documents] == ["p0", "p0", "p1", "p1", "p2", "p2", "p9", "p8", "p8", "row 10"]
    assert labelled.near_duplicates == "count"
    assert labelled.notes[1:] == (
        "2 of 6 minimal pairs have one member only.",
        "1 of 6 minimal pairs have the same labels on all members: no contrast.",
    )


TWO: list[Row | str] = [{"text": "a", "y": 1, "g": 1}, {"text": "b", "y": 0, "g": 2}]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (TWO, {"labels": ["z"]}, r"has no column 'z'"),
        (
            TWO,
            {"labels": ["y"], "text_column": "tex"},
            r"no column 'tex': did you mean 'text'\? It has 'text', 'y', 'g'. Name the right one with --text-column.$",
        ),
        (
            [{"review": "a", "y": 1}, {"review": "b", "y": 0}],
            {"labels": ["y"]},
            r"has no column 'text': it has 'review', 'y'. Name the right one with --text-column.$",
        ),
        (TWO, {"labels": ["y"], "group_column": "gg"}, r"has no column 'gg': did you mean 'g'\?"),
        (TWO, {"labels": ["y"], "split_column": "s"}, r"has no column 's'"),
        (TWO, {"labels": ["y"], "split_column": "g"}, r"row 1: split '1' is not train, validation"),
        (TWO, {}, r"no label column named"),
        (TWO, {"labels": ["y"], "group_column": "g", "pair_column": "g"}, r"pair column or a group column, not both"),
        ([], {"labels": ["y"]}, r"own labels holds no rows"),
        ([{"text": "", "y": 1}, {"text": None, "y": 0}], {"labels": ["y"]}, r"none of the 2 rows has text"),
        ([*TWO, {"text": 5, "y": 0}], {"labels": ["y"]}, r"row 3: column 'text' holds '5', a int and no text"),
        ([*TWO, {"text": "\ud83d", "y": 0}], {"labels": ["y"]}, r"row 3: '\\ud83d' in .* is half of a character"),
        ([*TWO, {"text": "c", "y": "\ud83d"}], {"labels": ["y"]}, r"row 3: '\\ud83d' in .* is half of a character"),
        ([*TWO, {"text": "c", "g": "\ud83d"}], {"labels": ["y"], "group_column": "g"}, r"row 3: '\\ud83d' in"),
        (TWO, {"labels": ["\udc00"]}, r"a column's name: '\\udc00' in '\\udc00' is half of a character"),
        ([*TWO, {"text": "c", "y": 10**5000}], {"labels": ["y"]}, "row 3: column 'y' holds a number of thousands of digits"),
        ([*TWO, {"text": "c", "y": [0]}], {"labels": ["y"]}, r"own labels: row 3: label column 'y' holds a list"),
        ([*TWO, {"text": "c", "g": 1}], {"labels": ["y"], "id_column": "g"}, r"id '1' more than once \(rows 1, 3\)"),
        ([{"text": "a", "y": "b", "y=b": 1}, {"text": "b", "y": "c", "y=b": 0}], {"labels": ["y", "y=b"]}, r"same name"),
        ("nowhere.csv", {"labels": ["y"]}, r"'nowhere.csv' does not exist"),
    ],
)  # fmt: skip
def test_bad_documents(rows, options, message):
    with pytest.raises(InputError, match=message):
        labelled_documents(rows, **options)


def test_an_option_that_does_not_exist_is_a_bug():
    with pytest.raises(TypeError, match="grup_column"):
        labelled_documents(TWO, labels=["y"], grup_column="g")  # pyright: ignore[reportCallIssue]


# ---- spans ---------------------------------------------------------------------------------------------------------


def test_spans_in_every_spelling(tmp_path):
    first = [{"start": 0, "end": 4, "label": "city"}, {"start": 0, "end": 7, "label": "x"}]
    path = jsonl(
        tmp_path / "s.jsonl",
        {"text": "Rome is old", "spans": first},
        {"text": "I see Oslo", "spans": json.dumps([[6, 10, "city"]])},
        {"text": "nothing here", "spans": []},
        {"text": "nobody looked here", "spans": None},
        {"text": "  ", "spans": []},
    )
    labelled = labelled_spans(path)
    assert spanned(labelled) == [[("Rome", "city"), ("Rome is", "x")], [("Oslo", "city")], []]
    assert (labelled.features, labelled.level, labelled.only_spanned_tokens) == (("city", "x"), "token", False)
    assert labelled_spans(path, level="span").level == "span"
    assert labelled.notes == ("2 of 5 rows have no text or list of spans and were left out: rows 4, 5.",)


def one(start: object, end: object, label: object = "x") -> dict[str, object]:
    return {"start": start, "end": end, "label": label}


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([one(2, 99)], r"row 1: span 2\.\.99 lies outside the text, which has 8 characters"),
        ([one(-1, 2)], r"span -1\.\.2 lies outside"),
        ([one(5, 3)], r"row 1: span 5\.\.3 is reversed"),
        ([one(3, 3)], r"span 3\.\.3 is empty"),
        ([one(0.5, 3)], r'a span needs "start", "end" and "label", the first two whole numbers'),
        ([{"start": 3, "label": "x"}], r'a span needs "start", "end" and "label"'),
        ([7], r'a span needs "start", "end" and "label".*got 7'),
        ([one(1, 3, None)], r"span 1\.\.3 has no label"),
        ([one(4, 8), one(6, 7, "y"), one(0, 5)], r"row 1: spans 0\.\.5 and 4\.\.8 of 'x' overlap: merge them"),
        ([one(4, 8), one(4, 8)], r"spans 4\.\.8 and 4\.\.8 of 'x' overlap"),
        ("{", r"column 'spans' is not a JSON list of spans"),
        (7, r"column 'spans' is not a list of spans"),
        ([], r"holds no labelled span in any row"),
    ],
)
def test_bad_spans_are_refused(tmp_path, spans, message):
    with pytest.raises(InputError, match=message):
        labelled_spans(jsonl(tmp_path / "s.jsonl", {"text": "ab cd ef", "spans": spans}))


def test_one_label_has_nothing_to_be_held_against():
    with pytest.raises(InputError, match=r"one label only \('x'\).*Use --rows tokens"):
        labelled_spans([{"text": "ab cd", "spans": [one(0, 2), one(3, 5)]}], level="span")


# ---- tags ----------------------------------------------------------------------------------------------------------


def slow_stretches(tags: list[str]) -> set[tuple[int, int, str]]:
    """All intervals of one label that nothing splits and that cannot be extended."""

    def joined(i: int) -> bool:
        """Whether word i belongs to the stretch of the word before it."""
        a, b = tags[i - 1], tags[i]
        return "O" not in (a, b) and a[2:] == b[2:] and a[0] in "BI" and b[0] in "IEL"

    n = len(tags)
    return {
        (first, end, tags[first][2:])
        for first in range(n)
        for end in range(first + 1, n + 1)
        if tags[first] != "O"
        and (first == 0 or not joined(first))
        and (end == n or not joined(end))
        and all(joined(i) for i in range(first + 1, end))
    }


@given(st.lists(st.sampled_from(["O", *(f"{p}-{x}" for p in "BIESLU" for x in ("PER", "B-X"))]), max_size=12))
def test_tags_against_a_slow_decoder(tags):
    found, strays = decode_tags(tags)
    assert set(found) == slow_stretches(tags)
    assert len(found) == len(set(found))
    assert strays == sum(tags[first][0] in "IEL" for first, _, _ in found)


def test_tagged_words_become_spans(tmp_path):
    words = ["Ann", "Lee", "saw", "New", "York", "Oslo"]
    path = jsonl(
        tmp_path / "ner.jsonl",
        {"tokens": words, "ner_tags": ["B-PER", "I-PER", "O", "I-LOC", "I-LOC", "B-LOC"]},
        {"tokens": [], "ner_tags": []},
        {"tokens": ["", "x"], "ner_tags": ["B-PER", "O"]},
    )
    labelled = labelled_tags(path)
    assert spanned(labelled) == [[("Ann Lee", "PER"), ("New York", "LOC"), ("Oslo", "LOC")], []]
    assert labelled.documents[0].text == "Ann Lee saw New York Oslo"
    assert (labelled.features, labelled.level, labelled.only_spanned_tokens) == (("LOC", "PER"), "token", False)
    assert labelled.notes == (
        "1 of 3 rows have no words and were left out: rows 2.",
        "1 stretches begin with an inner tag, such as I- (IOB1, or a slip); they were kept.",
    )


def test_plain_and_integer_tags():
    rows: list[Row | str] = [{"tokens": ["a", "b", "c"], "ner_tags": [1, 1, 0]}]
    named = labelled_tags(rows, class_names=["O", "NOUN"])
    assert spanned(named) == [[("a", "NOUN"), ("b", "NOUN")]]
    prefixed = labelled_tags([{"tokens": ["a", "b"], "ner_tags": [0, 1]}], class_names=["B-X", "I-X"])
    assert spanned(prefixed) == [[("a b", "X")]]
    unnamed = labelled_tags(rows, level="span")
    assert spanned(unnamed) == [[("a", "1"), ("b", "1"), ("c", "0")]]
    assert unnamed.notes == ("tags are integers without class names: each of the 2 numbers is a label.",)
    mixed = labelled_tags([{"tokens": ["a", "b"], "ner_tags": ["I-X", "NOUN"]}])  # not all are prefixed: none is
    assert spanned(mixed) == [[("a", "I-X"), ("b", "NOUN")]]


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, {}, r"row 1 has 2 words but 1 tags"),
        ({"tokens": ["a", 5], "ner_tags": ["O", "O"]}, {}, r"row 1: 5 is among the words and is no text"),
        ({"tokens": ["a"], "ner_tags": [None]}, {}, r"row 1: None is no tag"),
        ({"tokens": ["a"], "ner_tags": [3]}, {"class_names": ["O", "X"]}, r"tag 3 has no name: 2 class names"),
        ({"tokens": ["a"], "ner_tags": [-100]}, {"class_names": ["O", "X"]}, r"tag -100 has no name"),
        ({"tokens": "a b", "ner_tags": ["X"]}, {}, r"column 'tokens' is not a JSON list of words"),
        ({"tokens": ["a"], "ner_tag": ["X"]}, {}, r"row 1 has no column 'ner_tags': did you mean 'ner_tag'\?"),
        ({"words": ["a"], "ner_tags": ["X"]}, {}, r"has no column 'tokens'"),
        ({"tokens": ["a"], "ner_tags": ["O"]}, {}, r"holds no labelled span"),
    ],
)
def test_bad_tags_are_refused(row, options, message):
    with pytest.raises(InputError, match=message):
        labelled_tags([row], **options)


# ---- labellers -----------------------------------------------------------------------------------------------------


@given(
    texts=st.lists(st.text("ab1 9\né漢🧑", min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=5),
    pattern=st.sampled_from([r"\b(19|9)\d*", "a*", r"(?<=a)b", r"[^a]+", "漢|🧑", r"\s"]),
)
def test_regular_expressions_label_their_matches(texts, pattern):
    expected = [[(m[0], "f") for m in re.finditer(pattern, text) if m[0]] for text in texts]
    if not any(expected):
        with pytest.raises(InputError, match="is labelled 'f': check the labellers"):
            labelled_by(texts, {"f": pattern})
        return
    labelled = labelled_by(texts, {"f": pattern})
    assert spanned(labelled) == expected
    assert [d.text for d in labelled.documents] == texts
    assert (labelled.features, labelled.level) == (("f",), "token")


def test_functions_label_texts_or_stretches(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", {"text": "short"}, {"text": "a longer one"}, {"text": "?"})
    whole = labelled_by(
        path, {"long": lambda text: None if text == "?" else len(text) > 6, "np": lambda t: np.bool_(True)}
    )
    assert labels(whole) == [{"long": False, "np": True}, {"long": True, "np": True}, {"np": True}]
    assert (whole.level, whole.category) == ("document", "t")
    parts = labelled_by(
        path, {"first": lambda t: [(0, 1)], "last": lambda t: ([len(t) - 1, len(t)] for _ in "x")}, level="span"
    )
    assert spanned(parts) == [[(d.text[0], "first"), (d.text[-1], "last")] for d in parts.documents]
    assert parts.level == "span"
    mixed = labelled_by(path, {"one": "one", "long": lambda t: [(0, len(t))] if len(t) > 6 else None})
    assert spanned(mixed) == [[], [("one", "one"), ("a longer one", "long")], []]


@pytest.mark.parametrize(
    ("labellers", "message"),
    [
        ({"x": "("}, r"'x' is no regular expression: .* at character 1 of '\('"),
        ({"x": "a", "y": lambda t: True}, r"label stretches \('x'\) and whole texts \('y'\)"),
        ({"x": lambda t: "yes"}, r"row 1: labeller 'x' returned 'yes'. Return True"),
        ({"x": lambda t: 1}, r"labeller 'x' returned 1"),
        ({"x": lambda t: [5]}, r"a span needs"),
        ({"x": lambda t: [(0, 99)]}, r"row 1: span 0\.\.99 lies outside"),
        ({"x": lambda t: [(0, 2), (1, 3)]}, r"spans 0\.\.2 and 1\.\.3 of 'x' overlap"),
        ({"x": lambda t: False}, r"nothing in 2 texts is labelled 'x'"),
        ({"x": "zzz"}, r"nothing in 2 texts is labelled 'x'"),
    ],
)
def test_bad_labellers(labellers, message):
    with pytest.raises(InputError, match=message):
        labelled_by(["a text", "another"], labellers)


def test_labellers_of_the_command_line():
    assert parse_labeller(r"is_year=\b(19|20)\d\d\b") == ("is_year", r"\b(19|20)\d\d\b")
    assert parse_labeller("assign= a=b ") == ("assign", " a=b ")
    for text, message in (
        ("is_year", r"'is_year' is not NAME=REGEX"),
        ("=a", r"is not NAME=REGEX"),
        ("x=", r"is not NAME=REGEX"),
        ("x=" + "(" * 9_999 + ")" * 9_999, r"labeller 'x' is no regular expression: it is nested too deeply"),
        ("x=a{99999999999}", r"labeller 'x' is no regular expression: it is nested too deeply, or repeats too often"),
        ("x=a(b", r"labeller 'x' is no regular expression: missing \).* at character 2"),
    ):
        with pytest.raises(InputError, match=message):
            parse_labeller(text)


# ---- templates -----------------------------------------------------------------------------------------------------

ALL_ROWS = {"skip_first": 0, "sampling": "natural", "max_rows": None}
PEOPLE: list[Row | str] = [
    {"name": "Ann", "city": "Oslo", "alive": True, "sport": "golf", "born": 1950},
    {"name": "Bob", "city": "Rome", "alive": False, "sport": "judo", "born": 1850},
    {"name": "Cid", "city": "Oslo", "alive": None, "sport": None, "born": None},
    {"name": "", "city": "Bern", "alive": True, "sport": "golf", "born": 1990},
]


def test_templates_by_hand():
    labelled = filled_templates(
        PEOPLE,
        templates=["{city} knows {name}.", "{{{name}}}"],
        labels=["alive", "sport"],
        numbers=["born"],
        target="name",
    )
    assert [d.text for d in labelled.documents] == [
        "Oslo knows Ann.", "{Ann}", "Rome knows Bob.", "{Bob}", "Oslo knows Cid.", "{Cid}",
    ]  # fmt: skip
    assert [d.id for d in labelled.documents] == ["1.1", "1.2", "2.1", "2.2", "3.1", "3.2"]
    assert [d.group for d in labelled.documents] == ["Ann", "Ann", "Bob", "Bob", "Cid", "Cid"]
    ann, bob, cid = spanned(labelled)[::2]
    assert ann == [("Ann", "alive"), ("Ann", "sport=golf")]
    assert bob == [("Bob", "not alive"), ("Bob", "not sport=golf")]
    assert cid == [("Cid", "{name}")]  # no label, yet a row
    assert labelled.contrasts == {"alive": ("not alive",), "sport=golf": ("not sport=golf",)}
    assert [dict(d.numbers) for d in labelled.documents[::2]] == [{"born": 1950.0}, {"born": 1850.0}, {}]
    assert (labelled.level, labelled.near_duplicates, labelled.rules) == ("span", "by_design", ALL_ROWS)
    assert labelled.numbers == ("born",)
    assert labelled.notes[0] == "1 of 4 rows have no fillers and were left out: rows 4."


def test_groups_of_templates():
    held = filled_templates(PEOPLE, templates=["{name}.", "{name}!", "{name}?"], labels=["alive"], hold_out="templates")
    assert [d.group for d in held.documents][:4] == ["template 1", "template 2", "template 3", "template 1"]
    default = filled_templates(PEOPLE, templates=["{name} in {city}", "{city}"], labels=["alive"])
    assert [d.text[d.spans[0].start : d.spans[0].end] for d in default.documents] == [
        "Oslo",
        "Oslo",
        "Rome",
        "Rome",
    ] + ["Oslo"] * 2
    assert len({d.group for d in default.documents}) == 2  # both rows of Oslo stay together
    grouped = filled_templates(PEOPLE, templates=["{name}"], labels=["alive"], group_column="city")
    assert [d.group for d in grouped.documents] == ["Oslo", "Rome", "Oslo"]


fillers = st.text(st.one_of(st.sampled_from("{}ab "), st.characters(exclude_categories=["Cs"])), min_size=1).filter(
    str.strip
)


@given(
    rows=st.lists(st.tuples(fillers, fillers), min_size=2, max_size=4),
    words=st.lists(st.text("{}x ä", max_size=4), min_size=4, max_size=4),
)
def test_the_span_is_the_filler(rows, words):
    before, between, behind, end = (word.replace("{", "{{").replace("}", "}}") for word in words)
    template = f"{before}{{a}}{between}{{b}}{behind}{{a}}{end}"
    data: list[Row | str] = [{"a": a, "b": b, "y": i % 2} for i, (a, b) in enumerate(rows)]
    for target in ("a", "b", None):
        labelled = filled_templates(data, templates=[template], labels=["y"], target=target)
        for document, (a, b) in zip(labelled.documents, rows, strict=True):
            assert document.text == words[0] + a + words[1] + b + words[2] + a + words[3]
            start = len(words[0] + a + words[1]) + (0 if target == "b" else len(b + words[2]))
            assert document.spans[0][:2] == (start, start + len(b if target == "b" else a))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": []}, r"no template given"),
        ({"templates": ["I see {name"]}, r"the brace at character 7 has no partner"),
        ({"templates": ["I see name}"]}, r"the brace at character 11 has no partner"),
        ({"templates": ["{na{me}"]}, r"the brace at character 1 has no partner"),
        ({"templates": ["no place {{name}}"]}, r"has no place \{column\}"),
        ({"templates": ["{name}"], "target": "city"}, r"has no place \{city\}"),
        ({"templates": ["{nam}"]}, r"has no column 'nam': did you mean 'name'\?"),
        ({"templates": ["{name}"], "labels": []}, r"no label column named"),
        ({"templates": ["{name}"] * 2, "hold_out": "templates"}, r"at least three of them"),
    ],
)
def test_bad_templates(options, message):
    with pytest.raises(InputError, match=message):
        filled_templates(PEOPLE, **{"labels": ["alive"]} | options)  # pyright: ignore[reportArgumentType]


def test_a_list_fills_no_place():
    with pytest.raises(InputError, match=r"row 1: column 'a' holds \['x'\], which fills no place"):
        filled_templates([{"a": ["x"], "y": 1}], templates=["{a}"], labels=["y"])


# ---- real data -----------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_people_and_years(real_data: Path):
    people = filled_templates(
        real_data / "facts" / "people_athlete_sport.csv.gz", templates=["I met {name} yesterday."], labels=["sport"]
    )
    assert len(people.documents) == 2_658
    assert all(d.text[s.start : s.end] in d.text and s.start == 6 for d in people.documents for s in d.spans)
    assert set(people.features) == {s.label for d in people.documents for s in d.spans}
    years = labelled_by(
        real_data / "corpus" / "valid.jsonl.zst", {"is_year": r"\b(19|20)\d\d\b"}, group_column="doc", most=200
    )
    assert len(years.documents) == 200
    assert all(re.fullmatch(r"(19|20)\d\d", text) for row in spanned(years) for text, _ in row)
    languages = labelled_documents(
        real_data / "corpus" / "test.jsonl.zst", labels=["natural_language"], group_column="doc"
    )
    assert len(languages.features) > 10
    assert len({d.group for d in languages.documents}) < len(languages.documents)
