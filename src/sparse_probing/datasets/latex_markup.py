r"""LaTeX source, or the pandoc-style text of a paper, to labelled stretches of characters (paper, LaTeX features).

`latex_spans` reads the text once, with a stack of open braces and formulas. It never fails: what is not well-formed gets no
label. `paper_latex_spans` follows the paper's regular expressions.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from sparse_probing.datasets.labelled_text import Span

FEATURES = (
    "is_title", "is_author", "is_abstract", "is_reference", "is_superscript", "is_subscript", "is_inline_math",
    "is_display_math", "is_math", "is_frac", "is_numerator", "is_denominator",
)  # fmt: skip
"""The paper's twelve."""

DISPLAY = re.compile(r"\w*(?:equation|align|alignat|gather|multline|eqnarray|displaymath|dmath)")
"""Environments that are displayed formulas, and relatives such as `flalign`; a star was taken off."""
VERBATIM = {"verbatim", "Verbatim", "lstlisting", "minted", "comment"}
FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"}
TITLE = re.compile(r"(?:sub)?title|chapter|[a-z]{0,2}(?:sub){0,2}section")
"""Two letters in front of `section` are a house style (`olsection`), more are another word (`intersection`)."""
SCRIPTS = {"^": "is_superscript", "_": "is_subscript"}
INLINE = {"$", "(", "math"}
DOLLARS = {"$", "$$"}
BRACKETS = {")": "(", "]": "["}

# Every repetition is bounded or stops at the next character of its own kind: scanning takes linear time.
TOKEN = re.compile(
    r"""
      (?<!\d)%[^\n]*                                            # a comment; but "5%" is a per cent sign
    | (?P<blank>\n[ \t]*\n)
    | \\(?:verb|lstinline)\*?(?P<q>[^\sA-Za-z*{\\]).{0,200}?(?P=q)
    | \\(?:url|href|path|label|tag|includegraphics)\*?(?:\[[^\]]{0,200}\])?\{[^{}]{0,500}\}
    | \\\[[A-Za-z][\w.-]*:[\w.:-]+\\\]                          # pandoc writes the text "[eq:1]" so
    | \\(?:[A-Za-z]{0,20}(?<!h)refs?|crefrange|[A-Za-z]{0,20}cite[A-Za-z]*)(?![A-Za-z])\*?
      (?:\[[^\]\n]{0,200}\]){0,3}\{(?P<key>[^{}]{1,1000})\}
    | \[-?@(?P<note>[^\[\]]{1,1000})\]
    | \\(?P<edge>begin|end)\{(?P<name>[A-Za-z]+)\*?\}
    | \\(?P<command>[A-Za-z]+)\*?
    | \\(?P<bracket>[()\[\]])
    | \\.
    | (?P<sign>[{}$^_])
    """,
    re.VERBOSE | re.DOTALL,
)
BLANKS = re.compile(r"[ \t]*\n?[ \t]*")
OPTIONAL = re.compile(r"(?:\[[^\]\n]{0,200}\])?")
SINGLE = re.compile(r"\\(?P<command>[A-Za-z]+)|\\[^\sA-Za-z()\[\]]|[^\s{}$^_&%#~\\]")
"""One token of TeX: what a script or a fraction takes where no brace follows."""
HEADER_KEY = re.compile(r"([A-Za-z][\w-]*):(?=\s|\Z)[ \t]*[|>]?[ \t]*")
HEADER_MORE = re.compile(r"[ \t]|-(?!--)|\s*\Z")
"""Lines that continue a header's value: indented, an item of a list, or empty."""
HEADERS = {"title": "is_title", "author": "is_author", "authors": "is_author", "abstract": "is_abstract"}


def latex_spans(text: str) -> list[Span]:
    r"""The stretches of a text that LaTeX markup (or a pandoc header) gives a meaning to.

    Formulas are labelled without their delimiters, in `$..$`, `\(..\)`, `$$..$$`, `\[..\]` and the display environments;
    mathematics within the text of a formula belongs to that formula. A formula ends with its paragraph at the latest: a dollar
    that is alone in its paragraph is a dollar. Scripts count within formulas only: their braces' content, or the one token
    that follows; fractions are labelled from the command to the last brace. A reference is the key of a `\cite` or a `\ref`
    (any command that ends so) or the inside of `[@..]`. Comments and verbatim text hold no markup.
    `is_title` is the title of a text *or of its chapters and sections*: books have few other titles.

    Returns:
        Spans in the order of the text, 0 <= start < end <= len(text), labelled with `FEATURES`.
    """
    nesting, spans = _Nesting(), list(_header_spans(text))
    scripts: list[tuple[str, int]] = []
    fractions: list[tuple[int, int]] = []
    headings: list[tuple[str, int]] = []
    abstract: int | None = None
    at = 0
    while token := TOKEN.search(text, at):
        start, at = token.span()
        sign, command = token["sign"], token["command"]
        if token["blank"]:
            nesting.paragraph(start)
            at -= 1  # three line ends in a row are one break, but the last may begin another
        elif sign == "$":
            at = nesting.dollar(text, start)
        elif sign in SCRIPTS:
            scripts.append((SCRIPTS[sign], at))
        elif sign:
            nesting.brace(sign, start)
        elif command in FRACTIONS:
            fractions.append((start, at))
        elif command and (command in ("author", "abstract") or TITLE.fullmatch(command)):
            headings.append((f"is_{command}" if command in ("author", "abstract") else "is_title", at))
        elif token["bracket"] in BRACKETS:
            nesting.end(BRACKETS[token["bracket"]], start)
        elif token["bracket"]:
            nesting.begin(token["bracket"], at)
        elif token["edge"]:
            name = token["name"]
            if name in VERBATIM and token["edge"] == "begin":
                end = text.find(f"\\end{{{name}", at)
                at = end if end >= 0 else len(text)
            elif name == "abstract":
                if token["edge"] == "end" and abstract is not None:
                    spans.append(Span(abstract, start, "is_abstract"))
                abstract = at if token["edge"] == "begin" else None
            elif name == "tikzpicture":
                nesting.abandon()  # a drawing that is centred as if it were a formula
            elif name == "math" or DISPLAY.fullmatch(name):
                nesting.begin(name, at) if token["edge"] == "begin" else nesting.end(name, start)
        else:
            spans += [Span(*token.span(group), "is_reference") for group in ("key", "note") if token[group]]
    nesting.cut(len(text))
    if abstract is not None:
        spans.append(Span(abstract, len(text), "is_abstract"))
    for start, end, inline in nesting.found:
        spans += [Span(start, end, "is_math"), Span(start, end, "is_inline_math" if inline else "is_display_math")]
    spans += _script_spans(text, scripts, nesting)
    spans += _fraction_spans(text, fractions, nesting)
    for label, begin in headings:
        found = OPTIONAL.match(text, begin)
        begin = found.end() if found else begin
        if begin in nesting.closing:
            spans.append(Span(begin + 1, nesting.closing[begin], label))
    return sorted({span for span in spans if span.start < span.end})


class _Nesting:
    r"""Braces and formulas that are open, and those that were closed."""

    def __init__(self) -> None:
        self.open: list[tuple[str, int]] = []
        """How it was opened; position of a brace, or first character of a formula."""
        self.formulas: list[int] = []
        r"""Places of the formulas in `open`. More than one: mathematics in text in mathematics, as in `\text{if $x$}`."""
        self.closing: dict[int, int] = {}
        """Position of `{` -> position of its `}`."""
        self.found: list[tuple[int, int, bool]] = []
        """Outermost formulas, ascending: first character, one past the last, whether it is part of a line."""

    def brace(self, sign: str, at: int) -> None:
        if sign == "{":
            self.open.append((sign, at))
        elif self.open and self.open[-1][0] == "{":
            self.closing[self.open.pop()[1]] = at

    def dollar(self, text: str, at: int) -> int:
        """Open or close a formula; returns the first character behind the dollar signs."""
        sign = "$$" if text.startswith("$$", at) else "$"
        top = self.open[-1][0] if self.open else ""
        if top in DOLLARS:
            sign = min(sign, top)  # "$a$$b$": the second dollar closes, the third opens
            self.end(top, at)
        else:
            self.begin(sign, at + len(sign))
        return at + len(sign)

    def begin(self, opener: str, at: int) -> None:
        """Open a formula; if it could not stand where it does, the one around it was none (a price in dollars)."""
        if self.formulas:
            display = opener not in INLINE
            if self.open[-1][0] == "$" or (display and self._opener(0) in INLINE):
                self.abandon()
            elif display:
                return
        self.formulas.append(len(self.open))
        self.open.append((opener, at))

    def end(self, opener: str, at: int) -> None:
        """Close the innermost or the outermost formula, whichever was opened so."""
        if len(self.formulas) > 1 and self._opener(-1) == opener:
            del self.open[self.formulas.pop() :]
        elif self.formulas and self._opener(0) == opener:
            self.cut(at)

    def paragraph(self, at: int) -> None:
        """A blank line: no formula goes on behind it."""
        if self.formulas and self._opener(0) not in DOLLARS:
            self.cut(at)
        self.abandon()

    def cut(self, at: int) -> None:
        """The formula that we are in, if any, ends here."""
        if self.formulas:
            self.found.append((self.open[self.formulas[0]][1], at, self._opener(0) in INLINE))
            self.abandon()

    def abandon(self) -> None:
        """Forget the formula that we are in."""
        if self.formulas:
            del self.open[self.formulas[0] :]
            self.formulas.clear()

    def _opener(self, which: int) -> str:
        return self.open[self.formulas[which]][0]


def _argument(text: str, at: int, nesting: _Nesting) -> tuple[int, int, int] | None:
    """First character of an argument, one past its last, and one past its brace; null where there is none."""
    found = BLANKS.match(text, at)
    at = found.end() if found else at
    if text.startswith("{", at):
        close = nesting.closing.get(at)
        return None if close is None else (at + 1, close, close + 1)
    single = SINGLE.match(text, at)
    return None if single is None else (at, single.end(), single.end())


def _script_spans(text: str, scripts: list[tuple[str, int]], nesting: _Nesting) -> Iterator[Span]:
    begins = [start for start, _, _ in nesting.found]
    for label, at in scripts:
        formula = bisect_right(begins, at) - 1
        argument = _argument(text, at, nesting)
        if formula < 0 or argument is None:
            continue
        start, end, behind = argument
        if end == behind and text[end - 1].isalpha():  # ^\mathrm{T} is taken with its braces
            while end > start + 1 and end in nesting.closing:
                end = nesting.closing[end] + 1
        if end <= nesting.found[formula][1]:
            yield Span(start, end, label)


def _fraction_spans(text: str, fractions: list[tuple[int, int]], nesting: _Nesting) -> Iterator[Span]:
    for start, at in fractions:
        above = _argument(text, at, nesting)
        below = None if above is None else _argument(text, above[2], nesting)
        if above is not None and below is not None:
            yield Span(start, below[2], "is_frac")
            yield Span(above[0], above[1], "is_numerator")
            yield Span(below[0], below[1], "is_denominator")


def _header_spans(text: str) -> Iterator[Span]:
    """Values of `title:`, `author:` and `abstract:` in the lines at the head of a text written by pandoc."""
    at = 4 if text.startswith("---\n") else 0
    label, start, end, keys = None, at, at, 0
    while at < len(text):
        line_end = text.find("\n", at) + 1 or len(text)
        key = HEADER_KEY.match(text, at, line_end)
        if key is None and not (keys and HEADER_MORE.match(text, at, line_end)):
            break
        if key:
            if label:
                yield _value(text, start, end, label)
            label, start, end, keys = HEADERS.get(key[1].lower()), key.end(), key.end(), keys + 1
        if line := text[at:line_end].rstrip():
            end = max(end, at + len(line))
        at = line_end
    if label:
        yield _value(text, start, end, label)


def _value(text: str, start: int, end: int, label: str) -> Span:
    """Without the dashes, bars and quotation marks of YAML."""
    value = text[start:end]
    return Span(end - len(value.lstrip(" \t\n-|>'\"")), start + len(value.rstrip(" \t\n'\"")), label)


PAPER_HEADER = r"^{}:((?:(?!author:|title:|bibliography:|date:|address:|abstract:|---).*\n?)*)"
PAPER_TITLE = re.compile(r"^title:[ \t]+(?:[|'][ \t]*\n?[ \t]*)?([^'\\\n]+)", re.MULTILINE)
PAPER_BLOCKS = {
    "is_author": (re.compile(PAPER_HEADER.format("author"), re.MULTILINE), 200, 75),
    "is_abstract": (re.compile(PAPER_HEADER.format("abstract"), re.MULTILINE), 400, 250),
}
"""Label -> pattern, length from which it is cut, length to which."""
PAPER_INSIDE = {
    "is_reference": re.compile(r"\[@([^\]]{1,1000})\]"),
    "is_superscript": re.compile(r"\^\{([^}\n]{1,1000})\}"),
    "is_subscript": re.compile(r"_\{([^}\n]{1,1000})\}"),
}
PAPER_FRACTION = re.compile(r"\\frac\{([^}]{1,1000})\}\{([^}]{1,1000})\}")
PAPER_FORMULA = re.compile(r"\\.|\$\$((?:[^$\\]|\\.|\$(?!\$))*+)\$\$|\$((?:[^$\\]|\\.)++)\$", re.DOTALL)


def paper_eligible(text: str) -> bool:
    """The paper's test of a text: an even number of dollar signs."""
    return text.count("$") % 2 == 0


def paper_latex_spans(text: str) -> list[Span]:
    r"""The paper's labels, by its regular expressions on pandoc-style text (specification, section 1.8).

    The first `title:`, `author:` and `abstract:` line; at most 50 characters of a title, 75 of an author block of 200 or more,
    250 of an abstract of 400 or more. Only `[@..]` is a reference, only `$` and `$$` open formulas. The first closing brace ends
    a script (also outside formulas) or a part of a fraction, whose label runs from the first brace to the last.
    Defect D6 is not reproduced: spans that leave the window mark nothing, and formulas keep their last character.
    """
    spans: list[Span] = []
    if title := PAPER_TITLE.search(text):
        spans.append(Span(title.start(1), min(title.end(1), title.start(1) + 50), "is_title"))
    for label, (pattern, long, kept) in PAPER_BLOCKS.items():
        if block := pattern.search(text):
            start, end = block.span(1)
            spans.append(Span(start, end if end - start < long else start + kept, label))
    for label, pattern in PAPER_INSIDE.items():
        spans += [Span(*found.span(1), label) for found in pattern.finditer(text)]
    for found in PAPER_FRACTION.finditer(text):
        spans.append(Span(found.start(1) - 1, found.end(2) + 1, "is_frac"))
        spans += [Span(*found.span(1), "is_numerator"), Span(*found.span(2), "is_denominator")]
    for found in PAPER_FORMULA.finditer(text):
        for group, label in ((1, "is_display_math"), (2, "is_inline_math")):
            if found[group]:
                spans += [Span(*found.span(group), label), Span(*found.span(group), "is_math")]
    return sorted({span for span in spans if span.start < span.end})
