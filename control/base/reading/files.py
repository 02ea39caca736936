"""A configuration file in, one immutable object out, or every problem of the file at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from control.base.errors import ConfigError
from control.base.reading.decode import Decoder
from control.base.reading.yamlmap import Document, Path, Problem, read
from control.base.wholefile import read_file

MIB = 1 << 20

MAX_FILE_BYTES = 1 * MIB
"""Largest configuration file that is read: 10,000 services fit; an image or a device named by mistake does not."""

MAX_PROBLEMS = 100
"""Problems reported of one file; who has more has named the wrong file."""

T = TypeVar("T")
Check = Callable[[Any, Document, set[Path]], None]
"""Adds a problem to the document for whatever does not go together, from (what was decoded, where a value that is wrong
by itself is UNSET; document; sections that have unknown keys)."""
Expand = Callable[[Document], None]
"""Writes out, in the plain data of a document, what stands there in short."""


def as_written(document: Document) -> None:
    """Nothing has a short form."""


def load(
    path: str | os.PathLike[str], kind: type[T], check: Check, needs: str, expand: Expand = as_written
) -> T:
    """Read the configuration at ``path``, an object of `kind`; `needs` says what it must hold at least.

    Raises ConfigError when the file cannot be read or is wrong, and nothing else.
    """
    return parse(text_of(path), os.fspath(path), kind, check, needs, expand)


def text_of(path: str | os.PathLike[str]) -> str:
    """What a configuration file says. Raises ConfigError when it cannot be read, or is no text."""
    file = os.fspath(path)
    try:
        content = read_file(file, MAX_FILE_BYTES, "a YAML file")
    except ValueError as error:
        raise ConfigError([f"{file}: {error}"]) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{file}:{line}: found byte 0x{content[error.start]:02x}; allowed: UTF-8 text"]) from None


def parse(text: str, file: str, kind: type[T], check: Check, needs: str, expand: Expand = as_written) -> T:
    """The configuration in ``text``; ``file`` is the name that errors give it.

    Raises ConfigError with every problem, in the order of the file, and nothing else.
    """
    return examine(text, file, kind, check, needs, expand)[0]


def examine(
    text: str, file: str, kind: type[T], check: Check, needs: str, expand: Expand = as_written
) -> tuple[T, Document]:
    """As `parse`, with what says where each value stands."""
    document = read(text)
    if document.problems and document.data is None:
        raise ConfigError(_rendered(document.problems, file))
    if document.data is None:
        raise ConfigError([f"{file}:1: found an empty file; allowed: a mapping with at least {needs}"])
    expand(document)
    decoder = Decoder(document)
    config = decoder.decode(document.data, kind)
    if isinstance(config, kind):
        check(config, document, decoder.unknown)
    if document.problems:
        raise ConfigError(_rendered(document.problems, file))
    assert isinstance(config, kind)
    return config, document


def _rendered(problems: list[Problem], file: str) -> list[str]:
    lines = [problem.render(file) for problem in sorted(problems, key=lambda problem: problem.line)]
    if len(lines) > MAX_PROBLEMS:
        lines[MAX_PROBLEMS:] = [f"{file}: {len(lines) - MAX_PROBLEMS} more problems"]
    return lines
