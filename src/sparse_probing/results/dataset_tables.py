"""The labelled rows of a run as tables, so that a run folder says what was probed without the program."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.files import write_json, write_table
from sparse_probing.records import POOLINGS, SPLITS


def write_dataset(folder: Path, dataset: FeatureDataset) -> None:
    """Write `documents`, `rows`, `labels` and `numbers` (one line per eligible row and feature, or number) as Parquet, and
    `audit.json`.

    With the model's tokenizer a row can be recomputed from `documents` and `rows` alone: the model reads the document's tokens that
    lie in `[context_start, context_end)` (characters), with the special tokens that the tokenizer adds; positions `first_token` to
    `last_token` of that sequence, special tokens counted, are pooled.
    """
    folder.mkdir(exist_ok=True)
    documents = pl.DataFrame({"document": dataset.document_ids, "text": dataset.texts})
    begin = dataset.sequence_starts[dataset.row_sequence]
    context_start, context_end = _contexts(dataset)
    rows = pl.DataFrame(
        {
            "row": range(dataset.n_rows),
            "document": dataset.sequence_document[dataset.row_sequence],
            "char_start": dataset.char_starts[begin + dataset.row_first],
            "char_end": dataset.char_ends[begin + dataset.row_last - 1],
            "context_start": context_start[dataset.row_sequence],
            "context_end": context_end[dataset.row_sequence],
            "first_token": dataset.row_first,
            "last_token": dataset.row_last - 1,
            "pooling": [POOLINGS[p].value for p in dataset.row_pooling],
            "group": dataset.row_group,
            "split": [SPLITS[s].value for s in dataset.row_split],
        }
    )
    row, feature = dataset.eligible.nonzero()
    labels = pl.DataFrame(
        {
            "row": row,
            "category": [dataset.categories[f] for f in feature],
            "feature": [dataset.features[f] for f in feature],
            "positive": dataset.positive[row, feature],
        }
    )
    numbers = pl.concat(
        [pl.DataFrame(schema={"row": pl.Int64, "category": pl.String, "number": pl.String, "value": pl.Float64})]
        + [
            pl.DataFrame({"row": (known := np.flatnonzero(~np.isnan(target.values))), "value": target.values[known]})
            .with_columns(category=pl.lit(target.category), number=pl.lit(target.name))
            .select("row", "category", "number", "value")
            for target in dataset.targets
        ]
    )
    for name, table in (("documents", documents), ("rows", rows), ("labels", labels), ("numbers", numbers)):
        write_table(folder / f"{name}.parquet", table)
    write_json(folder / "audit.json", {name: asdict(audit) for name, audit in dataset.audits.items()})


def _contexts(dataset: FeatureDataset) -> tuple[Int[np.ndarray, " sequence"], Int[np.ndarray, " sequence"]]:
    """First and one past the last character of each sequence in its document; special tokens have none."""
    bounds = dataset.sequence_starts[:-1]
    of_text = dataset.char_starts >= 0
    starts = np.where(of_text, dataset.char_starts, dataset.char_ends.max())
    ends = np.where(of_text, dataset.char_ends, 0)
    return np.minimum.reduceat(starts, bounds), np.maximum.reduceat(ends, bounds)
