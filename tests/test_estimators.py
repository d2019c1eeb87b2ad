"""The scikit-learn contract: its own checks, its own linear models as a reference, planted columns, awkward input."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import polars as pl
import pytest
from scipy import sparse
from sklearn import base
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import sparse_probing
from sparse_probing import NeuronRanking, SparseProbe, SparseProbePath, SparseProbeRegressor
from sparse_probing.errors import InputError
from sparse_probing.estimators.neuron_ranking import STATISTICS
from sparse_probing.estimators.path import smallest_good_enough
from sparse_probing.probes.multinomial import fit_multinomial
from sparse_probing.selection.methods import SELECTORS
from sparse_probing.selection.multiclass import MULTICLASS_SELECTORS, select_multiclass
from sparse_probing.selection.problem import make_problem, standardise

# scikit-learn's checks fit on a handful of rows; the warning about that has its own test
pytestmark = pytest.mark.filterwarnings("ignore:.* is fitted on .* rows:UserWarning")

PAGE = Path(__file__).parent.parent / "docs/estimators.md"
PLANTED = [5, 11]
CHECKED = [  # k = 2: the checks use tables of two columns, and want a fair score on them
    SparseProbe(2),
    SparseProbe(2, method="shrinking_elastic_net", loss="squared_hinge"),
    SparseProbe(2, method="mean_difference"),
    SparseProbe(2, loss="squared_hinge"),
    SparseProbeRegressor(2),
    SparseProbePath((1, 2)),
    NeuronRanking(k=2),
]


def clone(estimator: Any) -> Any:
    """Typed loosely: scikit-learn's annotation includes lists and sets of estimators."""
    return base.clone(estimator)


def planted(seed: int = 0, rows: int = 160, columns: int = 20, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Columns 5 and 11 carry the label, each at its own level and scale."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    x = rng.normal(size=(rows, columns))
    x[:, 5] += 2.0 * (y == 1)
    x[:, 11] -= 2.0 * (y == classes - 1)
    return x * rng.uniform(0.5, 20, columns) + rng.normal(size=columns), y


@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:  # see the next test
        if "SCIPY_ARRAY_API is not set" not in str(reason):
            raise


def test_array_api_dispatch_changes_nothing():
    """The one check that needs a setting from before SciPy is imported."""
    program = (
        "from sklearn.utils.estimator_checks import check_array_api_input as check\n"
        "import sparse_probing as sp\n"
        "for e in sp.SparseProbe(2), sp.SparseProbeRegressor(2), sp.SparseProbePath((1, 2)), sp.NeuronRanking(k=2):\n"
        "    check(type(e).__name__, e, 'numpy', expect_only_array_outputs=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env={**os.environ, "SCIPY_ARRAY_API": "1"}, check=False
    )
    assert done.returncode == 0


def test_public_names_do_not_import_torch():
    names = ("SparseProbe", "SparseProbePath", "SparseProbeRegressor", "NeuronRanking")
    assert set(names) <= set(sparse_probing.__all__)
    program = "import sys, sparse_probing as sp\n" + "".join(f"sp.{name}\n" for name in names)
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_page_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    scope: dict[str, Any] = {}
    exec(compile(code, "estimators.md", "exec"), scope)
    assert capsys.readouterr().out.count("[17 42]") == 3
    assert scope["path"].k_ == 2


@pytest.mark.parametrize("method", [name for name in SELECTORS if name != "random"])
def test_planted_columns_are_found(method):
    x, y = planted()
    assert SparseProbe(2, method=method).fit(x, y).support_.tolist() == PLANTED
    if method in MULTICLASS_SELECTORS:
        x, y = planted(classes=3, rows=300)
        assert SparseProbe(2, method=method).fit(x, y).support_.tolist() == PLANTED
    if method != "mutual_information":
        target = x[:, 5] / x[:, 5].std() - x[:, 11] / x[:, 11].std()
        assert SparseProbeRegressor(2, method=method).fit(x, target).support_.tolist() == PLANTED


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("classes", [2, 3])
def test_every_ranking_finds_the_planted_columns(statistic, classes):
    x, y = planted(classes=classes, rows=400)
    x /= x.std(axis=0)  # raw_difference is in the units of the columns
    assert NeuronRanking(statistic, k=2).fit(x, y).support_.tolist() == PLANTED


def test_ranking_scores_have_signs_and_known_values():
    x, y = planted()
    auc = NeuronRanking("roc_auc").fit(x, y).scores_
    np.testing.assert_allclose(auc, [roc_auc_score(y, column) - 0.5 for column in x.T], atol=1e-12)
    precision = NeuronRanking("average_precision").fit(x, y).scores_
    assert precision[5] == pytest.approx(average_precision_score(y, x[:, 5]))
    assert precision[11] == pytest.approx(-average_precision_score(y, -x[:, 11]))
    difference = NeuronRanking().fit(x, y).scores_
    expected = (x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(difference, expected, atol=1e-10)


def test_multiclass_greedy_swap_against_all_supports():
    """Brute force over all supports of one and two of eight correlated columns."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n_classes = 3 + seed % 2
        classes, weights = np.arange(48) % n_classes, np.full(48, 1 / 48)
        x = rng.normal(size=(48, 8)) @ rng.normal(size=(8, 8)) + rng.normal(size=(n_classes, 8))[classes]
        z = standardise(x)[0]

        def objective(support, z=z, classes=classes, weights=weights):
            return fit_multinomial(z[:, list(support)], classes, weights, 0.1).objective

        found = select_multiclass(z, classes, weights, 0.1, "greedy_swap", (1, 2), rng)
        for k in (1, 2):
            best = min(objective(support) for support in combinations(range(8), k))
            assert objective(found[k]) <= 1.01 * best


@pytest.mark.parametrize("method", MULTICLASS_SELECTORS)
def test_multiclass_supports_have_every_size(method):
    x, y = planted(columns=30, classes=3)
    found = select_multiclass(
        standardise(x)[0], y, np.full(160, 1 / 160), 0.1, method, (1, 3, 20, 30), np.random.default_rng(0)
    )
    for k, support in found.items():
        assert len(np.unique(support)) == k and (np.diff(support) > 0).all()


def test_multiclass_selection_complains():
    x, y = planted(classes=3)
    with pytest.raises(
        InputError, match="no selector 'l1_path' for more than two classes: choose one of greedy_swap, "
    ):
        SparseProbe(2, method="l1_path").fit(x, y)
    with pytest.raises(InputError, match="k = 21 is not possible with 20 columns"):
        select_multiclass(standardise(x)[0], y, np.full(160, 1 / 160), 0.1, "random", (21,), np.random.default_rng(0))


def test_pipeline_clone_pickle_and_grid_search():
    x, y = planted()
    line = make_pipeline(StandardScaler(), NeuronRanking(k=8), SparseProbe(2))
    assert clone(line).fit(x, y).score(x, y) > 0.85
    search = GridSearchCV(SparseProbe(), {"k": [1, 2, 4]}, scoring="average_precision", cv=3).fit(x, y)
    assert search.best_params_["k"] in (2, 4)
    probe = search.best_estimator_
    again = pickle.loads(pickle.dumps(probe))
    np.testing.assert_array_equal(again.predict_proba(x), probe.predict_proba(x))
    assert probe.transform(x).shape == (160, probe.k)
    np.testing.assert_array_equal(probe.transform(x), x[:, probe.support_])
    np.testing.assert_array_equal(probe.get_support(indices=True), probe.support_)


def _scaled(x, support):
    return (x[:, support] - x[:, support].mean(axis=0)) / x[:, support].std(axis=0)


@pytest.mark.parametrize("class_weight", ["balanced", None, {0: 3.0, 1: 0.5}])
@pytest.mark.parametrize("classes", [2, 3])
def test_coefficients_are_those_of_scikit_learn(class_weight, classes):
    x, y = planted(3, classes=classes)
    y[:40] = 0
    if classes == 3 and isinstance(class_weight, dict):
        class_weight = {**class_weight, 2: 1.0}
    probe = SparseProbe(3, ridge=0.02, class_weight=class_weight).fit(x, y)
    total = len(x)
    if isinstance(class_weight, dict):
        total = sum(class_weight[label] for label in y.tolist())
    reference = LogisticRegression(
        C=1 / (total * 0.02), class_weight=class_weight, tol=1e-12, max_iter=10_000, solver="newton-cholesky"
    ).fit(_scaled(x, probe.support_), y)
    scale = x[:, probe.support_].std(axis=0)
    np.testing.assert_allclose(probe.coef_[:, probe.support_] * scale, reference.coef_, atol=1e-6)
    np.testing.assert_allclose(probe.predict_proba(x), reference.predict_proba(_scaled(x, probe.support_)), atol=1e-6)
    assert probe.coef_.shape == ((1, 20) if classes == 2 else (3, 20))
    assert np.count_nonzero(probe.coef_.any(axis=0)) == 3
    assert probe.gradient_norm_ <= 1e-8 and probe.n_iter_ >= 1 and not probe.separable_


def test_squared_hinge_is_a_linear_support_vector_machine():
    x, y = planted(4)
    probe = SparseProbe(3, ridge=0.05, loss="squared_hinge", class_weight=None).fit(x, y)
    z = _scaled(x, probe.support_)
    # scikit-learn penalises the intercept; a large scaling makes that negligible
    reference = LinearSVC(C=1 / (160 * 0.05), tol=1e-10, max_iter=1_000_000, intercept_scaling=300).fit(z, y)
    np.testing.assert_allclose(probe.decision_function(x), reference.decision_function(z), atol=1e-3)
    assert not hasattr(probe, "predict_proba")
    with pytest.raises(InputError, match="Only binary classification is supported with loss"):
        probe.fit(x, np.arange(160) % 3)


def test_regressor_is_ridge_regression_whatever_the_units():
    x, _ = planted(5)
    y = 40 * x[:, 5] / x[:, 5].std() + np.random.default_rng(0).normal(size=160) + 1_000
    probe = SparseProbeRegressor(3, ridge=0.03).fit(x, y)
    reference = Ridge(alpha=160 * 0.03).fit(_scaled(x, probe.support_), y)
    np.testing.assert_allclose(probe.predict(x), reference.predict(_scaled(x, probe.support_)), rtol=1e-6)
    np.testing.assert_allclose(SparseProbeRegressor(3, ridge=0.03).fit(x, 1e-6 * y).coef_, 1e-6 * probe.coef_)
    flat = SparseProbeRegressor(3).fit(x, np.full(160, 0.1))
    np.testing.assert_array_equal(flat.predict(x), np.full(160, 0.1))
    with pytest.raises(InputError, match="needs classes, not a continuous target"):
        SparseProbeRegressor(3, method="mutual_information").fit(x, y)


def test_separable_rows_give_finite_coefficients_and_say_so():
    x, y = planted(6)
    x[:, 5] += 1_000 * y
    for probe in (SparseProbe(2), SparseProbe(2, loss="squared_hinge")):
        assert np.isfinite(probe.fit(x, y).coef_).all() and probe.separable_
    x, y = planted(6, classes=3)
    x[:, 5] += 1_000 * y
    assert SparseProbe(3).fit(x, y).separable_
    x, y = planted(6, rows=40, columns=200)
    assert SparseProbe(30).fit(x, np.random.default_rng(0).permutation(y)).separable_  # noise fits noise


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_data_frames_bring_names(kind):
    x, y = planted()
    names = [f"L0.N{j}" for j in range(20)]
    table = {name: x[:, j] for j, name in enumerate(names)}
    if kind == "pandas":
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        frame, labels = pandas.DataFrame(table), pandas.Series(y.astype(str))
    else:
        frame, labels = pl.DataFrame(table), pl.Series(y.astype(str))
    for estimator in map(clone, (SparseProbe(2), SparseProbePath((1, 2)), NeuronRanking(k=2))):
        estimator.fit(frame, labels)
        assert estimator.feature_names_in_.tolist() == names
        assert estimator.get_feature_names_out().tolist() == ["L0.N5", "L0.N11"]
    probe = SparseProbe(2).fit(frame, labels, sample_weight=pl.Series(np.ones(160)))
    assert set(probe.predict(frame)) == {"0", "1"}
    np.testing.assert_array_equal(probe.coef_, SparseProbe(2).fit(x, y).coef_)
    table["L0.N3"] = np.full(160, np.nan)
    with pytest.raises(InputError, match=r"NaN or infinity in 1 of 20 columns: 'L0.N3'\."):
        SparseProbe(2).fit(pl.DataFrame(table), y)
    with pytest.raises(ValueError, match="feature names should match"):
        probe.predict(pl.DataFrame(dict(reversed(table.items()))))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float32),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.astype(int),
        lambda x: x.tolist(),
    ],
    ids=["float32", "Fortran order", "strided", "integers", "lists"],
)
@pytest.mark.parametrize(
    "estimator", [SparseProbe(2), SparseProbePath((1, 2)), NeuronRanking("roc_auc", k=2)], ids=repr
)
def test_any_array_will_do(estimator, change):
    x, y = planted()
    x = np.round(8 * x)  # the same numbers in every type
    narrow = x.astype(np.float16).astype(np.float64)
    expected = clone(estimator).fit(x, y)
    np.testing.assert_array_equal(clone(estimator).fit(change(x), y).support_, expected.support_)
    half = clone(estimator).fit(narrow.astype(np.float16), y)
    np.testing.assert_array_equal(half.support_, clone(estimator).fit(narrow, y).support_)
    if isinstance(estimator, SparseProbe):
        np.testing.assert_allclose(clone(estimator).fit(change(x), y).coef_, expected.coef_, rtol=1e-7)
        np.testing.assert_array_equal(half.predict(narrow.astype(np.float16)), half.predict(narrow))


def test_input_is_left_alone_and_may_be_read_only():
    x, y = planted()
    x[0, 0] = np.inf
    for array in (x, y):
        array.setflags(write=False)
    before = x.tobytes()
    for estimator in (SparseProbe(2, bad_columns="drop"), NeuronRanking(k=2, bad_columns="drop")):
        estimator.fit(x, y)
    assert x.tobytes() == before


def test_bad_columns_are_named_or_dropped():
    x, y = planted()
    x[3, [0, 1, 2, 3, 4, 6, 7]] = np.nan
    x[4, 0] = np.inf
    with pytest.raises(InputError, match="NaN or infinity in 7 of 20 columns: 0, 1, 2, 3, 4 and 2 others"):
        SparseProbe(2).fit(x, y)
    for estimator in (
        SparseProbe(13, bad_columns="drop"),
        SparseProbeRegressor(13, bad_columns="drop"),
        SparseProbePath(bad_columns="drop", cv=2),
        NeuronRanking(k=13, bad_columns="drop"),
    ):
        estimator.fit(x, y)
        assert estimator.n_dropped_columns_ == 7
        assert not set(estimator.support_) & {0, 1, 2, 3, 4, 6, 7}
        if not isinstance(estimator, NeuronRanking):
            assert np.isfinite(estimator.predict(x)).all()
        with pytest.raises(
            InputError, match="n_features = 20, of which 7 hold NaN or infinity, so k goes from 1 to 13"
        ):
            (estimator.set_params(ks=[14]) if "ks" in estimator.get_params() else estimator.set_params(k=14)).fit(x, y)
    clean, _ = planted()
    probe = SparseProbe(2).fit(clean, y)
    with pytest.raises(InputError, match="Clean them before you predict"):
        probe.predict(x)
    with pytest.raises(InputError, match="bad_columns = 'ignore' is not possible: choose one of error, drop"):
        SparseProbe(2, bad_columns="ignore").fit(x, y)


def test_constant_columns_come_last():
    x, y = planted(columns=14)
    x[:, [0, 3]] = 7.1
    for estimator in (SparseProbe(12), SparseProbeRegressor(12), NeuronRanking("f1", k=12), SparseProbePath([12])):
        assert estimator.fit(x, y).n_constant_columns_ == 2
        assert not {0, 3} & set(estimator.support_)
    probe = SparseProbe(13).fit(x, y)
    assert set(range(14)) - set(probe.support_) == {3}
    assert probe.coef_[0, 0] == 0
    for estimator in (SparseProbe(2), SparseProbeRegressor(2)):
        nothing = estimator.fit(np.ones((160, 3)), y)
        assert nothing.support_.tolist() == [0, 1] and not nothing.coef_.any()


@pytest.mark.parametrize("method", SELECTORS)
def test_all_columns_are_chosen_where_k_is_their_number(method):
    x, y = planted(columns=12)
    for k in range(1, 7):
        support = SparseProbe(k, method=method).fit(x[:, :6], np.random.default_rng(k).permutation(y)).support_
        assert len(np.unique(support)) == k


def test_parameters_that_cannot_be_used_are_explained():
    x, y = planted(columns=12)
    sizes: Any = (0, 13, 2.0, "two")
    for k in sizes:
        with pytest.raises(InputError, match="so k goes from 1 to 12"):
            SparseProbe(k).fit(x, y)
    with pytest.raises(InputError, match=r"ridge = 0 is not possible: it is a finite number above 0\."):
        SparseProbe(2, ridge=0).fit(x, y)
    with pytest.raises(InputError, match="no selector 'best'"):
        SparseProbe(2, method="best").fit(x, y)
    with pytest.raises(InputError, match="loss = 'hinge' is not possible: choose one of logistic, squared_hinge"):
        SparseProbe(2, loss="hinge").fit(x, y)
    with pytest.raises(InputError, match="class_weight = 'auto' is not possible"):
        SparseProbe(2, class_weight="auto").fit(x, y)
    with pytest.raises(InputError, match="statistic = 'auc' is not possible: choose one of mean_difference"):
        NeuronRanking("auc").fit(x, y)
    with pytest.raises(InputError, match="sample weight of row 1 is -1"):
        SparseProbe(2).fit(x, y, sample_weight=np.where(np.arange(160) == 1, -1.0, 1.0))
    for estimator in (SparseProbe(2), NeuronRanking(k=2)):
        with pytest.raises(InputError, match="at least 2 classes in the data, but the data contains only one class: 1"):
            estimator.fit(x, np.ones(160, dtype=int))
    with pytest.raises(TypeError, match="Sparse data was passed"):
        SparseProbe(2).fit(sparse.csr_array(x), y)
    odd: Any = {"k": np.int64(2), "ridge": 1, "selection_ridge": np.float32(0.5), "random_state": None}
    SparseProbe(**odd).fit(x, y)


@pytest.mark.filterwarnings("default::UserWarning")
def test_few_rows_give_one_warning():
    x, y = planted(rows=19)
    for estimator in (SparseProbe(2), SparseProbeRegressor(2), SparseProbePath((1, 2), cv=3), NeuronRanking(k=2)):
        with pytest.warns(UserWarning, match="is fitted on 19 rows: .* luck") as caught:
            estimator.fit(x, y)
        assert len(caught) == 1


@pytest.mark.parametrize("classes", [2, 3])
def test_weight_zero_is_absence_and_weight_two_is_repetition(classes):
    x, y = planted(7, classes=classes)
    weight = np.random.default_rng(0).integers(0, 3, 160)
    kept = weight > 0
    cv = [(np.arange(0, 100), np.arange(100, 160)), (np.arange(60, 160), np.arange(0, 60))]
    inside = [tuple(np.flatnonzero(np.isin(np.flatnonzero(kept), part)) for part in fold) for fold in cv]
    for estimator in (SparseProbe(3), SparseProbeRegressor(3), SparseProbePath((1, 2, 3), cv=cv)):
        absent = clone(estimator).set_params(cv=inside) if "cv" in estimator.get_params() else clone(estimator)
        absent.fit(x[kept], y[kept])
        zero = clone(estimator).fit(x, y, sample_weight=kept.astype(float))
        np.testing.assert_array_equal(zero.coef_, absent.coef_)
        if isinstance(estimator, SparseProbePath):
            np.testing.assert_array_equal(zero.cv_scores_, absent.cv_scores_)
            continue
        weighted = clone(estimator).fit(x, y, sample_weight=weight)
        repeated = clone(estimator).fit(np.repeat(x, weight, axis=0), np.repeat(y, weight))
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6, atol=1e-9)


def test_path_chooses_the_smallest_good_k_and_keeps_every_probe():
    x, y = planted(8)
    path = SparseProbePath().fit(x, y)
    assert path.ks_.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16]
    assert path.cv_scores_.shape == (11, 5)
    assert path.k_ == 2 and path.support_.tolist() == PLANTED
    for k in (2, 8):
        one = SparseProbe(k).fit(x, y)
        np.testing.assert_allclose(path.probes_[k].decision_function(x), one.decision_function(x), atol=1e-6)
        assert path.probes_[k].separable_ == one.separable_
    np.testing.assert_array_equal(path.predict_proba(x), path.probes_[2].predict_proba(x))
    three = SparseProbePath([8, 1, 2, 2]).fit(*planted(8, rows=300, classes=3))
    assert three.ks_.tolist() == [1, 2, 8] and three.k_ == 2


def test_path_scores_by_hand():
    x, y = planted(9)
    train, test = np.arange(100), np.arange(100, 160)
    path = SparseProbePath((2, 4), cv=[(train, test)]).fit(x, y)
    for k, score in zip((2, 4), path.cv_scores_[:, 0], strict=True):
        fold = path.probes_[k].set_params(k=k).fit(x[train], y[train])
        assert score == pytest.approx(average_precision_score(y[test], fold.decision_function(x[test])))


def test_one_standard_error_by_hand():
    # best mean 0.9 with standard error 0.1 / sqrt(2) / sqrt(2) = 0.05
    assert smallest_good_enough(np.array([[0.8, 0.86], [0.8, 0.9], [0.85, 0.95]])) == 1
    assert smallest_good_enough(np.array([[0.9, np.nan], [0.8, 0.9]])) == 0
    with pytest.raises(InputError, match="no fold has rows of every class"):
        smallest_good_enough(np.array([[np.nan]]))


def test_path_keeps_groups_together():
    """Every group has its own level in columns that tell nothing else: only mixed folds would reward them."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 8)
    y = groups % 2
    x = rng.normal(size=(20, 30))[groups] + 0.05 * rng.normal(size=(160, 30))
    mixed, whole = SparseProbePath((1, 8)).fit(x, y), SparseProbePath((1, 8)).fit(x, y, groups=groups)
    assert mixed.cv_scores_[1].mean() > 0.95 > 0.8 > whole.cv_scores_[1].mean()
    splitter = SparseProbePath((1, 8), cv=GroupKFold(5)).fit(x, y, groups=groups)
    assert splitter.cv_scores_.shape == (2, 5)
    with pytest.raises(InputError, match="class 1 has one group only"):
        SparseProbePath((1,)).fit(x, y, groups=np.where(y == 1, 0, groups))
    with pytest.raises(InputError, match="cv = 1 is not possible"):
        SparseProbePath((1,), cv=1).fit(x, y)
    with pytest.raises(InputError, match="give a list of sizes"):
        SparseProbePath(3).fit(x, y)


def test_a_wide_matrix_takes_little_memory():
    """200,000 columns of 40 rows: 16 MB, as float32 32 MB."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 200_000)).astype(np.float16), np.arange(40) % 2
    x[:, 777] = 3 * y
    tracemalloc.start()
    probe = SparseProbe(3).fit(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 777 in probe.support_ and probe.separable_
    assert probe.predict(x).tolist() == y.tolist()
    assert peak < 150e6
    assert NeuronRanking("roc_auc", k=1).fit(x, y).support_.tolist() == [777]


@pytest.mark.parametrize(
    "estimator", [SparseProbe(4), SparseProbe(4, method="random", random_state=3), SparseProbePath((1, 4))], ids=repr
)
def test_same_seed_same_bytes(estimator):
    x, y = planted(10)
    first, second = (clone(estimator).fit(x, y) for _ in range(2))
    assert first.coef_.tobytes() == second.coef_.tobytes()
    if estimator.method == "random":
        other = clone(estimator).set_params(random_state=4).fit(x, y)
        assert other.support_.tolist() != first.support_.tolist()


def best_of_all(x: np.ndarray, target: np.ndarray, k: int, loss: str = "logistic", balanced: bool = True) -> float:
    """The least objective of k columns at the selection's default ridge."""
    problem = make_problem(x, target, loss=loss, balanced=balanced)
    supports = np.array(list(combinations(range(x.shape[1]), k)))
    return float(problem.fit_supports(supports, tolerance=1e-9).objective.min())


def fitted(estimator: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """Typed loosely, as `clone`: what a fit sets is not declared."""
    return estimator.fit(x, y)


def noisy(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated columns, a label that a few of them tell with mistakes, and the number behind it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, 9)) @ rng.normal(size=(9, 9)) + 3
    signal = x[:, :4] @ np.array([1.0, -1.0, 0.5, 0.5])
    signal = signal / signal.std() + rng.normal(size=80)
    return x, (signal > np.quantile(signal, 0.6)).astype(int), 50 * signal + 1_000


@pytest.mark.parametrize("k", [1, 3, 9])
def test_an_exact_probe_is_the_best_of_all_and_says_so(k):
    for seed in range(3):
        x, y, target = noisy(seed)
        standard = (target - target.mean()) / target.std()
        cases = [
            (SparseProbe(k), y, best_of_all(x, y, k)),
            (SparseProbe(k, class_weight=None), y, best_of_all(x, y, k, balanced=False)),
            (SparseProbe(k, loss="squared_hinge"), y, best_of_all(x, y, k, "squared_hinge")),
            (SparseProbeRegressor(k), target, best_of_all(x, standard, k, "squared_error")),
        ]
        for estimator, labels, best in cases:
            probe = fitted(estimator.set_params(method="exact", proof_gap=1e-5), x, labels)
            assert probe.status_ == "optimal"
            assert probe.selection_objective_ == pytest.approx(best, rel=1.1e-5)
            assert probe.lower_bound_ <= best * (1 + 1e-9)
            assert 0 <= probe.gap_ <= 1.1e-5
            assert probe.gap_ == pytest.approx(1 - probe.lower_bound_ / probe.selection_objective_, abs=1e-12)
            assert len(set(probe.support_.tolist())) == k
            assert type(probe.status_) is str


@pytest.mark.parametrize("method", [name for name in SELECTORS if name != "exact"])
def test_heuristics_say_how_far_from_the_best_they_can_be(method):
    x, y, target = noisy(4)
    standard = (target - target.mean()) / target.std()
    cases: list[tuple[Any, np.ndarray, float]] = [(SparseProbe(3, method=method), y, best_of_all(x, y, 3))]
    if method != "mutual_information":
        cases.append((SparseProbeRegressor(3, method=method), target, best_of_all(x, standard, 3, "squared_error")))
    for estimator, labels, best in cases:
        probe = fitted(estimator, x, labels)
        assert probe.status_ == "heuristic"
        assert 0 < probe.lower_bound_ <= best <= probe.selection_objective_ * (1 + 1e-9)
        assert probe.gap_ == pytest.approx(1 - probe.lower_bound_ / probe.selection_objective_)


def test_the_bound_is_about_the_choice_not_about_the_refit():
    x, y, _ = noisy(0)
    weak, strong = (fitted(SparseProbe(3, method="exact", ridge=ridge), x, y) for ridge in (1e-4, 1.0))
    assert weak.selection_objective_ == strong.selection_objective_
    assert weak.lower_bound_ == strong.lower_bound_
    assert weak.objective_ < weak.selection_objective_ < strong.objective_
    same = fitted(SparseProbe(3, method="exact", ridge=0.1), x, y)
    assert same.objective_ == pytest.approx(same.selection_objective_, rel=1e-6)  # the search reads float32


def test_more_than_two_classes_have_no_bound():
    x, y = planted(classes=3, rows=90)
    probe = fitted(SparseProbe(2), x, y)
    assert probe.selection_objective_ is probe.lower_bound_ is probe.gap_ is probe.status_ is None
    fitted(probe, x, y == 1)  # and a bound again with two
    assert probe.status_ == "heuristic"


def test_limits_of_the_proof():
    x, y, target = noisy(1)
    for kind, labels in ((SparseProbe, y), (SparseProbeRegressor, target)):
        heuristic = fitted(kind(3, selection_ridge=1e-3), x, labels)
        none = fitted(kind(3, method="exact", selection_ridge=1e-3, proof_gap=1e-5, max_seconds=0), x, labels)
        assert none.status_ == "time limit"
        assert none.lower_bound_ == pytest.approx(heuristic.lower_bound_, rel=1e-4)  # the root's
        assert none.selection_objective_ <= heuristic.selection_objective_ * (1 + 1e-9)
        assert none.gap_ > 1e-5
        full = fitted(kind(3, method="exact", selection_ridge=1e-3, proof_gap=1e-5, max_seconds=600.0), x, labels)
        assert full.status_ == "optimal"
        assert (
            none.lower_bound_ < full.lower_bound_ <= full.selection_objective_ <= none.selection_objective_ * (1 + 1e-9)
        )
        loose = fitted(kind(3, method="exact", selection_ridge=1e-3, proof_gap=0.9), x, labels)
        assert loose.status_ == "optimal"
        assert full.gap_ <= 1.1e-5 < loose.gap_ <= 0.9


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("max_seconds", -1, r"^max_seconds = -1 is not possible: give a number of seconds from 0 on, or None\.$"),
        ("max_seconds", "x", r"^max_seconds = 'x' is not possible: give a number of seconds from 0 on, or None\.$"),
        ("max_seconds", float("nan"), "^max_seconds = nan is not possible"),
        ("max_seconds", float("inf"), "^max_seconds = inf is not possible"),
        ("max_seconds", True, "^max_seconds = True is not possible"),
        ("proof_gap", -1, r"^proof_gap = -1 is not possible: it is a finite number above 0\.$"),
        ("proof_gap", "x", r"^proof_gap = 'x' is not possible: it is a finite number above 0\.$"),
        ("proof_gap", 0, "^proof_gap = 0 is not possible"),
        ("proof_gap", float("nan"), "^proof_gap = nan is not possible"),
        ("proof_gap", 1.5, r"a gap of 1.5 is not possible: choose one from 1e-05 to 1"),
        ("proof_gap", 1e-9, r"a gap of 1e-09 is not possible: choose one from 1e-05 to 1"),
    ],
)
def test_limits_that_make_no_sense_are_explained(name, value, match):
    x, y, target = noisy(0)
    for estimator, labels in ((SparseProbe(2), y), (SparseProbeRegressor(2), target)):
        with pytest.raises(InputError, match=match) as caught:
            estimator.set_params(method="exact", **{name: value}).fit(x, labels)
        assert "\n" not in str(caught.value)


def test_limits_are_parameters_like_the_others():
    for kind in (SparseProbe, SparseProbeRegressor):
        assert (kind().proof_gap, kind().max_seconds) == (1e-3, None)
        probe = kind(2, method="exact", proof_gap=0.01, max_seconds=7)
        again = clone(probe)
        assert {name: again.get_params()[name] for name in ("proof_gap", "max_seconds")} == {
            "proof_gap": 0.01,
            "max_seconds": 7,
        }
        odd: Any = {"proof_gap": np.float32(0.01), "max_seconds": np.int64(60)}
        x, y, _ = noisy(0)
        assert again.set_params(**odd).fit(x, y).status_ == "optimal"


@pytest.mark.parametrize("method", ["greedy_swap", "exact", "random"])
def test_constant_columns_leave_a_bound(method):
    x, y, target = noisy(2)
    x[:, [1, 7]] = 4.2
    varying = np.delete(x, [1, 7], axis=1)
    standard = (target - target.mean()) / target.std()
    for k in (2, 7, 9):  # with 9 of 9 columns the two constant ones come in, and the bound is that of the other 7
        size = min(k, 7)
        for estimator, labels, best in (
            (SparseProbe(k, method=method), y, best_of_all(varying, y, size)),
            (SparseProbeRegressor(k, method=method), target, best_of_all(varying, standard, size, "squared_error")),
        ):
            probe = fitted(estimator, x, labels)
            assert len(probe.support_) == k
            assert probe.lower_bound_ <= best * (1 + 1e-9)
            assert probe.selection_objective_ >= best * (1 - 1e-6)
            assert probe.gap_ >= 0
            assert probe.status_ == ("optimal" if method == "exact" else "heuristic")
            if k >= 7:
                assert probe.gap_ <= 1e-3


def test_a_dropped_column_is_not_part_of_the_bound():
    x, y, _ = noisy(3)
    best = best_of_all(x[:, 1:], y, 2)
    x[5, 0] = np.nan
    probe = fitted(SparseProbe(2, method="exact", bad_columns="drop", proof_gap=1e-5), x, y)
    assert probe.status_ == "optimal"
    assert probe.selection_objective_ == pytest.approx(best, rel=1.1e-5)


def test_nothing_but_constant_columns_has_no_bound():
    _, y, target = noisy(0)
    for estimator, labels in ((SparseProbe(2), y), (SparseProbeRegressor(2), target)):
        probe = fitted(estimator, np.ones((80, 3)), labels)
        assert probe.lower_bound_ is probe.gap_ is probe.status_ is probe.selection_objective_ is None
