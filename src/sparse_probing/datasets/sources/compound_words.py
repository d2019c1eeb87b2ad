"""Second words of compounds (high school), against the same words and the first ones elsewhere (paper, compound words)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sparse_probing.datasets.draw import Draw, priority
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.readers import iter_rows
from sparse_probing.datasets.sources.corpus import (
    PAPER_FRACTIONS,
    PROGRESS_STEP,
    corpus_document,
    corpus_rows,
)
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError
from sparse_probing.records import SPLIT_WORDS

Pair = tuple[str, str]

PAPER_PAIRS: tuple[Pair, ...] = (
    ("blood", "pressure"), ("cell", "lines"), ("clinical", "trials"), ("control", "group"), ("credit", "card"),
    ("federal", "government"), ("gene", "expression"), ("high", "school"), ("human", "rights"), ("living", "room"),
    ("magnetic", "field"), ("mental", "health"), ("north", "america"), ("prime", "factors"), ("public", "health"),
    ("second", "derivative"), ("side", "effects"), ("social", "media"), ("social", "security"), ("third", "party"),
    ("trial", "court"),
)  # fmt: skip
"""The paper's 21 (specification, section 1.11), in lower case."""
CONTEXTS = "compound_contexts.jsonl.gz"
"""File of a folder in the second layout: ready contexts, one a line, with `compound`, `kind`, `text`, `target`, `doc`, `split`."""
POSITIVE, SECOND_ONLY, FIRST_ONLY = "", "second_only", "first_only"
KINDS = {"bigram": POSITIVE, SECOND_ONLY: SECOND_ONLY, FIRST_ONLY: FIRST_ONLY}
"""`kind` in a file of contexts -> what follows the colon of a label."""
SHARES = {POSITIVE: 1, SECOND_ONLY: 2, FIRST_ONLY: 2}
"""The paper's 1,600 : 3,200 : 3,200."""
MOST = 1_600
"""Positives of a pair."""
LEAST = 10
"""Positives that a pair needs."""
CHARACTERS = 400
"""Text before the probed word that is kept: more than 24 tokens, which is the window."""
CAPITAL_DOTTED_I = "\u0130"
"""The one letter that becomes two in lower case."""
BLANK = re.compile(r"\s+")
RULES = {
    "anchor": "end",
    "window": 25,
    "pooling": "last",
    "skip_first": 1,
    "positive_share": 0.2,
    "max_rows": 8_000,
    "split_by": "group",
}
PAPER_RULES = {
    **RULES,
    "sampling": "filled",
    "most_positive": 0.2,
    "full_windows_only": True,
    "split_by": "row",
    "fractions": PAPER_FRACTIONS,
}


class _Joint(NamedTuple):
    between: re.Pattern[str]
    """What may stand between the two words of a compound."""
    after: re.Pattern[str]
    """What may follow a first word; group 1 is the probed word."""


JOINT = _Joint(
    between=re.compile(r"-|[^\S\n]+|[^\S\n]*\n[^\S\n]*"),
    after=re.compile(r"(?:-|[^\S\n]+|[^\S\n]*\n[^\S\n]*)(\w+)"),
)
"""One hyphen, or white space without a blank line; then a word."""
PAPER_JOINT = _Joint(between=re.compile(r" "), after=re.compile(r" ?(\w+|[^\w\s]+)"))
"""One blank, as between two tokens of the paper; then a word or punctuation."""


def compound_words(place: Path, options: BuildOptions, pairs: Sequence[Pair] = PAPER_PAIRS) -> LabelledText:
    """Words in the contexts of compounds: `high-school` against `high-school:second_only` and `high-school:first_only`.

    The probed word is the second of a pair behind the first (positive), the second behind something else, or the word that
    follows the first and is not the second. A document is the text that ends with the probed word, up to 400 characters before
    it; its one stretch carries the labels of every pair that it serves (public health: of `mental-health:second_only`, too).
    Up to 1,600 positives and, for each of them, two negatives of either kind are drawn; documents of the corpus are groups.

    The folder is a corpus, or holds `compound_contexts.jsonl.gz`: contexts that were cut before, with pairs of their own.

    Differs from the paper: words instead of tokens, joined by white space or one hyphen, however many tokens they have (the last
    one is probed); a first word at the end of its sentence is no context; windows never cross documents, and carry a BOS token
    where the model has one; short windows take part, and a text that recurs is taken once; pairs with fewer positives have fewer
    negatives; the split is by document (D10; the corpus's own one leaves rare pairs without test rows). With `paper_rules` the
    words are separated by one blank, punctuation may follow the first word, negatives are not limited, windows are full and rows
    are split at random. Words written as one (highschool), windows across documents and single-token words depend on the paper's
    tokenizer and are not reproduced.

    Args:
        place: folder in one of the two layouts.
        options: seed, progress, positives per pair, `paper_rules`.
        pairs: words in lower case; a corpus is searched for them.

    Raises:
        InputError: no pair has 10 positives, or the folder cannot be read.
    """
    ready = (place / CONTEXTS).exists()
    contexts = contexts_rows(place / CONTEXTS, options) if ready else _search(place, options, pairs)
    most = options.most or MOST
    draw: Draw[tuple[str, str], Document] = Draw(max(SHARES.values()) * most, options.seed)
    for document in contexts:
        for span in document.spans:
            name, _, kind = span.label.partition(":")
            draw.offer((name, kind), document.id, replace(document, spans=(span,)))
    drawn: dict[tuple[str, str], list[Document]] = {}
    for key, document in draw.drawn():
        drawn.setdefault(key, []).append(document)
    names = dict.fromkeys([*("-".join(pair) for pair in pairs), *(name for name, _ in drawn)])
    counts = {name: draw.offered.get((name, POSITIVE), 0) for name in names}
    features = tuple(name for name in names if counts[name] >= LEAST)
    if not features:
        raise InputError(
            f"folder {str(place)!r} holds at most {max(counts.values(), default=0)} contexts of any compound: at least {LEAST} "
            "are needed; give a larger corpus or other pairs."
        )
    by_text: dict[str, Document] = {}  # a text that recurs in another document must not contradict itself
    for name in features:
        positives = most if options.paper_rules else min(most, counts[name])
        for kind, share in SHARES.items():
            found = drawn.get((name, kind), [])
            found.sort(key=lambda document: priority(options.seed, document.id))
            for document in found[: share * positives]:
                same = by_text.setdefault(document.text, document)
                spans = tuple(dict.fromkeys(same.spans + document.spans))
                by_text[document.text] = replace(same, spans=spans)
    return LabelledText(
        category="compound word",
        features=features,
        level="span",
        documents=tuple(by_text.values()),
        contrasts={name: (f"{name}:{SECOND_ONLY}", f"{name}:{FIRST_ONLY}") for name in features},
        rules=PAPER_RULES if options.paper_rules else RULES,
        notes=tuple(
            f"{name} is left out: {count} context(s) here, at least {LEAST} are needed."
            for name, count in counts.items()
            if name not in features
        ),
    )


def contexts_rows(path: Path, options: BuildOptions) -> Iterator[Document]:
    """Contexts that were cut before: each text ends with its probed word, `target`.

    Raises:
        InputError: a row without compound, kind or text, of an unknown kind, or whose text does not end with its target.
    """
    number = 0
    for number, row in enumerate(iter_rows(path), 1):
        compound, kind, text, target = (str(row.get(field) or "") for field in ("compound", "kind", "text", "target"))
        if not compound or kind not in KINDS or not target or not text.endswith(target):
            raise InputError(
                f"{path}, row {number}: a context needs 'compound', 'kind' ({', '.join(KINDS)}) and a 'text' that ends with "
                f"its 'target'; got kind {kind!r} and target {target!r}."
            )
        split = None if options.paper_rules else SPLIT_WORDS.get(str(row.get("split")))
        label = _label("-".join(compound.lower().split()), KINDS[kind])
        span = Span(len(text) - len(target), len(text), label)
        document = corpus_document(row, split, number, spans=(span,))
        yield replace(document, id=f"{document.group}:{number}")
        if number % PROGRESS_STEP == 0:
            options.progress(PROGRESS_STEP)
    options.progress(number % PROGRESS_STEP)


def _label(name: str, kind: str) -> str:
    return f"{name}:{kind}" if kind else name


def _search(place: Path, options: BuildOptions, pairs: Sequence[Pair]) -> Iterator[Document]:
    """Every context of every pair in a corpus, one document for each probed word."""
    joint = PAPER_JOINT if options.paper_rules else JOINT
    words = {word for pair in pairs for word in pair}
    firsts = {word: [first for first, second in pairs if second == word] for word in words}
    seconds = {word: [second for first, second in pairs if first == word] for word in words}
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words)))})\b")
    for number, (split, row) in enumerate(corpus_rows(place, options)):
        whole = corpus_document(row, None if options.paper_rules else split, number)
        lower = whole.text.replace(CAPITAL_DOTTED_I, "i").lower()
        labels: dict[tuple[int, int], list[str]] = {}
        needed: dict[tuple[int, int], int] = {}
        last, last_start, last_end = "", 0, 0
        for match in pattern.finditer(lower):
            word, (start, end) = match[0], match.span()
            joined = joint.between.fullmatch(lower, last_end, start) is not None
            for first in firsts[word]:
                is_compound = joined and first == last
                labels.setdefault((start, end), []).append(
                    _label(f"{first}-{word}", POSITIVE if is_compound else SECOND_ONLY)
                )
                if is_compound:
                    needed[start, end] = last_start
            if seconds[word] and (follower := joint.after.match(lower, end)):
                others = [_label(f"{word}-{second}", FIRST_ONLY) for second in seconds[word] if second != follower[1]]
                labels.setdefault(follower.span(1), []).extend(others)
                needed[follower.span(1)] = start
            last, last_start, last_end = word, start, end
        for (start, end), found in labels.items():
            begin = _begin(lower, needed.get((start, end), start))
            yield replace(
                whole,
                id=f"{whole.id}:{start}",
                text=whole.text[begin:end],
                spans=tuple(Span(start - begin, end - begin, label) for label in found),
            )


def _begin(text: str, needed: int) -> int:
    """Where the window begins of which `needed` is the first character that must be in it: at a word, if there is one."""
    begin = max(0, needed - CHARACTERS)
    blank = BLANK.search(text, begin, needed) if begin else None
    return blank.end() if blank else begin
