"""What a previewed row says about itself, in words."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_probing.studies.datasheet.preview import Piece, PreviewRow


def label_words(row: PreviewRow) -> list[str]:
    """`spam: yes`, `ham: no`, `stars = 4.5`; the first is what the row was drawn for."""
    return [
        f"{name}: {'yes' if value else 'no'}" if isinstance(value, bool) else f"{name} = {value:g}"
        for name, value in row.labels
    ]


def where_words(row: PreviewRow) -> list[str]:
    """Category, split, document, group."""
    return [row.category, row.split, f"document {row.document}", f"group {row.group}"]


def share_words(piece: Piece) -> str:
    """`×2` where two tokens share a character, `×1/3` where the row holds one of its three tokens; empty for one token."""
    if piece.tokens == piece.of:
        return f"×{piece.tokens}" if piece.tokens > 1 else ""
    return f"×{piece.tokens}/{piece.of}"


def legend(rows: Sequence[PreviewRow], marks: str) -> str:
    """How to read the rows, given how tokens are marked; unusual signs are explained where they occur."""
    said = [f"The tokens of each row stand {marks}. ⏎ is a line break, … where the text goes on."]
    if any(share_words(piece) for row in rows for piece in row.pieces):
        said.append("×2: two tokens share a character; ×1/3: the row holds one of its three tokens.")
    if any(row.hidden for row in rows):
        said.append("Long rows are shown from their beginning.")
    return " ".join(said)
