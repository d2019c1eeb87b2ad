"""Relation of each word to its head, from a treebank (paper, EWT datasets; specification, section 1.2)."""

from __future__ import annotations

from pathlib import Path

from sparse_probing.datasets.conllu import Sentence
from sparse_probing.datasets.labelled_text import LabelledText, Span
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.datasets.sources.treebank import others, treebank_documents, treebank_text

RELATIONS = (
    "acl", "acl:relcl", "advcl", "advmod", "amod", "appos", "aux", "aux:pass", "case", "cc", "ccomp", "compound", "conj", "cop",
    "det", "flat", "list", "mark", "nmod", "nmod:poss", "nsubj", "nsubj:pass", "nummod", "obj", "obl", "parataxis", "punct",
    "root", "xcomp",
)  # fmt: skip
FEATURES = tuple(f"dep_{relation}" for relation in RELATIONS)
"""The paper's 29 relations; a subtype that is not listed (`obl:agent`) is neither positive nor negative."""


def dependencies(place: Path, options: BuildOptions) -> LabelledText:
    """Tokens by the relation of their word; negatives are the words with another of the 29 relations.

    Differs from the paper: the official splits are kept, sentences of one word stay. Paper rules: rows split at random, the
    paper's numbers and packing (see `treebank`). Newer releases of English-EWT give some words subtypes that are not listed.
    """

    def label(sentence: Sentence) -> list[Span]:
        return [Span(word.start, word.end, f"dep_{word.deprel}") for word in sentence.words]

    return treebank_text(
        treebank_documents(place, options, label),
        options,
        category="dependencies",
        features=FEATURES,
        contrasts=others(FEATURES),
    )
