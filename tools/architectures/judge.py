"""One type: built tiny, saved, read back through the public API, and compared with plain hooks."""

from __future__ import annotations

import re
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

import sparse_probing as sp
from sparse_probing.activations.effects import ScoredText, Variant, measure
from sparse_probing.activations.interventions import Intervention
from sparse_probing.activations.replay import NOWHERE
from sparse_probing.activations.sites import SITES
from sparse_probing.errors import SparseProbingError

from .reference import CORE, EXTRA, FAMILIES, PLAIN, body_of, losses, read, setting, stack_of
from .sizes import HEADS, text_types, tiny_config
from .verdicts import (
    MISSING,
    NONE,
    NOT_BUILT,
    PARTLY,
    REFUSED,
    RIGHT,
    SOME,
    TRACEBACK,
    UNCHECKED,
    WRONG,
    SiteVerdict,
    TypeVerdict,
)

TEXTS = (
    "Rain fell all night.",
    "Seven ships left the harbour before dawn.",
    "The clock struck 13, and nobody knew why; she folded the letter twice and hid it under the bread, then waited for rain.",
)
"""Of three lengths, read by the package in one padded batch, by the reference one by one."""
CLOSE = 1e-4
"""Largest difference, as a share of the largest value, that counts as rounding."""
CLOSE_LOSS = 1e-5
PYTHON_ERROR = re.compile(r"\b(Attribute|Type|Key|Index|Name|NotImplemented|Assertion)Error\b")
"""A sentence that quotes one of these says nothing to a user."""


def build(kind: str, folder: Path, layers: int, vocabulary: int) -> None:
    """A tiny model of a type with random weights, saved without tokenizer."""
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = head_class(kind)(tiny_config(kind, vocabulary, layers)).float()
    with torch.no_grad():
        for parameter in model.parameters():  # the usual initialisation is too close to zero to tell anything apart
            if parameter.is_floating_point():
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def head_class(kind: str) -> Any:
    """The class with which a type is built: encoder and decoder together, else to fill in masks, else to continue text.

    Where that is a class for the text part only, the wrapper is built as it is released, to answer questions about images.
    """
    names = next(HEADS[head][kind] for head in ("seq2seq", "masked", "causal") if head in text_types()[kind])
    found = getattr(transformers, names if isinstance(names, str) else names[0])
    if found.config_class is CONFIG_MAPPING[kind]:
        return found
    wrapper = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(kind)
    return getattr(transformers, wrapper) if wrapper else found


def judge(kind: str, tokenizer: Any, layers: int = 4) -> TypeVerdict:
    """Build, read and compare one type.

    Args:
        kind: `model_type`.
        tokenizer: fast tokenizer that is saved beside the weights.
        layers: blocks.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(place) / kind
        try:
            build(kind, folder, layers, len(tokenizer))
            plain: Any = head_class(kind).from_pretrained(folder, dtype=torch.float32).eval()
            read(body_of(plain), kind, [torch.arange(5)])
        except Exception as error:
            return TypeVerdict(kind, NOT_BUILT, _words(error), seconds=time.monotonic() - started)
        tokenizer.save_pretrained(folder)
        found = _judge(kind, plain, folder, Path(place) / "cache")
        found.note = found.note.replace(f"{place}/", "")
        for site in (*found.sites.values(), *([found.losses] if found.losses else [])):
            site.detail = site.detail.replace(f"{place}/", "")
    found.seconds = round(time.monotonic() - started, 2)
    return found


def _judge(kind: str, plain: Any, folder: Path, cache: Path) -> TypeVerdict:
    body = body_of(plain)
    found = TypeVerdict(kind, "", stack=stack_of(body, kind) or "")
    model = _attempt(lambda: sp.load_model(str(folder), device="cpu", dtype="float32", with_head=True))
    headless = model if isinstance(model, SiteVerdict) else None
    if headless:
        model = _attempt(lambda: sp.load_model(str(folder), device="cpu", dtype="float32"))
    if isinstance(model, SiteVerdict):
        found.verdict, found.note = model.verdict, model.detail
        return found
    window = min(64, model.context)
    dataset = _attempt(lambda: sp.every_token(TEXTS, model.tokenizer, window=window))
    if isinstance(dataset, SiteVerdict):
        found.verdict, found.note = dataset.verdict, dataset.detail
        return found
    starts = dataset.sequence_starts
    texts = [torch.from_numpy(dataset.tokens[a:b].astype(np.int64)) for a, b in pairwise(starts)]
    try:
        reading = read(body, kind, texts)
    except Exception as error:  # of transformers itself, on these texts
        found.verdict, found.note = NOT_BUILT, _words(error)
        return found
    found.states = reading.states
    rows = starts[dataset.row_sequence] + dataset.row_first
    offered: dict[str, tuple[Any, ...]] = {}
    for name in (*CORE, *(name for name in EXTRA if name in SITES)):
        units = _attempt(lambda name=name: sp.find_units(model, name))
        exists = any(site == name for site, _ in reading.values) or name in FAMILIES.get(kind, PLAIN).unread
        if not isinstance(units, SiteVerdict):
            offered[name] = units
        elif units.verdict == TRACEBACK:
            found.sites[name] = units
        else:
            refused = "cannot be trusted" in units.detail or "cannot be read" in units.detail
            found.sites[name] = SiteVerdict((REFUSED if refused else MISSING) if exists else NONE, units.detail)
    for name, values in _extracted(model, dataset, offered, cache).items():
        if isinstance(values, SiteVerdict):
            found.sites[name] = values
        else:
            found.sites[name] = _compared(name, values, offered[name], reading.values, rows, kind)
    right = {name: offered[name] for name, site in found.sites.items() if site.verdict in (RIGHT, SOME)}
    found.losses = headless or _losses(model, plain, kind, texts, right)
    found.verdict = _overall(found)
    return found


def _attempt(action: Callable[[], Any]) -> Any:
    """What an action gives, or what became of it."""
    try:
        return action()
    except SparseProbingError as error:
        quoted = PYTHON_ERROR.search(str(error))
        return SiteVerdict(TRACEBACK if quoted else REFUSED, str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = next((f for f in reversed(last) if "sparse_probing" in f.filename), last[-1])
        return SiteVerdict(TRACEBACK, f"{_words(error)} ({Path(ours.filename).name}:{ours.lineno})")


def _extracted(model: Any, dataset: Any, offered: dict[str, tuple[Any, ...]], cache: Path) -> dict[str, Any]:
    """Per site, layer -> values; all in one pass, or one by one where that fails."""

    def one(names: list[str]) -> Any:
        sites = [site for name in names for site in offered[name]]
        read = sp.extract(model, dataset, sites, dtype="float32", cache=cache)
        return {n: {site.layer: read[n].read(site.layer) for site in offered[n]} for n in names}

    together = _attempt(lambda: one(list(offered)))
    if not isinstance(together, SiteVerdict):
        return together
    alone: dict[str, Any] = {}
    for name in offered:
        got = _attempt(lambda name=name: one([name]))
        alone[name] = got if isinstance(got, SiteVerdict) else got[name]
    if not any(isinstance(values, SiteVerdict) for values in alone.values()):
        return dict.fromkeys(offered, together)  # only together do they fail
    return alone


def _compared(
    name: str, values: dict[int, np.ndarray], sites: Any, right: Any, rows: np.ndarray, kind: str
) -> SiteVerdict:
    existing = {layer for site, layer in right if site == name}
    modules = {site.layer: f"{site.module_path}:{site.side}" for site in sites}
    family = FAMILIES.get(kind, PLAIN)
    if not existing and name.startswith("resid") and not family.resid:
        return SiteVerdict(WRONG, f"offered, though {family.why_no_resid}")
    if not existing and name in EXTRA:
        return SiteVerdict(UNCHECKED, f"{len(values)} layers, no reference here")
    for layer, mine in sorted(values.items()):
        if layer not in existing:
            return SiteVerdict(WRONG, f"layer {layer}: reads {modules[layer]}, where the reference has no such site")
        true = right[name, layer][rows].numpy()
        if mine.shape != true.shape:
            return SiteVerdict(
                WRONG, f"layer {layer}: reads {modules[layer]}, shape {mine.shape}, right is {true.shape}"
            )
        scale, off = float(np.abs(true).max()), float(np.abs(mine - true).max())
        if not off <= CLOSE * max(scale, 1e-3):
            return SiteVerdict(
                WRONG, f"layer {layer}: reads {modules[layer]}, off by {off:.2g} at a scale of {scale:.2g}"
            )
    if lacking := sorted(existing - set(values)):
        return SiteVerdict(SOME, f"layers {lacking} have it, too")
    return SiteVerdict(RIGHT)


def _losses(model: Any, plain: Any, kind: str, texts: list[torch.Tensor], right: Any) -> SiteVerdict | None:
    """Bare losses and those with changed units, against the plain model with a hook."""
    if model.full is None:
        return None
    masked = model.objective == "masked token"
    targets = [ids.clone() if masked else torch.cat([ids[1:], torch.tensor([NOWHERE])]) for ids in texts]
    scored = [
        ScoredText(tokens=i.numpy(), targets=t.numpy(), number=n, labelled=np.ones(len(i), dtype=bool))
        for n, (i, t) in enumerate(zip(texts, targets, strict=True))
    ]
    chosen = [site for name in ("mlp.neurons", "attn.heads") for site in right.get(name, ())]
    if not chosen:
        return SiteVerdict(NONE, "no site that is right to be changed")
    site = max((s for s in chosen if s.name == chosen[0].name), key=lambda s: s.layer)
    units = tuple(range(0, site.width, 4))[:40]
    variant = Variant(interventions=(Intervention(site=site, units=units, values=np.full((1, len(units)), 1.5)),))
    got = _attempt(lambda: measure(model, scored, [variant]))
    if isinstance(got, SiteVerdict):
        return got
    bare = losses(plain, texts, targets, NOWHERE).numpy()
    with setting(body_of(plain), kind, site.name, site.layer, units, 1.5):
        changed = losses(plain, texts, targets, NOWHERE).numpy()
    if not np.abs(changed - bare).max() > 1e-4:
        return SiteVerdict(NONE, "the change has no effect in the reference")
    for label, mine, true in (("bare", got.loss[0], bare), ("changed", got.loss[1], changed)):
        off = float(np.abs(mine - true).max())
        if not off <= CLOSE_LOSS * max(1.0, float(np.abs(true).max())):
            return SiteVerdict(WRONG, f"{label} loss off by {off:.2g} ({site.name}, layer {site.layer})")
    return SiteVerdict(RIGHT, f"{site.name}, layer {site.layer}")


def _overall(found: TypeVerdict) -> str:
    verdicts = [site.verdict for site in found.sites.values()] + ([found.losses.verdict] if found.losses else [])
    for worst in (TRACEBACK, WRONG):
        if worst in verdicts:
            return worst
    decisive = [found.sites[name].verdict for name in CORE if name != "mlp.pre"]
    if all(verdict in (RIGHT, NONE) for verdict in decisive):
        return RIGHT
    return PARTLY if any(verdict in (RIGHT, SOME) for verdict in decisive) else REFUSED


def _words(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__
