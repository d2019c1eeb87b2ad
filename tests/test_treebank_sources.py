"""Treebanks: the CoNLL-U reader, a user's CoNLL-U file, and the three categories built from a treebank."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sparse_probing.datasets import conllu
from sparse_probing.datasets.conllu import Sentence, by_document, parse_sentences, read_conllu, sentences
from sparse_probing.datasets.labelled_text import Document, LabelledText, Span
from sparse_probing.datasets.sources.dependencies import dependencies
from sparse_probing.datasets.sources.morphology import morphology
from sparse_probing.datasets.sources.part_of_speech import part_of_speech
from sparse_probing.datasets.sources.source import BuildOptions
from sparse_probing.datasets.sources.treebank import treebank_documents_from_rows
from sparse_probing.errors import InputError
from sparse_probing.records import Split

PAPER = BuildOptions(paper_rules=True)

Line = tuple[str, str, str, str, str, str, str]
"""id, form, upos, feats, head, deprel, misc"""

CAMP: list[Line] = [
    ("1-2", "Don't", "_", "_", "_", "_", "_"),
    ("1", "Do", "AUX", "Mood=Imp|VerbForm=Fin", "3", "aux", "_"),
    ("2", "n't", "PART", "_", "3", "advmod", "_"),
    ("3", "wake", "VERB", "Mood=Imp|VerbForm=Fin", "0", "root", "_"),
    ("4", "her", "PRON", "Case=Acc|Gender=Fem|Number=Sing|Person=3|PronType=Prs", "3", "obj", "SpaceAfter=No"),
    ("5", "!", "PUNCT", "_", "3", "punct", "_"),
]
BREAD: list[Line] = [
    ("1", "Two", "NUM", "NumType=Card", "2", "nummod", "_"),
    ("2", "loaves", "NOUN", "Number=Plur", "4", "nsubj:pass", "_"),
    ("3", "were", "AUX", "Mood=Ind|Tense=Past|VerbForm=Fin", "4", "aux:pass", "_"),
    ("4", "baked", "VERB", "Tense=Past|VerbForm=Part|Voice=Pass", "0", "root", "_"),
    ("4.1", "baked", "VERB", "_", "_", "_", "CopyOf=4"),
    ("5", "for", "ADP", "_", "6", "case", "_"),
    ("6", "you", "PRON", "Person=2|PronType=Prs", "4", "obl", "SpaceAfter=No"),
    ("7", "?", "PUNCT", "_", "4", "punct", "SpaceAfter=No"),
    ("8", "!", "PUNCT", "_", "4", "punct", "_"),
]
SHOUT: list[Line] = [("1", "Hooray", "INTJ", "_", "0", "root", "_")]
CROW: list[Line] = [
    ("1", "The", "DET", "Definite=Def|PronType=Art", "2", "det", "_"),
    ("2", "crow", "NOUN", "Number=Sing", "3", "nsubj", "_"),
    ("3", "sleeps", "VERB", "Mood=Ind|Tense=Pres|VerbForm=Fin", "0", "root", "_"),
    ("4", "(", "PUNCT", "_", "5", "punct", "SpaceAfter=No"),
    ("5", "I", "PRON", "Number=Sing|Person=1|PronType=Prs", "6", "nsubj", "_"),
    ("6", "hope", "VERB", "Mood=Ind|Tense=Pres|VerbForm=Fin", "3", "parataxis", "SpaceAfter=No"),
    ("7", ")", "PUNCT", "_", "6", "punct", "SpaceAfter=No"),
    ("8", ".", "PUNCT", "_", "3", "punct", "_"),
]


def block(lines: list[Line], text: str | None, sent_id: str = "", comments: tuple[str, ...] = ()) -> str:
    head = [f"# {comment}" for comment in comments]
    head += [f"# sent_id = {sent_id}"] if sent_id else []
    head += [f"# text = {text}"] if text else []
    rows = [
        "\t".join([i, form, "_" if "-" in i else form.lower(), upos, upos[:2], feats, parent, relation, "_", misc])
        for i, form, upos, feats, parent, relation, misc in lines
    ]
    return "\n".join([*head, *rows]) + "\n\n"


TRAIN = (
    block(CAMP, "Don't wake her!", "camp-0001", ("newdoc id = camp",))
    + block(BREAD, "Two loaves were baked for you?!", "camp-0002", ("newpar",))
    + block(SHOUT, "Hooray", "camp-0003")
    + block(CROW, "The crow sleeps (I hope).", "crow-0001", ("newdoc id = crow",))
)
DEV = block(CROW, "The crow sleeps (I hope).", "nest-0001", ("newdoc id = nest",))
TEST = block(BREAD, "Two loaves were baked for you?!", "oven-0001", ("newdoc id = oven",))
CAMP_TEXT = "Don't wake her! Two loaves were baked for you?! Hooray"


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    for name, content in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        (tmp_path / f"xx_own-ud-{name}.conllu").write_text(content, encoding="utf-8")
    return tmp_path


def parse(content: str) -> list[Sentence]:
    return list(parse_sentences(content.splitlines(keepends=True), "here"))


def labelled_words(document: Document) -> list[tuple[str, str]]:
    return [(document.text[s.start : s.end], s.label) for s in document.spans]


def of_id(labelled: LabelledText, name: str) -> Document:
    return next(document for document in labelled.documents if document.id == name)


# --- reader


def test_words_and_their_characters():
    camp, bread, shout, crow = parse(TRAIN)
    assert (camp.sent_id, camp.new_document, camp.text) == ("camp-0001", "camp", "Don't wake her!")
    assert [(w.form, w.start, w.end) for w in camp.words] == [
        ("Do", 0, 2), ("n't", 2, 5), ("wake", 6, 10), ("her", 11, 14), ("!", 14, 15),
    ]  # fmt: skip
    her = camp.words[3]
    assert (her.lemma, her.upos, her.xpos, her.head, her.deprel, her.misc) == (
        "her",
        "PRON",
        "PR",
        3,
        "obj",
        "SpaceAfter=No",
    )
    assert her.feats == {"Case": "Acc", "Gender": "Fem", "Number": "Sing", "Person": "3", "PronType": "Prs"}
    assert [w.form for w in bread.words] == ["Two", "loaves", "were", "baked", "for", "you", "?", "!"]  # no empty node
    assert bread.new_document is None and shout.words[0].head == 0 and crow.new_document == "crow"


def test_words_of_a_contraction_that_does_not_divide_share_it():
    lines: list[Line] = [
        ("1", "Vino", "VERB", "_", "0", "root", "_"),
        ("2-3", "del", "_", "_", "_", "_", "_"),
        ("2", "de", "ADP", "_", "4", "case", "_"),
        ("3", "el", "DET", "_", "4", "det", "_"),
        ("4", "mar", "NOUN", "_", "1", "obl", "SpaceAfter=No"),
        ("5-7", "dámelo", "_", "_", "_", "_", "_"),
        ("5", "dá", "VERB", "_", "1", "conj", "_"),
        ("6", "me", "PRON", "_", "5", "obj", "_"),
        ("7", "lo", "PRON", "_", "5", "obj", "_"),
    ]
    (sentence,) = parse(block(lines, "Vino del mardámelo"))
    assert [(w.form, sentence.text[w.start : w.end]) for w in sentence.words] == [
        ("Vino", "Vino"), ("de", "del"), ("el", "del"), ("mar", "mar"), ("dá", "dá"), ("me", "me"), ("lo", "lo"),
    ]  # fmt: skip
    assert parse(block(lines, None)) == [sentence]  # without # text, from forms and SpaceAfter


def test_comments_without_ids_and_unknown_heads():
    lines: list[Line] = [("1", "Oh", "INTJ", "_", "_", "_", "_")]
    content = "# newdoc\n\n" + block(lines, "Oh", comments=("text_en = Ah = ah", "newdocument = 3"))
    (sentence,) = parse(content)
    assert (sentence.new_document, sentence.sent_id, sentence.text, sentence.words[0].head) == ("", "", "Oh", None)


forms = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.lists(forms, min_size=1, max_size=3), st.sampled_from(["", " ", "  ", "\u00a0"]))))
def test_offsets_are_where_the_words_were_put(tokens: list[tuple[list[str], str]]):
    """Text is made first, so that every word's characters are known; contractions of two or three words."""
    if not tokens:
        return
    text, lines, expected = "", list[Line](), list[tuple[str, int, int]]()
    for parts, blank in tokens:
        first = len(expected) + 1
        misc = "_" if blank else "SpaceAfter=No"
        if len(parts) > 1:
            lines.append((f"{first}-{first + len(parts) - 1}", "".join(parts), "_", "_", "_", "_", misc))
        for number, part in enumerate(parts, first):
            lines.append((str(number), part, "X", "_", "0", "dep", misc if len(parts) == 1 else "_"))
            expected.append((part, len(text), len(text) + len(part)))
            text += part
        text += blank
    with_text = list(parse_sentences(block(lines, text).split("\n"), "here"))
    assert [(w.form, w.start, w.end) for w in with_text[0].words] == expected
    rebuilt = list(parse_sentences(block(lines, None).split("\n"), "here"))
    assert rebuilt[0].text == "".join("".join(parts) + (" " if blank else "") for parts, blank in tokens).strip()


def test_packed_files_windows_line_ends_and_a_missing_last_line(tmp_path: Path):
    (tmp_path / "a.conllu").write_text(TRAIN, encoding="utf-8")
    expected = list(sentences(tmp_path / "a.conllu"))
    assert len(expected) == 4
    raw = TRAIN.encode()
    (tmp_path / "b.conllu.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "c.conllu.zst").write_bytes(zstandard.ZstdCompressor().compress(raw))
    (tmp_path / "d.conllu").write_bytes(b"\xef\xbb\xbf" + raw.rstrip(b"\n").replace(b"\n", b"\r\n"))
    for name in ("b.conllu.gz", "c.conllu.zst", "d.conllu"):
        assert list(sentences(tmp_path / name)) == expected


CROW_BLOCK = block(CROW, "The crow sleeps (I hope).", "crow-0001")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2\tcrow\tcrow", "2 crow\tcrow", "here, line 4 has 9 tab-separated columns"),
        ("2\tcrow", "2\t", "line 4 has an empty form"),
        ("2\tcrow", "2" * 4_301 + "\tcrow", "line 4: id '2222"),
        ("2\tcrow", "2-" + "3" * 4_301 + "\tcrow", "line 5: id '3' is out of order"),
        ("2\tcrow", "3\tcrow", "line 4: id '3' is out of order, word 2 comes next"),
        ("2\tcrow", "1-2\tcrow", "line 4: id '1-2' is out of order"),
        ("2\tcrow", "2-2\tcrow", "line 4: id '2-2' is out of order"),
        ("2\tcrow", "two\tcrow", "line 4: id 'two' is out of order"),
        ("2\tcrow", "2-3\tthe crow\t_\t_\t_\t_\t_\t_\t_\t_\n2-3\tcrow", "line 5: id '2-3' is out of order"),
        ("8\t.", "8-9\t.\t_\t_\t_\t_\t_\t_\t_\t_\n8\t.", "line 10: range 8-9 ends behind the sentence"),
        ("\t3\tnsubj", "\tthree\tnsubj", "line 4: head 'three' is not a number"),
        ("\t3\tnsubj", "\t-3\tnsubj", "line 4: head '-3' is not a number"),
        ("\t3\tnsubj", "\t9\tnsubj", "line 4: head 9 lies outside the sentence, which has 8 words"),
        ("Number=Sing\t3", "Sing\t3", "line 4: FEATS 'Sing' is malformed at 'Sing'"),
        ("Number=Sing\t3", "Number=Sing|\t3", "line 4: FEATS 'Number=Sing|' is malformed at ''"),
        ("2\tcrow", "2\tcow", "line 4: 'cow' does not come next in the sentence's text .'crow sleeps"),
        ("(I hope).", "(I hope). Amen", "line 10: the words end before the sentence's text does, 'Amen' is left"),
    ],
)
def test_malformed_lines_are_named(old: str, new: str, message: str):
    assert old in CROW_BLOCK
    assert parse(CROW_BLOCK)
    with pytest.raises(InputError, match=message.replace("|", r"\|").replace("(", r"\(")):
        parse(CROW_BLOCK.replace(old, new, 1))


def test_only_empty_nodes():
    with pytest.raises(InputError, match="line 1: the sentence holds empty nodes only"):
        parse(block([("0.1", "x", "_", "_", "_", "_", "_")], None))


def test_damaged_files(tmp_path: Path):
    bulk = "".join(f"# text = {i * 7919}\n1\t{i * 7919}\t_\tNUM\t_\t_\t0\troot\t_\t_\n\n" for i in range(2000)).encode()
    for name, packed in (
        ("a.conllu.gz", gzip.compress(bulk)),
        ("b.conllu.zst", zstandard.ZstdCompressor().compress(bulk)),
    ):
        (tmp_path / name).write_bytes(packed)
        assert sum(1 for _ in sentences(tmp_path / name)) == 2000
        (tmp_path / name).write_bytes(packed[: len(packed) // 2])
        with pytest.raises(InputError, match=rf"{name}.*cut off"):
            list(sentences(tmp_path / name))
    (tmp_path / "c.conllu").write_bytes(
        CROW_BLOCK.replace("crow sleeps", "crow sl\0eeps").encode().replace(b"\0", b"\xe9")
    )
    with pytest.raises(InputError, match=r"not UTF-8.*line 2"):
        list(sentences(tmp_path / "c.conllu"))
    with pytest.raises(InputError, match=r"does not end in .conllu"):
        list(sentences(tmp_path / "d.txt"))
    with pytest.raises(InputError, match="does not exist"):
        list(sentences(tmp_path / "d.conllu"))


def test_reading_holds_one_document():
    """The lines never end: whatever reads ahead would not return."""
    lines = (
        line
        for i in itertools.count()
        for line in block(SHOUT, "Hooray", f"s-{i}", (f"newdoc id = {i // 2}",)).split("\n")
    )
    documents = by_document(parse_sentences(lines, "endless"), "endless")
    assert [len(passage.sentences) for passage in itertools.islice(documents, 50)] == [1] * 50


# --- documents


def stream(*marks: tuple[str, str | None]) -> Iterator[Sentence]:
    for sent_id, new_document in marks:
        yield Sentence(sent_id=sent_id, new_document=new_document, text="x", words=())


def test_documents_by_marks_ids_and_blocks():
    def grouped(*marks: tuple[str, str | None], by_id: bool = False) -> list[tuple[str, int, bool]]:
        name_of = (lambda sent_id: sent_id[:-5] or None) if by_id else (lambda _: None)
        return [(p.name, len(p.sentences), p.is_block) for p in by_document(stream(*marks), "file", name_of)]

    assert grouped(("", "a"), ("", None), ("", ""), ("", None), ("", "a")) == [
        ("a", 2, False),
        ("file:2", 2, False),
        ("a", 1, False),
    ]
    assert grouped(("", "a"), ("", "a")) == [
        ("a", 1, False),
        ("a", 1, False),
    ]  # a mark begins a document, whatever its name
    ids = [(f"{name}-000{i}", None) for name in "ab" for i in range(2)]
    assert grouped(*ids, by_id=True) == [("a", 2, False), ("b", 2, False)]
    assert grouped(*[("s", None)] * 23) == [("file:0", 10, True), ("file:10", 10, True), ("file:20", 3, True)]
    assert grouped(("", None), ("", "late"), ("", None)) == [("file:0", 1, True), ("late", 2, False)]


# --- a user's file


def test_columns_and_attributes_become_features(tmp_path: Path):
    path = tmp_path / "own.conllu"
    path.write_text(TRAIN, encoding="utf-8")
    labelled = read_conllu(path, labels=["deprel", "feats.Tense"])
    assert (labelled.category, labelled.level, labelled.only_spanned_tokens, labelled.notes) == (
        "own",
        "token",
        True,
        (),
    )
    assert labelled.features[-3:] == ("deprel=root", "feats.Tense=Past", "feats.Tense=Pres")
    assert labelled.contrasts["feats.Tense=Past"] == ("feats.Tense=Pres",)
    relations = [feature for feature in labelled.features if feature.startswith("deprel=")]
    assert set(labelled.contrasts["deprel=root"]) == set(relations) - {"deprel=root"}
    assert [(d.id, d.group, d.split, d.source) for d in labelled.documents] == [
        ("camp", "camp", None, "own.conllu"), ("crow", "crow", None, "own.conllu"),
    ]  # fmt: skip
    (crow,) = (d for d in labelled.documents if d.id == "crow")
    assert ("sleeps", "deprel=root") in labelled_words(crow) and ("sleeps", "feats.Tense=Pres") in labelled_words(crow)


def test_words_without_a_value_claim_their_tokens_but_are_no_rows(tmp_path: Path):
    path = tmp_path / "own.conllu"
    path.write_text(CROW_BLOCK, encoding="utf-8")
    (document,) = read_conllu(path, labels=["feats.Person"]).documents
    assert labelled_words(document) == [
        (form, "feats.Person=1" if form == "I" else conllu.PLAIN_WORD) for _, form, *_ in CROW
    ]  # fmt: skip
    spans = read_conllu(path, labels=["feats.Person"], level="span", category="person")
    assert (spans.level, spans.category) == ("span", "person")
    assert labelled_words(spans.documents[0]) == [("I", "feats.Person=1")]


def test_several_values_in_one_word(tmp_path: Path):
    lines: list[Line] = [("1", "who", "PRON", "PronType=Int,Rel", "0", "root", "_")]
    path = tmp_path / "own.conllu"
    path.write_text(block(lines, "who"), encoding="utf-8")
    labelled = read_conllu(path, labels=["feats.PronType"])
    assert labelled.features == ("feats.PronType=Int", "feats.PronType=Rel")
    assert labelled_words(labelled.documents[0]) == [("who", "feats.PronType=Int"), ("who", "feats.PronType=Rel")]


def test_sentences_of_a_file_without_documents_stay_together_in_tens(tmp_path: Path):
    path = tmp_path / "own.conllu.gz"
    path.write_bytes(gzip.compress("".join(block(SHOUT, "Hooray", f"x-000{i}") for i in range(25)).encode()))
    labelled = read_conllu(path, labels=["upos"])
    assert [d.text.count("Hooray") for d in labelled.documents] == [10, 10, 5]
    assert labelled.notes == (
        "own.conllu.gz does not say where documents begin: 3 blocks of 10 sentences stand in for them.",
    )


def test_labels_that_cannot_be_used(tmp_path: Path):
    path = tmp_path / "own.conllu"
    path.write_text(CROW_BLOCK, encoding="utf-8")
    for label, message in {
        "lemma": "'lemma' has one value per dictionary word",
        "upso": "no label 'upso': did you mean 'upos'",
        "Tense": "no label 'Tense'",
        "feats.Tens": r"no word of .*own.conllu has a value of feats.Tens: did you mean 'feats.Tense'",
        "feats.Voice": r"has a value of feats.Voice: choose one of upos, xpos, deprel, feats.Definite",
    }.items():
        with pytest.raises(InputError, match=message):
            read_conllu(path, labels=[label])
    path.write_text("# nothing\n\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no sentence"):
        read_conllu(path, labels=["upos"])


def test_two_hundred_values_at_most(tmp_path: Path):
    def tagged(n: int) -> Path:
        path = tmp_path / f"{n}.conllu"
        path.write_text(
            "".join(block([("1", "a", f"T{i}", "_", "0", "root", "_")], "a") for i in range(n)), encoding="utf-8"
        )
        return path

    assert len(read_conllu(tagged(200), labels=["upos"]).features) == 200
    with pytest.raises(InputError, match=r"201.conllu: upos has more than 200 different values.*merge rare"):
        read_conllu(tagged(201), labels=["upos"])


# --- the three categories


def test_part_of_speech(treebank: Path):
    labelled = part_of_speech(treebank, BuildOptions())
    assert [(d.id, d.group, d.split) for d in labelled.documents] == [
        ("nest", "nest", Split.VALIDATION), ("oven", "oven", Split.TEST), ("camp", "camp", Split.TRAIN),
        ("crow", "crow", Split.TRAIN),
    ]  # fmt: skip
    camp = of_id(labelled, "camp")
    assert (camp.text, camp.source) == (CAMP_TEXT, "xx_own-ud-train.conllu")
    assert [camp.text[at:].strip().split()[0] for at in camp.breaks] == ["Don't", "Two", "Hooray"]
    assert labelled_words(camp) == [
        (form, f"upos_{upos}") for i, form, upos, *_ in [*CAMP, *BREAD, *SHOUT] if i.isdigit()
    ]  # fmt: skip
    assert labelled.features == tuple(
        f"upos_{tag}" for tag in ("ADP", "AUX", "DET", "INTJ", "NOUN", "NUM", "PRON", "PUNCT", "VERB")
    )
    assert "upos_PART" not in labelled.contrasts["upos_NOUN"]
    assert set(labelled.contrasts["upos_NOUN"]) == set(labelled.features) - {"upos_NOUN"}
    assert labelled.notes == (
        "not in these texts: upos_ADJ, upos_ADV, upos_CCONJ, upos_PROPN, upos_SCONJ, upos_SYM, upos_X.",
    )
    assert (labelled.level, labelled.only_spanned_tokens, dict(labelled.rules)) == (
        "token", True, {"skip_first": 5, "positive_share": 0.2},
    )  # fmt: skip


def test_paper_rules(treebank: Path):
    labelled = part_of_speech(treebank, PAPER)
    camp = of_id(labelled, "camp")
    assert camp.text == " Don't wake her! Two loaves were baked for you?!"  # a blank in front, no sentence of one word
    assert [camp.text[at : at + 4] for at in camp.breaks] == [" Don", " Two"]
    assert camp.split is None
    assert ("!", "upos_PUNC") in labelled_words(camp) and ("Do", "upos_AUX") in labelled_words(camp)
    assert "upos_PUNC" in labelled.features and "upos_PUNCT" not in labelled.features
    assert labelled.rules["max_rows"] * labelled.rules["positive_share"] == 5000
    assert (labelled.rules["window"], labelled.rules["split_by"], labelled.rules["cut_by_length"]) == (512, "row", True)


def test_dependencies(treebank: Path):
    labelled = dependencies(treebank, BuildOptions())
    assert labelled_words(of_id(labelled, "crow")) == [
        (form, f"dep_{relation}") for _, form, _, _, _, relation, _ in CROW
    ]
    assert "dep_nsubj:pass" in labelled.features and "dep_acl" not in labelled.features
    assert set(labelled.contrasts["dep_root"]) == set(labelled.features) - {"dep_root"}


def test_morphology(treebank: Path):
    labelled = morphology(treebank, BuildOptions())
    assert labelled_words(of_id(labelled, "camp")) == [
        ("Do", "Mood_Imp"), ("Do", "VerbForm_Fin"), ("Do", "VerbForm"), ("n't", "word"),
        ("wake", "upos_VERB"), ("wake", "Mood_Imp"), ("wake", "VerbForm_Fin"), ("wake", "VerbForm"),
        ("her", "Gender_Fem"), ("her", "Number_Sing"), ("her", "Person_3"), ("her", "PronType_Prs"),
        ("her", "Gender"), ("her", "Person"), ("her", "PronType"), ("!", "word"), ("!", "eos_True"),
        ("Two", "NumType_Card"), ("loaves", "Number_Plur"),
        ("were", "Mood_Ind"), ("were", "Tense_Past"), ("were", "VerbForm_Fin"), ("were", "VerbForm"),
        ("baked", "upos_VERB"), ("baked", "Tense_Past"), ("baked", "VerbForm_Part"), ("baked", "Voice_Pass"), ("baked", "VerbForm"),
        ("for", "word"), ("you", "Person_2"), ("you", "PronType_Prs"), ("you", "Person"), ("you", "PronType"),
        ("?", "word"), ("!", "word"), ("?!", "eos_True"), ("Hooray", "word"), ("!", "first_eos_True"),
    ]  # fmt: skip
    assert [word for word in labelled_words(of_id(labelled, "crow")) if "eos" in word[1]] == [
        (").", "eos_True"), (").", "first_eos_True"),
    ]  # fmt: skip
    assert {feature: labelled.contrasts.get(feature) for feature in labelled.features} == {
        "VerbForm_Fin": ("VerbForm",), "VerbForm_Part": ("VerbForm",), "PronType_Art": ("PronType",), "PronType_Prs": ("PronType",),
        "Person_1": ("Person",), "Person_2": ("Person",), "Person_3": ("Person",), "Gender_Fem": ("Gender",),
        "Number_Plur": ("Number_Sing",), "Mood_Imp": ("Mood_Ind",), "Tense_Past": ("Tense_Pres",), "NumType_Card": None,
        "Voice_Pass": ("upos_VERB",), "eos_True": None, "first_eos_True": ("eos_True",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("Go.", "."), ('"Go!"', '!"'), ("Go ...", "..."), ("Go", None), ("Go.com", None), ("Go :)", None), ("Go. )", None),
        ("a.b;", None), ("...", "..."), ("(Go?)!", "?)!"),
    ],
)  # fmt: skip
def test_end_of_a_sentence(treebank: Path, text: str, end: str | None):
    words = text.split()
    lines: list[Line] = [(str(i), word, "X", "VerbForm=Inf", "0", "root", "_") for i, word in enumerate(words, 1)]
    (treebank / "xx_own-ud-dev.conllu").write_text(block(lines, text, comments=("newdoc id = new",)), encoding="utf-8")
    found = [
        form
        for form, label in labelled_words(of_id(morphology(treebank, BuildOptions()), "new"))
        if label == "eos_True"
    ]
    assert found == ([] if end is None else [end])


def test_draws_are_bounded_and_repeat(tmp_path: Path):
    content = "".join(block(CROW, "The crow sleeps (I hope).", f"d{i}-0001", (f"newdoc id = d{i}",)) for i in range(30))
    (tmp_path / "plain.conllu").write_text(content, encoding="utf-8")
    told: list[int] = []

    def drawn(seed: int) -> list[str]:
        labelled = part_of_speech(tmp_path, BuildOptions(most=7, seed=seed, progress=told.append))
        assert all(document.split is None for document in labelled.documents)
        return [document.id for document in labelled.documents]

    first = drawn(1)
    assert len(first) == 7 and drawn(1) == first and drawn(2) != first
    assert sum(told) == 90


def test_folders_that_cannot_be_read(tmp_path: Path, treebank: Path):
    with pytest.raises(InputError, match=r"holds no .conllu file"):
        morphology(tmp_path / "nowhere", BuildOptions())
    (treebank / "xx_own-ud-dev.conllu.gz").write_bytes(gzip.compress(DEV.encode()))
    with pytest.raises(InputError, match=r"holds xx_own-ud-dev.conllu and xx_own-ud-dev.conllu.gz: remove one"):
        morphology(treebank, BuildOptions())
    for path in treebank.iterdir():
        path.unlink()
    (treebank / "bare.conllu").write_text(block([("1", "Oh", "_", "_", "_", "_", "_")], "Oh"), encoding="utf-8")
    with pytest.raises(InputError, match="none of the 16 features of part of speech"):
        part_of_speech(treebank, BuildOptions())


def test_two_documents_of_one_name_have_their_own_ids(treebank: Path):
    (treebank / "xx_own-ud-dev.conllu").write_text(
        DEV.replace("newdoc id = nest", "newdoc id = camp"), encoding="utf-8"
    )
    documents = part_of_speech(treebank, BuildOptions()).documents
    assert sorted((d.id, d.group) for d in documents)[:2] == [("camp", "camp"), ("camp#2", "camp")]


# --- rows of the Hugging Face data set

CODES = dict(NOUN=0, PUNCT=1, ADP=2, NUM=3, DET=8, PRON=11, _=13, INTJ=15, VERB=16, AUX=17, PART=7)


def row(lines: list[Line], text: str, sent_id: str, *, numbers: bool) -> dict[str, object]:
    """What `datasets` makes of a sentence: contractions and empty nodes among the words, dictionaries as strings."""

    def dictionary(cell: str) -> str:
        return "None" if cell == "_" else str(dict(pair.split("=") for pair in cell.split("|")))

    return {
        "idx": sent_id,
        "text": text,
        "tokens": [form for _, form, *_ in lines],
        "lemmas": ["_" if "-" in i else form.lower() for i, form, *_ in lines],
        "upos": [CODES[upos] if numbers else upos for _, _, upos, *_ in lines],
        "xpos": [None if "-" in i else upos[:2] for i, _, upos, *_ in lines],
        "feats": [dictionary(feats) for _, _, _, feats, *_ in lines],
        "head": ["None" if head == "_" else head for _, _, _, _, head, *_ in lines],
        "deprel": [relation for *_, relation, _ in lines],
        "deps": ["None" for _ in lines],
        "misc": [dictionary(misc) for *_, misc in lines],
    }


def rows(*, numbers: bool) -> list[dict[str, object]]:
    return [
        row(CAMP, "Don't wake her!", "camp-0001", numbers=numbers),
        row(BREAD, "Two loaves were baked for you?!", "camp-0002", numbers=numbers),
        row(SHOUT, "Hooray", "camp-0003", numbers=numbers),
        row(CROW, "The crow sleeps (I hope).", "crow-0001", numbers=numbers),
    ]


@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize("build", [part_of_speech, dependencies, morphology])
def test_rows_give_the_documents_of_the_treebank(tmp_path: Path, build, numbers: bool):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x-train.conllu").write_text(TRAIN, encoding="utf-8")
    (tmp_path / "b" / "train-00000.jsonl").write_text(
        "\n".join(map(json.dumps, rows(numbers=numbers))), encoding="utf-8"
    )
    ours, theirs = build(tmp_path / "a", BuildOptions()), build(tmp_path / "b", BuildOptions())
    assert [(d.id, d.text, d.spans, d.breaks, d.split) for d in theirs.documents] == [
        (d.id, d.text, d.spans, d.breaks, Split.TRAIN) for d in ours.documents
    ]
    assert theirs.features == ours.features and len(ours.documents) == 2


def row_documents(*given: dict[str, object]) -> list[Document]:
    def label(sentence: Sentence) -> list[Span]:
        return [Span(word.start, word.end, word.form) for word in sentence.words]

    return list(treebank_documents_from_rows(given, None, BuildOptions(), label))


def test_contractions_in_rows_that_do_not_divide():
    lines: list[Line] = [
        ("1-2", "Del", "_", "_", "_", "_", "_"),
        ("1", "de", "ADP", "_", "3", "case", "_"),
        ("2", "el", "DET", "_", "3", "det", "_"),
        ("3-4", "tu'l", "_", "_", "_", "_", "_"),
        ("3", "tú", "PRON", "_", "0", "root", "_"),
        ("4", "lo", "PRON", "_", "3", "obj", "_"),
        ("5-6", "al", "_", "_", "_", "_", "_"),
        ("5", "a", "ADP", "_", "3", "case", "_"),
        ("6", "el", "DET", "_", "3", "det", "_"),
    ]  # fmt: skip
    (document,) = row_documents(row(lines, "Del tu'l al", "s", numbers=True))
    assert labelled_words(document) == [
        ("Del", "de"), ("Del", "el"), ("tu'l", "tú"), ("tu'l", "lo"), ("al", "a"), ("al", "el"),
    ]  # fmt: skip


def test_malformed_rows():
    good = row(CROW, "The crow sleeps (I hope).", "crow-0001", numbers=True)
    assert row_documents(good)[0].text == "The crow sleeps (I hope)."
    for bad, message in (
        ({name: value for name, value in good.items() if name != "feats"}, "row 2 has no column 'feats'"),
        ({**good, "head": ["0"]}, "row 2: tokens.* differ in length"),
        ({**good, "feats": ["{'Number': "] * 8}, "row 2: \"{'Number': \" is not a dictionary"),
        ({**good, "text": "The cow sleeps (I hope)."}, "row 2, line 4: 'crow' does not come next"),
    ):
        with pytest.raises(InputError, match=message):
            row_documents(good, bad)


# --- real text


@pytest.mark.real_data
def test_english_ewt(real_data: Path):
    """Sequences and tokens beside the paper's 1,438 and 281,044 (older release, specification 1.1); its packing by hand."""
    labelled = part_of_speech(real_data / "ewt", PAPER)
    assert (len(labelled.documents), len(labelled.features), labelled.notes) == (1174, 16, ())
    tokenizer = Tokenizer.from_file(str(real_data / "pythia_tokenizer" / "20B_tokenizer.json"))
    sequences = tokens = 0
    for document in labelled.documents:
        assert document.text == " " + " ".join(document.text.split(" ")[1:]) and document.breaks[0] == 0
        bounds = [*document.breaks, len(document.text)]
        pieces = [document.text[a:b] for a, b in itertools.pairwise(bounds)]
        lengths = [len(e.ids) for e in tokenizer.encode_batch(pieces, add_special_tokens=False)]
        window: dict[int, int] = {}
        for length, total in zip(lengths, itertools.accumulate(lengths), strict=True):
            window[total // 511] = window.get(total // 511, 0) + length
        sequences += len(window)
        tokens += sum(min(511, length) for length in window.values())
    assert sequences == 1438
    assert abs(tokens - 281_044) < 50


@pytest.mark.real_data
def test_english_ewt_keeps_its_official_splits(real_data: Path, tmp_path: Path):
    for name in ("dev", "test"):
        path = f"en_ewt-ud-{name}.conllu.gz"
        (tmp_path / path).symlink_to(real_data / "ewt" / path)
    labelled = morphology(tmp_path, BuildOptions())
    assert len(labelled.features) == 22
    counts = {split: sum(d.split is split for d in labelled.documents) for split in Split}
    assert counts == {Split.TRAIN: 0, Split.VALIDATION: 318, Split.TEST: 316}
    assert len({d.id for d in labelled.documents}) == 634
