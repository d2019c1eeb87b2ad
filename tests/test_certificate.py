"""Certificates: by hand, against brute force and a naive search, rounding, and every kind of tampering."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_probing.errors import InputError
from sparse_probing.probes.losses import LOSSES, SQUARED_ERROR
from sparse_probing.selection import certificate as module
from sparse_probing.selection.certificate import (
    FREE,
    IN,
    OUT,
    Certificate,
    CertificateError,
    check_certificate,
    problem_hash,
    read_certificate,
    write_certificate,
)
from sparse_probing.selection.problem import Problem

MARGIN = 1e-10
"""What a producer leaves for the rounding that the check counts against it."""


def small(seed: int, loss: str, rows: int = 50, columns: int = 7, ridge: float = 0.1, offset: float = 0.0) -> Problem:
    """Correlated columns of any scale, uneven weights, one duplicate and one constant column."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) / np.sqrt(columns)
    z[:, 1], z[:, 2] = z[:, 0], 0.0
    signal = z[:, [0, 3]].sum(axis=1) + 0.5 * rng.normal(size=rows)
    target = signal + offset if loss == "squared_error" else (signal > 0.3).astype(float)
    if loss != "squared_error":
        target[:2] = [0, 1]
    weights = rng.random(rows) * (rng.random(rows) < 0.9) + 1e-3
    return Problem(
        z=z.astype(np.float32), target=target, weights=weights / weights.sum(), loss=LOSSES[loss], ridge=ridge
    )


def brute_force(problem: Problem, k: int, columns: list[int]) -> list[tuple[float, tuple[int, ...]]]:
    supports = list(combinations(columns, k))
    objectives = problem.fit_supports(np.array(supports), tolerance=1e-10).objective
    return sorted(zip(objectives.tolist(), supports, strict=True))


def dual_point(problem: Problem, coefficients: np.ndarray, intercept: float) -> tuple[float, np.ndarray]:
    """Value and u, in the longest floats of the machine, one plain formula after the other."""
    z, t, c = (np.asarray(a, dtype=np.longdouble) for a in (problem.z, problem.target, problem.weights))
    pull = -np.asarray(problem.loss.slope((z @ coefficients + intercept).astype(float), problem.target), np.longdouble)
    if problem.loss.classes:
        up, down = (c * pull)[t == 1].sum(), -(c * pull)[t == 0].sum()
        pull[t == 1] *= min(up, down) / up if up > 0 else 0
        pull[t == 0] *= min(up, down) / down if down > 0 else 0
        share = np.abs(pull)
        plain = np.where((share > 0) & (share < 1), share, 0.5)
        entropy = -plain * np.log(plain) - (1 - plain) * np.log(1 - plain)
        own = np.where(share == plain, entropy, 0) if problem.loss.name == "logistic" else share - share**2 / 4
    else:
        pull -= (c * pull).sum() / c.sum()
        own = pull * t - pull**2 / 2
    return float((c * own).sum()), ((c * pull) @ z).astype(float)


def lower_bound(problem: Problem, point: tuple[float, np.ndarray], k: int, inside: list[int], free: list[int]) -> float:
    value, u = point
    most = sorted(u[free] ** 2)[::-1][: k - len(inside)]
    return value - ((u[inside] ** 2).sum() + sum(most)) / (2 * problem.ridge)


class Search:
    """A naive branch and bound, or a complete enumeration, that writes down what it does."""

    def __init__(self, problem: Problem, k: int, bound: float, rng: np.random.Generator, *, bounds: bool) -> None:
        self.problem, self.k, self.bound, self.rng, self.bounds = problem, k, bound, rng, bounds
        self.branch: list[int] = []
        self.points: list[tuple[np.ndarray, np.ndarray, float]] = []

    def fit(self, columns: list[int]) -> None:
        """Give the present node the dual point of a fit."""
        fit = self.problem.fit(np.array(columns), tolerance=1e-10)
        coefficients = fit.coefficients.astype(np.float32)
        self.points[-1] = (np.array(columns), coefficients, fit.intercept)
        dense = np.zeros(self.problem.width)
        dense[columns] = coefficients
        self.point = dual_point(self.problem, dense, fit.intercept)

    def grow(self, inside: list[int], free: list[int]) -> None:
        self.branch.append(-1)
        self.points.append((np.zeros(0, dtype=int), np.zeros(0, dtype=np.float32), np.nan))
        node, left = len(self.branch) - 1, self.k - len(inside)
        if left > len(free):
            return
        if left == 0:
            self.fit(inside)
            return
        if self.bounds:
            some = self.rng.permutation(free)[: left + 2].tolist()
            self.fit(inside + some)
            if lower_bound(self.problem, self.point, self.k, inside, free) >= self.bound + MARGIN:
                return
        column = int(self.rng.choice(free))
        rest = [j for j in free if j != column]
        self.branch[node] = column
        self.grow([*inside, column], rest)
        self.grow(inside, rest)


def packed(
    problem: Problem,
    k: int,
    support: tuple[int, ...],
    bound: float,
    branch: list[int],
    points: list,
    excluded: Any = (),
) -> Certificate:
    fit = problem.fit(np.array(support), tolerance=1e-10)
    n, p = problem.z.shape
    return Certificate(
        k=k, ridge=problem.ridge, loss=problem.loss.name, rows=n, columns=p, data=problem_hash(problem),
        excluded=np.array(excluded, dtype=np.int64), support=np.array(support), coefficients=fit.coefficients,
        intercept=fit.intercept, objective=fit.objective, bound=bound, branch=np.array(branch),
        dual_start=np.cumsum([0] + [len(columns) for columns, _, _ in points]),
        dual_column=np.concatenate([columns for columns, _, _ in points]),
        dual_coefficient=np.concatenate([coefficients for _, coefficients, _ in points]),
        dual_intercept=np.array([intercept for _, _, intercept in points]), about={"feature": "is_prime", "layer": 3},
    )  # fmt: skip


def certified(
    problem: Problem, k: int, *, bounds: bool = True, gap: float = 0.02, rank: int = 0, excluded: tuple[int, ...] = ()
) -> Certificate:
    """A certificate of the best support but `rank`, whose claim lies `gap` below the best."""
    columns = [j for j in range(problem.width) if j not in excluded]
    found = brute_force(problem, k, columns)
    bound = found[0][0] * (1 - gap) - MARGIN
    search = Search(problem, k, bound, np.random.default_rng(k), bounds=bounds)
    search.grow([], columns)
    return packed(problem, k, found[rank][1], bound, search.branch, search.points, excluded)


def with_node(certificate: Certificate, node: int, coefficients: np.ndarray | np.float32) -> Certificate:
    """Other coefficients at one node."""
    entries = slice(certificate.dual_start[node], certificate.dual_start[node + 1])
    changed = certificate.dual_coefficient.copy()
    changed[entries] = coefficients
    return replace(certificate, dual_coefficient=changed)


def leaves_with_points(certificate: Certificate) -> list[int]:
    return np.flatnonzero((certificate.branch == -1) & ~np.isnan(certificate.dual_intercept)).tolist()


def by_hand() -> tuple[Problem, Certificate]:
    """Rows z = (1, 1), (-1, 1), (1, -1), (-1, -1), target = first column, weights 1/4, ridge 1, squared error, k = 1.

    First column: (1 - b)^2 / 2 + b^2 / 2 is least at b = 1/2, where it is 1/4. Second column: 1/2, at b = 0. The point b = 1/2 has
    pulls z_1 / 2, so the value is 1/2 - 1/8 = 3/8, u = (1/2, 0), and the bound of the root is 3/8 - (1/4) / 2 = 1/4.
    """
    z = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]], dtype=np.float32)
    target, weights = np.array([1.0, -1.0, 1.0, -1.0]), np.full(4, 0.25)
    problem = Problem(z=z, target=target, weights=weights, loss=SQUARED_ERROR, ridge=1.0)
    point = (np.array([0]), np.array([0.5], dtype=np.float32), 0.0)
    return problem, packed(problem, 1, (0,), 0.25 - 1e-12, [-1], [point])


def test_one_dual_point_by_hand():
    problem, certificate = by_hand()
    checked = check_certificate(certificate, problem)
    assert (checked.nodes, checked.leaves, checked.bound) == (1, 1, 0.25 - 1e-12)
    assert checked.objective == pytest.approx(0.25, rel=1e-15)
    assert checked.gap == pytest.approx(4e-12, rel=1e-3)
    weak = packed(problem, 1, (1,), 0.25 + 1e-9, [-1], [(np.array([0]), np.array([0.5], dtype=np.float32), 0.0)])
    with pytest.raises(
        CertificateError, match=r"refused: leaf 0 proves 0\.2\d+ for its supports, the claim is 0\.250000001; "
    ):
        check_certificate(weak, problem)


def test_what_a_dual_point_rules_out_by_hand():
    """The same point: supports without the first column, or with the second, cost at least 1/4 + (1/4 - 0) / 2 = 3/8."""
    problem, certificate = by_hand()
    for threshold, after in ((0.374, [IN, OUT]), (0.376, [FREE, FREE])):
        check = module._Check(replace(certificate, bound=threshold), problem)
        point = check.evaluate(np.array([0]), np.arange(2))
        proved, state = check.narrowed(point, 0, np.full(2, FREE, dtype=np.int8))
        assert proved == pytest.approx(0.25, abs=1e-11)
        assert state.tolist() == after


def test_rounding_of_u_counts_against_the_claim():
    """u = 0.5 and 0.3, each off by 0.001 at most: one square is 0.501^2 at most, two sum to 0.501^2 + 0.301^2."""
    problem, certificate = by_hand()
    points = module._Points(np.array([1.0]), np.array([[0.25, 0.09]]), np.array([1e-3]))
    for k, most in ((1, 0.501**2), (2, 0.501**2 + 0.301**2)):
        check = module._Check(replace(certificate, k=k), problem)
        for state in ([FREE, FREE], [IN, FREE]):
            proved, _ = check.narrowed(points, 0, np.array(state, dtype=np.int8))
            assert 1 - (most + 1e-4) / 2 < proved <= 1 - most / 2


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("bounds", [True, False], ids=["search", "enumeration"])
def test_certificates_of_a_naive_search_pass_and_claim_no_more_than_brute_force(loss, bounds, tmp_path):
    for seed, k in enumerate([1, 2, 3, 3]):
        problem = small(seed, loss, columns=6 + seed % 2, ridge=(0.3, 0.03)[seed % 2], offset=100.0 * seed)
        gap = 0.05 if bounds else 0.0
        certificate = certified(problem, k, bounds=bounds, gap=gap)
        write_certificate(tmp_path / "it.npz", certificate)
        checked = check_certificate(read_certificate(tmp_path / "it.npz"), problem)
        best = brute_force(problem, k, list(range(problem.width)))[0][0]
        assert checked.bound == certificate.bound <= best
        assert checked.objective == pytest.approx(best, rel=1e-9)
        assert checked.gap == pytest.approx(gap, abs=1e-8)
        assert (checked.nodes, checked.leaves) == (len(certificate.branch), len(certificate.branch) // 2 + 1)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_no_tree_proves_more_than_the_optimum(loss):
    for bounds in (True, False):
        problem = small(5, loss)
        certificate = certified(problem, 2, bounds=bounds, gap=0.0, rank=12)
        best = brute_force(problem, 2, list(range(7)))[0][0]
        assert best + 1e-6 < certificate.objective
        check_certificate(certificate, problem)
        for bound in (best + 1e-11, best + 1e-6, certificate.objective * (1 - 1e-9)):
            with pytest.raises(CertificateError, match=r"leaf \d+ proves"):
                check_certificate(replace(certificate, bound=bound), problem)


def test_excluded_columns_stay_out_of_the_claim():
    problem = small(1, "logistic")
    best = brute_force(problem, 2, list(range(7)))[0]
    without = next(j for j in best[1] if j not in (0, 1))  # 0 and 1 are twins
    certificate = certified(problem, 2, gap=0.0, excluded=(without,))
    assert check_certificate(certificate, problem).bound > best[0] + 1e-6
    with pytest.raises(CertificateError, match="leaf"):
        check_certificate(replace(certificate, excluded=np.zeros(0, dtype=int)), problem)
    with pytest.raises(CertificateError, match="its support is not 2 columns that are not excluded"):
        check_certificate(replace(certificate, excluded=certificate.support[:1]), problem)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    loss=st.sampled_from(list(LOSSES)),
    k=st.integers(1, 3),
    ridge=st.sampled_from([1.0, 0.1, 1e-3]),
    scale=st.sampled_from([0.0, 1e-3, 0.3, 3.0, 1e6]),
    height=st.sampled_from([0.0, 1.0, -30.0, 1e9]),
    share=st.floats(0.3, 1.1),
)
def test_no_dual_point_bounds_or_rules_out_a_support_that_costs_less(seed, loss, k, ridge, scale, height, share):
    rng = np.random.default_rng(seed)
    problem = small(seed, loss, rows=40, columns=6, ridge=ridge, offset=float(rng.choice([0.0, 1e3])))
    state = rng.choice([OUT, FREE, FREE, FREE, IN], size=6).astype(np.int8)
    state[np.flatnonzero(state == IN)[k:]] = FREE
    inside, free = np.flatnonzero(state == IN).tolist(), np.flatnonzero(state == FREE).tolist()
    if len(inside) + len(free) < k:
        return
    supports = [(*inside, *rest) for rest in combinations(free, k - len(inside))]
    objectives = problem.fit_supports(np.array(supports)).objective
    threshold = float(share * objectives.max())
    coefficients = (scale * rng.normal(size=6)).astype(np.float32)
    intercept = height + float(problem.target @ problem.weights) * (not problem.loss.classes)
    point = (np.arange(6), coefficients, intercept)
    certificate = packed(problem, k, supports[0], threshold, [-1], [point])
    with np.errstate(over="ignore", invalid="ignore"):
        check = module._Check(certificate, problem)
        proved, after = check.narrowed(check.evaluate(np.array([0]), np.arange(6)), 0, state)
    assert proved <= objectives.min()
    for support, objective in zip(supports, objectives, strict=True):
        if objective < threshold and proved < threshold:  # otherwise the whole node is closed
            assert (after[list(support)] != OUT).all()
            assert set(np.flatnonzero(after == IN)) <= set(support)
    if scale <= 3 and abs(height) <= 1:
        exact = lower_bound(problem, dual_point(problem, coefficients.astype(float), intercept), k, inside, free)
        rise = 1 + np.abs(coefficients).sum() ** 2  # of the pulls' squares, to whose size rounding is relative
        assert 0 <= exact - proved <= 1e-10 * rise / ridge
        assert loss != "logistic" or exact - proved <= 1e-9 * max(1, abs(exact))


def test_a_fit_proves_its_own_objective_to_a_few_rounding_errors():
    for loss in LOSSES:
        problem = small(2, loss, rows=2_000)
        certificate = certified(problem, 2, bounds=False, gap=0.0)
        optimum = certificate.bound + MARGIN
        assert check_certificate(replace(certificate, bound=optimum - 5e-12), problem).gap < 1e-10


def test_the_check_is_the_same_in_batches_and_tiles_of_any_size(monkeypatch):
    problem = small(3, "logistic")
    certificate, calls = certified(problem, 3), [[], []]
    plain = check_certificate(certificate, problem, calls[0].append)
    for name, size in (("BATCH", 3), ("ROWS", 16), ("WIDE", 2), ("MOST_NUMBERS", 50)):
        monkeypatch.setattr(module, name, size)
    assert check_certificate(certificate, problem, calls[1].append) == plain
    for done in calls:
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, plain.nodes)
    assert len(calls[1]) > len(calls[0])


def test_closed_and_empty_sides_are_consumed_but_need_no_proof():
    problem, _ = by_hand()
    nothing, point = (
        (np.zeros(0, dtype=int), np.zeros(0, dtype=np.float32), np.nan),
        (np.array([0]), np.array([0.5], dtype=np.float32), 0.0),
    )
    for branch, points in (
        ([1, -1, -1], [point, nothing, nothing]),  # closed by its own point
        (
            [1, 1, -1, -1, 1, -1, -1],
            [nothing, nothing, point, nothing, nothing, nothing, point],
        ),  # the same column again
        ([0, 1, -1, -1, -1], [nothing, nothing, nothing, point, point]),  # two columns are more than k
        ([1, -1, 0, -1, -1], [nothing, point, nothing, point, nothing]),  # no column is fewer than k
    ):
        tree = packed(problem, 1, (0,), 0.25 - 1e-12, branch, points)
        assert check_certificate(tree, problem).nodes == len(branch)
    for at in (0, 1):
        tree = packed(
            problem, 1, (0,), 0.25 - 1e-12, [1, -1, -1], [nothing, *([point, nothing] if at else [nothing, point])]
        )
        with pytest.raises(CertificateError, match=f"leaf {at + 1} proves -inf"):
            check_certificate(tree, problem)


@pytest.mark.parametrize("bounds", [True, False])
def test_every_leaf_is_needed_and_so_is_its_dual_point(bounds):
    problem = small(4, "logistic", columns=5)
    certificate = certified(problem, 2, bounds=bounds, gap=0.0)
    points = [
        (certificate.dual_column[a:b], certificate.dual_coefficient[a:b], float(intercept))
        for a, b, intercept in zip(
            certificate.dual_start, certificate.dual_start[1:], certificate.dual_intercept, strict=False
        )
    ]
    branch, support = certificate.branch.tolist(), tuple(certificate.support.tolist())
    for leaf in np.flatnonzero(certificate.branch == -1):
        shorter = packed(
            problem,
            2,
            support,
            certificate.bound,
            branch[:leaf] + branch[leaf + 1 :],
            points[:leaf] + points[leaf + 1 :],
        )
        with pytest.raises(CertificateError, match=r"tree breaks off below node|leaf"):
            check_certificate(shorter, problem)
    longer = packed(problem, 2, support, certificate.bound, [*branch, -1], [*points, points[-1]])
    with pytest.raises(CertificateError, match=rf"complete before the last of its {len(branch) + 1} nodes"):
        check_certificate(longer, problem)
    refused = 0
    for leaf in leaves_with_points(certificate):
        for value in (np.nan, 50.0):
            try:
                check_certificate(with_node(certificate, leaf, np.float32(value)), problem)
            except CertificateError as error:
                assert f"leaf {leaf} proves" in str(error)
                refused += 1
    # Columns that the inner nodes' points rule out leave some leaves without a support, but never that of the best support.
    assert refused >= (1 if bounds else 2 * len(leaves_with_points(certificate)))


def test_the_best_supports_leaf_closes_only_with_its_own_dual_point():
    for loss in LOSSES:
        problem = small(6, loss, columns=5)
        certificate = certified(problem, 2, bounds=False, gap=0.0)
        reach = {}
        for leaf in leaves_with_points(certificate):
            entries = slice(certificate.dual_start[leaf], certificate.dual_start[leaf + 1])
            reach[tuple(sorted(certificate.dual_column[entries].tolist()))] = (
                leaf,
                certificate.dual_coefficient[entries],
            )
        leaf, coefficients = reach[tuple(sorted(certificate.support.tolist()))]
        check_certificate(with_node(certificate, leaf, coefficients * np.float32(1 + 1e-6)), problem)
        for change in (1 + 1e-2, 0, -1):
            with pytest.raises(CertificateError, match=f"leaf {leaf} proves"):
                check_certificate(with_node(certificate, leaf, coefficients * np.float32(change)), problem)


TAMPERED: dict[str, tuple[Callable[[Certificate], dict[str, Any]], str]] = {
    "bound above the support": (lambda c: {"bound": c.objective + 1e-6}, "is not below its own support's cost"),
    "bound nan": (lambda c: {"bound": np.nan}, "is not below"),
    "bound -inf": (lambda c: {"bound": -np.inf}, "is not below"),
    "objective": (lambda c: {"objective": c.objective * (1 + 1e-8)}, "its support costs .*, not"),
    "objective nan": (lambda c: {"objective": np.nan}, "its support costs"),
    "intercept": (lambda c: {"intercept": c.intercept + 0.1}, "its support costs"),
    "coefficients": (lambda c: {"coefficients": c.coefficients + 0.1}, "its support costs"),
    "support": (lambda c: {"support": np.array([4, 6])}, "its support costs"),
    "support twice": (lambda c: {"support": np.array([3, 3])}, "support columns are not different columns of 7"),
    "support outside": (lambda c: {"support": np.array([3, 7])}, "support columns are not different columns of 7"),
    "k": (lambda c: {"k": 3}, "its support is not 3 columns"),
    "k 0": (lambda c: {"k": 0, "support": c.support[:0], "coefficients": c.coefficients[:0]}, "its support is not 0 columns"),
    "ridge": (lambda c: {"ridge": 0.2}, r"its ridge is 0\.2, not 0\.1; check it with the problem"),
    "loss": (lambda c: {"loss": "logistic"}, "its loss is 'logistic', not 'squared_hinge'"),
    "rows": (lambda c: {"rows": 49}, r"its shape is \(49, 7\), not \(50, 7\)"),
    "columns": (lambda c: {"columns": 8}, "its shape"),
    "data": (lambda c: {"data": "0" * 32}, "its data is '0"),
    "excluded": (lambda c: {"excluded": np.array([-1])}, "excluded columns are not different columns of 7"),
    "branch outside": (lambda c: {"branch": np.where(c.branch == c.branch.max(), 7, c.branch)}, "column that is none of 7"),
    "branch -2": (lambda c: {"branch": np.where(c.branch == -1, -2, c.branch)}, "column that is none of 7"),
    "all leaves": (lambda c: {"branch": np.full(len(c.branch), -1)}, "complete before the last"),
    "no leaf": (lambda c: {"branch": np.zeros(len(c.branch), dtype=int)}, "breaks off below"),
    "no node": (
        lambda c: {n: getattr(c, n)[:0] for n in ("branch", "dual_intercept", "dual_column", "dual_coefficient")}
        | {"dual_start": np.zeros(1, dtype=int)}, "complete before the last of its 0 nodes"),
    "start later": (lambda c: {"dual_start": np.maximum(c.dual_start, 1)}, "do not divide"),
    "start short": (lambda c: {"dual_start": c.dual_start[:-1]}, "do not divide"),
    "start falls": (lambda c: {"dual_start": np.r_[0, c.dual_start[-1] + 1, c.dual_start[2:]]}, "do not divide"),
    "start beyond": (lambda c: {"dual_start": np.r_[c.dual_start[:-1], c.dual_start[-1] + 1]}, "do not divide"),
    "column outside": (lambda c: {"dual_column": c.dual_column + 1}, "column that is none of 7"),
    "column negative": (lambda c: {"dual_column": c.dual_column - 7}, "column that is none of 7"),
    "other columns": (lambda c: {"dual_column": 6 - c.dual_column}, r"leaf \d+ proves"),
    "no intercepts": (lambda c: {"dual_intercept": np.full(len(c.branch), np.nan)}, "lacks its intercept"),
    "intercept inf": (lambda c: {"dual_intercept": np.full(len(c.branch), np.inf)}, "not finite"),
    "intercept huge": (lambda c: {"dual_intercept": np.full(len(c.branch), 1e200)}, r"leaf \d+ proves"),
    "coefficients nan": (lambda c: {"dual_coefficient": np.float32(np.nan) * c.dual_coefficient}, r"leaf \d+ proves nan"),
    "coefficients large": (lambda c: {"dual_coefficient": np.float32(1e37) * c.dual_coefficient}, r"leaf \d+ proves"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_refused_for_the_right_reason(what, tmp_path):
    problem = small(0, "squared_hinge")
    certificate = certified(problem, 2, gap=1e-3)
    change, reason = TAMPERED[what]
    with pytest.raises(CertificateError, match=reason):
        check_certificate(replace(certificate, **change(certificate)), problem)


def test_an_absurd_dual_point_proves_nothing_and_warns_of_nothing():
    problem = small(0, "squared_error")
    certificate = certified(problem, 2)
    for height in (1.1e150, 1.1e200, 1.3e250, 1.7e308):
        with pytest.raises(CertificateError, match=r"leaf \d+ proves"):
            check_certificate(replace(certificate, dual_intercept=np.full(len(certificate.branch), height)), problem)


def test_other_data_are_refused():
    problem = small(0, "logistic")
    certificate = certified(problem, 2)
    check_certificate(certificate, problem)
    z, target, weights = problem.z.copy(), 1 - problem.target, problem.weights[::-1].copy()
    z[0, 0] = np.nextafter(z[0, 0], np.float32(9))
    for other in (replace(problem, z=z), replace(problem, target=target), replace(problem, weights=weights)):
        with pytest.raises(CertificateError, match=r"its data is .*; check it with the problem that it was made for\."):
            check_certificate(certificate, other)
    for bad, match in (
        (replace(problem, target=problem.target + 0.5), "targets or a ridge"),
        (replace(problem, ridge=0.0), "targets or a ridge"),
        (replace(problem, weights=2 * problem.weights), "do not sum to 1"),
        (replace(problem, weights=np.r_[1.0, -1.0, problem.weights[2:] / problem.weights[2:].sum()]), "negative"),
        (replace(problem, weights=np.full(50, np.nan)), "do not sum to 1"),
    ):
        with pytest.raises(CertificateError, match=match):
            check_certificate(replace(certificate, data=problem_hash(bad), ridge=bad.ridge), bad)
    z[0, 0] = np.nan
    bad = replace(problem, z=z)
    with pytest.raises(CertificateError):
        check_certificate(replace(certificate, data=problem_hash(bad)), bad)


def test_files_hold_everything_and_equal_certificates_have_equal_bytes(tmp_path):
    certificate = certified(small(0, "logistic"), 2)
    for name in ("a.npz", "b.npz"):
        write_certificate(tmp_path / name, certificate)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    again = read_certificate(tmp_path / "a.npz")
    for name in (*module.SCALARS, *module.ARRAYS):
        np.testing.assert_array_equal(getattr(again, name), getattr(certificate, name))
    write_certificate(tmp_path / "b.npz", replace(again, about=dict(reversed(again.about.items()))))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_files_with_any_byte_altered_or_cut_off_are_refused(tmp_path, monkeypatch):
    problem, certificate = by_hand()
    path = tmp_path / "it.npz"
    write_certificate(path, certificate)
    raw = path.read_bytes()
    assert check_certificate(read_certificate(path), problem).nodes == 1
    altered = [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in range(len(raw))]
    short = [raw[:at] for at in range(len(raw))]
    for damaged in (*altered, *short, raw + b"0", raw + raw):
        monkeypatch.setattr(
            Path, "read_bytes", lambda self, damaged=damaged: damaged
        )  # thousands of files would take long
        with pytest.raises(
            InputError, match=r"is none, or was cut short: copy|is damaged, its checksum is wrong: copy"
        ):
            read_certificate(path)


def archive(path: Path, facts: object, leave_out: str = "", **parts: Any) -> Path:
    """A forged file with a right checksum."""
    stored = {name: np.zeros(0, dtype=kind) for name, kind in module.ARRAYS.items()} | {
        "dual_start": np.zeros(1, dtype="<i8")
    }
    text = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    buffer = BytesIO()
    stored = {"header": text, **stored} | parts
    np.savez(buffer, **{name: array for name, array in stored.items() if name != leave_out})  # type: ignore[arg-type]
    path.write_bytes(module._sealed(buffer.getvalue()))
    return path


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (pytest.fail, ("a pickle was opened",))


def test_forged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "it.npz"
    header = {"format": 1, "k": 0, "ridge": 0.1, "loss": "logistic", "rows": 1, "columns": 1, "data": "", "intercept": 0.0,
              "objective": 0.5, "bound": 0.5, "about": {}}  # fmt: skip
    assert read_certificate(archive(path, header)).loss == "logistic"
    pickled = np.array([Evil()], dtype=object)
    for forged, match in (
        (lambda: archive(path, header, branch=pickled), r"is unreadable \(Object arrays cannot be loaded"),
        (lambda: archive(path, header, header=pickled), "is unreadable"),
        (lambda: archive(path, header | {"format": 2}), "has format 2, not 1: use the version that wrote it"),
        (lambda: archive(path, header | {"k": 1.5}), "has other parts than it should"),
        (lambda: archive(path, header | {"bound": None}), "has other parts"),
        (lambda: archive(path, header | {"more": 1}), "has other parts"),
        (lambda: archive(path, {"format": 1}), "has other parts"),
        (lambda: archive(path, [1]), "is unreadable"),
        (lambda: archive(path, header, leave_out="support"), "has other parts"),
        (lambda: archive(path, header, leave_out="header"), "is unreadable"),
        (lambda: archive(path, header, more=np.zeros(1)), "has other parts"),
        (lambda: archive(path, header, more=np.zeros((1, 1))), "has other parts"),
        (lambda: archive(path, header, branch=np.zeros((1, 1), dtype="<i8")), "has other parts"),
        (lambda: archive(path, header, branch=np.zeros(0, dtype="<f8")), "has other parts"),
        (lambda: archive(path, header, branch=np.zeros(2, dtype="<i8")), "has other parts"),
        (lambda: archive(path, header, support=np.zeros(2, dtype="<i8")), "has other parts"),
        (lambda: archive(path, header, dual_column=np.zeros(2, dtype="<i8")), "has other parts"),
        (lambda: path.write_bytes(module._sealed(b"PK" + bytes(30))), "is unreadable"),
        (lambda: path.write_text("feature,k\n"), "is none, or was cut short"),
        (lambda: np.savez(path, a=np.zeros(3)), "is none, or was cut short"),
    ):
        forged()
        with pytest.raises(InputError, match=match):
            read_certificate(path)
    with pytest.raises(InputError, match=r"absent\.npz' cannot be read: it does not exist: check the path\."):
        read_certificate(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="cannot be read"):
        read_certificate(tmp_path)


def test_problem_hash_names_the_numbers_and_not_how_they_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 40)).astype(np.float16)
    problem = Problem(
        z=z.astype(np.float32), target=rng.normal(size=300), weights=np.full(300, 1 / 300), loss=SQUARED_ERROR
    )
    name = problem_hash(problem)
    assert len(name) == 32
    on_disk = np.memmap(tmp_path / "z", dtype=np.float32, mode="w+", shape=(300, 40))
    on_disk[:] = z
    on_disk.flush()
    read_only = np.memmap(tmp_path / "z", dtype=np.float32, mode="r", shape=(300, 40))
    wide = np.zeros((600, 80), dtype=np.float32)
    wide[::2, ::2] = z
    for same in (z, np.asfortranarray(problem.z), read_only, wide[::2, ::2], problem.z.astype(">f4")):
        assert problem_hash(replace(problem, z=same)) == name
    others = [
        replace(problem, z=problem.z.astype(np.float64) + 1e-12),  # float32 would not tell it apart
        replace(problem, z=problem.z.reshape(40, 300).T),
        replace(problem, z=problem.z[:, ::-1]),
        replace(problem, target=problem.target + 1e-15),
        replace(problem, weights=problem.weights * 2),
        replace(problem, ridge=0.2),
        replace(problem, loss=LOSSES["logistic"]),
    ]
    assert len({name, *(problem_hash(other) for other in others)}) == 1 + len(others)


def test_problem_hash_by_hand():
    problem, _ = by_hand()
    facts = b'[[4, 2], "<f4", "squared_error", "0x1.0000000000000p+0"]\n'
    numbers = problem.z.tobytes() + problem.target.tobytes() + problem.weights.tobytes()
    assert problem_hash(problem) == hashlib.blake2b(facts + numbers, digest_size=16).hexdigest()


def test_float16_and_fortran_and_mapped_columns_can_be_checked(tmp_path):
    problem = small(0, "logistic")
    z = problem.z.astype(np.float16)
    problem = replace(problem, z=z.astype(np.float32))
    certificate = certified(problem, 2)
    plain = check_certificate(certificate, problem)
    problem.z.tofile(tmp_path / "z")
    mapped = np.memmap(tmp_path / "z", dtype=np.float32, mode="r", shape=z.shape)
    for same in (z, np.asfortranarray(problem.z), mapped):
        assert check_certificate(certificate, replace(problem, z=same)) == plain
