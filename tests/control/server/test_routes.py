from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api import mesh
from control.base.errors import RequestRefused
from control.server.api import ROUTES
from control.server.routes import ApiRoutes, Caller

TABLE = ApiRoutes(ROUTES)
NOBODY = Caller("10.0.0.1")
HOST = Caller("10.0.0.1", "host-a", "1f")
ADMIN = Caller("local", admin=True)


@pytest.mark.parametrize(
    ("method", "target", "caller", "status", "found"),
    [
        ("GET", "/", ADMIN, 404, "no such path"),
        ("GET", "/v1/hosts/", ADMIN, 404, "no such path"),
        ("GET", "/v1/hosts/a/b/c", ADMIN, 404, "no such path"),
        ("GET", "/v1/hosts\x1b", ADMIN, 404, r"\\u001b"),
        ("PATCH", "/v1/hosts/host-a", HOST, 405, "allowed: PUT, DELETE"),
        ("GET", "/v1/watch", NOBODY, 401, "needs a host's certificate"),
        ("PUT", "/v1/hosts/host-a", NOBODY, 401, "needs a host's certificate"),
        ("PUT", "/v1/hosts/host-b", HOST, 403, "allowed: itself"),
        ("PUT", "/v1/hosts/host-a", ADMIN, 403, "is for hosts"),
        ("POST", "/v1/tokens", HOST, 403, "is for the administrator"),
        ("POST", "/v1/tokens", NOBODY, 403, "is for the administrator"),
        ("GET", "/v1/watch?after=1&after", HOST, 400, "allowed: name=value"),
        ("GET", "/v1/watch?since=1", HOST, 400, "allowed: epoch, after"),
        ("GET", "/v1/status?x=1", HOST, 400, "allowed: none here"),
    ],
)
def test_refused(method: str, target: str, caller: Caller, status: int, found: str) -> None:
    with pytest.raises(RequestRefused, match=found) as caught:
        TABLE.find(method, target, caller)
    assert caught.value.status == status
    assert str(caught.value).isprintable()


def test_found() -> None:
    route, names, query = TABLE.find("DELETE", "/v1/hosts/host-a?instance=x%20y", HOST)
    assert (route.path, names, query) == ("/v1/hosts/{name}", {"name": "host-a"}, {"instance": "x y"})


def test_bodies() -> None:
    route, _, _ = TABLE.find("POST", "/v1/tokens", ADMIN)
    assert TABLE.decode(route, b'{"host": "a", "ttl": 60}') == mesh.TokenRequest(host="a", ttl=60.0)
    for body in (b"", b"[]", b"{", b'{"host": 1, "ttl": 1}', b"\xff", b"[" * 10_000):
        with pytest.raises(RequestRefused, match="not a body for POST /v1/tokens"):
            TABLE.decode(route, body)
    route, _, _ = TABLE.find("GET", "/v1/tokens", ADMIN)
    assert TABLE.decode(route, b"") is None
    with pytest.raises(RequestRefused, match="allowed: none"):
        TABLE.decode(route, b"{}")


@given(st.text(max_size=8), st.text(max_size=60), st.sampled_from([NOBODY, HOST, ADMIN]))
def test_nothing_but_refusals(method: str, target: str, caller: Caller) -> None:
    try:
        TABLE.find(method, target, caller)
    except RequestRefused as refused:
        assert 400 <= refused.status < 500
        assert str(refused).isprintable()
