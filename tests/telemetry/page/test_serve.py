"""What a browser gets, without one. How it looks is in test_browser.py."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from proxy.telemetry.page.serve import FILES, HEADERS, MOST_ROWS, POLICY, PageState, read
from tests.pump.agents import mesh
from tests.telemetry.metrics.told import ask, free_port


def test_the_files_need_nobody_else() -> None:
    text = "".join(read(name).decode() for name, _ in FILES.values())
    outside = re.findall(r"https?://[^\s'\"<>)]+", text)
    assert set(outside) == {"http://www.w3.org/2000/svg"}, "a name, which nobody asks for"
    page, script = read("page.html").decode(), read("page.js").decode()
    assert not re.search(r"\son\w+=|style=|<style|<script>", page), "which the policy would refuse"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|import\(", script)
    assert "POST" not in script


def test_each_element_that_the_script_wants_is_there() -> None:
    wanted = set(re.findall(r'\$\("(\w+)"\)|table\("(\w+)"', read("page.js").decode()))
    ids = set(re.findall(r'id="([\w-]+)"', read("page.html").decode()))
    assert {one or other for one, other in wanted} <= ids


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


async def test_so_many_rows_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    async with mesh() as hosts:
        agent = await hosts.start("host-a", telemetry={"listen": f"127.0.0.1:{port}", "page": True})
        for number in range(MOST_ROWS + 5):
            agent.stats.edges.find("outbound", "shop", f"service-{number}", "host-b").opened += 1
        state = json.loads((await ask(port, "/state.json")).body)
        assert (len(state["edges"]), state["more_edges"]) == (MOST_ROWS, 5)


def test_the_headers_have_what_browsers_need() -> None:
    names = [name for name, _ in HEADERS]
    assert len(names) == len(set(names))
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
        assert part in POLICY
    assert "unsafe" not in POLICY
