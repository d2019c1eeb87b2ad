"""`tools/compare_runs.py`: equal folders, and every kind of difference, by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tools.compare_runs import main

ROWS = pl.DataFrame({"f1": [1.0, None, float("nan")], "columns": [[1], [2, 3], None], "feature": ["a", "b", "c"]})


def folder(path: Path, table: pl.DataFrame, **evidence: pl.DataFrame) -> str:
    (path / "evidence").mkdir(parents=True)
    table.write_parquet(path / "probes.parquet")
    for name, rows in evidence.items():
        rows.write_parquet(path / "evidence" / f"{name}.parquet")
    return str(path)


def test_equal_folders_are_equal_also_where_values_are_missing_or_no_numbers(tmp_path, capsys):
    assert main(folder(tmp_path / "old", ROWS, effects=ROWS), folder(tmp_path / "new", ROWS, effects=ROWS)) == 0
    assert capsys.readouterr().out == "2 tables equal, 0 different\n"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (ROWS.with_columns(f1=pl.Series([1.0, 0.5, float("nan")])), "f1, row 1: None, now 0.5 (1 rows differ)"),
        (
            ROWS.with_columns(columns=pl.Series([[1], [2, 4], None])),
            "columns, row 1: [2, 3], now [2, 4] (1 rows differ)",
        ),
        (ROWS.head(2), "3 rows, now 2"),
        (ROWS.rename({"f1": "score"}), "columns differ: f1, score"),
        (ROWS.select("columns", "f1", "feature"), "columns differ: their order"),
    ],
)
def test_a_difference_is_named(changed, said, tmp_path, capsys):
    assert main(folder(tmp_path / "old", ROWS), folder(tmp_path / "new", changed)) == 1
    assert f"probes.parquet: {said}\n" in capsys.readouterr().out


def test_tables_that_one_folder_lacks_and_folders_without_tables(tmp_path, capsys):
    old, new = folder(tmp_path / "old", ROWS, effects=ROWS), folder(tmp_path / "new", ROWS)
    assert main(old, new) == 1 and "evidence/effects.parquet: is missing now" in capsys.readouterr().out
    assert main(new, old) == 1 and "evidence/effects.parquet: is new" in capsys.readouterr().out
    assert main(old, str(tmp_path / "none")) == 2
