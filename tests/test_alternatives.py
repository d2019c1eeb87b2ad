"""Lists of near-optimal supports, stand-ins for members, and the smallest size that will do: brute force, limits, Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations, count, pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from sparse_probing.errors import InputError
from sparse_probing.probes.losses import LOSSES
from sparse_probing.selection import exact as module
from sparse_probing.selection.alternatives import fewest_columns, near_optimal, without_each
from sparse_probing.selection.exact import Limits, Progress, best_subset
from sparse_probing.selection.problem import Problem, make_problem
from sparse_probing.selection.supports import Selection, Status
from tests.test_exact import brute_force, planted, random_problem

FINE = 1e-5
"""Gap to which the best support is found: a limit may be so much, relatively, above the exact one."""


def every_objective(problem: Problem, k: int) -> dict[tuple[int, ...], float]:
    """Of all supports, to the last digits."""
    supports = np.array(list(combinations(range(problem.width), k)))
    values = problem.fit_supports(supports, tolerance=1e-10).objective
    return dict(zip(map(tuple, supports.tolist()), values.tolist(), strict=True))


def twins(seed: int, loss: str, ridge: float) -> Problem:
    """Four columns, each of them twice."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 8))
    x[:, 4:] = x[:, :4]
    signal_ = x[:, :2].sum(axis=1) + 0.5 * rng.normal(size=40)
    target = signal_ if loss == "squared_error" else signal_ > np.median(signal_)
    return make_problem(x, target, ridge=ridge, loss=loss)


def check_list(problem: Problem, k: int, tolerance: float) -> int:
    """The list is complete, holds nothing else, and is in order; returns its length."""
    every, found = every_objective(problem, k), near_optimal(problem, k, tolerance)
    limit = min(every.values()) * (1 + tolerance)
    listed = [tuple(support) for support in found.supports.tolist()]
    assert found.status is Status.OPTIMAL
    assert limit * (1 - 1e-9) <= found.limit <= limit * (1 + 2 * FINE)
    assert {support for support, value in every.items() if value <= limit * (1 + 1e-10)} <= set(listed)
    assert set(listed) <= {support for support, value in every.items() if value <= limit * (1 + 2 * FINE)}
    assert len(set(listed)) == len(listed)
    assert all(list(support) == sorted(set(support)) for support in listed)
    np.testing.assert_allclose(found.objectives, [every[support] for support in listed], rtol=1e-8)
    order = list(zip(found.objectives, listed, strict=True))
    assert order == sorted(order)
    others = [value for support, value in every.items() if support not in listed]
    assert found.lower_bound <= found.limit
    assert not others or found.lower_bound <= min(others)
    return len(listed)


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_list_of_near_optimal_supports_is_that_of_brute_force(loss, k):
    lengths = []
    for seed in range(6):
        problem = random_problem(seed, loss, 9, (0.3, 0.1, 0.01, 1e-3)[seed % 4])
        lengths += [check_list(problem, k, tolerance) for tolerance in (0.0, 0.05)]
    assert max(lengths) > 3  # some problems do have alternatives


def test_all_supports_lie_within_a_wide_tolerance():
    problem = random_problem(0, "logistic", 9, 10.0)
    assert check_list(problem, 2, 1.0) == 36


@pytest.mark.parametrize("loss", list(LOSSES))
def test_duplicate_columns_give_ties(loss):
    for seed in range(5):
        for k, ties in ((1, 2), (2, 4)):
            length = check_list(twins(seed, loss, (0.1, 0.01)[seed % 2]), k, 0.0)
            # a column and its twin may be the best pair, and that is a tie with nothing
            assert length == ties or (k == 2 and length == 1)


def test_all_columns_are_one_support():
    for k in (1, 2, 3):
        assert check_list(random_problem(k, "logistic", k, 0.1), k, 0.05) == 1


@pytest.mark.parametrize("limits", [Limits(nodes=1), Limits(nodes=40), Limits(nodes=150), Limits(seconds=0.0)], ids=str)
def test_a_list_that_a_limit_cut_short_says_so_and_bounds_the_others(limits):
    problem = planted(columns=16, ridge=0.003)
    every, found = every_objective(problem, 3), near_optimal(problem, 3, 0.2, limits)
    listed = {tuple(support) for support in found.supports.tolist()}
    complete = {support for support, value in every.items() if value <= found.limit}
    assert found.status in (Status.NODES, Status.TIME)
    assert listed <= complete
    assert listed < complete or limits.nodes == 150
    assert found.lower_bound <= min(
        (value for support, value in every.items() if support not in listed), default=np.inf
    )
    assert found.lower_bound <= found.limit
    for support, objective in zip(found.supports.tolist(), found.objectives, strict=True):
        assert objective == pytest.approx(every[tuple(support)], rel=1e-6)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_stand_ins_are_those_of_brute_force(loss):
    for seed in range(6):
        problem = random_problem(seed, loss, 9, (0.3, 0.1, 0.01)[seed % 3])
        best = best_subset(problem, 1 + seed % 3, Limits(gap=FINE)).selection
        found = without_each(problem, best, Limits(gap=FINE))
        assert list(found) == best.support.tolist()
        for column, other in found.items():
            rest = [j for j in range(9) if j != column]
            expected = brute_force(problem, len(best.support), rest)
            assert column not in other.support
            assert len(set(other.support.tolist())) == len(best.support)
            assert other.status is Status.OPTIMAL
            assert other.lower_bound <= expected * (1 + 1e-12)
            assert expected * (1 - 1e-9) <= other.objective <= expected * (1 + 2 * FINE)
            assert other.lower_bound >= best.lower_bound * (1 - 2 * FINE)  # fewer supports to choose from


def test_a_twin_stands_in_at_no_cost():
    problem = twins(1, "logistic", 0.1)
    best = best_subset(problem, 2, Limits(gap=FINE)).selection
    for column, other in without_each(problem, best, Limits(gap=FINE)).items():
        assert other.objective == pytest.approx(best.objective, rel=1e-6)
        assert (column + 4) % 8 in other.support


def test_only_the_members_that_are_asked_for_are_taken_away():
    problem = planted(columns=12)
    best = best_subset(problem, 3).selection
    first, _, last = best.support.tolist()
    assert list(without_each(problem, best, columns=[last, first])) == [last, first]
    assert without_each(problem, best, columns=[]) == {}
    outsider = next(j for j in range(12) if j not in best.support)
    with pytest.raises(
        InputError, match=rf"^column {outsider} is not in the support \[\d.*\]: choose some of these\.$"
    ):
        without_each(problem, best, columns=[first, outsider])
    everything = best_subset(problem, 12).selection
    with pytest.raises(InputError, match=r"k = 12 is not possible with 11 columns \(without 1 excluded ones\)"):
        without_each(problem, everything)


def test_limits_hold_for_each_stand_in():
    problem = planted(columns=40, ridge=0.003)
    best = best_subset(problem, 3).selection
    for other in without_each(problem, best, Limits(nodes=1)).values():
        assert other.status is Status.NODES
        assert other.lower_bound < other.objective


def check_fewest(problem: Problem, target: float, least: list[float]) -> int:
    """`least[k - 1]` is the best objective of k columns."""
    found = fewest_columns(problem, target)
    expected = next(k for k, value in enumerate(least, start=1) if value <= target)
    assert found.k == expected
    assert found.proved
    assert len(set(found.selection.support.tolist())) == expected
    assert found.selection.objective <= target
    assert found.selection.objective == pytest.approx(problem.fit(found.selection.support).objective, rel=1e-9)
    assert found.selection.lower_bound <= least[expected - 1] * (1 + 1e-12)
    assert list(found.bounds) == list(range(1, expected))
    for k, bound in found.bounds.items():
        assert target <= bound <= least[k - 1] * (1 + 1e-12)
    return expected


@pytest.mark.parametrize("loss", list(LOSSES))
def test_the_smallest_size_is_that_of_brute_force(loss):
    for seed in range(4):
        problem = random_problem(seed, loss, 7, (0.3, 0.1, 0.01, 1e-3)[seed % 4])
        least = [brute_force(problem, k) for k in range(1, 8)]
        for size in (1, 3, 7):
            check_fewest(problem, least[size - 1] * (1 + 1e-4), least)
        # between two sizes, where they differ at all
        for more, less in pairwise(least[:4]):
            if more - less > 1e-3 * more:
                check_fewest(problem, 0.5 * (more + less), least)


@pytest.mark.parametrize("ridge", [1e-2, 1e-3, 1e-4])
def test_a_regression_almost_without_noise_needs_exactly_its_columns(ridge):
    """One column less leaves an objective that is many times the target."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 10))
    problem = make_problem(
        x, x[:, [1, 4, 6]].sum(axis=1) + 1e-3 * rng.normal(size=80), ridge=ridge, loss="squared_error"
    )
    least = [brute_force(problem, k) for k in range(1, 11)]
    assert least[1] > 5 * least[2]
    assert check_fewest(problem, 1.01 * least[2], least) == 3
    assert fewest_columns(problem, 1.01 * least[2]).selection.support.tolist() == [1, 4, 6]


def test_a_target_above_everything_needs_one_column():
    found = fewest_columns(planted(columns=8), 10.0)
    assert (found.k, found.proved, found.bounds) == (1, True, {})


def test_a_search_that_a_limit_ended_is_no_proof():
    problem = planted(columns=20, ridge=0.003)
    best = [best_subset(problem, k).selection.objective for k in (3, 4)]
    target = 0.05 * best[0] + 0.95 * best[1]
    found, full = fewest_columns(problem, target, Limits(nodes=1)), fewest_columns(problem, target)
    assert full.proved
    assert full.k == 4
    assert found.k >= full.k
    assert found.selection.objective <= target
    assert not found.proved
    for k, bound in found.bounds.items():
        assert bound <= best_subset(problem, k).selection.objective


@pytest.mark.parametrize("largest", [1, 2, 64])
def test_a_target_out_of_reach_is_refused(largest):
    problem = planted(columns=6)
    with pytest.raises(
        InputError, match=rf"^no support of up to {min(largest, 6)} columns was found below 0.01: raise"
    ):
        fewest_columns(problem, 0.01, largest=largest)


@pytest.mark.parametrize("target", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_no_number_is_refused(target):
    with pytest.raises(InputError, match=rf"^a target of {target:g} is not possible: give the objective to reach\.$"):
        fewest_columns(planted(columns=6), float(target))


@pytest.mark.parametrize("k", [-1, 0, 4])
def test_sizes_with_too_many_supports_are_refused(k):
    with pytest.raises(InputError, match=rf"^k = {k} .* list them for k = 1 to 3, and ask for stand-ins"):
        near_optimal(planted(columns=8), k)


@pytest.mark.parametrize("tolerance", [-0.01, 1.5, np.nan])
def test_tolerances_that_make_no_sense_are_refused(tolerance):
    with pytest.raises(InputError, match=rf"^a tolerance of {tolerance:g} is not possible: choose one from 0 to 1"):
        near_optimal(planted(columns=8), 2, float(tolerance))


def test_what_cannot_be_searched_is_refused():
    problem = replace(planted(columns=8), ridge=0.0)
    some = best_subset(planted(columns=8), 2).selection
    calls: list[Callable[[], object]] = [
        lambda: near_optimal(problem, 2),
        lambda: without_each(problem, some),
        lambda: fewest_columns(problem, 0.5),
    ]
    for call in calls:
        with pytest.raises(InputError, match="ridge = 0, but an exact search needs one above 0"):
            call()
    with pytest.raises(InputError, match="k = 3 is not possible with 2 columns"):
        near_optimal(random_problem(0, "logistic", 2, 0.1), 3)


def hard() -> Problem:
    """A proof at k = 3 takes seconds, at k = 5 far longer."""
    return planted(rows=150, columns=200, ridge=1e-3)


@contextmanager
def one_interrupt() -> Iterator[Callable[[Progress], None]]:
    """A callback for progress: from its first call on, by which the search listens, one Ctrl-C is under way."""
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    begun: list[bool] = []

    def send(_: Progress) -> None:
        if not begun:
            begun.append(True)
            timer.start()

    before = signal.getsignal(signal.SIGINT)
    yield send
    assert begun
    timer.join()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def eager(monkeypatch):
    """A clock that makes every step of a search report."""
    ticks = count(0.0, 0.6)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


def test_ctrl_c_ends_a_list_and_leaves_what_was_found(eager):
    # 9,880 supports within the tolerance: their list takes far longer than the timer
    problem = planted(rows=100, columns=40)
    with one_interrupt() as send:
        found = near_optimal(problem, 3, 1.0, progress=send)
    assert found.status is Status.STOPPED
    assert 1 <= len(found.objectives) < 9_880
    assert found.lower_bound <= found.limit
    listed = {tuple(support) for support in found.supports.tolist()}
    others = [s for s in combinations(range(40), 3) if s not in listed]
    assert found.lower_bound <= problem.fit_supports(np.array(others), tolerance=1e-4).objective.min()


def test_ctrl_c_ends_all_stand_ins_at_once(eager):
    problem = hard()
    fit = problem.fit(np.arange(5))
    members = Selection(
        support=np.arange(5),
        coefficients=fit.coefficients,
        intercept=fit.intercept,
        objective=fit.objective,
        lower_bound=0.0,
        status=Status.HEURISTIC,
        nodes=1,
        seconds=0.0,
    )
    with one_interrupt() as send, pytest.raises(KeyboardInterrupt):
        without_each(problem, members, progress=send)


def test_ctrl_c_before_there_is_a_list_is_passed_on():
    """The search for the best support comes first, and reports nothing: without it there is nothing to list."""
    problem = hard()
    best_subset(problem, 1)  # compiled by now
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.4, signal.pthread_kill, (main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        near_optimal(problem, 3, 0.0)
    timer.join()


def test_ctrl_c_ends_the_search_for_the_smallest_size(eager):
    problem = hard()
    with one_interrupt() as send, pytest.raises(KeyboardInterrupt):
        fewest_columns(problem, 0.9 * best_subset(problem, 4, Limits(nodes=1)).selection.objective, progress=send)
