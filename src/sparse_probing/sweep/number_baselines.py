"""What predicts a number without a model: its mean, the text, the token, position and length. Same rows and split as the probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.labelled_text import TOKEN_NUMBERS
from sparse_probing.metrics.regression import number_metrics
from sparse_probing.records import POOLINGS, Pooling, Split
from sparse_probing.sweep.numbers import rows_with_number
from sparse_probing.sweep.plan import Method
from sparse_probing.sweep.surface_baselines import PSEUDO_COUNT, PositionAndLength, row_ends, row_windows, token_means
from sparse_probing.sweep.text_baseline import ngram_features

MEAN = "mean"
"""Control: always the mean of the training rows."""
RIDGES = (1.0, 10.0, 100.0, 1_000.0)
"""scikit-learn's alpha; the one that does best on validation is taken."""


def surface_predictions(dataset: FeatureDataset, target: int) -> dict[str, Float[np.ndarray, " test"]]:
    """Baseline -> prediction for every test row that has the number.

    Position and length are left out where the number is the position itself, the last token where rows are single tokens.
    """
    rows = {split: rows_with_number(dataset, target, split) for split in Split}
    values = {split: dataset.targets[target].values[rows[split]] for split in Split}
    found = {
        MEAN: np.full(len(rows[Split.TEST]), values[Split.TRAIN].mean()),
        Method.TEXT.value: _best_ridge({split: ngram_features(dataset, rows[split]) for split in Split}, values),
        Method.TOKEN.value: _token_identity(dataset, rows, values),
    }
    if not _single_tokens(dataset, target):
        found[Method.LAST_TOKEN.value] = _best_ridge({split: row_ends(dataset, rows[split]) for split in Split}, values)
    if not is_position(dataset, target):
        columns = PositionAndLength(dataset).columns
        from sklearn.preprocessing import StandardScaler  # takes a second: see `surface_baselines`

        scaler = StandardScaler().fit(columns[rows[Split.TRAIN]])
        found[Method.POSITION.value] = _best_ridge(
            {split: scaler.transform(columns[rows[split]]) for split in Split}, values
        )
    return found


def is_position(dataset: FeatureDataset, target: int) -> bool:
    """Whether the number says where the single token stands: then position predicts it by definition."""
    return dataset.targets[target].name in TOKEN_NUMBERS and _single_tokens(dataset, target)


def _single_tokens(dataset: FeatureDataset, target: int) -> bool:
    poolings = dataset.row_pooling[~np.isnan(dataset.targets[target].values)]
    return bool((poolings == POOLINGS.index(Pooling.TOKEN)).all())


def _best_ridge(columns: Mapping[Split, Any], values: Mapping[Split, np.ndarray]) -> Float[np.ndarray, " test"]:
    """Columns are dense or sparse matrices."""
    from sklearn.linear_model import Ridge

    models = [Ridge(alpha=ridge).fit(columns[Split.TRAIN], values[Split.TRAIN]) for ridge in RIDGES]
    scores = [
        number_metrics(model.predict(columns[Split.VALIDATION]), values[Split.VALIDATION])["r2"] for model in models
    ]
    return models[int(np.argmax(scores))].predict(columns[Split.TEST])


def _token_identity(
    dataset: FeatureDataset, rows: dict[Split, Int[np.ndarray, " _"]], values: dict[Split, Float[np.ndarray, " _"]]
) -> Float[np.ndarray, " test"]:
    """Mean number per token id, drawn towards the mean of all; a pooled row takes the mean over its window.

    A line through the validation rows brings it to scale: means over a window vary less than the numbers do.
    """
    train = rows[Split.TRAIN]
    sums, counts = np.zeros((2, int(dataset.tokens.max()) + 1))
    lengths = dataset.row_last[train] - dataset.row_first[train]
    centre = float(values[Split.TRAIN].mean())
    at = 0
    for tokens, begins in row_windows(dataset, train):
        here = np.repeat(values[Split.TRAIN][at : at + len(begins)], lengths[at : at + len(begins)])
        sums += np.bincount(tokens, weights=here - centre, minlength=len(sums))
        counts += np.bincount(tokens, minlength=len(sums))
        at += len(begins)
    of_token = sums / (counts + PSEUDO_COUNT)
    seen, test = (token_means(dataset, rows[split], of_token) for split in (Split.VALIDATION, Split.TEST))
    spread = float(((seen - seen.mean()) ** 2).sum())
    slope = float((seen - seen.mean()) @ values[Split.VALIDATION]) / spread if spread > 1e-12 else 0.0
    return values[Split.VALIDATION].mean() + slope * (test - seen.mean())
