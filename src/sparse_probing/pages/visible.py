"""Text from data as one line that anybody can read: no character acts, none is invisible."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"
"""Letters of Persian and Indic scripts and parts of emoji are joined by these; an escape would tear them."""
ISOLATE, END_ISOLATE = "\u2068", "\u2069"


def visible(text: str) -> str:
    """Line breaks as ⏎, control characters as their pictures, other characters without a shape as escapes."""
    return text if text.isascii() and text.isprintable() else "".join(map(_shape, text))


def harmless(text: str, *, isolates: bool | None = None) -> str:
    """`visible`, but isolates that `isolated` has put around a part stay; unpaired ones are shown.

    Args:
        text: what is about to be printed, finished.
        isolates: whether isolates stay; null: when they are paired.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = (ISOLATE, END_ISOLATE) if (_paired(text) if isolates is None else isolates) else ()
    return "".join(character if character in kept else _shape(character) for character in text)


def legible(text: str) -> str:
    """`visible` for text of several lines: line breaks and tabs stay."""
    return text if text.isascii() and text.isprintable() else "".join(c if c in "\n\t" else _shape(c) for c in text)


def _paired(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == ISOLATE) - (character == END_ISOLATE)
        if depth < 0:
            return False
    return depth == 0


def _shape(character: str) -> str:
    code = ord(character)
    if character == "\n":
        return "⏎"
    if code < 0x20 or code == 0x7F:
        return chr(0x2400 + code) if code < 0x20 else "␡"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS:
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def isolated(text: str) -> str:
    """Text with letters that run from right to left, kept from reordering what stands beside it; other text as it is."""
    if any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text):
        return f"{ISOLATE}{text}{END_ISOLATE}"
    return text
