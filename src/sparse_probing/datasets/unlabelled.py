"""Rows for text without labels: every token of it, for those who want the activations themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparse_probing.datasets.feature_dataset import FeatureDataset, Sequences
from sparse_probing.datasets.text_tokenizer import TextTokenizer, tokenize
from sparse_probing.errors import InputError
from sparse_probing.records import POOLINGS, Pooling


def every_token(texts: Sequence[str], tokenizer: TextTokenizer, window: int = 256) -> FeatureDataset:
    """One row per token, in the order of the text; texts longer than a window are cut into several sequences.

    Args:
        texts: any text.
        tokenizer: the model's, `model.tokenizer`.
        window: tokens per sequence, special tokens included.

    Returns:
        A dataset without features: all rows are in the training split, each text is its own group. `char_starts` and
        `char_ends` say where a token stands: row r is token `sequence_starts[row_sequence[r]] + row_first[r]`.

    Raises:
        InputError: no text, or a window without room for it.
    """
    sequences = Sequences([], [], [], [])
    counts, fronts = [], []
    for number, text in enumerate(tokenize(tokenizer, list(texts))):
        room = text.room(window)
        for begin in range(0, len(text.ids), room):
            end = min(begin + room, len(text.ids))
            sequences.add(number, text, begin, end)
            counts.append(end - begin)
            fronts.append(len(text.front))
    if not counts:
        raise InputError("there is no token in the texts.")
    row_sequence = np.repeat(np.arange(len(counts)), counts)
    first = np.concatenate([np.arange(front, front + count) for front, count in zip(fronts, counts, strict=True)])
    document = np.array(sequences.document)
    n_rows = len(first)
    return FeatureDataset(
        features=(),
        categories=(),
        document_ids=tuple(str(i) for i in range(len(texts))),
        texts=tuple(texts),
        **sequences.arrays(),
        row_sequence=row_sequence,
        row_first=first,
        row_last=first + 1,
        row_pooling=np.full(n_rows, POOLINGS.index(Pooling.TOKEN)),
        row_group=document[row_sequence],
        row_split=np.zeros(n_rows, dtype=int),
        positive=np.zeros((n_rows, 0), dtype=bool),
        eligible=np.zeros((n_rows, 0), dtype=bool),
        audits={},
    )
