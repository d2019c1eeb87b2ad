"""`FeatureDataset`: token sequences plus labelled rows. A row is what gets one activation vector."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sparse_probing.datasets.align import TextTokenizer, TokenizedText, label_by_pattern, label_tokens, tokenize
from sparse_probing.datasets.audit import Audit, check_split, prescribes_splits, remove_duplicates, split_groups
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.errors import InputError
from sparse_probing.records import POOLINGS, SPLITS, Pooling, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRules:
    """How text becomes rows."""

    pooling: Pooling = Pooling.MEAN
    """Document level: how the tokens of the window become one vector. Token level rows are single tokens."""
    window: int = 256
    """Tokens per sequence, the BOS token included."""
    long_texts: Literal["window", "error"] = "window"
    """Texts longer than a window: cut into windows, or refused."""
    windows_per_document: int = 1
    """Document level: how many windows a long document may give (they share its split)."""
    skip_first: int = 10
    """Positions at the start of a sequence that are never labelled: they see too little context."""
    max_rows: int = 4_000
    """Token level: rows per feature."""
    positive_share: float = 0.25
    """Token level: wanted share of positives where they are rare (common features keep their natural share, up to 0.5)."""
    fractions: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Train, validation, test."""
    min_rows: int = 5
    """Positives and negatives that each split must have."""


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


@dataclass(slots=True)
class Sequences:
    """Sequences while they are being cut."""

    ids: list[np.ndarray]
    starts: list[np.ndarray]
    ends: list[np.ndarray]
    document: list[int]

    def add(self, document: int, text: TokenizedText, first: int, last: int, tokenizer: TextTokenizer) -> int:
        """Tokens `[first, last)` of a text with the special tokens around them; returns the sequence's number."""
        front, behind = (
            np.array([] if special is None else [special], dtype=np.int32)
            for special in (tokenizer.bos_id, tokenizer.closing_id)
        )
        self.ids.append(np.concatenate([front, text.ids[first:last], behind]))
        for arrays, offsets in ((self.starts, text.starts), (self.ends, text.ends)):
            arrays.append(np.concatenate([np.full_like(front, -1), offsets[first:last], np.full_like(behind, -1)]))
        self.document.append(document)
        return len(self.document) - 1

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields of a `FeatureDataset` that describe sequences."""
        return {
            "tokens": np.concatenate(self.ids),
            "char_starts": np.concatenate(self.starts),
            "char_ends": np.concatenate(self.ends),
            "sequence_starts": np.concatenate([[0], np.cumsum([len(ids) for ids in self.ids])]),
            "sequence_document": np.array(self.document),
        }


def build_feature_dataset(
    labelled: LabelledText, tokenizer: TextTokenizer, rules: SamplingRules, rng: np.random.Generator
) -> FeatureDataset:
    """Labelled text to rows: duplicates removed, tokenized, aligned, sampled, split by group.

    Args:
        labelled: documents of one category.
        tokenizer: the probed model's tokenizer.
        rules: windows, pooling, sampling, split fractions.
        rng: chooses windows, samples rows, breaks ties of the split.

    Raises:
        InputError: too few documents, or too few rows of a class in some split.
    """
    labelled, audit = remove_duplicates(labelled)
    if audit.groups < 3:
        merged = f" Near duplicates ({audit.near_duplicates} documents) share a group." if audit.near_duplicates else ""
        raise InputError(
            f"{labelled.category} has {audit.groups} distinct document(s) or group(s): at least 3 are needed for "
            f"separate train, validation and test splits.{merged}"
        )
    tokenized = tokenize(tokenizer, [document.text for document in labelled.documents])
    if rules.long_texts == "error":
        _refuse_long_texts(labelled, tokenized, tokenizer.room(rules.window))
    sequences = Sequences([], [], [], [])
    cut = _document_rows if labelled.level == "document" else _token_rows
    rows = cut(labelled, tokenized, tokenizer, sequences, rules, rng)
    if len(rows.sequence) == 0:
        raise InputError(
            f"{labelled.category}: no labelled token lies behind the first {rules.skip_first} tokens of a text, which are skipped: "
            "lower --skip-first, or check the labels."
        )
    document = np.array(sequences.document)
    row_document = document[rows.sequence]
    dataset = FeatureDataset(
        features=labelled.features,
        categories=(labelled.category,) * len(labelled.features),
        document_ids=tuple(d.id for d in labelled.documents),
        texts=tuple(d.text for d in labelled.documents),
        **sequences.arrays(),
        row_sequence=rows.sequence,
        row_first=rows.first,
        row_last=rows.last,
        row_pooling=np.full(
            len(row_document), POOLINGS.index(rules.pooling if labelled.level == "document" else Pooling.TOKEN)
        ),
        row_group=np.unique([labelled.documents[d].group for d in row_document], return_inverse=True)[1],
        row_split=np.zeros(len(row_document), dtype=int),
        positive=rows.positive,
        eligible=rows.eligible,
        audits={labelled.category: replace(audit, unused=len(labelled.documents) - len(np.unique(row_document)))},
    )
    given = [labelled.documents[d].split for d in row_document]
    if prescribes_splits(labelled.documents):
        split = np.array([SPLITS.index(s) for s in given if s is not None])
    else:
        split = _split_by_group(dataset, rules, rng)
    dataset = replace(dataset, row_split=split)
    _check_splits(dataset, rules.min_rows)
    return dataset


def _refuse_long_texts(labelled: LabelledText, tokenized: Sequence[TokenizedText], room: int) -> None:
    too_long = [i for i, text in enumerate(tokenized) if len(text.ids) > room]
    if too_long:
        longest = max(len(text.ids) for text in tokenized)
        raise InputError(
            f"{len(too_long)} text(s) of {labelled.category} do not fit into a window of {room} tokens, first "
            f"{labelled.documents[too_long[0]].id!r} (the longest has {longest} tokens): use a larger --window, or "
            "--long-texts window to cut them."
        )


class _Rows(NamedTuple):
    """Rows while they are being made; see `FeatureDataset` for the meaning of each array."""

    sequence: Int[np.ndarray, " row"]
    first: Int[np.ndarray, " row"]
    last: Int[np.ndarray, " row"]
    positive: Bool[np.ndarray, "row feature"]
    eligible: Bool[np.ndarray, "row feature"]


def _document_rows(
    labelled: LabelledText,
    tokenized: Sequence[TokenizedText],
    tokenizer: TextTokenizer,
    sequences: Sequences,
    rules: SamplingRules,
    rng: np.random.Generator,
) -> _Rows:
    """One row per window: the pooled tokens after the skipped ones."""
    special, room = tokenizer.n_front, tokenizer.room(rules.window)
    sequence, last, labels = [], [], []
    for number, (document, text) in enumerate(zip(labelled.documents, tokenized, strict=True)):
        possible = max(1, len(text.ids) // room)
        offset = int(rng.integers(max(0, len(text.ids) - possible * room) + 1))
        for piece in np.sort(rng.permutation(possible)[: rules.windows_per_document]):
            begin = offset + int(piece) * room
            end = min(begin + room, len(text.ids))
            if end - begin + special > rules.skip_first:
                sequence.append(sequences.add(number, text, begin, end, tokenizer))
                last.append(end - begin + special)
                labels.append(document.labels)
    return _Rows(
        sequence=np.array(sequence, dtype=int),
        first=np.full(len(sequence), rules.skip_first),
        last=np.array(last, dtype=int),
        positive=np.array([[row.get(f, False) for f in labelled.features] for row in labels], dtype=bool),
        eligible=np.array([[f in row for f in labelled.features] for row in labels], dtype=bool),
    )


def _token_rows(
    labelled: LabelledText,
    tokenized: Sequence[TokenizedText],
    tokenizer: TextTokenizer,
    sequences: Sequences,
    rules: SamplingRules,
    rng: np.random.Generator,
) -> _Rows:
    """Single tokens, sampled from one shared random order so that features reuse each other's rows."""
    special, room = tokenizer.n_front, tokenizer.room(rules.window)
    sequence, position, positive, known = [], [], [], []
    for number, (document, text) in enumerate(zip(labelled.documents, tokenized, strict=True)):
        if labelled.token_patterns:
            label = label_by_pattern(text, document.text, labelled.token_patterns)
            touched = text.ends > text.starts
        else:
            label, touched = label_tokens(text, document.spans, labelled.features)
        if not (labelled.only_spanned_tokens or labelled.token_patterns):
            touched = np.ones_like(touched)
        for begin in range(0, len(text.ids), room):
            end = min(begin + room, len(text.ids))
            positions = np.arange(special, special + end - begin)
            late = positions >= rules.skip_first
            index = sequences.add(number, text, begin, end, tokenizer)
            sequence.append(np.full(late.sum(), index))
            position.append(positions[late])
            positive.append(label[begin:end][late])
            known.append(touched[begin:end][late])
    at, labels = np.concatenate(position), np.concatenate(positive)
    eligible = sample_tokens(labels, np.concatenate(known), rules, rng)
    used = eligible.any(axis=1)
    return _Rows(
        sequence=np.concatenate(sequence)[used],
        first=at[used],
        last=at[used] + 1,
        positive=labels[used],
        eligible=eligible[used],
    )


def sample_tokens(
    positive: Bool[np.ndarray, "token feature"],
    known: Bool[np.ndarray, " token"],
    rules: SamplingRules,
    rng: np.random.Generator,
) -> Bool[np.ndarray, "token feature"]:
    """Rows of each feature: up to `max_rows`, positives at their natural share clipped to `[positive_share, 0.5]`."""
    order = rng.permutation(np.flatnonzero(known))
    eligible = np.zeros_like(positive)
    for f in range(positive.shape[1]):
        is_positive = positive[order, f]
        share = float(np.clip(is_positive.mean() if len(order) else 0.0, rules.positive_share, 0.5))
        positives = order[is_positive][: round(share * rules.max_rows)]
        negatives = order[~is_positive][: max(0, round(len(positives) / share) - len(positives))]
        eligible[positives, f] = True
        eligible[negatives, f] = True
    return eligible


def _split_by_group(dataset: FeatureDataset, rules: SamplingRules, rng: np.random.Generator) -> Int[np.ndarray, " row"]:
    classes = np.concatenate([dataset.positive & dataset.eligible, ~dataset.positive & dataset.eligible], axis=1)
    counts = np.zeros((dataset.row_group.max() + 1, classes.shape[1]))
    np.add.at(counts, dataset.row_group, classes.astype(float))
    return split_groups(counts, rules.fractions, rng)[dataset.row_group]


def _check_splits(dataset: FeatureDataset, least: int) -> None:
    for f, feature in enumerate(dataset.features):
        table = dataset.counts(f)
        check_split(dataset.categories[f], feature, [table[s][0] for s in SPLITS], [table[s][1] for s in SPLITS], least)


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
    )
