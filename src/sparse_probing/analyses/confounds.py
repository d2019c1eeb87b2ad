"""What tells a class without the feature: length, position, words; and when that is worth a warning."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.records import Split
from sparse_probing.sweep.surface_baselines import PositionAndLength
from sparse_probing.sweep.text_baseline import TextOnly

ALONE_AUC = 0.7
"""Length or position alone warn from this ROC AUC on, reached on training and on test rows: one of the two is luck too often
where rows are few."""
WORDS = 0.95
"""The n-gram classifier warns when its F1 and its ROC AUC reach this: F1 alone is as high for always yes at a share of 0.91."""
FEW = 30
"""Test rows of a class below which a score says little: with 30 the standard error of a recall of 0.5 is 0.09."""

SAID = {
    ("text_length", "larger"): "Texts with the class are longer",
    ("text_length", "smaller"): "Texts with the class are shorter",
    ("row_length", "larger"): "Rows of the class have more tokens",
    ("row_length", "smaller"): "Rows of the class have fewer tokens",
    ("position", "larger"): "Rows of the class stand later in their text",
    ("position", "smaller"): "Rows of the class stand earlier in their text",
}
MEASURES = ("text_length", "row_length", "position")


def measures(dataset: FeatureDataset) -> dict[str, Int[np.ndarray, " row"]]:
    """Surface numbers of each row, those that vary.

    `text_length`: tokens of the row's sequence, special tokens included, so at most a window. `row_length`: tokens of the row;
    left out where it follows from the text length (rows that are whole windows). `position`: of the row's first token.
    """
    row, text = dataset.row_last - dataset.row_first, dataset.sequence_lengths()[dataset.row_sequence]
    found = {"text_length": text, "row_length": row, "position": dataset.row_first}
    if np.ptp(text - row) == 0:
        del found["row_length"]
    return {name: values for name, values in found.items() if np.ptp(values) > 0}


class Confounds:
    """Scores of a data set's surface; what features share is computed once."""

    def __init__(self, dataset: FeatureDataset, *, text_only: bool) -> None:
        self.dataset = dataset
        self.measures = measures(dataset)
        self.position_and_length = PositionAndLength(dataset)
        self.text_only = TextOnly(dataset) if text_only else None

    def of(self, feature: int) -> dict[str, Any]:
        """Each measure with its ROC AUC, and two classifiers with F1 and ROC AUC, on test rows.

        Null: a measure that does not vary, a classifier that was not asked for, or a split that lacks a class.
        """
        if any(min(counts) == 0 for counts in self.dataset.counts(feature).values()):
            return dict.fromkeys((*MEASURES, "position_and_length", "text_only"))
        result: dict[str, Any] = {
            name: self._alone(self.measures[name], feature) if name in self.measures else None for name in MEASURES
        }
        result["position_and_length"] = _scores(*self.position_and_length.score(feature))
        result["text_only"] = None if self.text_only is None else _scores(*self.text_only.score(feature))
        return result

    def _alone(self, values: Int[np.ndarray, " row"], feature: int) -> dict[str, Any]:
        """ROC AUC of a number as it is, in the direction that training rows show."""
        train, test = (self._auc(values, feature, split) for split in (Split.TRAIN, Split.TEST))
        larger = train >= 0.5
        return {
            "direction": "larger" if larger else "smaller",
            "roc_auc": test if larger else 1 - test,
            "train_roc_auc": train if larger else 1 - train,
        }

    def _auc(self, values: Int[np.ndarray, " row"], feature: int, split: Split) -> float:
        rows = self.dataset.rows_of(feature, split)
        scored = Scored(score=values[rows].astype(np.float64), positive=self.dataset.positive[rows, feature])
        return metrics_at(scored, 0.0)["roc_auc"]


def _scores(test: Scored, threshold: float) -> dict[str, float]:
    found = metrics_at(test, threshold)
    return {"f1": found["f1"], "roc_auc": found["roc_auc"]}


def warnings_of(feature: dict[str, Any]) -> list[dict[str, str]]:
    """What a reader must know before believing a score.

    Args:
        feature: a feature's record in a data sheet, with `splits` and `confounds`.

    Returns:
        `kind` (`few rows`, `length`, `position`, `words`) and `text`, a sentence.
    """
    said = []
    test, confounds = feature["splits"][Split.TEST.value], feature["confounds"]
    rarer = min("positive", "negative", key=test.__getitem__)
    if test[rarer] < FEW:
        said.append(("few rows", f"Only {test[rarer]} {rarer} test rows: scores vary by chance."))
    alone = []
    for name in MEASURES:
        found = confounds[name]
        if found is not None and min(found["roc_auc"], found["train_roc_auc"]) >= ALONE_AUC:
            kind = "position" if name == "position" else "length"
            auc = f"(ROC AUC {found['roc_auc']:.2f} by this number alone)"
            alone.append((kind, f"{SAID[name, found['direction']]} {auc}: a probe may read {kind}."))
    together = confounds["position_and_length"]
    if not alone and together is not None and together["roc_auc"] >= ALONE_AUC:
        auc = f"(ROC AUC {together['roc_auc']:.2f})"
        alone.append(("length", f"Position and length together tell the class {auc}: a probe may read them."))
    words = confounds["text_only"]
    if words is not None and min(words["f1"], words["roc_auc"]) >= WORDS:
        alone.append(("words", f"Words alone tell the class (n-grams, no model: F1 {words['f1']:.2f})."))
    return [{"kind": kind, "text": text} for kind, text in said + alone]
