"""What reaches the terminal: names from data, models and files act on nothing, wherever they are printed."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import polars as pl
import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparse_probing.cli import main as application
from sparse_probing.cli.log_lines import LogLines
from sparse_probing.cli.progress import Bars, print_findings
from sparse_probing.cli.terminal import Terminal
from sparse_probing.cli.verify import print_evidence
from sparse_probing.pages.visible import harmless, isolated, legible
from sparse_probing.progress import duration

HOSTILE = "a\x1b[2J\x1b]8;;http://x.test\x07b\x9b31mc\u202ed\u2066e\rf\ng[red]:smile:"
SHOWN = "a␛[2J␛]8;;http://x.test␇b\\u009b31mc\\u202ed\\u2066e␍f⏎g[red]:smile:"
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def console(**options) -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    return Terminal(file=out, width=200, color_system=None, **options), out


def test_whatever_is_printed_is_shown():
    terminal, out = console(soft_wrap=True)
    terminal.print(HOSTILE)
    assert out.getvalue() == f"{SHOWN}\n"
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(f"x {HOSTILE}"))
    table.add_row(Group(HOSTILE, Text(HOSTILE)))
    terminal, out = console()
    terminal.print(table, Text.assemble(("bold", "bold"), HOSTILE), HOSTILE)
    assert not ACTS.search(out.getvalue())
    assert out.getvalue().count("\\u202e") == 8


def test_styles_stay_where_they_were():
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, color_system="standard", _environ={}).print(
        Text.assemble("\u202e\x1b", ("bold", "bold"), "\x9b")
    )
    assert out.getvalue() == "\\u202e␛\x1b[1mbold\x1b[0m\\u009b\n"


def test_isolates_of_ours_stay_and_strays_are_shown():
    ours = f"x {isolated('שלום')} y"
    assert harmless(ours) == ours
    assert harmless(f"\u2069{ours}") == "x \\u2068שלום\\u2069 y".join(["\\u2069", ""])
    assert legible("a\tb\nc\u202e\x1b") == "a\tb\nc\\u202e␛"


def test_findings_evidence_notes_and_errors(capsys, tmp_path):
    finding = {
        "category": HOSTILE, "feature": HOSTILE, "neuron": HOSTILE, "f1": 0.5, "f1_low": 0.4, "f1_high": 0.6, "k_enough": 1,
        "dense_f1": 0.5, "best_baseline_f1": 0.1, "best_baseline": "text_only", "verdict": HOSTILE, "explanation": HOSTILE,
    }  # fmt: skip
    print_findings(pl.DataFrame([finding]), pl.DataFrame(schema={"category": pl.String}))
    evidence = {
        "category": HOSTILE, "feature": HOSTILE, "neuron": HOSTILE, "effect_in": 0.5, "over_placebo": None, "exceeded_in": None,
        "p": None, "verdict": HOSTILE, "remark": HOSTILE, "ablation": "zero",
    }  # fmt: skip
    cell = {"effect_low": None, "effect_high": None, "percent": 1.0, "effect": 1.0, "size": 1, "category": HOSTILE}
    cells = [
        cell | {"switched_off": a, "affected": b} for a in (HOSTILE, f"2{HOSTILE}") for b in (HOSTILE, f"2{HOSTILE}")
    ]
    print_evidence(pl.DataFrame([evidence]), pl.DataFrame(cells))
    Bars().note(HOSTILE)
    with pytest.raises(SystemExit):
        application.main(["report", f"{tmp_path}/{HOSTILE}"])
    with pytest.raises(SystemExit):
        application.main(["run", f"--{HOSTILE}"])
    said = capsys.readouterr()
    assert not ACTS.search(said.out)
    assert not ACTS.search(said.err)
    assert said.out.count("␛[2J") >= 5
    assert said.err.count("␛[2J") == 2  # the third stands in quotation marks, as \x1b


def test_a_stage_that_reports_nothing_is_not_silent_in_a_file():
    terminal, out = console()
    with LogLines("probes", 40, "feature x layer", terminal, interval=0.001) as lines:
        waits_for("0 of 40 feature x layer (0 %),", out)
        lines.step(10)
        waits_for("10 of 40 feature x layer (25 %),", out)
        waits_for(" feature x layer/s, ", out)
        waits_for(" left, ", out)
        lines.step(30)
    said = out.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d probes: begins, 40 feature x layer", said[0])
    assert re.search(r"probes: done, 40 feature x layer in \d+ s.*, \d+\.\d\d GB of memory at most$", said[-1])


def waits_for(text: str, out: io.StringIO) -> None:
    deadline = time.monotonic() + 60
    while text not in out.getvalue():
        assert time.monotonic() < deadline, out.getvalue()[-500:]
        time.sleep(0.002)


def test_bars_print_lines_where_there_is_no_terminal(capsys):
    with Bars().stage("read", None, "row") as step:
        step(7)
    with pytest.raises(KeyError), Bars().stage("work", 3, "text") as step:
        raise KeyError
    said = [line[9:] for line in capsys.readouterr().err.splitlines()]
    assert said[0] == "read: begins"
    assert said[1].startswith("read: done, 7 row in 0 s, ")
    assert said[3].startswith("work: stopped, 0 text in 0 s, ")
    assert [duration(s) for s in (8.2, 700.0, 12_000.0)] == ["8 s", "12 min", "3 h 20 min"]


@pytest.mark.parametrize(("total", "steps"), [(0, 0), (None, 5), (4, 4)])
def test_every_bar_in_a_terminal_ends_full(total, steps):
    bars, out = Bars(), io.StringIO()
    bars.console = Terminal(file=out, force_terminal=True, width=120, color_system=None, _environ={"TERM": "xterm"})
    with bars.stage("s", total, "text") as step:
        step(steps)
    assert re.findall(r"(\d+)%", out.getvalue())[-1] == "100"


def test_no_command_has_a_console_of_its_own():
    folder = Path(application.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "terminal.py":
            assert not re.search(r"(?<!\w)(Console|print)\(", text.replace(".print(", "")), path
