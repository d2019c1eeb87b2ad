"""A data sheet in words: what is it, may I use it, is it clean, is it balanced, what could a probe cheat with?"""

from __future__ import annotations

from typing import Any

from sparse_probing.results.verdict import AS_GOOD, FOUND_F1
from sparse_probing.studies.datasheet.confounds import ALONE_AUC, FEW
from sparse_probing.studies.datasheet.datasheet import NOT_STATED

FINE, MENDED, LOOK = "fine", "mended", "look"
"""States of an answer. `look`: a reader should know it before using the data."""
LEVELS = {"document": "whole texts", "span": "labelled stretches of text", "token": "single tokens"}
KINDS = {
    "few rows": f"Fewer than {FEW} test rows of a class: scores vary by chance.",
    "length": f"Rows or texts of the class are longer (or shorter): ROC-AUC of at least {ALONE_AUC} by that number alone.",
    "position": f"Rows of the class stand later (or earlier) in their texts: ROC-AUC of at least {ALONE_AUC} by that alone.",
    "words": f"Words alone can tell the class: without a model, n-grams or single tokens reach an F1 of {FOUND_F1} and more than "
    f"{AS_GOOD} over always yes, as a probe must to have found the class.",
    "last token": "The last token or the final punctuation alone can tell the class, by the same rule.",
}
"""Kinds of warnings of features; see `warnings_of`."""
SUBJECTS = {"last token": "the last token"}
SHOWN_LICENCES = 4
"""Licences that the answer names; the list has them all."""
NAMED = 6
"""Features that an answer names; the table has them all."""

Line = dict[str, str]
"""`state` (one of the three, or empty) and `text`; in `glance`, `question` as well."""


def glance(sheet: dict[str, Any]) -> list[Line]:
    """The five answers."""
    found = checks(sheet)
    open_points = [line["text"] for line in found if line["state"] == LOOK]
    mended = [line["text"] for line in found if line["state"] == MENDED]
    state = LOOK if open_points else MENDED if mended else FINE
    clean = " ".join(open_points + mended or ["No copies, no contradicting labels, no group in two splits."])
    return [
        {"question": "What is it?", "state": "", "text": _what(sheet)},
        {"question": "May I use it?"} | _licence(sheet),
        {"question": "Is it clean?", "state": state, "text": clean},
        {"question": "Is it balanced?"} | _balance(sheet),
        {"question": "What could a probe cheat with?"} | _confounds(sheet),
    ]


def counted(n: int, name: str) -> str:
    """`1 text`, `1,200 texts`."""
    return f"{n:,} {name}{'' if n == 1 else 's'}"


def _what(sheet: dict[str, Any]) -> str:
    texts, groups = counted(sheet["documents"], "text"), counted(sheet["groups"], "group")
    read = sheet["audit"]["documents_read"] if sheet["audit"] else sheet["documents"]
    if read > sheet["documents"]:
        texts += f" (of {read:,} read)"
    text = f"{texts} in {groups}, {counted(sheet['characters'], 'character')}"
    if sheet["tokens"] is not None:
        text += f", {counted(sheet['tokens'], 'token')}"
        if sheet.get("tokenizer"):
            text += f" ({sheet['tokenizer']})"
    labels = [counted(len(sheet[kind]), kind[:-1]) for kind in ("features", "numbers") if sheet[kind]]
    pooling = "" if sheet["level"] == "token" else f", pooled by {' and '.join(sheet['poolings'])}"
    return f"{text}. {' and '.join(labels)} of {LEVELS[sheet['level']]}: {counted(sheet['rows'], 'row')}{pooling}."


def _licence(sheet: dict[str, Any]) -> Line:
    missing = sum(entry["documents"] for entry in sheet["licences"] if entry["name"] == NOT_STATED)
    stated = [entry for entry in sheet["licences"] if entry["name"] != NOT_STATED]
    names = ", ".join(f"{entry['name']} ({counted(entry['documents'], 'text')})" for entry in stated[:SHOWN_LICENCES])
    if len(stated) > SHOWN_LICENCES:
        names += f" and {len(stated) - SHOWN_LICENCES} others, listed below"
    if missing == 0:
        return {"state": FINE, "text": f"Every text states its licence: {names}. Read what it asks for."}
    which = "No text states" if not stated else f"{missing:,} of {counted(sheet['documents'], 'text')} do not state"
    rest = f" The others: {names}." if stated else ""
    return {"state": LOOK, "text": f"{which} a licence: find out before you pass texts on.{rest}"}


def _balance(sheet: dict[str, Any]) -> Line:
    shares = [f["splits"]["test"]["share"] for f in sheet["features"] if f["splits"]["test"]["share"] is not None]
    if not shares:
        return {"state": "", "text": "There are numbers only; the table has their spread."}
    low, high = min(shares), max(shares)
    spread = percent(low) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"
    f1 = _range([2 * share / (1 + share) for share in (low, high)])
    text = f"{spread} of test rows are in class; always answering yes has an F1 of {f1}."
    few = [f["name"] for f in sheet["features"] if any(w["kind"] == "few rows" for w in f["warnings"])]
    if few:
        return {"state": LOOK, "text": f"{text} Fewer than {FEW} test rows of a class: {_named(few)}."}
    return {"state": FINE, "text": text}


def _confounds(sheet: dict[str, Any]) -> Line:
    by_kind: dict[str, list[str]] = {}
    for feature in sheet["features"]:
        for kind in dict.fromkeys(w["kind"] for w in feature["warnings"] if w["kind"] != "few rows"):
            by_kind.setdefault(kind, []).append(feature["name"])
    tried = any(f["confounds"]["text_only"] is not None for f in sheet["features"])
    if not sheet["features"]:
        return {"state": "", "text": "Not tried for numbers."}
    untried = "" if tried else " Words were not tried."
    if by_kind:
        said = [
            f"It may read {SUBJECTS.get(kind, kind)} instead of {_named(names)}." for kind, names in by_kind.items()
        ]
        return {"state": LOOK, "text": " ".join(said) + untried}
    words = ", nor words" if tried else ""
    return {"state": FINE, "text": f"Neither length nor position{words} alone tell a class.{untried}"}


def checks(sheet: dict[str, Any]) -> list[Line]:
    """What was checked, and what came out."""
    audit, split, alignment = sheet["audit"], sheet["split"], sheet["alignment"]
    said: list[Line] = []

    def say(n: int, state: str, found: str, none: str) -> None:
        said.append({"state": state, "text": found} if n else {"state": FINE, "text": none})

    if audit is not None:
        n = audit["duplicates_removed"]
        say(
            n,
            MENDED,
            f"{counted(n, 'copy').replace('copys', 'copies')} of another text removed.",
            "No text occurs twice.",
        )
        n = audit["conflicts_removed"]
        say(
            n,
            MENDED,
            f"{counted(n, 'text')} with the words of another, but other labels: removed.",
            "No contradicting labels.",
        )
        n = audit["near_duplicates"] or 0
        alike = f"{counted(n, 'text')} share most of their wording with a text of another group"
        if sheet["near_duplicates"] == "by_design":
            said.append(
                {
                    "state": "",
                    "text": "Texts come from templates: they are alike by design, their groups say what belongs together.",
                }
            )
        elif sheet["near_duplicates"] == "group":
            together = not (audit["near_duplicates_across_splits"] or split["leaking_groups"])
            say(n, MENDED, f"{alike}: kept in one {'split' if together else 'group'}.", "No near copies.")
        else:
            say(n, LOOK, f"{alike}, and may lie in another split (pairs stay together).", "No near copies.")
        n = audit["near_duplicates_across_splits"]
        if n:
            say(n, LOOK, f"{counted(n, 'text')} have a near copy in another split of the source.", "")
    n, test = split["leaking_groups"], split["rows"]["test"]
    found = (
        f"Groups lie on both sides: {counted(n, 'group')} with {counted(split['leaking_rows'], 'row')} have rows in several "
        f"splits; {split['leaking_test_rows']:,} of {counted(test, 'test row')} have relatives in training or validation."
    )
    say(n, LOOK, found, "No group has rows in two splits.")
    leak = "" if audit is None else leak_words(audit)
    if leak:
        said.append({"state": "", "text": leak})
    if alignment is not None:
        n = alignment["unknown_tokens"]
        say(n, LOOK, f"{counted(n, 'character')} unknown to the tokenizer.", "The tokenizer knows every character.")
        stretches = alignment["stretches"]
        if stretches:
            cut, none = alignment["ragged"], alignment["without_token"]
            say(
                none,
                LOOK,
                f"{none:,} of {stretches:,} labelled stretches have no token.",
                "Every labelled stretch has tokens.",
            )
            whole = "Labelled stretches begin and end where tokens do."
            say(cut, LOOK, f"{cut:,} of {stretches:,} labelled stretches begin or end inside a token.", whole)
            lost = alignment["cut_by_window"] + alignment["in_skipped_tokens"]
            if lost:
                text = f"{lost:,} of {stretches:,} labelled stretches left out: cut by a window or among its skipped first tokens."
                said.append({"state": "", "text": text})
    if audit is not None and audit["unused"]:
        text = f"{counted(audit['unused'], 'text')} unused: too short, or no row was drawn from them."
        said.append({"state": "", "text": text})
    return said


def leak_words(audit: dict[str, Any]) -> str:
    """What a random split of the documents would have torn apart; empty where nothing."""
    read, found = counted(audit["documents_read"], "text"), audit.get("random_split")
    if found is None:  # of a version that drew one split, whatever the shares in use
        n = audit.get("leaked_by_random_split", 0)
        return f"A random 70/30 split would have parted {n:,} of {read} from a relative or copy." if n else ""
    if not found["most"]:
        return ""
    shares = "/".join(f"{100 * share:.0f}" for share in found["shares"])
    return (
        f"A random {shares} split would have parted {found['torn']:,.0f} of {read} read from a relative or copy (mean of "
        f"{found['draws']} draws, {found['fewest']:,} to {found['most']:,})."
    )


def warned(sheet: dict[str, Any]) -> list[dict[str, str]]:
    """The kinds of warnings that some feature has, each explained once."""
    found = {w["kind"] for feature in sheet["features"] for w in feature["warnings"]}
    return [{"kind": kind, "text": text} for kind, text in KINDS.items() if kind in found]


def percent(share: float) -> str:
    """`12 %`; two digits where it is small."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def _range(values: list[float]) -> str:
    low, high = (f"{value:.2f}" for value in values)
    return low if low == high else f"{low} to {high}"


def _named(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
