from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api import mesh
from control.api.mesh import HostRecord, MapChanges, MapSnapshot, ServiceOffer, TrustBundle, followed
from control.server.feed import LINES, MapFeed


def host(name: str, *services: str, instance: str = "1") -> HostRecord:
    offers = tuple(ServiceOffer(name=each) for each in services)
    return HostRecord(name=name, address="10.77.0.1:7600", instance=instance, services=offers)


def told(feed: MapFeed, after: int | None) -> MapSnapshot | MapChanges | None:
    found = feed.next(after)
    if found is None:
        return None
    message = msgspec.json.decode(found.line, type=mesh.WatchMessage)
    assert not isinstance(message, mesh.MapHeartbeat)
    assert message.revision == found.revision
    return message


def test_a_new_watcher_gets_everything() -> None:
    feed = MapFeed("e", 7, {"a": host("a")}, TrustBundle(bundle="x"))
    assert feed.begin("", 0) is None
    assert told(feed, None) == MapSnapshot(epoch="e", revision=7, hosts=(host("a"),), trust=TrustBundle(bundle="x"))
    assert told(feed, 7) is None


def test_newcomers_between_two_tellings_get_one_map() -> None:
    """And hear the rest with the next one."""
    feed = MapFeed("e", 7, {"a": host("a")}, None, history=2)
    line = feed.next(None)
    feed.change(9, [host("b")])
    assert feed.next(None) is line
    assert told(feed, 7) == MapChanges(revision=9, put=(host("b"),))
    feed.telling()
    whole = told(feed, None)
    assert isinstance(whole, MapSnapshot)
    assert (whole.revision, len(whole.hosts)) == (9, 2)
    # Not if it is older than what there is to go on from.
    for revision in (10, 11, 12):
        feed.change(revision, [host("c", instance=str(revision))])
    whole = told(feed, None)
    assert isinstance(whole, MapSnapshot)
    assert whole.revision == 12


def test_changes_since_a_revision() -> None:
    feed = MapFeed("e", 7, {"a": host("a")}, None)
    assert feed.change(9, [host("b")])
    assert feed.change(10, gone=["a"])
    assert told(feed, 9) == MapChanges(revision=10, gone=("a",))
    assert told(feed, 7) == MapChanges(revision=10, put=(host("b"),), gone=("a",))
    assert feed.begin("e", 8) == 8


@pytest.mark.failure(11)
def test_a_slow_watcher_gets_the_last_state_once() -> None:
    feed = MapFeed("e", 1, {}, None)
    for revision in range(2, 500):
        feed.change(revision, [host("a", instance=str(revision))])
    message = told(feed, 1)
    assert message == MapChanges(revision=499, put=(host("a", instance="499"),))


def test_what_changes_nothing_is_not_told() -> None:
    feed = MapFeed("e", 1, {"a": host("a")}, None)
    assert not feed.change(2, [host("a")], ["b"])
    assert feed.revision == 1
    assert told(feed, 1) is None


def test_trust_is_told_when_it_has_changed() -> None:
    feed = MapFeed("e", 1, {}, TrustBundle(bundle="x"))
    feed.change(2, [host("a")])
    feed.change(3, trust=TrustBundle(bundle="y"))
    assert told(feed, 2) == MapChanges(revision=3, trust=TrustBundle(bundle="y"))
    feed.change(4, gone=["a"])
    assert told(feed, 3) == MapChanges(revision=4, gone=("a",))


@pytest.mark.failure(19)
def test_history_is_bounded_and_who_is_behind_it_begins_again() -> None:
    feed = MapFeed("e", 1, {}, None, history=10)
    for revision in range(2, 100):
        feed.change(revision, [host(f"h{revision}")])
    assert feed.begin("e", 50) is None
    assert isinstance(told(feed, 50), MapSnapshot)
    assert feed.begin("e", 95) == 95
    assert isinstance(told(feed, 95), MapChanges)


def test_another_store_is_another_story() -> None:
    feed = MapFeed("e", 7, {}, None)
    assert feed.begin("other", 7) is None
    # Who watched another server of the same store may be ahead of this one.
    assert feed.begin("e", 9) == 9
    assert told(feed, 9) is None


def test_equal_watchers_get_the_same_bytes() -> None:
    feed = MapFeed("e", 1, {}, None)
    feed.change(2, [host("a")])
    one, other = feed.next(1), feed.next(1)
    assert one is not None
    assert other is not None
    assert one.line is other.line


def test_what_is_kept_encoded_is_bounded() -> None:
    feed = MapFeed("e", 1, {}, None)
    for revision in range(2, 4 * LINES):
        feed.change(revision, [host(f"h{revision}")])
    for after in range(1, 4 * LINES - 1):
        found = told(feed, after)
        assert isinstance(found, MapChanges)
        assert len(found.put) == 4 * LINES - 1 - after
    assert len(feed._lines) <= LINES


def test_services_are_counted() -> None:
    feed = MapFeed("e", 1, {"a": host("a", "x", "y")}, None)
    feed.change(2, [host("a", "x"), host("b", "z")])
    assert feed.services == 2
    feed.change(3, gone=["a", "b"])
    assert feed.services == 0


NAMES = st.sampled_from("abcde")
STEPS = st.lists(st.tuples(NAMES, st.one_of(st.none(), st.integers(0, 3)), st.booleans()), max_size=40)


@given(STEPS, st.integers(1, 12))
def test_whoever_looks_when_has_the_map_in_the_end(steps: list[tuple[str, int | None, bool]], history: int) -> None:
    """A watcher that looks only now and then ends with the same map as the server."""
    feed = MapFeed("e", 1, {}, None, history=history)
    have: int | None = None
    found: MapSnapshot | None = None

    def look() -> None:
        nonlocal have, found
        message = told(feed, have)
        if message is not None:
            found, have = followed(found, message), message.revision

    for revision, (name, instance, looks) in enumerate(steps, start=2):
        if instance is None:
            feed.change(revision, gone=[name])
        else:
            feed.change(revision, [host(name, instance=str(instance))])
        if looks:
            look()
    look()
    assert found == feed.snapshot()
