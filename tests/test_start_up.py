"""A command imports what it needs: what it is called for takes less time than the libraries it has no use for."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import cyclopts
from docstring_parser import parse

from sparse_probing.cli.main import COMMANDS

SLOW = (
    "torch", "transformers", "tokenizers", "numba", "scipy", "sklearn", "joblib", "polars", "altair", "pydantic", "numpy",
)  # fmt: skip
"""Libraries that take a tenth of a second or more."""


def imported_by(program: str) -> set[str]:
    """Slow libraries that a program has imported at its end."""
    said = f"{program}\nimport sys; print('\\nimported:', *({set(SLOW)} & sys.modules.keys()))"
    lines = subprocess.run([sys.executable, "-c", said], check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[-1].startswith("imported:")
    return set(lines[-1].split()[1:])


def test_help_imports_none_of_the_slow_libraries():
    program = """
from contextlib import suppress
from sparse_probing.cli.main import main
with suppress(SystemExit):
    main(["--help"])
"""
    assert imported_by(program) == set()


def test_the_list_of_commands_says_what_their_own_help_says():
    for command, sentence in COMMANDS.items():
        name = command.replace("-", "_")
        called = getattr(import_module(f"sparse_probing.cli.{name}"), name)
        own = called.help if isinstance(called, cyclopts.App) else parse(called.__doc__).short_description
        assert own == sentence
