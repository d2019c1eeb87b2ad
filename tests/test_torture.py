"""Runs that are killed at renames and at random moments end in the same bytes; `make torture` does it for ten minutes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "torture.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_killed_runs_go_on_and_end_in_the_same_bytes(model_folders):
    """Twelve kills, four per run folder. Eight fall at renames and always hit; a random moment may come after the end."""
    command = [
        sys.executable,
        str(TOOL),
        "--kills",
        "12",
        "--chain",
        "4",
        "--small",
        "--model",
        str(model_folders["gpt_neox"]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    counts = {name: int(count) for count, name in re.findall(r"(\d+) ([a-z ]+)[,;]", last)}
    assert counts["killed"] >= 8 and counts["identical"] == 3, done.stdout
