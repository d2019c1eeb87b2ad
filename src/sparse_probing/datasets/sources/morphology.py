"""Morphology of each word and ends of sentences, from a treebank (paper, EWT datasets; specification, section 1.2)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from sparse_probing.datasets.conllu import PLAIN_WORD, Sentence
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.datasets.sources.treebank import treebank_documents, treebank_text

FEATURES = (
    "VerbForm_Fin", "VerbForm_Inf", "VerbForm_Ger", "VerbForm_Part",
    "PronType_Art", "PronType_Dem", "PronType_Prs", "PronType_Rel", "PronType_Int",
    "Person_1", "Person_2", "Person_3", "Gender_Masc", "Gender_Fem", "Gender_Neut",
    "Number_Plur", "Mood_Imp", "Tense_Past", "NumType_Card", "Voice_Pass", "eos_True", "first_eos_True",
)  # fmt: skip
"""The paper's 22."""
BETWEEN_VALUES = ("VerbForm", "PronType", "Person", "Gender")
"""Attributes whose values are told from each other; a word that has one carries its bare name as a label."""
CONTRASTS = {
    **{feature: (feature.split("_")[0],) for feature in FEATURES if feature.startswith(BETWEEN_VALUES)},
    "Number_Plur": ("Number_Sing",),
    "Mood_Imp": ("Mood_Ind",),
    "Tense_Past": ("Tense_Pres",),
    "Voice_Pass": ("upos_VERB",),
    "first_eos_True": ("eos_True",),
}
"""What the negatives carry; `NumType_Card` and `eos_True` have all other words."""
_LABELS = {*FEATURES, *(name for names in CONTRASTS.values() for name in names)}


def morphology(place: Path, options: BuildOptions) -> LabelledText:
    """Tokens by the morphology of their word; most features are told from other values of the same attribute only.

    `eos_True`: the run of punctuation that ends a sentence, if it holds `.`, `!` or `?`. `first_eos_True`: that of the document's
    first such sentence, against those of the others.

    Differs from the paper: the official splits are kept, sentences of one word stay. Paper rules: rows split at random, the
    paper's numbers and packing (see `treebank`). Two differences remain, since tokens are not known here. The paper's `eos_True` is
    the last token only; a run that takes several tokens (`....` as two) has all of them here (English-EWT, Pythia tokenizer:
    1.6 % more tokens, none fewer). The paper's `first_eos_True` is the first of each 512-token sequence, not of each document.
    """

    def label(sentence: Sentence) -> list[Span]:
        return [*_word_labels(sentence), *_end_label(sentence.text)]

    return treebank_text(
        map(_with_first_end, treebank_documents(place, options, label)),
        options,
        category="morphology",
        features=FEATURES,
        contrasts=CONTRASTS,
    )


def _word_labels(sentence: Sentence) -> list[Span]:
    spans: list[Span] = []
    for word in sentence.words:
        pairs = [(attribute, value) for attribute, values in word.feats.items() for value in values.split(",")]
        names = [f"upos_{word.upos}", *(f"{attribute}_{value}" for attribute, value in pairs), *word.feats]
        spans += [Span(word.start, word.end, name) for name in names if name in _LABELS] or [
            Span(word.start, word.end, PLAIN_WORD)
        ]
    return spans


def _end_label(text: str) -> list[Span]:
    run = re.match(r"[^\w\s]*", text[::-1])  # backwards: a search for the last run would try every run
    begin = len(text) - (run.end() if run else 0)
    return [Span(begin, len(text), "eos_True")] if re.search(r"[.!?]", text[begin:]) else []


def _with_first_end(document: Document) -> Document:
    first = next((span for span in document.spans if span.label == "eos_True"), None)
    return replace(document, spans=(*document.spans, first._replace(label="first_eos_True"))) if first else document
