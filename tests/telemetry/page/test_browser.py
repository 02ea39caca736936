"""The page in a real browser, against real proxies that carry streams and break."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from proxy.errors import CloseReason
from proxy.telemetry.page.finding import EVERY
from tests.pump.agents import Mesh, Service, mesh
from tests.pump.rig import until
from tests.telemetry.metrics.told import free_port
from tests.tools.shownpage import ShownPage, aside, shown, since

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


async def traffic(hosts: Mesh, service: Service) -> None:
    """One caller after the other, each with a few messages, until cancelled."""

    async def answer() -> None:
        while True:
            end = await service.accept()
            nursery.start_soon(serve, end)

    async def serve(end: Any) -> None:
        with suppress(OSError):
            while await end.sock.recv(5):
                await end.send(b"w" * 3000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        while True:
            caller = hosts.call()
            for _ in range(5):
                await caller.send(b"hello")
                await caller.read(3000)
                await trio.sleep(0.02)
            caller.close()


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Mesh, Service, ShownPage, trio.Nursery]]:
    """Two hosts, and the page of the one that calls."""
    port = free_port()
    # The browser before the proxies, whose test has so much time and no more.
    async with shown() as page, mesh() as hosts:
        service = hosts.service()
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo"), "caller": "shop"}}
        telemetry = {"listen": f"127.0.0.1:{port}", "page": True}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, telemetry=telemetry)
        await until(lambda: hosts.agents["host-a"].pools["host-b"].up, "the link")
        await page.open(port)
        async with trio.open_nursery() as nursery:
            yield hosts, service, page, nursery
            await page.leave()
            nursery.cancel_scope.cancel()


async def test_it_shows_who_talks_to_whom() -> None:
    async with watched() as (hosts, service, page, nursery):
        nursery.start_soon(traffic, hosts, service)
        await page.until("#edges", lambda text: re.search(r"shop\s+host-a\s+echo\s+host-b", text), "the edge")
        assert await page.text("#host") == "host-a"
        assert "Nothing that this host knows of" in await page.text("#fine")
        graph = await page.until("#graph", lambda text: "echo" in text, "the graph")
        for name in ("calling hosts", "host-a", "echo", "host-b"):
            assert name in graph
        links = await page.until("#links", lambda text: "host-b" in text, "the link")
        assert "kept for" in links
        assert "opened as an upstream needs the peer" in links
        await page.until("#edges", lambda text: re.search(r"[1-9][\d.]* KiB", text), "a rate")
        await page.picture("page.png")


async def test_a_service_that_is_down_is_named_with_its_host_and_the_time() -> None:
    async with watched() as (hosts, service, page, _):
        os.unlink(service.address.removeprefix("unix:"))
        began = time.time()
        await hosts.call().rest()
        text = await page.until("#problems", lambda text: "echo at host-b" in text, "the problem")
        assert "fails (connect_failed)" in text
        assert "shop on host-a" in text
        assert abs(since(text) - began) < 5
        assert await page.run("return document.querySelectorAll('#graph path.bad').length") == 2
        assert await page.faulty() == ["echo", "host-b"]
        assert "(1)" in await aside(lambda: page.browser.title)
        await page.picture("page-service.png")


async def test_a_host_that_is_gone_and_comes_back() -> None:
    async with watched() as (hosts, service, page, _):
        began = time.time()
        hosts.kill("host-b")
        text = await page.until("#problems", lambda text: "host-b" in text, "the problem")
        assert abs(since(text) - began) < 10
        await page.until("#problems", lambda text: "Host host-b is down" in text, "the host")
        nobody = hosts.call()
        await page.until("#summary", lambda text: "1 stream open, 1 of them waiting for a link" in text, "who waits")
        nobody.close()
        await page.picture("page-host.png")
        hosts.agents["host-b old"] = hosts.agents.pop("host-b")
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        await page.until("#problems", lambda text: "host-b" not in text, "the end of it")


async def test_a_link_that_flaps() -> None:
    async with watched() as (hosts, service, page, _):
        caller = hosts.call()
        await caller.send(b"hello")
        await (await service.accept()).read(5)
        agent = hosts.agents["host-a"]
        pool = agent.pools["host-b"]
        [session] = pool.sessions
        for count in range(1, 5):
            session.link.doom(CloseReason.LINK_LOST, "cut")
            agent.pump.settle()
            await until(lambda count=count: session.resumed == count, "the next link")
            await trio.sleep(EVERY)  # so long that the proxy has looked in between
        text = await page.until("#problems", lambda text: "flap" in text, "the problem")
        assert "The links to host-b flap: lost and resumed" in text
        assert since(text) <= time.time()
        assert await page.faulty() == [], "the hosts are well"
        await page.picture("page-link.png")


async def test_a_reader_that_is_slow() -> None:
    async with watched() as (hosts, service, page, nursery):
        caller = hosts.call()
        await caller.send(b"hello")
        end = await service.accept()
        await end.read(5)
        nursery.start_soon(_pour, end)
        text = await page.until("#problems", lambda text: "Slow reader" in text, "the problem")
        assert "shop on host-a does not take its bytes" in text
        assert since(text) <= time.time()
        await page.picture("page-reader.png")


async def _pour(end: Any) -> None:
    while True:
        try:
            end.raw.send(b"x" * 65536)
        except BlockingIOError:
            await trio.sleep(0.01)


async def test_keyboard_search_and_order() -> None:
    async with watched() as (hosts, service, page, nursery):
        nursery.start_soon(traffic, hosts, service)
        await page.until("#edges", lambda text: "echo" in text, "the edge")

        def press() -> None:
            name = page.browser.find_element(By.CSS_SELECTOR, "#graph [role=button]")
            page.browser.execute_script("arguments[0].focus()", name)
            page.browser.switch_to.active_element.send_keys(Keys.ENTER)

        await aside(press)
        pressed = "return document.querySelectorAll('#graph [aria-pressed=true]').length"
        assert await page.run(pressed) == 1
        assert await page.run("return document.activeElement.dataset.node") == '[0,"host-a"]', "it keeps the focus"
        box = await aside(lambda: page.browser.find_element(By.ID, "search"))
        await aside(lambda: box.send_keys("nobody"))
        await page.until("#shown", lambda text: text.startswith("0 of "), "nothing found")
        await aside(page.browser.find_element(By.ID, "clear").click)
        assert await page.run(pressed) == 0
        await page.until("#shown", lambda text: not text.startswith("0 of "), "all edges")
        for expected in ("descending", "ascending"):
            buttons = "[...document.querySelectorAll('#edges th button')]"
            await page.run(f"{buttons}.find((each) => each.innerText == 'streams').click()")
            assert await page.run("return document.querySelector('#edges [aria-sort]').ariaSort") == expected


async def test_names_are_text_whatever_they_are() -> None:
    """A caller's name comes from another host, an error's text from anywhere."""
    async with watched() as (hosts, _, page, _):
        edges = hosts.agents["host-a"].stats.edges
        evil = "<img src=x onerror=alert(1)>"
        edges.find("outbound", evil, "</table><script>alert(2)</script>", "host-b").opened += 1
        text = await page.until("#edges", lambda text: "onerror" in text, "the name")
        assert evil in text
        assert await page.run("return document.querySelectorAll('img, table script').length") == 0


async def test_many_hosts_and_services_stay_usable() -> None:
    async with watched() as (hosts, _, page, _):
        edges = hosts.agents["host-a"].stats.edges
        for number in range(1900):
            edges.find("outbound", f"caller-{number % 50}", f"service-{number}", f"host-{number % 200}").opened += 1
        await page.until("#graph", lambda text: "others" in text, "the rest as one")
        assert await page.run("return document.querySelectorAll('#graph [role=button]').length") <= 36
        assert await page.run("return document.querySelectorAll('#edges tbody tr').length") == 101
        box = await aside(lambda: page.browser.find_element(By.ID, "search"))
        await aside(lambda: box.send_keys("service-77"))
        await page.until("#shown", lambda text: not text.startswith("1000 of"), "fewer")


async def test_it_says_when_the_host_does_not_answer() -> None:
    async with watched() as (hosts, _, page, _):
        await page.until("#summary", lambda text: "version" in text, "the first answer")
        hosts.kill("host-a")
        text = await page.until("#stale", lambda text: text, "the alarm")
        assert "This host does not answer" in text
        assert "What is below is of" in text
        page.forgive()  # the failed request itself, which the console tells
