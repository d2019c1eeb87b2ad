"""Changes to bytes and to JSON values, and the loop that counts what comes out."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from sparse_probing.errors import SparseProbingError

DEEP = 20_000
PATIENCE = 60
"""Seconds after which a case counts as hung."""
ODD_BYTES = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b"\n\n",
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"{",
    b"}",
    b"[]",
    b"\\u0000",
    b"\\ud800",
    b"\\udfff\\ud83d",
    b"\xed\xa0\x80",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1e200",
    b"1e-300",
    b"9" * 30,
    b"1" * 4_400,
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"null",
    b"true",
    b"\x1b[2J",
    "\u202e".encode(),
    "\U0001f9d1\u200d\U0001f680".encode(),
    b"\x80",
    b"a" * 70_000,
    b"_",
    b"1-2",
    b"1.1",
    b"#",
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    7,
    2**31,
    2**63,
    10**30,
    10**400,
    0.5,
    -1e200,
    1e308,
    float("inf"),
    float("nan"),
    "",
    " ",
    "a",
    "0",
    "1e999",
    "\ud800",
    "a\0b",
    "../..",
    "/",
    "~",
    "\u202e",
    "x" * 5_000,
    [],
    [[]],
    [None],
    [1, 2],
    ["a", 1],
    {},
    {"a": 1},
    {"start": 0, "end": 1, "label": "x"},
    [[0, 3, "a"]],
    "[[[[",
    '{"a": 1}',
    [{}],
    {"": None},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A door of the package."""

    name: str
    prepare: Callable[[Path], Any]
    """Makes good inputs in a folder, once."""
    case: Callable[[random.Random, Any, Path], object]
    """Sends a changed copy through the door; may write to the folder that it is given."""
    share: int
    """Cases of a hundred that go to this target."""


@dataclass(slots=True)
class Outcome:
    """What came of the cases of a target."""

    cases: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def run(target: Target, folder: Path, *, cases: range, seed: int) -> Outcome:
    """Cases of a target. Anything but the package's own errors, or exit codes 0 and 2, is a failure."""
    seeds, scratch = target.prepare(folder / target.name), folder / f"{target.name}-case"
    outcome = Outcome()
    signal.signal(signal.SIGALRM, _hang)
    for number in cases:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        outcome.cases += 1
        try:
            signal.alarm(PATIENCE)
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                target.case(random.Random(f"{target.name} {seed} {number}"), seeds, scratch)
        except SparseProbingError as error:
            outcome.refused += 1
            if not str(error).strip():
                outcome.failures.append(f"{target.name}, seed {seed}, case {number}: an error without a sentence")
        except SystemExit as error:
            outcome.refused += error.code == 2
            if error.code not in (None, 0, 2):
                outcome.failures.append(f"{target.name}, seed {seed}, case {number}: exit code {error.code}")
        except KeyboardInterrupt:
            raise
        except BaseException:
            lines = [
                line if len(line) < 300 else f"{line[:300]} [...]"
                for line in traceback.format_exc(limit=-6).splitlines()
            ]
            outcome.failures.append("\n".join([f"{target.name}, seed {seed}, case {number}:", *lines]))
        finally:
            signal.alarm(0)
    shutil.rmtree(scratch, ignore_errors=True)
    return outcome


def _hang(*_: object) -> None:
    raise TimeoutError(f"no answer within {PATIENCE} seconds")


def offline() -> None:
    """No case asks the network, whatever name of a model it makes up."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """One to four changes: bits, pieces cut out, doubled or moved, odd pieces put in, another encoding."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + rng.choice((1, 2, 16, 400)))
        match rng.randrange(9):
            case 0 if content:
                at = rng.randrange(len(content))
                content = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
            case 1:
                content = content[:at]
            case 2:
                content = content[:at] + content[end:]
            case 3:
                content = content[:end] + content[at:end] * rng.choice((1, 3, 200)) + content[end:]
            case 4:
                content = content[:at] + rng.randbytes(rng.choice((1, 8, 300))) + content[end:]
            case 5:
                content = content.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-16-le", "utf-8-sig")))
            case 6:
                content = content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"", b"\n\n")))
            case _:
                content = content[:at] + rng.choice(ODD_BYTES) + content[rng.choice((at, end)) :]
    return content


def changed_json(rng: random.Random, value: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, added or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return odd(rng)
        inside, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[rng.choice(("", "a", "\ud800", "label", "format"))] = odd(rng)
            case 2 if isinstance(inside, list):
                inside.insert(key, inside[key])
            case 3:
                inside[key] = [inside[key]]
            case 4:
                inside[key] = str(inside[key])
            case _:
                inside[key] = odd(rng)
    return value


def _places(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def odd(rng: random.Random) -> Any:
    """A value that is rarely meant."""
    return deepcopy(rng.choice(ODD_VALUES))


def write_changed_json(rng: random.Random, path: Path) -> None:
    """Change a JSON file: mostly its values, sometimes its bytes."""
    if rng.random() < 0.2:
        path.write_bytes(changed_bytes(rng, path.read_bytes()))
        return
    value = changed_json(rng, json.loads(path.read_text("utf-8")))
    path.write_text(json.dumps(value), "utf-8")  # in ASCII, with NaN and halves of characters as JSON writes them
