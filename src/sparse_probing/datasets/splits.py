"""Train, validation, test: by group, balanced over features; or as the source says; or at random, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.errors import InputError
from sparse_probing.records import SPLITS, Split


def split_rows(
    dataset: FeatureDataset, given: Sequence[Split | None], rules: SamplingRules, rng: np.random.Generator
) -> Int[np.ndarray, " row"]:
    """Index into `SPLITS` of each row.

    Args:
        dataset: the rows, not yet split.
        given: split that the source prescribes for each row; used when every row has one. Where it knows no validation split,
            groups of its training split become one.
        rules: which way to split, and the shares.
        rng: breaks ties, or draws rows.

    Raises:
        InputError: the source prescribes a split, and no row is in its training or its test split.
    """
    if rules.split_by == "given" and all(split is not None for split in given):
        split = np.array([SPLITS.index(split) for split in given if split is not None], dtype=int)
        _check_prescribed(dataset, split)
        if not (split == SPLITS.index(Split.VALIDATION)).any():  # many data sets have train and test only
            train = split == SPLITS.index(Split.TRAIN)
            whole = rules.fractions[0] + rules.fractions[1]
            shares = (rules.fractions[0] / whole, rules.fractions[1] / whole, 0.0)
            split[train] = _by_group(dataset, train, shares, rng)
        return split
    if rules.split_by == "row":
        n = dataset.n_rows
        test, validation = ceil(rules.fractions[2] * n), round(rules.fractions[1] * n)
        split = np.zeros(n, dtype=int)
        order = rng.permutation(n)
        split[order[:test]], split[order[test : test + validation]] = 2, 1
        return split
    return _by_group(dataset, np.ones(dataset.n_rows, dtype=bool), rules.fractions, rng)


def _check_prescribed(dataset: FeatureDataset, split: Int[np.ndarray, " row"]) -> None:
    present = [s.value for i, s in enumerate(SPLITS) if (split == i).any()]
    missing = [s.value for s in (Split.TRAIN, Split.TEST) if s.value not in present]
    if present and missing:
        category = (*dataset.categories, *(target.category for target in dataset.targets))[0]
        raise InputError(
            f"the data of {category} has rows in the {' and '.join(present)} split only, by the names of its files or a column of "
            f"its own, and none in the {' and the '.join(missing)} split: add the files or rows that are missing, or draw a new "
            "split with --split-by group."
        )


def _by_group(
    dataset: FeatureDataset,
    rows: Bool[np.ndarray, " row"],
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
) -> Int[np.ndarray, " chosen"]:
    """Split of the chosen rows; no group of them in two splits."""
    if not rows.any():
        return np.zeros(0, dtype=int)
    positive, eligible = dataset.positive[rows], dataset.eligible[rows]
    classes = np.concatenate([positive & eligible, ~positive & eligible], axis=1)
    if dataset.targets:  # numbers have no classes: balance the rows that have one
        has_number = np.stack([~np.isnan(target.values[rows]) for target in dataset.targets], axis=1)
        classes = np.concatenate([classes, has_number], axis=1)
    group = np.unique(dataset.row_group[rows], return_inverse=True)[1]
    counts = np.zeros((group.max() + 1, classes.shape[1]))
    np.add.at(counts, group, classes.astype(float))
    return split_groups(counts, fractions, rng)[group]


def split_groups(
    counts: Float[np.ndarray, "group class"],
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
) -> Int[np.ndarray, " group"]:
    """Assign groups to train / validation / test so that every class keeps the wanted fractions.

    Iterative stratification (Sechidis et al. 2011) on group totals: the class with the fewest remaining members goes
    first; each of its groups, largest first, goes to the split that still lacks most of that class. Cost O(group * class).

    Args:
        counts: members of each class in each group. Include a column of sizes to balance the size as well.
        fractions: wanted shares, summing to 1.
        rng: breaks ties, so that equal groups are assigned at random.

    Returns:
        Index into `SPLITS` for each group.
    """
    remaining = counts.sum(axis=0)[None, :] * np.array(fractions)[:, None]  # [split, class] members still wanted
    split = np.full(len(counts), -1)
    order = rng.permutation(len(counts))
    left = counts.sum(axis=0).astype(float)
    while (split < 0).any():
        open_groups = order[split[order] < 0]
        candidates = np.flatnonzero(left > 0)
        column = candidates[np.argmin(left[candidates])] if len(candidates) else -1
        members = open_groups if column < 0 else open_groups[counts[open_groups, column] > 0]
        if len(members) == 0:  # rounding left an empty class
            left[column] = 0
            continue
        for group in (
            sorted(members, key=lambda g: -counts[g].max())
            if column < 0
            else members[np.argsort(-counts[members, column], kind="stable")]
        ):
            lack = remaining[:, column] if column >= 0 else remaining.sum(axis=1)
            split[group] = int(np.lexsort((-remaining.sum(axis=1), -lack))[0])
            remaining[split[group]] -= counts[group]
            left -= counts[group]
    return split


def enough_rows(dataset: FeatureDataset, least: int) -> tuple[list[int], list[int], tuple[str, ...]]:
    """Features and targets that have enough rows in every split, and a sentence for each of the others.

    Raises:
        InputError: there is none left; the sentence names the first feature, the split and the counts.
    """
    features, said = [], []
    for f, name in enumerate(dataset.features):
        short = [
            (s.value, p, n) for s, (p, n) in zip(SPLITS, dataset.counts(f).values(), strict=True) if min(p, n) < least
        ]
        if short:
            split, p, n = short[0]
            said.append(f"feature {name!r} has {p} positive and {n} negative rows in the {split} split")
        else:
            features.append(f)
    targets = []
    for t, target in enumerate(dataset.targets):
        parts = [target.values[(dataset.row_split == s) & ~np.isnan(target.values)] for s in range(len(SPLITS))]
        counts = [len(part) for part in parts]
        constant = [split.value for split, part in zip(SPLITS, parts, strict=True) if len(np.unique(part)) == 1]
        if min(counts) < 2 * least:
            split = SPLITS[int(np.argmin(counts))].value
            said.append(
                f"number {target.name!r} has {min(counts)} rows in the {split} split, which counts as {min(counts) // 2} of "
                "each class"
            )
        elif constant:
            said.append(
                f"number {target.name!r} is the same in all rows of the {constant[0]} split, which counts as one class"
            )
        else:
            targets.append(t)
    if not (features or targets):
        usable = dataset.eligible.any(axis=1)
        empty = [s.value for i, s in enumerate(SPLITS) if not (usable & (dataset.row_split == i)).any()]
        way_out = f" No labelled row is in the {empty[0]} split: --split-by group draws a new split." if empty else ""
        category = dataset.categories[0] if dataset.categories else dataset.targets[0].category
        raise InputError(
            f"{said[0]} ({category}); at least {least} of each are needed in every split. "
            f"Add labelled documents (or groups; near duplicates count as one group), or lower --min-rows.{way_out}"
        )
    return features, targets, tuple(f"{text}; at least {least} are needed: left out." for text in said)
