"""A command imports what it needs: what it is called for takes less time than the libraries it has no use for."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import cyclopts
import numpy as np
from docstring_parser import parse
from scipy.cluster.hierarchy import DisjointSet

from sparse_probing import best_subset, make_problem, write_certificate
from sparse_probing.activations.model_text import text_of_model
from sparse_probing.activations.models import outline_model
from sparse_probing.cli.main import COMMANDS
from sparse_probing.datasets.disjoint_sets import DisjointSets

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


def test_looking_at_data_imports_neither_torch_nor_scikit_learn_nor_the_solvers(reviews, tmp_path):
    program = f"""
from sparse_probing.cli.main import main
main(["datasets", "preview", "--data", {str(reviews)!r}, "--label", "german", "--n", "2"])
from sparse_probing import build_source  # part of what a look at data needs
from sparse_probing.cli import datasets, check_certificate
import sparse_probing.jobs.build_dataset, sparse_probing.cli.datasheet, sparse_probing.studies.datasheet.datasheet
"""
    assert imported_by(program) <= {"numpy", "polars", "pydantic", "tokenizers", "scipy"}


def test_a_certificate_is_checked_without_a_model_and_without_scikit_learn(tmp_path):
    problem = make_problem(np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3 == 0)
    proof = best_subset(problem, 1).certificate
    assert proof is not None
    write_certificate(tmp_path / "c.npz", proof)
    np.savez(tmp_path / "p.npz", z=problem.z, target=problem.target, weights=problem.weights)
    program = f"""
from sparse_probing.cli.main import main
main(["check-certificate", {str(tmp_path / "c.npz")!r}, "--problem", {str(tmp_path / "p.npz")!r}])
"""
    assert imported_by(program) <= {"numpy", "polars", "pydantic", "scipy", "numba"}


def test_the_bundled_models_files_alone_say_what_transformers_says():
    alone, outline = text_of_model("demo"), outline_model("demo")
    assert alone.tokenizer.fingerprint() == outline.tokenizer.fingerprint()
    assert (alone.context, alone.name) == (outline.context, outline.name) == (512, "demo")


def test_disjoint_sets_merge_as_those_of_scipy_do():
    rng = np.random.default_rng(0)
    for _ in range(20):
        names = [f"n{i}" for i in rng.permutation(30)]
        ours, theirs = DisjointSets(names), DisjointSet(names)
        for a, b in rng.choice(names, size=(25, 2)).tolist():
            ours.merge(a, b)
            theirs.merge(a, b)
            assert ours.connected(a, b)
        assert [ours[name] for name in names] == [theirs[name] for name in names]
