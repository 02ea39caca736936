"""``hostlane call`` through real proxies."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import trio
from click.testing import CliRunner

from control.cli.answers import schema_of
from control.cli.callcommand import call, unescaped
from tests.pump.agents import Mesh, Service, mesh


async def called(hosts: Mesh, *arguments: str, host: str = "host-a") -> tuple[int, dict[str, Any], str]:
    """What the command prints, and how it ends."""
    at = ["--socket", f"{hosts.folder}/{host}/admin.sock", "--json", *arguments]
    done = await trio.to_thread.run_sync(CliRunner().invoke, call, at)
    # The proxies, which are in this process, log to the same standard output.
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for each in found:
        jsonschema.validate(each, schema_of("call"))
    return done.exit_code, found[0] if found else {}, done.stderr


async def two(hosts: Mesh) -> Service:
    """host-a calls redis, which host-b offers; and gone, where nobody listens any more."""
    service = hosts.service("redis")
    peers = {"host-b": {"address": hosts.addresses["host-b"], "services": ["redis", "gone"]}}
    upstreams = {name: {"listen": hosts.upstream("host-a", name)} for name in ("redis", "gone")}
    await hosts.start(
        "host-b",
        services={"redis": {"deliver": service.address}, "gone": {"deliver": f"unix:{hosts.folder}/gone"}},
        peers={"host-a": {"address": hosts.addresses["host-a"]}},
    )
    await hosts.start("host-a", upstreams=upstreams, peers=peers)
    return service


async def answer(service: Service, text: bytes, close: bool = False) -> None:
    sock, _ = await service.sock.accept()
    with sock:
        await sock.recv(100)
        if text:
            await sock.send(text)
        if not close:
            await sock.recv(100)


async def test_what_a_service_answers() -> None:
    async with mesh() as hosts, trio.open_nursery() as nursery:
        service = await two(hosts)
        nursery.start_soon(answer, service, b"+PONG\r\n")
        code, found, _ = await called(hosts, "redis", "--send", "PING\\r\\n", "--wait", "300ms")
        assert (code, found["delivered"], found["answer"], found["ended"]) == (0, True, "+PONG\r\n", False)
        assert (found["sent"], found["received"]) == (6, 7)
        assert found["first_byte_ms"] >= found["connect_ms"]
        nursery.start_soon(answer, service, b"bye", True)
        code, found, _ = await called(hosts, "redis", "--send", "x", "--wait", "10s")
        assert (code, found["answer"], found["ended"]) == (0, "bye", True)


async def test_only_connecting() -> None:
    async with mesh() as hosts:
        service = await two(hosts)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, service, b"")
            code, found, _ = await called(hosts, "redis", "--tcp-check")
            assert (code, found["delivered"], found["sent"], found["peer"]) == (0, True, 0, "host-b")
        code, found, _ = await called(hosts, "gone", "--tcp-check")
        assert (code, found["delivered"], found["reason"]) == (1, False, "connect_failed")
        code, found, said = await called(hosts, "reddis")
        assert (code, found, said) == (1, {}, "hostlane: service reddis: nobody offers it (did you mean redis?)\n")
        code, found, said = await called(hosts, "redis", host="host-b")
        assert (code, found) == (1, {})
        assert said == "hostlane: service redis: this host has no upstream for it, so nobody calls it from here\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [("PING\\r\\n", "PING\r\n"), ("a\\\\n", "a\\n"), ("\\\\\\n", "\\\n"), ("\\t\\0", "\t\0"), ("ü\\x", "ü\\x")],
)
def test_unescaped(text: str, found: str) -> None:
    assert unescaped(text) == found


@pytest.mark.parametrize(
    "arguments", [["x", "--tcp-check", "--send", "y"], ["x", "--timeout", "5"], ["x", "--wait", "1 s"], []]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(call, arguments).exit_code == 2
