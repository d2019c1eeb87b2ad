"""How labelled text becomes rows: windows, pooling, sampling, split."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sparse_probing.datasets.labelled_text import Level
from sparse_probing.errors import InputError
from sparse_probing.records import Pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRules:
    """How text becomes rows."""

    pooling: Pooling = Pooling.MEAN
    """Documents and spans: how their tokens become one vector. Token level rows are single tokens."""
    window: int = 256
    """Tokens per sequence, special tokens included."""
    anchor: Literal["start", "first", "end"] = "start"
    """Which windows of a text with labelled tokens or spans are used: all, counted from its start; the `first` only; or one that
    stops at its `end` (where the span stands)."""
    long_texts: Literal["window", "error"] = "window"
    """Texts longer than a window: cut into windows, or refused."""
    full_windows_only: bool = False
    """Leave out texts that do not fill a window (the paper does so by mistake, D1)."""
    cut_by_length: bool = False
    """Texts with `breaks`: a piece that ends before token n goes to window n // room, which is cropped (the paper's packing); else
    as many whole pieces as fit make a window."""
    windows_per_document: int = 1
    """Document level: how many windows a long document may give (they share its split)."""
    skip_first: int = 10
    """Positions at the start of a sequence that are never labelled: they see too little context. Rows that are one of their tokens
    (pooling last or first) skip none unless it is asked for."""
    max_rows: int | None = 4_000
    """Token and span level: rows per feature. Null: all."""
    sampling: Literal["clipped", "natural", "balanced", "filled"] = "clipped"
    """Share of positives. `natural`: as found. `balanced`: half. `clipped`: as found for documents; for tokens and spans
    between `positive_share` and `most_positive`. `filled`: the same, but where positives are too few for their share, negatives
    fill the rows (the paper's)."""
    positive_share: float = 0.25
    """Least share of positives with `clipped` and `filled` sampling."""
    most_positive: float = 0.5
    """Largest share of positives with `clipped` and `filled` sampling."""
    split_by: Literal["given", "group", "row"] = "given"
    """`given`: the source's own split where every document has one, else by group. `group`: no group in two splits.
    `row`: at random, as in the paper; documents then lie on both sides (D10)."""
    fractions: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Train, validation, test."""
    min_rows: int = 5
    """Positives and negatives that each split must have; a feature with fewer is left out."""

    def adapted(
        self, recommended: Mapping[str, Any], chosen: Mapping[str, Any], *, level: Level = "document"
    ) -> SamplingRules:
        """These rules with what a source recommends, and over that what the user chose.

        Raises:
            InputError: a rule that there is not, or of a value that it cannot have (rules can come from a file).
        """
        merged = merged_rules(recommended, chosen, level)
        if merged.get("pooling") in set(Pooling):
            merged["pooling"] = Pooling(merged["pooling"])
        if isinstance(merged.get("fractions"), list):  # read from JSON
            merged["fractions"] = tuple(merged["fractions"])
        for name, value in merged.items():
            if not _can_be(name, value):
                raise InputError(
                    f"the rules of the data set say {name} = {value!r:.60}, which no rule can: build it again."
                )
        rules = replace(self, **merged)
        counts = (rules.window, rules.windows_per_document, 1 if rules.max_rows is None else rules.max_rows)
        shares = (0.0, rules.positive_share, rules.most_positive, 1.0)
        if min(counts) < 1 or min(rules.skip_first, rules.min_rows) < 0 or list(shares) != sorted(shares):
            raise InputError(
                "the rules of the data set cannot be used (a count below 1, or shares of positives that are none): build it again."
            )
        if min(rules.fractions) < 0 or abs(sum(rules.fractions) - 1) > 1e-6:
            raise InputError(
                f"the rules of the data set divide it into {rules.fractions}, which is not 1 in all: build it again."
            )
        return rules


_KINDS = {name: TypeAdapter(kind) for name, kind in get_type_hints(SamplingRules).items()}


def _can_be(name: str, value: Any) -> bool:
    with suppress(KeyError, ValidationError):
        _KINDS[name].validate_python(value, strict=True)
        return True
    return False


def merged_rules(recommended: Mapping[str, Any], chosen: Mapping[str, Any], level: Level) -> dict[str, Any]:
    """What a source recommends, and over that what the user chose (null: nothing), as fields of `SamplingRules`.

    The tokens that a source or the default skips are left out of means and maxima. A pooling that reads one token of a text or
    stretch has nothing to leave out and would lose short texts: it skips none, unless whoever chose it chose tokens to skip, too.
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    merged = {**recommended, **given}
    if level != "token" and merged.get("pooling") in (Pooling.LAST, Pooling.FIRST):
        merged["skip_first"] = (given if "pooling" in given else merged).get("skip_first", 0)
    return merged
