"""A look at a loaded model before anything is measured with it: does each text have its own values, whatever stands beside it?

Three short texts are read alone and in a padded batch, through the code that reads everything else. A model whose values change
with padding is read one length at a time; a site whose values change even then is refused. So is a residual stream that is none of
the hidden states that transformers reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from sparse_probing.activations.batches import is_out_of_memory, per_token, right_padded
from sparse_probing.activations.hooks import watching
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.loading import brief
from sparse_probing.activations.trace import Call, Trace, embeddings, first_tensor
from sparse_probing.datasets.text_tokenizer import TextTokenizer, tokenize
from sparse_probing.errors import InputError
from sparse_probing.records import Site

TEXTS = (
    "Short words.",
    "The harbour was frozen in March.",
    "In 1998 she wrote two letters, and nobody answered either of them.",
)
LENGTHS = (6, 17, 75)
"""Tokens of each text, special tokens aside. Models that pool positions need a few (Funnel); the last is longer than the chunks
in which some models read (Reformer)."""
LAYERS = 8
"""At most so many layers of a site are compared, evenly spread: deep models give more numbers than memory should hold."""
EXACT = 1e-3
"""Largest relative difference of one token's vector in float32. Padding changes values by rounding only, which is some 1e-6; models
that depend on it differ by 1e-2 and more."""
ROUGH = 0.1
"""The same in float16 and bfloat16, as a mean over tokens: rounding alone may send single tokens to other experts."""
WIDEST = 2**16
"""Units of the widest site that is compared: the neurons of all experts of a layer can be half a million."""

Values = dict[Site, Tensor | None]
"""Site -> [sequence, position, unit], null where there is no vector per token."""
OUTPUT = Site(name="the last hidden state", layer=-1, width=0, module_path="", side="output")
"""What the whole network gives: losses depend on it, and it may depend on padding where the sites do not (Funnel)."""


def check_sequences(tokenizer: TextTokenizer, network: nn.Module, context: int) -> list[Int[np.ndarray, " _"]]:
    """Token ids of three texts of different lengths, shortest first.

    Args:
        tokenizer: of the model.
        network: whose embeddings the tokens must have.
        context: longest sequence that the model takes.
    """
    weight = getattr(embeddings(network), "weight", None)
    table = len(weight) if isinstance(weight, Tensor) else None
    around = len(tokenizer.front) + len(tokenizer.behind)
    sequences: list[np.ndarray] = []
    for text, length in zip(tokenize(tokenizer, TEXTS), LENGTHS, strict=True):
        inside = ((text.ids.tolist() or [0]) * length)[: max(1, min(length, context - around))]
        ids = [*tokenizer.front, *inside, *tokenizer.behind]
        # a token beyond the embedding is refused where rows have it
        known = [i if table is None or i < table else i % table for i in ids]
        sequences.append(np.array(known, dtype=np.int64))
    return sequences


def check_model(model: LoadedModel, trace: Trace, sequences: Sequence[Int[np.ndarray, " _"]]) -> LoadedModel:
    """The model with what its check found: whether texts may be padded, and without the sites that cannot be trusted.

    Args:
        model: as loaded.
        trace: of a pass over one of the sequences.
        sequences: token ids of some texts of different lengths.

    Raises:
        InputError: its values are no numbers.
    """
    unpadded = replace(model, padded=False)
    try:
        alone = [read_all(unpadded, [sequence]) for sequence in sequences]
    except Exception as error:
        _check_memory(error)
        raise InputError(f"model {model.name!r} cannot read a text: {brief(error)}.") from None
    _check_numbers(model, trace)
    refused = _other_states(model, trace)
    changes = _changes(model, alone, _read_together(model, sequences), sequences)
    if changes:
        site, size = max(changes.items(), key=lambda item: item[1])
        where = site.name if site == OUTPUT else f"{site.name}, layer {site.layer}"
        remark = (
            f"{model.name!r} gives a text other values when it is padded (by {size:.2g} of their size at {where}): texts are read "
            "one length at a time, which takes longer."
        )
        model = replace(model, padded=False, remarks=(*model.remarks, remark))
        last = sequences[-1]
        beside = _read_together(model, [last, np.roll(last, 1)])
        for site, size in _changes(model, alone[-1:], beside, [last]).items():
            what = f"a text beside another one of its length has other values (by {size:.2g} of their size, layer {site.layer})"
            refused.setdefault(site.name, f"site {site.name} of {model.name!r} cannot be trusted: {what}.")
    found = tuple(site for site in model.sites.found if site.name not in refused)
    return replace(model, sites=replace(model.sites, found=found, absent=model.sites.absent | refused))


def _read_together(model: LoadedModel, sequences: Sequence[Int[np.ndarray, " _"]]) -> Values:
    """What every site gives for a batch; nothing where the model cannot read the batch (Funnel, with padding)."""
    try:
        return read_all(model, sequences)
    except Exception as error:
        _check_memory(error)
        return dict.fromkeys((OUTPUT, *model.sites.found))


def _check_memory(error: Exception) -> None:
    if isinstance(error, MemoryError | InputError) or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
        raise error


@torch.inference_mode()
def read_all(model: LoadedModel, sequences: Sequence[Int[np.ndarray, " _"]]) -> Values:
    """What every site gives for a batch."""
    ids, mask = right_padded(model, sequences)
    found: Values = {}

    def take(site: Site, values: Tensor) -> None:
        kept = per_token(values, ids.shape)
        found[site] = None if kept is None else kept.detach().to("cpu", torch.float32, copy=True)

    layers = sorted({site.layer for site in model.sites.found})
    some = {layers[i] for i in np.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).round().astype(int)}
    sites = [site for site in model.sites.found if site.width <= WIDEST and site.layer in some]
    with model.evaluating(), watching(model.network, sites, take):
        result = model.network(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
    last = first_tensor(result)
    if last is not None and per_token(last, ids.shape) is not None:
        take(OUTPUT, last)
    return found


def _changes(
    model: LoadedModel, alone: Sequence[Values], together: Values, sequences: Sequence[np.ndarray]
) -> dict[Site, float]:
    """Sites whose values depend on what else is in the batch, and by how much of their size."""
    exact = model.network.dtype in (torch.float32, torch.float64)
    found: dict[Site, float] = {}
    for site, batch in together.items():
        differences: list[Tensor] = []
        for i, (values, sequence) in enumerate(zip(alone, sequences, strict=True)):
            single = values.get(site)
            if single is None or batch is None:
                differences.append(torch.tensor([torch.inf]))
                continue
            one, other = single[0, : len(sequence)], batch[i, : len(sequence)]
            size = one.norm(dim=-1)
            size = size.clamp(min=1e-3 * float(size.max()) + 1e-30)  # a token that is almost zero beside the others
            differences.append((one - other).norm(dim=-1) / size)
        worst = torch.cat(differences).max() if exact else torch.cat(differences).mean()
        if not worst <= (EXACT if exact else ROUGH):
            found[site] = float(worst)
    return found


def _check_numbers(model: LoadedModel, trace: Trace) -> None:
    for site in sorted(model.sites.found, key=lambda site: site.layer):
        call = call_of(model, trace, site)
        values = None if call is None else call.entered if site.side in ("input", "experts") else call.left
        if values is not None and values.isnan().any():
            raise InputError(
                f"model {model.name!r} gives values that are no numbers (NaN) from layer {site.layer} on, at {site.name}, in "
                f"{str(model.network.dtype).removeprefix('torch.')}: try --dtype float32, or download the weights again."
            )


def _other_states(model: LoadedModel, trace: Trace) -> dict[str, str]:
    """Why residual sites are refused, where no layer is among the hidden states that transformers reports."""
    states = [state for state in trace.hidden_states if state.ndim == 3]
    inner = [site for site in model.sites.found if site.name == "resid.pre" and site.layer > 0]
    if not states or not inner or any(reported(model, trace, site) for site in inner):
        return {}
    entered = [c.entered for site in inner if (c := call_of(model, trace, site)) and c.entered is not None]
    if any(values.ndim == 3 and values.shape[1] > trace.length for values in entered):
        what = "it adds tokens of its own, and which of its positions are the text's is unknown"
        return dict.fromkeys({s.name for s in model.sites.found}, f"{model.name!r} cannot be read: {what}.")
    what = "no block passes on what transformers reports as hidden states"
    return dict.fromkeys(("resid.pre", "resid.post"), f"the residual stream of {model.name!r} cannot be read: {what}.")


def call_of(model: LoadedModel, trace: Trace, site: Site) -> Call | None:
    """The call in which a site is read, null where the pass had none."""
    module = model.network.get_submodule(site.module_path)
    calls = (call for call in trace.calls if call.module is module and call.number == (site.call or 0))
    return next(calls, None)


def reported(model: LoadedModel, trace: Trace, site: Site) -> bool:
    """Whether a residual site is one of the hidden states that transformers reports."""
    call = call_of(model, trace, site)
    values = None if call is None else call.entered if site.side == "input" else call.left
    values = None if values is None else per_token(values, (1, trace.length))
    return values is not None and any(near(model, values, state) for state in trace.hidden_states)


def near(model: LoadedModel, a: Tensor, b: Tensor) -> bool:
    """Whether two tensors differ by the model's rounding only."""
    tolerance = 1e-4 if model.network.dtype in (torch.float32, torch.float64) else 3e-2
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * b.abs().max())
