"""What a neuron does at every token of a feature's rows: distribution, thresholds, tokens, and what it reads: context or token.

Follows the standard figures of a context neuron (paper, section 6: token histogram, tokens that occur in both contexts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from sparse_probing.datasets.feature_dataset import FeatureDataset

IN_CLASS, OUT_OF_CLASS = "in class", "out of class"
BINS = 50
QUANTILES = (5, 25, 50, 75, 95)
"""Per cent, of box plots."""
NEAR_ZERO = 0.01
"""A value counts as zero up to this share of the neuron's largest absolute value: GELU and SiLU are hardly ever exactly zero."""
CURVE_POINTS = 200
LEAST_COUNT = 10
"""Occurrences from which on a token's mean is listed."""
LISTED_PER_SIDE = 20
SHARED_COUNTS = (10, 5, 3)
"""Occurrences that a token needs on each side to be compared: the first of these that leaves enough tokens."""
SHARED_TOKENS = 5
"""Tokens that are enough for a reading."""
SHARED_DOCUMENTS = 2
"""Documents that a shared token needs on each side: one document's peculiarity is no context."""
LEAST_AUC = 0.6
"""Of the activation over all tokens: below it the neuron tells too little at single tokens for a reading."""
READS = 1 / 3
"""Share of the neuron's separation (ROC-AUC - 0.5) that the context, or the token, must reach alone to count as read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenTrace:
    """One neuron at every token of a feature's rows, each token once; arrays are parallel."""

    value: Float32[np.ndarray, " token"]
    token: Int[np.ndarray, " token"]
    """Token id."""
    in_class: Bool[np.ndarray, " token"]
    document: Int[np.ndarray, " token"]
    group: Int[np.ndarray, " token"]
    """Index into `groups`; all 0 where there are none."""
    groups: tuple[str, ...]
    """For example languages or kinds of text; empty where the rows have no groups."""
    spelling: dict[int, str]
    """Token id -> text, as it first occurs in the rows."""


def token_trace(
    dataset: FeatureDataset,
    feature: int,
    rows: Int[np.ndarray, " row"],
    traces: Mapping[tuple[int, int, int], np.ndarray],
    *,
    layer: int,
    unit: int,
    group_of_row: Int[np.ndarray, " row"] | None = None,
    groups: tuple[str, ...] = (),
) -> TokenTrace:
    """Lay the tokens of rows end to end. A token under several rows counts once, in class if one of them is.

    Args:
        dataset: owns the rows.
        feature: rows are labelled by it.
        rows: eligible for the feature, at least one.
        traces: from `token_activations`: (sequence, layer, unit) -> value at each token.
        layer: of the neuron.
        unit: the neuron.
        group_of_row: index into `groups` of each of `rows`, for example from `category_groups`.
        groups: names.
    """
    order = np.argsort(~dataset.positive[rows, feature], kind="stable")  # in class first: np.unique keeps the first
    chosen = rows[order]
    sequence = dataset.row_sequence[chosen]
    first, last = dataset.row_first[chosen], dataset.row_last[chosen]
    start = dataset.sequence_starts[sequence]
    bounds = list(zip(sequence.tolist(), start.tolist(), first.tolist(), last.tolist(), strict=True))
    places = [np.arange(at + a, at + b) for _, at, a, b in bounds]
    values = [traces[number, layer, unit][a:b] for number, _, a, b in bounds]
    place, kept = np.unique(np.concatenate(places), return_index=True)
    owner = np.repeat(np.arange(len(chosen)), last - first)[kept]
    token = dataset.tokens[place].astype(np.int64)
    ids, where = np.unique(token, return_index=True)
    group = np.zeros(len(rows), dtype=np.int64) if group_of_row is None else group_of_row
    return TokenTrace(
        value=np.concatenate(values)[kept].astype(np.float32),
        token=token,
        in_class=dataset.positive[chosen, feature][owner],
        document=dataset.sequence_document[sequence][owner].astype(np.int64),
        group=group[order][owner],
        groups=groups,
        spelling={int(t): spelling(dataset, int(place[i])) for t, i in zip(ids, where, strict=True)},
    )


def spelling(dataset: FeatureDataset, place: int) -> str:
    """Text of the token at a place of `dataset.tokens`, with a blank that stands before it and belongs to no other token.

    A token that holds only some bytes of a character is named after that character.
    """
    sequence = int(np.searchsorted(dataset.sequence_starts, place, side="right")) - 1
    first, behind = dataset.sequence_starts[sequence : sequence + 2].tolist()
    text = dataset.texts[int(dataset.sequence_document[sequence])]
    start, end = int(dataset.char_starts[place]), int(dataset.char_ends[place])
    before = int(dataset.char_ends[place - 1]) if place > first and dataset.char_starts[place - 1] >= 0 else start
    after = int(dataset.char_starts[place + 1]) if place + 1 < behind else -1
    if start < 0 or end == start:
        return f"token {int(dataset.tokens[place])}"
    if start < before or 0 <= after < end:
        return f"part of {text[start:end]}"
    return text[max(before, start - 1) : end]


def activation_profile(
    trace: TokenTrace,
    row_activation: Float[np.ndarray, " row"],
    row_positive: Bool[np.ndarray, " row"],
    *,
    sign: int,
    where: Mapping[str, Any],
    unit: int | None = None,
    active_share: Float[np.ndarray, " unit"] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """All tables of `results.profile_tables` about one neuron, but the examples.

    Args:
        trace: the neuron at the tokens.
        row_activation: the same neuron's pooled activation of each row.
        row_positive: which rows are in class.
        sign: 1 for a neuron that is higher in class, -1 for one that is lower.
        where: category, feature and neuron; every row begins with them.
        unit: number of the neuron in its layer, for `active_share`.
        active_share: share of tokens at which each unit of the layer is active; null leaves sparsity out.
    """
    curve = threshold_curve(row_activation, row_positive, sign)
    shared, summary = disambiguation(trace, sign)
    best = max(curve, key=lambda point: point["f1"], default={"f1": None, "threshold": None})
    profile = {
        "sign": sign,
        **_counts_and_zeros(trace),
        **summary,
        **{"best_f1": best["f1"], "best_threshold": best["threshold"]},
        **_sparsity(unit, active_share),
    }
    found = {"token_histograms": token_histogram(trace), "token_groups": token_groups(trace), "threshold_curves": curve}
    found |= {"tokens": strongest_tokens(trace, sign), "disambiguation": shared, "profiles": [profile]}
    return {name: [{**where, **row} for row in rows] for name, rows in found.items()}


def _series(trace: TokenTrace) -> Iterator[tuple[str, str, Bool[np.ndarray, " token"]]]:
    """Kind and name of each set of tokens that is drawn, and which tokens are in it; empty ones are left out."""
    sets = [("class", IN_CLASS, trace.in_class), ("class", OUT_OF_CLASS, ~trace.in_class)]
    sets += [("group", name, trace.group == g) for g, name in enumerate(trace.groups)]
    return ((kind, name, members) for kind, name, members in sets if members.any())


def token_histogram(trace: TokenTrace) -> list[dict[str, Any]]:
    """Tokens per bin of activation, in class, out of class and by group, all with the same 50 bins."""
    edges = np.histogram_bin_edges(trace.value.astype(np.float64), BINS)
    return [
        {"kind": kind, "series": name, "bin_low": float(low), "bin_high": float(high), "tokens": int(count)}
        for kind, name, members in _series(trace)
        for low, high, count in zip(edges, edges[1:], np.histogram(trace.value[members], edges)[0], strict=False)
    ]


def _quantiles(values: Float[np.ndarray, " _"], ending: str = "") -> dict[str, float]:
    found = np.percentile(values.astype(np.float64), QUANTILES)
    return {f"q{q:02d}{ending}": float(value) for q, value in zip(QUANTILES, found, strict=True)}


def token_groups(trace: TokenTrace) -> list[dict[str, Any]]:
    """Quantiles of the activation in class, out of class and by group."""
    return [
        {
            "kind": kind,
            "series": name,
            "tokens": int(members.sum()),
            "documents": len(np.unique(trace.document[members])),
            "share_in_class": float(trace.in_class[members].mean()),
            "mean": float(trace.value[members].mean(dtype=np.float64)),
            **_quantiles(trace.value[members]),
        }
        for kind, name, members in _series(trace)
    ]


def _counts_and_zeros(trace: TokenTrace) -> dict[str, Any]:
    """Counts, shares of zeros and median per side; null on a side without tokens."""
    size = np.abs(trace.value)
    near = size <= NEAR_ZERO * size.max()
    result: dict[str, Any] = {}
    for ending, members in (("in", trace.in_class), ("out", ~trace.in_class)):
        some = members.any()
        result[f"tokens_{ending}"] = int(members.sum())
        result[f"documents_{ending}"] = len(np.unique(trace.document[members]))
        result[f"median_{ending}"] = float(np.median(trace.value[members].astype(np.float64))) if some else None
        result[f"near_zero_{ending}"] = float(near[members].mean()) if some else None
        result[f"not_above_zero_{ending}"] = float((trace.value[members] <= 0).mean()) if some else None
    return result


def _sparsity(unit: int | None, active_share: Float[np.ndarray, " unit"] | None) -> dict[str, Any]:
    if unit is None or active_share is None:
        return {}
    own, median = float(active_share[unit]), float(np.median(active_share))
    sparser = float((np.delete(active_share, unit) < own).mean())
    return {"active_share": own, "layer_active_share": median, "sparser_units": sparser}


def threshold_curve(
    activation: Float[np.ndarray, " row"], positive: Bool[np.ndarray, " row"], sign: int
) -> list[dict[str, Any]]:
    """Precision, recall and F1 at every threshold of the row activation, exact, from the strictest threshold on.

    A row is called positive when its activation is at least the threshold (at most, for sign -1). Of more than 200 distinct
    thresholds those are kept that divide the path through (recall, precision) evenly, with both ends and the best F1.

    Returns:
        Points; none without a positive row.
    """
    if not positive.any():
        return []
    strength = sign * activation.astype(np.float64)
    order = np.argsort(-strength, kind="stable")
    end_of_tie = np.append(np.diff(strength[order]) < 0, True)
    called = np.flatnonzero(end_of_tie) + 1
    hits = np.cumsum(positive[order])[end_of_tie]
    precision, recall = hits / called, hits / positive.sum()
    f1 = 2 * hits / (called + positive.sum())
    kept = np.arange(len(called))
    if len(called) > CURVE_POINTS:
        path = np.cumsum(np.hypot(np.diff(recall, prepend=recall[0]), np.diff(precision, prepend=precision[0])))
        even = np.searchsorted(path, np.linspace(0, path[-1], CURVE_POINTS - 2))
        kept = np.unique([0, *even.tolist(), int(f1.argmax()), len(called) - 1])
    columns = activation[order[called - 1]], precision, recall, f1
    return [
        dict(zip(("threshold", "precision", "recall", "f1"), (float(column[i]) for column in columns), strict=True))
        for i in kept
    ]


def strongest_tokens(trace: TokenTrace, sign: int) -> list[dict[str, Any]]:
    """Tokens with the highest mean activation (lowest, for sign -1) on each side, of those that occur 10 times there."""
    rows: list[dict[str, Any]] = []
    for side, members in ((IN_CLASS, trace.in_class), (OUT_OF_CLASS, ~trace.in_class)):
        ids, at, count = np.unique(trace.token[members], return_inverse=True, return_counts=True)
        value = trace.value[members].astype(np.float64)
        mean = np.bincount(at, weights=value, minlength=len(ids)) / np.maximum(count, 1)
        frequent = np.flatnonzero(count >= LEAST_COUNT)
        order = frequent[np.argsort(-sign * mean[frequent], kind="stable")][:LISTED_PER_SIDE]
        rows += [
            {
                "side": side,
                "rank": rank,
                "token_id": int(ids[i]),
                "token": trace.spelling[int(ids[i])],
                "count": int(count[i]),
                "documents": len(np.unique(trace.document[members][at == i])),
                "mean": float(mean[i]),
            }
            for rank, i in enumerate(order, 1)
        ]
    return rows


def weighted_auc(
    value: Float[np.ndarray, " _"], first: Float[np.ndarray, " _"], second: Float[np.ndarray, " _"]
) -> float:
    """Chance that a value drawn with weights `first` exceeds one drawn with weights `second`; ties count one half."""
    _, at = np.unique(value, return_inverse=True)
    p, q = np.bincount(at, weights=first), np.bincount(at, weights=second)
    return float((p * (np.cumsum(q) - 0.5 * q)).sum() / (p.sum() * q.sum()))


def disambiguation(trace: TokenTrace, sign: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Tokens that occur in both contexts: does the neuron read the context, or the token itself?

    A token is shared when it occurs at least N times, and in at least 2 documents, on each side; N = 10, or 5, or 3 where
    fewer than 5 tokens are shared. Over the shared tokens two numbers stand side by side, both ROC-AUC in the neuron's
    direction, 0.5 for *tells nothing*:

    - `context_auc`: only the context differs. The AUC of each token alone, averaged with the tokens' counts as weights.
    - `token_auc`: only the tokens differ. Activations of one side are weighted as if its tokens came with the frequencies of
      the class, and as if they came with those of the rest (direct standardisation); the mean over both sides. To replace
      each token by its mean would count tiny differences as full ones, and carry the context into the token.

    The reading compares each, less 0.5, with the AUC over all tokens, less 0.5: what reaches a third of it counts as read. A
    neuron that does not read the context reads the token.

    Returns:
        One row per shared token, largest difference of the means first; and the summary, with nulls where nothing can be said.
    """
    value = sign * trace.value.astype(np.float64)
    least, shared = _shared_tokens(trace)
    rows, aucs = [], []
    for token in shared.tolist():
        here = trace.token == token
        inside, outside = trace.value[here & trace.in_class], trace.value[here & ~trace.in_class]
        side = trace.in_class[here].astype(np.float64)
        aucs.append(weighted_auc(value[here], side, 1 - side))
        mean_in, mean_out = float(inside.mean(dtype=np.float64)), float(outside.mean(dtype=np.float64))
        rows.append(
            {
                "token_id": token,
                "token": trace.spelling[token],
                "least": least,
                "count_in": len(inside),
                "count_out": len(outside),
                "mean_in": mean_in,
                "mean_out": mean_out,
                "difference": mean_in - mean_out,
                "roc_auc": aucs[-1],
                **_quantiles(inside, "_in"),
                **_quantiles(outside, "_out"),
            }
        )
    summary: dict[str, Any] = {"shared_least": least, "shared_tokens": len(rows)}
    side = trace.in_class.astype(np.float64)
    summary["roc_auc"] = weighted_auc(value, side, 1 - side) if 0 < side.sum() < len(side) else None
    if rows:
        counts = [row["count_in"] + row["count_out"] for row in rows]
        summary["higher_share"] = float(np.mean([sign * row["difference"] > 0 for row in rows]))
        summary["context_auc"] = float(np.average(aucs, weights=counts))
        summary["token_auc"] = _token_auc(trace, value, shared)
    rows.sort(key=lambda row: -sign * row["difference"])
    return [{"rank": rank, **row} for rank, row in enumerate(rows, 1)], summary | _reading(summary)


def _shared_tokens(trace: TokenTrace) -> tuple[int, Int[np.ndarray, " shared"]]:
    """Ids of the tokens that are shared, and N."""
    ids, at = np.unique(trace.token, return_inverse=True)
    seen = []
    for members in (trace.in_class, ~trace.in_class):
        pairs = np.unique(np.stack([at[members], trace.document[members]]), axis=1)
        documents = np.bincount(pairs[0], minlength=len(ids))
        seen.append(np.where(documents >= SHARED_DOCUMENTS, np.bincount(at[members], minlength=len(ids)), 0))
    least, shared = SHARED_COUNTS[0], ids[:0]
    for least in SHARED_COUNTS:
        shared = ids[np.minimum(*seen) >= least]
        if len(shared) >= SHARED_TOKENS:
            break
    return least, shared


def _token_auc(trace: TokenTrace, value: Float[np.ndarray, " token"], shared: Int[np.ndarray, " shared"]) -> float:
    at = np.minimum(np.searchsorted(shared, trace.token), len(shared) - 1)
    kept = shared[at] == trace.token
    at, side, value = at[kept], trace.in_class[kept], value[kept]
    count = np.stack([np.bincount(at[side]), np.bincount(at[~side])]).astype(np.float64)
    found = []
    for context, members in enumerate((side, ~side)):
        weight = count[:, at[members]] / count[context, at[members]]
        found.append(weighted_auc(value[members], weight[0], weight[1]))
    return float(np.mean(found))


def _reading(summary: Mapping[str, Any]) -> dict[str, Any]:
    whole, shared, least = (summary[name] for name in ("roc_auc", "shared_tokens", "shared_least"))
    if whole is None:
        why = "One side has no token."
    elif whole < LEAST_AUC:
        why = f"At single tokens the neuron hardly tells the sides apart (ROC-AUC {whole:.2f})."
    elif shared < SHARED_TOKENS:
        why = f"Too few tokens occur {least} times on both sides ({shared}): nothing to compare."
    else:
        context, token = (summary[name] - 0.5 >= READS * (whole - 0.5) for name in ("context_auc", "token_auc"))
        said, word = "What tells the sides apart is which tokens occur, not what stands around them", "reads the token"
        if context:
            said, word = "The same token gives another activation in class", "reads the context"
        if context and token:
            said, word = "Each tells the sides apart", "reads both"
        numbers = f"only the context differs: {summary['context_auc']:.2f}, only the token: {summary['token_auc']:.2f}"
        return {"reading": word, "explanation": f"{said} (ROC-AUC; {numbers})."}
    return {"reading": None, "explanation": why}
