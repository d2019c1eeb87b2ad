"""Activation profile of a neuron at every token, examples of all kinds, unlabelled text: planted truth and twins."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sparse_probing.activations.extract import extract, find_units, token_activations
from sparse_probing.activations.strongest import WatchedUnit, strongest_tokens
from sparse_probing.datasets.text_folder import LONGEST, read_texts
from sparse_probing.datasets.unlabelled import every_token
from sparse_probing.errors import InputError
from sparse_probing.pages.render import environment, json_for_script
from sparse_probing.results.findings import NamedNeuron
from sparse_probing.results.tables import EXAMPLES, table
from sparse_probing.studies.effects.texts import category_groups
from sparse_probing.studies.examples.examples import (
    DistinctExamples,
    choose_examples,
    evidence_examples,
    near_quantile,
    show_examples,
)
from sparse_probing.studies.profile.profile import (
    CURVE_POINTS,
    TokenTrace,
    activation_profile,
    disambiguation,
    threshold_curve,
    token_trace,
    weighted_auc,
)
from sparse_probing.studies.profile.profile import strongest_tokens as strongest_means
from sparse_probing.studies.profile.tables import PROFILE_TABLES
from sparse_probing.studies.profile.text_examples import text_examples
from sparse_probing.studies.profile.view import profile_overview, profile_view, token_label
from sparse_probing.studies.study import charts_of

from .conftest import SENTENCES

WHERE = {"category": "c", "feature": "f", "neuron": "L0.N0"}


def planted(
    *, context: float, token: float, noise: float = 0.3, seed: int = 0, shared: bool = True, documents: int = 20
) -> TokenTrace:
    """Value = context * [in class] + token * (worth of the token) + noise. Tokens 0-5 are rare in class, 6-11 frequent there."""
    rng = np.random.default_rng(seed)
    n = 6_000
    in_class = rng.random(n) < 0.3
    worth = np.repeat([0.0, 1.0], 6)
    odds = np.array([3.0] * 6 + [1.0] * 6)
    kinds = np.where(in_class, rng.choice(12, n, p=odds[::-1] / odds.sum()), rng.choice(12, n, p=odds / odds.sum()))
    if not shared:
        kinds = np.where(in_class, 6 + kinds % 6, kinds % 6)
    value = context * in_class + token * worth[kinds] + noise * rng.standard_normal(n)
    return TokenTrace(
        value=value.astype(np.float32), token=kinds, in_class=in_class,
        document=rng.integers(documents, size=n) * 2 + in_class, group=in_class.astype(int), groups=("rest", "mine"),
        spelling={i: f"w{i}" for i in range(12)},
    )  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("context", "token", "reading"),
    [(1, 0, "reads the context"), (0, 1, "reads the token"), (1, 1, "reads both"), (0, 0, None)],
)
def test_what_the_neuron_reads_is_found(context, token, reading, sign):
    trace = planted(context=sign * context, token=sign * token)
    rows, summary = disambiguation(trace, sign)
    assert summary["reading"] == reading
    assert summary["shared_tokens"] == len(rows) == 12
    assert summary["shared_least"] == 10
    assert (summary["context_auc"] > 0.95) == (context == 1)
    if context == 0:
        assert summary["context_auc"] == pytest.approx(0.5, abs=0.02)
        assert summary["higher_share"] < 1
    if token == 0:
        assert summary["token_auc"] == pytest.approx(0.5, abs=0.02)
    else:  # 3/4 of one side's tokens are worth 1, 1/4 of the other's: 9/16 ordered right, 6/16 equal
        assert summary["token_auc"] == pytest.approx(0.75, abs=0.02)


def test_a_class_with_its_own_vocabulary_does_not_turn_context_into_token():
    """Each token replaced by its mean would call this neuron a reader of tokens: the frequent ones are those of the class."""
    trace = planted(context=1, token=0, seed=3)
    means = {t: float(trace.value[trace.token == t].mean()) for t in range(12)}
    naive = roc_auc_score(trace.in_class, [means[int(t)] for t in trace.token])
    assert naive > 0.7
    assert disambiguation(trace, 1)[1]["token_auc"] < 0.52


def test_tiny_differences_between_tokens_count_as_tiny():
    summary = disambiguation(planted(context=1, token=0.01, noise=0.3), 1)[1]
    assert summary["token_auc"] < 0.53
    assert summary["reading"] == "reads the context"


def test_nothing_is_said_where_no_token_stands_on_both_sides():
    rows, summary = disambiguation(planted(context=0, token=1, shared=False), 1)
    assert rows == []
    assert summary["roc_auc"] > 0.98
    assert summary["reading"] is None
    assert "Too few tokens occur 3 times on both sides (0)" in summary["explanation"]
    assert "context_auc" not in summary


def test_a_single_document_is_no_context():
    assert disambiguation(planted(context=1, token=0, documents=1), 1)[1]["shared_tokens"] == 0


def test_shared_tokens_are_counted_and_sorted_as_by_brute_force():
    trace = planted(context=0.5, token=0.2, seed=5)
    rows, summary = disambiguation(trace, 1)
    for row in rows:
        here = trace.token == row["token_id"]
        inside, outside = trace.value[here & trace.in_class], trace.value[here & ~trace.in_class]
        assert (row["count_in"], row["count_out"]) == (len(inside), len(outside))
        assert row["token"] == f"w{row['token_id']}"
        assert row["roc_auc"] == pytest.approx(roc_auc_score(trace.in_class[here], trace.value[here]))
        assert row["q50_out"] == pytest.approx(np.median(outside), abs=1e-6)
        assert row["difference"] == pytest.approx(inside.mean() - outside.mean(), abs=1e-5)
    assert [row["rank"] for row in rows] == list(range(1, 13))
    assert sorted((row["difference"] for row in rows), reverse=True) == [row["difference"] for row in rows]
    weights = [row["count_in"] + row["count_out"] for row in rows]
    assert summary["context_auc"] == pytest.approx(np.average([row["roc_auc"] for row in rows], weights=weights))
    assert summary["roc_auc"] == pytest.approx(roc_auc_score(trace.in_class, trace.value))


def test_fewer_occurrences_are_asked_for_where_few_tokens_are_shared_and_it_is_said():
    tokens = np.repeat(np.arange(6), 8)  # four on each side
    side = np.tile([True, False], 24)
    trace = TokenTrace(
        value=side.astype(np.float32), token=tokens, in_class=side, document=np.tile(np.arange(8), 6),
        group=np.zeros(48, int), groups=(), spelling={i: str(i) for i in range(6)},
    )  # fmt: skip
    rows, summary = disambiguation(trace, 1)
    assert (summary["shared_least"], summary["shared_tokens"], summary["context_auc"]) == (3, 6, 1.0)
    assert {row["least"] for row in rows} == {3}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_weighted_auc_is_the_chance_that_one_draw_exceeds_the_other(entries):
    value, p, q = (np.array(column, dtype=float) for column in zip(*entries, strict=True))
    if p.sum() and q.sum():
        chance = sum(
            a * b * ((x > y) + 0.5 * (x == y))
            for x, a in zip(value, p, strict=True)
            for y, b in zip(value, q, strict=True)
        )
        assert weighted_auc(value, p, q) == pytest.approx(chance / (p.sum() * q.sum()))


def test_histogram_quantiles_and_zeros_by_hand():
    value = np.array([-0.09, 0.0, 0.01, 5.0, 10.0, 0.0, -0.2, 0.05], dtype=np.float32)
    side = np.array([True, True, True, True, True, False, False, False])
    trace = TokenTrace(
        value=value, token=np.arange(8), in_class=side, document=np.arange(8) // 2,
        group=np.array([0, 0, 1, 1, 1, 1, 1, 1]), groups=("a", "b", "empty"), spelling={i: str(i) for i in range(8)},
    )  # fmt: skip
    active = np.array([0.1, 0.3, 0.2, 0.9])
    found = activation_profile(
        trace, np.array([3.0, 1.0]), np.array([True, False]), sign=1, where=WHERE, unit=2, active_share=active
    )
    profile = found["profiles"][0]
    assert (profile["tokens_in"], profile["tokens_out"], profile["documents_in"], profile["documents_out"]) == (
        5,
        3,
        3,
        2,
    )
    assert profile["near_zero_in"] == 3 / 5  # up to 0.1
    assert profile["near_zero_out"] == 2 / 3
    assert profile["not_above_zero_in"] == 2 / 5
    assert profile["not_above_zero_out"] == 2 / 3
    assert profile["median_in"] == pytest.approx(0.01)
    assert (profile["active_share"], profile["layer_active_share"], profile["sparser_units"]) == (0.2, 0.25, 1 / 3)
    assert (profile["best_f1"], profile["best_threshold"]) == (1.0, 3.0)
    groups = {(row["kind"], row["series"]): row for row in found["token_groups"]}
    assert list(groups) == [("class", "in class"), ("class", "out of class"), ("group", "a"), ("group", "b")]
    assert groups["group", "b"]["share_in_class"] == 0.5
    assert groups["class", "in class"]["q50"] == pytest.approx(0.01)
    assert groups["group", "a"]["mean"] == pytest.approx(-0.045)
    bins = found["token_histograms"]
    totals = Counter()
    for row in bins:
        totals[row["series"]] += row["tokens"]
    assert totals == {"in class": 5, "out of class": 3, "a": 2, "b": 6}
    assert {row["bin_low"] for row in bins if row["series"] == "a"} == {row["bin_low"] for row in bins}
    assert min(row["bin_low"] for row in bins) == pytest.approx(-0.2)
    assert max(row["bin_high"] for row in bins) == 10.0


def test_a_dead_neuron_and_a_missing_side_give_a_profile_without_inventions():
    trace = dataclasses.replace(planted(context=0, token=0), value=np.zeros(6_000, np.float32))
    profile = activation_profile(trace, np.zeros(4), np.array([True, False, False, True]), sign=1, where=WHERE)[
        "profiles"
    ][0]
    assert (profile["near_zero_in"], profile["roc_auc"], profile["reading"]) == (1.0, 0.5, None)
    alone = dataclasses.replace(trace, in_class=np.zeros(6_000, bool))
    found = activation_profile(alone, np.zeros(2), np.array([False, False]), sign=1, where=WHERE)
    profile = table(found["profiles"], PROFILE_TABLES["profiles"]).row(0, named=True)
    assert found["threshold_curves"] == []
    for name in ("near_zero_in", "median_in", "roc_auc", "reading", "best_f1", "best_threshold", "active_share"):
        assert profile[name] is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=30).filter(
        lambda rows: any(p for _, p in rows)
    ),
    st.sampled_from([1, -1]),
)
def test_the_curve_is_precision_and_recall_at_every_threshold(rows, sign):
    value, positive = np.array([float(v) for v, _ in rows]), np.array([p for _, p in rows])
    curve = threshold_curve(value, positive, sign)
    assert [point["threshold"] for point in curve] == sorted(set(value.tolist()), reverse=sign > 0)
    for point in curve:
        called = sign * value >= sign * point["threshold"]
        hits = int((called & positive).sum())
        precision, recall = hits / called.sum(), hits / positive.sum()
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        assert (point["precision"], point["recall"], point["f1"]) == pytest.approx((precision, recall, f1))


def test_a_thinned_curve_keeps_its_ends_and_its_best_point():
    rng = np.random.default_rng(1)
    positive = rng.random(20_000) < 0.02
    value = rng.standard_normal(20_000) + 2 * positive
    curve = threshold_curve(value, positive, 1)
    assert 100 < len(curve) <= CURVE_POINTS
    assert (curve[0]["threshold"], curve[-1]["threshold"]) == (value.max(), value.min())
    order = np.argsort(-value)
    hits = np.cumsum(positive[order])
    best = (2 * hits / (np.arange(1, 20_001) + positive.sum())).max()
    assert max(point["f1"] for point in curve) == pytest.approx(best, abs=1e-12)
    recall = [point["recall"] for point in curve]
    assert max(np.diff(recall)) < 0.05


def test_tokens_of_the_strongest_mean_by_hand():
    rng = np.random.default_rng(0)
    token = np.array([7] * 10 + [8] * 9 + [9] * 12 + [7] * 11)
    side = np.array([True] * 31 + [False] * 11)
    value = np.where(token == 8, 9.0, np.where(token == 9, 2.0, 1.0)).astype(np.float32)
    order = rng.permutation(len(token))
    trace = TokenTrace(
        value=value[order], token=token[order], in_class=side[order], document=np.arange(42) % 5, group=np.zeros(42, int),
        groups=(), spelling={7: "seven", 8: "eight", 9: "nine"},
    )  # fmt: skip
    found = [(r["side"], r["rank"], r["token"], r["count"], r["mean"]) for r in strongest_means(trace, 1)]
    assert found == [
        ("in class", 1, "nine", 12, 2.0), ("in class", 2, "seven", 10, 1.0), ("out of class", 1, "seven", 11, 1.0),
    ]  # fmt: skip
    assert [row["token"] for row in strongest_means(trace, -1)] == ["seven", "nine", "seven"]


@pytest.fixture(scope="module")
def labelled(tiny):
    """Ten sentences as document rows, all in the test split, and one row per token of the first, not eligible for `english`."""
    dataset = every_token([*SENTENCES, "naïve 中 word"], tiny.tokenizer, window=64)
    n = dataset.n_sequences
    assert n == 11
    lengths = dataset.sequence_lengths()
    order = np.argsort(np.r_[np.arange(n), np.zeros(lengths[0] - 1, int)], kind="stable")
    first = np.r_[np.ones(n, int), np.arange(1, lengths[0])][order]
    last = np.r_[lengths, np.arange(2, lengths[0] + 1)][order]
    sequence = np.r_[np.arange(n), np.zeros(lengths[0] - 1, int)][order]
    whole = np.r_[np.ones(n, bool), np.zeros(lengths[0] - 1, bool)][order]
    positive = np.stack([whole & (sequence < 5), whole & (sequence >= 5) & (sequence < 10), whole & (sequence > 99)], 1)
    return dataclasses.replace(
        dataset, features=("english", "german", "none"), categories=("language",) * 3, row_sequence=sequence, row_first=first,
        row_last=last, row_pooling=np.full(len(first), 3), row_group=sequence, row_split=np.full(len(first), 2),
        positive=positive, eligible=np.repeat(whole[:, None], 3, axis=1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def traces(tiny, labelled):
    wanted = {s: {(1, 4), (2, 7)} for s in range(labelled.n_sequences)}
    return token_activations(tiny, labelled, find_units(tiny), wanted)


def test_the_trace_holds_every_token_of_the_rows_once(labelled, traces):
    rows = labelled.rows_of(0)
    group, names = category_groups(labelled, 0, rows)
    assert names == ("english", "german", "none", "none of them")
    assert group.tolist() == [0] * 5 + [1] * 5 + [3]
    trace = token_trace(labelled, 0, rows, traces, layer=1, unit=4, group_of_row=group, groups=names)
    text = labelled.char_starts >= 0
    assert trace.token.tolist() == labelled.tokens[text].tolist()
    assert trace.value.tolist() == np.concatenate([traces[s, 1, 4][1:] for s in range(11)]).tolist()
    assert trace.document.tolist() == np.repeat(labelled.sequence_document, labelled.sequence_lengths())[text].tolist()
    assert trace.in_class.tolist() == (trace.document < 5).tolist()
    assert trace.group.tolist() == np.array([0] * 5 + [1] * 5 + [3])[trace.document].tolist()
    for position, token in zip(np.flatnonzero(text).tolist(), trace.token.tolist(), strict=True):
        spelt = trace.spelling[token]
        if position == int(np.flatnonzero(labelled.tokens == token)[0]) and not spelt.startswith("part of"):
            document = labelled.texts[
                labelled.sequence_document[np.searchsorted(labelled.sequence_starts, position, side="right") - 1]
            ]
            assert spelt.strip() == document[labelled.char_starts[position] : labelled.char_ends[position]].strip()
    assert any(text.startswith("part of 中") for text in trace.spelling.values())
    assert any(text.startswith(" ") for text in trace.spelling.values())


def test_a_token_under_two_rows_counts_once_and_in_class(labelled, traces):
    eligible = np.ones((labelled.n_rows, 3), bool)
    overlapping = dataclasses.replace(labelled, eligible=eligible)
    rows = overlapping.rows_of(0)
    trace = token_trace(overlapping, 0, rows, traces, layer=1, unit=4)
    alone = token_trace(labelled, 0, labelled.rows_of(0), traces, layer=1, unit=4)
    assert np.array_equal(trace.in_class, alone.in_class)
    assert np.array_equal(trace.value, alone.value)
    assert (trace.groups, set(trace.group.tolist())) == ((), {0})


def test_groups_need_features_that_exclude_each_other(labelled):
    both = dataclasses.replace(labelled, positive=np.ones_like(labelled.positive))
    assert category_groups(both, 0, labelled.rows_of(0))[1] == ()
    two = dataclasses.replace(labelled, categories=("language", "language", "other"))
    assert category_groups(two, 0, labelled.rows_of(0))[1] == ()


NEURON = NamedNeuron(feature=0, layer=1, unit=4, name="L1.N4", sign=1)


def examples_of(labelled, traces, neuron=NEURON, seed=0):
    rows = labelled.rows_of(neuron.feature)
    values = np.array([traces[s, neuron.layer, neuron.unit][1:].mean() for s in labelled.row_sequence[rows].tolist()])
    return rows, values, evidence_examples(labelled, neuron, rows, values, traces, np.random.default_rng(seed))


@pytest.mark.parametrize("sign", [1, -1])
def test_examples_of_all_kinds_none_twice(labelled, traces, sign):
    neuron = dataclasses.replace(NEURON, sign=sign)
    rows, values, found = examples_of(labelled, traces, neuron)
    assert table(found, PROFILE_TABLES["evidence_examples"]).height == len(found)
    texts = ["".join(row["tokens"]) for row in found]
    assert len(set(texts)) == len(texts)
    strongest = [row for row in found if row["kind"] == "strongest"]
    assert [row["row_activation"] for row in strongest] == sorted(values, key=lambda v: -sign * v)[:4]
    assert [row["rank"] for row in strongest] == [1, 2, 3, 4]
    shown = {row["row_activation"] for row in strongest}
    misses = sorted(
        (v for v, p in zip(values, labelled.positive[rows, 0], strict=True) if p and v not in shown),
        key=lambda v: sign * v,
    )
    assert [row["row_activation"] for row in found if row["kind"] == "miss"] == misses[:2]
    assert all(row["positive"] for row in found if row["kind"] == "random in class")
    assert all(row["source"] == "labelled" for row in found)
    assert examples_of(labelled, traces, neuron)[2] == found
    for row in found:
        assert len(row["tokens"]) == len(row["activations"])
        peak = max(v * sign for v in row["activations"][row["first"] : row["last"]])
        trace = traces[labelled.document_ids.index(row["document"]), 1, 4]
        assert peak == pytest.approx((trace[1:] * sign).max(), abs=1e-4)


def test_what_the_run_shows_has_its_columns_and_kinds_as_before(tiny, labelled, tmp_path):
    sites = find_units(tiny)
    store = extract(tiny, labelled, sites, cache=tmp_path)["mlp.neurons"]
    chosen = choose_examples(labelled, store, [NEURON])
    shown = show_examples(tiny, labelled, sites, chosen)
    assert [row["kind"] for row in shown] == ["strongest"] * 4 + ["miss"] * 2 + ["false alarm"] * 2
    assert all(set(row) == set(EXAMPLES) for row in shown)


def test_equal_and_nearly_equal_excerpts_are_the_same_and_others_are_not():
    words = [f"w{i}" for i in range(60)]

    def example(low, high):
        return {"tokens": [f"{word} " for word in words[low:high]]}

    distinct = DistinctExamples()
    assert distinct.accepts(example(0, 40))
    assert not distinct.accepts(example(0, 40))
    assert not distinct.accepts(example(10, 50))  # 26 shared of 46 sequences of five words
    assert distinct.accepts(example(16, 56))  # 20 of 52
    assert not distinct.accepts({"tokens": ["W0, w1 ", *[f"{word}\n" for word in words[2:40]]]})  # case and blanks


def test_rows_near_a_quantile():
    values = np.random.default_rng(2).permutation(101).astype(float)
    for quantile in (10, 50, 90):
        found = values[near_quantile(values, quantile)]
        assert found[0] == quantile
        assert np.abs(found - quantile).max() <= 101 / 40
    assert near_quantile(np.array([3.0]), 90).tolist() == [0]


def test_all_rows_alike_are_shown_once(labelled, traces):
    n = labelled.n_sequences
    texts = tuple([labelled.texts[0]] * n)
    lengths = labelled.sequence_lengths()[0]
    begin, end = labelled.sequence_starts[:2]
    same = dataclasses.replace(
        labelled, texts=texts, tokens=np.tile(labelled.tokens[begin:end], n),
        char_starts=np.tile(labelled.char_starts[begin:end], n),
        char_ends=np.tile(labelled.char_ends[begin:end], n), sequence_starts=np.arange(n + 1) * lengths,
        row_last=np.minimum(labelled.row_last, lengths),
    )  # fmt: skip
    found = examples_of(same, {key: value[:1].repeat(lengths) for key, value in traces.items()})[2]
    assert len(found) == 1


def folder_of_texts(path):
    (path / "sub").mkdir(parents=True)
    (path / ".hidden").mkdir()
    (path / "a.txt").write_text("The first text.", encoding="utf-8")
    (path / "sub" / "b.md").write_text("# Second", encoding="utf-8")
    (path / "c.jsonl").write_text(json.dumps({"text": "third"}) + "\n" + json.dumps({"text": None}) + "\n")
    (path / "d.csv").write_text("text,other\nfourth,1\nfifth,2\n")
    (path / "e.csv").write_text("words\nnone\n")
    (path / "empty.txt").write_text(" \n")
    (path / "f.bin").write_bytes(b"\xff\xfe\x00\x80")
    (path / "g.dat").write_bytes(b"text\0with nul")
    (path / ".hidden" / "h.txt").write_text("hidden")
    return path


def test_a_folder_gives_its_texts_and_says_what_it_skipped(tmp_path):
    sample = read_texts(folder_of_texts(tmp_path / "t"))
    assert dict(zip(sample.names, sample.texts, strict=True)) == {
        "a.txt": "The first text.", "sub/b.md": "# Second", "c.jsonl:1": "third", "d.csv:1": "fourth", "d.csv:2": "fifth",
    }  # fmt: skip
    assert len(sample.notes) == 1
    assert sample.notes[0].startswith("3 files") and "e.csv, f.bin, g.dat" in sample.notes[0]


def test_a_sample_is_seeded_bounded_and_said(tmp_path):
    folder = folder_of_texts(tmp_path / "t")
    samples = [read_texts(folder, most=3, seed=seed) for seed in range(8)]
    assert {len(sample.texts) for sample in samples} == {3}
    assert len({sample.names for sample in samples}) > 1
    assert read_texts(folder, most=3, seed=2) == samples[2]
    assert "3 of 5 texts were drawn (seed 2)." in samples[2].notes


def test_long_files_are_cut_and_it_is_said(tmp_path):
    (tmp_path / "long.txt").write_text("ab " * LONGEST)
    sample = read_texts(tmp_path)
    assert len(sample.texts[0]) == LONGEST
    assert "1 texts are longer" in sample.notes[0]


def test_bad_places_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist: check the path"):
        read_texts(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no text: name a folder"):
        read_texts(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match=r"holds no text \(1 of its files cannot"):
        read_texts(tmp_path)
    with pytest.raises(InputError, match="not UTF-8"):
        read_texts(tmp_path / "x.bin")
    (tmp_path / "y.csv").write_text("texts\nhello\n")
    with pytest.raises(InputError, match="did you mean 'texts'"):
        read_texts(tmp_path / "y.csv")
    assert read_texts(tmp_path / "y.csv", column="texts").names == ("y.csv:1",)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_strongest_token_of_every_sequence_is_that_of_brute_force(tiny, labelled, traces, sign):
    watched = [
        WatchedUnit(layer=2, unit=7, sign=sign, threshold=0.05), WatchedUnit(layer=1, unit=4, sign=1, threshold=0.0),
    ]  # fmt: skip
    done: list[int] = []
    peaks = strongest_tokens(tiny, labelled, find_units(tiny), watched, done.append)
    assert sum(done) == len(labelled.tokens)
    for i, unit in enumerate(watched):
        for s in range(labelled.n_sequences):
            trace = traces[s, unit.layer, unit.unit][1:]  # the special token in front does not count
            at = int(np.argmax(unit.sign * trace))
            assert peaks.position[i, s] == at + 1
            assert peaks.value[i, s] == pytest.approx(trace[at], abs=1e-5)
            assert peaks.beyond[i, s] == (unit.sign * trace >= unit.sign * unit.threshold).sum()


def test_examples_from_unlabelled_text(tiny, labelled, tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02d}.txt").write_text(
            f"{SENTENCES[i % 10]} {SENTENCES[(3 * i + 1) % 10]} {SENTENCES[(i * i) % 7]}"
        )
    sample = read_texts(tmp_path)
    neurons = [NEURON, NamedNeuron(feature=1, layer=2, unit=7, name="L2.N7", sign=-1)]
    found, figures = text_examples(tiny, labelled, sample, find_units(tiny), neurons, [0.1, -0.1], window=32)
    assert table(found, PROFILE_TABLES["evidence_examples"])["positive"].null_count() == len(found)
    dataset = every_token(sample.texts, tiny.tokenizer, 32)
    wanted = {s: {(1, 4), (2, 7)} for s in range(dataset.n_sequences)}
    brute = token_activations(tiny, dataset, find_units(tiny), wanted)
    for neuron, threshold, figure in zip(neurons, (0.1, -0.1), figures, strict=True):
        traces = [brute[s, neuron.layer, neuron.unit][1:] * neuron.sign for s in range(dataset.n_sequences)]
        every = np.concatenate(traces)
        assert figure["text_documents"] == 40
        assert figure["text_tokens"] == len(every)
        assert figure["text_largest"] == pytest.approx(neuron.sign * every.max(), abs=1e-5)
        assert figure["text_share_above"] == pytest.approx((every >= neuron.sign * threshold).mean())
        mine = [row for row in found if row["neuron"] == neuron.name]
        assert mine[0]["kind"] == "strongest"
        assert mine[0]["row_activation"] == pytest.approx(figure["text_largest"])
        strengths = [neuron.sign * row["row_activation"] for row in mine if row["kind"] == "strongest"]
        assert strengths == sorted(strengths, reverse=True)
        assert {row["feature"] for row in mine} == {labelled.features[neuron.feature]}
        texts = ["".join(row["tokens"]) for row in mine]
        assert len(set(texts)) == len(texts)
        for row in mine:
            assert row["last"] - row["first"] == 1
            assert row["activations"][row["first"]] == pytest.approx(row["row_activation"], abs=1e-4)
            assert "".join(row["tokens"]) in sample.texts[sample.names.index(row["document"])]


def tables_of(trace, examples=()):
    found = activation_profile(trace, np.array([2.0, 1.0, 0.0]), np.array([True, False, False]), sign=1, where=WHERE)
    found |= {"evidence_examples": list(examples)}
    return {name: table(found[name], schema) for name, schema in PROFILE_TABLES.items()}


def test_the_view_shows_groups_or_else_the_histogram():
    trace = planted(context=1, token=0)
    tables = tables_of(trace)
    assert profile_view(tables, "c", "another") is None
    record = profile_view(tables, "c", "f")
    assert record is not None
    assert record["reading"] == "reads the context"
    charts = charts_of(record, "p-0-1")
    assert set(charts) == {"p-0-1-groups", "p-0-1-shared", "p-0-1-curve"}
    drawn = next(iter(charts["p-0-1-shared"]["datasets"].values()))
    assert len(drawn) == 24
    assert {row["side"] for row in drawn} == {"in class", "out of class"}
    alone = profile_view(tables_of(dataclasses.replace(trace, groups=())), "c", "f")
    assert alone is not None
    assert set(charts_of(alone, "k")) == {"k-histogram", "k-shared", "k-curve"}
    bars = next(iter(charts_of(alone, "k")["k-histogram"]["datasets"].values()))
    for side in ("in class", "out of class"):
        assert sum(row["share"] for row in bars if row["series"] == side) == pytest.approx(1)
    overview = profile_overview(tables)
    assert overview is not None
    assert overview["counts"] == {"reads the context": 1}
    assert profile_overview({"profiles": pl.DataFrame(schema=PROFILE_TABLES["profiles"])}) is None


def test_labels_show_blanks_and_let_nothing_act():
    assert token_label(" a\n") == "␣a⏎"
    assert token_label("x" * 40) == "x" * 23 + "…"
    assert token_label("\u202e") == "\\u202e"


def test_the_macro_escapes_what_comes_from_data(labelled, traces, monkeypatch):

    evil = "<script>alert(1)</script>"
    trace = dataclasses.replace(planted(context=1, token=0), spelling={i: f"{evil}{i}" for i in range(12)})
    examples = [
        row | WHERE | {"document": evil, "tokens": [evil, *row["tokens"][1:]]}
        for row in examples_of(labelled, traces)[2]
    ]
    examples[0] = examples[0] | {"kind": "quantile 50"}
    examples += [row | {"source": "text", "positive": None} for row in examples]
    tables = tables_of(trace, examples)
    tables["profiles"] = tables["profiles"].with_columns(
        text_tokens=pl.lit(9), text_documents=pl.lit(2), text_share_above=pl.lit(0.5),
        active_share=pl.lit(0.1), layer_active_share=pl.lit(0.2), sparser_units=pl.lit(0.3),
    )  # fmt: skip
    record = profile_view(tables, "c", "f")
    assert record is not None
    page = (
        '{% from "studies/profile/page.html" import feature, overview %}'
        '{{ overview(over, "o") }}{{ feature(record, "k") }}'
    )
    text = environment().from_string(page).render(over=profile_overview(tables), record=record)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for words in (
        "reads the context",
        "At the median",
        "Unlabelled text (2 texts)",
        "at 50 %",
        "Highest mean in class",
        'data-chart="k-shared"',
    ):
        assert words in text
    assert json_for_script(charts_of(record, "k")).count("<") == 0
