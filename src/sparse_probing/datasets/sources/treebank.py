"""What part of speech, dependencies and morphology share: a treebank's folder becomes labelled documents.

The folder holds `*-train.conllu`, `*-dev.conllu` and `*-test.conllu` (or `.gz`, `.zst`), as Universal Dependencies publishes
them; files of other names have no prescribed split. Or it holds rows of the Hugging Face data set `universal_dependencies`, which
the paper used, as `train*.parquet`, `validation*.parquet`, `test*.parquet` (or `.jsonl`).
"""

from __future__ import annotations

import re
import warnings
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from sparse_probing.datasets.conllu import (
    ENDINGS,
    Labeller,
    Sentence,
    by_document,
    document_of,
    parse_sentences,
    sentences,
    with_own_ids,
)
from sparse_probing.datasets.draw import Draw
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.readers import iter_rows
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError
from sparse_probing.records import SPLIT_WORDS, Split

MOST_DOCUMENTS = 5_000
"""About a million words of web text; English-EWT has 1,174 documents."""

RULES: dict[str, Any] = {"skip_first": 5, "positive_share": 0.2}
PAPER_RULES: dict[str, Any] = {
    "skip_first": 5,
    "window": 512,
    "cut_by_length": True,
    "max_rows": 25_000,
    "sampling": "filled",
    "positive_share": 0.2,
    "most_positive": 0.2,
    "split_by": "row",
    "fractions": (0.5, 0.2, 0.3),
}
"""5,000 positives and up to 25,000 rows, split at random by row; validation is taken from the paper's training part."""

_ENDING = re.compile(r"\.(conllu|parquet|jsonl)(\.gz|\.zst)?$")
_EWT_SENTENCE = re.compile(r".+-[0-9]{4}", re.DOTALL)

ROW_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
ROW_COLUMNS = ("tokens", "lemmas", "upos", "xpos", "feats", "head", "deprel", "misc")
UPOS_CODES = (
    "NOUN", "PUNCT", "ADP", "NUM", "SYM", "SCONJ", "ADJ", "PART", "DET", "CCONJ", "PROPN", "PRON", "X", "_", "ADV", "INTJ",
    "VERB", "AUX",
)  # fmt: skip
"""Names of the class numbers in the column `upos` of `universal_dependencies`."""


def treebank_documents(place: Path, options: BuildOptions, label: Labeller) -> Iterator[Document]:
    """Documents of every file in a treebank's folder, one in memory at a time.

    A document is what the file calls one (`# newdoc`); without that, the sentences whose ids agree up to a final `-0001`
    (paper: up to the last five characters); without that, ten consecutive sentences.

    Paper rules: a blank before each sentence, sentences of one word left out, no prescribed split.

    Raises:
        InputError: no file, two versions of one file, or a malformed one.
    """
    if options.rows is not None:
        for name, rows in groupby(options.rows(), key=lambda pair: pair[0]):
            yield from treebank_documents_from_rows(
                (row for _, row in rows), SPLIT_WORDS.get(str(name)), options, label, f"{place.name}:{name}"
            )
        return
    files: dict[str, Path] = {}
    for path in sorted(place.iterdir()) if place.is_dir() else []:
        if path.name.endswith((*ENDINGS, *ROW_ENDINGS)):
            stem = _ENDING.sub("", path.name)
            if path != files.setdefault(stem, path):
                raise InputError(f"folder {str(place)!r} holds {files[stem].name} and {path.name}: remove one of them.")
    if not files:
        raise InputError(
            f"folder {str(place)!r} holds no .conllu file (.gz, .zst) and no rows (.parquet, .jsonl): name the treebank's folder."
        )
    for stem, path in files.items():
        if path.name.endswith(ENDINGS):
            split = SPLIT_WORDS.get(stem.rsplit("-", 1)[-1])
            yield from _documents(sentences(path), stem, options, label, split, path.name)
        else:
            split = SPLIT_WORDS.get(re.split(r"[^a-z]", stem)[0])
            yield from treebank_documents_from_rows(iter_rows(path), split, options, label, path.name)


def treebank_documents_from_rows(
    rows: Iterable[Mapping[str, object]],
    split: Split | None,
    options: BuildOptions,
    label: Labeller,
    source: str = "universal_dependencies",
) -> Iterator[Document]:
    """The same documents from rows of the Hugging Face data set `universal_dependencies` (see `sentences_of_rows`)."""
    yield from _documents(sentences_of_rows(rows, source), source, options, label, split, source)


def _documents(
    stream: Iterator[Sentence],
    stem: str,
    options: BuildOptions,
    label: Labeller,
    split: Split | None,
    source: str | None,
) -> Iterator[Document]:
    for passage in by_document(stream, stem, _document_of_id):
        options.progress(len(passage.sentences))
        if options.paper_rules:
            passage = passage._replace(sentences=[s for s in passage.sentences if len(s.words) > 1])
            split = None
        if passage.sentences:
            yield document_of(passage, label, split=split, source=source, leading_blank=options.paper_rules)


def _document_of_id(sent_id: str) -> str | None:
    return sent_id[:-5] if _EWT_SENTENCE.fullmatch(sent_id) else None


def sentences_of_rows(rows: Iterable[Mapping[str, object]], source: str) -> Iterator[Sentence]:
    """Sentences of rows of the Hugging Face data set `universal_dependencies`.

    Columns: `sent_id` (in older versions `idx`), `text`, and in parallel `tokens`, `lemmas`, `upos` (numbers or names), `xpos`,
    `feats` and `misc` (Python dictionaries as strings, or `None`), `head`, `deprel`. The data set mixes contractions and empty
    nodes with the words and drops their ids: what has no head is a contraction when it has no tag either, else an empty node.

    Raises:
        InputError: a column is missing, columns differ in length, or a cell is malformed (row named by number).
    """
    for number, row in enumerate(rows, 1):
        where = f"{source}, row {number}"
        yield from parse_sentences(_conllu_lines(row, where), where)


def _conllu_lines(row: Mapping[str, object], where: str) -> Iterator[str]:
    name = row.get("sent_id", row.get("idx"))
    absent = [column for column in ("text", *ROW_COLUMNS) if column not in row] + (
        [] if name is not None else ["sent_id"]
    )
    if absent:
        raise InputError(f"{where} has no column {absent[0]!r}: rows of universal_dependencies have it.")
    columns = [_cells(row, name, where) for name in ROW_COLUMNS]
    if len({len(column) for column in columns}) > 1:
        raise InputError(f"{where}: {', '.join(ROW_COLUMNS)} differ in length; they hold one value per token.")
    tokens = [_Token(*cells) for cells in zip(*columns, strict=True)]
    tokens = [token for token in tokens if token.is_word or token.tag == "_"]
    yield f"# sent_id = {name}"
    yield f"# text = {row['text']}"
    last = 0
    for i, token in enumerate(tokens):
        if token.is_word:
            last += 1
            name = str(last)
        else:
            name = f"{last + 1}-{last + _words_of_contraction(token, tokens[i + 1 :], str(row['text']))}"
        head = str(token.head) if token.is_word else "_"
        feats, misc = _pairs(token.feats, where), _pairs(token.misc, where)
        cells = [name, token.form, token.lemma, token.tag, token.xpos, feats, head, token.deprel, "_", misc]
        yield "\t".join(cell or "_" for cell in cells)


def _cells(row: Mapping[str, object], name: str, where: str) -> list[Any]:
    """One value per token: words, or for tags and heads numbers, too."""
    cells, numbers = row[name], name in ("upos", "head")
    if not isinstance(cells, (list, tuple)):
        raise InputError(f"{where}: {name!r} is no list of one value per token.")
    for cell in cells:
        is_number = numbers and type(cell) is int and (name == "head" or 0 <= cell < len(UPOS_CODES))
        is_word = isinstance(cell, str) or (cell is None and name not in ("tokens", "upos"))
        if not (is_number or is_word):
            raise InputError(f"{where}: {name!r} holds {str(cell)[:40]!r}, which no treebank has there.")
    return list(cells)


class _Token(NamedTuple):
    """One token of a row, in the order of `ROW_COLUMNS`."""

    form: str
    lemma: str | None
    upos: int | str
    xpos: str | None
    feats: str | None
    head: int | str | None
    deprel: str | None
    misc: str | None

    @property
    def tag(self) -> str:
        return UPOS_CODES[self.upos] if isinstance(self.upos, int) else self.upos

    @property
    def is_word(self) -> bool:
        return str(self.head).isdecimal()


def _words_of_contraction(contraction: _Token, following: Sequence[_Token], text: str) -> int:
    """How many of the following tokens make up a contraction: those that spell it, or after which the text goes on."""
    squeezed = "".join(text.split())
    for length in range(2, len(following) + 1):
        if "".join(token.form for token in following[:length]) == contraction.form:
            return length
    for length in range(2, len(following)):
        if contraction.form + following[length].form in squeezed:
            return length
    return len(following)


def _pairs(cell: str | None, where: str) -> str:
    """`{'Number': 'Sing'}` as `Number=Sing`."""
    if cell in (None, "None", "_", ""):
        return "_"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in a text that is no dictionary
            pairs = literal_eval(cell)
        return "|".join(key if value is None else f"{key}={value}" for key, value in pairs.items())
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        raise InputError(f"{where}: {cell[:40]!r} is not a dictionary such as \"{{'Number': 'Sing'}}\".") from None


def treebank_text(
    documents: Iterable[Document],
    options: BuildOptions,
    *,
    category: str,
    features: Sequence[str],
    contrasts: Mapping[str, Sequence[str]],
) -> LabelledText:
    """Draws documents and names the features that occur in them; the others are named in a note.

    Args:
        documents: a stream.
        options: seed, number of documents, paper rules.
        category: name of the category.
        features: all features of the category.
        contrasts: labels that a feature's negatives carry; those that occur nowhere are dropped.

    Raises:
        InputError: no document, or none of the features.
    """
    draw: Draw[str, Document] = Draw(options.most or MOST_DOCUMENTS, options.seed)
    for document in documents:
        draw.offer(category, document.id, document)
    drawn = with_own_ids(document for _, document in draw.drawn())
    labels = {span.label for document in drawn for span in document.spans}
    found = tuple(feature for feature in features if feature in labels)
    if not found:
        raise InputError(
            f"the treebank has none of the {len(features)} features of {category} ({features[0]}, {features[1]}, ...): its "
            "words are not annotated with them."
        )
    missing = [feature for feature in features if feature not in labels]
    return LabelledText(
        category=category,
        features=found,
        level="token",
        documents=drawn,
        only_spanned_tokens=True,
        contrasts={f: tuple(name for name in contrasts[f] if name in labels) for f in found if f in contrasts},
        rules=PAPER_RULES if options.paper_rules else RULES,
        notes=(f"not in these texts: {', '.join(missing)}.",) if missing else (),
    )


def others(features: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each feature against all the others."""
    return {feature: tuple(other for other in features if other != feature) for feature in features}
