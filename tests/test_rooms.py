"""Data flows one way: a room imports only rooms above it; torch stays in `activations`, altair in the modules named `charts`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "sparse_probing"
ROOMS = [
    "errors", "records", "files", "compiled", "progress", "pages", "datasets", "activations", "ranking", "probes", "selection",
    "metrics", "estimators", "config", "inputs", "results", "sweep", "open_run", "studies", "views", "report", "jobs", "cli",
]  # fmt: skip
HEAVY = {"torch": "activations/*", "transformers": "activations/*", "altair": "*charts.py"}
PALETTE = "pages/palette.py"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]


def test_every_room_is_listed_and_the_list_holds_no_empty_room():
    assert {room_of(path) for path in modules()} == set(ROOMS)


def test_rooms_import_only_rooms_above_them():
    for path in modules():
        here = ROOMS.index(room_of(path))
        for name in imports(path):
            if name.startswith("sparse_probing."):
                other = name.split(".")[1]
                assert ROOMS.index(other) <= here, f"{path} reads downstream room {other}"


def test_heavy_libraries_stay_in_their_room():
    for path in modules():
        for name in imports(path):
            allowed = HEAVY.get(name.split(".")[0])
            here = path.relative_to(SOURCE).as_posix()
            assert allowed is None or fnmatch(here, allowed) or here == PALETTE, f"{path} imports {name}"


def test_neither_workers_nor_the_cache_import_torch():
    program = "import sys, sparse_probing.sweep.local_runner, sparse_probing.activations.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_modules_stay_short():
    for path in modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_a_study_imports_only_the_studies_that_it_lists():
    for room in sorted(path.parent for path in (SOURCE / "studies").glob("*/__init__.py")):
        found = {name.split(".")[2] for path in room.glob("*.py") for name in imports(path)
                 if name.startswith("sparse_probing.studies.") and name.count(".") > 2}  # fmt: skip
        listed = set(getattr(import_module(f"sparse_probing.studies.{room.name}"), "USES", ()))
        assert found - {room.name} == listed, room.name
