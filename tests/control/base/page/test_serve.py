"""What a browser gets, without one. How it looks is in tests/telemetry/page/test_browser.py and
tests/control/server/test_meshpage.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from control.base.http import HttpRequest
from control.base.page import serve
from control.base.page.serve import FILES, HEADERS, LONGEST_QUERY, MOST_KEPT, POLICY, STATE, PageServer, read
from tests.tools.browser import browsing


def test_the_files_need_nobody_else() -> None:
    text = "".join(read(name).decode() for name, _ in FILES.values())
    outside = re.findall(r"https?://[^\s'\"<>)]+", text)
    assert set(outside) == {"http://www.w3.org/2000/svg"}, "a name, which nobody asks for"
    page, script = read("page.html").decode(), read("page.js").decode()
    assert not re.search(r"\son\w+=|style=|<style|<script>", page), "which the policy would refuse"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|import\(", script)
    assert "POST" not in script


def test_each_element_that_the_script_wants_is_there() -> None:
    wanted = set(re.findall(r'\$\("([\w-]+)"\)|table\("(\w+)"', read("page.js").decode()))
    ids = set(re.findall(r'id="([\w-]+)"', read("page.html").decode()))
    assert {one or other for one, other in wanted} <= ids


def test_the_headers_have_what_browsers_need() -> None:
    names = [name for name, _ in HEADERS]
    assert len(names) == len(set(names))
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
        assert part in POLICY
    assert "unsafe" not in POLICY


async def told(server: PageServer, query: str = "") -> bytes:
    answer = await server.routes[STATE](HttpRequest("GET", f"{STATE}?{query}", b""))
    assert (answer.status, answer.content_type) == (200, "application/json")
    return answer.body


async def test_who_asks_the_same_again_soon_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = 100.0, list[str]()
    monkeypatch.setattr(serve, "monotonic", lambda: now)

    async def show(query: str) -> list[str]:
        asked.append(query)
        await trio.lowlevel.checkpoint()
        return asked

    server = PageServer(show, fresh=0.5)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(told, server)
    assert await told(server) == b'[""]'
    assert await told(server, "search=x") == b'["","search=x"]'
    now += 0.5
    assert await told(server) == b'["","search=x",""]'
    for number in range(3 * MOST_KEPT):
        await told(server, "y" * LONGEST_QUERY + str(number))
        assert await told(server, str(number))
    assert len(asked) == 3 + 1 + 3 * MOST_KEPT, "what is too long is cut off"
    assert len(server._kept) == MOST_KEPT


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
async def test_its_contrast_is_enough(dark: bool) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text."""
    script = (Path(__file__).parent / "contrast.js").read_text()

    def measure() -> Any:
        with browsing() as browser:
            browser.get("data:text/html,<body>")
            wanted = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})
            return browser.execute_script(script, read("page.css").decode())

    worst = await trio.to_thread.run_sync(measure)
    assert min(worst.values()) >= 4.5, worst
