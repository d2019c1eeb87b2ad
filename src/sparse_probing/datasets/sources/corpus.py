"""Rows of a corpus, and documents labelled whole by one of their fields.

A corpus folder holds `.jsonl` files (`.zst` or `.gz` works), one object per line: `id`, `doc` (rows of one document share it),
`text`, `natural_language` (null for code), `code_language` (null for prose), `distribution` (kind of text), and where known
`source` and `license`. Files named `train`, `valid` (`validation`, `dev`) and `test` say which split their rows belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparse_probing.datasets.draw import Draw
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.readers import Row, iter_rows
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError
from sparse_probing.records import SPLIT_WORDS, Split

ENDINGS = (".jsonl", ".jsonl.zst", ".jsonl.gz")
PROGRESS_STEP = 1_000
CHARACTERS_PER_TOKEN = 6
"""More than a token has on average in most languages, so that a piece fills its window."""
PAPER_FRACTIONS = (0.5, 0.2, 0.3)
"""The paper's test share; its training part is divided, because we choose on validation."""


def corpus_rows(place: Path, options: BuildOptions) -> Iterator[tuple[Split | None, Row]]:
    """Every row of a corpus folder with its split, streamed.

    Raises:
        InputError: no folder, no `.jsonl` file in it, or a row without text.
    """
    if options.rows is not None:
        yield from _checked(((SPLIT_WORDS.get(str(name)), row) for name, row in options.rows()), str(place), options)
        return
    files = sorted(path for path in place.glob("*.jsonl*") if path.name.endswith(ENDINGS)) if place.is_dir() else []
    if not files:
        raise InputError(
            f"folder {str(place)!r} holds no .jsonl file (.zst, .gz): name a corpus folder (docs/datasets.md, sources)."
        )
    for path in sorted(
        files,
        key=lambda path: (
            list(SPLIT_WORDS).index(_stem(path)) if _stem(path) in SPLIT_WORDS else len(SPLIT_WORDS),
            path,
        ),
    ):
        split = SPLIT_WORDS.get(_stem(path))
        yield from _checked(((split, row) for row in iter_rows(path)), str(path), options)


def _checked(
    rows: Iterator[tuple[Split | None, Row]], where: str, options: BuildOptions
) -> Iterator[tuple[Split | None, Row]]:
    number = 0
    for number, (split, row) in enumerate(rows, 1):
        text = row.get("text")
        if not isinstance(text, str):
            raise InputError(f"{where}, row {number} has no text: a corpus row needs the field 'text'.")
        yield split, row
        if number % PROGRESS_STEP == 0:
            options.progress(PROGRESS_STEP)
    options.progress(number % PROGRESS_STEP)


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def corpus_document(row: Row, split: Split | None, number: int, **fields: Any) -> Document:
    """A row as a document; rows without `doc` are documents of their own, rows without `id` are numbered."""
    name = str(number if row.get("id") is None else row["id"])
    return Document(
        id=name,
        text=str(row["text"]),
        group=str(row.get("doc") or name),
        split=split,
        source=_text_or_none(row.get("source")),
        licence=_text_or_none(row.get("license")),
        **fields,
    )


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def pieces(text: str, length: int) -> Iterator[str]:
    """A text cut at white space into pieces of about `length` characters; a short last piece joins the one before."""
    begin = 0
    while len(text) - begin > 1.5 * length:
        blank = text.rfind(" ", begin + length // 2, begin + length)
        end = max(blank, text.rfind("\n", begin + length // 2, begin + length))
        end = end if end > begin else begin + length
        yield text[begin:end]
        begin = end
    yield text[begin:]


def labelled_by_field(
    place: Path,
    options: BuildOptions,
    *,
    category: str,
    class_of: Callable[[Row], object],
    most: int,
    rules: Mapping[str, Any],
    only: tuple[str, ...] = (),
) -> LabelledText:
    """Documents of several classes, one against the rest: pieces that fill a window, at most `most` per class.

    Args:
        place: corpus folder.
        options: seed, progress, another `most`.
        category: name of the category.
        class_of: class of a row, null where the row takes no part.
        most: pieces per class where the options do not say.
        rules: recommended sampling rules.
        only: classes to keep; all when empty.

    Raises:
        InputError: fewer than two classes.
    """
    draw: Draw[str, Document] = Draw(options.most or most, options.seed)
    for number, (split, row) in enumerate(corpus_rows(place, options)):
        name = class_of(row)
        if name is not None and (not only or name in only):
            document = corpus_document(row, split, number)
            length = len(document.text) if options.paper_rules else CHARACTERS_PER_TOKEN * options.window
            for i, text in enumerate(pieces(document.text, max(1, length))):
                piece = replace(document, id=f"{document.id}:{i}" if i else document.id, text=text)
                draw.offer(str(name), piece.id, piece)
    names = tuple(sorted(draw.offered))
    if len(names) < 2:
        raise InputError(
            f"folder {str(place)!r} holds {len(names)} class(es) of {category}: at least 2 are needed (docs/datasets.md, sources)."
        )
    documents = [replace(d, labels={other: other == name for other in names}) for name, d in draw.drawn()]
    missing = [name for name in only if name not in names]
    return LabelledText(
        category=category,
        features=names,
        level="document",
        documents=tuple(documents),
        rules=rules,
        notes=(f"no text for {', '.join(missing)}: add rows of these classes.",) if missing else (),
    )
