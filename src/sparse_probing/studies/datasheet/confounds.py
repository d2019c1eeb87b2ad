"""What tells a class without the feature: length, position, words; and when that is worth a warning."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.metrics.scores import Scored, metrics_at
from sparse_probing.records import Split
from sparse_probing.results.verdict import DEDICATED_F1, found
from sparse_probing.sweep.surface_baselines import LastToken, PositionAndLength, TokenIdentity
from sparse_probing.sweep.text_baseline import TextOnly

ALONE_AUC = 0.7
"""Length or position alone warn from this ROC AUC on, reached on training and on test rows: one of the two is luck too often
where rows are few."""
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
CLASSIFIERS = ("position_and_length", "token_identity", "last_token", "text_only")
TEXT = {
    "text_only": ("words", "Words alone", "n-grams"),
    "token_identity": ("words", "Single tokens alone", "class share per token"),
    "last_token": ("last token", "The last token or final punctuation alone", "a classifier on these two"),
}
"""Baselines that read the text: kind of warning, subject, what was fitted."""


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
        self.classifiers = {"position_and_length": PositionAndLength(dataset).score}
        if text_only:
            self.classifiers |= {
                "token_identity": TokenIdentity(dataset).score,
                "last_token": LastToken(dataset).score,
                "text_only": TextOnly(dataset).score,
            }

    def of(self, feature: int) -> dict[str, Any]:
        """Each measure with its ROC AUC, and each classifier with F1 and ROC AUC, on test rows.

        Null: a measure that does not vary, a classifier that was not asked for or does not apply, or a split that lacks a class.
        """
        if any(min(counts) == 0 for counts in self.dataset.counts(feature).values()):
            return dict.fromkeys((*MEASURES, *CLASSIFIERS))
        result: dict[str, Any] = {
            name: self._alone(self.measures[name], feature) if name in self.measures else None for name in MEASURES
        }
        for name in CLASSIFIERS:
            scored = self.classifiers[name](feature) if name in self.classifiers else None
            result[name] = None if scored is None else _scores(*scored)
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
    scores = metrics_at(test, threshold)
    return {"f1": scores["f1"], "roc_auc": scores["roc_auc"]}


def warnings_of(feature: dict[str, Any]) -> list[dict[str, str]]:
    """What a reader must know before believing a score.

    The text alone is warned of by the rule that the verdict has for probes (`verdict.found`): wherever a verdict can be *readable
    from the text alone*, the audit has said so.

    Args:
        feature: a feature's record in a data sheet, with `splits`, `always_yes_f1` and `confounds`.

    Returns:
        `kind` (`few rows`, `length`, `position`, `words`, `last token`) and `text`, a sentence.
    """
    said = []
    test, confounds = feature["splits"][Split.TEST.value], feature["confounds"]
    rarer = min("positive", "negative", key=test.__getitem__)
    if test[rarer] < FEW:
        said.append(("few rows", f"Only {test[rarer]} {rarer} test rows: scores vary by chance."))
    alone = []
    for name in MEASURES:
        measure = confounds[name]
        if measure is not None and min(measure["roc_auc"], measure["train_roc_auc"]) >= ALONE_AUC:
            kind = "position" if name == "position" else "length"
            auc = f"(ROC AUC {measure['roc_auc']:.2f} by this number alone)"
            alone.append((kind, f"{SAID[name, measure['direction']]} {auc}: a probe may read {kind}."))
    together = confounds["position_and_length"]
    if not alone and together is not None and together["roc_auc"] >= ALONE_AUC:
        auc = f"(ROC AUC {together['roc_auc']:.2f})"
        alone.append(("length", f"Position and length together tell the class {auc}: a probe may read them."))
    for name, (kind, subject, fitted) in TEXT.items():
        scores = confounds.get(name)  # data sheets of earlier versions lack the last token
        if scores is not None and found(scores["f1"], feature["always_yes_f1"]):
            much = "" if scores["f1"] >= DEDICATED_F1 else " in part"
            figures = f"F1 {scores['f1']:.2f}, ROC AUC {scores['roc_auc']:.2f}"
            alone.append((kind, f"{subject} can tell the class{much} ({fitted}, no model: {figures})."))
    return [{"kind": kind, "text": text} for kind, text in said + alone]
