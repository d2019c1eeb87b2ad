"""Kill a run at every rename and at random moments, go on with the same call, and compare every byte with an undisturbed run.

    make torture
    python tools/torture.py --kills 60 --seed 1

The job is a small run with an untrained twin and exact searches, and the second look at its neurons. This process only imports
what it needs; every attempt is a child that it forks, so that no attempt pays for imports. A child counts its renames and sends
itself SIGKILL right before or right after one of them, or is killed by this process after a random time: no handler runs, nothing
is tidied up. Each killed job is begun again until nobody kills it, in its own run folder and with its own cache.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import sparse_probing as sp
from sparse_probing.jobs.run import run
from sparse_probing.jobs.verify import verify

PATIENCE = 300.0
"""Seconds after which a child that has not ended counts as hung."""
WORDS = {
    "sea": ["harbour", "sail", "tide", "anchor", "gull", "salt", "wave", "mast", "oar", "fog"],
    "kitchen": ["bread", "oven", "butter", "knife", "flour", "salt", "bowl", "spoon", "honey", "yeast"],
}
OF_TIME = ("wall_time_s", "git")
"""What may differ in a manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When a child dies: at its `rename`-th rename (`after` it or before it), or after `seconds`."""

    rename: int | None = None
    after: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.rename is None:
            return f"after {self.seconds:.2f} s"
        return f"{'after' if self.after else 'before'} rename {self.rename}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is run."""

    model: str
    data: Path
    small: bool
    """No twin, no exact search, no second look."""

    def __call__(self, folder: Path, workers: int) -> None:
        run(
            sp.RunConfig(
                model=self.model, data=self.data, label=("topic",), out=folder, layers=(0, 1), ks=(1, 2), window=32, skip_first=2,
                min_rows=2, permutations=100, random_model=not self.small, exact_ks=(1, 2), workers=workers,
                methods=("greedy_swap",) if self.small else ("greedy_swap", "exact"),
            )
        )  # fmt: skip
        if not self.small:
            verify(folder, sp.VerifyConfig(texts=3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended."""

    status: int
    seconds: float
    renames: int
    said: str

    @property
    def killed(self) -> bool:
        """By us."""
        return os.WIFSIGNALED(self.status)


def attempt(job: Job, place: Path, kill: Kill | None, workers: int = 1) -> Ended:
    """Do the job in a child until it is done or killed.

    Args:
        job: what to do.
        place: home of the run folder and of the cache.
        kill: when to kill it; null to let it finish.
        workers: of the run.

    Raises:
        RuntimeError: the child hangs.
    """
    log, count = place / "log", place / "renames"
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(job, place, kill, workers)
    status, done = 0, 0
    while not done:
        done, status = os.waitpid(child, os.WNOHANG)
        passed = time.monotonic() - began
        if not done and kill is not None and kill.rename is None and passed > kill.seconds:
            os.kill(child, signal.SIGKILL)
        if not done and passed > PATIENCE:
            os.kill(child, signal.SIGKILL)
            raise RuntimeError(f"it hangs ({place}): {log.read_text()[-2_000:]}")
        time.sleep(0.002)
    return Ended(
        status=status, seconds=time.monotonic() - began, renames=count.stat().st_size, said=log.read_text()[-2_000:]
    )


def _child(job: Job, place: Path, kill: Kill | None, workers: int) -> None:
    """Never returns."""
    code = 1
    try:
        log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["SPROBE_CACHE"] = str(place / "cache")
        _count_renames(os.open(place / "renames", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), kill)
        job(place / "run", workers)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_renames(tally: int, kill: Kill | None) -> None:
    """Let every rename of a file add a byte to `tally`, and the chosen one be the last thing that this process does."""
    rename, done = Path.replace, 0

    def counted(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        os.write(tally, b".")
        mine = kill is not None and kill.rename == done
        if mine and kill and not kill.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = rename(self, target)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.replace = counted  # pyright: ignore[reportAttributeAccessIssue]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder; manifests without what may differ."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        if path.name == "manifest.json":
            manifest = {key: value for key, value in json.loads(raw).items() if key not in OF_TIME}
            for option in ("out", "workers"):
                manifest.get("options", {}).pop(option, None)
            raw = json.dumps(manifest).encode()
        found[path.relative_to(folder).as_posix()] = raw
    return found


def difference(expected: dict[str, bytes], found: dict[str, bytes]) -> str | None:
    """The first file that differs; null where none does."""
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            return f"{name} {'is missing' if name not in found else 'should not be there' if name not in expected else 'differs'}"
    return None


def plan(kills: int, undisturbed: Ended, seed: int, rng: random.Random) -> list[Kill]:
    """Two thirds at renames, evenly over the whole job and shifted by the seed, so that few seeds reach every rename; the others
    at random moments.
    """
    at_renames = min(undisturbed.renames, 2 * kills // 3)
    places = [1 + (i * undisturbed.renames // at_renames + seed) % undisturbed.renames for i in range(at_renames)]
    chosen = [Kill(rename=place, after=bool(i % 2)) for i, place in enumerate(places)]
    return chosen + [Kill(seconds=rng.uniform(0, undisturbed.seconds)) for _ in range(kills - at_renames)]


def sooner(kill: Kill, undisturbed: Ended) -> Kill:
    """For a job that goes on: it has less to do, and is to be met by the kill all the same."""
    if kill.rename is None:
        return Kill(seconds=kill.seconds / 4)
    return Kill(rename=min(kill.rename, undisturbed.renames // 2), after=kill.after)


def made_data(path: Path) -> Path:
    """Sixty short texts of two topics."""
    rng = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "topic"])
        for i in range(60):
            topic = list(WORDS)[i % 2]
            writer.writerow([f"Number {i}: " + " ".join(rng.choice(WORDS[topic]) for _ in range(12)) + ".", topic])
    return path


def main() -> int:
    """Exit code 0 when every killed job ended in the same bytes."""
    parser = argparse.ArgumentParser(description="Kill runs and compare.")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--chain", type=int, default=1, help="kills per run folder before it may finish")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="demo")
    parser.add_argument(
        "--small", action="store_true", help="no untrained twin, no exact search, no second look, one worker"
    )
    options = parser.parse_args()
    rng, began = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        home = Path(name)
        job = Job(model=options.model, data=made_data(home / "texts.csv"), small=options.small)
        (home / "undisturbed").mkdir()
        undisturbed = attempt(job, home / "undisturbed", None)
        if undisturbed.status:
            print(f"the undisturbed run failed:\n{undisturbed.said}")
            return 1
        expected = contents(home / "undisturbed" / "run")
        print(
            f"undisturbed: {undisturbed.seconds:.1f} s, {undisturbed.renames} renames, {len(expected)} files",
            flush=True,
        )
        chosen = plan(options.kills, undisturbed, options.seed, rng)
        rng.shuffle(chosen)
        counts = {"killed": 0, "over before": 0, "identical": 0, "refused or failed": 0, "different": 0}
        for i in range(0, len(chosen), options.chain):
            place = home / str(i)
            place.mkdir()
            kills = []
            for kill in chosen[i : i + options.chain]:
                met = attempt(
                    job, place, sooner(kill, undisturbed) if kills else kill, 1 if options.small else 1 + i % 2
                )
                counts["killed" if met.killed else "over before"] += 1
                kills.append(f"{kill}{'' if met.killed else ' (over before)'}")
            ended = attempt(job, place, None)
            trouble = difference(expected, contents(place / "run")) if ended.status == 0 else ended.said
            verdict = "identical" if trouble is None else "refused or failed" if ended.status else "different"
            counts[verdict] += 1
            print(
                f"{i + 1:3d}  {', '.join(kills)}: {verdict if trouble is None else f'{verdict}: {trouble}'}", flush=True
            )
        print(f"{', '.join(f'{value} {key}' for key, value in counts.items())}; {time.monotonic() - began:.0f} s")
        return 0 if not counts["different"] and not counts["refused or failed"] and counts["killed"] else 1


if __name__ == "__main__":
    sys.exit(main())
