"""A document as a JSON object, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from sys import float_info, intern
from typing import Any

from sparse_probing.datasets.labelled_text import Document, Span
from sparse_probing.errors import InputError
from sparse_probing.records import Split

DOCUMENT_FIELDS = tuple(field.name for field in fields(Document))
LARGEST_FLOAT = float_info.max


def document_line(document: Document) -> bytes:
    """One line of JSON with every field; mappings sorted by name.

    Raises:
        InputError: half a surrogate pair, or a number that is not finite.
    """
    record = {name: getattr(document, name) for name in DOCUMENT_FIELDS}
    record["labels"] = dict(sorted(document.labels.items()))
    record["numbers"] = {name: float(value) for name, value in sorted(document.numbers.items())}
    record["spans"] = [span._asdict() for span in document.spans]
    return json_line(record, f"document {document.id!a}")


def json_line(record: Mapping[str, Any], what: str) -> bytes:
    """One line of strict JSON in UTF-8.

    Args:
        record: JSON values.
        what: its name, for messages.

    Raises:
        InputError: half a surrogate pair, or a number that is not finite.
    """
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} holds half a surrogate pair (\\u{ord(error.object[error.start]):x}), which is no character: "
            "remove it or decode the source text with errors='replace'."
        ) from None
    except ValueError:
        raise InputError(
            f"{what} holds a number that is not finite: leave it out, it then counts as unknown."
        ) from None


def check_fields(record: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse unknown and missing fields.

    Raises:
        InputError: the record has other fields than those known.
    """
    for what, names in (("an unknown", record.keys() - set(known)), ("no", set(known) - record.keys())):
        if names:
            raise InputError(
                f"{where} has {what} field {min(names)!r}: it was changed by hand or written by another version of "
                "sparse-probing; build the data set again."
            )


def read_document(record: Mapping[str, Any], where: str) -> Document:
    """The document that `document_line` wrote.

    Args:
        record: the JSON object.
        where: file and row, for messages.

    Raises:
        InputError: it is no document.
    """
    check_fields(record, DOCUMENT_FIELDS, where)
    try:
        document = Document(
            id=record["id"],
            text=record["text"],
            group=record["group"],
            labels={intern(name): value for name, value in record["labels"].items()},
            numbers={intern(name): value for name, value in record["numbers"].items()},
            spans=tuple(Span(span["start"], span["end"], intern(span["label"])) for span in record["spans"]),
            breaks=tuple(record["breaks"]),
            split=None if record["split"] is None else Split(record["split"]),
            source=record["source"],
            licence=record["licence"],
        )
        if _is_sound(document):
            return document
        raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{where} is no document: it was changed by hand; build the data set again.") from None


def _is_sound(document: Document) -> bool:
    """Whether JSON gave every field the type that it must have."""
    strings = (document.id, document.text, document.group, document.source or "", document.licence or "")
    return (
        all(isinstance(value, str) for value in strings)
        and all(isinstance(value, bool) for value in document.labels.values())
        and all(type(value) in (int, float) and abs(value) <= LARGEST_FLOAT for value in document.numbers.values())
        and all(type(at) is int for span in document.spans for at in span[:2])
        and all(type(at) is int for at in document.breaks)
    )
