"""What the control plane says, and what it does not say, about who is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api.mesh import HEARTBEAT, HostRecord, MapChanges, MapHeartbeat, MapSnapshot, WatchMessage
from proxy.mesh.map import KEPT, MeshMap

OWN = "host-a"


def record(letter: str, instance: str = "1") -> HostRecord:
    return HostRecord(name=f"host-{letter}", address=f"10.0.0.{ord(letter)}:7600", instance=instance)


def snapshot(letters: str, revision: int = 1, epoch: str = "one") -> MapSnapshot:
    return MapSnapshot(epoch=epoch, revision=revision, hosts=tuple(map(record, letters)))


def names(found: MeshMap) -> str:
    return "".join(sorted(name[-1] for name in found.hosts))


def unconfirmed(found: MeshMap) -> str:
    return "".join(sorted(name[-1] for name in found.unconfirmed))


def started(letters: str = "abc", revision: int = 10) -> MeshMap:
    found = MeshMap(OWN)
    found.watching(0)
    found.take(snapshot(letters, revision), 0)
    return found


def test_changes_are_followed() -> None:
    found = started()
    assert found.take(MapChanges(revision=11, put=(record("d"), record("b", "2")), gone=("host-c",)), 1)
    assert names(found) == "abd"
    assert found.hosts["host-b"].instance == "2"
    assert (found.epoch, found.revision) == ("one", 11)
    assert not found.take(MapChanges(revision=12, put=(record("d"),), gone=("host-x",)), 2), "nothing new"
    assert not found.take(MapHeartbeat(revision=12), 3)
    assert unconfirmed(found) == ""


def test_what_is_older_than_the_map_changes_nothing() -> None:
    found = started(revision=10)
    assert not found.take(MapChanges(revision=10, gone=("host-b",)), 1)
    assert not found.take(MapChanges(revision=3, put=(record("d"),)), 1)
    assert (names(found), found.revision) == ("abc", 10)


def test_a_snapshot_of_the_same_store_is_the_truth() -> None:
    found = started()
    assert found.take(snapshot("ab", 20), 1)
    assert (names(found), unconfirmed(found)) == ("ab", "")


@pytest.mark.failure(11)
@pytest.mark.parametrize(
    "answer",
    [
        snapshot("", 1, "two"),
        snapshot("a", 50, "two"),
        snapshot("a", 9, "one"),
        snapshot("", 50, "one"),
        MapChanges(revision=50, gone=("host-a", "host-b", "host-c")),
    ],
    ids=["empty store", "other store", "old copy", "lost sight of all", "lost sight of all, changes"],
)
def test_hosts_that_a_control_plane_does_not_know_any_more_stay_for_a_while(answer: WatchMessage) -> None:
    found = started()
    found.take(answer, 100)
    assert set("bc") <= set(names(found))
    assert unconfirmed(found) == "bc"
    revision = found.revision
    assert not found.take(MapChanges(revision=revision + 1, put=(record("b"),)), 101), "as before, and confirmed"
    assert unconfirmed(found) == "c"
    assert not found.take(MapHeartbeat(revision=revision), 100 + KEPT - 1)
    assert found.take(MapHeartbeat(revision=revision), 100 + KEPT)
    assert set(names(found)) - {"a"} == {"b"}
    assert unconfirmed(found) == ""


def test_doubt_covers_what_goes_missing_soon_after() -> None:
    found = started()
    found.doubt()
    assert not found.take(MapChanges(revision=11, gone=("host-b",)), 5)
    assert unconfirmed(found) == "b"
    assert found.take(MapChanges(revision=12, gone=("host-c",)), KEPT + 1), "no doubt any more"
    assert found.take(MapHeartbeat(revision=12), 5 + KEPT)
    assert names(found) == "a"


def test_nobody_leaves_while_the_control_plane_is_silent() -> None:
    found = started()
    found.take(snapshot("a", 1, "two"), 1)
    for day in range(1, 5):
        found.watching(day * 86400)
        assert not found.take(MapHeartbeat(revision=1), day * 86400 + 1)
    assert names(found) == "abc"
    assert not found.take(snapshot("a", 2, "two"), 4 * 86400 + 2), "asking again makes it neither shorter nor longer"
    assert found.take(MapHeartbeat(revision=1), 4 * 86400 + 1 + KEPT)
    assert names(found) == "a"


def test_a_map_from_disk_counts_as_known() -> None:
    found = MeshMap(OWN)
    found.restore("one", 10, [record("a"), record("b"), record("c")])
    assert names(found) == "bc", "its own record is not worth keeping"
    found.watching(0)
    assert found.take(snapshot("ac", 12), 0)
    assert names(found) == "ac"
    found = MeshMap(OWN)
    found.restore("one", 10, [record("b"), record("c")])
    found.watching(0)
    found.take(snapshot("a", 12, "two"), 0)
    assert (names(found), unconfirmed(found)) == ("abc", "bc")


def test_this_host_itself_is_never_kept() -> None:
    found = started()
    found.take(MapChanges(revision=11, gone=("host-a",)), 1)
    assert names(found) == "bc"


LETTERS = "abcdef"
some = st.sets(st.sampled_from(LETTERS)).map(lambda letters: "".join(sorted(letters)))
messages = st.one_of(
    st.builds(snapshot, some, st.integers(1, 30), st.sampled_from(["one", "two", "three"])),
    st.builds(
        lambda put, gone, revision: MapChanges(
            revision=revision, put=tuple(map(record, put)), gone=tuple(f"host-{letter}" for letter in gone)
        ),
        some,
        some,
        st.integers(1, 30),
    ),
    st.builds(MapHeartbeat, revision=st.integers(1, 30)),
)


@given(st.lists(st.tuples(messages, st.floats(0, 30), st.booleans())))
def test_any_order_of_answers(history: list[tuple[WatchMessage, float, bool]]) -> None:
    """Hosts that are told of are there; others are unconfirmed, and gone when nobody has told of them for a while."""
    found, now = MeshMap(OWN), 0.0
    found.watching(now)
    for message, wait, again in history:
        if again:
            found.watching(now)
        now += wait
        before = dict(found.hosts)
        epoch, revision = found.epoch, found.revision
        changed = found.take(message, now)
        assert changed == {
            name: before.get(name)
            for name in before.keys() | found.hosts.keys()
            if before.get(name) != found.hosts.get(name)
        }
        assert found.unconfirmed <= found.hosts.keys()
        if isinstance(message, MapSnapshot):
            told = {each.name for each in message.hosts}
            assert found.hosts.keys() - told == found.unconfirmed
            if epoch not in ("", message.epoch) or message.revision < revision:
                lost = before.keys() - found.hosts.keys() - {OWN}
                assert not lost or wait > 0, "an answer alone never takes a host away that it does not know"
        elif isinstance(message, MapChanges) and message.revision > revision:
            assert {each.name for each in message.put} <= found.hosts.keys() - found.unconfirmed
            gone = set(message.gone) - {each.name for each in message.put}
            assert not gone & (found.hosts.keys() - found.unconfirmed)
    confirmed = found.hosts.keys() - found.unconfirmed
    for _ in range(int(KEPT / HEARTBEAT) + 1):
        now += HEARTBEAT
        found.take(MapHeartbeat(revision=0), now)
    assert found.hosts.keys() == confirmed
    assert not found.unconfirmed


@given(some, some, st.sampled_from(["two", "three"]))
def test_another_store_takes_nobody_away_at_once(before: str, after: str, epoch: str) -> None:
    found = started(before)
    found.take(snapshot(after, 1, epoch), 1)
    assert set(before) - {"a"} <= set(names(found))
