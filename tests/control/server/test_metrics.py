"""A scrape of a whole control server, and the document that lists what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from control.base.errors import StartError
from control.base.reading.addresses import TcpAddress
from control.base.reading.keys import ScrapeConfig
from control.server import metrics, serve
from tests.control.server.conftest import PATIENCE, World, news, record
from tests.telemetry.metrics.told import ask, free_port, scrape

DOC = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


@pytest.mark.parametrize("accept", ["application/openmetrics-text", "text/plain"])
async def test_what_it_tells(world: World, accept: str) -> None:
    port = free_port()
    telemetry = ScrapeConfig(listen=TcpAddress("127.0.0.1", port))
    async with world.serving(telemetry=telemetry), world.client("host-a") as a, world.client("host-b") as b:
        await a.register(record("host-a", "redis", "web"))
        with trio.fail_after(PATIENCE):
            async with b.watch() as messages:
                await news(messages)
                before = (await scrape(port, accept))("hostlane_control_change_seconds_count")
                await a.register(record("host-a", "redis"))
                await news(messages)
                while (told := await scrape(port, accept))("hostlane_control_change_seconds_count") == before:
                    await trio.sleep(0.01)
        assert told("hostlane_control_hosts") == 1
        assert told("hostlane_control_services") == 1
        assert told("hostlane_control_watchers") == 1
        assert told("hostlane_control_store_connected") == 1
        assert told("hostlane_control_leases_expired_total") == 0
        assert told("hostlane_control_requests_total", code="200") >= 3
        assert told("hostlane_control_store_seconds_count", operation="commit") >= 2
        assert told("hostlane_control_certificate_expiry_time_seconds") > 1.7e9
        assert {*told.families} <= {name for family in metrics.ALL for name in (family.name, family.full_name)}
        assert (await ask(port, host="evil.example")).status == 421
        assert (await ask(port, "/v1/hosts")).status == 404


async def test_a_refused_request_has_its_code(world: World) -> None:
    port = free_port()
    async with world.serving(telemetry=ScrapeConfig(listen=TcpAddress("127.0.0.1", port))):
        stream = await world.raw()
        await stream.send_all(b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 404")
        await stream.aclose()
        assert (await scrape(port))("hostlane_control_requests_total", route="", code="404") == 1


async def test_an_address_that_is_taken(world: World) -> None:
    port = free_port()
    listener = await trio.open_tcp_listeners(port, host="127.0.0.1")
    world.config = serve.Config(**{
        **{name: getattr(world.config, name) for name in world.config.__struct_fields__},
        "telemetry": ScrapeConfig(listen=TcpAddress("127.0.0.1", port)),
    })  # fmt: skip
    with pytest.raises(StartError, match=rf"^cannot listen on 127.0.0.1:{port} \(telemetry.listen\): another process"):
        await serve.run(world.config)
    for each in listener:
        await each.aclose()


def test_the_document_lists_them_all_and_no_others() -> None:
    text = DOC.read_text()
    part = text[text.index("## All metrics of a control server") :].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| `hostlane")]
    assert rows == [
        f"| `{family.full_name}` | {family.kind} | {family.unit or '–'} | "
        f"{', '.join(f'`{label}`' for label in family.labels) or '–'} | {family.text} |"
        for family in metrics.ALL
    ]
    for label, values in metrics.CLOSED.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{label}` |")]
        assert re.findall(r"`(\w+)`", row)[1:] == list(values), label
