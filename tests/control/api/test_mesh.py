"""Messages of one version are understood by another."""

from __future__ import annotations

import msgspec

from control.api import mesh


def test_unknown_fields_are_ignored() -> None:
    told = b'{"type": "heartbeat", "revision": 7, "mood": "good"}'
    assert msgspec.json.decode(told, type=mesh.WatchMessage) == mesh.MapHeartbeat(revision=7)


def test_a_watch_message_says_what_it_is() -> None:
    record = mesh.HostRecord(
        name="host-a", address="10.77.0.1:7600", instance="1", services=(mesh.ServiceOffer(name="web"),)
    )
    for message in (
        mesh.MapSnapshot(epoch="e", revision=1, hosts=(record,)),
        mesh.MapChanges(revision=2, put=(record,)),
    ):
        line = msgspec.json.encode(message)
        assert b"\n" not in line
        assert msgspec.json.decode(line, type=mesh.WatchMessage) == message
