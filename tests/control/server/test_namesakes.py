"""Whose watch is connected, and who was refused."""

from __future__ import annotations

import msgspec

from control.api.mesh import Namesake
from control.server.namesakes import Namesakes

OTHER = Namesake(address="10.77.0.9:7600", client="10.77.0.9", instance="2")


def test_a_process_watches_as_long_as_one_of_its_watches_lasts() -> None:
    namesakes = Namesakes()
    with namesakes.watching("host-a", "1"):
        with namesakes.watching("host-a", "1"), namesakes.watching(None, ""):
            assert namesakes.watches("host-a", "1")
        assert namesakes.watches("host-a", "1")
        assert not namesakes.watches("host-a", "2")
        assert not namesakes.watches("host-b", "1")
    assert not namesakes.watches("host-a", "1")


def test_who_was_refused_is_told_to_the_others_until_the_store_forgets_it() -> None:
    namesakes = Namesakes()
    value = msgspec.json.encode(OTHER)
    namesakes.put("host-a", value)
    assert namesakes.refused("host-a", "1") == OTHER
    assert namesakes.refused("host-a", "2") is None, "it is that one itself, which is registered by now"
    assert namesakes.was_refused("host-a", "2")
    assert not namesakes.was_refused("host-a", "1")
    namesakes.put("host-a", None)
    namesakes.put("host-a", None)
    assert not namesakes.was_refused("host-a", "2")
    assert namesakes.refused("host-a", "1") is None
    namesakes.put("host-a", value)
    namesakes.replace({"host-b": value, "host-c": b"\xff"})
    assert [namesakes.refused(host, "1") for host in ("host-a", "host-b", "host-c")] == [None, OTHER, None]
