"""Build a dataset folder: documents with labels on characters, datasheet, audit. No model weights are needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sparse_probing.config import DataConfig
from sparse_probing.datasets.dataset_folder import is_dataset_folder, read_category, write_dataset_folder
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.rules import merged_rules
from sparse_probing.errors import InputError, PrerequisiteError
from sparse_probing.files import file_name, remove_partials, write_json
from sparse_probing.inputs import RULE_OPTIONS
from sparse_probing.results.run_folder import read_sheets
from sparse_probing.studies.datasheet.datasheet import datasheet


def write_built(folder: Path, config: DataConfig, texts: Sequence[LabelledText], dataset: FeatureDataset) -> list[Path]:
    """Write one dataset folder per category: into `folder`, or into folders below it where there are several.

    The options that shape rows are kept with the text, so that a run with the folder needs none of them.

    Args:
        folder: must not exist, be empty, or hold a dataset folder (which is replaced).
        config: options that the text was read with.
        texts: one per category.
        dataset: their rows for one tokenizer, which the datasheet counts.

    Raises:
        InputError: the folder holds something else.
        PrerequisiteError: the folder cannot be written.
    """
    from sparse_probing.studies.datasheet.page import write_datasheet  # charts take half a second; `show` draws none

    chosen = {name: getattr(config, name) for name in RULE_OPTIONS}
    places = [folder if len(texts) == 1 else folder / _folder_name(text.category) for text in texts]
    for place, text in zip(places, texts, strict=True):
        check_free(place, text.category)
    try:
        for place, text in zip(places, texts, strict=True):
            place.mkdir(parents=True, exist_ok=True)
            remove_partials(place)
            write_dataset_folder(place, replace(text, rules=merged_rules(text.rules, chosen, text.level)))
            write_datasheet(place, [datasheet(text, dataset) | {"tokenizer": config.model}])
            write_json(place / "audit.json", {text.category: asdict(dataset.audits[text.category])})
    except OSError as error:
        raise PrerequisiteError(
            f"dataset folder {str(folder)!r} cannot be written ({error.strerror}): choose another --out."
        ) from None
    return places


def _folder_name(category: str) -> str:
    name = category.replace(" ", "-")
    return name if re.fullmatch(r"\w[\w.-]{,60}", name) else file_name(name)


def check_free(place: Path, category: str | None = None, *, file: bool = False) -> None:
    """A data set may be written to a folder that is new, empty, or holds a data set (of this category); or, with `file`, to a file
    that is new or an export.

    Raises:
        InputError: anything else is there, which would be lost.
    """
    if file and place.is_file():
        if not is_dataset_folder(place):
            raise InputError(f"{str(place)!r} is a file and no export of a data set: choose another name.")
        return
    if place.is_file():
        raise InputError(f"{str(place)!r} is a file, a data set needs a folder: choose another one.")
    if not (place.is_dir() and any(place.iterdir())):
        return
    if not is_dataset_folder(place):
        raise InputError(f"{str(place)!r} is not empty and holds no dataset: choose another folder.")
    if category is not None and (found := read_category(place)) != category:
        raise InputError(f"{str(place)!r} holds the data set {found!r}: choose another folder, or delete that one.")


def read_datasheet(folder: Path) -> list[dict[str, Any]]:
    """The datasheets of a dataset folder or a run, one per category.

    Raises:
        InputError: there is none.
    """
    for path in (folder / "datasheet.json", folder / "dataset" / "datasheet.json"):
        if path.is_file():
            return read_sheets(path, repr(str(folder)))
    raise InputError(
        f"{str(folder)!r} holds no datasheet.json: name a folder that `sprobe datasets build` or `export`, or `sprobe run` wrote."
    )
