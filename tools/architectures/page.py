"""`docs/architectures.md`: counts and one line per type, between two markers; the words around them are written by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .reference import CORE
from .verdicts import MISSING, NONE, NOT_BUILT, PARTLY, REFUSED, RIGHT, SOME, TRACEBACK, WRONG

BEGIN, END = "<!-- survey: written by tools/survey_architectures.py -->", "<!-- end of the survey -->"
SIGNS = {
    RIGHT: "✓",
    NONE: "–",
    MISSING: "lacks",
    SOME: "some",
    REFUSED: "refused",
    WRONG: "**WRONG**",
    TRACEBACK: "**error**",
}
ORDER = (WRONG, TRACEBACK, RIGHT, PARTLY, REFUSED, NOT_BUILT)
LONGEST = 160


def write_page(page: Path, records: Sequence[dict[str, Any]], machine: str, sound: int) -> None:
    """Put counts and table between the page's markers."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    lines = [*summary(records, machine, sound), "", *table(records)]
    page.write_text("\n".join([before + BEGIN, "", *lines, "", END]) + after, encoding="utf-8")


def summary(records: Sequence[dict[str, Any]], machine: str, sound: int) -> list[str]:
    """How many types ended how."""
    count = Counter(record["verdict"] for record in records)
    built = len(records) - count[NOT_BUILT]
    judged = [record for record in records if record["losses"] and record["losses"]["verdict"] != NONE]
    losses = Counter(record["losses"]["verdict"] for record in judged)
    pre = Counter(record["sites"].get("mlp.pre", {}).get("verdict") for record in records)
    return [
        machine,
        "",
        f"{len(records)} types, {built} of them built ({sound} more have a part for sound and are left out). "
        f"**{count[WRONG]} silently wrong, {count[TRACEBACK]} with an error that is not the package's own, "
        f"{count[RIGHT]} right at all MLP, attention and residual sites (or absent for a true reason), "
        f"{count[PARTLY]} right in part, {count[REFUSED]} refused in a sentence.** "
        f"`mlp.pre` is right in {pre[RIGHT]}, absent though it exists in {pre[MISSING]}. "
        f"Losses, bare and with changed units, equal the reference in {losses[RIGHT]} of {len(judged)} types with a head.",
    ]


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """One line per type, the worst first."""
    lines = [
        f"| type | verdict | {' | '.join(f'`{name}`' for name in CORE)} | losses | reason |",
        "|---" * (len(CORE) + 4) + "|",
    ]
    for record in sorted(records, key=lambda record: (ORDER.index(record["verdict"]), record["kind"])):
        cells = [SIGNS[site["verdict"]] if (site := record["sites"].get(name)) else "" for name in CORE]
        losses = SIGNS[record["losses"]["verdict"]] if record["losses"] else ""
        lines.append(f"| {record['kind']} | {record['verdict']} | {' | '.join(cells)} | {losses} | {reason(record)} |")
    return lines


def reason(record: dict[str, Any]) -> str:
    """Why a type is not right, in the words of the package (or of transformers) or of the comparison."""
    if record["note"]:
        said = record["note"]
    else:
        sites = record["sites"] | ({"losses": record["losses"]} if record["losses"] else {})
        bad = [(name, site) for name, site in sites.items() if site["verdict"] not in (RIGHT, NONE)]
        bad.sort(key=lambda item: item[1]["verdict"] not in (WRONG, TRACEBACK))
        said = f"`{bad[0][0]}`: {bad[0][1]['detail']}" if bad else ""
    said = said.replace("|", "\\|")
    return said if len(said) <= LONGEST else said[:LONGEST] + "…"
