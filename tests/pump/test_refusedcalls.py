from __future__ import annotations

from proxy.errors import CloseReason
from proxy.mux.frames import Open
from proxy.pump.refusedcalls import MOST, QUIET, RefusedCalls

NOT_ALLOWED = CloseReason.NOT_ALLOWED


def test_who_how_often_and_since_when() -> None:
    refused = RefusedCalls()
    refused.add(Open("db", 1000, "shop"), "a", NOT_ALLOWED, "x", 10.0)
    refused.add(Open("db", 1000, "web"), "a", NOT_ALLOWED, "y", 11.0)
    refused.add(Open("db", 1000, "shop"), "a", NOT_ALLOWED, "z", 12.0)
    (shop, times), (web, _) = refused.of("db", 13.0)
    assert (shop.caller, shop.host, shop.reason, web.caller) == ("shop", "a", NOT_ALLOWED, "web")
    assert (times.times, times.first, times.last, times.detail) == (2, 10.0, 12.0, "z")
    assert [*refused.of("other", 13.0)] == []


def test_there_are_only_so_many_and_the_latest_are_kept() -> None:
    refused = RefusedCalls()
    refused.add(Open("db", 0), "a", NOT_ALLOWED, "", 0.0)
    for uid in range(1, 3 * MOST):
        refused.add(Open("db", uid), "a", NOT_ALLOWED, "", float(uid))
        refused.add(Open("db", 0), "a", NOT_ALLOWED, "", float(uid))
    found = [*refused.of("db", 3.0 * MOST)]
    assert len(found) == MOST
    assert (found[0][0].uid, found[0][1].times) == (0, 3 * MOST)


def test_they_are_forgotten() -> None:
    refused = RefusedCalls()
    refused.add(Open("db", 1), "a", NOT_ALLOWED, "", 0.0)
    refused.add(Open("web", 1), "a", NOT_ALLOWED, "", QUIET)
    assert [*refused.of("db", QUIET)] == []
    refused.forget(frozenset({"db"}))
    assert [*refused.of("web", QUIET)] == []
