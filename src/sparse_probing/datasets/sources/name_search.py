"""Find many thousand names in a large text in one pass (paper, facts about people, stage A)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

TWO_WORDS = re.compile(r"(?<!\w)(?<!\w-)([^\W\d_a-z]\w*)(?=(\W{1,4}\w+))")
"""A capitalised word, and the gap and the word behind it: they name the few candidates that may begin here."""
BOUNDARY = re.compile(r"(?!\w|-\w)")


class NameIndex:
    """Names by their first two words.

    Args:
        names: full names of at least two words, the first of them capitalised; others are never found.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._candidates: dict[str, dict[str, list[str]]] = {}
        for name in sorted(set(names), key=len, reverse=True):  # the longest candidate is tried first
            words = TWO_WORDS.match(name)
            if words:
                self._candidates.setdefault(words[1], {}).setdefault(words[2], []).append(name)

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Where a name begins in the text, and the name.

        A name ends and begins at word boundaries, where a hyphenated word is one word. Of names that begin at the same
        character the longest is found; names inside a found name are not. Takes time linear in the text.
        """
        covered_to = 0
        for words in TWO_WORDS.finditer(text):
            seconds = self._candidates.get(words[1])
            if seconds is None or words.start() < covered_to:
                continue
            for name in seconds.get(words[2], ()):
                end = words.start() + len(name)
                if text.startswith(name, words.start()) and BOUNDARY.match(text, end):
                    covered_to = end
                    yield words.start(), name
                    break
