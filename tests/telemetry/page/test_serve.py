"""What the page of a proxy is told. How it looks is in test_browser.py; the files: tests/control/base/page."""

from __future__ import annotations

import json

import msgspec

from control.api.page import MOST_PAGE_ROWS
from control.base.page.serve import FILES, POLICY, read
from proxy.telemetry.page.serve import PageState
from tests.pump.agents import mesh
from tests.telemetry.metrics.told import ask, free_port


async def test_what_is_answered_and_how() -> None:
    port = free_port()
    async with mesh() as hosts:
        await hosts.start("host-a", telemetry={"listen": f"127.0.0.1:{port}", "page": True})
        for path, (name, kind) in FILES.items():
            answer = await ask(port, path)
            assert (answer.status, answer.body) == (200, read(name))
            assert answer.headers["content-type"] == kind
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
        answer = await ask(port, "/state.json")
        state = msgspec.json.decode(answer.body, type=PageState)
        assert (state.host, state.edges, state.problems, state.more_edges) == ("host-a", [], [], 0)
        assert answer.headers["cache-control"] == "no-store"
        for method in ("POST", "PUT", "DELETE"):
            assert (await ask(port, "/state.json", method=method)).status == 405
        assert (await ask(port, "/", host="evil.example")).status == 421, "DNS rebinding"
        assert (await ask(port, "/../page.js")).status == 404


async def test_it_is_off_by_default() -> None:
    port = free_port()
    async with mesh() as hosts:
        await hosts.start("host-a", telemetry={"listen": f"127.0.0.1:{port}"})
        for path in (*FILES, "/state.json"):
            assert (await ask(port, path)).status == 404
        assert (await ask(port, "/metrics")).status == 200


async def test_so_many_rows_are_sent_and_those_that_somebody_looks_for() -> None:
    port = free_port()
    async with mesh() as hosts:
        agent = await hosts.start("host-a", telemetry={"listen": f"127.0.0.1:{port}", "page": True})
        for number in range(MOST_PAGE_ROWS + 5):
            agent.stats.edges.find("outbound", "shop", f"service-{number}", "host-b").opened += 1
        state = json.loads((await ask(port, "/state.json")).body)
        assert (len(state["edges"]), state["more_edges"]) == (MOST_PAGE_ROWS, 5)
        least = {edge["service"] for edge in state["edges"]}
        [other, *_] = [f"service-{number}" for number in range(MOST_PAGE_ROWS + 5) if f"service-{number}" not in least]
        state = json.loads((await ask(port, f"/state.json?service={other}")).body)
        assert [edge["service"] for edge in state["edges"]] == [other]
        assert (state["more_edges"], state["all_edges"]) == (0, MOST_PAGE_ROWS + 5)
