"""When an absence of the door is a problem; what containers have is tried in tests/agent/test_doorkeeper.py."""

from __future__ import annotations

from proxy.telemetry.doorview import LONG, DoorState


def test_a_door_that_is_there_or_was_a_moment_ago_is_no_problem() -> None:
    assert DoorState(True, 3600.0, "").problem == ""
    assert DoorState(False, LONG - 0.1, "it has gone").problem == ""


def test_a_door_that_is_away_for_long_is_one() -> None:
    rest = "containers that start or end are not noticed"
    assert DoorState(False, LONG, "it has gone").problem == f"the door is away: it has gone; {rest}"
    assert DoorState(False, LONG, "").problem == f"the door is away: no answer yet; {rest}"
