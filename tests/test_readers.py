"""Files to rows: what nobody prepared is read, what is broken is named by file and line."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sparse_probing.datasets.conllu import sentences
from sparse_probing.datasets.own_rows import draw_rows
from sparse_probing.datasets.readers import column, iter_rows, open_text, read_rows, stem
from sparse_probing.errors import InputError

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
cells = st.text(
    st.one_of(st.sampled_from("\",\t\n\r;'\u2028\ufeff{}\\ aé漢🧑\u0301"), characters), max_size=8
)  # the marks that separate and quote come often
tables = st.integers(1, 4).flatmap(
    lambda width: st.tuples(
        st.lists(st.text(characters, min_size=1, max_size=5), min_size=width, max_size=width, unique=True),
        st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6),
    )
)


def packed(content: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content)
    return zstandard.ZstdCompressor().compress(content) if name.endswith(".zst") else content


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(packed(content, name))
    return folder / name


@given(
    table=tables, ending=st.sampled_from([".csv", ".tsv", ".csv.gz", ".tsv.zst"]), lines=st.sampled_from(["\n", "\r\n"])
)
def test_csv_that_was_written_is_read_again(tmp_path_factory, table, ending, lines):
    header, rows = table
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        quoting = (
            csv.QUOTE_ALL if lines == "\n" else csv.QUOTE_MINIMAL
        )  # else Python 3.11 forgets to quote a carriage return
        delimiter = "\t" if ending.startswith(".tsv") else ","
        writer = csv.writer(file, delimiter=delimiter, lineterminator=lines, quoting=quoting)
        writer.writerows([header, *rows])
    path = written(path.parent, f"b{ending}", path.read_bytes())
    assert read_rows(path) == [dict(zip(header, row, strict=True)) for row in rows]


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), cells),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(cells, inner, max_size=3)),
    max_leaves=5,
)


@given(
    rows=st.lists(st.dictionaries(cells, values, max_size=4), min_size=1, max_size=5),
    ending=st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst"]),
    ascii_only=st.booleans(),
)
def test_jsonl_that_was_written_is_read_again(tmp_path_factory, rows, ending, ascii_only):
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    path = written(tmp_path_factory.mktemp("json"), f"a{ending}", lines.encode())
    assert read_rows(path) == rows


def test_parquet_rows_keep_their_types_and_order(tmp_path):
    n = 40_000  # more than two slices
    pl.DataFrame({"i": range(n), "text": ["ä"] * n, "tags": [[1, 2]] * n, "no": [None] * n}).write_parquet(
        tmp_path / "a.parquet", row_group_size=7_000
    )
    rows = iter_rows(tmp_path / "a.parquet")
    assert next(rows) == {"i": 0, "text": "ä", "tags": [1, 2], "no": None}
    assert [row["i"] for row in rows] == list(range(1, n))


def test_windows_file_with_mark_quoted_line_ends_blank_lines_and_a_nameless_column(tmp_path):
    path = written(tmp_path, "a.csv", '\ufeff,text,label\r\n\r\n0,"one\r\ntwo, ""three""",yes\r\n1,four,\r\n'.encode())
    assert read_rows(path) == [
        {"": "0", "text": 'one\r\ntwo, "three"', "label": "yes"},
        {"": "1", "text": "four", "label": ""},
    ]


def test_old_macintosh_line_ends(tmp_path):
    assert read_rows(written(tmp_path, "a.csv", b"text,y\ra,1\rb,0\r")) == [
        {"text": "a", "y": "1"},
        {"text": "b", "y": "0"},
    ]


def test_a_cell_may_be_longer_than_the_csv_library_allows(tmp_path):
    long = "word, " * 50_000
    assert read_rows(written(tmp_path, "a.csv", f'text,y\n"{long}",1\n'.encode()))[0]["text"] == long


def test_jsonl_keeps_unicode_line_separators_inside_a_text(tmp_path):
    path = written(
        tmp_path,
        "a.jsonl",
        (json.dumps({"text": "a\u2028b", "y": 1}, ensure_ascii=False) + '\n\n{"text": "c", "y": 0}').encode(),
    )
    assert [row["text"] for row in read_rows(path)] == ["a\u2028b", "c"]


def test_several_zstandard_frames_are_one_file(tmp_path):
    frames = [packed(b'{"i": %d}\n' % i, ".zst") for i in range(3)]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert [row["i"] for row in read_rows(tmp_path / "a.jsonl.zst")] == [0, 1, 2]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv"])
def test_memory_does_not_grow_with_the_file(tmp_path, ending):
    texts = [hashlib.blake2b(str(i // 8).encode()).hexdigest() * 8 for i in range(20_000)]  # 20 MB
    lines = ["text", *texts] if ending == ".csv" else [json.dumps({"text": text}) for text in texts]
    path = written(tmp_path, f"a{ending}", "\n".join(lines).encode())
    tracemalloc.start()
    assert sum(1 for _ in iter_rows(path)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_reading_stops_when_the_reader_stops(tmp_path):
    rows = iter_rows(written(tmp_path, "a.csv", b"text\na\nb\n"))
    assert next(rows) == {"text": "a"}
    rows.close()  # pyright: ignore[reportAttributeAccessIssue]


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b'{"text": "a", "y": 1}\n{"text": \n', r"a\.jsonl, line 2 is not JSON"),
    ("a.jsonl", b"\n[1, 2]\n", r"line 2 is JSON but not an object"),
    ("a.jsonl", b'{"y": NaN}\n', r"line 1 is not JSON \(NaN is no JSON number: write null\)"),
    ("a.jsonl", b'{"y": -Infinity}\n', r"line 1 .*-Infinity is no JSON number"),
    ("a.jsonl", b'{"y": 1' + b"0" * 5000 + b"}\n", r"line 1 is not JSON"),
    ("a.jsonl", b'{"y": ' + b"[" * 100_000 + b"\n", r"line 1 is not JSON"),
    ("a.jsonl", b"", r"holds no rows"),
    ("a.jsonl", b'{"text": "caf\xe9", "y": 1}\n', r"is not UTF-8 \(byte 13 is 0xe9\) in line 1.*iconv -f latin1"),
    ("a.jsonl.gz", b'{"t": "a"}\n' * 3 + b'{"t": "caf\xe9"}\n', r"\(byte 43 is 0xe9\) in line 4"),
    ("a.csv", "text,y\nä,1\n".encode("utf-16"), r"is not UTF-8 \(byte 0 is 0xff\) in line 1.*iconv -f utf-16"),
    ("a.csv", "text,y\na,1\n".encode("utf-16-le"), r"line 1 contains a NUL character"),
    ("a.csv", b"text,y\na,1\n\0,0\n", r"line 3 contains a NUL character"),
    ("a.csv", b"text,y\n\na,1,2\n", r"line 3 has 3 cells, the header has 2: quote cells that contain commas"),
    ("a.tsv", b"text\ty\na\n", r"line 2 has 1 cells, the header has 2: quote cells that contain tabs"),
    ("a.csv", b'text,y\na,1\n"b\nc,0\nd,0\n', r"line 5 is malformed CSV .*Its row begins at line 3"),
    ("a.csv", b'text,y\n"b" c,0\n', r"line 2 is malformed CSV .*Its row begins at line 2"),
    ("a.csv", b"text,y,text\na,1,b\n", r"two columns named 'text'"),
    ("a.csv", b"text,y\r\n", r"holds no rows, only a header"),
    ("a.csv", b"", r"holds no rows"),
    ("a.parquet", b"PAR1 no parquet", r"cannot be read"),
    ("a.txt", b"hello", r"give a .jsonl, .csv or .parquet file"),
    ("a.parquet.gz", b"hello", r"give a .jsonl, .csv or .parquet file"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES, ids=[m[:30] for _, _, m in BAD_FILES])
def test_bad_files_are_refused_with_a_sentence(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        read_rows(written(tmp_path, name, content))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_that_is_cut_off_says_after_how_many_rows(tmp_path, ending):
    lines = "".join(json.dumps({"i": i, "text": f"{i * i * 7919 % 104729:x}" * 9}) + "\n" for i in range(20_000))
    path = written(tmp_path, f"a.jsonl{ending}", lines.encode())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    seen = 0
    with pytest.raises(InputError, match=r"is cut off after ([\d,]+) rows: fetch it again") as error:
        for row in iter_rows(path):
            assert row["i"] == seen
            seen += 1
    assert 1_000 < seen < 20_000
    assert f"after {seen:,} rows" in str(error.value)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.zst"])
def test_a_packed_file_that_is_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"text,y\na,1\nb,0\n")
    with pytest.raises(InputError, match=r"cannot be unpacked .*or no \.(gz|zst) file at all"):
        read_rows(tmp_path / name)


def test_a_packed_file_that_is_damaged(tmp_path):
    content = bytearray(gzip.compress(b"text,y\n" + b"a,1\n" * 9))
    content[-6] ^= 255  # the checksum
    (tmp_path / "a.csv.gz").write_bytes(bytes(content))
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_rows(tmp_path / "a.csv.gz")


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("sparse_probing.datasets.readers.LONGEST_LINE", 1_000)
    path = written(tmp_path, "a.csv", b'text,y\n"a,1\n' + b"b,0\n" * 10_000)
    with pytest.raises(
        InputError, match=r"line \d+: the row that begins at line 2 is longer than 1,000 characters: close the quote"
    ):
        read_rows(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv.zst", "a.conllu.zst"])
@pytest.mark.parametrize("piece", [b"a", b"ab\xff"])
def test_a_line_that_never_ends_does_not_fill_the_memory(tmp_path, monkeypatch, name, piece):
    monkeypatch.setattr("sparse_probing.datasets.readers.LONGEST_LINE", 1 << 20)
    (tmp_path / name).write_bytes(packed(b"# begin\n" + b"a" * 2**20 + piece * 2**25, name))
    rows = sentences(tmp_path / name) if "conllu" in name else iter_rows(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"line \d is (longer than 1 MiB|not JSON)|is not UTF-8 \(byte 1048586"):
        list(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24e6  # 16 MB is what 512 packed bytes hold at most


def test_a_row_of_endless_cells_and_a_sentence_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("sparse_probing.datasets.readers.LONGEST_LINE", 1_000)
    monkeypatch.setattr("sparse_probing.datasets.conllu.MOST_WORDS", 99)
    path = written(tmp_path, "a.csv", b"text,y\n" + b"a,1\n" * 999 + b'"\n",' * 999)
    with pytest.raises(
        InputError, match=r"line 1251: the row that begins at line 1001 is longer than 1,000 characters"
    ):
        read_rows(path)
    words = "".join(f"{i}\ta" + "\t_" * 8 + "\n" for i in range(1, 200))
    with pytest.raises(InputError, match="line 100: no sentence has 99 words: add blank lines"):
        list(sentences(written(tmp_path, "a.conllu", words.encode())))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst"])
def test_a_packed_file_that_is_neither_whole_nor_utf_8(tmp_path, name):
    whole = packed(b"text,y\n" + b"caf\xc3" + hashlib.sha512().digest() * 999, name)
    for damaged in (whole[: len(whole) // 2], whole[:-9] + b"\0\0\0\0\0\0\0\0\0"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=r"is not UTF-8 |is cut off|cannot be unpacked"):
            read_rows(tmp_path / name)


@pytest.mark.parametrize(
    "row", [{"text": "a\ud800"}, {"\udfff": 1}, {"spans": [{"label": ["\ud83d"]}]}, {"y": "\ude00\ud83d"}]
)
def test_half_of_a_character_is_refused_with_its_line(tmp_path, row):
    whole = json.dumps({"text": "\U0001f600"})
    path = written(tmp_path, "a.jsonl", f"{whole}\n{json.dumps(row)}\n".encode())
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: '\\u[\da-f]{4}' in .* is half of a character: write both"):
        read_rows(path)


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    for path in (tmp_path / "a.csv", Path("/dev/null")):
        with pytest.raises(InputError, match="is a device or a pipe: save it as a file first"), open_text(path):
            pass
    with pytest.raises(InputError, match="does not exist"):
        iter_rows(tmp_path / "a\0.csv")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        iter_rows(Path("nowhere.csv"))
    with pytest.raises(InputError, match="is a folder"):
        iter_rows(tmp_path)


def test_open_text_complains_like_the_readers(tmp_path):
    path = written(tmp_path, "a.txt.gz", b"\xef\xbb\xbfone\r\ntwo\n")
    with open_text(path) as file:
        assert list(file) == ["one\r\n", "two\n"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="is cut off: fetch it again"), open_text(path) as file:
        file.read()


def test_columns():
    rows: list[dict[str, object]] = [{"text": "a"}, {"text": "b", "label": 1}]
    assert column(rows, "label", Path("a.jsonl")) == [None, 1]
    with pytest.raises(InputError, match=r"a.jsonl has no column 'lable': did you mean 'label'\?"):
        column(rows, "lable", Path("a.jsonl"))
    with pytest.raises(InputError, match=r"it has 'text', 'label'"):
        column(rows, "zzz", Path("a.jsonl"))
    with pytest.raises(InputError, match=r"Cells are to be separated by commas"):
        column([{"text;label": "a;1"}], "text", Path("a.csv"))


def test_name_of_a_file_without_its_endings():
    assert [stem(Path(name)) for name in ("x/a.csv", "a.jsonl.zst", "a.b.TSV.GZ", "a.parquet")] == [
        "a",
        "a",
        "a.b",
        "a",
    ]


@given(seed=st.integers(0, 99), most=st.integers(1, 12), order=st.permutations(range(10)))
def test_pairs_are_drawn_together_whatever_the_order(seed, most, order):
    rows: list[dict[str, object]] = [{"text": f"{i} {j}", "pair": i, "id": f"{i}{j}"} for i in order for j in (0, 1)]
    draw = lambda rows: draw_rows(  # noqa: E731
        rows, lambda row, _: str(row["text"]), ["text"], pair_column="pair", id_column="id", most=most, seed=seed
    )
    if most < 2:
        with pytest.raises(InputError, match=r"hold no whole pair of .*: draw more"):
            draw(rows)
        return
    drawn = {row.content for row in draw(rows).rows}
    assert len(drawn) <= most
    assert len(drawn) >= min(20, most - 2)
    assert all((f"{i} 0" in drawn) == (f"{i} 1" in drawn) for i in range(10))
    assert drawn == {row.content for row in draw(rows[::-1]).rows}


@pytest.mark.real_data
def test_real_files(real_data: Path):
    assert sum(1 for _ in iter_rows(real_data / "facts" / "people_us_state_politicians.csv.gz")) == 21_172
    rows = read_rows(real_data / "corpus" / "valid.jsonl.zst")
    assert len(rows) == 1_521
    assert sum(len(str(row["text"])) for row in rows) > 6_000_000
