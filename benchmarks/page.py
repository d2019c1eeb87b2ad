"""The benchmark page: each benchmark replaces its own section and leaves the others as they are."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path


def machine(device: str = "no GPU") -> str:
    """Date and machine, in one line."""
    return f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, {device}."


def write_section(path: Path, title: str, lines: list[str]) -> None:
    """Put `## title` and its lines into the page, in place of an older section of that title."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    section = "\n".join([f"## {title}", "", *lines, ""])
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
    found = pattern.search(text)
    if found:
        rest = text[found.end() :]
        text = text[: found.start()] + section + ("\n" if rest else "") + rest
    else:
        text = text.rstrip("\n") + "\n\n" + section
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
