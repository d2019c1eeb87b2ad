"""Weights of MLP neurons and of the vocabulary, with the norms folded in, found by watching one tiny forward pass.

Which linear map leads up to the neurons, which norm stands before it, which half of a fused map is the gate, by which factor the
MLP's output joins the residual stream: all of it is read off the numbers that pass between modules, and so holds for models that
no list knows. What the numbers do not confirm is refused with a reason.

Folding follows TransformerLens (`fold_ln`, `center_writing_weights`; Nanda and Bloom 2022): the norm's gain is multiplied into the
map that reads it, its shift goes into that map's bias, and where the norm is a LayerNorm, which takes away the mean over the
residual stream, reading and writing weights lose theirs. What remains of the norm is the division by the vector's size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sparse_probing.activations.roles import linear_shape
from sparse_probing.activations.sites import ModelSites
from sparse_probing.activations.wrapped import evaluating, reading_part
from sparse_probing.errors import InputError
from sparse_probing.records import NEURONS

PROBES = 64
"""Random vectors that a norm is measured with."""
HEAD = "the output embeddings"

Pair = tuple[Tensor, Tensor]
"""What entered a module and what left it, [token, width]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MlpWeights:
    """Weights of one layer's MLP, norm folded; one row per neuron, float32.

    A plain neuron is `act(w_in · n + b_in)`, a gated one `act(w_gate · n + b_gate) * (w_in · n + b_in)` (names of
    TransformerLens), where n is the residual stream, centred and divided by its size as the norm before the MLP does, without that
    norm's gain and shift.
    """

    w_in: Float[np.ndarray, "unit hidden"]
    b_in: Float[np.ndarray, " unit"]
    w_gate: Float[np.ndarray, "unit hidden"] | None
    b_gate: Float[np.ndarray, " unit"] | None
    w_out: Float[np.ndarray, "unit hidden"]
    """What one unit of activation adds to the residual stream."""
    centred: bool
    """The norm is a LayerNorm: it does not see the mean over the residual stream, and these weights have none."""
    further_norm: bool
    """The MLP's output passes a norm of its own (Gemma 2, OLMo 2): its gain is in `w_out`, its division, which depends on the
    token, is not."""
    post_norm: bool
    """The sum of residual stream and MLP is normed (BERT): what the MLP reads is the stream itself, and nothing was folded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Norm:
    """`gain * x / size(x) + shift`, x centred before where `centred`."""

    centred: bool
    gain: Tensor
    shift: Tensor
    module: nn.Module
    """A copy, float32."""

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """A map [output, hidden] of the norm's output, as a map of its input after centring and division."""
        shifted = weight @ self.shift + (0 if bias is None else bias)
        return _centred(weight * self.gain, yes=self.centred).numpy(), shifted.numpy()


class ModelWeights:
    """Weights of a model; only what is asked for is copied.

    Attributes:
        n_layers: number of blocks.
        logits_bent: logits are no multiple of what the output embeddings give (soft capping, as in Gemma 2).
    """

    def __init__(self, network: PreTrainedModel, sites: ModelSites) -> None:
        self._passes = _Passes(network, sites)
        self._sites = sites
        self.n_layers = sites.n_layers
        self.logits_bent = self._passes.logits is not None and self._logit_factor() is None

    def mlp(self, layer: int) -> MlpWeights:
        """Weights of one layer's neurons.

        Raises:
            InputError: no such layer, no MLP whose parts are understood, or weights that cannot be read.
        """
        passes, sites = self._passes, self._sites
        paths = [site.module_path for name in (NEURONS, "mlp.pre") for site in sites.named(name) if site.layer == layer]
        if len(paths) != 2 or not all(path in passes.seen for path in paths):
            raise self._refusal(f"the MLP of layer {layer}", "there is no such layer, or a forward pass leaves it out")
        (neurons, written), (before, after) = (passes.seen[path] for path in paths)
        within, width = f"{self._block(layer)}.", neurons.shape[1]
        inner = outer = passes.map_giving(within, width, lambda values: torch.equal(values, before))
        plain = passes.near(after, neurons)
        if not plain:
            outer = passes.map_giving(within, width, lambda values: passes.near(after * values, neurons))
        if inner is None or outer is None or not torch.equal(passes.seen[inner[0]][0], passes.seen[outer[0]][0]):
            what = "its neurons are neither an activation of a linear map nor that times another linear map"
            raise self._refusal(f"the MLP of layer {layer}", what)
        entered = passes.seen[inner[0]][0]
        further = next(passes.norms(within, takes=lambda x: torch.equal(x, written)), None)
        summed = passes.norms(within, takes=lambda x: passes.near(x - entered, written, among=x))
        post_norm = further is None and any(summed)
        norm, stream = (_no_norm(entered), entered) if post_norm else self._norm_before(layer, entered)
        scale = torch.ones(entered.shape[1])
        if not post_norm:
            gain, joined = (scale, written) if further is None else (further[2].gain, further[1])
            scale = gain * self._share(layer, stream, joined)
        w_in, b_in = norm.fold(*passes.matrix(*outer))
        w_gate, b_gate = (None, None) if plain else norm.fold(*passes.matrix(*inner))
        w_out = passes.matrix(paths[0], slice(None))[0].T * scale
        return MlpWeights(
            w_in=w_in,
            b_in=b_in,
            w_gate=w_gate,
            b_gate=b_gate,
            w_out=_centred(w_out, yes=norm.centred).contiguous().numpy(),
            centred=norm.centred,
            further_norm=further is not None,
            post_norm=post_norm,
        )

    def unembedding(self) -> Float[np.ndarray, "token hidden"]:
        """What each token's logit gains per component of the residual stream, before the final norm's division.

        The final norm's gain and a constant factor on the logits are folded in.

        Raises:
            InputError: no language-model head, or the residual stream does not lead to it by one norm alone.
        """
        passes, what = self._passes, "the path from neurons to logits"
        if passes.logits is None:
            raise self._refusal(what, "it has, or was loaded with, no language-model head that its neurons lead to")
        read, last = passes.seen[HEAD][0], passes.seen[self._block(self.n_layers - 1)][1]
        if any(passes.norms(f"{self._block(self.n_layers - 1)}.", gives=last)):
            raise self._refusal(what, "every block norms its sum, so no neuron adds to the logits directly")
        norm = next((n for x, _, n in passes.norms("", gives=read) if torch.equal(x, last)), None)
        if norm is None and not torch.equal(read, last):
            raise self._refusal(what, "more than a norm stands between the last block and the output embeddings")
        weight, _ = (norm or _no_norm(read)).fold(*passes.matrix(HEAD, slice(None)))
        weight *= np.float32(self._logit_factor() or 1)
        return weight

    def embedding(self) -> Float[np.ndarray, "token hidden"]:
        """Each token as it enters the residual stream, without its position; centred where norms are LayerNorms.

        Raises:
            InputError: embeddings are projected, or normed together with their positions.
        """
        passes, block = self._passes, self._block(0)
        rows, looked_up, entering = passes.embedding(), passes.embedded, passes.seen[block][0]
        if looked_up.shape != entering.shape:
            raise self._refusal("the embedding", "it is projected to another width on its way into the first block")
        norm = next((n for x, _, n in passes.norms("", gives=entering) if torch.equal(x, looked_up)), None)
        if norm is not None:
            with torch.inference_mode():
                rows = norm.module(rows)
        else:  # between two sequences, whatever is added at a position cancels
            first, second = (values.reshape(2, -1, values.shape[1]).diff(dim=0) for values in (looked_up, entering))
            factor = passes.factor(first, second)
            if factor is None:
                raise self._refusal("the embedding", "it is normed together with positions or other parts")
            rows *= factor
        return _centred(rows, yes=any(n.centred for _, _, n in passes.norms(f"{block}."))).numpy()

    def _norm_before(self, layer: int, entered: Tensor) -> tuple[_Norm, Tensor]:
        """The norm whose output enters the MLP, and what entered that norm; no norm where the stream itself enters."""
        passes, block = self._passes, self._block(layer)
        for stream, _, norm in passes.norms(f"{block}.", gives=entered):
            return norm, stream
        added = entered - passes.seen[block][0]
        if any(passes.near(left, added, among=entered) for _, left in passes.within(f"{block}.").values()):
            return _no_norm(entered), entered
        what = "what enters it is neither the output of a norm nor the residual stream"
        raise self._refusal(f"the MLP of layer {layer}", what)

    def _share(self, layer: int, stream: Tensor, joined: Tensor) -> float:
        """The factor with which the MLP's output joins the residual stream, alone or beside attention's output."""
        seen, after = self._passes.seen, self._passes.seen[self._block(layer)][1]
        attention = [s.module_path for s in self._sites.found if s.name == "attn.out" and s.layer == layer]
        parts = torch.stack([x.double().flatten() for x in (joined, *(seen[path][1] for path in attention))], 1)
        gained = (after - stream).double().flatten()
        factors = torch.linalg.lstsq(parts, gained[:, None]).solution[:, 0]
        share, missed = float(factors[0]), parts @ factors - gained
        told = missed.norm() <= 0.05 * parts[:, 0].norm() * abs(share)  # else its own part drowns in rounding
        if not told or not self._passes.near(parts @ factors, gained, among=after):
            raise self._refusal(f"the MLP of layer {layer}", "how its output joins the residual stream is unknown")
        return 1.0 if abs(share - 1) <= self._passes.tolerance else share

    def _logit_factor(self) -> float | None:
        assert self._passes.logits is not None
        return self._passes.factor(self._passes.seen[HEAD][1], self._passes.logits)

    def _block(self, layer: int) -> str:
        return self._sites.blocks[layer]

    def _refusal(self, what: str, reason: str) -> InputError:
        return InputError(f"{what} of {self._sites.model!r} cannot be read from the weights: {reason}.")


def read_weights(network: PreTrainedModel, sites: ModelSites) -> ModelWeights:
    """Watch a network read eight random tokens, to find its weights; it is left as it was.

    Args:
        network: with or without language-model head.
        sites: of its base model (`LoadedModel.sites`, or `find_sites`).

    Raises:
        InputError: the network holds no weights (meta device).
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        what = "are not in memory: load the model without a device map"
        raise InputError(f"the weights of {sites.model!r} {what}.")
    if len(sites.blocks) != sites.n_layers:
        what = "its layers are not modules of their own"
        raise InputError(f"the weights of {sites.model!r} cannot be read layer by layer: {what}.")
    return ModelWeights(network, sites)


class _Passes:
    """What passed between a network's modules while it read eight random tokens.

    Attributes:
        seen: module path (`HEAD` for the output embeddings) -> what entered it and what left it.
        embedded: what left the embedding module.
        logits: null without a language-model head that the neurons lead to.
        tolerance: relative error of the network's own arithmetic.
    """

    def __init__(self, network: PreTrainedModel, sites: ModelSites) -> None:
        self._model = sites.model
        self._base = reading_part(getattr(network, network.base_model_prefix, network))
        alone = (
            network.config.is_encoder_decoder or self._base is network
        )  # an encoder's neurons lead to its decoder first
        self._head = None if alone else network.get_output_embeddings()
        self._table: Any = self._base.get_input_embeddings()
        exact = all(p.dtype in (torch.float32, torch.float64) for p in network.parameters())
        self.tolerance, self._rounding = (2e-4, 1e-6) if exact else (3e-2, 1e-2)
        order = torch.randperm(self._table.num_embeddings, generator=torch.Generator().manual_seed(0))
        self._ids = order[order != (getattr(network.config.get_text_config(), "pad_token_id", None) or 0)][:8]
        self.seen: dict[str, Pair] = {}
        self.embedded = torch.empty(0)
        logits = getattr(self._run(self._base if self._head is None else network), "logits", None)
        self.logits = None if self._head is None or logits is None else _flat(logits)
        self._shape = self.seen[sites.blocks[0]][1].shape

    def _run(self, network: PreTrainedModel) -> Any:
        def watch(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
                entered, left = _values(arguments or named.get("hidden_states")), _values(result)
                if module is self._table:
                    self.embedded = _flat(result)
                elif entered is not None and left is not None:
                    self.seen[path] = (entered, left)

            return hook

        modules = [*self._base.named_modules(), *([] if self._head is None else [(HEAD, self._head)])]
        handles = [module.register_forward_hook(watch(path), with_kwargs=True) for path, module in modules]
        try:
            with torch.inference_mode(), evaluating(network):
                ids = self._ids.reshape(2, -1).to(self._table.weight.device)
                return network(input_ids=ids, attention_mask=torch.ones_like(ids))
        finally:
            for handle in handles:
                handle.remove()

    def within(self, prefix: str) -> dict[str, Pair]:
        """What passed the modules below a path."""
        return {path: pair for path, pair in self.seen.items() if path.startswith(prefix)}

    def map_giving(self, prefix: str, width: int, fits: Callable[[Tensor], bool]) -> tuple[str, slice] | None:
        """The linear map with as many outputs, or twice as many, that fit, or one half of which fits; and which outputs."""
        for path, (entered, left) in self.within(prefix).items():
            if linear_shape(self._base.get_submodule(path)) == (entered.shape[1], left.shape[1]):
                for first in range(0, left.shape[1], width) if left.shape[1] in (width, 2 * width) else ():
                    outputs = slice(first, first + width)
                    if fits(left[:, outputs]):
                        return path, outputs
        return None

    def norms(
        self, prefix: str, *, takes: Callable[[Tensor], bool] | None = None, gives: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor, _Norm]]:
        """Norms over the residual stream that take such values and gave just these: what entered, what left, the norm."""
        for path, (x, y) in self.within(prefix).items():
            if path == HEAD or not x.shape == y.shape == self._shape or torch.equal(x, y):
                continue
            if (gives is None or torch.equal(y, gives)) and (takes is None or takes(x)):
                norm = self._measured(path)
                if norm is not None:
                    yield x, y, norm

    def factor(self, a: Tensor, b: Tensor) -> float | None:
        """The number that turns a into b; null where there is none."""
        c = float((a.double() * b.double()).sum() / (a.double() ** 2).sum())
        return c if self.near(c * a, b) else None

    def near(self, a: Tensor, b: Tensor, among: Tensor | None = None) -> bool:
        """Whether two tensors differ by the network's rounding only.

        Args:
            a: one.
            b: the other, which gives the scale.
            among: larger values that b was the difference of.
        """
        slack = 0 if among is None else self._rounding * among.abs().max()
        return a.shape == b.shape and bool((a - b).abs().max() <= self.tolerance * b.abs().max() + slack)

    def matrix(self, path: str, outputs: slice) -> tuple[Tensor, Tensor | None]:
        """Weight [output, input] and bias of a linear map, float32, checked against what passed through it.

        Raises:
            InputError: the weight is quantised, elsewhere, or not all that the module does.
        """
        module: Any = self._head if path == HEAD else self._base.get_submodule(path)
        weight, bias = module.weight, getattr(module, "bias", None)
        if not weight.is_floating_point() or weight.ndim != 2 or weight.is_meta:
            what = "is quantised or not in memory: load the model as floating point without a device map"
            raise InputError(f"the weights of {self._model!r} cannot be read: {path} {what}.")
        weight = (weight.T if isinstance(module, Conv1D) else weight).detach()[outputs].to("cpu", torch.float32)
        bias = None if bias is None else bias.detach()[outputs].to("cpu", torch.float32)
        entered, left = self.seen[path]
        if not self.near(entered @ weight.T + (0 if bias is None else bias), left[:, outputs]):
            what = "does more than its weight says: merge adapters into the model"
            raise InputError(f"the weights of {self._model!r} cannot be read: {path} {what}.")
        return weight, bias

    def embedding(self) -> Tensor:
        """The rows [token, hidden] of the embedding module, with the factor that some apply (Gemma 3)."""
        weight = self._table.weight.detach().to("cpu", torch.float32)
        factor = self.factor(weight[self._ids], self.embedded)
        if factor is None:
            raise InputError(
                f"the embedding of {self._model!r} cannot be read: the module does more than look rows up."
            )
        return weight * factor

    def _measured(self, path: str) -> _Norm | None:
        """Gain and shift of a module without parts, from its answers to random vectors; null where it is no norm."""
        module = self._base.get_submodule(path)
        if any(True for _ in module.children()) or linear_shape(module) is not None:
            return None
        # large and off centre: the norm's epsilon vanishes, LayerNorm and RMSNorm differ
        x = 100 * (1 + torch.randn(1, PROBES, self._shape[1], generator=torch.Generator().manual_seed(1)))
        with torch.inference_mode():
            probe = copy.deepcopy(module).cpu().float()
            plus, minus = probe(x)[0], probe(-x)[0]
        odd, even = (plus - minus) / 2, (plus + minus) / 2
        for centred in (True, False):
            n = _normed(x[0], centred=centred)
            gain, shift = (n * odd).sum(0) / (n * n).sum(0), even.mean(0)
            if (n * gain + shift - plus).abs().max() <= 1e-4 * plus.abs().max():
                return _Norm(centred=centred, gain=gain, shift=shift, module=probe)
        return None


def _no_norm(like: Tensor) -> _Norm:
    width = like.shape[1]
    return _Norm(centred=False, gain=torch.ones(width), shift=torch.zeros(width), module=nn.Identity())


def _normed(x: Tensor, *, centred: bool) -> Tensor:
    x = _centred(x, yes=centred)
    return x / x.pow(2).mean(-1, keepdim=True).sqrt()


def _centred(x: Tensor, *, yes: bool) -> Tensor:
    return x - x.mean(-1, keepdim=True) if yes else x


def _values(values: Any) -> Tensor | None:
    """The hidden states among arguments or results, [token, width]; a copy, because some blocks add in place."""
    if isinstance(values, tuple | list):
        values = values[0] if values else None
    if not isinstance(values, Tensor) or not values.is_floating_point() or not values.ndim:
        return None
    return _flat(values)


def _flat(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float32, copy=True).reshape(-1, values.shape[-1])
