"""A finished run opened again: its model, rows and activations, made anew from its options and checked against its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from sparse_probing.activations.extract import extract, find_units
from sparse_probing.activations.forecast import Memory
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.memory import memory_needed
from sparse_probing.activations.models import load_model
from sparse_probing.activations.store import Activations
from sparse_probing.config import RunConfig, read_run_config
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.places import is_hugging_face
from sparse_probing.errors import InputError
from sparse_probing.inputs import build_dataset, labelled_text_of
from sparse_probing.progress import Reporter, Silent
from sparse_probing.ranking.statistics import class_moments
from sparse_probing.records import Site
from sparse_probing.results.run_folder import read_run
from sparse_probing.selection.exact import checked_problem
from sparse_probing.selection.problem import Problem
from sparse_probing.sweep.local_runner import task_data
from sparse_probing.sweep.plan import Task
from sparse_probing.sweep.run_task import feature_view


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenRun:
    """Everything that a run was made of and left behind."""

    folder: Path
    config: RunConfig
    manifest: dict[str, Any]
    tables: dict[str, pl.DataFrame]
    """Its tables by name, `findings` among them."""
    model: LoadedModel
    dataset: FeatureDataset
    sites: tuple[Site, ...]
    """Probed layers."""
    reporter: Reporter

    @cached_property
    def store(self) -> Activations:
        """Activations of its rows: from the cache, or from the model where the cache was cleared."""
        with self.reporter.stage("activations", len(self.dataset.tokens), "tok") as done:
            found = extract(
                self.model,
                self.dataset,
                self.sites,
                dtype=self.config.store_dtype,
                progress=done,
                notify=self.reporter.note,
            )
        return found[self.sites[0].name]

    def feature(self, category: str, feature: str) -> int:
        """Number of a feature in the dataset.

        Raises:
            InputError: the run has no such feature.
        """
        names = list(zip(self.dataset.categories, self.dataset.features, strict=True))
        if (category, feature) not in names:
            raise InputError(f"run {str(self.folder)!r} has no feature {feature!r} in category {category!r}.")
        return names.index((category, feature))


def model_of(config: RunConfig, **options: Any) -> LoadedModel:
    """The model that the options of a run name.

    Args:
        config: of the run.
        options: of `load_model`, beside or instead of the run's.
    """
    of_run = {name: getattr(config, name) for name in ("base", "device", "dtype", "device_map", "trust_remote_code")}
    return load_model(config.model, config.text_format(), **(of_run | options))


def memory_of(config: RunConfig) -> Memory | None:
    """What that model, and its untrained twin, will take in memory; null where that is unknown."""
    return memory_needed(
        config.model,
        base=config.base,
        device=config.device,
        dtype=config.dtype,
        models=1 + config.random_model,
        trust_remote_code=config.trust_remote_code,
    )


def open_model(
    folder: Path, *, with_head: bool = False, device: str | None = None, trust_remote_code: bool = False
) -> tuple[RunConfig, LoadedModel]:
    """Options and model of a run.

    Args:
        folder: of the run.
        with_head: see `load_model`.
        device: instead of the run's.
        trust_remote_code: run code that comes with the model; what the run's own options say does not count, a folder may come
            from anywhere.

    Raises:
        InputError: no run there, an unfinished one, or the model is not the one that the run probed.
    """
    manifest, _ = read_run(folder)
    config = read_run_config(folder)
    model = model_of(config, device=device or config.device, with_head=with_head, trust_remote_code=trust_remote_code)
    if model.fingerprint != manifest["identity"].get("weights"):
        raise InputError(
            f"model {config.model!r} is not the one that run {str(folder)!r} probed (other weights, precision or settings): name "
            "the run that was made with it, or probe it anew."
        )
    return config, model


def open_run(
    folder: Path,
    labelled: Sequence[LabelledText] | None = None,
    reporter: Reporter | None = None,
    *,
    with_head: bool = False,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> OpenRun:
    """Open a finished run.

    Args:
        folder: of the run.
        labelled: its labelled text, where it was made in Python.
        reporter: told about progress.
        with_head: load the language-model head, too.
        device: instead of the run's.
        trust_remote_code: run code that comes with the model, whatever the run's own options say.

    Raises:
        InputError: no run there, an unfinished one, or one whose model or data are not what they were.
    """
    reporter = reporter or Silent()
    manifest, tables = read_run(folder)
    with reporter.stage("load model", 1, "model") as done:
        config, model = open_model(folder, with_head=with_head, device=device, trust_remote_code=trust_remote_code)
        done(1)
    if labelled is None and config.data is None and config.source is None:
        raise InputError(
            f"run {str(folder)!r} was made from labelled text in Python: give the same text, verify(folder, labelled=...)."
        )
    if labelled is None and config.data is not None and not is_hugging_face(config.data) and not config.data.exists():
        raise InputError(
            f"run {str(folder)!r} was made from {str(config.data)!r}, which is not there: bring it back, or start from the folder "
            "that `sprobe run` was started in."
        )
    texts = list(labelled) if labelled is not None else labelled_text_of(config, reporter)
    with reporter.stage("build rows", sum(len(text.documents) for text in texts), "text") as done:
        dataset = build_dataset(config, texts, model, done)
    if dataset.content_hash() != manifest["identity"].get("dataset"):
        raise InputError(
            f"the labelled text of run {str(folder)!r} is not what it was: bring back the data that it was made from, or run again."
        )
    return OpenRun(
        folder=folder,
        config=config,
        manifest=manifest,
        tables=tables,
        model=model,
        dataset=dataset,
        sites=find_units(model, config.site, config.layers),
        reporter=reporter,
    )


def problem_of_run(
    folder: Path,
    category: str,
    feature: str,
    layer: int,
    reporter: Reporter | None = None,
    *,
    trust_remote_code: bool = False,
) -> Problem:
    """The selection problem of one feature at one layer of a finished run.

    Raises:
        InputError: no run, or one that has no such feature or layer.
    """
    opened = open_run(folder, reporter=reporter, trust_remote_code=trust_remote_code)
    f = opened.feature(category, feature)
    if layer not in [site.layer for site in opened.sites]:
        raise InputError(f"run {str(folder)!r} does not probe layer {layer}.")
    task = Task(layer=layer, category=category, features=(f,), exact=True)
    data = task_data(task, opened.dataset, opened.store)
    moments = class_moments(data.x[data.train], data.positive[data.train], data.eligible[data.train])
    return checked_problem(feature_view(task, data, 0, moments, opened.config.selection_ridge).problem)
