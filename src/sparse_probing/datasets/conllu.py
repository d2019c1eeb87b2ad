"""CoNLL-U, the file format of Universal Dependencies treebanks: read strictly, one sentence at a time.

Format: https://universaldependencies.org/format.html
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NamedTuple

from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.readers import open_text
from sparse_probing.errors import InputError
from sparse_probing.records import Split

ENDINGS = (".conllu", ".conllu.gz", ".conllu.zst")
COLUMNS = ("upos", "xpos", "deprel")
"""Columns that can be labels; the others are no classes (form, lemma, head) or hold several things (feats, misc)."""
MAX_VALUES = 200
MOST_WORDS = 100_000
BLOCK = 10
"""Sentences that stand in for a document where a file does not say where documents begin."""
PLAIN_WORD = "word"
"""Label of a word that carries none of the labels asked for: it still claims its tokens."""

_NUMBER = re.compile(r"[0-9]+")
_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
_EMPTY_NODE = re.compile(r"[0-9]+\.[0-9]+")
_NEW_DOCUMENT = re.compile(r"newdoc(?:\s+id\s*=(.*))?")


class Word(NamedTuple):
    """A syntactic word; `_` stands for *not annotated*, as in the file."""

    form: str
    lemma: str
    upos: str
    xpos: str
    feats: Mapping[str, str]
    head: int | None
    """Number of the governing word, from 1; 0 for the root."""
    deprel: str
    misc: str
    start: int
    """First character in the sentence's text. Words of a contraction that does not divide (`del` = `de` + `el`) share all of it."""
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence and its words, without empty nodes."""

    sent_id: str
    """Empty where the file gives none."""
    new_document: str | None
    """Id of the document that begins here, empty when it has none; null when no document begins here."""
    text: str
    words: tuple[Word, ...]


def sentences(path: Path) -> Iterator[Sentence]:
    """Sentences of a `.conllu`, `.conllu.gz` or `.conllu.zst` file, read as they are asked for.

    Raises:
        InputError: the file is missing, of another kind, cut off, not UTF-8, or malformed (named by line).
    """
    if not path.name.endswith(ENDINGS):
        raise InputError(f"treebank file {str(path)!r} does not end in {', '.join(ENDINGS)}: name a CoNLL-U file.")
    with open_text(path) as file:
        yield from parse_sentences(file, str(path))


def parse_sentences(lines: Iterable[str], where: str) -> Iterator[Sentence]:
    """Sentences of CoNLL-U lines; `where` names their source in complaints."""
    block = _Block(where)
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if line.startswith("#"):
            block.comment(line[1:].strip())
        elif line:
            block.rows.append(_row(line, f"{where}, line {number}"))
            if len(block.rows) > MOST_WORDS:  # they would fill the memory
                raise InputError(f"{where}, line {number}: no sentence has {MOST_WORDS:,} words: add blank lines.")
        elif block.rows:
            yield block.sentence()
            block = _Block(where)
    if block.rows:  # no blank line at the end
        yield block.sentence()


class _Row(NamedTuple):
    where: str
    cells: list[str]


def _row(line: str, where: str) -> _Row:
    cells = line.split("\t")
    if len(cells) != 10:
        raise InputError(f"{where} has {len(cells)} tab-separated columns; CoNLL-U has 10.")
    if not cells[1]:
        raise InputError(f"{where} has an empty form: write the word, or _ where it is unknown.")
    return _Row(where, cells)


class _Surface(NamedTuple):
    """A stretch of text: a word, or a contraction with its words."""

    row: _Row
    last: int
    """Number of its last word."""
    words: list[_Row]


@dataclass(slots=True)
class _Block:
    """Lines of one sentence."""

    where: str
    rows: list[_Row] = field(default_factory=list)
    sent_id: str = ""
    text: str = ""
    new_document: str | None = None

    def comment(self, comment: str) -> None:
        key, _, value = comment.partition("=")
        if found := _NEW_DOCUMENT.fullmatch(comment):
            self.new_document = (found[1] or "").strip()
        elif key.strip() == "sent_id":
            self.sent_id = value.strip()
        elif key.strip() == "text":
            self.text = value.strip()

    def sentence(self) -> Sentence:
        surfaces = self._surfaces()
        if not surfaces:
            raise InputError(f"{self.rows[0].where}: the sentence holds empty nodes only; remove it or add its words.")
        text = self.text or _rebuilt(surfaces)
        n_words = surfaces[-1].last
        words: list[Word] = []
        at = 0
        for surface in surfaces:
            form = surface.row.cells[1]
            while text[at : at + 1].isspace():
                at += 1
            if not text.startswith(form, at):
                raise InputError(
                    f"{surface.row.where}: {form!r} does not come next in the sentence's text ({text[at : at + 20]!r} does): "
                    "correct the form or the `# text` line."
                )
            end = at + len(form)
            parts = [row.cells[1] for row in surface.words]
            divides = "".join(parts) == form
            for row, part in zip(surface.words, parts, strict=True):
                stop = at + len(part) if divides else end
                words.append(_word(row, at, stop, n_words))
                at = stop if divides else at
            at = end
        if text[at:].strip():
            raise InputError(
                f"{self.rows[-1].where}: the words end before the sentence's text does, {text[at:].strip()[:20]!r} is left: "
                "correct the words or the `# text` line."
            )
        return Sentence(sent_id=self.sent_id, new_document=self.new_document, text=text, words=tuple(words))

    def _surfaces(self) -> list[_Surface]:
        surfaces: list[_Surface] = []
        expected = 1
        for row in self.rows:
            number = row.cells[0]
            inside = bool(surfaces) and surfaces[-1].last >= expected
            if _EMPTY_NODE.fullmatch(number):
                continue
            if (found := _RANGE.fullmatch(number)) and not inside and _int(found[2]) > _int(found[1]) == expected:
                surfaces.append(_Surface(row, _int(found[2]), []))
            elif _NUMBER.fullmatch(number) and _int(number) == expected:
                if not inside:
                    surfaces.append(_Surface(row, expected, []))
                surfaces[-1].words.append(row)
                expected += 1
            else:
                raise InputError(
                    f"{row.where}: id {number[:40]!r} is out of order, word {expected} comes next: number words from 1 in each "
                    "sentence, ranges (1-2) before their words, and put a blank line between sentences."
                )
        if surfaces and surfaces[-1].last >= expected:
            raise InputError(
                f"{surfaces[-1].row.where}: range {surfaces[-1].row.cells[0][:40]} ends behind the sentence."
            )
        return surfaces


def _int(digits: str) -> int:
    return int(digits) if len(digits) < 10 else 10**9  # Python reads no more than 4,300 digits


def _rebuilt(surfaces: Sequence[_Surface]) -> str:
    text = ""
    for surface in surfaces:
        together = "SpaceAfter=No" in surface.row.cells[9].split("|")
        text += surface.row.cells[1] + ("" if together else " ")
    return text.strip()


def _word(row: _Row, start: int, end: int, n_words: int) -> Word:
    _, form, lemma, upos, xpos, feats, head, deprel, _, misc = row.cells
    if head != "_" and not _NUMBER.fullmatch(head):
        raise InputError(
            f"{row.where}: head {head[:40]!r} is not a number: write 0 for the root, _ where it is unknown."
        )
    if head != "_" and _int(head) > n_words:
        raise InputError(f"{row.where}: head {head[:40]} lies outside the sentence, which has {n_words} words.")
    return Word(
        form=form, lemma=lemma, upos=upos, xpos=xpos, feats={} if feats == "_" else _feats(feats, row.where),
        head=None if head == "_" else _int(head), deprel=deprel, misc=misc, start=start, end=end,
    )  # fmt: skip


def _feats(cell: str, where: str) -> dict[str, str]:
    feats: dict[str, str] = {}
    for pair in cell.split("|"):
        attribute, _, value = pair.partition("=")
        if not attribute or not value:
            raise InputError(
                f"{where}: FEATS {cell!r} is malformed at {pair!r}: write Attribute=Value|Attribute=Value, or _."
            )
        feats[attribute] = value
    return feats


class Passage(NamedTuple):
    """Consecutive sentences that stay together."""

    name: str
    sentences: list[Sentence]
    is_block: bool
    """The file does not say where documents begin: these are just neighbours."""


def by_document(
    stream: Iterable[Sentence], stem: str, name_of: Callable[[str], str | None] = lambda _: None
) -> Iterator[Passage]:
    """Sentences grouped to documents, one document in memory at a time.

    Args:
        stream: sentences in order.
        stem: begins the names of documents that have no id.
        name_of: document that a sentence's id names; for files without `# newdoc`. Where it gives null, blocks of ten sentences are
            taken: neighbouring sentences on two sides of a split would leak.
    """
    passage: Passage | None = None
    marked = False
    for number, sentence in enumerate(stream):
        new = sentence.new_document
        marked |= new is not None
        named = None if marked else name_of(sentence.sent_id)
        if marked:
            name = passage.name if passage and new is None else new or f"{stem}:{number}"
        else:
            name = named or f"{stem}:{number - number % BLOCK}"
        if passage and (new is not None or name != passage.name):
            yield passage
            passage = None
        passage = passage or Passage(name, [], not marked and named is None)
        passage.sentences.append(sentence)
    if passage:
        yield passage


Labeller = Callable[[Sentence], Sequence[Span]]
"""Labelled characters of a sentence. Every word needs a label of some kind, so that it claims its tokens."""


def document_of(
    passage: Passage, label: Labeller, *, split: Split | None, source: str | None, leading_blank: bool = False
) -> Document:
    """Sentences joined by blanks; each blank belongs to the sentence behind it, where `breaks` has it begin."""
    text, breaks, spans = "", list[int](), list[Span]()
    for sentence in passage.sentences:
        breaks.append(len(text))
        text += " " if text or leading_blank else ""
        spans += [Span(len(text) + start, len(text) + end, name) for start, end, name in label(sentence)]
        text += sentence.text
    return Document(
        id=passage.name,
        text=text,
        group=passage.name,
        spans=tuple(spans),
        breaks=tuple(breaks),
        split=split,
        source=source,
    )


def with_own_ids(documents: Iterable[Document]) -> tuple[Document, ...]:
    """Documents whose ids differ: a second document of one name (it keeps its group) gets `#2`."""
    seen = Counter[str]()
    result: list[Document] = []
    for document in documents:
        seen[document.id] += 1
        number = seen[document.id]
        result.append(document if number == 1 else replace(document, id=f"{document.id}#{number}"))
    return tuple(result)


def read_conllu(
    path: Path, *, labels: Sequence[str], category: str | None = None, level: Literal["token", "span"] = "token"
) -> LabelledText:
    """A user's CoNLL-U file: columns and morphological attributes as features, one value against the others.

    Documents are those of the file (`# newdoc`); a file without them is cut into blocks of ten sentences.

    Args:
        path: the file.
        labels: `upos`, `xpos`, `deprel`, or `feats.Tense` (any attribute). Features are named `upos=NOUN`, `feats.Tense=Past`.
            Negatives are the words that have another value: for a column all other annotated words, for an attribute the words
            that have the attribute. A word with several values (`Int,Rel`) has each of them.
        category: name of the category; the file's name when not given.
        level: `token`: each token of a word is a row; `span`: each word is a row.

    Raises:
        InputError: malformed file, unknown label, or a label with more than 200 values.
    """
    for name in labels:
        _check_label(name)
    values: dict[str, set[str]] = {name: set() for name in labels}
    attributes: set[str] = set()

    def spans_of(sentence: Sentence) -> list[Span]:
        spans: list[Span] = []
        for word in sentence.words:
            attributes.update(word.feats)
            found = [(name, value) for name in labels for value in _values(word, name)]
            for name, value in found:
                values[name].add(value)
                spans.append(Span(word.start, word.end, f"{name}={value}"))
            if level == "token" and not found:
                spans.append(Span(word.start, word.end, PLAIN_WORD))
        return spans

    stem = path.name.split(".conllu")[0]
    documents: list[Document] = []
    blocks = 0
    for passage in by_document(sentences(path), stem):
        documents.append(document_of(passage, spans_of, split=None, source=path.name))
        blocks += passage.is_block
        for name in labels:
            if len(values[name]) > MAX_VALUES:
                raise InputError(
                    f"{path}: {name} has more than {MAX_VALUES} different values, which are probed one against the rest: choose a "
                    "label with fewer, or merge rare values."
                )
    if not documents:
        raise InputError(f"{path} holds no sentence.")
    for name in labels:
        if not values[name]:
            _complain_of_absence(path, name, attributes)
    features = {name: [f"{name}={value}" for value in sorted(values[name])] for name in labels}
    return LabelledText(
        category=category or stem,
        features=tuple(feature for group in features.values() for feature in group),
        level=level,
        documents=with_own_ids(documents),
        only_spanned_tokens=True,
        contrasts={one: tuple(o for o in group if o != one) for group in features.values() for one in group},
        notes=(
            f"{path.name} does not say where documents begin: {blocks} blocks of {BLOCK} sentences stand in for them.",
        )
        if blocks
        else (),
    )


def _values(word: Word, name: str) -> list[str]:
    if name.startswith("feats."):
        return [value for value in word.feats.get(name.removeprefix("feats."), "").split(",") if value]
    value = {"upos": word.upos, "xpos": word.xpos, "deprel": word.deprel}[name]
    return [] if value == "_" else [value]


def _check_label(name: str) -> None:
    if name == "lemma":
        raise InputError(
            "label 'lemma' has one value per dictionary word, too many classes to probe: choose upos or feats.Tense."
        )
    if name not in COLUMNS and not (name.startswith("feats.") and len(name) > len("feats.")):
        near = get_close_matches(name, [*COLUMNS, "feats."], n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(COLUMNS)}, or feats. with an attribute."
        raise InputError(f"CoNLL-U has no label {name!r}: {hint}")


def _complain_of_absence(path: Path, name: str, attributes: set[str]) -> None:
    near = get_close_matches(name.removeprefix("feats."), attributes, n=1)
    known = ", ".join([*COLUMNS, *sorted(f"feats.{attribute}" for attribute in attributes)])
    hint = f"did you mean 'feats.{near[0]}'?" if near else f"choose one of {known}."
    raise InputError(f"no word of {path} has a value of {name}: {hint}")
