from __future__ import annotations

import pytest

from control.base.errors import RequestRefused
from control.ca import castate
from control.ca.castate import CaState, KnownRoot

ONE, TWO = KnownRoot(id="one", certificate="1\n"), KnownRoot(id="two", certificate="2\n")
ALONE = CaState(mesh="m", roots=(ONE,), issuing="one")


def refused(code: str, *arguments: object) -> None:
    step, *rest = arguments
    with pytest.raises(RequestRefused) as caught:
        step(*rest)  # type: ignore[operator]
    assert (caught.value.status, caught.value.code) == (409, code)


def test_a_rotation() -> None:
    both = castate.add(ALONE, TWO)
    assert (both.issuing, both.other, both.bundle, both.renew_before) == ("one", "two", "1\n2\n", 0)
    active = castate.activate(both, 1000.3)
    assert (active.issuing, active.other, active.bundle, active.renew_before) == ("two", "one", "2\n1\n", 1001)
    after = castate.drop(active)
    assert (after.issuing, after.other, after.bundle, after.dropped) == ("two", None, "2\n", ("one",))
    assert castate.decode(castate.encode(after)) == after


def test_changing_ones_mind() -> None:
    """A CA that was added and never activated can be dropped; one that was activated can be taken back."""
    both = castate.add(ALONE, TWO)
    assert castate.drop(both).bundle == "1\n"
    back = castate.activate(castate.activate(both, 1000), 2000)
    assert (back.issuing, back.renew_before) == ("one", 2001)


def test_steps_out_of_order() -> None:
    refused("nothing_to_activate", castate.activate, ALONE, 0.0)
    refused("nothing_to_drop", castate.drop, ALONE)
    refused("in_rotation", castate.add, castate.add(ALONE, TWO), ONE)


def test_junk() -> None:
    for value in (b"", b"{}", b"\xff"):
        with pytest.raises(ValueError):
            castate.decode(value)
