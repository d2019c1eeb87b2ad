"""Part of speech of each word, from a treebank in CoNLL-U format (paper, EWT datasets)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.errors import InputError
from sparse_probing.records import Split

TAGS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip
"""The paper's 16 tags (its PART and blank tags are left out)."""
FILE_ENDINGS = {"-train": Split.TRAIN, "-dev": Split.VALIDATION, "-test": Split.TEST}


def part_of_speech(folder: Path, seed: int) -> LabelledText:  # noqa: ARG001 - all documents are used
    """Words of a Universal Dependencies treebank: files `*-ud-train|dev|test.conllu[.gz]`, official splits kept.

    Sentences are joined to documents; every word is a span labelled with its tag. Differs from the paper: PUNCT is spelled
    as in the treebank, and the official splits are used instead of a random one that shares documents.
    """
    paths = sorted(p for p in folder.glob("*.conllu*") if p.name.removesuffix(".gz").endswith(".conllu"))
    if not paths:
        raise InputError(f"folder {str(folder)!r} holds no .conllu or .conllu.gz file: name the treebank's folder.")
    documents = [document for path in paths for document in _documents(path)]
    features = tuple(f"upos_{tag}" for tag in TAGS)
    return LabelledText(
        category="part of speech",
        features=features,
        level="token",
        documents=tuple(documents),
        only_spanned_tokens=True,
    )


def _documents(path: Path) -> Iterator[Document]:
    stem = path.name.removesuffix(".gz").removesuffix(".conllu")
    split = next((split for ending, split in FILE_ENDINGS.items() if stem.endswith(ending)), None)
    name, text, spans = f"{stem}:0", "", []
    for sentence_id, new_document, sentence, words in _sentences(path):
        if new_document is not None and text:
            yield Document(id=name, text=text, group=name, spans=tuple(spans), split=split)
            text, spans = "", []
        if new_document is not None:
            name = new_document or f"{stem}:{sentence_id}"
        text += " " if text else ""
        at = len(text)
        for form, tag in words:
            found = sentence.find(form, at - len(text)) if form else -1
            if found < 0:
                continue
            spans.append(Span(len(text) + found, len(text) + found + len(form), f"upos_{tag}"))
            at = len(text) + found + len(form)
        text += sentence
    if text:
        yield Document(id=name, text=text, group=name, spans=tuple(spans), split=split)


def _sentences(path: Path) -> Iterator[tuple[str, str | None, str, list[tuple[str, str]]]]:
    """Sentence id, id of a document that begins here or null, text, words with tags (contraction ranges resolved)."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        sentence_id, new_document, text, words = "", None, "", []
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if line.startswith("#"):
                key, _, value = line[1:].partition("=")
                match key.strip().split(" id")[0]:
                    case "sent_id":
                        sentence_id = value.strip()
                    case "newdoc":
                        new_document = value.strip()
                    case "text":
                        text = value.strip()
            elif not line:
                if text:
                    yield sentence_id, new_document, text, words
                new_document, text, words = None, "", []
            else:
                cells = line.split("\t")
                if len(cells) != 10:
                    raise InputError(f"{path}, line {number} has {len(cells)} tab-separated columns; CoNLL-U has 10.")
                if cells[0].isdigit():
                    words.append((cells[1], cells[3]))
