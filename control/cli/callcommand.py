"""``hostlane call SERVICE``: open a stream by hand, as a container would, and say what becomes of it."""

from __future__ import annotations

import difflib
import os
import selectors
import socket as sockets
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from control.api import admin
from control.api.messages import CallResult, ServiceRoute, Status, StreamInfo
from control.base.grid import Facts, show
from control.base.options import seconds
from control.base.reading.addresses import TcpAddress, UnixAddress, listen_address
from control.base.terminal import fail
from control.cli import complete
from control.cli.commands import asks_a_proxy, socket_of

LOOK_FIRST, LOOK_LONGEST = 0.002, 0.05
"""Seconds between two looks at what the proxy says of the stream: few at first, as it is mostly there at once."""
MOST = 1 << 20
"""Bytes of an answer that are taken."""
NOT_YET = ("waiting", "calling", "calling_fin")
"""States of a stream that no service has taken yet."""
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\"}


@click.command()
@click.argument("service", shell_complete=complete.services)
@click.option("--send", metavar="TEXT", help=r"Send this (with \n, \r, \t, \0), show the answer; -: standard input.")
@click.option("--tcp-check", "only_open", is_flag=True, help="Connect only and send nothing; the exit code says.")
@click.option("--timeout", default="5s", show_default=True, callback=seconds, metavar="TIME", help="Until delivered.")
@click.option("--wait", "quiet", default="1s", show_default=True, callback=seconds, metavar="TIME",
              help="How long a silence ends the answer.")  # fmt: skip
@asks_a_proxy
def call(
    service: str, config: str | None, socket: str | None, as_json: bool, send: str | None, only_open: bool,
    timeout: float, quiet: float,
) -> None:  # fmt: skip
    """Open a stream by hand, and say how long each part took.

    It goes through the upstream's socket, as this user, so that what it meets is what callers meet. Exit 1 if the
    stream is not delivered to a service, or with --send if no answer comes.
    """
    if only_open and send is not None:
        raise click.UsageError("--tcp-check sends nothing: it does not go with --send")
    at = socket_of(config, socket)
    payload = sys.stdin.buffer.read() if send == "-" else unescaped(send or "").encode()
    try:
        listen = _listen(service, admin.ask(at, "/services", list[ServiceRoute])[0])
        before = admin.ask(at, "/status", Status)[0].refused_by_reason
        result, answer = _call(at, service, listen, None if only_open else payload, timeout, quiet)
        if not result.delivered:
            after = admin.ask(at, "/status", Status)[0].refused_by_reason
            reasons = [reason for reason, count in after.items() if count > before.get(reason, 0)]
            result = msgspec.structs.replace(result, reason=" or ".join(sorted(reasons)) or result.reason)
    except admin.NoAnswer as error:
        fail(error, 1)
    if as_json:
        click.echo(msgspec.json.encode(result))
    else:
        show([_facts(result)])
        if answer:
            click.echo()
            click.echo(answer.decode("utf-8", "backslashreplace") if sys.stdout.isatty() else answer, nl=False)
    sys.exit(0 if result.delivered and (send is None or result.received) else 1)


def unescaped(text: str) -> str:
    """``\\n`` and the like as what they stand for."""
    parts = text.split("\\\\")
    return "\\".join(_unescaped_part(part) for part in parts)


def _unescaped_part(text: str) -> str:
    for letter in "nrt0":
        text = text.replace(f"\\{letter}", _ESCAPES[letter])
    return text


def _listen(service: str, routes: list[ServiceRoute]) -> UnixAddress | TcpAddress:
    """Where the service is called on this host; exits with 1 where it is not."""
    route = next((each for each in routes if each.service == service), None)
    if route is None:
        near = difflib.get_close_matches(service, [each.service for each in routes], n=1)
        fail(f"service {service}: nobody offers it{f' (did you mean {near[0]}?)' if near else ''}", 1)
    if route.listen is None:
        fail(f"service {service}: this host has no upstream for it, so nobody calls it from here", 1)
    return listen_address(route.listen)


def _call(
    at: str, service: str, listen: UnixAddress | TcpAddress, payload: bytes | None, timeout: float, quiet: float
) -> tuple[CallResult, bytes]:
    """Raises NoAnswer if the proxy does not say what becomes of the stream."""
    known = {each.id for each in admin.ask(at, "/streams", list[StreamInfo])[0]}
    began = time.monotonic()

    def since() -> float:
        return round((time.monotonic() - began) * 1000, 3)

    result: dict[str, Any] = {"service": service, "listen": str(listen), "delivered": False}
    try:
        sock = _connected(listen, timeout)
    except OSError as error:
        why = (error.strerror or "no answer").lower()
        return CallResult(**result, reason=f"cannot connect to {listen}: {why}"), b""
    with sock:
        result["connect_ms"] = since()
        if payload:
            try:
                sock.sendall(payload)
            except OSError as error:
                return CallResult(**result, reason=f"sending: {(error.strerror or 'no room').lower()}"), b""
        result["sent"] = len(payload or b"")
        first = bytearray()
        ended = _followed(at, sock, service, known, began + timeout, result, since, first)
        if payload is None or ended or not result["delivered"]:
            answer = bytes(first)
        else:
            answer = _answer(sock, quiet, since, result, first)
        result["received"] = len(answer)
        result["answer"] = answer.decode("utf-8", "backslashreplace") if answer else None
        return CallResult(**result), answer


def _connected(listen: UnixAddress | TcpAddress, timeout: float) -> sockets.socket:
    if isinstance(listen, TcpAddress):
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
        return sockets.create_connection((host, listen.port), timeout)
    sock = sockets.socket(sockets.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(listen.path)
    except OSError:
        sock.close()
        raise
    return sock


def _followed(
    at: str,
    sock: sockets.socket,
    service: str,
    known: set[str],
    until: float,
    result: dict[str, Any],
    since: Callable[[], float],
    first: bytearray,
) -> bool:
    """Look until a service has the stream, bytes of it come, or it is over. Returns whether it has ended."""
    pause = LOOK_FIRST
    with selectors.DefaultSelector() as readable:
        readable.register(sock, selectors.EVENT_READ)
        while True:
            mine = _mine(admin.ask(at, "/streams", list[StreamInfo])[0], service, known)
            if mine is not None:
                result["stream"], result["peer"], result["link"] = mine.id, mine.peer, mine.link
                if mine.state != "waiting" and "wait_ms" not in result:
                    result["wait_ms"] = since()
                if mine.state not in NOT_YET:
                    result["delivered"], result["open_ms"] = True, since()
                    return False
            if readable.select(pause):
                try:
                    found = sock.recv(65536)
                except OSError as error:
                    result["reason"] = (error.strerror or "reset").lower()
                    return True
                if found:
                    first += found
                    result["delivered"], result["first_byte_ms"] = True, since()
                    return False
                result["reason"] = result.get("reason") or "the stream has ended"
                return True
            if time.monotonic() > until:
                state = "is not known to the proxy" if mine is None else f"is {mine.state}"
                result["reason"] = f"not delivered in time: it {state}"
                return False
            pause = min(pause * 2, LOOK_LONGEST)


def _mine(streams: list[StreamInfo], service: str, known: set[str]) -> StreamInfo | None:
    """The stream of this process; through TCP the newest one that was not there before."""
    own = [each for each in streams if each.pid == os.getpid() and each.service == service]
    new = own or [each for each in streams if each.pid is None and each.service == service and each.id not in known
                  and each.direction != "inbound"]  # fmt: skip
    return min(new, key=lambda each: each.age_s, default=None)


def _answer(
    sock: sockets.socket, quiet: float, since: Callable[[], float], result: dict[str, Any], first: bytearray
) -> bytes:
    """What comes until the end, a silence, or MOST bytes."""
    found = bytearray(first)
    sock.settimeout(quiet)
    try:
        while len(found) < MOST and (part := sock.recv(65536)):
            result.setdefault("first_byte_ms", since())
            found += part
        if len(found) < MOST:
            result["ended"] = True
    except TimeoutError:
        pass
    except OSError as error:
        result["reason"] = (error.strerror or "reset").lower()
    return bytes(found)


def _facts(found: CallResult) -> Facts:
    def milliseconds(value: float | None) -> str:
        return "-" if value is None else f"after {value:.1f} ms"

    rows = [
        ("service", found.service),
        ("called through", found.listen),
        ("connected", milliseconds(found.connect_ms)),
        ("has a link", milliseconds(found.wait_ms) + (f" ({found.link} to {found.peer})" if found.link else "")),
        ("delivered", milliseconds(found.open_ms or found.first_byte_ms) if found.delivered else "no"),
        ("first byte", milliseconds(found.first_byte_ms)),
        ("bytes", f"{found.sent} sent, {found.received} received"),
    ]
    if found.ended:
        rows.append(("ended", "by the service"))
    if found.reason:
        rows.append(("because", found.reason))
    return Facts(rows)
