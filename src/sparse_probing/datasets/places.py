"""Rows of a place that is no file: a data set of the Hugging Face hub by name (`hf:owner/name`), or a folder of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from sparse_probing.datasets.dataset_folder import is_dataset_folder
from sparse_probing.datasets.hugging_face import (
    PREFIX,
    VALUES,
    HubDataset,
    folder_rows,
    hub_rows,
    is_hugging_face_folder,
    mapped,
    parse_hub_name,
)
from sparse_probing.datasets.readers import Row
from sparse_probing.records import SPLITS

SPLIT_KEY = "split"
"""Column under which `rows_with_split` gives the split, where the data set has several."""


def is_hugging_face(place: Path) -> bool:
    """Whether a place is a Hugging Face data set and not one of our dataset folders."""
    if str(place).startswith(PREFIX):
        return True
    return place.is_dir() and is_hugging_face_folder(place) and not is_dataset_folder(place)


def place_rows(place: Path) -> Iterator[tuple[str | None, Row]]:
    """Split and row of a data set, streamed.

    Raises:
        InputError: no such data set.
        PrerequisiteError: a name without the extra `hub`, or without network.
    """
    return hub_rows(*parse_hub_name(str(place))) if str(place).startswith(PREFIX) else folder_rows(place)


def source_rows(place: Path, hub: HubDataset) -> Iterator[tuple[str | None, Row]]:
    """The same under the names of our layout; a data set that has them already is taken as it is.

    Raises:
        InputError: neither our columns nor those of the public data set.
    """
    rows = place_rows(place)
    first = next(rows, None)
    if first is None:
        return iter(())
    rows = chain([first], rows)
    return rows if set(hub.columns) <= set(first[1]) else mapped(rows, hub.columns, VALUES)


def rows_with_split(place: Path) -> tuple[Iterator[Row], bool, Counter[str]]:
    """Rows for a user's own labels; whether each carries its split under `SPLIT_KEY`; and, once they are read, how many rows of
    which other splits (`unsupervised`, `validation_mismatched`) were left out.
    """
    rows = place_rows(place)
    first = next(rows, None)
    left_out: Counter[str] = Counter()
    if first is None:
        return iter(()), False, left_out
    has_splits = first[0] is not None

    def wanted() -> Iterator[Row]:
        for split, row in chain([first], rows):
            if not has_splits:
                yield row
            elif split in SPLITS:
                yield row | {SPLIT_KEY: str(split)}
            else:
                left_out[str(split)] += 1

    return wanted(), has_splits, left_out
