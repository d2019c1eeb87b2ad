"""Do two run folders, made by two commits, hold the same values?

    python tools/compare_runs.py OLD NEW

Every table of the run and of its verification is compared cell by cell, in the order of its rows. Exit code 0: all equal; 1: the
first difference of each table is printed; 2: a folder holds no tables.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl


def tables(folder: Path) -> dict[str, pl.DataFrame]:
    """Tables by their path in the folder, without those of the data set, which both runs were given."""
    found = [*sorted(folder.glob("*.parquet")), *sorted((folder / "evidence").glob("*.parquet"))]
    return {path.relative_to(folder).as_posix(): pl.read_parquet(path) for path in found}


def difference(old: pl.DataFrame, new: pl.DataFrame) -> str | None:
    """The first difference, in words; null where there is none."""
    if old.schema != new.schema:
        both = set(old.schema.items()) ^ set(new.schema.items())
        return f"columns differ: {', '.join(sorted({name for name, _ in both})) or 'their order'}"
    if old.height != new.height:
        return f"{old.height} rows, now {new.height}"
    for name in old.columns:
        equal = old[name].eq_missing(new[name])
        if not equal.all():
            row = int(equal.arg_min() or 0)
            before, now = old[name].to_list()[row], new[name].to_list()[row]
            return f"{name}, row {row}: {before!r}, now {now!r} ({int((~equal).sum())} rows differ)"
    return None


def main(old_folder: str, new_folder: str) -> int:
    old, new = tables(Path(old_folder)), tables(Path(new_folder))
    if not old or not new:
        print(f"{new_folder if old else old_folder} holds no tables")
        return 2
    differing = 0
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            said = "is missing now" if name in old else "is new"
        else:
            said = difference(old[name], new[name])
        if said:
            differing += 1
            print(f"{name}: {said}")
    print(f"{len(old.keys() | new.keys()) - differing} tables equal, {differing} different")
    return 1 if differing else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
