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
from sparse_probing.datasets.readers import check_whole
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.errors import InputError
from sparse_probing.records import SPLITS, Split

DRAWS = 20
"""Random splits over which the leak is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSplit:
    """What splits of documents at random, of the shares that are in use, would have done."""

    shares: tuple[float, float, float]
    """Train, validation, test."""
    draws: int
    torn: float
    """Documents in another split than a member of their own group, a copy of themselves or a near duplicate: mean of the draws."""
    fewest: int
    """Over the draws."""
    most: int


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
    random_split: RandomSplit
    """Counted among all documents read, copies included."""
    unused: int = 0
    """Documents that give no row: nothing left behind the skipped tokens, or no token of theirs was sampled."""


def check_usable(labelled: LabelledText) -> None:
    """Refuse what no later room can use.

    Raises:
        InputError: half of a surrogate pair in a name or text, a feature named twice, a span outside its text.
    """
    names = (*labelled.features, *labelled.numbers)
    check_whole([labelled.category, *names], "a feature's name")
    if len(set(names)) < len(names):
        raise InputError(f"{labelled.category} names a feature twice: each needs a name of its own.")
    for document in labelled.documents:
        check_whole([document.id, document.text, document.group], f"document {document.id!a}")
        if any(not 0 <= span.start <= span.end <= len(document.text) for span in document.spans):
            raise InputError(f"document {document.id!r} has a span that lies outside its text: correct or remove it.")


def text_key(text: str) -> str:
    """Same key for texts that differ only in case, white space or Unicode composition."""
    folded = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def distinct_documents(documents: Sequence[Document]) -> list[Document]:
    """One document for each text: the first of its copies, with the labels of all. None where copies contradict each other."""
    merged = (_merged(copies) for copies in _copies(documents).values())
    return [document for document in merged if document is not None]


def _copies(documents: Sequence[Document]) -> dict[str, list[Document]]:
    by_text: dict[str, list[Document]] = {}
    for document in documents:
        by_text.setdefault(text_key(document.text), []).append(document)
    return by_text


def _merged(copies: Sequence[Document]) -> Document | None:
    first = copies[0]
    if any(_contradict(first, copy) for copy in copies[1:]):
        return None
    labels = {name: value for copy in copies for name, value in copy.labels.items()}
    numbers = {name: value for copy in copies for name, value in copy.numbers.items()}
    return replace(first, labels=labels, numbers=numbers)


def remove_duplicates(
    labelled: LabelledText,
    *,
    prescribed: bool | None = None,
    shares: tuple[float, float, float] = SamplingRules().fractions,
) -> tuple[LabelledText, Audit]:
    """One copy of each text; texts with contradicting labels are dropped entirely; groups that share a text, or near duplicates,
    become one.

    Args:
        labelled: documents. Where `LabelledText.near_duplicates` is `count`, near duplicates do not join groups; where it is
            `by_design`, they are not looked for. A label that a copy lacks is no contradiction: copies complete each other.
        prescribed: whether the source's own split will be kept: copies and near duplicates in different splits then stay in
            different groups, and the latter are counted. Null: if every document has a split.
        shares: train, validation and test of the split in use, for the leak count; a prescribed split has its own.
    """
    if prescribed is None:
        prescribed = prescribes_splits(labelled.documents)
    by_text = _copies(labelled.documents)
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
        if (merged_copies := _merged(copies)) is None:
            conflicts += len(copies)
        else:
            kept.append((cluster_of[key], merged_copies))
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
        random_split=_random_splits(
            [document.group for copies in by_text.values() for document in copies],
            [cluster_of[key] for key, copies in by_text.items() for _ in copies],
            _shares_of(labelled.documents, shares) if prescribed else shares,
        ),
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


def _shares_of(documents: Sequence[Document], wanted: tuple[float, float, float]) -> tuple[float, float, float]:
    """Shares of a prescribed split; without validation documents, those of training give some up (see `splits.split_rows`)."""
    train, validation, test = (sum(d.split is split for d in documents) / len(documents) for split in SPLITS)
    if not validation:
        train, validation = (train * part / (wanted[0] + wanted[1]) for part in wanted[:2])
    return train, validation, test


def _random_splits(groups: Sequence[str], clusters: Sequence[int], shares: tuple[float, float, float]) -> RandomSplit:
    """Documents torn from a relative (one group, one cluster) by splits that do not know of relatives."""
    n, rng = len(groups), np.random.default_rng(0)
    families = [np.unique(names, return_inverse=True)[1] for names in (groups, clusters)]
    bounds = np.round(np.cumsum(shares[:2]) * n).astype(int)
    ordered = np.searchsorted(bounds, np.arange(n), side="right")  # the split of the first document, the second, ...
    torn = []
    for _ in range(DRAWS):
        split = rng.permutation(ordered)
        lost = np.zeros(n, dtype=bool)
        for family in families:
            held = np.zeros((family.max() + 1, len(SPLITS)), dtype=bool)
            held[family, split] = True
            lost |= (held.sum(axis=1) > 1)[family]
        torn.append(int(lost.sum()))
    return RandomSplit(shares=shares, draws=DRAWS, torn=float(np.mean(torn)), fewest=min(torn), most=max(torn))
