"""The application: subcommands, and errors as one line with exit code 2."""

from __future__ import annotations

import errno
import sys

import cyclopts
from pydantic import ValidationError

from sparse_probing.cli.cache import cache
from sparse_probing.cli.check_certificate import check_certificate
from sparse_probing.cli.compare import compare
from sparse_probing.cli.datasets import datasets
from sparse_probing.cli.demo import demo
from sparse_probing.cli.report import report
from sparse_probing.cli.run import run
from sparse_probing.cli.simulate import simulate
from sparse_probing.cli.sites import sites
from sparse_probing.cli.steer import steer
from sparse_probing.cli.terminal import Terminal, print_error
from sparse_probing.cli.verify import verify
from sparse_probing.config import complaint
from sparse_probing.errors import SparseProbingError

app = cyclopts.App(
    name="sprobe",
    help="Which neurons of a language model carry a feature, how few are enough, and how sure can you be?",
    suppress_keyboard_interrupt=False,  # `main` answers Ctrl-C itself
    help_epilogue="Begin with `sprobe demo`: the bundled model on the bundled texts, three minutes, no network.",
)
app.command(demo)
app.command(run)
app.command(verify)
app.command(steer)
app.command(compare)
app.command(datasets)
app.command(simulate)
app.command(sites)
app.command(report)
app.command(check_certificate)
app.command(cache)

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


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `sprobe` command: exit code 0, 2 for the user's mistakes, 130 for Ctrl-C."""
    try:
        app(arguments, result_action="return_value", exit_on_error=False, print_error=False)
    except (SparseProbingError, cyclopts.CycloptsError) as error:
        cause = error.__cause__ or error.__context__
        said = complaint(cause) if isinstance(cause, ValidationError) else error
        print_error(str(said))
        sys.exit(2)
    except OSError as error:
        if error.errno not in OUR_FAULT_NOT:
            raise
        print_error(f"{error}: free some space or choose a writable folder.")
        sys.exit(2)
    except KeyboardInterrupt:
        begun = (arguments if arguments is not None else sys.argv[1:])[:1]
        kept = (
            "Nothing was written."
            if begun == ["datasets"]
            else "What is done is kept: the same command goes on from here."
        )
        Terminal(stderr=True, soft_wrap=True).print(f"stopped. {kept}")
        sys.exit(130)
