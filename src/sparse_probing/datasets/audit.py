"""Leak-free splits: duplicates collapsed, groups and near duplicates kept together, labels balanced; with an account of it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import DisjointSet

from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.near_duplicates import near_duplicate_clusters
from sparse_probing.errors import InputError
from sparse_probing.records import SPLITS, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found and mended before splitting."""

    documents_read: int
    duplicates_removed: int
    """Documents whose text, ignoring white space and case, had been seen before with the same labels."""
    conflicts_removed: int
    """Documents that share their text with another one but not its labels; all copies are dropped."""
    near_duplicates: int
    """Documents kept that have a near duplicate under another group name (directly or through a chain of near duplicates);
    such groups are merged."""
    near_duplicates_across_splits: int = 0
    """Documents kept whose near duplicate lies in another split that the source prescribes; prescribed splits stay."""
    groups: int
    """After merging."""
    leaked_by_random_split: int
    """Documents that a random 70/30 split of documents (seed 0) would have put on the other side of a member of their own
    group, a copy of themselves or a near duplicate."""
    unused: int = 0
    """Documents that give no row: nothing left behind the skipped tokens, or no token of theirs was sampled."""


def text_key(text: str) -> str:
    """Same key for texts that differ only in case, white space or Unicode composition."""
    folded = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def remove_duplicates(labelled: LabelledText) -> tuple[LabelledText, Audit]:
    """One copy of each text; texts with contradicting labels are dropped entirely; groups of near duplicates become one.

    Where the source prescribes splits, near duplicates in different splits stay in different groups, and are counted.
    """
    keys = [text_key(document.text) for document in labelled.documents]
    by_text: dict[str, list[Document]] = {}
    for key, document in zip(keys, labelled.documents, strict=True):
        by_text.setdefault(key, []).append(document)
    clusters = near_duplicate_clusters([copies[0].text for copies in by_text.values()]).tolist()
    cluster_of = dict(zip(by_text, clusters, strict=True))
    kept: list[tuple[int, Document]] = []
    conflicts = 0
    for key, copies in by_text.items():
        if any(dict(copy.labels) != dict(copies[0].labels) or copy.spans != copies[0].spans for copy in copies):
            conflicts += len(copies)
        else:
            kept.append((cluster_of[key], copies[0]))
    merged, group_names, splits = _merge_groups(kept, prescribed=prescribes_splits([document for _, document in kept]))
    audit = Audit(
        documents_read=len(labelled.documents),
        duplicates_removed=len(labelled.documents) - conflicts - len(kept),
        conflicts_removed=conflicts,
        near_duplicates=sum(len(group_names[cluster]) > 1 for cluster, _ in kept),
        near_duplicates_across_splits=sum(len(splits[cluster]) > 1 for cluster, _ in kept),
        groups=len({document.group for document in merged}),
        leaked_by_random_split=_leaked(labelled.documents, [cluster_of[key] for key in keys]),
    )
    return replace(labelled, documents=tuple(merged)), audit


def prescribes_splits(documents: Sequence[Document]) -> bool:
    """Whether every document comes with its split; else the builder splits."""
    return all(document.split is not None for document in documents)


def _merge_groups(
    kept: Sequence[tuple[int, Document]], *, prescribed: bool
) -> tuple[list[Document], dict[int, set[str]], dict[int, set[Split | None]]]:
    """Documents under their merged group's name; the former group names and the prescribed splits of each cluster."""
    joined = DisjointSet(document.group for _, document in kept)
    first: dict[tuple[int, Split | None], str] = {}
    groups: dict[int, set[str]] = {}
    splits: dict[int, set[Split | None]] = {}
    for cluster, document in kept:
        split = document.split if prescribed else None
        joined.merge(first.setdefault((cluster, split), document.group), document.group)
        groups.setdefault(cluster, set()).add(document.group)
        splits.setdefault(cluster, set()).add(split)
    return [replace(document, group=joined[document.group]) for _, document in kept], groups, splits


def _leaked(documents: Sequence[Document], clusters: Sequence[int]) -> int:
    is_test = np.random.default_rng(0).random(len(documents)) < 0.3
    sides: dict[tuple[str, str | int], set[bool]] = {}
    keys = [(("group", d.group), ("cluster", cluster)) for d, cluster in zip(documents, clusters, strict=True)]
    for pair, side in zip(keys, is_test, strict=True):
        for key in pair:
            sides.setdefault(key, set()).add(bool(side))
    return sum(any(len(sides[key]) == 2 for key in pair) for pair in keys)


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


def check_split(category: str, feature: str, positives: Sequence[int], negatives: Sequence[int], least: int) -> None:
    """Every split needs enough rows of both classes.

    Raises:
        InputError: naming the feature, the split and the counts.
    """
    for name, p, n in zip(SPLITS, positives, negatives, strict=True):
        if min(p, n) < least:
            raise InputError(
                f"feature {feature!r} ({category}) has {p} positive and {n} negative rows in the {name} split; at least "
                f"{least} of each are needed in every split. Add labelled documents (or groups; near duplicates count as one "
                "group), or lower --min-rows."
            )
