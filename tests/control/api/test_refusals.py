from __future__ import annotations

import errno
import ssl

import httpx
import trio

from control.api.refusals import denied_by, reason_of


def test_a_refusal_is_decoded_and_anything_else_is_one_without_reason() -> None:
    denied = denied_by(409, b'{"error":"no","code":"taken"}')
    assert (denied.code, denied.text, denied.status, str(denied)) == ("taken", "no", 409, "no")
    for raw in (b"", b"<html>", b'{"error":1}', b"\xff", b'{"x":' * 100_000):
        denied = denied_by(502, raw)
        assert (denied.code, denied.status) == ("", 502)
        assert "HTTP status 502" in denied.text


def test_the_innermost_reason_is_told() -> None:
    outer = httpx.ConnectError("all attempts failed")
    outer.__cause__ = OSError(errno.ECONNREFUSED, "[Errno 111] Connect call failed ('10.0.0.5', 7601)")
    assert reason_of(outer, 4.0) == "connection refused"
    group = httpx.ConnectError("x")
    group.__cause__ = ExceptionGroup("x", [OSError(errno.EHOSTUNREACH, "x"), OSError(errno.ENETUNREACH, "y")])
    assert reason_of(group, 4.0) == "no route to host"
    assert reason_of(trio.TooSlowError(), 4.0) == "no answer for 4 s"
    assert reason_of(httpx.ReadTimeout("x"), 2.5) == "no answer for 2 s"
    assert reason_of(ssl.SSLError(1, "[SSL] nonsense"), 4.0).startswith("no TLS with it: ")
    assert reason_of(httpx.ReadError("two\nlines"), 4.0) == "two lines"
    assert reason_of(httpx.ReadError(""), 4.0) == "the connection broke"
