"""What a scrape of a real proxy says, as Prometheus's own parser reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from tests.pump.agents import Mesh, Service
from tests.tools.sockets import free_ports

OPEN = "application/openmetrics-text; version=1.0.0"


def free_port() -> int:
    """One that nobody listens on, a moment ago."""
    [port] = free_ports(1)
    return port


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(port: int, target: str = "/metrics", *, method: str = "GET", **headers: str) -> Answer:
    """One request."""
    lines = {"host": "127.0.0.1", **headers}
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(head.encode())
        received = bytearray()
        async for piece in stream:
            received += piece
    first, _, body = bytes(received).partition(b"\r\n\r\n")
    status, *rest = first.decode().split("\r\n")
    return Answer(int(status.split()[1]), dict(line.split(": ", 1) for line in rest), body)


class Told:
    """The series of a scrape."""

    def __init__(self, answer: Answer) -> None:
        assert answer.status == 200, answer
        parse = openmetrics if answer.headers["content-type"].startswith("application/openmetrics") else text
        self.families = {family.name: family for family in parse(answer.body.decode())}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all series of that name with these labels."""
        return sum(value for value in self.values(name, **labels))

    def values(self, name: str, **labels: str) -> Iterator[float]:
        """Of each of them."""
        for sample in self.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.value


async def scrape(port: int, accept: str = OPEN) -> Told:
    """GET /metrics."""
    return Told(await ask(port, accept=accept))


async def both(running: Mesh, /, **telemetry: object) -> tuple[Service, int, int]:
    """host-a calls ``echo``, the service that is returned, on host-b; and the ports where the two are scraped."""
    service, near, far = running.service(), free_port(), free_port()
    await running.start(
        "host-b",
        **running.peers(a=[]),
        services={"echo": {"deliver": service.address}},
        telemetry={"listen": f"127.0.0.1:{far}", **telemetry},
    )
    upstreams = {"echo": {"listen": running.upstream("host-a", "echo")}}
    await running.start(
        "host-a",
        **running.peers(b=["echo"]),
        upstreams=upstreams,
        telemetry={"listen": f"127.0.0.1:{near}", **telemetry},
    )
    return service, near, far


async def converse(running: Mesh, service: Service) -> None:
    """A call of host-a: 7 bytes of request, 8 of answer."""
    caller = running.call()
    end = await service.accept()
    await caller.send(b"request")
    assert await end.read(7) == b"request"
    await end.send(b"answer!!")
    assert await caller.read(8) == b"answer!!"
    caller.close()
    await end.rest()
    end.close()
