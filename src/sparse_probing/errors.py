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


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line without a full stop; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def unusable(text: str) -> str | None:
    """Why no name of a file, column or model can hold these characters, in words; null where it can."""
    if "\0" in text:
        return "which has a NUL character: leave it out"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "which is not UTF-8: rename the file, or write the name as UTF-8"
    return None
