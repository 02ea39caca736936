"""What broke for users of systems like this one must have a test that bears its number.

1 sockets leak in CLOSE_WAIT, 2 half-close lost or turned into a reset, 3 a reset swallowed or reported as a clean
end, 4 a slow reader stalls everybody, 5 write or open hangs for ever under congestion, 6 a link re-used that the other
side has just closed, 7 a connection that dies silently, 8 GOAWAY, stream limit or stream-id exhaustion loses requests,
9 N callers dial N links, 10 a drain hangs or cuts everybody at once, 11 an address that belongs to another host by now,
12 certificate rotation breaks links or throws a good certificate away, 13 surprises of macvlan and SR-IOV, 14 an MTU
black hole, 15 the life of a Unix socket's file, 16 a server that speaks first is delayed, 17 a cancelled write leaves
half a frame, 18 one stream's error kills the link or the server, 19 a queue bounded in items or not at all, 20 buffers
that are only ever tested empty.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
COVERED = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]


def numbers(source: str) -> Iterator[int]:
    """The arguments of each ``pytest.mark.failure(...)`` in a source, be it on one test or for a whole module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.failure":
            yield from (ast.literal_eval(argument) for argument in node.args)


@functools.cache
def borne() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for number in numbers(path.read_text()):
            found.setdefault(number, []).append(str(path.relative_to(TESTS)))
    return found


@pytest.mark.parametrize("number", COVERED)
def test_a_test_bears_the_number(number: int) -> None:
    assert borne().get(number), f"no test is marked failure({number})"


def test_numbers_are_read() -> None:
    source = "pytestmark = [pytest.mark.failure(1, 20)]\n@pytest.mark.failure(3)\ndef test_it(): ...\n"
    assert sorted(numbers(source)) == [1, 3, 20]
