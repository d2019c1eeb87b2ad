"""How long work tells its progress; the command line draws bars, Python is silent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable


@runtime_checkable
class Reporter(Protocol):
    """Told what is being done and how far it is."""

    def stage(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        """Begin a stage of a known or unknown total; the returned function is told how much was just done."""
        ...

    def note(self, text: str) -> None:
        """Say something that the user may want to know."""
        ...


class Silent:
    """Tells nothing."""

    def stage(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]:  # noqa: ARG002
        """See `Reporter.stage`."""
        return nullcontext(lambda _: None)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""


def duration(seconds: float) -> str:
    """`8 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
