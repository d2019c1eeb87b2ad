"""The corpus that ships with the package: parallel topics in many languages, parallel programs, kinds of English text.

Groups are topics (or tasks): a topic is in one split only, in all languages at once, so that no probe can use the topic.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib import resources

from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.sources.text_features import token_text

CATEGORIES = {"natural language": "languages", "programming language": "code", "kind of text": "kinds"}
"""Category -> file in the package's demo corpus; its lines hold `class`, `topic`, `text`."""

TOKEN_FEATURE_STRIDE = 7
"""Every seventh document is enough tokens for the text features; 7 divides no number of topics, so all topics occur."""


@cache
def _rows(name: str) -> list[dict[str, str]]:
    path = resources.files("sparse_probing") / "assets" / "demo_corpus" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def documents_of(category: str) -> LabelledText:
    """One of the three whole-document categories."""
    rows = _rows(CATEGORIES[category])
    names = tuple(sorted({row["class"] for row in rows}))
    documents = tuple(
        Document(
            id=f"{row['class']}/{row['topic']}",
            text=row["text"],
            group=row["topic"],
            labels={name: name == row["class"] for name in names},
            source="the bundled corpus",
            licence="CC0-1.0",
        )
        for row in rows
    )
    return LabelledText(category=category, features=names, level="document", documents=documents)


def demo_categories() -> list[LabelledText]:
    """All four categories of the demo: the three above and the text features of their tokens."""
    whole = [documents_of(category) for category in CATEGORIES]
    everything = [document for labelled in whole for document in labelled.documents]
    plain = [replace(d, labels={}) for d in everything[::TOKEN_FEATURE_STRIDE]]
    return [*whole, token_text(plain)]
