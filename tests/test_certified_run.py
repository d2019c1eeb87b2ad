"""Proofs in a run: exact searches as tasks, their certificates, the bounds of every other probe, and the command that checks."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import sparse_probing as sp
from sparse_probing.cli.main import main
from sparse_probing.selection.certificate import Certificate, check_certificate, read_certificate, write_certificate
from sparse_probing.selection.exact import best_subset
from sparse_probing.sweep.evaluate import share_bounds
from sparse_probing.sweep.plan import ExactPlan, Method, Plan, Task, plan_tasks
from sparse_probing.sweep.run_task import run_task
from sparse_probing.views.run_view import choice_words
from tests.test_run import QUICK, arguments, tables_of
from tests.test_selection import mixed
from tests.test_sweep import planted

EXACT = ExactPlan(ks=(1, 3), layers=(2,), gap=1e-3, nodes=10_000)
PLAN = Plan(ks=(1, 3), methods=(Method.EXACT, Method.GREEDY_SWAP), permutations=0, seed=0, exact=EXACT)


@pytest.fixture(scope="module")
def certified(model_folders, reviews, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "certified"
    more = ("--methods", "exact", "mean_difference", "--exact-ks", "1", "3", "--exact-layers", "1", "--workers", "1")
    main(arguments(model_folders, reviews, out, *more))
    return out


def test_exact_searches_are_tasks_of_one_feature_and_layer():
    tasks = plan_tasks([0, 1, 2], ["a", "a", "b c"], random_model=False, exact_layers=[1, 2])
    exact = [task for task in tasks if task.exact]
    assert [(task.layer, task.features) for task in exact] == [(layer, (f,)) for f in range(3) for layer in (1, 2)]
    assert len({task.name for task in tasks}) == len(tasks)


def test_an_exact_task_proves_the_planted_units_and_keeps_the_certificate():
    data = planted()
    one = replace(data, positive=data.positive[:, 1:2], eligible=data.eligible[:, 1:2], feature_names=("three",))
    kept: dict[str, Certificate] = {}
    result = run_task(Task(layer=2, category="c", features=(1,), exact=True), one, PLAN, kept.__setitem__)
    probes = {probe["k"]: probe for probe in result.probes}
    assert probes[3]["columns"] == [5, 6, 7]
    assert {probe["status"] for probe in result.probes} == {"optimal"}
    assert all(0 <= probe["gap"] <= 1e-3 * 1.001 for probe in result.probes)
    assert sorted(kept) == sorted(probe["certificate"] for probe in result.probes)
    assert kept[probes[3]["certificate"]].about == {"category": "c", "feature": "three", "layer": 2}


def test_every_selected_probe_has_a_bound_and_a_proved_one_serves_all():
    task = Task(layer=2, category="c", features=(0, 1, 2))
    data = planted(rows=150, units=20)
    plan = replace(PLAN, methods=(Method.GREEDY_SWAP, Method.MEAN_DIFFERENCE))
    probes = [p for p in run_task(task, data, plan).probes if p["method"] in plan.methods]
    one = replace(data, positive=data.positive[:, 2:], eligible=data.eligible[:, 2:], feature_names=("none",))
    exact = run_task(Task(layer=2, category="c", features=(2,), exact=True), one, PLAN).probes
    before = {(p["feature"], p["method"], p["k"]): p["gap"] for p in probes}
    assert all(p["lower_bound"] <= p["selection_objective"] and p["status"] == "heuristic" for p in probes)
    share_bounds([*probes, *exact])
    for probe in probes:
        key = (probe["feature"], probe["method"], probe["k"])
        assert probe["gap"] <= before[key]
        if probe["feature"] == "none" and probe["method"] == Method.GREEDY_SWAP:
            assert probe["gap"] <= 1e-3 * 1.001
    assert max(gap for key, gap in before.items() if key[:2] == ("none", Method.GREEDY_SWAP)) > 2e-3


def test_a_run_with_proofs_is_complete(certified):
    probes = pl.read_parquet(certified / "probes.parquet").filter(split="train")
    exact = probes.filter(method="exact")
    assert sorted(exact["k"]) == [1, 3]
    assert set(exact["layer"]) == {1}
    assert set(exact["status"]) == {"optimal"}
    assert {file.name for file in (certified / "certificates").iterdir()} == set(exact["certificate"])
    chosen = probes.filter(pl.col("method").is_in(["exact", "mean_difference"]))
    assert chosen["gap"].is_not_null().all()
    assert set(chosen.filter(method="mean_difference")["k"]) == {1, 2, 3, 4}  # what is proved is tried by all
    page = (certified / "report.html").read_text(encoding="utf-8")
    assert "choice of neurons" in page


def test_proofs_do_not_depend_on_the_number_of_workers(certified, model_folders, reviews, tmp_path):
    config = sp.RunConfig(
        model=str(model_folders["gpt_neox"]),
        data=reviews,
        label=("german",),
        group_column="author",
        methods=("exact", "mean_difference"),
        exact_ks=(1, 3),
        exact_layers=(1,),
        workers=2,
        out=tmp_path / "two",
        **QUICK,
    )
    sp.run(config)
    assert tables_of(tmp_path / "two") == tables_of(certified)
    for file in (certified / "certificates").iterdir():
        assert (tmp_path / "two" / "certificates" / file.name).read_bytes() == file.read_bytes()


def test_a_certificate_of_a_run_is_checked_from_its_folder(certified, capsys):
    file = min((certified / "certificates").glob("*-k3.npz"))
    main(["check-certificate", str(file)])
    out = capsys.readouterr().out
    assert "valid of german, layer 1: columns" in out
    assert "no other 3 of 48 columns can go below" in out


def refused(file: Path, capsys, *more: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["check-certificate", str(file), *more])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("error:")]
    return line


def test_a_certificate_that_was_changed_or_moved_is_refused(certified, tmp_path, capsys):
    file = min((certified / "certificates").glob("*-k3.npz"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    other = file.with_name("changed.npz")
    other.write_bytes(content)
    assert "changed.npz" in refused(other, capsys)
    other.unlink()
    better = replace(read_certificate(file), bound=read_certificate(file).objective * 0.99999)
    write_certificate(file.with_name("better.npz"), better)
    assert "refused" in refused(file.with_name("better.npz"), capsys)
    file.with_name("better.npz").unlink()
    (tmp_path / "moved.npz").write_bytes(file.read_bytes())
    assert "give --problem FILE.npz" in refused(tmp_path / "moved.npz", capsys)
    assert "nowhere" in refused(tmp_path / "nowhere.npz", capsys)


def test_a_certificate_made_in_python_is_checked_with_its_problem(tmp_path, capsys):
    problem = mixed(0)
    proof = best_subset(problem, 2)
    assert proof.certificate is not None
    assert check_certificate(proof.certificate, problem).objective == pytest.approx(
        min(problem.fit(np.array(c)).objective for c in combinations(range(problem.width), 2))
    )
    write_certificate(tmp_path / "c.npz", proof.certificate)
    np.savez(tmp_path / "p.npz", z=problem.z, target=problem.target, weights=problem.weights)
    main(["check-certificate", str(tmp_path / "c.npz"), "--problem", str(tmp_path / "p.npz")])
    assert "valid: columns" in capsys.readouterr().out
    other = problem.z.copy()
    other[3, 2] += 1e-3
    np.savez(tmp_path / "other.npz", z=other, target=problem.target, weights=problem.weights)
    assert "its data is" in refused(tmp_path / "c.npz", capsys, "--problem", str(tmp_path / "other.npz"))
    np.savez(tmp_path / "half.npz", z=problem.z)
    assert "z, target and weights" in refused(tmp_path / "c.npz", capsys, "--problem", str(tmp_path / "half.npz"))
    assert "does not exist" in refused(tmp_path / "c.npz", capsys, "--problem", str(tmp_path / "none.npz"))
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or a pipe" in refused(tmp_path / "c.npz", capsys, "--problem", str(tmp_path / "pipe"))
    np.save(tmp_path / "one.npy", problem.z)
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "zip.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:99])
    arrays: dict[str, Any] = {"z": problem.z, "target": problem.target, "weights": problem.weights}
    np.savez(tmp_path / "pickled.npz", **(arrays | {"z": np.array([print], dtype=object)}))  # pyright: ignore[reportArgumentType]
    for name in ("one.npy", "empty.npz", "zip.npz", "pickled.npz"):
        assert "cannot be read (" in refused(tmp_path / "c.npz", capsys, "--problem", str(tmp_path / name))
    for change, words in (
        ({"z": problem.z[0]}, "z must be a matrix of numbers, got float32 of shape 12"),
        ({"target": problem.target.astype(str)}, "target must be a row of numbers, got <U"),
        ({"weights": problem.weights + 1j}, "weights must be a row of numbers, got complex128"),
        ({"weights": np.float64(1)}, "weights must be a row of numbers, got float64 of shape one value"),
        ({"target": problem.target[1:]}, "give one of each per row"),
        ({"z": problem.z * np.float64(1e300)}, "numbers beyond float32"),
    ):
        np.savez(tmp_path / "wrong.npz", **(arrays | change))  # pyright: ignore[reportArgumentType]
        assert words in refused(tmp_path / "c.npz", capsys, "--problem", str(tmp_path / "wrong.npz"))


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"method": "single_neuron", "gap": None, "status": None, "k": 1}, "all 1,024 neurons tried"),
        ({"method": "exact", "gap": 0.0009, "status": "optimal", "k": 5}, "proved best 5 of all 1,024 neurons (to 0.1 %)"),
        ({"method": "exact", "gap": 0.012, "status": "node limit", "k": 5}, "exact; the best could be 1.2 % better"),
        ({"method": "greedy_swap", "gap": 0.031, "status": "heuristic", "k": 5}, "greedy swap; the best could be 3.1 % better"),
        ({"method": "dense", "gap": None, "status": None, "k": 1024}, "all"),
    ],
)  # fmt: skip
def test_the_report_says_how_good_a_choice_is_proved_to_be(probe, words):
    assert choice_words(probe, 1024, "neurons") == words
