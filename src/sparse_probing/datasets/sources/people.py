"""Facts about people: what a model knows when it has read a name (paper, facts from Wikidata, 17 features).

The folder holds files `people*.csv` (`.gz`, `.zst`), one person per row, with the column `name` and any of these; an empty cell
means *unknown*, other columns are ignored:

- `sex_or_gender` or `gender` (male, female), or `is_male` (1, 0)
- `is_alive` (1, 0), `birth_year`, `death_year`
- `political_party` or `party` (Republican, Democratic), of politicians
- `is_politician`, `is_actor`, `is_researcher`, `is_singer`, `is_journalist`, `is_athlete` (1, 0); a `role` (a public
  office) makes a politician
- `sport` (association football, basketball, American football, baseball, ice hockey; plain *football* is the American one);
  makes an athlete

A folder `corpus` in this folder or beside it (layout: see the module `corpus`) is searched for the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparse_probing.datasets.disjoint_sets import DisjointSets
from sparse_probing.datasets.draw import Draw, priority
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.readers import iter_rows
from sparse_probing.datasets.sources.corpus import ENDINGS, PAPER_FRACTIONS, PROGRESS_STEP, corpus_document, corpus_rows
from sparse_probing.datasets.sources.name_search import NameIndex
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.errors import InputError

CLASSES: dict[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "alive": ("true", "false"),
    "party": ("republican", "democratic"),
    "occupation": ("politician", "actor", "researcher", "singer", "journalist", "athlete"),
    "sport": ("association_football", "basketball", "american_football", "baseball", "ice_hockey"),
}
"""Property -> its classes; the feature of a class is `property_class`."""
FEATURES = tuple(f"{of}_{name}" for of, names in CLASSES.items() for name in names)
MOST = {"gender": 3_000, "alive": 3_000, "party": 1_500, "occupation": 1_000, "sport": 1_000}
"""The paper's people per class."""
YES_COLUMNS = ("is_male", "is_alive", *(f"is_{job}" for job in CLASSES["occupation"]))
COLUMN_OF = {
    "gender": "`sex_or_gender`, `gender` or `is_male`",
    "alive": "`is_alive`",
    "party": "`political_party` or `party`",
    "occupation": "`is_politician`, `is_actor`, ...",
    "sport": "`sport`",
}
SPELLINGS = {"f": "female", "m": "male", "football": "american_football", "soccer": "association_football"}
PAPER_LAST_DEATH = 1980

TEMPLATES = (
    "The next name on the list was {name}",
    "At the top of the page someone had written {name}",
    "The last entry in the index is {name}",
    "Among the names mentioned in the report is {name}",
    "One of the questions in the quiz was about {name}",
    "The label on the envelope said {name}",
    "Several readers had never heard of {name}",
    "A short note in the margin refers to {name}",
)
"""Sentences that say nothing about gender, work, party or life; the name ends them."""
TEMPLATES_PER_PERSON = 2
CONTEXTS_PER_PERSON = 2
CONTEXT_CHARACTERS = 1_000
"""More text than a window of 128 tokens holds."""
SHORTEST_NAME = 8
PAPER_REPEATS = 2
PAPER_NAMES_PER_SEARCH = 500

RULES = {"pooling": "max", "anchor": "end", "window": 128, "skip_first": 0}
PAPER_RULES = {**RULES, "max_rows": 6_000, "sampling": "natural", "split_by": "row", "fractions": PAPER_FRACTIONS}


@dataclass(slots=True)
class _Person:
    claims: set[tuple[str, str, str]] = field(default_factory=set)
    """Property, value and the file that says so."""
    n_known: int = 0
    """Filled cells, the stand-in for fame."""


@dataclass(frozen=True, slots=True)
class _Context:
    id: str
    text: str
    document: str | None = None
    """Document of the corpus that it was cut from."""
    source: str | None = None
    licence: str | None = None


def people(place: Path, options: BuildOptions) -> LabelledText:
    """Names at the end of neutral sentences and, where a corpus has them, of real contexts; the surname is the span.

    Each person stands in 2 of 8 template sentences and in up to 2 places of the corpus, both drawn by hash, and all of them stay
    in one split. At most `options.most` people (default: the paper's numbers) are drawn per class.

    Differs from the paper:

    - It knows a name only from the Pile: a person occurs once, in real text, and only if found twice. Here the templates do
      not need the name to occur anywhere; the corpus is searched for every hit (D5).
    - A class is taken from files that know at least two classes of its property; else the file would be the label.
    - A person with several classes of a property over all rows has none (the paper: for occupations; of people who share a
      name it keeps the one with more properties). A name with a comma (*Jr.*, *Duke of*) tells the gender and is left out.
    - People are drawn at random, not by the number of known properties.
    - *Not alive* is any death, not only one by 1980. *Alive* is only what the column `is_alive` says, never an empty cell.
    - Whether a name's tokens end the text exactly is left to the alignment.

    `paper_rules` restores: real text only, one row per name found at least twice, the first hit of each group of 500 names in a
    document (D5), the people with most known cells first, all files, names with commas, deaths by 1980, random rows (D10).

    Raises:
        InputError: no such file, no column `name`, a cell that cannot be read, no property with two classes, or `paper_rules`
            without a corpus.
    """
    notes: list[str] = []
    known = _properties(_read_people(place, options), notes, paper_rules=options.paper_rules)
    corpus = _corpus_beside(place)
    if options.paper_rules and corpus is None:
        raise InputError(
            f"paper_rules take names from running text, but there is no corpus in {str(place)!r} or beside it: "
            "put .jsonl files into a folder 'corpus' there, or leave paper_rules out."
        )
    if options.paper_rules and corpus is not None:
        contexts = _contexts(corpus, list(known), options, notes)
        labels = _first(known, options.most, having=contexts)
    else:
        labels = _drawn(known, options)
        contexts = {} if corpus is None else _contexts(corpus, list(labels), options, notes)
        for name in labels:
            contexts[name] = [*_in_templates(name, options.seed), *contexts.get(name, ())]
    found = {label for of_person in labels.values() for label in of_person}
    features: list[str] = []
    contrasts: dict[str, tuple[str, ...]] = {}
    for of, names in CLASSES.items():
        here = [f"{of}_{name}" for name in names if f"{of}_{name}" in found]
        absent = [f"{of}_{name}" for name in names if f"{of}_{name}" not in found]
        if absent:
            notes.append(f"nobody for {', '.join(absent)}: fill the column {COLUMN_OF[of]} of a people*.csv file.")
        if len(here) > 1:
            features += here
            contrasts |= {label: tuple(other for other in here if other != label) for label in here}
    if not features:
        raise InputError(
            f"the people in {str(place)!r} have no property of which two classes are known: {'; '.join(notes)}"
        )
    groups = _groups({name: contexts[name] for name in labels})
    return LabelledText(
        category="facts about people",
        features=tuple(features),
        level="span",
        documents=tuple(
            _document(name, groups[name], context, of_person)
            for name, of_person in labels.items()
            for context in contexts[name]
        ),
        contrasts=contrasts,
        near_duplicates="by_design",
        rules=PAPER_RULES if options.paper_rules else RULES,
        notes=tuple(notes),
    )


def _groups(contexts: Mapping[str, Sequence[_Context]]) -> dict[str, str]:
    """People who stand in the same document of the corpus share a group, so that the document is in one split."""
    joined = DisjointSets(contexts)
    first: dict[str, str] = {}
    for name, found in contexts.items():
        for context in found:
            if context.document is not None:
                joined.merge(first.setdefault(context.document, name), name)
    return {name: joined[name] for name in contexts}


def _document(name: str, group: str, context: _Context, labels: Sequence[str]) -> Document:
    surname = len(context.text) - len(name) + name.index(" ") + 1  # all that follows the first space, as in the paper
    return Document(
        id=f"{name}/{context.id}",
        text=context.text,
        group=group,
        spans=tuple(Span(surname, len(context.text), label) for label in labels),
        source=context.source,
        licence=context.licence,
    )


def _in_templates(name: str, seed: int) -> Iterator[_Context]:
    order = sorted(range(len(TEMPLATES)), key=lambda i: priority(seed, f"{name}/{i}"))
    for i in order[:TEMPLATES_PER_PERSON]:
        yield _Context(f"template {i}", TEMPLATES[i].format(name=name))


def _read_people(place: Path, options: BuildOptions) -> dict[str, _Person]:
    paths = sorted(path for path in place.glob("people*") if path.name.endswith((".csv", ".csv.gz", ".csv.zst")))
    if not paths:
        raise InputError(
            f"folder {str(place)!r} holds no people*.csv file (.gz, .zst): name the folder with the facts."
        )
    found: dict[str, _Person] = {}
    for path in paths:
        number = 0
        for number, row in enumerate(iter_rows(path), 1):
            if "name" not in row:
                raise InputError(f"{path} has no column 'name': it has {', '.join(map(repr, row))}.")
            cells = {column: text for column, value in row.items() if (text := str(value or "").strip())}
            name = " ".join(cells.get("name", "").split())
            if _is_full_name(name, options):
                person = found.setdefault(name, _Person())
                person.n_known += len(cells)
                for of, value in _claims(cells, f"{path}, row {number}", paper_rules=options.paper_rules):
                    person.claims.add((of, value, path.name))
            if number % PROGRESS_STEP == 0:
                options.progress(PROGRESS_STEP)
        options.progress(number % PROGRESS_STEP)
    return found


def _is_full_name(name: str, options: BuildOptions) -> bool:
    whole = len(name) >= SHORTEST_NAME and " " in name
    return whole and (options.paper_rules or (name[0].isupper() and "," not in name))


def _yes(cells: Mapping[str, str], column: str, where: str) -> bool | None:
    value = cells.get(column, "").lower()
    if value in ("", "1", "1.0", "true", "yes", "0", "0.0", "false", "no"):
        return value[0] in "1ty" if value else None
    raise InputError(f"{where}: {column} is {value!r}; write 1, 0 or nothing.")


def _claims(cells: Mapping[str, str], where: str, *, paper_rules: bool) -> Iterator[tuple[str, str]]:
    """Properties of one row: classes, or any other value that the row gives."""
    yes = {column: _yes(cells, column, where) for column in YES_COLUMNS if column in cells}
    jobs = {job for job in CLASSES["occupation"] if yes.get(f"is_{job}")}
    if "sport" in cells:
        jobs.add("athlete")
    if "role" in cells:
        jobs.add("politician")
    gender = cells.get("sex_or_gender") or cells.get("gender")
    if not gender and yes.get("is_male") is not None:
        gender = "male" if yes["is_male"] else "female"
    party = cells.get("political_party") or cells.get("party")
    if (jobs and "politician" not in jobs) or yes.get("is_politician") is False:
        party = None  # the paper asks for politicians
    for of, value in (("gender", gender), ("party", party), ("sport", cells.get("sport"))):
        if value:
            short = value.lower().removesuffix(" player").removesuffix(" party")
            yield of, SPELLINGS.get(short, short.replace(" ", "_"))
    for job in sorted(jobs):
        yield "occupation", job
    is_alive, death = yes.get("is_alive"), _year(cells.get("death_year", ""), where)
    if is_alive and ("birth_year" in cells or not paper_rules):
        yield "alive", "true"
    if is_alive is False or death is not None:
        late = paper_rules and (death is None or death > PAPER_LAST_DEATH)
        yield "alive", "died late" if late else "false"


def _year(value: str, where: str) -> float | None:
    try:
        return float(value) if value else None
    except ValueError:
        raise InputError(f"{where}: death_year is {value!r}; write a number or nothing.") from None


def _properties(found: Mapping[str, _Person], notes: list[str], *, paper_rules: bool) -> dict[str, dict[str, str]]:
    """The one class of each person's properties; names come in the order of fame under the paper's rules."""
    classes_in: dict[tuple[str, str], set[str]] = {}
    for person in found.values():
        for of, value, file in person.claims:
            if value in CLASSES[of]:
                classes_in.setdefault((of, file), set()).add(value)
    known: dict[str, dict[str, str]] = {}
    several = dict.fromkeys(CLASSES, 0)
    for name in sorted(found, key=lambda name: -found[name].n_known) if paper_rules else found:
        for of, classes in CLASSES.items():
            claims = [(value, file) for claimed, value, file in found[name].claims if claimed == of]
            values = {value for value, _ in claims}
            several[of] += len(values) > 1
            compared = paper_rules or any(len(classes_in.get((of, file), ())) > 1 for _, file in claims)
            if len(values) == 1 and values <= set(classes) and compared:
                known.setdefault(name, {})[of] = values.pop()
    notes += [f"{of}: {count:,} names have several values and are left out." for of, count in several.items() if count]
    for (of, file), classes in sorted(classes_in.items()):
        if len(classes) == 1 and not paper_rules:
            notes.append(f"{of}: {file} knows {min(classes)} only and is not used, for the file would be the label.")
    return known


def _drawn(known: Mapping[str, Mapping[str, str]], options: BuildOptions) -> dict[str, list[str]]:
    """Labels of the people drawn for each class."""
    labels: dict[str, list[str]] = {}
    for of, most in MOST.items():
        draw: Draw[str, str] = Draw(options.most or most, options.seed)
        for name, classes in known.items():
            if of in classes:
                draw.offer(f"{of}_{classes[of]}", name, name)
        for label, name in draw.drawn():
            labels.setdefault(name, []).append(label)
    return labels


def _first(
    known: Mapping[str, Mapping[str, str]], most: int | None, having: Mapping[str, object]
) -> dict[str, list[str]]:
    """Labels of the first people of each class."""
    taken = dict.fromkeys(FEATURES, 0)
    labels: dict[str, list[str]] = {}
    for name in known:
        for of, value in known[name].items() if name in having else ():
            if taken[f"{of}_{value}"] < (most or MOST[of]):
                taken[f"{of}_{value}"] += 1
                labels.setdefault(name, []).append(f"{of}_{value}")
    return labels


def _corpus_beside(place: Path) -> Path | None:
    folders = (place / "corpus", place.resolve().parent / "corpus")
    has_rows = (folder for folder in folders if any(path.name.endswith(ENDINGS) for path in folder.glob("*.jsonl*")))
    return next(has_rows, None)


def _contexts(corpus: Path, names: Sequence[str], options: BuildOptions, notes: list[str]) -> dict[str, list[_Context]]:
    """Text that ends with a name, for names that the corpus has (often enough)."""
    search = NameIndex(names)
    group_of = {name: i // PAPER_NAMES_PER_SEARCH for i, name in enumerate(names)} if options.paper_rules else {}
    draw: Draw[str, _Context] = Draw(1 if options.paper_rules else CONTEXTS_PER_PERSON, options.seed)
    for number, (_, row) in enumerate(corpus_rows(corpus, options)):
        text, seen = str(row["text"]), set[int]()
        origin = corpus_document(row, None, number)
        for start, name in search.find(text):
            if options.paper_rules and group_of[name] in seen:
                continue
            seen.add(group_of.get(name, 0))
            key = f"{origin.id}:{start}"
            context = _Context(key, _ending(text, start) + name, origin.group, origin.source, origin.licence)
            draw.offer(name, key, context)
    found: dict[str, list[_Context]] = {}
    for name, context in draw.drawn():
        if not options.paper_rules or draw.offered[name] >= PAPER_REPEATS:
            found.setdefault(name, []).append(context)
    notes.append(
        f"{len(found):,} of {len(names):,} names were found in the corpus {corpus.name!r} ({sum(draw.offered.values()):,} places)."
    )
    return found


def _ending(text: str, end: int) -> str:
    """Whole words before a character."""
    begin = max(0, end - CONTEXT_CHARACTERS)
    if begin and not text[begin - 1].isspace():
        begin = next((i + 1 for i in range(begin, end) if text[i].isspace()), begin)
    return text[begin:end]
