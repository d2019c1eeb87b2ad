"""Every builder with every kind of fast tokenizer; the treebank's sequences beside the paper's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from sparse_probing.datasets.backends import FastBackend
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.datasets.rules import SamplingRules
from sparse_probing.datasets.sources import SOURCES, BuildOptions, build_source
from sparse_probing.datasets.text_tokenizer import TextTokenizer, tokenize
from sparse_probing.datasets.windows import windows_of
from sparse_probing.records import Split, task_rng
from tests.test_alignment import BUILDERS, tokenizer_called
from tests.test_inputs import PUBLIC, parquet_folder

PEOPLE = "name,gender,party,is_politician\n" + "".join(
    f"{first} {last},{'female' if i % 2 else 'male'},{'Republican' if (i + j) % 2 else 'Democratic'},1\n"
    for i, first in enumerate(("Amalia", "Bertram", "Cosima", "Dietmar", "Elvira", "Fridolin"))
    for j, last in enumerate(("Grünwald", "O'Hara", "Łukasik", "van der Meer", "Ångström", "Nguyễn"))
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LabelledText]:
    """Every source, from text of the size of a page."""
    folder = tmp_path_factory.mktemp("sources")
    texts = {}
    for name, rows in PUBLIC.items():
        texts[name] = build_source(name, parquet_folder(folder / name, {"train": rows}), BuildOptions())
    (folder / "people").mkdir()
    (folder / "people" / "people.csv").write_text(PEOPLE, encoding="utf-8")
    return texts | {"people": build_source("people", folder / "people", BuildOptions())}


@pytest.mark.parametrize("tokenizer_name", list(BUILDERS))
def test_every_builder_gives_rows_with_every_tokenizer(built, tokenizer_name):
    tokenizer = tokenizer_called(tokenizer_name)
    assert set(built) == set(SOURCES)
    for name, labelled in built.items():
        small = {"min_rows": 1, "skip_first": 1, "full_windows_only": False, "split_by": "group"}
        rules = SamplingRules().adapted(labelled.rules, small | ({"window": 64} if name == "sequence-position" else {}))
        dataset = build_feature_dataset(labelled, tokenizer, rules, np.random.default_rng(0))
        assert dataset.n_rows >= 6, name
        assert dataset.features or dataset.targets, name
        if labelled.level == "span":
            check_spans(labelled, dataset)


def check_spans(labelled: LabelledText, dataset) -> None:
    """Positive rows hold all characters of a stretch with their label, up to what tokenizers drop."""
    documents = {document.id: document for document in labelled.documents}
    for row in range(dataset.n_rows):
        sequence = dataset.row_sequence[row]
        document = documents[dataset.document_ids[dataset.sequence_document[sequence]]]
        tokens = slice(
            dataset.sequence_starts[sequence] + dataset.row_first[row],
            dataset.sequence_starts[sequence] + dataset.row_last[row],
        )
        start, end = dataset.char_starts[tokens].min(), dataset.char_ends[tokens].max()
        for f in np.flatnonzero(dataset.positive[row] & dataset.eligible[row]):
            spans = [span for span in document.spans if span.label == dataset.features[f]]
            assert any(start <= span.start + 1 and span.end <= end + 1 for span in spans)


@pytest.mark.real_data
def test_the_treebank_has_the_papers_sequences(real_data: Path):
    """Paper: 1,438 sequences and 281,044 tokens of an older release (specification, sections 1.1 and 1.11)."""
    tokenizer = TextTokenizer(
        backend=FastBackend(Tokenizer.from_file(str(real_data / "pythia_tokenizer" / "20B_tokenizer.json"))), front=(0,)
    )
    labelled = SOURCES["part-of-speech"].build(real_data / "ewt", BuildOptions(paper_rules=True))
    rules = SamplingRules().adapted(labelled.rules, {})
    texts = tokenize(tokenizer, [document.text for document in labelled.documents])
    windows = [
        end - begin
        for document, text in zip(labelled.documents, texts, strict=True)
        for begin, end in windows_of(text, document.breaks, tokenizer.room(rules.window), rules)
    ]
    assert len(windows) == 1_438
    assert abs(sum(windows) - 281_044) <= 20


@pytest.mark.real_data
def test_with_our_rules_no_document_of_the_treebank_is_in_two_splits(real_data: Path):
    tokenizer = TextTokenizer(
        backend=FastBackend(Tokenizer.from_file(str(real_data / "pythia_tokenizer" / "20B_tokenizer.json"))), front=(0,)
    )
    for paper_rules in (False, True):
        labelled = SOURCES["part-of-speech"].build(real_data / "ewt", BuildOptions(paper_rules=paper_rules))
        rules = SamplingRules().adapted(labelled.rules, {})
        dataset = build_feature_dataset(labelled, tokenizer, rules, task_rng(0, "rows"))
        document = dataset.sequence_document[dataset.row_sequence]
        sides = [len(np.unique(dataset.row_split[document == d])) for d in np.unique(document)]
        assert (max(sides) == 1) is not paper_rules, "the paper's random rows leak documents (D10)"
        if not paper_rules:
            positives = {feature: dataset.counts(f)[Split.TEST][0] for f, feature in enumerate(dataset.features)}
            rare = {feature for feature, n in positives.items() if n < 100}
            assert rare <= {"upos_SYM", "upos_X"}, "rare in the treebank's test part"
