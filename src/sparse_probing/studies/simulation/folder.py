"""Whose folder is it? A simulation goes on in its own folder and in no other one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.files import remove_partials, write_json
from sparse_probing.results.manifest import versions
from sparse_probing.studies.simulation.planted import Planted

PROGRAM = "sprobe simulate"


def claim(folder: Path, options: Planted, rows: Sequence[int], methods: Sequence[str], repeats: int) -> Path:
    """Make `folder` the home of these options, or recognise it, and return the folder of its cells.

    `config.json` says what lies there. Other rows and repeats are welcome: finished cells stay valid.

    Raises:
        InputError: the folder holds something else.
        PrerequisiteError: it cannot be written.
    """
    planted = {name: value for name, value in asdict(options).items() if name != "rows"}
    identity = {
        "program": PROGRAM,
        "version": versions()["sparse-probing"],
        "options": planted,
        "methods": list(methods),
    }
    record = folder / "config.json"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file, a simulation needs a folder: choose another --out.")
    if folder.is_dir() and any(folder.iterdir()):
        known = _read_config(record)
        if known.get("program") != PROGRAM:
            raise InputError(f"{str(folder)!r} holds something else than a simulation: choose another --out.")
        if differing := _differences(known, identity):
            raise InputError(
                f"{str(folder)!r} holds a simulation with other options ({differing}): choose another --out, or delete that folder."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / "cells"):
            remove_partials(place)
        write_json(record, identity | {"rows": sorted(set(rows)), "repeats": repeats})
    except OSError as error:
        raise PrerequisiteError(
            f"folder {str(folder)!r} cannot be written ({error.strerror}): choose another --out."
        ) from None
    return folder / "cells"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _differences(known: dict[str, Any], identity: dict[str, Any]) -> str:
    """Names of what differs."""
    theirs, ours = _flat(known), _flat(identity)
    return ", ".join(name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name))


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    options = config.get("options")
    rest = {name: config.get(name) for name in ("methods", "version")}
    return (options if isinstance(options, dict) else {}) | rest
