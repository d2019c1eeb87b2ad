"""What a type's sites are, by name and by hand, and their values from plain hooks on a plain transformers model.

Nothing here comes from the package's own search: the tables below say which module of a block is the MLP's last map, which the
attention's. Each text is read alone, without padding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .mixtures import EXPERTS, ROUTERS, expert_neurons, router_probabilities

CORE = ("mlp.neurons", "mlp.pre", "mlp.out", "attn.heads", "attn.out", "resid.pre", "resid.post")
EXTRA = ("mlp.shared.neurons", "moe.router", "moe.experts.neurons")
"""Of some mixtures of experts; judged, but no part of a type's verdict."""

STACKS = (
    "language_model.layers", "language_model.model.layers", "model.layers", "layers", "h", "encoder.layer",
    "encoder.layers", "blocks", "block", "transformer.layer", "decoder.layers", "layer", "text_model.layers",
    "text_model.encoder.layer", "attentions",
)  # fmt: skip
"""Where the blocks of the part that reads text may stand; the first that is there is meant."""
DOWN = (
    "mlp.down_proj", "mlp.c_proj", "mlp.fc2", "mlp.fc_out", "mlp.dense_4h_to_h", "mlp.Wo", "mlp.wo", "mlp.w2",
    "feed_forward.down_proj", "feed_forward.w2", "feed_forward.value", "feed_forward.output",
    "feed_forward.output.dense", "output.dense", "fc2", "ffn.fc2", "ffn.lin2", "ffn.2", "ffn.ffn.w_out",
    "ffn.down_proj", "ffn.proj_down", "ffn.linear_2", "mlp_block.down_proj", "layer.1.DenseReluDense.wo",
    "layer.1.mlp.wo", "ff.layer_2", "mixer.down_proj", "ffn_output", "shared_transformer.feed_forward.down_proj",
    "shared_transf.feed_forward.down_proj", "zamba_mlp.down_proj",
)  # fmt: skip
"""The MLP's map back to the residual stream, within a block."""
PRE = (
    "shared_transformer.feed_forward.act_fn<", "shared_transf.feed_forward.gate_proj", "mlp.gate_proj",
    "mlp.dense_h_to_4h", "mlp.c_fc", "mlp.fc1", "mlp.fc_in", "mlp.up_proj", "mlp.Wi/2", "mlp.wi_0", "mlp.wi",
    "mlp.gate_up_proj/2", "mlp.w1", "feed_forward.gate_proj", "feed_forward.w1", "feed_forward.key",
    "feed_forward.intermediate", "feed_forward.dense.dense", "intermediate.dense", "fc1", "ffn.fc1", "ffn.lin1",
    "ffn.0", "ffn.ffn.w_in.w_0", "ffn.gate_proj", "ffn.up_proj", "ffn.proj_up_gate", "ffn.linear_1",
    "mlp_block.gate_proj", "layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi", "layer.1.mlp.wi",
    "ff.layer_1", "mixer.up_proj", "ffn",
)  # fmt: skip
"""The map whose output enters the nonlinearity (`/2`: the first half of it), or with `<` a module that it enters."""
OUT = (
    "self_attn.o_proj", "self_attn.out_proj", "self_attn.dense", "attention.output.dense", "attn.c_proj",
    "attn.out_proj", "attn.Wo", "attn.attention.out_proj", "attention.dense", "self_attention.dense",
    "attention.out_lin", "attention.attn.o", "linear_attn.out_proj", "linear_attn.o_proj",
    "layer.0.SelfAttention.o", "layer.0.LocalSelfAttention.o", "attention.output", "multi_head_attention.dense",
    "self_att.self_attention.attention_out", "attention.self_attention.attention_out",
    "self_attn.output_projection.o_proj", "mixer.o_proj", "attention.o_proj", "attention.post_proj",
    "shared_transformer.self_attn.o_proj", "shared_transf.self_attn.o_proj", "self_attn.output",
    "norm_attn_norm.attn.out_proj", "temporal_block.o_proj", "self_attn.o_b_proj", "self_attn.wo", "out_lin", "attn.o_proj",
)  # fmt: skip
"""The attention's output projection."""
SHARED = (
    "mlp.shared_experts.down_proj", "mlp.shared_expert.down_proj", "mlp.shared_mlp.down_proj",
    "feed_forward.shared_expert.down_proj", "shared_mlp.output_linear", "shared_mlp.down_proj",
    "mlp.shared_experts.shared_down_proj", "mixer.shared_experts.down_proj", "moe.shared_experts.down_proj",
    "feed_forward.shared_experts.down_proj",
)  # fmt: skip
"""The down projection of the expert that every token meets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Where a type leaves the general tables."""

    stack: str | None = None
    down: tuple[str, ...] = DOWN
    pre: tuple[str, ...] = PRE
    out: tuple[str, ...] = OUT
    repeats: bool = False
    """One block is called once per layer."""
    resid: bool = True
    """The residual stream is one vector per token, which enters and leaves each block."""
    surplus_in_front: bool = False
    """The model puts positions of its own before the text's."""
    parallel: tuple[str, str, str] | None = None
    """Down projection, first map and output projection of layer `{}`, where no module is the whole block; the residual stream is
    what `hidden_states` says."""
    heads: str | None = None
    """The module that the heads enter, where that is not the output projection; its input is flattened per token."""
    why_no_resid: str = ""
    unread: tuple[str, ...] = ()
    """Sites that the model has, but that are not read here."""


XLM = Family(stack="attentions", parallel=("ffns.{}.lin2", "ffns.{}.lin1", "attentions.{}.out_lin"), resid=False)
STREAMS = "it has several residual streams"
FAMILIES: dict[str, Family] = {
    "albert": Family(stack="encoder.albert_layer_groups.0.albert_layers.0", repeats=True),
    "cpmant": Family(surplus_in_front=True),
    "deepseek_v4": Family(heads="self_attn.o_a_proj", resid=False, why_no_resid=STREAMS),
    "flaubert": XLM,
    "funnel": Family(stack="encoder.blocks.*"),
    "gemma3n_text": Family(pre=("mlp.act_fn<",), resid=False, why_no_resid=STREAMS),
    "hy_v4": Family(resid=False, why_no_resid=STREAMS),
    "longcat_flash": Family(unread=("mlp.neurons", "mlp.out", "attn.heads", "attn.out")),  # two of each in a block
    "squeezebert": Family(
        unread=("mlp.neurons", "mlp.out", "attn.heads", "attn.out")
    ),  # convolutions in place of linear maps
    "xlm": XLM,
}
PLAIN = Family()


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """One site of one layer, in the plain model."""

    path: str
    side: str
    half: bool = False
    flat: bool = False


def body_of(model: Any) -> Any:
    """The part that reads text: the encoder of an encoder-decoder, else the model without its head."""
    if model.config.is_encoder_decoder:
        return model.get_encoder()
    return model.base_model


def stack_of(body: nn.Module, kind: str) -> str | None:
    """Path of the blocks."""
    family = FAMILIES.get(kind, PLAIN)
    if family.stack is not None:
        return family.stack
    modules = dict(body.named_modules())
    return next((path for path in STACKS if isinstance(modules.get(path), nn.ModuleList)), None)


def places(body: nn.Module, kind: str) -> dict[tuple[str, int], Where]:
    """(site, layer) -> where it is, for every site that the tables know in this type's blocks."""
    family, stack = FAMILIES.get(kind, PLAIN), stack_of(body, kind)
    if stack is None:
        return {}
    config: Any = getattr(body, "config", None)
    prefixes = [stack] * config.num_hidden_layers if family.repeats else _members(body, stack)
    found: dict[tuple[str, int], Where] = {}
    for layer, prefix in enumerate(prefixes):
        if family.parallel:
            down, pre, out = (path.format(layer) for path in family.parallel)
            found |= {
                ("mlp.neurons", layer): Where(path=down, side="input"),
                ("mlp.out", layer): Where(path=down, side="output"),
                ("mlp.pre", layer): Where(path=pre, side="output"),
                ("attn.heads", layer): Where(path=out, side="input"),
                ("attn.out", layer): Where(path=out, side="output"),
            }
            continue
        block: Any = body.get_submodule(prefix)
        names = {path for path, _ in block.named_modules()}
        linear = {
            path
            for path, module in block.named_modules()
            if isinstance(module, nn.Linear | Conv1D) or _is_linear(module)
        }

        def first(table: Sequence[str], among: set[str]) -> str | None:
            return next((path for path in table if _module(path) in among), None)

        if family.resid:
            found["resid.pre", layer] = Where(path=prefix, side="input")
            found["resid.post", layer] = Where(path=prefix, side="output")
        if (down := first(family.down, linear)) is not None:
            found["mlp.neurons", layer] = Where(path=f"{prefix}.{down}", side="input")
            found["mlp.out", layer] = Where(path=f"{prefix}.{down}", side="output")
            if (pre := first(family.pre, names)) is not None:
                found["mlp.pre", layer] = Where(
                    path=f"{prefix}.{_module(pre)}",
                    side="input" if pre.endswith("<") else "output",
                    half=pre.endswith("/2"),
                )
        if (out := first(family.out, linear)) is not None:
            found["attn.heads", layer] = Where(
                path=f"{prefix}.{family.heads or out}", side="input", flat=family.heads is not None
            )
            found["attn.out", layer] = Where(path=f"{prefix}.{out}", side="output")
        if (shared := first(SHARED, names)) is not None:
            found["mlp.shared.neurons", layer] = Where(path=f"{prefix}.{shared}", side="input")
        if (experts := first(EXPERTS, names)) is not None and hasattr(block.get_submodule(experts), "down_proj"):
            found["moe.experts.neurons", layer] = Where(path=f"{prefix}.{experts}", side="experts")
            if (router := first(ROUTERS, names)) is not None:
                found["moe.router", layer] = Where(path=f"{prefix}.{router}", side="router")
    return found


def _members(body: nn.Module, stack: str) -> list[str]:
    """Paths of the blocks below a list, or below each of the lists in a list (`blocks.*`)."""
    if stack.endswith(".*"):
        outer = _members(body, stack.removesuffix(".*"))
        return [path for inner in outer for path in _members(body, inner)]
    holder: Any = body.get_submodule(stack)
    return [f"{stack}.{n}" for n in range(len(holder))]


def _module(path: str) -> str:
    return path.removesuffix("/2").removesuffix("<")


def _is_linear(module: nn.Module) -> bool:
    return isinstance(getattr(module, "in_features", None), int) and isinstance(
        getattr(module, "out_features", None), int
    )


def first_tensor(values: Any) -> Tensor:
    """The tensor itself, or the first one among arguments or results."""
    if isinstance(values, Tensor):
        return values
    candidates = values.values() if isinstance(values, dict) else values
    return next(value for value in candidates if isinstance(value, Tensor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Values of all sites on some texts, each read alone."""

    values: dict[tuple[str, int], Tensor]
    """[token of all texts one after the other, unit]"""
    states: str
    """How `hidden_states` compares with what enters the blocks."""


@torch.no_grad()
def read(body: nn.Module, kind: str, texts: Sequence[Tensor]) -> Reading:
    """Every site of the tables, and `hidden_states`.

    Args:
        body: of a plain model in evaluation mode.
        kind: its type.
        texts: token ids of each text.
    """
    wanted = places(body, kind)
    front = FAMILIES.get(kind, PLAIN).surplus_in_front
    collected: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    verdicts: set[str] = set()
    for ids in texts:
        calls: dict[tuple[int, str], list[Any]] = defaultdict(list)
        with ExitStack() as stack:
            for where in {(id(body.get_submodule(w.path)), w.side): w for w in wanted.values()}.values():
                stack.callback(_listen(body, where, kind, calls).remove)
            result: Any = body(
                input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], output_hidden_states=True
            )
        claimed: dict[tuple[int, str, str], int] = defaultdict(int)
        for (site, layer), where in wanted.items():
            module = id(body.get_submodule(where.path))
            turn = claimed[module, where.side, site]
            claimed[module, where.side, site] += 1
            seen = calls[module, where.side]
            value = seen[turn] if turn < len(seen) else None
            rows = None if value is None else _rows(value, where, len(ids), front=front)
            if rows is not None and len(rows) == len(ids):  # some models shorten the sequence on the way (Funnel)
                collected[site, layer].append(rows)
        if FAMILIES.get(kind, PLAIN).parallel:
            for layer, (before, after) in enumerate(pairwise(result.hidden_states)):
                collected["resid.pre", layer].append(before[0])
                collected["resid.post", layer].append(after[0])
        verdicts.add(_compare_states(result, collected, len(ids), front=front))
    return Reading(
        values={key: torch.cat(parts) for key, parts in collected.items() if len(parts) == len(texts)},
        states=", ".join(sorted(verdicts)),
    )


def _listen(body: Any, where: Where, kind: str, calls: dict[tuple[int, str], list[Any]]) -> Any:
    module, side = body.get_submodule(where.path), where.side
    key = (id(module), side)
    if side == "output":
        return module.register_forward_hook(lambda _m, _i, out: calls[key].append(first_tensor(out).clone()))
    if side == "router":
        return module.register_forward_hook(
            lambda m, given, _out: calls[key].append(router_probabilities(m, first_tensor(given), kind))
        )
    if side == "experts":
        config = body.config.get_text_config()

        def experts(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            calls[key].append(expert_neurons(module, (*arguments, *named.values()), output, config))

        return module.register_forward_hook(experts, with_kwargs=True)

    def before(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = arguments[0] if arguments else named.get("hidden_states", named)
        calls[key].append(first_tensor(given).clone())

    return module.register_forward_pre_hook(before, with_kwargs=True)


def _rows(values: Tensor, where: Where, tokens: int, *, front: bool) -> Tensor:
    values = values.reshape(tokens, -1) if where.flat else values.reshape(-1, values.shape[-1])
    values = values[-tokens:] if front else values[:tokens]
    return values[:, : values.shape[1] // 2] if where.half else values


def _compare_states(result: Any, collected: dict[tuple[str, int], list[Tensor]], tokens: int, *, front: bool) -> str:
    states = getattr(result, "hidden_states", None)
    mine = [collected["resid.pre", n][-1] for n in range(1000) if ("resid.pre", n) in collected]
    if not states or not mine or not all(isinstance(state, Tensor) for state in states):
        return "none"
    flat = [_rows(state, Where(path="", side=""), tokens, front=front) for state in states]

    def same(pairs: Iterator[tuple[Tensor, Tensor]]) -> bool:
        return all(a.shape == b.shape and torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in pairs)

    if len(flat) >= len(mine) and same(zip(flat, mine, strict=False)):
        return "same"
    if len(flat) >= len(mine) - 1 and same(zip(flat, mine[1:], strict=False)):
        return "shifted"
    return "differ"


@contextmanager
def setting(body: nn.Module, kind: str, site: str, layer: int, units: Sequence[int], value: float) -> Iterator[None]:
    """Passes inside see units of a module's input set to a value, in the layer's own call where layers share the module."""
    known = places(body, kind)
    where = known[site, layer]
    module = body.get_submodule(where.path)
    sharing = [n for (name, n), w in known.items() if name == site and body.get_submodule(w.path) is module]
    calls = 0

    def before(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        nonlocal calls
        turn, calls = calls % len(sharing), calls + 1
        if sharing[turn] != layer:
            return None
        given = (arguments[0] if arguments else named["hidden_states"]).clone()
        (given.flatten(2) if where.flat else given)[..., list(units)] = value
        return ((given, *arguments[1:]), named) if arguments else (arguments, named | {"hidden_states": given})

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def losses(model: Any, texts: Sequence[Tensor], targets: Sequence[Tensor], nowhere: int) -> Tensor:
    """Cross-entropy at every position with a target, text after text, each text alone."""
    found = []
    for ids, target in zip(texts, targets, strict=True):
        logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits
        logits = logits.reshape(-1, logits.shape[-1])[: len(ids)]
        wanted = target != nowhere
        found.append(nn.functional.cross_entropy(logits[wanted].float(), target[wanted], reduction="none"))
    return torch.cat(found)
