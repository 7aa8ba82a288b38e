"""Errors of the command line: one line on stderr that says what, where and what next, and an exit code.

Codes: 0 done, 1 an error, 2 wrong usage, 130 interrupted. A traceback is shown only with ``-v``.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from node.cli.console import harmless

ERROR, INTERRUPTED = 1, 130
BROKEN_PIPE = 141


class Failed(Exception):
    """A verb can't do what it was asked; the text is the whole message for the person who typed it."""

    def __init__(self, message: str, code: int = ERROR) -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code

    def __str__(self) -> str:
        return self.message


def tell(message: str) -> None:
    """One error on stderr."""
    print(f"error: {harmless(message)}", file=sys.stderr)


def guarded(work: Callable[[], object], *, verbose: bool) -> int:
    """Run ``work``; whatever it raises becomes a message and an exit code."""
    try:
        work()
    except Failed as failed:
        if failed.message:
            tell(failed.message)
        return failed.code
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # the reader went away (`| head`); the final flush must not complain
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place that can turn an error into a message
        if verbose:
            traceback.print_exc()
        return _told(error, verbose)
    return 0


def _told(error: Exception, verbose: bool) -> int:
    from cluster.errors import ClusterError, Invalid

    match error:
        case Invalid():
            for problem in error.problems:
                tell(str(problem))
        case ClusterError() | OSError():
            tell(str(error))
        case _:
            more = "" if verbose else "; run it again with -v for the traceback"
            tell(f"{type(error).__name__}: {error}; this is a bug in wippy{more}")
    return ERROR
