"""Relations between things: whether a completed statement is true, and which relation it states (paper, CounterFact).

The folder holds one or both of these files, each line one fact (`.jsonl`, `.gz`, `.zst`):

- `pararel_facts`: `relation_id`, `relation` (its name in words), `subject`, `prompt`, `target_true`, `target_false` (each with its
  leading space), the form of CounterFact
- `lre_relations`: `relation`, `subject`, `object`, `prompt_templates` (a list; `{}` stands for the subject)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparse_probing.datasets.draw import Draw, priority
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.readers import Row, iter_rows
from sparse_probing.datasets.sources.corpus import ENDINGS, PAPER_FRACTIONS, PROGRESS_STEP
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError

TRUE, FALSE = "completion_true", "completion_false"
MOST_FACTS = 2_000
MOST_PER_RELATION = 200
FEWEST_FACTS = 100
"""Facts that a relation needs to become a feature."""
RULES = {"pooling": "last", "anchor": "end", "window": 64, "skip_first": 0}
PAPER_RULES = {**RULES, "max_rows": 43_820, "sampling": "natural", "split_by": "row", "fractions": PAPER_FRACTIONS}


@dataclass(frozen=True, slots=True)
class _Fact:
    id: str
    relation: str
    subject: str
    prompt: str
    true: str
    false: str | None
    """Null where every object of the relation is true."""


def relations(place: Path, options: BuildOptions) -> LabelledText:
    """Prompts completed with a true or a false target; the target is the span, its last token the row.

    Features: `completion_true` (against the false completion of the same prompt; `options.most` prompts, default 2,000) and, for
    every relation with at least 100 facts, `relation_...` (its true completions against those of the other relations of the
    same file, since the two files share relations under different names; `options.most` facts, default 200). All texts about a
    subject stay in one split.

    False targets of `lre_relations` are drawn from the targets of the relation's facts, as often as they occur there, so that a
    target alone says little; a target that is true of the subject in any fact is never its false one.

    Differs from the paper: it uses all of CounterFact (43,820 rows), asks for the truth only and splits by row, so that the true
    and the false completion of a prompt lie on both sides. `paper_rules` restores these three, with the facts of the folder.

    Raises:
        InputError: neither file is there, or a line lacks a field.
    """
    readers = {"pararel_facts": _pararel, "lre_relations": _lre}
    found = {stem: path for stem in readers for end in ENDINGS if (path := place / f"{stem}{end}").is_file()}
    if options.rows is not None:
        found = {"pararel_facts": place}  # the public data set has this form
    if not found:
        raise InputError(
            f"folder {str(place)!r} holds neither pararel_facts.jsonl nor lre_relations.jsonl (.gz, .zst): "
            "name the folder with the facts."
        )
    by_truth: Draw[None, _Fact] = Draw(None if options.paper_rules else options.most or MOST_FACTS, options.seed)
    by_relation: Draw[tuple[str, str], _Fact] = Draw(options.most or MOST_PER_RELATION, options.seed)
    for stem, path in found.items():
        for fact in readers[stem](path, options):
            if fact.false is not None:
                by_truth.offer(None, fact.id, fact)
            if not options.paper_rules:
                by_relation.offer((stem, fact.relation), fact.id, fact)
    large = [key for key, n in by_relation.offered.items() if n >= FEWEST_FACTS]
    contrasts: dict[str, tuple[str, ...]] = {TRUE: (FALSE,)} if by_truth.offered else {}
    for stem, relation in large:
        others = tuple(other for same, other in large if same == stem and other != relation)
        if others:
            contrasts[relation] = others
    if not contrasts:
        raise InputError(
            f"the facts in {str(place)!r} have no false targets and no two relations of {FEWEST_FACTS} facts."
        )
    facts: dict[str, _Fact] = {}
    labels: dict[str, list[str]] = {}
    for label, fact in [(TRUE, fact) for _, fact in by_truth.drawn()] + [
        (relation, fact) for (_, relation), fact in by_relation.drawn() if relation in contrasts
    ]:
        facts[fact.id] = fact
        labels.setdefault(fact.id, []).append(label)
    documents: list[Document] = []
    for name, fact in facts.items():
        documents.append(_document(fact, fact.true, f"{name}/true", labels[name]))
        if TRUE in labels[name] and fact.false is not None:
            documents.append(_document(fact, fact.false, f"{name}/false", [FALSE]))
    n_small = len(by_relation.offered) - len(large)
    return LabelledText(
        category="relations",
        features=tuple(contrasts),
        level="span",
        documents=tuple(documents),
        contrasts=contrasts,
        near_duplicates="by_design",
        rules=PAPER_RULES if options.paper_rules else RULES,
        notes=(f"{n_small} relations have fewer than {FEWEST_FACTS} facts and are no features.",) if n_small else (),
    )


def _document(fact: _Fact, target: str, name: str, labels: list[str]) -> Document:
    text = fact.prompt + target
    start = len(text) - len(target.lstrip())
    return Document(
        id=name, text=text, group=fact.subject, spans=tuple(Span(start, len(text), label) for label in labels)
    )


def _pararel(path: Path, options: BuildOptions) -> Iterator[_Fact]:
    for number, row in _rows(path, options):
        where = f"{path}, row {number}"
        yield _Fact(
            id=f"pararel/{number}",
            relation=_feature(f"{_text(row, 'relation_id', where)} {row.get('relation') or ''}"),
            subject=_text(row, "subject", where),
            prompt=_text(row, "prompt", where),
            true=_text(row, "target_true", where),
            false=_text(row, "target_false", where),
        )


def _lre(path: Path, options: BuildOptions) -> Iterator[_Fact]:
    objects: dict[str, list[str]] = {}
    true_of: dict[str, set[str]] = {}
    for number, row in enumerate(iter_rows(path), 1):
        where = f"{path}, row {number}"
        target = _text(row, "object", where)
        objects.setdefault(_text(row, "relation", where), []).append(target)
        true_of.setdefault(_text(row, "subject", where), set()).add(target)
    for number, row in _rows(path, options):
        name, subject, templates = f"lre/{number}", str(row["subject"]), row.get("prompt_templates")
        if not isinstance(templates, list) or not templates or not all("{}" in str(one) for one in templates):
            raise InputError(
                f"{path}, row {number}: prompt_templates is not a list of texts with {{}} for the subject."
            )
        drawn = priority(options.seed, name)
        candidates = objects[str(row["relation"])]
        turned = (candidates[(drawn + i) % len(candidates)] for i in range(len(candidates)))
        false = next((target for target in turned if target not in true_of[subject]), None)
        yield _Fact(
            id=name,
            relation=_feature(str(row["relation"])),
            subject=subject,
            prompt=str(templates[drawn % len(templates)]).replace("{}", subject),
            true=f" {row['object']}",
            false=None if false is None else f" {false}",
        )


def _rows(path: Path, options: BuildOptions) -> Iterator[tuple[int, Row]]:
    number = 0
    rows = iter_rows(path) if options.rows is None else (row for _, row in options.rows())
    for number, row in enumerate(rows, 1):
        yield number, row
        if number % PROGRESS_STEP == 0:
            options.progress(PROGRESS_STEP)
    options.progress(number % PROGRESS_STEP)


def _text(row: Row, field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where} has no {field!r}: a fact needs it (docs/datasets.md, sources).")
    return value


def _feature(relation: str) -> str:
    return "relation_" + re.sub(r"\W+", "_", relation.strip())
