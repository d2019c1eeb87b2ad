"""Stability of a selection over resampled documents."""

from __future__ import annotations

import numpy as np
import pytest

import sparse_probing as sp
from sparse_probing.errors import InputError


def rows(seed: int = 0):
    rng = np.random.default_rng(seed)
    x, documents = rng.normal(size=(240, 30)), np.arange(240) // 3
    label = x[:, 4] + x[:, 9] + 0.3 * rng.normal(size=240) > 0
    return x, label, documents


def test_planted_columns_are_always_chosen_and_twins_share():
    x, label, documents = rows()
    stable = sp.selection_stability(sp.SparseProbe(k=2), x, label, groups=documents, repeats=20)
    assert stable[[4, 9]].tolist() == [1.0, 1.0]
    assert stable.sum() == pytest.approx(2)
    x[:, 20] = x[:, 4] + 0.05 * np.random.default_rng(1).normal(size=240)
    twins = sp.selection_stability(sp.SparseProbe(k=2), x, label, groups=documents, repeats=20)
    assert twins[9] == 1.0
    assert twins[4] + twins[20] == pytest.approx(1.0)
    assert 0 < twins[20] < 1


def test_regression_rankings_and_seeds():
    x, label, documents = rows()
    target = x[:, 4] * 2.5
    assert sp.selection_stability(sp.SparseProbeRegressor(k=1), x, target, repeats=5)[4] == 1.0
    first, again, other = (
        sp.selection_stability(sp.NeuronRanking(k=6), x, label, groups=documents, repeats=7, random_state=s)
        for s in (0, 0, 1)
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_bad_input_is_named():
    x, label, _ = rows()
    with pytest.raises(InputError, match="groups has 3 entries for 240 rows"):
        sp.selection_stability(sp.SparseProbe(k=1), x, label, groups=[1, 2, 3])
    with pytest.raises(InputError, match="lack a class"):
        sp.selection_stability(sp.SparseProbe(k=1), x, np.arange(240) // 8, groups=np.arange(240) // 8)
