"""Leak-free splits: duplicates collapsed, groups and near duplicates kept together, labels balanced; with an account of it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparse_probing.datasets.disjoint_sets import DisjointSets
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.near_duplicates import near_duplicate_clusters
from sparse_probing.records import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found and mended before splitting."""

    documents_read: int
    duplicates_removed: int
    """Documents whose text, ignoring white space and case, had been seen before with the same labels."""
    conflicts_removed: int
    """Documents that share their text with another one but not its labels; all copies are dropped."""
    near_duplicates: int | None
    """Documents kept that have a near duplicate under another group name (directly or through a chain of near duplicates);
    such groups are merged. Null where texts come from templates and it was not looked for."""
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


def remove_duplicates(labelled: LabelledText, *, prescribed: bool | None = None) -> tuple[LabelledText, Audit]:
    """One copy of each text; texts with contradicting labels are dropped entirely; groups that share a text, or near duplicates,
    become one.

    Args:
        labelled: documents. Where `LabelledText.near_duplicates` is `count`, near duplicates do not join groups; where it is
            `by_design`, they are not looked for. A label that a copy lacks is no contradiction: copies complete each other.
        prescribed: whether the source's own split will be kept: copies and near duplicates in different splits then stay in
            different groups, and the latter are counted. Null: if every document has a split.
    """
    if prescribed is None:
        prescribed = prescribes_splits(labelled.documents)
    keys = [text_key(document.text) for document in labelled.documents]
    by_text: dict[str, list[Document]] = {}
    for key, document in zip(keys, labelled.documents, strict=True):
        by_text.setdefault(key, []).append(document)
    by_design = labelled.near_duplicates == "by_design"
    distinct = [copies[0].text for copies in by_text.values()]
    clusters = range(len(distinct)) if by_design else near_duplicate_clusters(distinct).tolist()
    cluster_of = dict(zip(by_text, clusters, strict=True))
    joined = DisjointSets(document.group for document in labelled.documents)
    kept: list[tuple[int, Document]] = []
    conflicts = 0
    for key, copies in by_text.items():
        first = copies[0]
        for copy in copies[1:]:
            if not prescribed or copy.split is first.split:
                joined.merge(first.group, copy.group)
        if any(_contradict(first, copy) for copy in copies[1:]):
            conflicts += len(copies)
        else:
            labels = {name: value for copy in copies for name, value in copy.labels.items()}
            numbers = {name: value for copy in copies for name, value in copy.numbers.items()}
            kept.append((cluster_of[key], replace(first, labels=labels, numbers=numbers)))
    groups: dict[int, set[str]] = {}
    splits: dict[int, set[Split | None]] = {}
    representative: dict[tuple[int, Split | None], str] = {}
    for cluster, document in kept:
        split = document.split if prescribed else None
        groups.setdefault(cluster, set()).add(document.group)
        splits.setdefault(cluster, set()).add(split)
        if labelled.near_duplicates == "group":
            joined.merge(representative.setdefault((cluster, split), document.group), document.group)
    merged = tuple(replace(document, group=joined[document.group]) for _, document in kept)
    audit = Audit(
        documents_read=len(labelled.documents),
        duplicates_removed=len(labelled.documents) - conflicts - len(kept),
        conflicts_removed=conflicts,
        near_duplicates=None if by_design else sum(len(groups[cluster]) > 1 for cluster, _ in kept),
        near_duplicates_across_splits=sum(len(splits[cluster]) > 1 for cluster, _ in kept),
        groups=len({document.group for document in merged}),
        leaked_by_random_split=_leaked(labelled.documents, [cluster_of[key] for key in keys]),
    )
    return replace(labelled, documents=merged), audit


def prescribes_splits(documents: Sequence[Document]) -> bool:
    """Whether every document comes with its split; else the builder splits."""
    return all(document.split is not None for document in documents)


def _contradict(a: Document, b: Document) -> bool:
    shared = any(a.labels[name] != b.labels[name] for name in a.labels.keys() & b.labels.keys())
    shared |= any(a.numbers[name] != b.numbers[name] for name in a.numbers.keys() & b.numbers.keys())
    return shared or _marked(a) != _marked(b)


def _marked(document: Document) -> list[tuple[str, str]]:
    """Labelled texts: copies may differ in white space, and so in offsets."""
    return sorted((" ".join(document.text[s.start : s.end].casefold().split()), s.label) for s in document.spans)


def _leaked(documents: Sequence[Document], clusters: Sequence[int]) -> int:
    is_test = np.random.default_rng(0).random(len(documents)) < 0.3
    sides: dict[tuple[str, str | int], set[bool]] = {}
    keys = [(("group", d.group), ("cluster", cluster)) for d, cluster in zip(documents, clusters, strict=True)]
    for pair, side in zip(keys, is_test, strict=True):
        for key in pair:
            sides.setdefault(key, set()).add(bool(side))
    return sum(any(len(sides[key]) == 2 for key in pair) for pair in keys)
