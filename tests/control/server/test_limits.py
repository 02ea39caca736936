from __future__ import annotations

import pytest

from control.server.limits import ConnectionLimiter


def test_connections_of_one_client_and_of_all() -> None:
    admission = ConnectionLimiter(3, 2)
    first = admission.enter("a")
    assert first is not None
    assert admission.enter("a")
    assert not admission.enter("a")
    assert admission.enter("b")
    assert not admission.enter("c")
    first.leave()
    assert admission.enter("c")
    assert (admission.total, admission.turned_away) == (3, 2)
    assert admission.full


@pytest.mark.failure("31")
def test_who_has_shown_a_name_leaves_its_addresss_place_to_others() -> None:
    admission = ConnectionLimiter(10, 1)
    places = []
    for host in ("host-a", "host-b", "host-c"):
        place = admission.enter("10.0.0.1")
        assert place is not None
        assert place.known_as(host)
        places.append(place)
    last = admission.enter("10.0.0.1")
    assert last is not None
    assert not admission.enter("10.0.0.1")
    assert not last.known_as("host-b")
    assert last.client == "10.0.0.1"
    last.leave()
    # The address has one place, and none of those who had shown a name takes it when it ends.
    other = admission.enter("10.0.0.1")
    assert other is not None
    for place in places:
        place.leave()
        assert not admission.enter("10.0.0.1")
    other.leave()
    assert (admission.total, admission.turned_away, admission.full) == (0, 5, False)
    assert admission.enter("host-a")
