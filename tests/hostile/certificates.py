"""Certificates (also with their seal made anew) and the problems that they are checked against."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from sparse_probing.cli.main import main
from sparse_probing.probes.losses import SQUARED_ERROR
from sparse_probing.selection import certificate as module
from sparse_probing.selection.certificate import write_certificate
from sparse_probing.selection.exact import best_subset
from sparse_probing.selection.problem import Problem
from tests.hostile.engine import Target, changed_bytes, changed_json

ODD_ARRAYS: tuple[Any, ...] = (
    np.zeros(0),
    np.zeros((3, 3)),
    np.float64(1),
    np.array(["a"]),
    np.array([1 + 1j]),
    np.array(["2020-01-01"], dtype="M8[D]"),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.array([None], dtype=object),
    np.array([np.nan]),
    np.array([1e300]),
    np.full(60, np.inf),
    np.full(60, 1e308),
    -np.ones(60),
    np.zeros(60),
    np.ones((60, 0)),
    np.full((60, 6), 1e30),
    np.arange(60) % 3,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Good pairs."""

    certificates: list[bytes]
    problems: list[bytes]


def prepare(folder: Path) -> Seeds:
    """Two small problems, solved."""
    folder.mkdir(parents=True, exist_ok=True)
    certificates, problems = [], []
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 6)).astype(np.float32)
    target = (z[:, 1] + z[:, 4] + rng.normal(size=60) > 0).astype(float)
    problem = Problem(z=z, target=target, weights=np.full(60, 1 / 60))
    for i, one in enumerate((problem, replace(problem, target=z[:, 2] * 1.5, loss=SQUARED_ERROR))):
        found = best_subset(one, 2).certificate
        assert found is not None
        write_certificate(folder / f"c{i}.npz", found)
        np.savez(folder / f"p{i}.npz", z=one.z, target=one.target, weights=one.weights)
        certificates.append((folder / f"c{i}.npz").read_bytes())
        problems.append((folder / f"p{i}.npz").read_bytes())
    return Seeds(certificates=certificates, problems=problems)


def case(rng: random.Random, seeds: Seeds, folder: Path) -> None:
    """A certificate or its problem is changed, and checked."""
    which = rng.randrange(2)
    proof, problem = seeds.certificates[which], seeds.problems[which]
    match rng.randrange(4):
        case 0:
            proof = changed_bytes(rng, proof)
        case 1:
            proof = forged(rng, proof)
        case 2:
            problem = changed_bytes(rng, problem)
        case _:
            problem = saved(changed_arrays(rng, arrays_of(problem)))
    (folder / "certificates").mkdir()
    (folder / "certificates" / "c.npz").write_bytes(proof)
    (folder / "p.npz").write_bytes(problem)
    given = ["--problem", str(folder / "p.npz")] if rng.random() < 0.9 else []
    main(["check-certificate", str(folder / "certificates" / "c.npz"), *given])


def arrays_of(content: bytes) -> dict[str, Any]:
    """What an .npz file holds."""
    with np.load(BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


def saved(arrays: dict[str, Any]) -> bytes:
    """An .npz file; some of its arrays may be pickled, as an attacker's are."""
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def changed_arrays(rng: random.Random, arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays of which one is missing, odd, shortened, of another type, or has odd values."""
    name = rng.choice(list(arrays))
    array = arrays[name]
    match rng.randrange(6):
        case 0:
            return {key: value for key, value in arrays.items() if key != name}
        case 1:
            return arrays | {name: array[: len(array) // 2]}
        case 2:
            kind = rng.choice(("f2", "f4", "f8", "i1", "i8", "u1", "U5", "c16", "?"))
            with np.errstate(all="ignore"):
                return arrays | {name: array.astype(kind)}
        case 3 if array.size and array.dtype.kind in "fi":
            copy = array.copy()
            copy.flat[rng.randrange(copy.size)] = rng.choice((0, -1, 1, 5, 127))
            return arrays | {name: copy}
        case 4 if array.size and array.dtype.kind == "f":
            copy = array.copy()
            copy.flat[rng.randrange(copy.size)] = rng.choice((np.nan, np.inf, -np.inf, 1e30, -1e-30))
            return arrays | {name: copy}
        case _:
            return arrays | {rng.choice((name, name, "more")): rng.choice(ODD_ARRAYS)}


def forged(rng: random.Random, proof: bytes) -> bytes:
    """A certificate with other numbers and a seal that fits."""
    arrays = arrays_of(proof)
    if rng.random() < 0.5:
        header = changed_json(rng, json.loads(arrays["header"].tobytes()))
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    else:
        arrays = changed_arrays(rng, arrays)
    return module._sealed(saved(arrays))


TARGET = Target(name="certificates", prepare=prepare, case=case, share=10)
