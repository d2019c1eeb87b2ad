"""A few cases of every fuzzer; `make fuzz` runs thousands."""

from __future__ import annotations

import random

import pytest

from sparse_probing.errors import InputError
from tests.hostile.engine import Target, changed_bytes, changed_json, run
from tests.hostile.targets import TARGETS

FEW = {"run folders": 3, "command line": 12}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_only_our_own_errors_come_out(target, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
            patch.setenv(name, "1")
        patch.chdir(tmp_path)
        outcome = run(target, tmp_path, cases=range(FEW.get(target.name, 25)), seed=0)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.refused  # else the changes are too tame to say anything


def test_a_traceback_an_exit_code_and_silence_are_failures(tmp_path):
    def case(rng, seeds, folder):
        match rng.randrange(4):
            case 0:
                raise InputError("a sentence.")
            case 1:
                raise InputError("")
            case 2:
                raise KeyError("missing")
            case 3:
                raise SystemExit(1)

    target = Target(name="made up", prepare=lambda folder: None, case=case, share=1)
    outcome = run(target, tmp_path, cases=range(40), seed=0)
    assert outcome.cases == 40
    said = "\n".join(outcome.failures)
    assert "without a sentence" in said and "KeyError: 'missing'" in said and "exit code 1" in said
    assert said == "\n".join(run(target, tmp_path, cases=range(40), seed=0).failures)


def test_changes_are_seeded_and_leave_the_seed_alone():
    good = {"a": [1, {"b": "c"}], "d": None}
    kept = repr(good)
    changed = [repr(changed_json(random.Random(i), good)) for i in range(99)]
    assert changed == [repr(changed_json(random.Random(i), good)) for i in range(99)]
    assert repr(good) == kept
    assert len(set(changed)) > 60
    assert changed_bytes(random.Random(1), b"abc") == changed_bytes(random.Random(1), b"abc")
