"""Fuzzers: good inputs, changed at random, go through the package's own doors. Only the package's own errors may come out.

    make fuzz
    python -m tests.hostile --cases 20000 --seed 1
    python -m tests.hostile --only readers --case 4711          one case again, with its traceback

Everything is seeded: the name of a target, the seed and the number of a case say what it is.
"""
