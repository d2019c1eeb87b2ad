"""What the options name: labelled text, and its rows for a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

from sparse_probing.activations.model_text import ModelText
from sparse_probing.config import DataConfig
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.conllu import ENDINGS as CONLLU_ENDINGS
from sparse_probing.datasets.conllu import read_conllu
from sparse_probing.datasets.dataset_folder import is_dataset_folder, read_dataset_folder
from sparse_probing.datasets.draw import Draw
from sparse_probing.datasets.feature_dataset import FeatureDataset, concatenate
from sparse_probing.datasets.labelled_text import Document, LabelledText
from sparse_probing.datasets.own_labels import (
    labelled_by,
    labelled_documents,
    labelled_spans,
    labelled_tags,
    parse_labeller,
)
from sparse_probing.datasets.own_rows import Data, Reading
from sparse_probing.datasets.places import SPLIT_KEY, is_hugging_face, rows_with_split
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.sources import BuildOptions, build_source, demo_corpus
from sparse_probing.datasets.templates import filled_templates
from sparse_probing.errors import InputError
from sparse_probing.progress import Reporter, Silent
from sparse_probing.records import task_rng

LEVELS: dict[str, Literal["token", "span"]] = {"tokens": "token", "spans": "span"}
RULE_OPTIONS = tuple(field.name for field in fields(SamplingRules) if field.name in DataConfig.model_fields)
"""Options of a run that are fields of `SamplingRules`; null leaves the choice to the source, or to the default."""


def labelled_text_of(config: DataConfig, reporter: Reporter | None = None) -> list[LabelledText]:
    """The labelled text that the options name.

    Raises:
        InputError: no data named, options that do not go together, or data that cannot be read.
        PrerequisiteError: data of the Hugging Face hub without the extra or without network.
    """
    if config.source == "demo":
        return [_drawn(text, config) for text in demo_corpus.demo_categories()]
    if config.data is None:
        raise InputError("no data named: give --data FILE with --label COLUMN, or --source NAME with --data FOLDER.")
    if config.source is not None:
        _refuse_others(config, "--source", ())
        return [_from_source(config, config.source, config.data, reporter or Silent())]
    _check_there(config.data)
    with (reporter or Silent()).stage("read data", None, "category") as done:
        texts = _from_file(config, config.data)
        done(len(texts))
    return texts


def _from_file(config: DataConfig, data: Path) -> list[LabelledText]:
    """Labelled text of a file, a dataset folder or a Hugging Face data set."""
    if is_dataset_folder(data):
        _refuse_others(config, "a dataset folder", ())
        return [_drawn(read_dataset_folder(data), config)]
    if data.name.endswith(CONLLU_ENDINGS):
        _refuse_others(config, "a .conllu file", ("label", "rows", "category"))
        if not config.label:
            raise InputError(
                f"no label named for {str(data)!r}: give --label upos, xpos, deprel or feats.Tense (any attribute)."
            )
        return [
            _drawn(read_conllu(data, labels=config.label, category=config.category, level=LEVELS[config.rows]), config)
        ]
    return [_own_labels(config, data)]


def _check_there(place: Path) -> None:
    if is_hugging_face(place) or place.is_file() or (place.is_dir() and is_dataset_folder(place)):
        return
    if not place.exists():
        raise InputError(f"{str(place)!r} does not exist: check the path.")
    inside = (
        sorted(str(path) for path in place.iterdir() if path.is_dir() and is_dataset_folder(path))
        if place.is_dir()
        else []
    )
    hint = f"it holds {', '.join(inside)}." if inside else "with --source, name the source."
    raise InputError(
        f"folder {str(place)!r} is no data set (of `sprobe datasets build`, save_to_disk, or Parquet files named after splits): "
        f"{hint}"
    )


LABEL_OPTIONS = (
    "label", "number", "positive", "label_regex", "text_column", "spans_column", "tags_column", "tokens_column", "template",
    "target", "rows", "category", "group_column", "pair_column", "split_column",
)  # fmt: skip
"""Options that say where labels, texts and groups stand; each way of labelling reads some of them."""
WHOLE_TEXTS = "whole texts"
PARTNERS = {
    "rows": "labelled characters: --spans-column, --tags-column, --label-regex or a .conllu file",
    "target": "--template",
    "tokens_column": "--tags-column",
}
"""Options that mean something beside another one only."""


def _refuse_others(config: DataConfig, way: str, used: Sequence[str]) -> None:
    """An option that would be ignored is a misunderstanding."""
    for name in LABEL_OPTIONS:
        if name not in used and getattr(config, name) != DataConfig.model_fields[name].default:
            option = f"--{name.replace('_', '-')}"
            if way == WHOLE_TEXTS and name in PARTNERS:
                raise InputError(f"{option} needs {PARTNERS[name]}.")
            raise InputError(f"{option} has no meaning with {way}: leave out one of the two.")


def _drawn(labelled: LabelledText, config: DataConfig) -> LabelledText:
    """At most so many documents as the options want."""
    if config.max_documents is None or len(labelled.documents) <= config.max_documents:
        return labelled
    draw: Draw[None, Document] = Draw(config.max_documents, config.seed)
    for document in labelled.documents:
        draw.offer(None, document.id, document)
    said = f"{config.max_documents:,} of {len(labelled.documents):,} texts were drawn (seed {config.seed})."
    return replace(labelled, documents=tuple(d for _, d in draw.drawn()), notes=(*labelled.notes, said))


def _from_source(config: DataConfig, name: str, place: Path, reporter: Reporter) -> LabelledText:
    with reporter.stage("read source", None, "row") as done:
        options = BuildOptions(
            seed=config.seed,
            paper_rules=config.paper_rules,
            most=config.max_documents,
            window=config.window or SamplingRules().window,
            progress=done,
        )
        return build_source(name, place, options)


def _own_labels(config: DataConfig, place: Path) -> LabelledText:
    """A user's file or Hugging Face data set, labelled in the way that the options say."""
    data, left_out = place, Counter[str]()
    reading = Reading(
        group_column=config.group_column,
        split_column=config.split_column,
        most=config.max_documents,
        seed=config.seed,
        category=config.category,
    )
    if is_hugging_face(place):
        data, has_splits, left_out = rows_with_split(place)
        reading["category"] = config.category or config.data_name()
        if has_splits and config.split_column is None:
            reading["split_column"] = SPLIT_KEY
    labelled = _labelled(config, data, reading)
    said = tuple(f"{n:,} rows of the split {name!r} were left out." for name, n in sorted(left_out.items()))
    return replace(labelled, notes=(*said, *labelled.notes))


def _labelled(config: DataConfig, data: Data, reading: Reading) -> LabelledText:
    level, text, groups = LEVELS[config.rows], config.text_column, ("group_column", "split_column", "category")
    if config.template:
        _refuse_others(config, "--template", ("template", "label", "number", "positive", "target", *groups))
        return filled_templates(
            data,
            templates=config.template,
            labels=config.label,
            numbers=config.number,
            positive=config.positive,
            target=config.target,
            **reading,
        )
    if config.label_regex:
        _refuse_others(config, "--label-regex", ("label_regex", "text_column", "rows", *groups))
        labellers = dict(map(parse_labeller, config.label_regex))
        if len(labellers) < len(config.label_regex):
            raise InputError("two of the regular expressions have the same name: join them with |, or rename one.")
        return labelled_by(data, labellers, text_column=text, level=level, **reading)
    if config.tags_column is not None:
        _refuse_others(config, "--tags-column", ("tags_column", "tokens_column", "rows", *groups))
        tokens, tags = config.tokens_column, config.tags_column
        return labelled_tags(data, tokens_column=tokens, tags_column=tags, level=level, **reading)
    if config.spans_column is not None:
        _refuse_others(config, "--spans-column", ("spans_column", "text_column", "rows", *groups))
        return labelled_spans(data, spans_column=config.spans_column, text_column=text, level=level, **reading)
    if not (config.label or config.number):
        raise InputError(
            f"no label column named for {str(config.data)!r}: give --label COLUMN (or --number, --spans-column, --tags-column, "
            "--label-regex)."
        )
    _refuse_others(config, WHOLE_TEXTS, ("label", "number", "positive", "text_column", "pair_column", *groups))
    return labelled_documents(
        data,
        labels=config.label,
        numbers=config.number,
        positive=config.positive,
        text_column=text,
        pair_column=config.pair_column,
        **reading,
    )


def build_dataset(
    config: DataConfig, texts: Sequence[LabelledText], model: ModelText, done: Callable[[int], None] = lambda _: None
) -> FeatureDataset:
    """Rows of all categories, tokenized for the model.

    Args:
        config: options of the run; those left open are taken from the text's own recommended rules.
        texts: one per category.
        model: its tokenizer and its longest sequence.
        done: told how many documents were tokenized.

    Raises:
        InputError: a window that the model cannot take, texts that cannot be used.
    """
    if config.window is not None and config.window > model.context:
        raise InputError(
            f"a window of {config.window} tokens does not fit {model.name!r}, which takes {model.context}: use "
            f"--window {model.context} or less (longer texts are cut into windows, or refused with --long-texts error)."
        )
    chosen = {name: getattr(config, name) for name in RULE_OPTIONS}
    parts = []
    for text in texts:
        rules = SamplingRules().adapted(text.rules, chosen, level=text.level)
        rules = replace(rules, window=min(rules.window, model.context))
        if rules.window <= rules.skip_first:
            raise InputError(
                f"window ({rules.window}) must be larger than skip_first ({rules.skip_first}): use a larger --window, or a smaller "
                "--skip-first."
            )
        rng = task_rng(config.seed, "rows", text.category)
        parts.append(build_feature_dataset(text, model.tokenizer, rules, rng, done))
    return concatenate(parts)
