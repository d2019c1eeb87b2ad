"""The exact search: brute force, limits, Ctrl-C, bad input, excluded columns, and how often the heuristic falls short."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, count, pairwise
from math import comb
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sparse_probing.errors import InputError
from sparse_probing.probes.losses import LOGISTIC, LOSSES, SQUARED_ERROR, SQUARED_HINGE
from sparse_probing.selection import exact as module
from sparse_probing.selection.certificate import CertificateError, check_certificate, write_certificate
from sparse_probing.selection.exact import Limits, Progress, best_subset, checked_problem
from sparse_probing.selection.greedy_swap import greedy_swap
from sparse_probing.selection.problem import Problem, standardise
from sparse_probing.selection.supports import Status

SUPPORTS = 1_000
"""Of a random problem, at most, so that all can be tried."""
WIDTHS = [max(p for p in range(2, 17) if comb(p, k) <= SUPPORTS or p == k) for k in range(1, 6)]


def random_problem(seed: int, loss: str, columns: int, ridge: float) -> Problem:
    """Anything: correlated, rounded, duplicate, constant and heavy-tailed columns, outliers, separable data, uneven weights."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(10, 121))
    heavy = rng.random() < 0.15
    x = rng.standard_t(1.5, size=(rows, columns)) if heavy else rng.normal(size=(rows, columns))
    if rng.random() < 0.5:
        x = x @ rng.normal(size=(columns, columns))
    if rng.random() < 0.2:
        x = x.round()
    if rng.random() < 0.3:
        x[:, rng.integers(columns)] = x[:, 0]
    if rng.random() < 0.2:
        x[rng.integers(rows), rng.integers(columns)] = 30 * np.abs(x).max()
    signal_ = x @ (rng.normal(size=columns) * (rng.random(columns) < 0.4))
    signal_ = signal_ / max(float(signal_.std()), 1e-9) + rng.choice([0.0, 0.3, 3.0]) * rng.normal(size=rows)
    signal_ += 1e-3 * rng.normal(size=rows)
    if rng.random() < 0.3:
        x[:, rng.integers(columns)] = 1.0
    weights = [np.ones(rows), rng.random(rows), rng.random(rows) * (rng.random(rows) < 0.7)][seed % 3]
    target = signal_ if loss == "squared_error" else (signal_ > np.quantile(signal_, rng.choice([0.5, 0.85]))) * 1.0
    target[:2], weights[:2] = [0, 1], 1.0
    weights = weights / weights.sum()
    z = standardise(x, weights)[0]
    return Problem(z=z, target=target, weights=weights, loss=LOSSES[loss], ridge=ridge)


def brute_force(problem: Problem, k: int, columns: list[int] | None = None) -> float:
    """The least objective of all supports."""
    supports = np.array(list(combinations(range(problem.width) if columns is None else columns, k)))
    rough = problem.fit_supports(supports, tolerance=1e-4).objective
    near = rough <= rough.min() + 1e-8 / problem.ridge  # |gradient|^2 / (2 ridge) is all that can be missing, k < 10
    return float(problem.fit_supports(supports[near], tolerance=1e-9).objective.min())


def planted(rows: int = 100, columns: int = 40, ridge: float = 0.03, seed: int = 0) -> Problem:
    """Needs a few hundred nodes at k = 3."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    label = x[:, [1, 2, 3]].sum(axis=1) + 2 * rng.normal(size=rows) > 0
    return Problem(
        z=standardise(x)[0], target=label.astype(float), weights=np.full(rows, 1 / rows), loss=LOGISTIC, ridge=ridge
    )


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("part", range(4))
def test_the_search_equals_brute_force_and_its_certificate_passes(loss, part):
    for seed in range(42):
        rng = np.random.default_rng([part, seed])
        k = int(rng.integers(1, 6))
        ridge, gap = float(10 ** rng.uniform(-3, 0)), float(rng.choice([1e-5, 1e-3, 1e-1]))
        problem = random_problem(100 * part + seed, loss, int(rng.integers(max(k, 2), WIDTHS[k - 1] + 1)), ridge)
        best, proof = brute_force(problem, k), best_subset(problem, k, Limits(gap=gap))
        found = proof.selection
        assert found.status is Status.OPTIMAL
        assert found.lower_bound <= best * (1 + 1e-12)
        assert best * (1 - 1e-9) <= found.objective <= found.lower_bound / (1 - gap) * (1 + 1e-9)
        assert found.objective == pytest.approx(problem.fit(found.support).objective, rel=1e-9)
        assert len(set(found.support.tolist())) == k
        assert proof.certificate is not None
        checked = check_certificate(proof.certificate, problem)
        assert (checked.bound, checked.gap) == (found.lower_bound, pytest.approx(found.gap, abs=1e-9))


@pytest.mark.parametrize("loss", [LOGISTIC, SQUARED_HINGE], ids=lambda loss: loss.name)
@pytest.mark.parametrize("seed", range(8))
def test_separable_data_at_weak_ridge_are_solved(loss, seed):
    """Few rows bend the loss there, and a step of a stale model may lead anywhere: it must be damped."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 10)) @ rng.normal(size=(10, 10))
    label = x @ rng.normal(size=10) > 0
    problem = Problem(
        z=standardise(x)[0], target=label.astype(float), weights=np.full(40, 1 / 40), loss=loss, ridge=1e-3
    )
    proof = best_subset(problem, 4)
    assert proof.selection.status is Status.OPTIMAL
    assert proof.selection.objective <= brute_force(problem, 4) * (1 + 1.1e-3)
    assert proof.certificate is not None
    check_certificate(proof.certificate, problem)


@pytest.mark.parametrize("ridge", [1e-4, 1e-5, 10.0, 1e4])
@pytest.mark.parametrize("loss", list(LOSSES))
def test_certificates_pass_at_extreme_ridges(loss, ridge):
    for seed in range(6):
        problem = random_problem(seed, loss, 6, ridge)
        proof = best_subset(problem, 3)
        assert proof.certificate is not None
        assert check_certificate(proof.certificate, problem).gap <= 1e-3
        assert proof.selection.lower_bound <= brute_force(problem, 3)


@pytest.mark.parametrize("seed", [6, 13, 23, 24])
def test_certificates_pass_where_the_ridge_is_of_the_size_of_rounded_coefficients(seed):
    """Exact data at a tiny ridge: the objective is 1e-6 of the loss at 0, and u = ridge * coefficient is as small."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 4))
    target, weights = x @ np.array([1, 1, 1, 0.5]), np.full(30, 1 / 30)
    problem = Problem(z=standardise(x)[0], target=target, weights=weights, loss=SQUARED_ERROR, ridge=1e-6)
    for k in (3, 4):
        try:
            proof = best_subset(problem, k)
        except InputError as error:
            assert "ridge" in str(error)
            return
        assert proof.certificate is not None
        check_certificate(proof.certificate, problem)


@pytest.mark.parametrize("offset", [1e3, -1e5])
def test_a_regression_far_from_zero_is_proved_as_well(offset):
    for seed in range(10):
        problem = random_problem(seed, "squared_error", 7, 0.1)
        problem = replace(problem, target=problem.target + offset)
        proof = best_subset(problem, 2, Limits(gap=1e-5))
        assert proof.certificate is not None
        check_certificate(proof.certificate, problem)
        assert proof.selection.objective == pytest.approx(brute_force(problem, 2), rel=1.1e-5)


@pytest.mark.parametrize("limits", [Limits(seconds=0.0), Limits(nodes=1), Limits(nodes=100)], ids=str)
@pytest.mark.parametrize("loss", list(LOSSES))
def test_a_search_cut_short_keeps_the_heuristic_support_and_a_bound_that_its_certificate_proves(limits, loss):
    problem = replace(planted(), loss=LOSSES[loss], ridge=0.003)
    best = best_subset(problem, 3).selection
    assert best.status is Status.OPTIMAL
    proof = best_subset(problem, 3, limits)
    found = proof.selection
    assert found.status is (Status.TIME if limits.seconds == 0 else Status.NODES)
    assert 1e-3 < found.gap < 1
    assert found.lower_bound <= best.objective <= found.objective * (1 + 1e-9)
    assert found.objective <= problem.fit(greedy_swap(problem, [3])[3]).objective * (1 + 1e-9)
    assert proof.certificate is not None
    assert check_certificate(proof.certificate, problem).bound == found.lower_bound
    if limits.nodes != 100:  # one node, whose bound is claimed, not less; of many the check may prove a little more
        with pytest.raises(CertificateError, match="leaf"):
            check_certificate(replace(proof.certificate, bound=found.lower_bound * (1 + 1e-4)), problem)


def test_more_nodes_never_lower_the_bound():
    found = [best_subset(planted(ridge=0.01), 3, Limits(nodes=nodes)).selection for nodes in (1, 100, 300, 1_000)]
    bounds = [one.lower_bound for one in found]
    assert bounds == sorted(bounds)
    assert [one.nodes for one in found] == sorted(one.nodes for one in found)


@pytest.mark.parametrize("nodes", [None, 200])
def test_the_same_problem_gives_the_same_certificate_bytes(nodes, tmp_path):
    written = []
    for name in "ab":
        certificate = best_subset(planted(), 3, Limits(nodes=nodes)).certificate
        assert certificate is not None
        write_certificate(tmp_path / name, certificate)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_without_a_certificate_the_search_is_the_same():
    plain, bare = best_subset(planted(), 3), best_subset(planted(), 3, certify=False)
    assert bare.certificate is None
    for name in ("objective", "lower_bound", "nodes", "status"):
        assert getattr(bare.selection, name) == getattr(plain.selection, name)


@pytest.mark.parametrize("start", [[0, 4, 5], [3, 2, 1]])
def test_any_start_leads_to_the_optimum(start):
    found = best_subset(planted(), 3, start=np.array(start)).selection
    assert found.status is Status.OPTIMAL
    assert found.objective == pytest.approx(best_subset(planted(), 3).selection.objective, rel=1e-3)
    assert found.support.tolist() == sorted(found.support.tolist())


def test_progress_tells_where_the_search_stands(monkeypatch):
    ticks = count(0.0, 0.6)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    seen: list[Progress] = []
    found = best_subset(planted(ridge=0.01), 3, progress=seen.append).selection
    assert len(seen) > 3
    for before, after in pairwise(seen):
        assert before.bound <= after.bound <= found.objective <= after.objective <= before.objective
        assert before.nodes < after.nodes
        assert before.seconds < after.seconds
    text = str(Progress(objective=0.5, bound=0.45, nodes=12_000, left=1_234, seconds=6.0))
    assert text == "best 0.50000, bound 0.45000, gap 10.00 %, 12,000 nodes (2,000/s), 1,234 open"


def test_ctrl_c_ends_the_search_with_a_valid_bound_and_leaves_the_old_handler(monkeypatch):
    ticks = count(0.0, 0.6)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    problem, main = planted(rows=150, columns=200, ridge=1e-3), threading.main_thread().ident
    assert main is not None
    sent: list[threading.Timer] = []

    def once(_: Progress) -> None:
        if not sent:  # by now the search listens; a timer sends the signal in the midst of it
            sent.append(threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)))
            sent[0].start()

    def old(*_: object) -> None:
        pytest.fail("the old handler was called")

    before = signal.signal(signal.SIGINT, old)
    try:
        proof = best_subset(problem, 5, progress=once)
        assert signal.getsignal(signal.SIGINT) is old
    finally:
        sent[0].join()
        signal.signal(signal.SIGINT, before)
    found = proof.selection
    assert found.status is Status.STOPPED
    assert 0 < found.lower_bound < found.objective
    assert proof.certificate is not None
    assert check_certificate(proof.certificate, problem).bound == found.lower_bound


def test_the_old_handler_returns_after_an_error(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    ticks = count(0.0, 0.6)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))

    def broken(_: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        best_subset(planted(ridge=0.01), 3, progress=broken)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_search_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(best_subset(planted(), 2).selection.objective))
    thread.start()
    thread.join()
    assert found == [best_subset(planted(), 2).selection.objective]


@pytest.mark.parametrize("loss", list(LOSSES))
def test_without_excluded_columns_the_best_of_the_others_is_found(loss):
    for seed in range(8):
        problem = random_problem(seed, loss, 9, 0.05)
        first = best_subset(problem, 2).selection.support
        excluded = np.array([first[1], first[0], first[1]])
        proof = best_subset(problem, 2, Limits(gap=1e-5), excluded=excluded)
        assert not set(first) & set(proof.selection.support)
        best = brute_force(problem, 2, [j for j in range(9) if j not in first])
        assert proof.selection.lower_bound <= best
        assert proof.selection.objective == pytest.approx(best, rel=1.1e-5)
        assert proof.certificate is not None
        assert proof.certificate.excluded.tolist() == sorted(first.tolist())
        check_certificate(proof.certificate, problem)


def test_all_columns_but_k_may_be_excluded():
    proof = best_subset(planted(columns=6), 2, excluded=np.array([0, 2, 3, 5]))
    assert proof.selection.support.tolist() == [1, 4]
    with pytest.raises(InputError, match=r"k = 2 is not possible with 1 columns \(without 5 excluded ones\)"):
        best_subset(planted(columns=6), 2, excluded=np.array([0, 1, 2, 3, 5]))


def test_k_may_be_the_number_of_columns():
    for loss in LOSSES.values():
        problem = replace(planted(columns=4), loss=loss)
        proof = best_subset(problem, 4)
        assert proof.selection.support.tolist() == [0, 1, 2, 3]
        assert proof.selection.status is Status.OPTIMAL
        assert proof.certificate is not None
        check_certificate(proof.certificate, problem)


def nan_in(values: np.ndarray, value: float = np.nan) -> np.ndarray:
    changed = values.copy()
    changed.flat[7] = value
    return changed


def misshapen(problem: Problem, name: str) -> Problem:
    """One value too few; in the tests `Problem` itself would refuse it."""
    changed = replace(problem)
    object.__setattr__(changed, name, getattr(problem, name)[:-1])
    return changed


BAD: dict[str, tuple[Callable[[Problem], Problem], str]] = {
    "ridge 0": (lambda p: replace(p, ridge=0.0), "ridge = 0, but an exact search needs one above 0: .* 0.1 is a good value"),
    "ridge negative": (lambda p: replace(p, ridge=-0.1), "ridge = -0.1, but an exact search needs one above 0"),
    "ridge nan": (lambda p: replace(p, ridge=np.nan), "ridge = nan, but"),
    "ridge inf": (lambda p: replace(p, ridge=np.inf), "ridge = inf, but"),
    "nan in z": (lambda p: replace(p, z=nan_in(p.z)), "^1 of 100 rows hold NaN, infinity or numbers beyond float32: drop them"),
    "inf in z": (lambda p: replace(p, z=nan_in(p.z, -np.inf)), "^1 of 100 rows hold NaN, infinity"),
    "target inf": (lambda p: replace(p, target=nan_in(p.target, np.inf), loss=SQUARED_ERROR), "the target holds NaN or inf"),
    "target nan": (lambda p: replace(p, target=nan_in(p.target)), "the target holds NaN or infinity: drop those rows"),
    "target -1, 1": (lambda p: replace(p, target=2 * p.target - 1), r"logistic needs targets 0 and 1, not \[-1.0, 1.0\]: enc"),
    "one class": (lambda p: replace(p, target=np.ones(100)), "all rows with weight belong to one class"),
    "one class with weight": (
        lambda p: replace(p, weights=p.weights * p.target, loss=SQUARED_HINGE),
        "all rows with weight belong to one class",
    ),
    "weights zero": (lambda p: replace(p, weights=np.zeros(100)), "weights must be finite, not negative, and not all zero"),
    "weights negative": (lambda p: replace(p, weights=nan_in(p.weights, -0.1)), "weights must be finite, not negative"),
    "weights nan": (lambda p: replace(p, weights=nan_in(p.weights)), "weights must be finite"),
    "rows and targets": (lambda p: misshapen(p, "target"), "^100 rows, but 99 targets and 100 weights: give one"),
    "rows and weights": (lambda p: misshapen(p, "weights"), "^100 rows, but 100 targets and 99 weights"),
    "no rows": (
        lambda p: replace(p, z=p.z[:0], target=p.target[:0], weights=p.weights[:0]),
        "weights must be finite, not negative, and not all zero",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_searched_is_refused_in_a_sentence(name):
    change, match = BAD[name]
    with pytest.raises(InputError, match=match) as caught:
        best_subset(change(planted(columns=8)), 2)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("k", [-1, 0, 9])
def test_sizes_that_do_not_exist_are_refused(k):
    with pytest.raises(InputError, match=f"k = {k} is not possible with 8 columns: k goes from 1 to 8"):
        best_subset(planted(columns=8), k)


def test_limits_that_make_no_sense_are_refused():
    for gap in (0.0, 1e-9, 1.0, -0.1, np.nan):
        with pytest.raises(
            InputError, match=r"a gap of .* is not possible: choose one from 1e-05 to 1, 0.001 for 0.1 %"
        ):
            Limits(gap=gap)
    with pytest.raises(InputError, match=r"a time limit of -1 is not possible: choose 0 or more, or leave it out"):
        Limits(seconds=-1.0)
    with pytest.raises(InputError, match="a time limit of nan is not possible"):
        Limits(seconds=float("nan"))
    with pytest.raises(InputError, match="a node limit of -5 is not possible"):
        Limits(nodes=-5)


def test_columns_of_any_kind_and_order_give_the_same_selection(tmp_path: Path):
    problem = planted(columns=12)
    problem = replace(problem, z=problem.z.astype(np.float16).astype(np.float32))
    plain = best_subset(problem, 2)
    problem.z.tofile(tmp_path / "z")
    mapped = np.memmap(tmp_path / "z", dtype=np.float32, mode="r", shape=problem.z.shape)
    wide = np.zeros((200, 24), dtype=np.float32)
    wide[::2, ::2] = problem.z
    for z in (
        problem.z.astype(np.float16),
        np.asfortranarray(problem.z),
        mapped,
        wide[::2, ::2],
        problem.z.astype(float),
    ):
        same = best_subset(replace(problem, z=z), 2)
        assert same.selection.support.tolist() == plain.selection.support.tolist()
        assert same.selection.lower_bound == plain.selection.lower_bound
        assert plain.certificate is not None
        assert same.certificate is not None
        assert same.certificate.data == plain.certificate.data


def test_weights_that_sum_to_something_else_are_scaled():
    problem = planted(columns=12)
    scaled = checked_problem(replace(problem, weights=problem.weights * 50))
    np.testing.assert_allclose(scaled.weights, problem.weights, rtol=1e-15)
    assert checked_problem(problem) is problem


@pytest.mark.parametrize("loss", list(LOSSES))
def test_columns_that_say_nothing_or_all_the_same_leave_nothing_to_search(loss):
    problem = replace(planted(columns=8), loss=LOSSES[loss])
    for z in (np.zeros((100, 8), dtype=np.float32), np.tile(problem.z[:, 3:4], (1, 8))):
        same = replace(problem, z=z)
        proof = best_subset(same, 3)
        assert proof.selection.status is Status.OPTIMAL
        assert proof.selection.objective == pytest.approx(brute_force(same, 3), rel=1e-9)
        assert proof.certificate is not None
        check_certificate(proof.certificate, same)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_fewer_rows_than_columns_in_the_support_are_enough(loss):
    problem = random_problem(4, loss, 8, 0.1)
    some = replace(
        problem, z=problem.z[:4], target=np.array([0.0, 1.0, 1.0, 0.0]), weights=np.array([0.25, 0.25, 0.25, 0.25])
    )
    proof = best_subset(some, 6)
    assert proof.selection.objective == pytest.approx(brute_force(some, 6), rel=1e-3)
    assert proof.certificate is not None
    check_certificate(proof.certificate, some)


@pytest.mark.parametrize("target", [0.0, 0.1, 1e6])
def test_a_regression_on_a_constant_is_answered(target):
    problem = replace(planted(columns=5), target=np.full(100, target), loss=SQUARED_ERROR)
    try:
        proof = best_subset(problem, 2)
    except InputError as error:
        assert re.search("constant|the same", str(error))
        return
    assert proof.certificate is not None
    check_certificate(proof.certificate, problem)


def test_two_of_two_hundred_thousand_columns_are_proved():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((60, 200_000), dtype=np.float32)
    target = (3 * (z[:, 5] + z[:, 77]) + 0.5 * rng.normal(size=60) > 0).astype(float)
    problem = Problem(z=z, target=target, weights=np.full(60, 1 / 60), ridge=0.1)
    proof = best_subset(problem, 2)
    assert proof.selection.support.tolist() == [5, 77]
    assert proof.selection.status is Status.OPTIMAL
    assert proof.certificate is not None
    check_certificate(proof.certificate, problem)


def test_greedy_swap_is_almost_always_the_exact_optimum_and_never_below_it():
    misses = 0
    for seed in range(60):
        ridge, loss = (0.3, 0.1, 0.03, 0.01)[seed % 4], list(LOSSES)[seed % 3]
        problem = random_problem(seed, loss, 12, ridge)
        k = 1 + seed % 5
        best = brute_force(problem, k)
        found = problem.fit(greedy_swap(problem, [k])[k]).objective
        assert found >= best * (1 - 1e-9)
        misses += found > best * (1 + 1e-6)
    assert misses <= 3
