"""The application: subcommands, and errors as one line with exit code 2."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import cyclopts

from sparse_probing.cli.terminal import Terminal, print_error
from sparse_probing.errors import InputError, SparseProbingError, unusable

COMMANDS = {
    "cache": "Stored activations: what is there, how large, and how to make room.",
    "check-certificate": "Verify the proof that a support is the best of its size, without the code that found it.",
    "compare": "Compare the same features over models of a family, or over checkpoints of one model.",
    "datasets": "Labelled text: build it, look at it, audit it, export it. No model weights are loaded.",
    "demo": "The whole method on the bundled model and the bundled texts: 4 categories of features, no network.",
    "report": "Write the report of a finished run again, from its folder alone.",
    "run": "Probe a model for the features of your own labelled text, and write a report.",
    "simulate": "Plant a feature in made-up activations and count how much of it each selector finds. No model, no data, no "
    "network.",
    "sites": "Show where the units of a model live. Reads the configuration only, no weights.",
    "steer": "Let the model of a run write with some of its neurons held at a value, beside what it writes without.",
    "verify": "Look a second time at the neurons that a run names: what happens without them, in class, out of class, beside "
    "placebos.",
}
"""Each command lives in a module of its name, which is imported when it is called: `sprobe --help` needs these sentences only."""

OUR_FAULT_NOT = {
    errno.ENOSPC,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
}


def application(arguments: Sequence[str]) -> cyclopts.App:
    """All commands; the one that is called explains itself by its own docstring."""
    app = cyclopts.App(
        name="sprobe",
        help="Which neurons of a language model carry a feature, how few are enough, and how sure can you be?",
        suppress_keyboard_interrupt=False,  # `main` answers Ctrl-C itself
        help_epilogue="Begin with `sprobe demo`: the bundled model on the bundled texts, three minutes, no network.",
    )
    for command, sentence in COMMANDS.items():
        function = command.replace("-", "_")
        path = f"sparse_probing.cli.{function}:{function}"
        app.command(path, name=command, help=None if command in arguments else sentence)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `sprobe` command: exit code 0, 2 for the user's mistakes, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        for argument in arguments:
            if problem := unusable(argument):
                raise InputError(f"the command line holds {argument!a}, {problem}.")
        application(arguments)(arguments, result_action="return_value", exit_on_error=False, print_error=False)
    except (SparseProbingError, cyclopts.CycloptsError) as error:
        print_error(str(_said(error)))
        sys.exit(2)
    except MemoryError:
        print_error(
            "memory ran out: free some, or use fewer --workers. What is done is kept: the same command goes on from here."
        )
        sys.exit(2)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            print_error(f"the name {str(error.filename)[:60]!r} ... is too long for a file: check the path.")
            sys.exit(2)
        if error.errno not in OUR_FAULT_NOT:
            raise
        print_error(f"{error}: free some space or choose a writable folder.")
        sys.exit(2)
    except KeyboardInterrupt:
        begun = arguments[:1]
        kept = (
            "Nothing was written."
            if begun == ["datasets"]
            else "What is done is kept: the same command goes on from here."
        )
        Terminal(stderr=True, soft_wrap=True).print(f"stopped. {kept}")
        sys.exit(130)


def _said(error: Exception) -> Exception:
    """What there is to say about an error: pydantic's own complaint where one stands behind it."""
    from pydantic import ValidationError  # an error pays for these imports, `--help` does not

    cause = error.__cause__ or error.__context__
    if not isinstance(cause, ValidationError):
        return error
    from sparse_probing.config import complaint

    return complaint(cause)
