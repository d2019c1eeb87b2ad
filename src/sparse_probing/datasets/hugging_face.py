"""Rows of Hugging Face data sets: from a folder without further packages, by name through the optional extra `hub`.

A folder is what `save_to_disk` writes, or Parquet files whose names say their split (a clone of a repository of the hub or one of
its configurations, a folder of `dataset_folder.export_hugging_face`). Class labels are given by name, never as integers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl

from sparse_probing.datasets.readers import UNREADABLE, Row, check_column, check_whole, iter_rows
from sparse_probing.errors import InputError, PrerequisiteError, first_line
from sparse_probing.files import no_file
from sparse_probing.records import SPLIT_WORDS

PREFIX = "hf:"
BATCH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A public Hugging Face data set that a source can be built from."""

    name: str
    config: str | None
    columns: dict[str, str]
    """Column of our layout -> column of theirs (dots lead into nested columns)."""
    licence: str


_PILE = HubDataset(
    name="monology/pile-uncopyrighted",
    config=None,
    columns={"text": "text", "distribution": "meta.pile_set_name"},
    licence="other (differs by part; see the card)",
)
_TREEBANK = HubDataset(
    name="universal-dependencies/universal_dependencies",
    config="en_ewt",
    columns={name: name for name in ("sent_id", "text", "tokens", "upos", "feats", "head", "deprel")},
    licence="CC BY-SA 4.0",
)
HUB: dict[str, HubDataset] = {
    "natural-language": HubDataset(
        name="laurievb/open-lid-dataset",
        config=None,
        columns={"text": "text", "natural_language": "language", "source": "dataset_source"},
        licence="other (differs by source; see the card)",
    ),
    "programming-language": HubDataset(
        name="christopher/rosetta-code",
        config=None,
        columns={"text": "code", "code_language": "language_name", "doc": "task_name"},
        licence="GFDL",
    ),
    "kind-of-text": _PILE,
    "latex": _PILE,
    "compound-words": _PILE,
    "text-features": _PILE,
    "sequence-position": _PILE,
    "part-of-speech": _TREEBANK,
    "dependencies": _TREEBANK,
    "morphology": _TREEBANK,
    "relations": HubDataset(
        name="NeelNanda/counterfact-tracing",
        config=None,
        columns={
            name: name
            for name in (
                "relation_id", "relation", "relation_prefix", "subject", "relation_suffix", "prompt", "target_true", "target_false",
            )
        },
        licence="not stated",
    ),
}  # fmt: skip
"""Name of a source -> the public data set that it can be built from."""

VALUES: dict[str, dict[str, str]] = {
    "distribution": {
        "ArXiv": "latex",
        "Enron Emails": "web_email",
        "EuroParl": "europarl",
        "FreeLaw": "legal",
        "Github": "github",
        "Gutenberg (PG-19)": "fiction",
        "HackerNews": "hackernews",
        "PubMed Abstracts": "biomedical",
        "StackExchange": "stackexchange",
        "USPTO Backgrounds": "patents",
        "Ubuntu IRC": "ubuntu_irc",
        "Wikipedia (en)": "wikipedia",
    },
    "code_language": {
        "C": "c",
        "C#": "csharp",
        "C++": "cpp",
        "Go": "go",
        "Java": "java",
        "JavaScript": "javascript",
        "PHP": "php",
        "Python": "python",
        "Ruby": "ruby",
        "Rust": "rust",
        "TypeScript": "typescript",
        "UNIX Shell": "shell",
    },
    "natural_language": {
        "dan_Latn": "da", "deu_Latn": "de", "ell_Grek": "el", "eng_Latn": "en", "fin_Latn": "fi", "fra_Latn": "fr",
        "hun_Latn": "hu", "ita_Latn": "it", "nld_Latn": "nl", "pol_Latn": "pl", "por_Latn": "pt", "ron_Latn": "ro",
        "spa_Latn": "es", "swe_Latn": "sv",
    },
}  # fmt: skip
"""Column of ours -> spelling in the data sets of `HUB` -> our spelling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One split of a data set."""

    split: str
    files: list[Path]
    features: dict[str, Any]
    """Column -> what the data set says of its type."""


def is_hugging_face_folder(path: Path) -> bool:
    """Whether `folder_rows` reads a folder: one of `save_to_disk`, or Parquet files whose names say their split.

    True for an export of `dataset_folder`, too: ask `is_dataset_folder` first.
    """
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json")) or bool(_tables(path))


def folder_rows(path: Path) -> Iterator[tuple[str | None, Row]]:
    """Rows of a data set on disk with their split: `train`, `validation`, `test` or the data set's own name.

    The split is null where there is only one: then nothing is prescribed. Memory: a batch of rows, or for folders of
    `save_to_disk` one file, of which the library makes 500 MB at most.

    Raises:
        InputError: no such data set, or a file is missing or damaged.
    """
    parts = _parts(path)
    for part in parts:
        name = _namer(part.features)
        for file in part.files:
            for row in _rows(file):
                yield part.split if len(parts) > 1 else None, name(row)


def parse_hub_name(text: str) -> tuple[str, str | None]:
    """`hf:owner/name` or `hf:owner/name:config` -> name and configuration.

    Raises:
        InputError: anything else.
    """
    found = re.fullmatch(rf"{PREFIX}([\w.-]+(?:/[\w.-]+)?)(?::(.+))?", text)
    if found is None:
        raise InputError(
            f"{text!r} names no data set of the Hugging Face hub: write hf:owner/name or hf:owner/name:config."
        )
    return found[1], found[2]


def hub_rows(name: str, config: str | None = None) -> Iterator[tuple[str | None, Row]]:
    """Rows of a data set of the hub with their split (see `folder_rows`), streamed; code that comes with a data set is not run.

    Args:
        name: `owner/name`, or a local folder that `datasets.load_dataset` reads.
        config: configuration, where there are several.

    Raises:
        PrerequisiteError: the extra is not installed, or the hub is out of reach.
        InputError: no such data set, configuration or split, or no access.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise PrerequisiteError(
            f"reading {name!r} from the Hugging Face hub needs the extra: pip install 'sparse-probing[hub]'."
        ) from None
    return _hub_rows(load_dataset, name, config)


def mapped(
    rows: Iterable[tuple[str | None, Row]],
    columns: Mapping[str, str],
    values: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[tuple[str | None, Row]]:
    """Rows under our names; columns that are not named stay as they are.

    Args:
        rows: split and row.
        columns: column of ours -> column of theirs; dots lead into nested columns (`meta.pile_set_name`).
        values: column of ours -> their spelling of a value -> ours (see `VALUES`); other values stay.

    Raises:
        InputError: a column is missing; with the nearest one that is there.
    """
    for split, row in rows:
        ours = {name: _cell(row, column) for name, column in columns.items()}
        for name, spelling in (values or {}).items():
            if isinstance(value := ours.get(name), str):
                ours[name] = spelling.get(value, value)
        yield split, row | ours


# ---- folders ---------------------------------------------------------------------------------------------------------


def _parts(path: Path) -> list[_Part]:
    if (path / "dataset_dict.json").is_file():
        parts = [_saved(path / name, name) for name in _json(path / "dataset_dict.json", "splits", _are_names)]
    elif (path / "state.json").is_file():
        parts = [_saved(path, "")]
    else:
        files: dict[str, list[Path]] = {}
        for file, split in _tables(path).items():
            files.setdefault(split, []).append(file)
        parts = [_Part(split=split, files=paths, features=_table_features(paths[0])) for split, paths in files.items()]
    if not parts:
        raise InputError(
            f"{str(path)!r} is no Hugging Face data set: give a folder of save_to_disk, or one with Parquet files that are named "
            "after their splits (train, validation, test)."
        )
    return sorted(parts, key=lambda part: [*SPLIT_WORDS, part.split].index(part.split))


def _tables(path: Path) -> dict[Path, str]:
    """Parquet file -> split, for the files whose names say theirs."""
    found = {}
    for file in sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")]):
        words = [word for word in re.split(r"[^a-z]+", file.stem.lower()) if word in SPLIT_WORDS]
        if words:
            found[file] = SPLIT_WORDS[words[0]]
    return found


def _saved(folder: Path, split: str) -> _Part:
    return _Part(
        split=SPLIT_WORDS.get(split, split),
        files=[
            folder / Path(str(item["filename"])).name
            for item in _json(folder / "state.json", "_data_files", _are_files)
        ],
        features=_json(folder / "dataset_info.json", "features", _are_features) or {},
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _are_files(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and "filename" in item for item in value)


def _are_features(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _json(path: Path, field: str, is_right: Callable[[Any], bool]) -> Any:
    """A field of a JSON file of `save_to_disk`, of the type that it has there."""
    if not no_file(path):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            value = json.loads(path.read_bytes())[field]
            check_whole(value, str(path))
            if is_right(value):
                return value
    raise InputError(f"{str(path)!r} is missing or damaged: save the data set again.")


def _table_features(path: Path) -> dict[str, Any]:
    """What the library noted in a Parquet file of its own; nothing for the files of others."""
    try:
        return json.loads(pl.read_parquet_metadata(path)["huggingface"])["info"]["features"]
    except (KeyError, TypeError, RecursionError, *UNREADABLE):
        return {}


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        if _is_lfs_pointer(path):
            raise InputError(
                f"{str(path)!r} is a stand-in of Git LFS, not the file itself: run `git lfs pull` in its folder."
            )
        yield from iter_rows(path)
        return
    if problem := no_file(path):
        raise InputError(f"data file {str(path)!r} {problem}.")
    try:
        frame = pl.read_ipc_stream(path)
    except UNREADABLE as error:
        raise InputError(f"data file {str(path)!r} cannot be read: {first_line(error)}.") from None
    for batch in frame.iter_slices(BATCH):
        yield from batch.iter_rows(named=True)


def _is_lfs_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(30).startswith(b"version https://git-lfs")


# ---- the hub ---------------------------------------------------------------------------------------------------------


def _hub_rows(load: Callable[..., Any], name: str, config: str | None) -> Iterator[tuple[str | None, Row]]:
    try:
        parts = load(name, config, streaming=True)
        for key, part in parts.items():
            class_name = _namer(part.features.to_dict() if part.features else {})
            for row in part:
                yield SPLIT_WORDS.get(key, key) if len(parts) > 1 else None, class_name(dict(row))
    except ConnectionError as error:
        raise PrerequisiteError(
            f"data set {name!r} is out of reach ({first_line(error)}): check the network, or save it elsewhere with save_to_disk "
            "and give the folder."
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"data set {name!r} cannot be read from the Hugging Face hub: {first_line(error)}.") from None


# ---- names for class labels ------------------------------------------------------------------------------------------


def _is_class_label(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)


def _item(feature: Any) -> Any:
    """What a list holds, through any number of lists; other features as they are."""
    while True:
        if isinstance(feature, list) and feature:
            feature = feature[0]
        elif isinstance(feature, dict) and isinstance(feature.get("_type"), str) and "feature" in feature:
            feature = feature["feature"]
        else:
            return feature


def _namer(features: Any) -> Callable[[Any], Any]:
    """A function that gives the class labels in a value their names, at any depth."""
    feature = _item(features)
    if _is_class_label(feature):
        names = feature["names"]

        def name(value: Any) -> Any:
            if isinstance(value, list):
                return [name(item) for item in value]
            if not isinstance(value, int):
                return value
            return names[value] if 0 <= value < len(names) else None  # -1 stands for an unknown class

        return name
    inner = {}
    if isinstance(feature, dict) and not isinstance(feature.get("_type"), str):
        inner = {key: _namer(item) for key, item in feature.items()}
    if not any(function is not _same for function in inner.values()):
        return _same

    def rename(value: Any) -> Any:
        if isinstance(value, list):
            return [rename(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {key: inner.get(key, _same)(item) for key, item in value.items()}

    return rename


def _same(value: Any) -> Any:
    return value


def _cell(row: Row, column: str) -> object:
    if column in row:  # a name may have dots of its own
        return row[column]
    value, where = cast(object, row), "the data set"
    for key in column.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise InputError(f"{where} has no column {key!r}: it holds no columns but values such as {value!r:.40}.")
        check_column(key, value, where)
        value, where = value[key], f"{where}, column {key!r},"
    return value
