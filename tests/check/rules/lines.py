"""What rules say, in the form that tests compare."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.check.report import Finding, Line, Passed, Unchecked


def findings(lines: Iterable[Line]) -> list[tuple[str, str]]:
    """Name and level of each finding, in order."""
    return [(line.name, line.level) for line in lines if isinstance(line, Finding)]


def seen(lines: Iterable[Line]) -> list[str]:
    return [line.text for line in lines if isinstance(line, Passed)]


def unseen(lines: Iterable[Line]) -> list[str]:
    return [line.what for line in lines if isinstance(line, Unchecked)]


def only(lines: Iterable[Line]) -> Finding:
    """The one finding."""
    [found] = [line for line in lines if isinstance(line, Finding)]
    return found
