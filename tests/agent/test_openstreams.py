"""Which streams are quiet when a proxy ends."""

from __future__ import annotations

import pytest

from proxy.agent.openstreams import OpenStream, QuietStreams

pytestmark = pytest.mark.failure("24")


def stream(key: str, moved: int | None) -> OpenStream:
    return OpenStream(key, moved, lambda: None)


def names(quiet: QuietStreams, now: float, *streams: OpenStream) -> list[object]:
    return [each.key for each in quiet.look(streams, now)]


def test_nothing_has_moved_for_so_long() -> None:
    quiet = QuietStreams(10.0)
    assert names(quiet, 0.0, stream("a", 5), stream("b", 0)) == []
    assert names(quiet, 5.0, stream("a", 6), stream("b", 0)) == []
    assert names(quiet, 10.0, stream("a", 6), stream("b", 0)) == ["b"]
    assert names(quiet, 15.0, stream("a", 6), stream("b", 1)) == ["a"]
    assert names(quiet, 24.0, stream("a", 6), stream("b", 1)) == ["a"]
    assert names(quiet, 25.0, stream("b", 1)) == ["b"]


def test_what_waits_for_something_is_never_quiet_and_begins_anew() -> None:
    quiet = QuietStreams(1.0)
    for now in range(5):
        assert names(quiet, now, stream("a", None)) == []
    assert names(quiet, 5.0, stream("a", 7)) == []
    assert names(quiet, 5.5, stream("a", 7)) == []
    assert names(quiet, 6.0, stream("a", 7)) == ["a"]


def test_those_that_come_later_are_new_and_may_be_quiet_too() -> None:
    quiet = QuietStreams(1.0)
    assert names(quiet, 0.0, stream("a", 0)) == []
    assert names(quiet, 1.0, stream("a", 0), stream("b", 0)) == ["a"]
    assert names(quiet, 2.0, stream("a", 0), stream("b", 0)) == ["a", "b"]
    assert [quiet.old(stream(name, 0)) for name in "abc"] == [True, False, False]


def test_without_any_patience_all_are_that_wait_for_nothing() -> None:
    assert names(QuietStreams(0.0), 0.0, stream("a", 0), stream("b", None)) == ["a"]
