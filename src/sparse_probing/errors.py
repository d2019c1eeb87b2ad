"""The four errors a user can meet. Each carries one sentence: what is wrong, what came, how to mend it.

The command line prints that sentence without a traceback and exits with code 2. Everything else is a bug and keeps its
traceback.
"""


class SparseProbingError(Exception):
    """Base of the errors that are meant for the user."""


class InputError(SparseProbingError, ValueError):
    """The user's data, options or model cannot be used as given."""


class StaleCacheError(SparseProbingError):
    """A stored file does not match what the present version would have written."""


class PrerequisiteError(SparseProbingError):
    """Something outside the program is missing: a package, disk space, a writable folder."""


class SolverError(SparseProbingError):
    """A numerical method did not reach the accuracy that it promises."""
