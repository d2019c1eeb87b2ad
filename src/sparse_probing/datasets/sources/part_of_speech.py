"""Part of speech of each word, from a treebank (paper, EWT datasets; specification, section 1.2)."""

from __future__ import annotations

from pathlib import Path

from sparse_probing.datasets.conllu import Sentence
from sparse_probing.datasets.labelled_text import LabelledText, Span
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.datasets.sources.treebank import others, treebank_documents, treebank_text

TAGS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip
FEATURES = tuple(f"upos_{tag}" for tag in TAGS)
"""The paper's 16 tags: PART is not among them."""


def part_of_speech(place: Path, options: BuildOptions) -> LabelledText:
    """Tokens by the tag of their word; negatives are the words with another of the 16 tags.

    Differs from the paper: PUNCT is spelled as in the treebank, the official splits are kept, sentences of one word stay.
    Paper rules: `upos_PUNC`, rows split at random, the paper's numbers and packing (see `treebank`).
    """
    respelled = {"PUNCT": "PUNC"} if options.paper_rules else {}

    def label(sentence: Sentence) -> list[Span]:
        return [Span(word.start, word.end, f"upos_{respelled.get(word.upos, word.upos)}") for word in sentence.words]

    features = tuple(f"upos_{respelled.get(tag, tag)}" for tag in TAGS)
    return treebank_text(
        treebank_documents(place, options, label),
        options,
        category="part of speech",
        features=features,
        contrasts=others(features),
    )
