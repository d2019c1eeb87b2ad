"""What labelled text may not hold, whoever made it."""

from __future__ import annotations

import pytest

from sparse_probing.datasets.audit import check_usable
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.sources.treebank import _conllu_lines
from sparse_probing.errors import InputError

ROW = {
    "text": "It works", "idx": "1",
    "tokens": ["It", "works"], "lemmas": ["it", "work"], "upos": [11, 16], "xpos": ["PRP", "VBZ"], "feats": [None, None],
    "head": ["2", "0"], "deprel": ["nsubj", "root"], "deps": [None, None], "misc": [None, None],
}  # fmt: skip


def test_a_feature_named_twice_is_refused():
    text = LabelledText(
        category="c", features=("a", "a"), level="document", documents=(Document(id="1", text="x", group="1"),)
    )
    with pytest.raises(InputError, match="c names a feature twice"):
        check_usable(text)


@pytest.mark.parametrize(
    ("column", "cells"), [("tokens", None), ("tokens", [1, 2]), ("upos", [99, 1]), ("feats", ["{[]: 1}", None])]
)
def test_rows_of_a_treebank_with_cells_of_other_kinds_are_refused(column, cells):
    assert list(_conllu_lines(ROW, "row 1"))
    with pytest.raises(InputError, match="row 1"):
        list(_conllu_lines(ROW | {column: cells}, "row 1"))
