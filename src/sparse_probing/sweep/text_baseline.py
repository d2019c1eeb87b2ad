"""What the text alone gives: token n-grams and a linear classifier on the same rows and split, no model."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.scores import Scored, best_f1_threshold
from sparse_probing.records import POOLINGS, SPLITS, Pooling, Split

BUCKETS = 2**18


def ngram_features(dataset: FeatureDataset, rows: np.ndarray) -> csr_array:
    """One hashed row each: for pooled rows the unigrams and bigrams of the row (presence) and, marked as such, the unigrams before
    it in its window, which the model has read, too; for single tokens the token itself and the two before it, by position.
    """
    from sklearn.feature_extraction import FeatureHasher  # takes a second: see `surface_baselines`

    hasher = FeatureHasher(BUCKETS, input_type="string", alternate_sign=False)
    return csr_array(hasher.transform([_grams(dataset, int(row)) for row in rows]))


def _grams(dataset: FeatureDataset, row: int) -> list[str]:
    begin = dataset.sequence_starts[dataset.row_sequence[row]]
    first, last = dataset.row_first[row], dataset.row_last[row]
    if POOLINGS[dataset.row_pooling[row]] is Pooling.TOKEN:
        return [f"{back}:{dataset.tokens[begin + first - back]}" for back in range(3) if first >= back]
    window = dataset.tokens[begin + first : begin + last].tolist()
    before = {f"<{t}" for t in dataset.tokens[begin : begin + first].tolist()}
    return sorted({str(t) for t in window} | {f"{a} {b}" for a, b in pairwise(window)} | before)


class TextOnly:
    """The n-gram classifiers of a dataset; the n-grams of a category are hashed once for all of its features."""

    def __init__(self, dataset: FeatureDataset) -> None:
        self.dataset = dataset
        self.category: str | None = None
        self.rows = np.array([], dtype=int)
        self.grams: csr_array | None = None

    def score(self, feature: int) -> tuple[Scored, float]:
        """Test scores of one feature's classifier and the threshold chosen on validation."""
        from sklearn.linear_model import LogisticRegression

        dataset = self.dataset
        self._read(dataset.categories[feature])
        rows = {split: dataset.rows_of(feature, split) for split in SPLITS}
        model = LogisticRegression(
            C=10.0, class_weight="balanced", solver="liblinear", dual=True, random_state=0, max_iter=10_000
        )
        model.fit(self._grams(rows[Split.TRAIN]), dataset.positive[rows[Split.TRAIN], feature])
        validation, test = (
            Scored(
                score=model.decision_function(self._grams(rows[split])), positive=dataset.positive[rows[split], feature]
            )
            for split in (Split.VALIDATION, Split.TEST)
        )
        return test, best_f1_threshold(validation)

    def _read(self, category: str) -> None:
        if category != self.category:
            members = [f for f, name in enumerate(self.dataset.categories) if name == category]
            self.rows = np.flatnonzero(self.dataset.eligible[:, members].any(axis=1))
            self.grams = ngram_features(self.dataset, self.rows)
            self.category = category

    def _grams(self, rows: np.ndarray) -> csr_array:
        assert self.grams is not None
        return self.grams[np.searchsorted(self.rows, rows)]
