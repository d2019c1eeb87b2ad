"""Documents labelled whole: natural language, programming language, kind of text (paper, sections on the language and
data-source datasets).

The folder holds `train`, `valid` and `test` files (`.jsonl` or `.jsonl.zst`), one object per line with the fields `text`,
`doc`, `natural_language`, `code_language`, `distribution`. Their split is kept: a model trained on `train` has seen neither
`valid` nor `test`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.readers import Row, read_rows
from sparse_probing.errors import InputError
from sparse_probing.records import Split

FILES: dict[str, Split] = {"train": Split.TRAIN, "valid": Split.VALIDATION, "test": Split.TEST}
MOST_PER_CLASS_AND_SPLIT = 120


def corpus_rows(folder: Path) -> Iterator[tuple[Split, Row]]:
    """Every row of the corpus with its split.

    Raises:
        InputError: the folder or one of its three files is missing.
    """
    for stem, split in FILES.items():
        found = [path for path in (folder / f"{stem}.jsonl.zst", folder / f"{stem}.jsonl") if path.exists()]
        if not found:
            raise InputError(
                f"folder {str(folder)!r} holds no {stem}.jsonl or {stem}.jsonl.zst: name the corpus folder."
            )
        for row in read_rows(found[0]):
            yield split, row


def natural_language(folder: Path, seed: int) -> LabelledText:
    """Which natural language? Fiction only, so that the language and not the kind of text differs."""
    return _classes(
        folder,
        "natural language",
        lambda row: row["natural_language"] if row.get("distribution") == "fiction" else None,
        seed,
    )


def programming_language(folder: Path, seed: int) -> LabelledText:
    """Which programming language?"""
    return _classes(folder, "programming language", lambda row: row.get("code_language"), seed)


def kind_of_text(folder: Path, seed: int) -> LabelledText:
    """Which kind of English text (the paper's data-source category)?"""
    return _classes(
        folder,
        "kind of text",
        lambda row: row["distribution"] if row.get("natural_language") == "en" else None,
        seed,
    )


def _classes(folder: Path, category: str, class_of: Callable[[Row], object], seed: int) -> LabelledText:
    by_class: dict[tuple[str, Split], list[Row]] = {}
    for split, row in corpus_rows(folder):
        name = class_of(row)
        if name is not None:
            by_class.setdefault((str(name), split), []).append(row)
    names = tuple(sorted({name for name, _ in by_class}))
    rng = np.random.default_rng(seed)
    documents = [
        Document(
            id=str(row["id"]),
            text=str(row["text"]),
            group=str(row["doc"]),
            labels={other: other == name for other in names},
            split=split,
        )
        for (name, split), rows in sorted(by_class.items())
        for row in (rows[i] for i in sorted(rng.permutation(len(rows))[:MOST_PER_CLASS_AND_SPLIT]))
    ]
    return LabelledText(category=category, features=names, level="document", documents=tuple(documents))
