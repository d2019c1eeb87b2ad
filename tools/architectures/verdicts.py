"""What may become of a type and of its sites."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

RIGHT, NONE, MISSING, SOME, REFUSED, WRONG, TRACEBACK = (
    "right", "none", "missing", "some layers", "refused", "WRONG", "TRACEBACK",
)  # fmt: skip
"""Of a site: equal to the reference at every layer; rightly absent; absent though it exists; right, but only at some of its layers;
not readable with a sentence; read without a word, and different; an error that is not the package's own."""
UNCHECKED = "unchecked"
"""Read, where the reference has no formula."""
NOT_BUILT, PARTLY = "not built", "partly"


@dataclass(slots=True)
class SiteVerdict:
    """What became of one site of one type."""

    verdict: str
    detail: str = ""


@dataclass(slots=True)
class TypeVerdict:
    """What became of one type."""

    kind: str
    verdict: str
    note: str = ""
    sites: dict[str, SiteVerdict] = field(default_factory=dict)
    losses: SiteVerdict | None = None
    states: str = ""
    stack: str = ""
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)
