"""Signs of life where there is no terminal: a line at the start of a stage, at its end, and in between every half minute."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import deque

from sparse_probing.cli.terminal import Terminal
from sparse_probing.progress import duration

INTERVAL = 30.0
"""Seconds between two lines of one stage."""
WINDOW = 5
"""Rate and time left are those since so many lines ago: what came from a cache at the start says nothing about the rest."""


class LogLines:
    """One stage, told in lines. A thread prints them, so work that reports rarely is not silent either."""

    def __init__(self, name: str, total: int | None, unit: str, console: Terminal, interval: float = INTERVAL) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._console, self._interval = console, interval
        self._done = 0
        self._begun = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._begun, 0)], maxlen=WINDOW)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def step(self, count: int) -> None:
        """So much was just done."""
        self._done += count

    def __enter__(self) -> LogLines:
        self._say("begins" if self._total is None else f"begins, {self._total:,} {self._unit}")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        passed = time.monotonic() - self._begun
        rate = f", {per_second(self._done / passed)} {self._unit}/s" if passed > 1 and self._done else ""
        ended = "done" if kind is None else "stopped"
        self._say(f"{ended}, {self._done:,} {self._unit} in {duration(passed)}{rate}, {memory()}")

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            self._say(", ".join(self._state()))

    def _state(self) -> list[str]:
        now, done = time.monotonic(), self._done
        then, before = self._marks[0]
        if done == before:  # nothing since: the whole stage says more
            then, before = self._begun, 0
        self._marks.append((now, done))
        rate = (done - before) / (now - then) if now > then else 0.0
        said = [f"{done:,} {self._unit}" if not self._total else f"{done:,} of {self._total:,} {self._unit}"]
        if self._total:
            said[0] += f" ({100 * done / self._total:.0f} %)"
        if rate:
            said.append(f"{per_second(rate)} {self._unit}/s")
        if rate and self._total:
            said.append(f"{duration(max(0, self._total - done) / rate)} left")
        return [*said, f"{duration(now - self._begun)} so far", memory()]

    def _say(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {self._name}: {text}", soft_wrap=True)


def per_second(rate: float) -> str:
    """`1,203`, `3.5`, `0.02`."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def memory() -> str:
    """The most memory that this process has taken so far; workers are processes of their own."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # Windows
        return "memory unknown"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{peak / 1e9:.2f} GB of memory at most"
