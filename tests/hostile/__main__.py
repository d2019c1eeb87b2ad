"""`python -m tests.hostile`: many cases, and what came of them."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.hostile.engine import offline, run


def main() -> int:
    """Run the cases; 1 where any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="in all, divided among the targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one target")
    parser.add_argument("--case", type=int, help="one case of --only")
    given = parser.parse_args()
    offline()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPROBE_CACHE"] = f"{folder}/cache"
        from tests.hostile.targets import TARGETS  # reads the environment

        os.chdir(folder)
        failures = total = 0
        for target in TARGETS:
            if given.only not in (None, target.name):
                continue
            count = given.cases if given.only else given.cases * target.share // 100
            cases = range(count) if given.case is None else range(given.case, given.case + 1)
            started = time.monotonic()
            outcome = run(target, Path(folder), cases=cases, seed=given.seed)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(
                f"{target.name:16} {outcome.cases:6} cases, {outcome.refused:6} refused, {len(outcome.failures):4} failures, "
                f"{time.monotonic() - started:6.1f} s, peak memory so far {peak:.2f} GiB",
                flush=True,
            )
            for failure in outcome.failures[:40]:
                print(failure, flush=True)
            failures += len(outcome.failures)
            total += outcome.cases
    print(f"{total} cases, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
