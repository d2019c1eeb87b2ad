"""Leak-free splits: duplicates collapsed, groups kept together, labels balanced over the splits; with an account of it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.errors import InputError
from sparse_probing.records import SPLITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found and mended before splitting."""

    documents_read: int
    duplicates_removed: int
    """Documents whose text, ignoring white space and case, had been seen before with the same labels."""
    conflicts_removed: int
    """Documents that share their text with another one but not its labels; all copies are dropped."""
    groups: int
    leaked_by_random_split: int
    """Documents that a random 70/30 split of documents (seed 0) would have put on the other side of a member of their own
    group or a copy of themselves."""
    unused: int = 0
    """Documents that give no row: nothing left behind the skipped tokens, or no token of theirs was sampled."""


def text_key(text: str) -> str:
    """Same key for texts that differ only in case, white space or Unicode composition."""
    folded = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def remove_duplicates(labelled: LabelledText) -> tuple[LabelledText, Audit]:
    """One copy of each text; texts with contradicting labels are dropped entirely."""
    by_text: dict[str, list[Document]] = {}
    for document in labelled.documents:
        by_text.setdefault(text_key(document.text), []).append(document)
    kept: list[Document] = []
    conflicts = 0
    for copies in by_text.values():
        if any(dict(copy.labels) != dict(copies[0].labels) or copy.spans != copies[0].spans for copy in copies):
            conflicts += len(copies)
        else:
            kept.append(copies[0])
    audit = Audit(
        documents_read=len(labelled.documents),
        duplicates_removed=len(labelled.documents) - conflicts - len(kept),
        conflicts_removed=conflicts,
        groups=len({document.group for document in kept}),
        leaked_by_random_split=_leaked(labelled.documents),
    )
    return replace(labelled, documents=tuple(kept)), audit


def _leaked(documents: Sequence[Document]) -> int:
    is_test = np.random.default_rng(0).random(len(documents)) < 0.3
    sides: dict[tuple[str, str], set[bool]] = {}
    keys = [(("group", d.group), ("text", text_key(d.text))) for d in documents]
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
                f"{least} of each are needed in every split. Add labelled documents (or groups), or lower --min-rows."
            )
