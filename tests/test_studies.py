"""A new study is a folder and an entry: the example of docs/studies.md is added, and verified, written, read and shown."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

import sparse_probing as sp
import sparse_probing.studies
from sparse_probing.studies import evidence

PAGE = Path(__file__).parent.parent / "docs" / "studies.md"


def test_the_study_of_the_documentation_appears_everywhere(model_folders, reviews, tmp_path, monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    record, measure = re.findall(r"```python\n(.*?)```", text, re.S)
    (page,) = re.findall(r"```html\n(.*?)```", text, re.S)
    folder = tmp_path / "studies" / "firing"
    folder.mkdir(parents=True)
    for name, content in {"__init__.py": "", "study.py": record, "measure.py": measure, "page.html": page}.items():
        (folder / name).write_text(content, encoding="utf-8")
    monkeypatch.setattr(sparse_probing.studies, "__path__", [*sparse_probing.studies.__path__, str(folder.parent)])
    study = import_module("sparse_probing.studies.firing.study").FIRING
    try:
        monkeypatch.setattr(evidence, "STUDIES", (*evidence.STUDIES, study))
        config = sp.RunConfig(
            model=str(model_folders["gpt_neox"]), data=reviews, label=("german",), group_column="author",
            out=tmp_path / "run", device="cpu", skip_first=3, window=32, min_rows=2, ks=(1, 2), random_model=False,
            permutations=0, workers=1,
        )  # fmt: skip
        run = sp.run(config)
        assert "How often it fires" not in run.report.read_text(encoding="utf-8")
        with monkeypatch.context() as patch, pytest.raises(ValueError, match="study 'firing' has no table other"):
            patch.setattr(evidence, "STUDIES", (dataclasses.replace(study, measure=lambda _: {"other": []}),))
            sp.verify(run.folder, sp.VerifyConfig(texts=4, sizes=(0,)))
        sp.verify(run.folder, sp.VerifyConfig(texts=4, sizes=(0,)))
        table = pl.read_parquet(run.folder / "evidence" / "firing.parquet")
        assert table.schema == pl.Schema(study.tables["firing"])
        assert table["neuron"].to_list() == run.findings["neuron"].to_list()
        tables = evidence.read_evidence(run.folder)
        assert tables is not None and tables["firing"].equals(table)
        shown = f"is above zero at {100 * table['share_in_class'][0]:.0f} % of the test rows in class"
        assert shown in (run.folder / "report.html").read_text(encoding="utf-8")
    finally:
        for name in [name for name in sys.modules if name.startswith("sparse_probing.studies.firing")]:
            del sys.modules[name]
        shutil.rmtree(folder)


def test_no_two_studies_have_a_table_of_one_name():
    names = [name for study in evidence.STUDIES for name in study.tables]
    assert len(names) == len(set(names))
    assert len({study.name for study in evidence.STUDIES}) == len(evidence.STUDIES)
