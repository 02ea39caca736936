from __future__ import annotations

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
