"""What the options of a run name: own labels of every form, sources from folders and from Hugging Face data sets."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest

from sparse_probing.activations.models import outline_model
from sparse_probing.config import DataConfig, RunConfig, SourceName, make_config, make_data_config
from sparse_probing.datasets.backends import FastBackend
from sparse_probing.datasets.build_rows import build_feature_dataset
from sparse_probing.datasets.dataset_folder import fingerprint, write_dataset_folder
from sparse_probing.datasets.feature_dataset import FeatureDataset
from sparse_probing.datasets.hugging_face import HUB
from sparse_probing.datasets.places import is_hugging_face, rows_with_split
from sparse_probing.datasets.rows_used import rows_used_of
from sparse_probing.datasets.rules import SamplingRules, merged_rules
from sparse_probing.datasets.sources import SOURCES, BuildOptions, build_source
from sparse_probing.datasets.text_tokenizer import TextTokenizer
from sparse_probing.errors import InputError
from sparse_probing.inputs import build_dataset, labelled_text_of
from sparse_probing.records import Pooling
from sparse_probing.sweep.text_baseline import TextOnly

WORDS = [
    "river",
    "stone",
    "lamp",
    "window",
    "garden",
    "letter",
    "bread",
    "music",
    "paper",
    "cloud",
    "engine",
    "forest",
    "silver",
    "tower",
    "winter",
    "market",
]


def sentence(seed: int, n: int = 30) -> str:
    """Words in a random order."""
    return " ".join(WORDS[i] for i in np.random.default_rng(seed).integers(0, len(WORDS), n))


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(**options: Any) -> Any:
    (labelled,) = labelled_text_of(DataConfig(**options))
    return labelled


# ---- own labels ----------------------------------------------------------------------------------------------------


def test_each_form_of_own_labels_is_chosen_by_its_options(tmp_path):
    rows = [
        {
            "text": f"{sentence(i)} {1990 + i}",
            "topic": "ab"[i % 2],
            "price": i + 0.5,
            "spans": [{"start": 0, "end": 3, "label": "first"}],
            "tokens": ["Ada", "slept"],
            "ner_tags": ["B-PER", "O"],
            "city": f"Town {i}",
        }
        for i in range(12)
    ]
    path = jsonl(tmp_path / "own.jsonl", rows)
    assert read(data=path, label=("topic",), positive=("b",)).features == ("topic=b",)
    assert read(data=path, number=("price",)).numbers == ("price",)
    assert read(data=path, spans_column="spans").features == ("first",)
    assert read(data=path, tags_column="ner_tags").documents[0].text == "Ada slept"
    years = read(data=path, label_regex=(r"is_year=\b(19|20)\d\d\b",))
    assert years.features == ("is_year",) and years.level == "token"
    assert read(data=path, label_regex=(r"is_year=\b(19|20)\d\d\b", "word=[a-z]+"), rows="spans").level == "span"
    filled = read(data=path, template=("We saw {city}",), label=("topic",))
    assert filled.documents[3].text == "We saw Town 3" and filled.level == "span"
    few = read(data=path, label=("topic",), positive=("a",), max_documents=5)
    assert few.notes == ("5 of 12 rows with text were drawn (seed 0).",)


@pytest.mark.parametrize("text", ["column", "template"])
def test_a_column_of_two_values_keeps_all_rows_of_whole_texts(tmp_path, model_folders, text):
    """437 of one house and 100 of the other: one feature, no row thrown away, whether the names are texts or fill a template."""
    rows = [
        {"text": sentence(i), "name": f"{sentence(i, 2)} {i}", "chamber": ["house", "senate"][i >= 437]}
        for i in range(537)
    ]
    config = DataConfig(
        data=jsonl(tmp_path / "congress.jsonl", rows),
        label=("chamber",),
        template=("I met {name} there.",) if text == "template" else (),
        pooling=Pooling.LAST,
    )
    dataset = build_dataset(config, labelled_text_of(config), outline_model(str(model_folders["gpt2"])))
    assert dataset.features == ("chamber=senate",)
    assert dataset.n_rows == 537
    assert (dataset.positive & dataset.eligible).sum(axis=0).tolist() == [100]
    assert dataset.eligible.all()


def test_conllu_is_read_by_its_ending(tmp_path):
    lines = [
        "# text = Dogs bark",
        "1\tDogs\tdog\tNOUN\t_\tNumber=Plur\t2\tnsubj\t_\t_",
        "2\tbark\tbark\tVERB\t_\t_\t0\troot\t_\t_",
    ]
    path = tmp_path / "a.conllu"
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    assert read(data=path, label=("upos",)).features == ("upos=NOUN", "upos=VERB")
    with pytest.raises(InputError, match=r"give --label upos, xpos, deprel or feats.Tense"):
        read(data=path)


def test_a_dataset_folder_is_read_by_what_it_holds(tmp_path):
    labelled = read(
        data=jsonl(tmp_path / "a.jsonl", [{"text": sentence(i), "y": i % 2} for i in range(8)]), label=("y",)
    )
    write_dataset_folder(tmp_path / "folder", labelled)
    assert fingerprint(read(data=tmp_path / "folder")) == fingerprint(labelled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no label column named for"),
        ({"label_regex": ("a=x", "a=y")}, "two of the regular expressions have the same name"),
        ({"label_regex": ("x+",)}, "is not NAME=REGEX"),
        ({"template": ("{citty}",), "label": ("y",)}, "did you mean 'city'"),
        ({"label_regex": ("a=x",), "label": ("y",)}, "--label has no meaning with --label-regex"),
        ({"label": ("y",), "rows": "spans"}, "--rows needs labelled characters: --spans-column"),
        ({"label_regex": ("a=x",), "positive": ("x",)}, "--positive has no meaning with --label-regex"),
        ({"label": ("city",), "positive": ("Bern",)}, "has no value 'Bern': --positive takes 'Oslo' or 'Rome'"),
        ({"label": ("y",), "target": "city"}, "--target needs --template"),
        ({"label": ("y",), "source": "latex"}, "--label has no meaning with --source"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    path = jsonl(
        tmp_path / "a.jsonl", [{"text": "a b", "city": "Rome", "y": 1}, {"text": "c d", "city": "Oslo", "y": 0}]
    )
    with pytest.raises(InputError, match=message):
        read(data=path, **options)


def test_no_data_and_unknown_options_are_refused():
    with pytest.raises(InputError, match="no data named"):
        labelled_text_of(DataConfig())
    with pytest.raises(InputError, match="paper_rules belongs to a --source"):
        make_config({"paper_rules": True, "data": Path("x.csv")})
    with pytest.raises(InputError, match="option lable"):
        make_data_config({"lable": ("y",)})
    assert make_data_config({"layers": [0], "seed": 3}).seed == 3, "options of a run are ignored"
    assert RunConfig(data=Path("a/reviews.csv.gz")).data_name() == "reviews"


@pytest.mark.parametrize(
    "way", [{"label": ("y",)}, {"label_regex": ("a=a",)}, {"template": ("{city}",), "label": ("y",)}]
)
def test_the_user_names_the_category(tmp_path, way):
    rows = [{"text": "a b", "city": "Rome", "y": 1}, {"text": "c d", "city": "Oslo", "y": 0}]
    path = jsonl(tmp_path / "export-2024-final(2).jsonl", rows)
    assert read(data=path, category="moods", **way).category == "moods"
    assert read(data=path, **way).category == "export-2024-final(2)"
    with pytest.raises(InputError, match="--category has no meaning with --source"):
        read(data=path, source="latex", category="moods")
    with pytest.raises(InputError, match="category must not be blank"):
        make_config({"category": " "})


# ---- Hugging Face data sets ----------------------------------------------------------------------------------------


def parquet_folder(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> Path:
    (folder / "data").mkdir(parents=True)
    for split, part in rows.items():
        pl.DataFrame(part).write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_own_labels_from_a_hugging_face_folder_keep_its_splits_and_class_names(tmp_path):
    rows = {
        split: [{"text": f"{split} {sentence(i)}", "y": ["no", "yes"][i % 2]} for i in range(n)]
        for split, n in (("train", 8), ("test", 4))
    }
    folder = parquet_folder(tmp_path / "set", rows)
    assert is_hugging_face(folder) and rows_with_split(folder)[1]
    labelled = read(data=folder, label=("y",))
    assert [d.split for d in labelled.documents].count("test") == 4
    assert labelled.features == ("y",)


def test_rows_of_splits_without_labels_are_left_out(tmp_path):
    rows = {
        split: [{"text": f"{split} {sentence(i)}", "y": i % 2 if split != "unsupervised" else -1} for i in range(6)]
        for split in ("train", "test")
    }
    folder = tmp_path / "set"
    for split, part in (rows | {"unsupervised": [{"text": sentence(i), "y": -1} for i in range(9)]}).items():
        (folder / split).mkdir(parents=True)
        pl.DataFrame(part).write_ipc_stream(folder / split / "data-00000-of-00001.arrow")
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (folder / split / "state.json").write_text(json.dumps(state))
        (folder / split / "dataset_info.json").write_text(json.dumps({"features": {}}))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test", "unsupervised"]}))
    labelled = read(data=folder, label=("y",))
    assert len(labelled.documents) == 12 and labelled.features == ("y",)
    assert labelled.notes[0] == "9 rows of the split 'unsupervised' were left out."


def test_texts_are_drawn_from_folders_and_treebanks_too(tmp_path):
    labelled = read(
        data=jsonl(tmp_path / "a.jsonl", [{"text": sentence(i), "y": i % 2} for i in range(20)]), label=("y",)
    )
    write_dataset_folder(tmp_path / "folder", labelled)
    drawn = read(data=tmp_path / "folder", max_documents=7)
    assert len(drawn.documents) == 7 and drawn.notes[-1] == "7 of 20 texts were drawn (seed 0)."


def test_the_demo_corpus_is_drawn_from_like_other_data():
    whole, drawn = (labelled_text_of(DataConfig(source="demo", max_documents=most)) for most in (None, 7))
    assert [text.category for text in drawn] == [text.category for text in whole]
    assert all(len(text.documents) == 7 and "were drawn" in text.notes[-1] for text in drawn)


def test_the_options_name_every_source():
    assert set(get_args(SourceName)) == {*SOURCES, "demo"}


def test_missing_validation_is_taken_from_training_groups(tmp_path, tokenizer):
    rows = {
        split: [{"text": f"{split} {sentence(i + 100 * n)}", "y": i % 2} for i in range(n)]
        for split, n in (("train", 60), ("test", 20))
    }
    labelled = read(data=parquet_folder(tmp_path / "set", rows), label=("y",))
    bpe = TextTokenizer(backend=FastBackend(tokenizer.backend_tokenizer), front=(0,))
    dataset = build_feature_dataset(labelled, bpe, SamplingRules(skip_first=2), np.random.default_rng(0))
    assert [sum(c) for c in dataset.counts(0).values()] == [40, 20, 20]
    train = [dataset.texts[dataset.sequence_document[s]] for s in dataset.row_sequence[dataset.row_split < 2]]
    assert all(text.startswith("train") for text in train)


def treebank_row(document: int, sentence_of_it: int) -> dict[str, Any]:
    """Six nouns, a verb and a full stop, as the public treebank writes them."""
    nouns = sentence(2 * document + sentence_of_it, 6).split()
    return {
        "sent_id": f"weblog-{document}-{sentence_of_it:04d}",
        "text": " ".join(nouns) + " fell.",
        "tokens": [*nouns, "fell", "."],
        "idx": 0,
        "lemmas": [*nouns, "fall", "."],
        "upos": ["NOUN"] * 6 + ["VERB", "PUNCT"],
        "xpos": [None] * 8,
        "feats": ["{'Number': '%s'}" % ("Plur" if n[0] < "l" else "Sing") for n in nouns]
        + ["{'Mood': 'Ind', 'Tense': 'Past', 'VerbForm': 'Fin'}", "None"],
        "head": ["7"] * 6 + ["0", "7"],
        "deprel": ["nsubj"] * 6 + ["root", "punct"],
        "deps": ["None"] * 8,
        "misc": ["None"] * 6 + ["{'SpaceAfter': 'No'}", "None"],
    }


FACTS = [
    {
        "relation_id": f"P{r}", "relation": f"relation {r}", "relation_prefix": "", "subject": f"person {r} {i}",
        "relation_suffix": " lives in", "prompt": f"person {r} {i} lives in", "target_true": f" {WORDS[i % 8]}",
        "target_false": f" {WORDS[8 + i % 8]}",
    }
    for r in (1, 2) for i in range(110)
]  # fmt: skip
PILE = {
    "Wikipedia (en)": lambda i: (
        f"{sentence(i)} the public health of {sentence(i + 40)}. Good health, {sentence(i + 80)} in public squares."
    ),
    "ArXiv": lambda i: (
        rf"We show {sentence(i, 12)} that $\frac{{a_{i}}}{{b^{{{i}}}}}$ holds, see \cite{{x{i}}}. "
        rf"\section{{On {WORDS[i % 16]} {i}}}"
    ),
}
PUBLIC: dict[str, list[dict[str, Any]]] = {
    "natural-language": [
        {"text": f"{code} {sentence(i + len(code) + ord(code[0]))}", "language": code, "dataset_source": "made"}
        for code in ("fra_Latn", "deu_Latn") for i in range(12)
    ],
    "programming-language": [
        {"code": f"x{i} = {sentence(i + 40 * len(name))}", "language_name": name, "task_name": f"task {i}"}
        for name in ("Python", "UNIX Shell") for i in range(12)
    ],
    "relations": FACTS,
    **{
        name: [{"text": text(i), "meta": {"pile_set_name": part}} for part, text in PILE.items() for i in range(12)]
        for name in ("kind-of-text", "latex", "compound-words", "text-features", "sequence-position")
    },
    **{
        name: [
            treebank_row(d, s)
            for d in range(9) for s in range(2)
        ]
        for name in ("part-of-speech", "dependencies", "morphology")
    },
}  # fmt: skip
EXPECTED = {
    "natural-language": ("de", "fr"),
    "programming-language": ("python", "shell"),
    "kind-of-text": ("latex", "wikipedia"),
    "part-of-speech": ("upos_NOUN", "upos_PUNCT", "upos_VERB"),
    "dependencies": ("dep_nsubj", "dep_punct", "dep_root"),
}


@pytest.mark.parametrize("name", sorted(HUB))
def test_every_source_is_built_from_the_public_data_set_of_its_shape(tmp_path, name):
    half = len(PUBLIC[name]) // 2
    rows = {"train": PUBLIC[name][::2], "test": PUBLIC[name][1::2]} if half > 6 else {"train": PUBLIC[name]}
    place = parquet_folder(tmp_path / "set", rows)
    labelled = build_source(name, place, BuildOptions())
    assert labelled.documents and (labelled.features or labelled.numbers)
    if name in EXPECTED:
        assert set(EXPECTED[name]) == set(labelled.features)
    if name == "compound-words":
        assert "public-health" in labelled.features
    if name == "latex":
        assert {"is_frac", "is_numerator", "is_reference"} <= set(labelled.features)


def test_sources_without_a_public_data_set_say_so(tmp_path):
    place = parquet_folder(tmp_path / "set", {"train": [{"name": "Ada Lovelace"}]})
    with pytest.raises(InputError, match="'people' is not read from Hugging Face data sets"):
        build_source("people", place, BuildOptions())


def test_wrong_columns_are_named(tmp_path):
    place = parquet_folder(tmp_path / "set", {"train": [{"content": "x", "langage": "fra_Latn"}]})
    with pytest.raises(InputError, match=r"'text'|'language'"):
        build_source("natural-language", place, BuildOptions())


# ---- sources -------------------------------------------------------------------------------------------------------


def test_the_sources_hold_the_papers_155_features():
    assert len(SOURCES) == 12
    assert sum(len(source.features) for source in SOURCES.values()) == 155


def test_recommended_rules_give_way_to_the_users():
    rules = SamplingRules().adapted(
        {"pooling": "max", "window": 128, "fractions": [0.5, 0.2, 0.3]}, {"window": 64, "skip_first": None}
    )
    assert (rules.pooling, rules.window, rules.fractions, rules.skip_first) == (Pooling.MAX, 64, (0.5, 0.2, 0.3), 10)


# ---- what a stranger met -------------------------------------------------------------------------------------------


def test_semicolons_of_a_spreadsheet_are_separators(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_text("text;y\n" + "".join(f"{sentence(i)}, and so on;{i % 2}\n" for i in range(6)), encoding="utf-8")
    labelled = read(data=path, label=("y",))
    assert labelled.documents[0].text.endswith(", and so on") and len(labelled.documents) == 6


def test_texts_that_end_within_the_skipped_tokens_are_counted(tmp_path, tokenizer):
    rows = [{"text": "ok " + WORDS[i % 16] if i % 2 else sentence(i), "y": i % 4 < 2} for i in range(60)]
    labelled = read(data=jsonl(tmp_path / "a.jsonl", rows), label=("y",))
    bpe = TextTokenizer(backend=FastBackend(tokenizer.backend_tokenizer), front=(0,))
    dataset = build_feature_dataset(labelled, bpe, SamplingRules(skip_first=20, min_rows=1), np.random.default_rng(0))
    (note,) = [note for note in dataset.notes["a"] if "give no row" in note]
    short = len(dataset.document_ids) - 30  # every long text is there; copies of the short ones were removed
    assert note.startswith(f"{short} of {len(dataset.document_ids)} texts: they end within the first 20 tokens")


@pytest.mark.parametrize("pooling", [Pooling.LAST, Pooling.FIRST])
def test_poolings_of_one_token_skip_nothing_and_use_every_short_text(tmp_path, model_folders, pooling):
    path = tmp_path / "short.csv"
    path.write_text("text,y\n" + "".join(f"w{i},{i % 2}\n" for i in range(1_500)), encoding="utf-8")
    outline = outline_model(str(model_folders["gpt2"]))

    def built(**options: Any) -> FeatureDataset:
        config = DataConfig(data=path, label=("y",), pooling=pooling, **options)
        return build_dataset(config, labelled_text_of(config), outline)

    dataset = built()
    used = dataset.used["short"]
    assert (dataset.n_rows, used.rows, used.texts, used.texts_read, used.losses) == (1_500, 1_500, 1_500, 1_500, ())
    assert used.warnings() == []
    assert (dataset.row_last - dataset.row_first >= 1).all() and (dataset.row_first == 1).all(), (
        "BOS is no token of a text"
    )
    with pytest.raises(InputError, match=r"no labelled token lies behind the first 10 tokens"):
        built(skip_first=10)
    assert merged_rules({"skip_first": 25}, {"pooling": pooling}, "document")["skip_first"] == 0
    assert merged_rules({"skip_first": 25, "pooling": pooling}, {}, "document")["skip_first"] == 25
    assert merged_rules({"skip_first": 1}, {"pooling": pooling}, "token")["skip_first"] == 1


def test_the_account_of_rows_names_every_text_that_is_lost(tmp_path, model_folders):
    long = [{"text": sentence(i), "y": i % 2, "kind": "ab"[i % 2]} for i in range(40)]
    rare = [{"text": sentence(100 + i), "y": None, "kind": "rare"} for i in range(2)]
    lost = [
        {"text": "ok", "y": 1, "kind": "a"},
        {"text": sentence(0), "y": 0, "kind": "a"},
        {"text": sentence(1), "y": 0, "kind": "a"},
        {"text": sentence(99), "y": None, "kind": None},
    ]
    path = jsonl(tmp_path / "a.jsonl", [*long, *rare, *lost])
    config = DataConfig(data=path, label=("y", "kind"), min_rows=3)
    used = build_dataset(config, labelled_text_of(config), outline_model(str(model_folders["gpt2"]))).used["a"]
    assert used.headline() == "a: 41 rows from 41 of 46 texts."
    assert [(loss.count, loss.of, loss.why.split(" (")[0]) for loss in used.losses] == [
        (1, 46, "they are copies of another text"),
        (2, 46, "copies of one text with contradicting labels"),
        (1, 43, "they end within the first 10 tokens, which are skipped"),
        (1, 43, "they have no label"),
    ]
    assert used.texts + sum(loss.count for loss in used.losses) == used.texts_read
    assert [said.split("'")[1] for said in used.left_out] == ["kind=rare"]
    assert [said.split(". ")[0] for said in used.warnings()] == [
        "a: 4 of 46 texts give no row (9 %)",
        "a: 1 of 4 features or numbers are left out.",
    ]
    assert rows_used_of([asdict(used)]) == [used]


def test_labelled_words_at_the_start_of_a_text_are_rows(tmp_path, tokenizer):
    rows = [
        {"tokens": ["x", "Ada", *sentence(i, 12).split()], "ner_tags": ["O", "B-PER"] + ["O"] * 12} for i in range(30)
    ]
    labelled = read(data=jsonl(tmp_path / "a.jsonl", rows), tags_column="ner_tags")
    bpe = TextTokenizer(backend=FastBackend(tokenizer.backend_tokenizer), front=())
    rules = SamplingRules().adapted(labelled.rules, {"min_rows": 1})
    assert build_feature_dataset(labelled, bpe, rules, np.random.default_rng(0)).features == ("PER",)
    with pytest.raises(InputError, match="feature 'PER' has 0 positive"):
        build_feature_dataset(labelled, bpe, replace(rules, skip_first=10), np.random.default_rng(0))


def test_a_folder_without_a_data_set_names_those_inside(tmp_path):
    labelled = read(
        data=jsonl(tmp_path / "a.jsonl", [{"text": sentence(i), "y": i % 2} for i in range(8)]), label=("y",)
    )
    write_dataset_folder(tmp_path / "sets" / "one", labelled)
    with pytest.raises(InputError, match=r"is no data set .*it holds .*one"):
        read(data=tmp_path / "sets")
    with pytest.raises(InputError, match="does not exist: check the path"):
        read(data=tmp_path / "nowhere")


def test_the_text_only_baseline_reads_the_skipped_tokens_which_the_model_has_read(tmp_path, tokenizer):
    rows = [{"text": f"A {['bad', 'good'][i % 2]} day. {sentence(i, 40)}", "y": i % 2} for i in range(80)]
    labelled = read(data=jsonl(tmp_path / "a.jsonl", rows), label=("y",))
    bpe = TextTokenizer(backend=FastBackend(tokenizer.backend_tokenizer), front=(0,))
    dataset = build_feature_dataset(labelled, bpe, SamplingRules(skip_first=10), np.random.default_rng(0))
    scored, threshold = TextOnly(dataset).score(0)
    assert ((scored.score > threshold) == scored.positive).all()
