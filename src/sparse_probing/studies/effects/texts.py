"""Texts on which interventions are measured: which sequences, which tokens are scored, which rows they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from sparse_probing.activations.effects import ScoredText
from sparse_probing.activations.extract import sequence_tokens
from sparse_probing.activations.replay import NOWHERE
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.errors import InputError
from sparse_probing.records import SPLITS, Split, task_rng

OTHERS = "none of them"
PREFERRED = (Split.TEST, Split.VALIDATION, Split.TRAIN)
"""Texts of the test split first. The others may follow: neurons were chosen by labels and activations, never by losses."""
MASKED_SHARE = 0.15
"""Share of tokens that a masked language model has to guess at a time (Devlin et al. 2019, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """What the language model predicts."""

    mask_id: int | None
    """Token that hides what a masked language model has to guess; null for a model that predicts the next token."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvidenceTexts:
    """Sequences with rows of both classes of one feature."""

    texts: list[ScoredText]
    row: Int[np.ndarray, " row"]
    """Number of each row in the dataset, by text."""
    row_text: Int[np.ndarray, " row"]
    positive: Bool[np.ndarray, " row"]
    group: Int[np.ndarray, " row"]
    """Document of each row; documents are resampled."""
    own_tokens: bool
    """Whether the tokens of a row are scored, instead of those predicted at its positions: where rows are the last words of
    their texts (facts), nothing is predicted at them. Of no meaning for a masked language model, which guesses the row's tokens."""

    def members(self, dataset: FeatureDataset, text: np.ndarray, position: np.ndarray) -> list[Int[np.ndarray, " _"]]:
        """For each row, the scored positions (as indices into `text` and `position`) that belong to it."""
        shift = int(self.own_tokens)
        begins = np.searchsorted(text, np.arange(len(self.texts) + 1))
        result = []
        for row, t in zip(self.row.tolist(), self.row_text.tolist(), strict=True):
            here = position[begins[t] : begins[t + 1]] + shift
            inside = (here >= dataset.row_first[row]) & (here < dataset.row_last[row])
            result.append(begins[t] + np.flatnonzero(inside))
        return result


def evidence_texts(
    dataset: FeatureDataset, feature: int, *, per_class: int, parts: Sequence[str], scoring: Scoring, seed: int
) -> EvidenceTexts:
    """Draw up to `per_class` sequences with positive rows of a feature and as many without.

    Documents are drawn once each before any of them comes again; sequences without positive rows are spread evenly over the
    parts of the data (other languages, other kinds of text).

    Args:
        dataset: rows and labels.
        feature: which one.
        per_class: sequences of each class, at most.
        parts: from `parts_of`, one per row of the dataset.
        scoring: what the language model predicts.
        seed: of the draw and of masks.

    Raises:
        InputError: a class without text.
    """
    eligible = dataset.rows_of(feature)
    positive = dataset.positive[eligible, feature]
    if positive.all() or not positive.any():
        name, which = dataset.features[feature], "out of" if positive.all() else "in"
        raise InputError(f"feature {name!r} has no text {which} class: an effect needs texts of both.")
    rng = task_rng(seed, "texts", dataset.categories[feature], dataset.features[feature])
    sequences, first = np.unique(dataset.row_sequence[eligible], return_index=True)
    inside = np.isin(sequences, dataset.row_sequence[eligible[positive]])
    spread = np.where(inside, "in class", np.array(parts, dtype=object)[eligible[first]])
    chosen = [
        _drawn(dataset, sequences[mask], eligible[first][mask], spread[mask], per_class, rng)
        for mask in (inside, ~inside)
        if mask.any()
    ]
    kept = eligible[np.isin(dataset.row_sequence[eligible], np.concatenate(chosen))]
    made = _texts(dataset, kept, dataset.positive[kept, feature], scoring, seed)
    _check_scored(dataset, made, dataset.features[feature])
    return made


def _check_scored(dataset: FeatureDataset, made: EvidenceTexts, name: str) -> None:
    at = [np.flatnonzero(text.targets != NOWHERE) for text in made.texts]
    text = np.repeat(np.arange(len(at)), [len(places) for places in at])
    tokens = np.array([len(m) for m in made.members(dataset, text, np.concatenate(at))])
    for mask, which in ((made.positive, "in"), (~made.positive, "out of")):
        if not tokens[mask].any():
            raise InputError(
                f"feature {name!r} has no token {which} class at which the model predicts another: no loss."
            )


def category_texts(
    dataset: FeatureDataset, category: str, *, per_part: int, scoring: Scoring, seed: int
) -> tuple[EvidenceTexts, dict[str, Bool[np.ndarray, " row"]]]:
    """Up to `per_part` sequences for each feature of a category, and for rows that carry none.

    Returns:
        The texts, and for each feature (and "none of them") which of their rows carry it.
    """
    features = [f for f, c in enumerate(dataset.categories) if c == category]
    carried = {dataset.features[f]: dataset.positive[:, f] & dataset.eligible[:, f] for f in features}
    known = dataset.eligible[:, features].any(axis=1)
    carried[OTHERS] = known & ~np.any(list(carried.values()), axis=0)
    chosen = []
    for name, mask in carried.items():
        rows = np.flatnonzero(mask)
        sequences, first = np.unique(dataset.row_sequence[rows], return_index=True)
        rng = task_rng(seed, "texts", category, name)
        chosen.append(_drawn(dataset, sequences, rows[first], np.full(len(first), name, dtype=object), per_part, rng))
    rows = np.flatnonzero(known & np.isin(dataset.row_sequence, np.concatenate(chosen)))
    made = _texts(dataset, rows, ~carried[OTHERS][rows], scoring, seed)
    return made, {name: mask[rows] for name, mask in carried.items() if mask[rows].any()}


def parts_of(dataset: FeatureDataset, category: str) -> list[str]:
    """Part of the data that each row belongs to: the feature that it carries (its language, its kind of text).

    Where rows may carry several features of the category there are no parts: all rows are "none of them".
    """
    features = [f for f, c in enumerate(dataset.categories) if c == category]
    positive = dataset.positive[:, features] & dataset.eligible[:, features]
    if (positive.sum(axis=1) > 1).any():
        return [OTHERS] * dataset.n_rows
    names = np.array([*(dataset.features[f] for f in features), OTHERS], dtype=object)
    return names[np.where(positive.any(axis=1), positive.argmax(axis=1), len(features))].tolist()


def category_groups(
    dataset: FeatureDataset, feature: int, rows: Int[np.ndarray, " row"]
) -> tuple[Int[np.ndarray, " row"], tuple[str, ...]]:
    """Rows by the feature of the category that they carry (each language a group), where no row carries two.

    Returns:
        Group of each row, and the groups' names; no names where the features of the category overlap, or are fewer than three.
    """
    category = dataset.categories[feature]
    of_row = parts_of(dataset, category)
    parts = [of_row[row] for row in rows.tolist()]
    members = [name for name, of in zip(dataset.features, dataset.categories, strict=True) if of == category]
    if len(members) < 3 or set(parts) <= {OTHERS}:
        return np.zeros(len(rows), dtype=np.int64), ()
    names = (*members, OTHERS) if OTHERS in parts else tuple(members)
    return np.array([names.index(part) for part in parts]), names


def _drawn(
    dataset: FeatureDataset,
    sequences: np.ndarray,
    first_row: np.ndarray,
    parts: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Sequences, in turn over the parts; each time one whose document was used least, then by split, then by chance."""
    split = np.array([PREFERRED.index(SPLITS[s]) for s in dataset.row_split[first_row].tolist()])
    group, chance = dataset.row_group[first_row], rng.permutation(len(sequences))
    used: dict[int, int] = {}
    waiting = {part: np.flatnonzero(parts == part).tolist() for part in dict.fromkeys(parts.tolist())}
    chosen: list[int] = []
    while len(chosen) < count and any(waiting.values()):
        for left in waiting.values():
            if left and len(chosen) < count:
                best = min(left, key=lambda i: (used.get(int(group[i]), 0), split[i], chance[i]))
                left.remove(best)
                chosen.append(best)
                used[int(group[best])] = used.get(int(group[best]), 0) + 1
    return sequences[chosen]


def _texts(
    dataset: FeatureDataset, rows: np.ndarray, positive: np.ndarray, scoring: Scoring, seed: int
) -> EvidenceTexts:
    sequences, row_text = np.unique(dataset.row_sequence[rows], return_inverse=True)
    own = scoring.mask_id is None and _at_the_end(dataset, rows)
    texts = [
        _scored(dataset, rows[row_text == text], sequence, scoring, seed, own_tokens=own)
        for text, sequence in enumerate(sequences.tolist())
    ]
    return EvidenceTexts(
        texts=texts, row=rows, row_text=row_text, positive=positive, group=dataset.row_group[rows], own_tokens=own
    )


def _at_the_end(dataset: FeatureDataset, rows: np.ndarray) -> bool:
    """Whether most rows are short and end with the text, so that there is hardly a token left to be predicted at them."""
    ends = dataset.sequence_starts[dataset.row_sequence[rows] + 1]
    last = dataset.sequence_starts[dataset.row_sequence[rows]] + dataset.row_last[rows]
    closed = np.array([bool((dataset.char_starts[a:b] < 0).all()) for a, b in zip(last, ends, strict=True)])
    short = dataset.row_last[rows] - dataset.row_first[rows] <= 8
    return bool((closed & short).mean() > 0.5)


def _scored(
    dataset: FeatureDataset, rows: np.ndarray, sequence: int, scoring: Scoring, seed: int, *, own_tokens: bool
) -> ScoredText:
    tokens = sequence_tokens(dataset, sequence).astype(np.int64)
    begin = int(dataset.sequence_starts[sequence])
    special = dataset.char_starts[begin : begin + len(tokens)] < 0
    labelled = np.zeros(len(tokens), dtype=bool)
    for row in rows.tolist():
        labelled[dataset.row_first[row] : dataset.row_last[row]] = True
    targets = np.full(len(tokens), NOWHERE, dtype=np.int64)
    if scoring.mask_id is not None:
        wanted = np.flatnonzero(labelled & ~special)
        rng = task_rng(seed, "mask", sequence)
        count = min(len(wanted), max(1, round(MASKED_SHARE * len(wanted))))
        drawn = np.sort(rng.choice(wanted, size=count, replace=False))
        targets[drawn] = tokens[drawn]
        tokens[drawn] = scoring.mask_id
    else:
        at = np.flatnonzero((labelled[1:] if own_tokens else labelled[:-1]) & ~special[1:])
        targets[at] = tokens[at + 1]
        labelled[at] = True  # a row's own tokens are predicted from the position in front of each
    return ScoredText(tokens=tokens, targets=targets, number=sequence, labelled=labelled)
