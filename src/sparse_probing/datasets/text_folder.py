"""Text without labels from a folder or a file: a seeded sample of bounded size, read as it streams by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparse_probing.datasets.draw import Draw
from sparse_probing.datasets.readers import PACKED, check_column, iter_rows, open_text
from sparse_probing.errors import InputError

TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
"""Endings of files with one text per row; any other file is one text."""
LONGEST = 1 << 20
"""Characters of a text after which the rest is not read: a file of any size fits into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSample:
    """Texts and where each comes from."""

    texts: tuple[str, ...]
    names: tuple[str, ...]
    """Path within the folder; of a table also the row, from 1: `news/a.csv:12`."""
    notes: tuple[str, ...]
    """What was skipped or cut, in words."""


def read_texts(path: Path, *, most: int | None = 2_000, seed: int = 0, column: str = "text") -> TextSample:
    """Texts of a file, or of all files in a folder and its subfolders; hidden ones aside.

    A `.jsonl`, `.csv`, `.tsv` or `.parquet` file holds one text per row, any other file (`.txt`, `.md`, code) is one text;
    all but Parquet may be packed as `.gz` or `.zst`. In a folder, a file that cannot be read as that is skipped with a note.

    Args:
        path: folder or file.
        most: texts to draw; null keeps all.
        seed: another seed, another sample; the order of the files does not matter.
        column: of tables, the one that holds the text.

    Raises:
        InputError: nothing is there, or nothing in it is text; a single file that cannot be read.
    """
    if not path.exists():
        raise InputError(f"text folder {str(path)!r} does not exist: check the path.")
    draw: Draw[None, tuple[str, str]] = Draw(most, seed)
    skipped: list[str] = []
    cut = 0
    for file in _files(path) if path.is_dir() else [path]:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            for place, text in _texts(file, name, column):
                if text.strip():
                    cut += len(text) > LONGEST
                    draw.offer(None, place, (place, text[:LONGEST]))
        except (InputError, OSError) as error:
            if not path.is_dir():
                raise error if isinstance(error, InputError) else _unreadable(file, error) from None
            skipped.append(name)
    drawn = [item for _, item in draw.drawn()]
    if not drawn:
        unread = f" ({len(skipped)} of its files cannot be read as text)" if skipped else ""
        raise InputError(
            f"{str(path)!r} holds no text{unread}: name a folder with .txt, .md, .jsonl, .csv or .parquet files."
        )
    notes = []
    if skipped:
        shown = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        notes.append(f"{len(skipped)} files are no text, or only in part, and were skipped from there on: {shown}.")
    if cut:
        notes.append(f"{cut} texts are longer than {LONGEST:,} characters: the rest of them was left out.")
    if len(drawn) < draw.offered[None]:
        notes.append(f"{len(drawn):,} of {draw.offered[None]:,} texts were drawn (seed {seed}).")
    return TextSample(
        texts=tuple(text for _, text in drawn), names=tuple(name for name, _ in drawn), notes=tuple(notes)
    )


def _files(folder: Path) -> Iterator[Path]:
    """All files that are not hidden, in the order of their names."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here) / name for name in sorted(names) if not name.startswith("."))


def _texts(path: Path, name: str, column: str) -> Iterator[tuple[str, str]]:
    plain = path.with_suffix("") if path.suffix.lower() in PACKED else path
    if plain.suffix.lower() in TABLES:
        for number, row in enumerate(iter_rows(path), 1):
            check_column(column, row, path)
            text = row[column]
            if isinstance(text, str):
                yield f"{name}:{number}", text
        return
    with open_text(path) as file:
        text = file.read(LONGEST + 1)
    if "\0" in text:
        raise InputError(f"{str(path)!r} holds NUL characters, so it is no text: name a text file.")
    yield name, text


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"text file {str(path)!r} cannot be read ({error.strerror}): check its permissions.")
