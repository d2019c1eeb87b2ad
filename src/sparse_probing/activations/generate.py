"""What a model writes, and how probable it finds given continuations, with some of its units changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import PreTrainedModel

from sparse_probing.activations.effects import Reads, ScoredText, Variant, check_finite, check_values, measure
from sparse_probing.activations.interventions import Intervention, intervening
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.models import no_head
from sparse_probing.activations.replay import NOWHERE
from sparse_probing.datasets.text_tokenizer import tokenize
from sparse_probing.errors import InputError
from sparse_probing.records import POOLINGS, Pooling, Site, task_rng

Where = Literal["all", "generated"]
"""Positions at which units are changed: all, or those from which a new token is predicted (the prompt's last token and what
follows), so that the rest of the prompt is read as usual."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    """A prompt and what the model wrote after it."""

    tokens: Int[np.ndarray, " position"]
    """Prompt (with the special token in front) and new tokens, without the one that ends a text."""
    n_prompt: int
    text: str
    """The new tokens as text."""

    @property
    def new(self) -> Int[np.ndarray, " token"]:
        """The new tokens."""
        return self.tokens[self.n_prompt :]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadUnit:
    """One unit that reads written text, and how its values become rows."""

    site: Site
    unit: int
    pooling: Pooling
    """`token`: each new token is a row; else the new tokens of a text are one row."""


@torch.inference_mode()
def generate(
    model: LoadedModel,
    prompt: str,
    interventions: Sequence[Intervention] = (),
    *,
    seed: int,
    tokens: int = 40,
    temperature: float = 0.8,
    where: Where = "all",
) -> Written:
    """Continue a prompt.

    Tokens are drawn by adding Gumbel noise to the logits and taking the largest (Gumbel-max), which draws from their softmax. The
    noise depends on seed and prompt only. So the same seed gives the same text whatever else is asked for, a text with an
    intervention departs from the text without it only where the intervention matters, and no global generator is touched. The
    checkpoint's own settings for generation (top k, repetition penalty, ...) are not used: they would hide what is measured.

    Args:
        model: a causal language model, loaded with its head.
        prompt: text to continue.
        interventions: changed units; none for the bare model.
        seed: of the noise.
        tokens: most new tokens; a text may end earlier.
        temperature: the logits are divided by it; 0 for the most probable token.
        where: see `Where`.

    Raises:
        InputError: a model that cannot continue text, a prompt without tokens, no room for it, or values that are too large.
    """
    full = _writer(model)
    check_values(model, interventions)
    start = _prompt_tokens(model, prompt, tokens)
    ends = _text_ends(full)
    noise = task_rng(seed, "generate", prompt)
    ids, seen, memory = start.tolist(), 0, None
    for _ in range(tokens):
        given: dict[str, Any] = {} if memory is None else {"past_key_values": memory}
        fed = torch.tensor([ids[seen:]], device=model.device)
        places = torch.arange(seen, len(ids), device=model.device)[None] >= len(start) - 1
        with (
            model.evaluating(),
            intervening(
                model.network, interventions, np.zeros(1, dtype=np.int64), places if where == "generated" else None
            ),
        ):
            mask = torch.ones((1, len(ids)), dtype=torch.long, device=model.device)
            output = full(input_ids=fed, attention_mask=mask, use_cache=True, **given)
        memory = getattr(output, "past_key_values", None)
        seen = 0 if memory is None else len(ids)  # a few architectures keep no keys and values: all is read again
        logits = output.logits[0, -1].double().cpu().numpy()
        check_finite(logits)
        scores = logits / temperature + noise.gumbel(size=len(logits)) if temperature > 0 else logits
        chosen = int(scores.argmax())
        if chosen in ends:
            break
        ids.append(chosen)
    return Written(tokens=np.array(ids), n_prompt=len(start), text=_new_text(model, ids, len(start)))


def continuation_log_probs(
    model: LoadedModel,
    prompt: str,
    continuations: Sequence[str],
    interventions: Sequence[Intervention],
    *,
    where: Where = "all",
) -> tuple[Float[np.ndarray, "2 continuation"], Int[np.ndarray, " continuation"]]:
    """How probable given continuations of a prompt are.

    Args:
        model: a causal language model, loaded with its head.
        prompt: text in front.
        continuations: texts that may follow, with their leading blank.
        interventions: changed units.
        where: see `Where`.

    Returns:
        Log probability (nats, summed over its tokens) of each continuation without and with the interventions, and its tokens.

    Raises:
        InputError: as `generate`; a continuation without tokens.
    """
    _writer(model)
    texts, counts = [], []
    for i, continuation in enumerate(continuations):
        new = _continuation_tokens(model, prompt, continuation)
        start = _prompt_tokens(model, prompt, len(new))
        texts.append(_scored(np.concatenate([start, new]), len(start), i))
        counts.append(len(new))
    variant = Variant(interventions=tuple(interventions), labelled_only=where == "generated")
    effects = measure(model, texts, [variant])
    sums = [np.bincount(effects.text, weights=-loss, minlength=len(texts)) for loss in effects.loss]
    return np.stack(sums), np.array(counts, dtype=np.int64)


def read_back(
    model: LoadedModel, written: Sequence[Written], unit: ReadUnit | None
) -> tuple[list[float | None], list[Float[np.ndarray, " _"]]]:
    """The bare model reads written texts: how probable it finds them, and what one unit says about them.

    Args:
        model: loaded with its head.
        written: texts from `generate`.
        unit: read at the new tokens; null for none.

    Returns:
        Per text the mean log probability (nats) of its new tokens, null where it has none; per text the unit's values, one row per
        token or one in all, none where the text has no new token or there is no unit.
    """
    log_probs: list[float | None] = [None] * len(written)
    values = [np.zeros(0)] * len(written)
    some = [i for i, text in enumerate(written) if len(text.new)]
    if not some:
        return log_probs, values
    texts = [_scored(written[i].tokens, written[i].n_prompt, i) for i in some]
    bounds = [(written[i].n_prompt, len(written[i].tokens)) for i in some]
    if unit is not None and unit.pooling is Pooling.TOKEN:
        rows = [(t, place, place + 1) for t, (first, last) in enumerate(bounds) for place in range(first, last)]
    else:
        rows = [(t, first, last) for t, (first, last) in enumerate(bounds)]
    owner, first, last = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    reads = None
    if unit is not None:
        pooling = np.full(len(rows), POOLINGS.index(unit.pooling))
        reads = Reads(units={unit.site: np.array([unit.unit])}, text=owner, first=first, last=last, pooling=pooling)
    effects = measure(model, texts, [], reads=reads)
    for t, i in enumerate(some):
        log_probs[i] = -float(effects.loss[0, effects.text == t].mean(dtype=np.float64))
        if unit is not None:
            values[i] = effects.read[unit.site][0, owner == t, 0].astype(np.float64)
    return log_probs, values


def _writer(model: LoadedModel) -> PreTrainedModel:
    if model.full is None:
        raise InputError(f"{model.name!r} cannot continue a text: {no_head(model)}.")
    if model.objective != "next token":
        raise InputError(
            f"{model.name!r} cannot continue a text: it was trained to fill in masked tokens; steer a causal language model."
        )
    return model.full


def _prompt_tokens(model: LoadedModel, prompt: str, room: int) -> Int[np.ndarray, " token"]:
    """Token ids of a prompt that leaves room for so many more, with the special tokens that the model expects in front."""
    ids = _tokens(model, prompt)
    model.check_tokens(int(ids.max(initial=0)))
    if not len(ids):
        raise InputError("the prompt is empty, and this model has no token for the start of a text: give some text.")
    if len(ids) + room > model.context:
        raise InputError(
            f"a prompt of {len(ids)} tokens and {room} more do not fit into the {model.context} tokens that {model.name!r} can "
            "read: shorten the prompt, or ask for fewer tokens."
        )
    return ids


def _continuation_tokens(model: LoadedModel, prompt: str, continuation: str) -> Int[np.ndarray, " token"]:
    """Tokens that the continuation adds to the prompt; its own tokens where both would merge at the seam."""
    front, whole = _tokens(model, prompt), _tokens(model, prompt, continuation)
    if np.array_equal(whole[: len(front)], front):
        new = whole[len(front) :]
    else:
        new = tokenize(model.tokenizer, [continuation])[0].ids.astype(np.int64)
    if not len(new):
        raise InputError(f"the continuation {continuation!r} has no tokens: give some text.")
    return new


def _tokens(model: LoadedModel, prompt: str, continuation: str = "") -> Int[np.ndarray, " token"]:
    for text in (prompt, continuation):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{text!r} is not valid Unicode: give prompts and continuations as UTF-8.")
    return model.tokenizer.prompt(prompt, continuation)


def _text_ends(full: PreTrainedModel) -> set[int]:
    end = getattr(full.generation_config, "eos_token_id", None)
    return set(end) if isinstance(end, list) else set() if end is None else {end}


def _new_text(model: LoadedModel, ids: list[int], n_prompt: int) -> str:
    """Decoded behind its prompt: some decoders strip the blank at the start of what they are given."""
    decode = model.tokenizer.backend.decode
    front, whole = decode(ids[:n_prompt]), decode(ids)
    return whole[len(front) :] if whole.startswith(front) else decode(ids[n_prompt:])


def _scored(tokens: Int[np.ndarray, " position"], n_prompt: int, number: int) -> ScoredText:
    """The tokens after the prompt are predicted; the positions that predict them are the labelled ones."""
    targets = np.append(tokens[1:], NOWHERE)
    targets[: n_prompt - 1] = NOWHERE
    return ScoredText(tokens=tokens, targets=targets, number=number, labelled=np.arange(len(tokens)) >= n_prompt - 1)
