"""Exact selection: is it right, what does a proof take, and how does it stand beside a prototype and mixed-integer solvers?

    .venv/bin/python benchmarks/selection.py [--figure NAME ...] [--minilm FOLDER] [--prototype FOLDER] [--mip PYTHON]
        [--limit SECONDS] [--out docs/benchmarks.md]

--minilm: made by `benchmarks/minilm_activations.py`; --prototype: sp.py and bnb.py of an older solver; --mip: an environment from
`benchmarks/requirements-mip.txt`. A figure that is not measured stays on the page as it was. One thread, but for `layer`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from page import machine, write_section
from probing import timed, token_activations
from sparse_probing.probes.losses import LOSSES
from sparse_probing.probes.weights import balanced_weights
from sparse_probing.selection.certificate import check_certificate, read_certificate, write_certificate
from sparse_probing.selection.exact import Limits, best_subset
from sparse_probing.selection.greedy_swap import greedy_swap
from sparse_probing.selection.methods import EXACT_NODES, bounded_selections
from sparse_probing.selection.problem import Problem, standardise
from sparse_probing.selection.relaxation import relax, relaxation_path
from sparse_probing.selection.supports import Selection, gap_between

TITLE, GAP, FRESH = "Exact selection", 1e-3, multiprocessing.get_context("spawn")
EASY, MEDIUM, HARD = ("has_digit", 1), ("is_french", 3), ("capitalised", 2)
MINILM = {"digit_L1": EASY, "french_L3": MEDIUM, "python_L4": ("is_python", 4), "capital_L2": HARD}
"""A label, and the layer whose neurons are to tell it."""
LAYERS, WIDTH, ROWS, LAYER_WIDTH, WORKERS = tuple(range(6)), 1_536, 5_000, 1_024, 2
RIDGES, SIZES, FEW, BOUND_SIZES = (0.3, 0.1), (1, 2, 3, 5, 8, 16), (1, 2, 3, 4, 5), (1, 2, 4, 8, 16, 32, 64, 128, 256)
SMALL_PROBLEMS, PATH, REPEATS, MIP_CELLS, MIP_LIMIT = 500, 32, 3, ((0.3, 2), (0.3, 3), (0.1, 2)), 30.0
SCALED_RIDGE_K, SCALED_ROWS, SCALED_COLUMNS = (0.1, 5), (1_000, 2_000, 5_000, 10_000), (384, 768, 1_536, 3_072, 9_216)
Proved = tuple[list[float], Selection, Selection, list[str]]


def table(head: str, rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table, after an empty line."""
    names = head.split(" | ")
    return ["", *(f"| {' | '.join(map(str, row))} |" for row in (names, ["---"] * len(names), *rows))]


def percent(share: float) -> str:
    """A gap or an excess."""
    return f"{100 * share:.2f} %" if share >= 1e-4 else f"{100 * share:.1g} %"


def clocked(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and its seconds."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def problem_of(x: np.ndarray, label: np.ndarray, ridge: float) -> Problem:
    """Standardised columns, classes balanced."""
    z, target = standardise(x, floor=1e-3)[0], label.astype(float)
    return Problem(z=z, target=target, weights=balanced_weights(label), ridge=ridge)


@lru_cache(maxsize=1)
def minilm(folder: Path, label: str, *layers: int, rows: int = ROWS) -> Problem:
    """Tokens of one half of the documents: labels and neurons of some layers, as the prototype's problems; ridge 0.1."""
    meta, rng = np.load(folder / "minilm_meta.npz"), np.random.default_rng(0)
    documents = rng.permutation(np.unique(meta["doc"]))
    chosen = rng.permutation(np.flatnonzero(np.isin(meta["doc"], documents[: len(documents) // 2])))[:rows]
    parts = [np.load(folder / f"minilm_L{layer}.npy", mmap_mode="r")[chosen] for layer in layers]
    return problem_of(np.concatenate(parts, axis=1), meta[f"y_{label}"][chosen].astype(bool), 0.1)


def prove(problem: Problem, k: int, limit: float) -> Proved:
    """Seconds of root bound, heuristics and search (with certificate); where it began and ended; cells of a table."""
    relaxed, root = clocked(lambda: relax(problem, k))
    none, some = Limits(gap=GAP, seconds=0), Limits(gap=GAP, seconds=limit)
    begun, heuristic = clocked(lambda: best_subset(problem, k, none, relaxed=relaxed, certify=False).selection)
    it, search = clocked(lambda: best_subset(problem, k, some, start=begun.support, relaxed=relaxed).selection)
    parts = [root, heuristic, search]
    return parts, begun, it, [*(f"{seconds:.2f} s" for seconds in parts), f"{it.nodes:,}", percent(it.gap)]


@cache
def cell(folder: Path, name: str, ridge: float, k: int, limit: float) -> Proved:
    """One of the figure `cells`; other figures ask for it again."""
    return prove(replace(minilm(folder, *MINILM[name]), ridge=ridge), k, limit)


def warm_up() -> None:
    """Compile everything, or load it from the disk."""
    x = np.random.default_rng(0).normal(size=(400, 100))
    prove(problem_of(x, x[:, :4].sum(axis=1) + 3 * x[:, 99] ** 2 > 3, 0.05), 3, 2.0)


def proved(gap: float) -> bool:
    """Whether a gap is the one that was asked for, but for rounding."""
    return gap <= GAP + 1e-8


def beside(seconds: float, gap: float, ours: float, our_gap: float) -> list[str]:
    """Cells of a table for another solver: its time, gap, and its time / ours where one of two has proved."""
    they, we = proved(gap), proved(our_gap)
    ratio = f"{'' if they and we else 'over ' if we else 'under '}{seconds / ours:.3g}" if they or we else "-"
    return [f"{seconds:.2f} s", percent(gap), ratio]


def correct(_: argparse.Namespace) -> list[str]:
    """Against brute force"""
    sys.path.insert(1, str(Path(__file__).parents[1]))
    tests, found = importlib.import_module("tests.test_exact"), []
    for seed in range(SMALL_PROBLEMS):
        rng = np.random.default_rng([2, seed])
        k, columns, ridge = int(rng.integers(1, 6)), int(rng.integers(6, 17)), float(10 ** rng.uniform(-3, 0))
        problem = tests.random_problem(10_000 + seed, list(LOSSES)[seed % 3], columns, ridge)
        best, gap = tests.brute_force(problem, k), (1e-5, GAP)[seed % 2]
        certificate = best_subset(problem, k, Limits(gap=gap)).certificate
        assert certificate is not None
        it = check_certificate(certificate, problem)  # raises if it does not pass
        found.append((it.objective / best - 1, it.bound / best > 1 + 1e-12, it.gap <= gap + 1e-9))
    excess, above, passed = np.array(found).T
    row = (
        percent(excess[::2].max()),
        percent(excess[1::2].max()),
        int(above.sum()),
        f"{passed.sum():.0f} of {len(found)}",
    )
    return [
        f"{len(found)} problems drawn as in the test suite: 6 to 16 columns, some equal or constant, k up to 5, ridges 0.001 to",
        "1, three losses, uneven weights, classes with and without overlap; half of them to a gap of 0.001 %, half to 0.1 %.",
        *table("largest excess over the optimum, 0.001 % | 0.1 % | bounds above it | certificates that pass", [row]),
    ]


def prototype_cell(ridge: float, k: int, start: list[int], limit: float, rows: int, *paths: str) -> list[float]:
    """In a process of its own: the prototype's seconds, nodes and gap."""
    sys.path.insert(0, paths[0])
    module, arrays = importlib.import_module("bnb"), np.load(paths[1])
    problem = module.Prob(arrays["z"][:rows], 2 * arrays["target"][:rows] - 1, ridge)
    found = module.bnb(problem, k, start, time_limit=limit, gap_tol=GAP)
    return [float(found[name]) for name in ("time", "nodes", "gap")]


def cells(options: argparse.Namespace) -> list[str]:
    """Proofs for 1,536 neurons and 5,000 tokens"""
    rows, counts, ratios = [], np.zeros(2, dtype=int), []
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, NUMBA_CACHE_DIR=folder):
        for name in MINILM:
            problem, paths = minilm(options.minilm, *MINILM[name]), (str(options.prototype), f"{folder}/{name}.npz")
            np.savez(paths[1], z=problem.z, target=problem.target)
            with ProcessPoolExecutor(1, FRESH) as pool:
                for ridge, k in product((0.3, 0.1, 0.01), (1, 3)) if options.prototype else ():  # compiles all of it
                    pool.submit(prototype_cell, ridge, k, [*range(k)], 1.0, 800, *paths).result()
                for ridge, k in product(RIDGES, SIZES):
                    parts, begun, it, shown = cell(options.minilm, name, ridge, k, options.limit)
                    rows.append([name, ridge, k, *shown])
                    counts[0] += proved(it.gap)
                    if options.prototype:
                        task = ridge, k, begun.support.tolist(), options.limit, ROWS, *paths
                        seconds, nodes, gap = pool.submit(prototype_cell, *task).result()
                        rows[-1] += [*beside(seconds, gap, parts[0] + parts[2], it.gap), f"{nodes:,.0f}"]
                        counts[1] += proved(gap)
                        ratios += [(seconds / (parts[0] + parts[2]), nodes / it.nodes)] * proved(max(gap, it.gap))
                    print(*rows[-1], flush=True)
    head = "problem | ridge | k | root bound | heuristics | search | bounds | gap"
    head += " | prototype | its gap | its time / ours | its nodes" * (options.prototype is not None)
    text = [f"Proved within {options.limit:g} s of search, certificates included: {counts[0]} of {len(rows)}."]
    if ratios:
        (faster, less), fewer = np.exp(np.log(ratios).mean(axis=0)), sum(nodes < 1 for _, nodes in ratios)
        text += [
            f"The prototype proves {counts[1]}, from the same start. Where both prove, its time / (root and search)"
        ]
        text += [f"is {faster:.1f}, its nodes / our bounds {less:.1f} (geometric means); fewer in {fewer}."]
    return [*text, *table(head, rows)]


def large_cell(path: str, target: np.ndarray, k: int) -> list[object]:
    """In a process of its own: seconds, bounds, gap, and peak memory beyond the matrix in matrices."""
    warm_up()
    z, weights = np.load(path), balanced_weights(target > 0)
    problem = Problem(z=z, target=target, weights=weights, ridge=RIDGES[0])
    before = 4_096 * int(Path("/proc/self/statm").read_text().split()[1])
    it, seconds = clocked(lambda: best_subset(problem, k, Limits(gap=GAP)).selection)
    peak = 1_024 * int(
        re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]
    )  # no parent's, as rusage
    return [f"{seconds:.2f} s", f"{it.nodes:,}", percent(it.gap), f"{(peak - before) / z.nbytes:.2f}"]


def large(options: argparse.Namespace) -> list[str]:
    """All layers together"""
    problem, rows = minilm(options.minilm, EASY[0], *LAYERS), []
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/z.npy", problem.z)
        for k in FEW:
            with ProcessPoolExecutor(1, FRESH) as pool:
                rows.append([k, *pool.submit(large_cell, f"{folder}/z.npy", problem.target, k).result()])
    return [
        f"{EASY[0]}, {problem.width:,} neurons of six layers, {len(problem.z):,} tokens, ridge {RIDGES[0]}: all of",
        f"`best_subset`, a process for each k. The float32 matrix has {problem.z.nbytes / 1e6:.0f} MB.",
        *table("k | time | bounds | gap | peak memory beyond the matrix / the matrix", rows),
    ]


def chart(panels: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> str:
    """Log-log panels side by side, as SVG: sizes and seconds of each."""
    wide, high, left, top, parts = 270, 180, 60, 28, []
    ends = np.log10([y for _, seconds in panels.values() for y in seconds])
    low, up = int(np.floor(ends.min())), int(np.ceil(ends.max()))
    for at, (title, (sizes, seconds)) in enumerate(panels.items()):
        x0, place = left + at * (wide + left), np.log10(sizes)
        x = x0 + wide * (0.05 + 0.9 * (place - place[0]) / (place[-1] - place[0]))
        y = top + high * (up - np.log10(seconds[: len(sizes)])) / (up - low)
        for power in range(low, up + 1):
            height = top + high * (up - power) / (up - low)
            parts.append(f'<path d="M{x0} {height:.1f}h{wide}" stroke="#ddd"/>')
            parts.append(f'<text x="{x0 - 6}" y="{height + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>')
        line = " ".join(map("{:.1f},{:.1f}".format, x, y))
        parts.append(f'<polyline points="{line}" fill="none" stroke="#0072b2"/>')
        for a, b, size in zip(x, y, sizes, strict=True):
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="#0072b2"/>')
            parts.append(f'<text x="{a:.1f}" y="{top + high + 18}" text-anchor="middle">{size:,}</text>')
        parts.append(f'<text x="{x0 + wide / 2}" y="16" text-anchor="middle">{title}</text>')
    begin = '<svg xmlns="http://www.w3.org/2000/svg" width="680" height="238" font-family="sans-serif" font-size="12">'
    return "\n".join([begin, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


def scaling(options: argparse.Namespace) -> list[str]:
    """Time to proof against rows and columns"""
    (label, own), (ridge, k), rows, seconds = MEDIUM, SCALED_RIDGE_K, [], []
    layers, rng = [own, *(layer for layer in LAYERS if layer != own)], np.random.default_rng(0)
    order = np.concatenate([WIDTH * i + rng.permutation(WIDTH) for i in range(len(layers))])
    for n, p in (*((n, WIDTH) for n in SCALED_ROWS), *((ROWS, p) for p in SCALED_COLUMNS)):
        whole = minilm(options.minilm, label, *layers, rows=n)
        part = replace(whole, z=np.ascontiguousarray(whole.z[:, order[:p]]), ridge=ridge)
        parts, _, _, shown = prove(part, k, options.limit)
        seconds.append(sum(parts))
        rows.append((f"{n:,}", f"{p:,}", f"{seconds[-1]:.2f} s", *shown))
    image, titles = [], (f"time to proof by tokens ({WIDTH:,} neurons)", f"by neurons ({ROWS:,} tokens)")
    if options.out:
        image = ["", "![Time to proof by tokens and by neurons, logarithmic axes](images/selection-scaling.svg)"]
        (options.out.parent / "images").mkdir(exist_ok=True)
        panels = dict(zip(titles, ((SCALED_ROWS, seconds), (SCALED_COLUMNS, seconds[len(SCALED_ROWS) :])), strict=True))
        (options.out.parent / "images/selection-scaling.svg").write_text(chart(panels), encoding="utf-8")
    return [
        f"{label}, ridge {ridge}, k = {k}, at most {options.limit:g} s of search; neurons of layer {own} in random order,",
        f"beyond {WIDTH:,} those of other layers join them, and the best support changes.",
        *table("tokens | neurons | time to proof | root bound | heuristics | search | bounds | gap", rows),
        *image,
    ]


def outer_approximation(options: argparse.Namespace) -> list[str]:
    """Beside mixed-integer solvers"""
    arm, rows = str(Path(__file__).with_name("outer_approximation_arm.py")), []
    for name, ridge, k in ((name, *pair) for name in ("digit_L1", "capital_L2") for pair in MIP_CELLS):
        parts, begun, proof, _ = cell(options.minilm, name, ridge, k, options.limit)
        problem = replace(minilm(options.minilm, *MINILM[name]), ridge=ridge)
        relaxed = relax(problem, k)
        eta = problem.z[:, relaxed.columns] @ relaxed.coefficients + relaxed.intercept
        data = {part: getattr(problem, part) for part in ("z", "target", "weights", "ridge")}
        data["root"] = -problem.weights * problem.loss.slope(eta, problem.target)
        rows.append([name, ridge, k, f"{sum(parts):.2f} s", percent(proof.gap)])
        with tempfile.TemporaryDirectory() as folder:
            np.savez(f"{folder}/p.npz", **data, k=k, gap=GAP, incumbent=begun.support)
            for solver in ("scip", "highs"):
                command = [options.mip, arm, f"{folder}/p.npz", f"{folder}/r.json", "--solver", solver]
                subprocess.run([*command, "--limit", str(MIP_LIMIT)], check=True, stdout=subprocess.DEVNULL)
                it = json.loads(Path(folder, "r.json").read_text())
                rows[-1] += beside(it["seconds"], it["gap"], sum(parts), proof.gap)
        print(*rows[-1], flush=True)
    return [
        f"Outer approximation, one thread, {MIP_LIMIT:g} s: SCIP with cuts in its tree, HiGHS solved anew after new cuts.",
        "Both are given our heuristics' support and the root's cut; our time includes finding them.",
        *table("problem | ridge | k | ours | gap | SCIP | its gap | / ours | HiGHS | its gap | / ours", rows),
    ]


def heuristics(options: argparse.Namespace) -> list[str]:
    """The default selector, and how far it is from the proved best"""
    sizes, rows, excess = range(1, PATH + 1), [], []
    for name in MINILM:
        problem = minilm(options.minilm, *MINILM[name])
        arms = (partial(greedy_swap, problem, sizes, known) for known in (relaxation_path(problem, sizes), None))
        rows.append((name, *(f"{s:.2f} s" for s in timed(dict(zip("ab", arms, strict=True)), REPEATS).values())))
        for task in (replace(problem, ridge=ridge) for ridge in RIDGES):
            path = greedy_swap(task, SIZES)
            for k in SIZES:
                _, begun, it, _ = cell(options.minilm, name, task.ridge, k, options.limit)
                both = np.array([task.fit(path[k]).objective, begun.objective])
                excess += [both / it.objective - 1] * proved(it.gap)
    most, same = np.max(excess, axis=0), (np.array(excess) < 1e-6).sum(axis=0)
    return [
        f"`greedy_swap` for every k from 1 to {PATH}, ridge 0.1, {ROWS:,} tokens, {WIDTH:,} neurons, median of {REPEATS}. Of the",
        f"{len(excess)} proved cells above it reaches the proved objective in {same[0]} along all k (largest excess",
        f"{percent(most[0])}), in {same[1]} with k and k + 1 alone, as a search begins (largest excess {percent(most[1])}).",
        *table("problem | path, relaxations known | path and relaxations", rows),
    ]


def feature_work(x: np.ndarray, label: np.ndarray, folder: Path, feature: int, *, check: bool) -> list[Any]:
    """In a worker: gaps and bounds of one feature's proofs, which are written; or the gaps of those that are there."""
    problem, limits, rng = problem_of(x, label, RIDGES[0]), Limits(gap=GAP, nodes=EXACT_NODES), np.random.default_rng(0)
    paths = {k: folder / f"{feature}-{k}.npz" for k in FEW}
    if check:
        return [check_certificate(read_certificate(path), problem).gap for path in paths.values()]
    found = bounded_selections(problem, "exact", FEW, rng, limits, keep=lambda k, it: write_certificate(paths[k], it))
    return [(it.gap, it.nodes) for it in found.values()]


def layer(_: argparse.Namespace) -> list[str]:
    """Every feature of a layer"""
    x, labels = token_activations()[:2]
    x, labels = x[::2, :LAYER_WIDTH], labels[::2].T  # every other token: 5,000, and all labels occur
    with tempfile.TemporaryDirectory() as name, parallel_config(backend="loky", inner_max_num_threads=1):
        pool, folder, job = Parallel(n_jobs=WORKERS), Path(name), delayed(feature_work)
        pool(delayed(warm_up)() for _ in range(2 * WORKERS))
        work = ([job(x, one, folder, i, check=check) for i, one in enumerate(labels)] for check in (False, True))
        (found, proofs), (passed, checks) = [clocked(lambda jobs=jobs: np.array(pool(jobs))) for jobs in work]
        size = sum(path.stat().st_size for path in folder.iterdir())
    rows = [
        (k, f"{sum(map(proved, gaps))} of {len(gaps)}", percent(gaps.max()), f"{bounds.sum():,.0f}")
        for k, (gaps, bounds) in zip(FEW, found.transpose(1, 2, 0), strict=True)
    ]
    return [
        f"{len(labels)} labels (nine text features of the token, eleven languages), {len(x):,} tokens, {x.shape[1]:,} neurons of",
        f"layer 2 of the bundled model, ridge {RIDGES[0]}, at most {EXACT_NODES:,} bounds for each k, {WORKERS} processes:",
        f"{proofs:.1f} s for all proofs, {checks:.1f} s to check their {passed.size} certificates of {size / 1e6:.2f} MB.",
        *table("k | proved | largest gap | bounds", rows),
    ]


def path_bounds(options: argparse.Namespace) -> list[str]:
    """Bounds beside heuristics up to large k"""
    problem, rows, relaxed = minilm(options.minilm, *MEDIUM), [], None
    path = relaxation_path(problem, BOUND_SIZES)
    together, all_of_it = clocked(lambda: greedy_swap(problem, BOUND_SIZES, path))
    for k in BOUND_SIZES:
        relaxed, seconds = clocked(lambda k=k, last=relaxed: relax(problem, k, last))
        alone, more = clocked(lambda k=k, it=relaxed: greedy_swap(problem, [k], {k: it})[k])
        gaps = [gap_between(problem.fit(support).objective, relaxed.lower) for support in (alone, together[k])]
        rows.append((k, f"{seconds:.3f} s", f"{more:.2f} s", *map(percent, gaps)))
    return [
        f"{MEDIUM[0]}, ridge {problem.ridge}; each bound begins at the one before. All k on one path: {all_of_it:.1f} s more.",
        *table("k | bound | `greedy_swap` for this k | gap | gap on the path", rows),
    ]


FIGURES = correct, cells, large, scaling, outer_approximation, heuristics, layer, path_bounds
MISSING = {correct: "yet", layer: "yet", outer_approximation: "without --minilm --mip"}  # the others: --minilm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [figure.__name__ for figure in FIGURES]
    parser.add_argument("--figure", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--minilm", type=Path, metavar="FOLDER", help="activations of a real encoder")
    parser.add_argument("--prototype", type=Path, metavar="FOLDER", help="the older solver, for `cells`")
    parser.add_argument("--mip", metavar="PYTHON", help="interpreter of an environment with SCIP and HiGHS")
    parser.add_argument("--limit", type=float, default=30.0, metavar="SECONDS", help="of each search (default 30)")
    parser.add_argument("--out", type=Path, help="Markdown page whose section is replaced; printed when not given")
    options = parser.parse_args()
    os.environ |= {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "NUMBA")}  # for other processes
    given = "".join(f" --{name} {name.upper()}" for name in ("minilm", "prototype", "mip") if getattr(options, name))
    page = options.out.read_text(encoding="utf-8") if options.out and options.out.exists() else ""
    found = dict(re.findall(r"^### ([^\n]+)\n\n(.*?)\n*(?=^##|\Z)", page, re.M | re.S))
    lines = ["One thread unless said otherwise; proofs are to a gap of 0.1 %."]
    with threadpool_limits(1):
        warm_up()
        for figure in FIGURES:
            name, title, missing = figure.__name__, str(figure.__doc__), MISSING.get(figure, "without --minilm")
            if name in options.figure and all(getattr(options, need) for need in re.findall(r"--(\w+)", missing)):
                head = f"`benchmarks/selection.py --figure {name}{given}`, {machine()}"
                found[title] = "\n".join([head, *figure(options)])
                print(f"\n### {title}\n\n{found[title]}", flush=True)
            lines += ["", f"### {title}", "", found.get(title, f"Not measured {missing}.")]
    if options.out:
        write_section(options.out, TITLE, lines)


if __name__ == "__main__":
    main()
