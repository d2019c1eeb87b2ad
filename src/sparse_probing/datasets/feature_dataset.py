"""`FeatureDataset`: token sequences plus labelled rows. A row is what gets one activation vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.datasets.align import Alignment
from sparse_probing.datasets.audit import Audit
from sparse_probing.datasets.backends import TokenizedText
from sparse_probing.datasets.rows_used import RowsUsed
from sparse_probing.records import SPLITS, Split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NumberTarget:
    """A number for each row, to be predicted by regression."""

    name: str
    category: str
    values: Float[np.ndarray, " row"]
    """NaN where a row is not eligible."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureDataset:
    """Labelled rows over token sequences; arrays are parallel. Sequences are ragged, stored end to end."""

    features: tuple[str, ...]
    categories: tuple[str, ...]
    """Category of each feature."""
    document_ids: tuple[str, ...]
    texts: tuple[str, ...]
    """Text of each document; token offsets index into it."""
    tokens: Int[np.ndarray, " token"]
    char_starts: Int[np.ndarray, " token"]
    """First character of each token in its document; -1 for special tokens."""
    char_ends: Int[np.ndarray, " token"]
    sequence_starts: Int[np.ndarray, " sequence_bound"]
    """Sequence s owns `tokens[sequence_starts[s]:sequence_starts[s + 1]]`."""
    sequence_document: Int[np.ndarray, " sequence"]
    row_sequence: Int[np.ndarray, " row"]
    """Sequence of each row, ascending."""
    row_first: Int[np.ndarray, " row"]
    """First token position of the row within its sequence."""
    row_last: Int[np.ndarray, " row"]
    """One past the last token position of the row."""
    row_pooling: Int[np.ndarray, " row"]
    """Index into `POOLINGS`."""
    row_group: Int[np.ndarray, " row"]
    """Rows of one group share a split and are resampled together."""
    row_split: Int[np.ndarray, " row"]
    """Index into `SPLITS`."""
    positive: Bool[np.ndarray, "row feature"]
    eligible: Bool[np.ndarray, "row feature"]
    """A row that is not eligible for a feature is neither positive nor negative for it."""
    audits: dict[str, Audit]
    """One per category."""
    alignments: dict[str, Alignment] = field(default_factory=dict)
    """One per category."""
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Per category: what was left out or changed on the way, in words."""
    used: dict[str, RowsUsed] = field(default_factory=dict)
    """Per category: the account of its rows."""
    targets: tuple[NumberTarget, ...] = ()
    """Numbers to be predicted."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.row_sequence)

    @property
    def n_sequences(self) -> int:
        """Number of sequences."""
        return len(self.sequence_document)

    def sequence_lengths(self) -> Int[np.ndarray, " sequence"]:
        """Tokens per sequence."""
        return np.diff(self.sequence_starts)

    def fingerprint(self) -> str:
        """Hash of everything an activation depends on: tokens, rows, poolings. Labels and text do not enter."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (
            self.tokens,
            self.sequence_starts,
            self.row_sequence,
            self.row_first,
            self.row_last,
            self.row_pooling,
        ):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.hexdigest()

    def content_hash(self) -> str:
        """Hash of everything a run depends on: the fingerprint, labels, numbers, groups and splits."""
        digest = hashlib.blake2b(self.fingerprint().encode(), digest_size=16)
        for array in (self.positive, self.eligible, self.row_split, self.row_group):
            digest.update(array.astype("<i8").tobytes())
        for target in self.targets:
            digest.update(f"{target.category}/{target.name}".encode() + target.values.astype("<f8").tobytes())
        digest.update(json.dumps([self.features, self.categories]).encode())
        return digest.hexdigest()

    def rows_of(self, feature: int, split: Split | None = None) -> Int[np.ndarray, " row"]:
        """Rows that are eligible for a feature, of one split or of all."""
        chosen = self.eligible[:, feature]
        if split is not None:
            chosen = chosen & (self.row_split == SPLITS.index(split))
        return np.flatnonzero(chosen)

    def counts(self, feature: int) -> dict[str, tuple[int, int]]:
        """Positive and negative rows per split."""
        result = {}
        for split in SPLITS:
            rows = self.rows_of(feature, split)
            positives = int(self.positive[rows, feature].sum())
            result[split.value] = (positives, len(rows) - positives)
        return result

    def counts_by_name(self) -> dict[str, dict[str, tuple[int, int]]]:
        """`category/feature` -> `counts`."""
        names = zip(self.categories, self.features, strict=True)
        return {f"{category}/{feature}": self.counts(i) for i, (category, feature) in enumerate(names)}

    def needed_by(self, features: Sequence[int], targets: Sequence[int]) -> FeatureDataset:
        """Some of the features and targets, and the rows that one of them needs."""
        needed = [self.eligible[:, f] for f in features] + [~np.isnan(self.targets[t].values) for t in targets]
        return self.only(np.logical_or.reduce(needed), features, targets)

    def only(self, rows: Bool[np.ndarray, " row"], features: Sequence[int], targets: Sequence[int]) -> FeatureDataset:
        """Some of the rows, features and targets; sequences that lose all their rows go, too."""
        used = np.unique(self.row_sequence[rows])
        kept = np.zeros(self.n_sequences, dtype=bool)
        kept[used] = True
        lengths = self.sequence_lengths()
        of_kept = np.repeat(kept, lengths)
        return replace(
            self,
            features=tuple(self.features[f] for f in features),
            categories=tuple(self.categories[f] for f in features),
            tokens=self.tokens[of_kept],
            char_starts=self.char_starts[of_kept],
            char_ends=self.char_ends[of_kept],
            sequence_starts=np.concatenate([[0], np.cumsum(lengths[kept])]),
            sequence_document=self.sequence_document[kept],
            row_sequence=np.searchsorted(used, self.row_sequence[rows]),
            row_first=self.row_first[rows],
            row_last=self.row_last[rows],
            row_pooling=self.row_pooling[rows],
            row_group=np.unique(self.row_group[rows], return_inverse=True)[1],
            row_split=self.row_split[rows],
            positive=self.positive[rows][:, list(features)],
            eligible=self.eligible[rows][:, list(features)],
            targets=tuple(replace(self.targets[t], values=self.targets[t].values[rows]) for t in targets),
        )


class SequenceArrays(TypedDict):
    """The fields of a `FeatureDataset` that describe sequences."""

    tokens: np.ndarray
    char_starts: np.ndarray
    char_ends: np.ndarray
    sequence_starts: np.ndarray
    sequence_document: np.ndarray


@dataclass(slots=True)
class Sequences:
    """Sequences while they are being cut."""

    ids: list[np.ndarray]
    starts: list[np.ndarray]
    ends: list[np.ndarray]
    document: list[int]

    def add(self, document: int, text: TokenizedText, first: int, last: int) -> int:
        """Tokens `[first, last)` of a text with what stands around the text; returns the sequence's number."""
        front, behind = text.front, text.behind
        self.ids.append(np.concatenate([front, text.ids[first:last], behind]))
        for arrays, offsets in ((self.starts, text.starts), (self.ends, text.ends)):
            arrays.append(np.concatenate([np.full_like(front, -1), offsets[first:last], np.full_like(behind, -1)]))
        self.document.append(document)
        return len(self.document) - 1

    def arrays(self) -> SequenceArrays:
        """The fields of a `FeatureDataset` that describe sequences."""
        return {
            "tokens": np.concatenate(self.ids),
            "char_starts": np.concatenate(self.starts),
            "char_ends": np.concatenate(self.ends),
            "sequence_starts": np.concatenate([[0], np.cumsum([len(ids) for ids in self.ids])]),
            "sequence_document": np.array(self.document),
        }


def concatenate(parts: Sequence[FeatureDataset]) -> FeatureDataset:
    """One dataset of several categories: rows of one category are not eligible for the features of the others."""
    if len(parts) == 1:
        return parts[0]
    documents = np.cumsum([0, *(len(p.texts) for p in parts)])
    sequences = np.cumsum([0, *(p.n_sequences for p in parts)])
    tokens = np.cumsum([0, *(len(p.tokens) for p in parts)])
    groups = np.cumsum([0, *(int(p.row_group.max()) + 1 for p in parts)])
    features = np.cumsum([0, *(len(p.features) for p in parts)])
    rows = np.cumsum([0, *(p.n_rows for p in parts)])
    positive = np.zeros((rows[-1], features[-1]), dtype=bool)
    eligible = np.zeros_like(positive)
    for i, p in enumerate(parts):
        positive[rows[i] : rows[i + 1], features[i] : features[i + 1]] = p.positive
        eligible[rows[i] : rows[i + 1], features[i] : features[i + 1]] = p.eligible

    def joined(name: str, shifts: np.ndarray | None = None) -> np.ndarray:
        arrays = [getattr(p, name) for p in parts]
        return np.concatenate(arrays if shifts is None else [a + s for a, s in zip(arrays, shifts, strict=False)])

    return FeatureDataset(
        features=tuple(f for p in parts for f in p.features),
        categories=tuple(c for p in parts for c in p.categories),
        document_ids=tuple(d for p in parts for d in p.document_ids),
        texts=tuple(t for p in parts for t in p.texts),
        tokens=joined("tokens"),
        char_starts=joined("char_starts"),
        char_ends=joined("char_ends"),
        sequence_starts=np.concatenate(
            [[0], *(p.sequence_starts[1:] + t for p, t in zip(parts, tokens, strict=False))]
        ),
        sequence_document=joined("sequence_document", documents),
        row_sequence=joined("row_sequence", sequences),
        row_first=joined("row_first"),
        row_last=joined("row_last"),
        row_pooling=joined("row_pooling"),
        row_group=joined("row_group", groups),
        row_split=joined("row_split"),
        positive=positive,
        eligible=eligible,
        audits={name: audit for p in parts for name, audit in p.audits.items()},
        alignments={name: alignment for p in parts for name, alignment in p.alignments.items()},
        notes={name: notes for p in parts for name, notes in p.notes.items()},
        used={name: used for p in parts for name, used in p.used.items()},
        targets=tuple(
            replace(target, values=_padded(target.values, int(rows[i]), int(rows[-1])))
            for i, p in enumerate(parts)
            for target in p.targets
        ),
    )


def _padded(values: Float[np.ndarray, " part"], begin: int, length: int) -> Float[np.ndarray, " row"]:
    result = np.full(length, np.nan)
    result[begin : begin + len(values)] = values
    return result
