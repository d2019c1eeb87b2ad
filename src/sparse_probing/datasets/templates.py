"""Prompt templates filled with the rows of a table: the text at one place of them is what is probed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, Unpack

from sparse_probing.datasets.cells import is_blank
from sparse_probing.datasets.label_columns import label_columns
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.own_rows import Data, Reading, document_of, draw_rows, label_names
from sparse_probing.datasets.readers import Row
from sparse_probing.errors import InputError

TEMPLATE_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<place>[^{}]*)\}|(?P<stray>[{}])|[^{}]+")


def filled_templates(
    data: Data,
    *,
    templates: Sequence[str],
    labels: Sequence[str] = (),
    numbers: Sequence[str] = (),
    target: str | None = None,
    hold_out: Literal["fillers", "templates"] = "fillers",
    positive: Sequence[str] = (),
    **reading: Unpack[Reading],
) -> LabelledText:
    """Every template filled with every row. The row to probe is where the target's text stands (level `span`).

    Args:
        data: a file or rows of fillers. Rows that lack one are left out.
        templates: sentences with places, `{name} lives in {city}.`, that name columns; `{{` and `}}` are braces.
        labels: label columns of the fillers. The negatives of `feature` carry the label `not feature`, those of
            `column=category` the column's other categories. All rows are used: a label belongs to the whole text.
        numbers: columns to be predicted by regression.
        target: column whose (last) place is probed; the last place of each template when not given.
        hold_out: what no two splits share: `fillers` (rows of one target text or one group), or `templates`.
        positive: for columns of two values, which of them is the feature (see `label_columns.label_columns`).
        reading: see `Reading`.

    Raises:
        InputError: no template, a brace that is not closed, no place, a place or target without a column, unusable labels.
    """
    if not templates:
        raise InputError("no template given: write a sentence with a {column} to fill.")
    if hold_out == "templates" and (len(templates) < 3 or reading.get("group_column") is not None):
        raise InputError("to hold out templates, give at least three of them, and no group column.")
    parsed = [_Template.parse(template, target) for template in templates]
    names = label_names(labels, numbers)
    places = tuple(dict.fromkeys(place for template in parsed for place in template.places))

    def parse(row: Row, where: str) -> Row | None:
        for place in places:
            if isinstance(row.get(place), (list, dict)):
                raise InputError(f"{where}: column {place!r} holds {row[place]!r}, which fills no place of a template.")
        return None if any(is_blank(row.get(place)) for place in places) else {n: row.get(n) for n in (*places, *names)}

    drawn = draw_rows(data, parse, (*places, *names), lacking="fillers", **reading)
    columns = label_columns([(row.number, row.content) for row in drawn.rows], labels, numbers, drawn.where, positive)
    documents: list[Document] = []
    for i, row in enumerate(drawn.rows):
        labels_of_row = columns.labels[i].items()
        carried = [f if yes else f"not {f}" for f, yes in labels_of_row if yes or not columns.rivals[f]]
        targets = " | ".join(str(row.content[place]) for place in dict.fromkeys(t.target for t in parsed))
        for t, template in enumerate(parsed):
            text, start, end = template.filled(row.content)
            group = f"template {t + 1}" if hold_out == "templates" else row.group or targets
            spans = tuple(Span(start, end, label) for label in carried or [f"{{{template.target}}}"])
            named = replace(row, id=f"{row.id}.{t + 1}", group=group)
            documents.append(document_of(named, text, spans=spans, numbers=columns.numbers[i]))
    return LabelledText(
        category=drawn.category,
        features=columns.features,
        numbers=columns.targets,
        level="span",
        documents=tuple(documents),
        contrasts={f: rivals or (f"not {f}",) for f, rivals in columns.rivals.items()},
        near_duplicates="by_design",
        rules={"skip_first": 0, "sampling": "natural", "max_rows": None},
        notes=(*drawn.notes, *columns.notes),
    )


class _Template(NamedTuple):
    pieces: tuple[tuple[str, bool], ...]
    """Words, or (true) the name of a column."""
    target: str
    """Column of the place that is probed: its last one."""

    @property
    def places(self) -> list[str]:
        return [piece for piece, is_place in self.pieces if is_place]

    @classmethod
    def parse(cls, template: str, target: str | None) -> _Template:
        pieces: list[tuple[str, bool]] = []
        for match in TEMPLATE_PIECE.finditer(template):
            if match["stray"]:
                raise InputError(
                    f"template {template!r}: the brace at character {match.start() + 1} has no partner. Write a place as "
                    "{column}, and a mere brace twice."
                )
            place = match["place"]
            pieces.append((place, True) if place is not None else (match[0][0] if match["brace"] else match[0], False))
        places = [piece for piece, is_place in pieces if is_place]
        if not places or (target is not None and target not in places):
            raise InputError(
                f"template {template!r} has no place {{{target or 'column'}}}: write one where the filler goes."
            )
        return cls(tuple(pieces), places[-1] if target is None else target)

    def filled(self, fillers: Row) -> tuple[str, int, int]:
        """The text, and where the target stands in it."""
        text, start, end = "", 0, 0
        for piece, is_place in self.pieces:
            if is_place and piece == self.target:
                start, end = len(text), len(text) + len(str(fillers[piece]))
            text += str(fillers[piece]) if is_place else piece
        return text, start, end
