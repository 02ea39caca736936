"""What commands say on stderr and how they end. Exit codes everywhere: 0 fine, 1 the thing asked about is not fine,
2 usage or configuration.
"""

from __future__ import annotations

import codecs
import importlib
import io
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from control.base.errors import ConfigError, HostlaneError, StartError

LOOK_ALIKE = {"│": "|", "┄": "-", "●": "*", "→": "->", "…": "...", "µ": "u"}
"""What stands for the signs of our own output where the terminal has no such letter (ASCII, Latin-1)."""
_ERRORS = "hostlane.terminal"
_ASCII = "hostlaneascii"
"""ASCII by a name that click does not know: it takes a stream of plain ASCII for one that is set wrongly, and writes
UTF-8 to it."""


def write_anything() -> None:
    """From now on standard output and standard error take everything: what their encoding does not have is replaced by
    something like it, or escaped. It is whatever LANG or PYTHONIOENCODING say, for a terminal as for a pipe; and names
    of files may hold bytes that no encoding has.
    """
    codecs.register_error(_ERRORS, _alike)
    codecs.register(_own_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            plain = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if plain else None, errors=_ERRORS)


def _own_ascii(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    plain = codecs.lookup("ascii")
    return codecs.CodecInfo(
        plain.encode, plain.decode, plain.streamreader, plain.streamwriter, plain.incrementalencoder,
        plain.incrementaldecoder, name=_ASCII,
    )  # fmt: skip


def _alike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    text = "".join(LOOK_ALIKE.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in letters)
    return text, error.end


def printable(text: str) -> str:
    """The text with everything escaped that a terminal could act on."""
    return text if text.isprintable() else ascii(text)[1:-1]


def imported(place: str) -> Any:
    """What ``module:attribute`` names: a command imports what it needs when it is called."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def fail(reason: Exception | str, code: int) -> NoReturn:
    """Say why, in one line, and exit."""
    click.echo(f"hostlane: {printable(str(reason))}", err=True)
    sys.exit(code)


def report(errors: Sequence[HostlaneError]) -> int:
    """Print what is wrong, a line each; returns the exit code that goes with it."""
    for error in errors:
        lines = error.problems if isinstance(error, ConfigError) else [f"hostlane: {error}"]
        for line in lines:
            click.echo(line, err=True)
    return 2 if any(isinstance(error, (ConfigError, StartError)) for error in errors) else 1


@contextmanager
def reported() -> Iterator[None]:
    """Whatever goes wrong in a command is a line on stderr and an exit code."""
    try:
        yield
    except HostlaneError as error:
        sys.exit(report([error]))


def ended_by(error: BaseException, what: str) -> int:
    """The exit code of a process that ran until this; what went wrong is on stderr by then.

    Args:
        what: the event for the log where it is a bug ("proxy failed").
    """
    found = list(leaves(error))
    expected = [leaf for leaf in found if isinstance(leaf, HostlaneError)]
    if len(expected) == len(found):
        return report(expected)
    # Ctrl-C before it was up, or after it had stopped: whoever pressed it knows.
    if all(isinstance(leaf, (HostlaneError, KeyboardInterrupt)) for leaf in found):
        return 1
    import structlog

    # An error outside our tree is a bug; its traceback is for whoever repairs it, as one event like all others.
    text = "".join(traceback.format_exception(error))
    structlog.get_logger().error(what, error=f"{type(found[0]).__name__}: {found[0]}", traceback=text)
    return 1


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions themselves, out of whatever groups nurseries have put around them."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
