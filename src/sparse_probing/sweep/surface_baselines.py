"""What the surface of a row gives: its tokens, how it ends, where it stands. Same rows and split as the probes, no model."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.scores import Scored, best_f1_threshold
from sparse_probing.records import POOLINGS, Pooling, Split

PSEUDO_COUNT = 1.0
"""Tokens of average class share that every token id is given in addition to what was seen."""
TOKENS_AT_ONCE = 4_000_000
"""Window tokens that are gathered at once, to bound memory."""
END_BUCKETS = 2**16
"""Columns that last tokens and final characters are hashed to."""


class TokenIdentity:
    """How often each token id goes with the class in training rows.

    A single-token row scores the log-odds of its token, a pooled row the mean log-odds over the tokens of its window, as a naive
    Bayes classifier that ignores length does.
    """

    def __init__(self, dataset: FeatureDataset) -> None:
        self.dataset = dataset
        self._ids = int(dataset.tokens.max()) + 1

    def score(self, feature: int) -> tuple[Scored, float]:
        """Test scores of one feature and the threshold chosen on validation.

        Raises:
            ValueError: training rows of one class only.
        """
        log_odds = self._log_odds(feature)
        return _test_and_threshold(self.dataset, feature, lambda rows: token_means(self.dataset, rows, log_odds))

    def _log_odds(self, feature: int) -> Float[np.ndarray, " id"]:
        """Log-odds of the class given the token, relative to the class share: 0 for a token that training rows never show."""
        rows = self.dataset.rows_of(feature, Split.TRAIN)
        labels = self.dataset.positive[rows, feature]
        if labels.all() or not labels.any():
            raise ValueError(f"training rows of {self.dataset.features[feature]!r} are all of one class")
        inside, outside = self._count(rows[labels]), self._count(rows[~labels])
        share = inside.sum() / (inside.sum() + outside.sum())
        odds = (inside + PSEUDO_COUNT * share) / (outside + PSEUDO_COUNT * (1 - share))
        return np.log(odds) - np.log(share / (1 - share))

    def _count(self, rows: np.ndarray) -> Float[np.ndarray, " id"]:
        total = np.zeros(self._ids)
        for tokens, _ in row_windows(self.dataset, rows):
            total += np.bincount(tokens, minlength=self._ids)
        return total


class LastToken:
    """Logistic regression on the last token of a pooled row and the character that it ends on: final punctuation, say.

    A class of texts that end on a question mark needs no model to be told from the others, and no neuron that means anything.
    The token and the character are one-hot columns, classes are balanced, the penalty is scikit-learn's L2 with C = 1.
    """

    def __init__(self, dataset: FeatureDataset) -> None:
        self.dataset = dataset
        self._pooled = dataset.row_pooling != POOLINGS.index(Pooling.TOKEN)

    def score(self, feature: int) -> tuple[Scored, float] | None:
        """Test scores of one feature and the threshold chosen on validation; null where its rows are single tokens, which
        `TokenIdentity` reads.

        Raises:
            ValueError: training rows of one class only.
        """
        rows = self.dataset.rows_of(feature, Split.TRAIN)
        if not self._pooled[self.dataset.rows_of(feature)].all():
            return None
        from sklearn.linear_model import (
            LogisticRegression,  # takes a second, and whoever reads the thresholds fits nothing
        )

        model = LogisticRegression(class_weight="balanced", max_iter=10_000)
        model.fit(row_ends(self.dataset, rows), self.dataset.positive[rows, feature])
        return _test_and_threshold(
            self.dataset, feature, lambda rows: model.decision_function(row_ends(self.dataset, rows))
        )


def row_ends(dataset: FeatureDataset, rows: Int[np.ndarray, " row"]) -> csr_array:
    """One hashed row each: the last token, and the last character that is no blank (letters and digits by their kind)."""
    from sklearn.feature_extraction import FeatureHasher

    at = dataset.sequence_starts[dataset.row_sequence[rows]] + dataset.row_last[rows] - 1
    documents = dataset.sequence_document[dataset.row_sequence[rows]]
    ends = zip(
        dataset.tokens[at].tolist(),
        documents.tolist(),
        dataset.char_starts[at].tolist(),
        dataset.char_ends[at].tolist(),
        strict=True,
    )
    hasher = FeatureHasher(END_BUCKETS, input_type="string", alternate_sign=False)
    named = ([f"token {token}", f"end {_kind(dataset.texts[d][start:end])}"] for token, d, start, end in ends)
    return csr_array(hasher.transform(named))


def _kind(piece: str) -> str:
    """The last character of a piece of text: itself where it is punctuation or a symbol, else its Unicode category."""
    last = piece.rstrip()[-1:]
    category = unicodedata.category(last) if last else "blank"
    return last if category[0] in "PS" else category


class PositionAndLength:
    """Logistic regression on position of the row's first token, tokens in the row, tokens in its sequence, and their logarithms.

    Columns are standardised with training rows, classes are balanced, the penalty is scikit-learn's L2 with C = 1.
    """

    def __init__(self, dataset: FeatureDataset) -> None:
        self.dataset = dataset
        first, inside = dataset.row_first, dataset.row_last - dataset.row_first
        raw = np.stack([first, inside, dataset.sequence_lengths()[dataset.row_sequence]], axis=1).astype(np.float64)
        # log(1 + x): the first position is 0
        self.columns: Float[np.ndarray, "row column"] = np.concatenate([raw, np.log1p(raw)], axis=1)

    def score(self, feature: int) -> tuple[Scored, float]:
        """Test scores of one feature and the threshold chosen on validation.

        Raises:
            ValueError: training rows of one class only.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        rows = self.dataset.rows_of(feature, Split.TRAIN)
        # the scaler leaves a constant column at 0: single tokens all have length 1, pooled rows all begin behind the skipped ones
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=10_000))
        model.fit(self.columns[rows], self.dataset.positive[rows, feature])
        return _test_and_threshold(self.dataset, feature, lambda rows: model.decision_function(self.columns[rows]))


def _test_and_threshold(
    dataset: FeatureDataset, feature: int, score: Callable[[np.ndarray], np.ndarray]
) -> tuple[Scored, float]:
    test, validation = (
        Scored(score=score(rows), positive=dataset.positive[rows, feature])
        for rows in (dataset.rows_of(feature, split) for split in (Split.TEST, Split.VALIDATION))
    )
    return test, best_f1_threshold(validation)


def token_means(
    dataset: FeatureDataset, rows: Int[np.ndarray, " row"], values: Float[np.ndarray, " id"]
) -> Float[np.ndarray, " row"]:
    """Mean of a value per token id over the tokens of each row."""
    sums = [np.add.reduceat(values[tokens], begins) for tokens, begins in row_windows(dataset, rows)]
    return np.concatenate([np.zeros(0), *sums]) / (dataset.row_last[rows] - dataset.row_first[rows])


def row_windows(
    dataset: FeatureDataset, rows: np.ndarray
) -> Iterator[tuple[Int[np.ndarray, " token"], Int[np.ndarray, " row"]]]:
    """The tokens of rows, end to end, and where each row begins among them; several blocks of rows where tokens are many."""
    lengths = dataset.row_last[rows] - dataset.row_first[rows]
    starts = dataset.sequence_starts[dataset.row_sequence[rows]] + dataset.row_first[rows]
    block = np.cumsum(lengths) // TOKENS_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(block)) + 1), len(rows)]
    for low, high in pairwise(cuts):
        if low < high:
            begins = np.cumsum(lengths[low:high]) - lengths[low:high]
            at = np.repeat(starts[low:high] - begins, lengths[low:high]) + np.arange(lengths[low:high].sum())
            yield dataset.tokens[at], begins
