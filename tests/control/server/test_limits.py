from __future__ import annotations

from contextlib import ExitStack

import pytest

from control.server.limits import ConnectionLimiter


def test_connections_of_one_client_and_of_all() -> None:
    admission = ConnectionLimiter(3, 2)
    assert admission.enter("a")
    assert admission.enter("a")
    assert not admission.enter("a")
    assert admission.enter("b")
    assert not admission.enter("c")
    admission.leave("a")
    assert admission.enter("c")
    assert (admission.total, admission.turned_away) == (3, 2)
    assert admission.full


@pytest.mark.failure("31")
def test_who_has_shown_a_name_leaves_its_addresss_place_to_others() -> None:
    admission = ConnectionLimiter(10, 1)
    with ExitStack() as open_ones:
        for host in ("host-a", "host-b", "host-c"):
            assert admission.enter("10.0.0.1")
            assert open_ones.enter_context(admission.known_as("10.0.0.1", host))
        assert admission.enter("10.0.0.1")
        assert not admission.enter("10.0.0.1")
        with admission.known_as("10.0.0.1", "host-b") as allowed:
            assert not allowed
    for _ in range(4):
        admission.leave("10.0.0.1")
    assert (admission.total, admission.turned_away, admission.full) == (0, 2, False)
    assert admission.enter("host-a")
