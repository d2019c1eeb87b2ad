"""Sixty architectures against plain hooks: none may be silently wrong, none may end in an error that is not ours.

`tools/survey_architectures.py` runs all of them; these cover every kind of defect that was ever found there. Two worker processes
judge them, so that the libraries' own warnings and crashes stay out of the suite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tools.survey_architectures import judge_all

PLAIN = (
    "llama", "gpt2", "gpt_neox", "bert", "roberta", "t5", "bart", "opt", "bloom", "falcon", "phi", "gemma3_text",
    "qwen3", "olmo2", "modernbert", "deberta-v2", "distilbert", "cohere2",
)  # fmt: skip
MIXTURES = (
    "mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "deepseek_v4", "glm4_moe", "ernie4_5_moe", "granitemoehybrid",
    "llama4_text", "nllb-moe", "switch_transformers", "doge", "jetmoe", "jamba", "mobilebert",
)  # fmt: skip
HYBRIDS = (
    "qwen3_5_text", "qwen3_next", "lfm2", "falcon_h1", "bamba", "recurrent_gemma", "olmo_hybrid", "zamba2",
    "nemotron_h", "minimax", "mamba", "rwkv", "convbert",
)  # fmt: skip
ODD = (
    "afmoe", "axk2", "fnet", "yoso", "nystromformer", "xlnet", "xlm", "flaubert", "gemma4_text", "albert",
    "openai-gpt", "longformer", "git", "fsmt",
)  # fmt: skip
KINDS = (*PLAIN, *MIXTURES, *HYBRIDS, *ODD)


def test_sixty_types_are_judged():
    assert len(set(KINDS)) == len(KINDS) == 60


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of the types that this session asks for, judged by two processes."""
    items: list[Any] = [item for item in request.session.items if item.path == Path(__file__)]
    asked = [item.callspec.params["kind"] for item in items if hasattr(item, "callspec")]
    return judge_all(asked, tmp_path_factory.mktemp("survey") / "lines.jsonl", workers=2, layers=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_is_right_or_refused(kind: str, verdicts: dict[str, dict[str, Any]]):
    found = verdicts[kind]
    bad = {name: site for name, site in found["sites"].items() if site["verdict"] in ("WRONG", "TRACEBACK")}
    assert found["verdict"] not in ("WRONG", "TRACEBACK", "not built"), (found["note"], bad, found["losses"])
