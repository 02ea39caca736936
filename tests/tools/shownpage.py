"""The page of a proxy or a control server, in a browser, for tests whose servers run in the same trio loop."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from tests.tools.browser import Browser, browsing, complaints
from tests.tools.sockets import PATIENCE

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCREENSHOTS = os.environ.get("HOSTLANE_SCREENSHOTS") == "1"
"""Whether the pictures in docs/ are made anew."""
REFUSALS = """window.refused = [];
addEventListener('securitypolicyviolation', (event) => refused.push(event.violatedDirective));"""
"""What the policy refuses, as the browser reports it."""
T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """The driver blocks; the servers run here."""
    return await trio.to_thread.run_sync(work)


class ShownPage:
    """A page in a browser."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self._forgiven = False

    async def open(self, port: int) -> None:
        """The page at a port of this machine."""
        await aside(lambda: self.browser.get(f"http://127.0.0.1:{port}/"))

    async def text(self, selector: str) -> str:
        script = "const found = document.querySelector(arguments[0]); return found.innerText ?? found.textContent"
        return str(await self.run(script, selector))

    async def until(self, selector: str, found: Callable[[str], Any], what: str) -> str:
        with trio.fail_after(PATIENCE):
            while not found(text := await self.text(selector)):
                await trio.sleep(0.1)
        return text

    async def run(self, script: str, *arguments: object) -> Any:
        return await aside(partial(self.browser.execute_script, script, *arguments))

    async def faulty(self) -> list[str]:
        """The names with a red frame in the drawing, column by column."""
        return list(
            await self.run("return [...document.querySelectorAll('#graph g.bad text')].map((text) => text.textContent)")
        )

    async def picture(self, name: str) -> None:
        """Into docs/, if the pictures there are to be made anew."""
        if SCREENSHOTS:
            await aside(lambda: self.browser.save_screenshot(str(DOCS / name)))

    async def leave(self) -> None:
        """Go from the page, while whoever serves it is still there. The console must have said nothing by then, and the
        page's own policy have refused nothing."""
        assert await self.run("return window.refused") == []
        said = await aside(lambda: complaints(self.browser))
        assert self._forgiven or said == []
        await aside(lambda: self.browser.get("about:blank"))

    def forgive(self) -> None:
        """The console may have said something."""
        self._forgiven = True

    async def size(self) -> int:
        """Elements of the document."""
        return int(await self.run("return document.querySelectorAll('*').length"))


@asynccontextmanager
async def shown(**options: int) -> AsyncIterator[ShownPage]:
    """A browser with nothing in it yet, which is ended with the block."""
    driver = browsing(**options)
    browser = await aside(driver.__enter__)
    try:
        await aside(lambda: browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": REFUSALS}))
        yield ShownPage(browser)
    finally:
        with trio.CancelScope(shield=True):
            await aside(lambda: driver.__exit__(None, None, None))


def since(text: str) -> float:
    """The first time that a text names, seconds since 1970."""
    found = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", text)
    assert found is not None, text
    return time.mktime(time.strptime(f"{found[1]} UTC", "%Y-%m-%d %H:%M:%S %Z")) - time.timezone
