"""Labelled text to rows: duplicates removed, tokenized, aligned, cut into windows, sampled, split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sparse_probing.datasets.align import Alignment, Stretches, label_by_pattern, label_tokens, stretches_of
from sparse_probing.datasets.audit import check_usable, prescribes_splits, remove_duplicates
from sparse_probing.datasets.backends import TokenizedText
from sparse_probing.datasets.feature_dataset import FeatureDataset, NumberTarget, Sequences
from sparse_probing.datasets.label_columns import LARGEST_NUMBER, TOO_LARGE
from sparse_probing.datasets.labelled_text import TOKEN_NUMBERS, Document, LabelledText
from sparse_probing.datasets.rows_used import (
    STRETCHES,
    TEXTS,
    Loss,
    RowsUsed,
    copies_lost,
    cut_losses,
    losses_of,
)
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.sample import sample_documents, sample_rows
from sparse_probing.datasets.splits import enough_rows, split_rows
from sparse_probing.datasets.text_tokenizer import TextTokenizer, special_written, tokenized_batches
from sparse_probing.datasets.windows import document_windows, windows_of
from sparse_probing.errors import InputError
from sparse_probing.records import POOLINGS, SPLITS, Pooling, Split


def build_feature_dataset(
    labelled: LabelledText,
    tokenizer: TextTokenizer,
    rules: SamplingRules,
    rng: np.random.Generator,
    progress: Callable[[int], None] = lambda _: None,
) -> FeatureDataset:
    """Labelled text to rows.

    Args:
        labelled: documents of one category. Its recommended rules are not applied here (see `SamplingRules.adapted`).
        tokenizer: the probed model's tokenizer.
        rules: windows, pooling, sampling, split.
        rng: chooses windows, samples rows, breaks ties of the split.
        progress: told how many documents were tokenized.

    Raises:
        InputError: too few documents, or too few rows of a class in some split for every feature.
    """
    check_usable(labelled)
    prescribed = rules.split_by == "given" and prescribes_splits(labelled.documents)
    labelled, audit = remove_duplicates(labelled, prescribed=prescribed, shares=rules.fractions)
    if audit.groups < 3:
        merged = f" Near duplicates ({audit.near_duplicates} documents) share a group." if audit.near_duplicates else ""
        if audit.conflicts_removed:
            merged += f" {audit.conflicts_removed} copies of a text with contradicting labels were removed."
        raise InputError(
            f"{labelled.category} has {audit.groups} distinct document(s) or group(s): at least 3 are needed for "
            f"separate train, validation and test splits.{merged}"
        )
    cutter = _Cutter(labelled, tokenizer, rules, rng, prescribed=prescribed)
    batches = tokenized_batches(tokenizer, [document.text for document in labelled.documents])
    for number, text in enumerate(chain.from_iterable(batches)):
        cutter.add(number, text)
        progress(1)
    cutter.refuse_long_texts()
    rows = cutter.rows()
    document = np.array(cutter.sequences.document)[rows.sequence]
    pooling = Pooling.TOKEN if labelled.level == "token" else rules.pooling
    dataset = FeatureDataset(
        features=labelled.features,
        categories=(labelled.category,) * len(labelled.features),
        document_ids=tuple(d.id for d in labelled.documents),
        texts=tuple(d.text for d in labelled.documents),
        **cutter.sequences.arrays(),
        row_sequence=rows.sequence,
        row_first=rows.first,
        row_last=rows.last,
        row_pooling=np.full(len(document), POOLINGS.index(pooling)),
        row_group=np.unique([labelled.documents[d].group for d in document], return_inverse=True)[1],
        row_split=np.zeros(len(document), dtype=int),
        positive=rows.positive,
        eligible=rows.eligible,
        audits={},
        alignments={labelled.category: cutter.alignment},
        targets=tuple(
            NumberTarget(name=name, category=labelled.category, values=rows.numbers[:, i])
            for i, name in enumerate(labelled.numbers)
        ),
    )
    given = [labelled.documents[d].split if prescribed else None for d in document]
    dataset = replace(dataset, row_split=split_rows(dataset, given, rules, rng))
    features, targets, too_few = enough_rows(dataset, rules.min_rows)
    sampled = dataset
    dataset = dataset.needed_by(features, targets)
    texts_used = len(np.unique(dataset.sequence_document))
    audit = replace(audit, unused=len(dataset.texts) - texts_used)
    lost = cutter.losses()
    written = special_written(tokenizer, [document.text for document in labelled.documents])
    used = RowsUsed(
        category=labelled.category,
        rows=dataset.n_rows,
        texts=texts_used,
        texts_read=audit.documents_read,
        probed=len(features) + len(targets),
        losses=(*copies_lost(audit), *lost, *cutter.other_losses(sampled, dataset)),
        left_out=too_few,
        notes=(*labelled.notes, *written),
    )
    notes = (*labelled.notes, *written, *(loss.sentence() for loss in lost), *too_few)
    return replace(
        dataset,
        audits={labelled.category: audit},
        notes={labelled.category: notes} if notes else {},
        used={labelled.category: used},
    )


class _Rows(NamedTuple):
    """Rows of a category; see `FeatureDataset` for the meaning of each array."""

    sequence: Int[np.ndarray, " row"]
    first: Int[np.ndarray, " row"]
    last: Int[np.ndarray, " row"]
    positive: Bool[np.ndarray, "row feature"]
    eligible: Bool[np.ndarray, "row feature"]
    numbers: Float[np.ndarray, "row number"]


class _Cutter:
    """Cuts one text after the other into sequences and candidate rows, then samples among the rows."""

    def __init__(
        self,
        labelled: LabelledText,
        tokenizer: TextTokenizer,
        rules: SamplingRules,
        rng: np.random.Generator,
        *,
        prescribed: bool,
    ) -> None:
        self.labelled, self.rules, self.rng = labelled, rules, rng
        self.prescribed = prescribed
        self.sequences = Sequences([], [], [], [])
        self.alignment = Alignment(tokens=0, unknown_tokens=0)
        self._too_short = self._not_full = self._bare = self._not_drawn = 0
        self._unknown = tokenizer.unknown_id()
        self._room = 0  # of the present text
        self._too_long: list[tuple[str, int, int]] = []
        names = [*labelled.features, *(n for against in labelled.contrasts.values() for n in against)]
        names += labelled.hard_negatives.values()
        self._labels = {name: i for i, name in enumerate(dict.fromkeys(names))}
        self._sequence: list[np.ndarray] = []
        self._first: list[np.ndarray] = []
        self._last: list[np.ndarray] = []
        self._carried: list[np.ndarray] = []

    def add(self, number: int, text: TokenizedText) -> None:
        """Sequences and candidate rows of one document."""
        document = self.labelled.documents[number]
        self._room = text.room(self.rules.window)
        self._count(
            tokens=len(text.ids),
            unknown_tokens=int((text.ids == self._unknown).sum()) if self._unknown is not None else 0,
        )
        if len(text.ids) > self._room:
            self._too_long.append((document.id, len(text.ids), self._room))
        match self.labelled.level:
            case "document":
                self._add_documents(number, text)
            case "span":
                self._add_spans(number, document, text)
            case "token":
                self._add_tokens(number, document, text)

    def _count(self, **counts: int) -> None:
        self.alignment = replace(self.alignment, **{n: getattr(self.alignment, n) + c for n, c in counts.items()})

    def _keep(self, sequence: int, first: np.ndarray, last: np.ndarray, carried: np.ndarray) -> None:
        self._sequence.append(np.full(len(first), sequence, dtype=np.int32))
        self._first.append(first.astype(np.int32))  # every token of a corpus may be a candidate: bytes count
        self._last.append(last.astype(np.int32))
        self._carried.append(carried)

    def _add_documents(self, number: int, text: TokenizedText) -> None:
        """One row per chosen window: the pooled tokens after the skipped ones."""
        special = len(text.front)
        skip = max(self.rules.skip_first, special)  # BOS is no token of the text
        if len(text.ids) + special <= skip:
            self._too_short += 1
        elif self.rules.full_windows_only and len(text.ids) < self._room:
            self._not_full += 1
        for begin, end in document_windows(len(text.ids), self._room, self.rules, self.rng):
            if end - begin + special > skip:
                index = self.sequences.add(number, text, begin, end)
                nothing = np.zeros((1, 0), dtype=bool)
                self._keep(index, np.array([skip]), np.array([end - begin + special]), nothing)

    def _add_spans(self, number: int, document: Document, text: TokenizedText) -> None:
        """One row per labelled stretch: all of its tokens."""
        special = len(text.front)
        stretches = stretches_of(text, document.spans)
        self._count_stretches(stretches, text, document.text)
        found = stretches.last > stretches.first
        held = np.zeros(len(found), dtype=bool)
        for begin, end in windows_of(text, document.breaks, self._room, self.rules):
            inside = found & (stretches.first >= begin) & (stretches.last <= end)
            held |= inside
            first = stretches.first[inside] - begin + special
            late = first >= self.rules.skip_first
            self._count(in_skipped_tokens=int((~late).sum()))
            chosen = np.flatnonzero(inside)[late]
            if len(chosen):
                index = self.sequences.add(number, text, begin, end)
                last = stretches.last[chosen] - begin + special
                self._keep(index, first[late], last, self._matrix(stretches, chosen))
        self._count(cut_by_window=int((found & ~held).sum()))

    def _matrix(self, stretches: Stretches, chosen: np.ndarray) -> Bool[np.ndarray, "row label"]:
        carried = np.zeros((len(chosen), len(self._labels)), dtype=bool)
        names = [(row, name) for row, stretch in enumerate(chosen.tolist()) for name in stretches.labels[stretch]]
        cells = [(row, self._labels[name]) for row, name in names if name in self._labels]
        carried[tuple(np.array(cells, dtype=int).reshape(-1, 2).T)] = True
        return carried

    def _add_tokens(self, number: int, document: Document, text: TokenizedText) -> None:
        """Each token behind the skipped ones is a candidate."""
        special = len(text.front)
        stretches = None
        if self.labelled.token_patterns:
            carried = label_by_pattern(text, document.text, self.labelled.token_patterns)
            known = text.ends > text.starts
        else:
            stretches = stretches_of(text, document.spans)
            self._count_stretches(stretches, text, document.text)
            carried, touched = label_tokens(text, stretches, self._labels)
            known = touched if self.labelled.only_spanned_tokens else np.ones(len(text.ids), dtype=bool)
        for begin, end in windows_of(text, document.breaks, self._room, self.rules):
            positions = np.arange(special, special + end - begin)
            late = (positions >= self.rules.skip_first) & known[begin:end]
            if stretches is not None:
                used_from = begin + max(0, self.rules.skip_first - special)
                skipped = (
                    (stretches.first >= begin) & (stretches.last > stretches.first) & (stretches.last <= used_from)
                )
                self._count(in_skipped_tokens=int(skipped.sum()))
            if late.any():
                index = self.sequences.add(number, text, begin, end)
                at = positions[late]
                self._keep(index, at, at + 1, carried[begin:end][late])

    def _count_stretches(self, stretches: Stretches, tokens: TokenizedText, text: str) -> None:
        lengths = stretches.last - stretches.first
        self._count(
            stretches=len(lengths),
            without_token=int((lengths == 0).sum()),
            several_tokens=int((lengths > 1).sum()),
            ragged=stretches.ragged(tokens, text),
        )

    def refuse_long_texts(self) -> None:
        """Complain about texts longer than a window where the rules ask for it."""
        if self.rules.long_texts == "error" and self._too_long:
            first, _, room = self._too_long[0]
            raise InputError(
                f"{len(self._too_long)} text(s) of {self.labelled.category} do not fit into a window of {room} tokens, first "
                f"{first!r} (the longest has {max(n for _, n, _ in self._too_long)} tokens): use a larger --window, or "
                "--long-texts window to cut them."
            )

    def rows(self) -> _Rows:
        """The sampled rows of all documents.

        Raises:
            InputError: no candidate row at all.
        """
        if not self._sequence:
            raise InputError(
                f"{self.labelled.category}: no labelled token lies behind the first {self.rules.skip_first} tokens of a text, "
                "which are skipped: lower --skip-first, or check the labels."
            )
        sequence, first, last = (np.concatenate(parts) for parts in (self._sequence, self._first, self._last))
        document = np.array(self.sequences.document)[sequence]
        if self.labelled.level == "document":
            positive, eligible = self._document_labels(document)
        else:
            positive, eligible = self._sampled(np.concatenate(self._carried), self._shares(document))
        numbers = self._numbers(document, first)
        used = eligible.any(axis=1) | ~np.isnan(numbers).all(axis=1)
        self._count_idle(document, np.asarray(used))
        sequence, first, last = (array[used].astype(int) for array in (sequence, first, last))
        return _Rows(sequence, first, last, positive[used], eligible[used], numbers[used])

    def _count_idle(self, document: np.ndarray, used: Bool[np.ndarray, " row"]) -> None:
        """Candidates that are no rows: without a label, or not among those that were sampled."""
        if self.labelled.level == "document":
            texts = [self.labelled.documents[d] for d in np.setdiff1d(document, document[used])]
            self._bare = sum(not (text.labels or text.numbers) for text in texts)
            self._not_drawn = len(texts) - self._bare
        else:
            bare = ~np.concatenate(self._carried).any(axis=1) if self.labelled.level == "span" else np.zeros_like(used)
            self._bare, self._not_drawn = int((bare & ~used).sum()), int((~bare & ~used).sum())

    def _document_labels(
        self, document: np.ndarray
    ) -> tuple[Bool[np.ndarray, "row feature"], Bool[np.ndarray, "row feature"]]:
        shape = (len(document), len(self.labelled.features))
        labels = [self.labelled.documents[d].labels for d in document]
        positive = np.array([[row.get(f, False) for f in self.labelled.features] for row in labels], dtype=bool)
        eligible = np.array([[f in row for f in self.labelled.features] for row in labels], dtype=bool)
        positive, eligible = positive.reshape(shape), eligible.reshape(shape)
        for part, _ in self._shares(document):
            eligible[part] = sample_documents(positive[part], eligible[part], self.rules, self.rng)
        return positive, eligible

    def _shares(self, document: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Rows that are sampled together, with their share of `max_rows`: each prescribed split has its own, so that a small test
        split does not end up with a handful of positives.
        """
        if not self.prescribed:
            return [(np.ones(len(document), dtype=bool), 1.0)]
        splits = np.array([SPLITS.index(d.split) for d in self.labelled.documents if d.split is not None])[document]
        fractions = np.array(self.rules.fractions)
        if not (splits == SPLITS.index(Split.VALIDATION)).any():  # it will be taken from the training split
            fractions = np.array([fractions[0] + fractions[1], 0, fractions[2]])
        return [(splits == s, float(fractions[s])) for s in range(len(SPLITS))]

    def _sampled(
        self, carried: Bool[np.ndarray, "row label"], shares: list[tuple[np.ndarray, float]]
    ) -> tuple[Bool[np.ndarray, "row feature"], Bool[np.ndarray, "row feature"]]:
        labelled = self.labelled
        of_label = np.ascontiguousarray(carried.T)
        shuffled = self.rng.permutation(len(carried))  # shared, so that features reuse each other's rows
        orders = [(shuffled[part[shuffled]], share) for part, share in shares]
        eligible = np.zeros((len(carried), len(labelled.features)), dtype=bool)
        for f, feature in enumerate(labelled.features):
            pool = ~of_label[f]
            if feature in labelled.contrasts:
                rivals = [of_label[self._labels[name]] for name in labelled.contrasts[feature]]
                pool &= np.logical_or.reduce(rivals) if rivals else False
            hard = labelled.hard_negatives.get(feature)
            is_hard = np.zeros_like(pool) if hard is None else of_label[self._labels[hard]]
            for order, share in orders:
                most = None if self.rules.max_rows is None else round(share * self.rules.max_rows)
                rules = replace(self.rules, max_rows=most)
                chosen = sample_rows(of_label[f, order], pool[order], is_hard[order], rules)
                eligible[order[chosen], f] = True
        return carried[:, : len(labelled.features)], eligible

    def _numbers(self, document: np.ndarray, first: np.ndarray) -> Float[np.ndarray, "row number"]:
        numbers = np.full((len(document), len(self.labelled.numbers)), np.nan)
        for i, name in enumerate(self.labelled.numbers):
            if self.labelled.level == "token" and name in TOKEN_NUMBERS:
                values = first.astype(float) if name == "position" else np.log2(first + 1.0)
            else:
                values = np.array([self.labelled.documents[d].numbers.get(name, np.nan) for d in document], dtype=float)
                if (np.abs(values) > LARGEST_NUMBER).any():
                    raise InputError(
                        f"{self.labelled.category}: {name!r} holds numbers of which some are too large. {TOO_LARGE}"
                    )
            numbers[:, i] = values
        if self.labelled.level != "document" and numbers.shape[1] and self.rules.max_rows is not None:
            numbers[self.rng.permutation(len(numbers))[self.rules.max_rows :]] = np.nan
        return numbers

    def losses(self) -> list[Loss]:
        """What alignment and windows cost, where they cost something."""
        return cut_losses(self.alignment, len(self.labelled.documents), self._too_short, self.rules.skip_first)

    def other_losses(self, sampled: FeatureDataset, used: FeatureDataset) -> list[Loss]:
        """What audits and notes tell elsewhere: labels that are missing, rules that leave rows out, features left out.

        Args:
            sampled: all rows.
            used: those that features need which are not left out.
        """
        texts = (len(self.labelled.documents), TEXTS)
        match self.labelled.level:
            case "document":
                of = texts
                idle = len(np.unique(sampled.sequence_document[sampled.row_sequence]))
                idle -= len(np.unique(used.sequence_document))
            case "span":
                of, idle = (self.alignment.stretches, STRETCHES), sampled.n_rows - used.n_rows
            case "token":
                of, idle = (sum(map(len, self._first)), "tokens"), 0
        lost = losses_of(
            (self._bare, of, "they have no label"), (idle, of, "only features that are left out need them")
        )
        return lost + losses_of(
            (self._not_full, texts, "they do not fill a window, which the rules of the source ask for"),
            (self._not_drawn, of, "they were not drawn (--sampling, --max-rows)"),
            asked=True,
        )
