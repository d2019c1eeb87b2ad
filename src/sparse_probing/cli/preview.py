"""Rows and their labels in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from sparse_probing.cli.terminal import Terminal
from sparse_probing.pages.visible import END_ISOLATE, ISOLATE, isolated, visible
from sparse_probing.studies.datasheet.preview import PreviewRow
from sparse_probing.studies.datasheet.preview_view import label_words, legend, share_words, where_words

MARKS = ("reverse bold", "reverse")
"""In turn, so that a terminal shows where a token ends."""


def print_preview(rows: Sequence[PreviewRow], console: Console | None = None) -> None:
    """Print rows with their tokens marked: in reverse video, or between ⟦ and ⟧ where output cannot be styled.

    Args:
        rows: from `preview_rows`.
        console: where to print; standard output when null.
    """
    console = console or Terminal()
    styled = console.is_terminal and not console.is_dumb_terminal
    marks = f"{'in reverse video' if styled else 'between ⟦ and ⟧'}, │ parts them"
    console.print(Text(legend(rows, marks)), soft_wrap=True)
    for number, row in enumerate(rows, 1):
        console.print()
        head = Text(f"{number:>2}  ")
        head.append(", ".join(isolated(visible(words)) for words in label_words(row)), style="bold")
        head.append("   " + " · ".join(isolated(visible(words)) for words in where_words(row)), style="dim")
        console.print(head, soft_wrap=True)
        console.print(Text("    ").append_text(_line(row, styled=styled)), soft_wrap=True)


def _line(row: PreviewRow, *, styled: bool) -> Text:
    line = Text("…" if row.more_before else "")
    line.append(visible(row.before))
    line.append("" if styled else "⟦")
    faint = "dim" if styled else ""
    for i, piece in enumerate(row.pieces):
        if i and piece.tokens and row.pieces[i - 1].tokens:
            line.append("│", style=faint)
        line.append(visible(piece.text), style=MARKS[i % 2] if styled and piece.tokens else "")
        line.append(share_words(piece), style=faint)
    if row.hidden:
        line.append(f"… {row.hidden:,} more characters", style=faint)
    line.append("" if styled else "⟧")
    line.append(visible(row.after))
    line.append("…" if row.more_after and not row.hidden else "")
    if isolated(line.plain) != line.plain:
        return Text(ISOLATE).append_text(line).append(END_ISOLATE)
    return line
