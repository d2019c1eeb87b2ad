"""One file per feature category: a folder of source text in, `LabelledText` out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sparse_probing.datasets.hugging_face import HUB
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.latex_markup import FEATURES as LATEX_FEATURES
from sparse_probing.datasets.places import is_hugging_face, source_rows
from sparse_probing.datasets.sources import (
    compound_words,
    demo_corpus,
    dependencies,
    kind_of_text,
    latex,
    morphology,
    natural_language,
    part_of_speech,
    people,
    programming_language,
    relations,
    sequence_position,
    text_features,
)
from sparse_probing.datasets.sources.source import BuildOptions, Source
from sparse_probing.errors import InputError

LONGEST_LICENCE = 120
"""Characters of a licence file's first line that are kept."""
_COMPOUNDS = tuple("-".join(pair) for pair in compound_words.PAPER_PAIRS)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("part-of-speech", part_of_speech.part_of_speech, "treebank", part_of_speech.FEATURES),
        Source("dependencies", dependencies.dependencies, "treebank", dependencies.FEATURES),
        Source("morphology", morphology.morphology, "treebank", morphology.FEATURES),
        Source(
            "programming-language",
            programming_language.programming_language,
            "corpus",
            programming_language.PAPER_LANGUAGES,
        ),
        Source("natural-language", natural_language.natural_language, "corpus", natural_language.PAPER_LANGUAGES),
        Source("kind-of-text", kind_of_text.kind_of_text, "corpus", tuple(kind_of_text.PAPER_KINDS)),
        Source("text-features", text_features.text_features, "corpus", tuple(text_features.PATTERNS)),
        Source("compound-words", compound_words.compound_words, "corpus", _COMPOUNDS),
        Source("latex", latex.latex, "corpus", LATEX_FEATURES),
        Source("people", people.people, "people", people.FEATURES),
        Source("relations", relations.relations, "relations", (), "true or false completion; each relation"),
        Source(
            "sequence-position",
            sequence_position.sequence_position,
            "corpus",
            (),
            "numbers: position, log2_position",
        ),
    )
}
"""Name on the command line -> source. The folder layouts are described in docs/datasets.md."""


def build_source(name: str, place: Path, options: BuildOptions) -> LabelledText:
    """Labelled text of one source.

    Args:
        name: key of `SOURCES`.
        place: folder in the source's layout, or a Hugging Face data set (a folder, or `hf:owner/name`) with our columns or those
            of the public data set that `HUB` names.
        options: seed, rules, how much to draw.

    Raises:
        InputError: nothing of this source there, or malformed text.
        PrerequisiteError: a data set of the hub without the extra, or without network.
    """
    if is_hugging_face(place):
        if name not in HUB:
            raise InputError(
                f"source {name!r} is not read from Hugging Face data sets: name a folder (docs/datasets.md, sources)."
            )
        options = replace(options, rows=lambda: source_rows(place, HUB[name]))
    labelled = SOURCES[name].build(place, options)
    licence = HUB[name].licence if options.rows is not None else _licence_of(place)
    documents = tuple(d if d.licence else replace(d, licence=licence) for d in labelled.documents) if licence else None
    return labelled if documents is None else replace(labelled, documents=documents)


def _licence_of(folder: Path) -> str | None:
    """First line of the folder's licence file (treebanks come with one); null where there is none."""
    for path in sorted(folder.glob("LICEN[SC]E*")) if folder.is_dir() else []:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        first = next((line.strip() for line in lines if line.strip()), None)
        if first:
            return first[:LONGEST_LICENCE]
    return None


__all__ = ["SOURCES", "BuildOptions", "Source", "build_source", "demo_corpus"]
