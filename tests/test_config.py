"""Options: what cannot be used is refused in one sentence, wherever it comes from."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sparse_probing.cli.main import main
from sparse_probing.cli.terminal import LONGEST_MESSAGE
from sparse_probing.config import make_config, make_data_config, read_config
from sparse_probing.errors import InputError


@pytest.mark.parametrize("workers", [0, -5])
def test_no_workers_are_refused(workers):
    with pytest.raises(InputError, match=f"workers must be at least 1, got {workers}"):
        make_config({"workers": workers})


@pytest.mark.parametrize(
    "options",
    [
        {"data": Path("a\0.csv")}, {"out": Path("runs/\0")}, {"model": "de\0mo"}, {"label": ("y", "\ud83d")},
        {"template": ("{name} \udc00",)}, {"text_column": "\ud800"}, {"data": Path("caf\udce9.csv")},
    ],
)  # fmt: skip
def test_characters_that_no_name_can_hold_are_refused(options):
    for make in (make_config,) if "out" in options else (make_config, make_data_config):
        with pytest.raises(InputError, match=rf"{next(iter(options))} holds .* which (has a NUL|is not UTF-8)"):
            make(options)


def test_a_file_of_options_that_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for name, content, complaint in [
        ("pipe.toml", None, "is a device or a pipe"),
        ("", None, "is a folder: name a file in it"),
        ("nowhere.toml", None, "does not exist"),
        ("deep.toml", b"a = " + b"[" * 100_000, "is not valid TOML: it is nested too deeply"),
        ("long.toml", b"seed = 1" + b"0" * 5_000, "is not valid TOML: Exceeds the limit"),
        ("latin.toml", b'model = "caf\xe9"', "is not valid TOML: 'utf-8' codec"),
        ("huge.toml", b"#" * (1 << 20) + b"\n", "is larger than 1 MiB: it holds no options"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=re.escape(complaint)):
            read_config(tmp_path / name)
    (tmp_path / "nul.toml").write_text('data = "a\\u0000.csv"\n', "utf-8")
    with pytest.raises(InputError, match=r"data holds 'a\\x00\.csv', which has a NUL character"):
        make_config(read_config(tmp_path / "nul.toml"))


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


def test_a_command_line_with_characters_that_no_name_can_hold(capsys):
    for argument in ("runs/\0", "caf\udce9"):
        assert "error: the command line holds 'run" in said(["report", "run" + argument], capsys)


def test_names_that_are_too_long_for_a_file(capsys, tmp_path):
    assert "is too long for a file: check the path" in said(
        ["datasets", "export", "a" * 5_000, str(tmp_path / "out")], capsys
    )


def test_long_messages_are_cut(capsys):
    words = said(["run", "--config", "a" * 9_000], capsys)
    assert len(words) < LONGEST_MESSAGE + 20
    assert words.endswith("[...]\n")


def test_the_name_of_a_run_shapes_no_number():
    assert make_config({"name": "SmolLM2 on reviews"}).identity() == make_config({}).identity()
    for wrong in ("", " ", "x" * 201):
        with pytest.raises(InputError, match="name must have 1 to 200 characters"):
            make_config({"name": wrong})


def test_the_demo_refuses_what_a_run_refuses(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--workers", "0"])
    assert stop.value.code == 2
    assert "workers must be at least 1, got 0" in capsys.readouterr().err
