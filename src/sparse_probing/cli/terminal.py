"""The one door to the terminal: whatever is printed, no character of it acts."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Span, Text

from sparse_probing.pages.visible import ISOLATE, harmless

WIDTH_WITHOUT_TERMINAL = 132
"""Columns for files and pipes, where there is no window to fit into."""
LONGEST_MESSAGE = 2_000
"""Characters of an error."""


class Terminal(Console):
    """A console for text from data, models and file names: control characters and bidirectional overrides are shown, not obeyed.

    Strings are no markup and no emoji codes. A line break inside a string is shown as well: one `print` per line.
    """

    def __init__(self, **options: Any) -> None:
        plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
        super().__init__(**plain | options)
        if not self.is_terminal and "width" not in options:
            self.width = WIDTH_WITHOUT_TERMINAL

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console.render_str`."""
        return super().render_str(harmless(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `rich.console.Console.render`; everything that is printed passes here, cell by cell."""
        return super().render(shown(renderable) if isinstance(renderable, Text) else renderable, options)


def shown(text: Text) -> Text:
    """A styled text with its unsafe characters replaced, styles kept."""
    if (safe := harmless(text.plain)) == text.plain:
        return text
    kept_isolates = ISOLATE in safe
    at = [0]
    for character in text.plain:
        at.append(at[-1] + len(harmless(character, isolates=kept_isolates)))
    copy = text.blank_copy(safe)
    copy.spans = [Span(at[span.start], at[span.end], span.style) for span in text.spans]
    return copy


def print_error(text: str) -> None:
    """One line on standard error, whatever came: a message that quotes a whole file is cut."""
    said = " ".join(text.split())
    if len(said) > LONGEST_MESSAGE:
        said = f"{said[: LONGEST_MESSAGE - 6]} [...]"
    line = Text.assemble(("error:", "bold red"), " ", harmless(said))
    Terminal(file=sys.stderr, soft_wrap=True).print(line)


def warn_of_model_code(*, trusted: bool) -> None:
    """Say on standard error what `--trust-remote-code` means, where it is on."""
    if trusted:
        said = "--trust-remote-code is on: program code that comes with the model runs here with all your rights."
        Terminal(file=sys.stderr, soft_wrap=True).print(Text.assemble(("warning:", "bold yellow"), " ", said))
