"""Is it any Hugging Face model? Every text architecture of the installed transformers, tiny, against plain hooks.

    .venv/bin/python tools/survey_architectures.py --out runs/architectures.jsonl
    .venv/bin/python tools/survey_architectures.py --only llama t5 --out /tmp/two.jsonl

Writes `docs/architectures.md` and one line of JSON per type. Types that are already in the lines are not run again (`--again`
runs all). Each type has a time limit; one that crashes or hangs costs its worker, which is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.architectures.verdicts import TRACEBACK, WRONG, TypeVerdict  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
TOKENIZER = ROOT / "src" / "sparse_probing" / "assets" / "demo_model"
LIMIT = 60.0
"""Seconds per type."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "architectures.jsonl", help="lines of JSON, one per type"
    )
    parser.add_argument("--only", nargs="+", help="these types; the page is left as it is")
    parser.add_argument("--again", action="store_true", help="run types that are in the lines already")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return work(given.layers)
    from tools.architectures.page import summary, write_page
    from tools.architectures.sizes import HEADS, text_types

    kinds = given.only or list(text_types())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.again:
        given.out.unlink(missing_ok=True)
    done = {record["kind"]: record for record in read_lines(given.out)}
    todo = [kind for kind in kinds if kind not in done]
    done |= judge_all(todo, given.out, workers=given.workers, layers=given.layers, progress=True)
    records = [done[kind] for kind in kinds]
    import torch
    import transformers

    machine = (
        f"{date.today()}, transformers {transformers.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {given.layers} layers."
    )
    sound = len({kind for names in HEADS.values() for kind in names}) - len(text_types())
    print("\n".join(summary(records, machine, sound)))
    if given.only is None:
        write_page(PAGE, records, machine, sound)
    return int(any(record["verdict"] in (WRONG, TRACEBACK) for record in records))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What an earlier call has found; a line that was cut off does not count."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def judge_all(
    kinds: Sequence[str], lines: Path, *, workers: int = 2, layers: int = 4, progress: bool = False
) -> dict[str, dict[str, Any]]:
    """Kind -> record, judged in processes that import once; each record is added to `lines` as soon as it is there."""
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for kind in kinds:
        todo.put(kind)
    lock = threading.Lock()
    done: dict[str, dict[str, Any]] = {}

    def finished(record: dict[str, Any]) -> None:
        with lock, open(lines, "a", encoding="utf-8") as file:
            done[record["kind"]] = record
            file.write(json.dumps(record) + "\n")
            if progress:
                said = f"{len(done):>4}  {record['kind']}: {record['verdict']} {record['note'][:100]}"
                print(said, flush=True)

    def feed() -> None:
        worker: Worker | None = None
        while True:
            try:
                kind = todo.get_nowait()
            except queue.Empty:
                break
            worker = worker or Worker(layers)
            record = worker.judge(kind)
            if record is None:
                record = TypeVerdict(kind, TRACEBACK, worker.end(), seconds=LIMIT).record()
                worker = None
            finished(record)
        if worker:
            worker.end()

    threads = [threading.Thread(target=feed) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


class Worker:
    """A process that judges the kinds it is told, one line each."""

    def __init__(self, layers: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", "--layers", str(layers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        )
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.listener = threading.Thread(target=self._listen)
        self.listener.start()
        self.lines.get()  # has imported everything

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def judge(self, kind: str) -> dict[str, Any] | None:
        """The record; null where the process died or hung."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(kind + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=LIMIT)
        except (queue.Empty, BrokenPipeError):
            return None
        return json.loads(line) if line else None

    def end(self) -> str:
        """Stop the process; says how it was found."""
        code = self.process.poll()
        self.process.kill()
        self.process.wait()
        self.listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        return f"no answer in {LIMIT:.0f} s" if code is None else f"the process ended with {code}"


def work(layers: int) -> int:
    """Read kinds, answer with records; what libraries print goes elsewhere."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch
    from tools.architectures.judge import judge
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(judge(line.strip(), tokenizer, layers).record()), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
