"""Selectors: brute force, optimality conditions, planted supports, all losses."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from sparse_probing.errors import InputError, SolverError
from sparse_probing.probes.losses import LOSSES, SQUARED_ERROR
from sparse_probing.probes.weights import balanced_weights
from sparse_probing.ranking.single_units import single_unit_scores
from sparse_probing.ranking.statistics import class_moments
from sparse_probing.selection import elastic_net
from sparse_probing.selection.elastic_net import fit_elastic_net, l1_path, shrinking_elastic_net, shrinking_fits
from sparse_probing.selection.greedy_swap import greedy_swap
from sparse_probing.selection.heuristics import at_random, top_by_score
from sparse_probing.selection.methods import CLASSES_ONLY, SELECTORS, difference_score, select
from sparse_probing.selection.problem import Problem, standardise
from sparse_probing.selection.schedule import DEFAULT_KS, checked_ks
from sparse_probing.selection.single_column import best_single_columns
from sparse_probing.selection.supports import rounded_down


def mixed(seed: int, rows: int = 150, columns: int = 12, ridge: float = 0.1) -> Problem:
    """Correlated columns, a label that needs a handful of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns))
    label = x @ (rng.normal(size=columns) * (rng.random(columns) < 0.4)) + 2 * rng.normal(size=rows) > 0
    label[:4] = [True, False, True, False]
    z, _, _ = standardise(x)
    return Problem(z=z, target=label.astype(float), weights=balanced_weights(label), ridge=ridge)


def planted(loss: str = "logistic", columns: int = 300) -> Problem:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, columns))
    signal = x[:, [7, 21, 40]].sum(axis=1) + rng.normal(size=600)
    z, _, _ = standardise(x)
    if loss == "squared_error":
        return Problem(z=z, target=signal, weights=np.full(600, 1 / 600), loss=SQUARED_ERROR)
    label = signal > 1
    return Problem(z=z, target=label.astype(float), weights=balanced_weights(label), loss=LOSSES[loss])


def test_greedy_swap_finds_the_brute_force_optimum_almost_always_and_never_beats_it():
    misses = 0
    for seed in range(10):
        problem = mixed(seed, columns=9, ridge=(0.3, 0.1, 0.01)[seed % 3])
        for k, support in greedy_swap(problem, [1, 2, 3]).items():
            best = min(problem.fit(np.array(c)).objective for c in combinations(range(9), k))
            found = problem.fit(support).objective
            assert best - 1e-9 <= found <= best * 1.05
            misses += found > best * (1 + 1e-6)
    assert misses <= 1  # of 30; at the weakest ridge the quadratic model may mislead


def test_greedy_swap_is_never_worse_than_the_other_selectors_by_more_than_a_hair():
    problem = mixed(3, rows=400, columns=60)
    ours = greedy_swap(problem, [2, 5, 10])
    for method in SELECTORS:
        for k, support in select(problem, method, [2, 5, 10], np.random.default_rng(0)).items():
            assert problem.fit(ours[k]).objective <= problem.fit(support).objective * (1 + 1e-3), (method, k)


def test_greedy_swap_reaches_large_sizes_and_columns_outside_the_first_pool():
    problem = mixed(0, rows=300, columns=700)
    supports = greedy_swap(problem, [1, 16, 17, 64, 256])
    assert [len(s) for s in supports.values()] == [1, 16, 17, 64, 256]
    objectives = [problem.fit(s).objective for s in supports.values()]
    assert objectives == sorted(objectives, reverse=True)
    assert all(len(np.unique(s)) == len(s) for s in supports.values())


def test_greedy_swap_takes_every_column_when_asked():
    assert greedy_swap(mixed(1, columns=6), [6, 3])[6].tolist() == list(range(6))


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("method", [m for m in SELECTORS if m != "random"])
def test_every_selector_finds_the_planted_columns_under_every_loss(method, loss):
    problem = planted(loss)
    if loss == "squared_error" and method in CLASSES_ONLY:
        with pytest.raises(InputError, match="needs classes"):
            select(problem, method, [3], np.random.default_rng(0))
        return
    supports = select(problem, method, [1, 2, 3, 8], np.random.default_rng(0))
    assert supports[3].tolist() == [7, 21, 40]
    assert {k: len(s) for k, s in supports.items()} == {1: 1, 2: 2, 3: 3, 8: 8}


def test_selectors_refuse_what_is_not_possible():
    problem, rng = mixed(0), np.random.default_rng(0)
    with pytest.raises(InputError, match="there is no selector 'best': choose one of greedy_swap, "):
        select(problem, "best", [1], rng)
    with pytest.raises(InputError, match="k = 13 is not possible with 12 columns"):
        select(problem, "greedy_swap", [1, 13], rng)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 32]), st.booleans())
def test_elastic_net_meets_its_optimality_conditions(seed, k, warm):
    problem = mixed(seed)
    n, ratio = len(problem.target), float(np.clip(np.exp(-k / 20), 0.1, 0.9))
    l1, l2 = 10 * 20 / k / n * ratio, 100 * 20 / k / n * (1 - ratio)
    rng = np.random.default_rng(seed)
    start = (rng.normal(size=12), 1.0) if warm else None
    fit = fit_elastic_net(problem, np.arange(12), l1, l2, start)
    z = problem.z.astype(float)
    pull = problem.weights * problem.loss.slope(z @ fit.coefficients + fit.intercept, problem.target)
    gradient, zero = z.T @ pull + l2 * fit.coefficients, fit.coefficients == 0
    assert abs(pull.sum()) < 2e-6
    assert (np.abs(gradient[zero]) <= l1 + 2e-6).all()
    np.testing.assert_allclose(gradient[~zero], -l1 * np.sign(fit.coefficients[~zero]), atol=2e-6)


@pytest.mark.parametrize("k", [1, 5, 32])
def test_the_papers_elastic_net_equals_scikit_learn(k):
    problem = planted(columns=60)
    fit = shrinking_fits(problem, difference_score(problem), [k])[k]
    ratio = float(np.clip(np.exp(-k / 20), 0.1, 0.9))
    x = 0.1 * problem.z[:, fit.columns].astype(float)  # the paper's columns have standard deviation 0.1
    reference = LogisticRegression(
        C=k / 20, l1_ratio=ratio, solver="saga", class_weight="balanced", tol=1e-9, max_iter=50_000, random_state=0
    ).fit(x, problem.target)
    np.testing.assert_allclose(fit.coefficients, 0.1 * reference.coef_[0], atol=2e-5)


def test_elastic_net_that_does_not_settle_is_an_error(monkeypatch):
    monkeypatch.setattr(elastic_net, "MOST_STEPS", 1)
    with pytest.raises(SolverError, match="elastic net on 12 columns stopped"):
        fit_elastic_net(mixed(0), np.arange(12), 1e-3, 1e-3)


def test_shrinking_supports_are_nested():
    problem = planted(columns=60)
    supports = shrinking_elastic_net(problem, difference_score(problem), [1, 2, 3, 8, 32])
    for small, large in [(1, 2), (2, 3), (3, 8), (8, 32)]:
        assert set(supports[small]) < set(supports[large])


def test_l1_path_fills_sizes_that_it_never_admits():
    problem = mixed(2, rows=30, columns=8)
    assert {k: len(s) for k, s in l1_path(problem, [1, 8]).items()} == {1: 1, 8: 8}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_best_single_columns_are_those_of_trying_all(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 150)).round(1)
    label = x[:, :2].sum(axis=1) + rng.normal(size=120) > 0
    label[:2] = [True, False]
    z, _, _ = standardise(x)
    problem = Problem(z=z, target=label.astype(float), weights=balanced_weights(label))
    positive, everyone = label[:, None], np.ones((120, 1), dtype=bool)
    moments = class_moments(x, positive, everyone)
    floor = single_unit_scores(x, positive, everyone, moments=moments, ridge=1e-3).loss_floor
    assert floor is not None
    every = problem.fit_supports(np.arange(150)[:, None], ridge=1e-3).objective
    assert (floor[0] <= every + 1e-7).all()  # z is float32
    columns, objectives = best_single_columns(problem, floor[0], 5)
    assert objectives == pytest.approx(np.sort(every)[:5], abs=1e-9)
    assert set(columns) == set(np.argsort(every, kind="stable")[:5])


def test_standardise_by_hand_and_with_weights():
    x = np.array([[1.0, 5.0, 0.5], [3.0, 5.0, 0.5], [5.0, 5.0, 0.5 + 1e-9]])
    z, mean, scale = standardise(x, np.array([1.0, 1.0, 0.0]))
    assert mean.tolist() == [2.0, 5.0, 0.5]
    assert scale.tolist() == [1.0, 1.0, 1.0]
    assert z[:2, 0].tolist() == [-1.0, 1.0]
    assert (z[:, 1:] == 0).all()  # constant, or as good as
    assert standardise(x, floor=10.0)[2].tolist()[0] == 10.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_standardise_takes_any_float_and_read_only_and_strided_arrays(dtype):
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(dtype)
    x.setflags(write=False)
    plain = standardise(np.array(x[::2, ::-1]))[0]
    assert standardise(x[::2, ::-1])[0].tobytes() == plain.tobytes()
    assert plain.dtype == np.float32


def test_top_by_score_breaks_ties_by_index():
    assert top_by_score(np.array([1.0, -3.0, 1.0, 2.0]), [3])[3].tolist() == [0, 1, 3]


def test_random_supports_are_nested_and_seeded():
    first, again = (at_random(50, [1, 5], np.random.default_rng(3)) for _ in range(2))
    assert first[5].tolist() == again[5].tolist()
    assert first[1][0] in first[5]


def test_schedule_is_the_papers_and_is_cut_at_the_width():
    assert checked_ks(None, 20) == (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
    assert checked_ks(None, 2_000) == DEFAULT_KS
    assert checked_ks([4, 1, 4], 10) == (1, 4)
    with pytest.raises(InputError, match=r"k = 99 is not possible: .* 48 units"):
        checked_ks([1, 99], 48)
    with pytest.raises(InputError, match="k = 0"):
        checked_ks([0], 48)


@pytest.mark.parametrize("bound", [0.3463545583958531, 0.34635455839585294, 1.0, 123.456789012345678, 1e-9, 0.0, -0.5])
def test_a_rounded_bound_is_a_bound_and_loses_at_most_the_twelfth_digit(bound):
    rounded = rounded_down(bound)
    assert bound - 1.1e-11 * abs(bound) <= rounded <= bound
    assert rounded_down(0.3463545583958531) == rounded_down(0.34635455839585294)
