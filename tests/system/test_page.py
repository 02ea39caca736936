"""The pages of the demo's mesh, in a real browser, under traffic and with faults: what the page alone says."""

from __future__ import annotations

import re
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from proxy.demo import netns
from proxy.demo.forward import PortForward
from proxy.demo.lab import Lab
from proxy.demo.redis import RedisClient
from proxy.demo.setup import DemoSetup, on_two_hosts
from tests.tools.shownpage import ShownPage, shown, since

pytestmark = [pytest.mark.browser, pytest.mark.netns, pytest.mark.redis, pytest.mark.timeout(300)]

REST = 0.01
"""Seconds between two calls."""


@dataclass
class DemoMesh:
    """The demo, its pages at ports of this machine."""

    lab: Lab
    stage: DemoSetup
    host: int
    mesh: int

    def cut_links(self) -> None:
        """Reset the links, as a switch or a firewall would."""
        port = self.stage.far.port
        netns.run(netns.inside(self.lab.a.netns, ["ss", "-K", "dport", "=", str(port)]))
        netns.run(netns.inside(self.lab.a.netns, ["ss", "-K", "sport", "=", str(port)]))


@contextmanager
def demo() -> Iterator[DemoMesh]:
    with tempfile.TemporaryDirectory(prefix="hl-") as folder, Lab() as lab, ExitStack() as stack:
        stage = on_two_hosts(lab, Path(folder))
        stage.configure()
        list(stage.start())
        ports = [
            stack.enter_context(PortForward(lab.a, port)).port
            for port in (stage.near.page_port, stage.server.page_port)
            if port is not None
        ]
        yield DemoMesh(lab, stage, *ports)


@contextmanager
def traffic(mesh: DemoMesh) -> Iterator[None]:
    """A caller that stays, and one after the other that does not, until the end; what fails is tried again."""
    over = threading.Event()

    def call(stays: bool) -> None:
        while not over.is_set():
            with suppress(OSError), RedisClient(mesh.stage.socket) as client:
                while not over.wait(REST):
                    client.call(b"SET", b"page", b"x" * 3000)
                    client.call(b"GET", b"page")
                    if not stays:
                        break
            over.wait(REST)

    callers = [threading.Thread(target=call, args=(stays,), daemon=True) for stays in (True, False)]
    for each in callers:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in callers:
            each.join(20)


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[DemoMesh, ShownPage, ShownPage]]:
    """The demo's mesh under traffic, the page of host A, and that of the mesh."""
    # The browsers and the mesh are built and ended in threads: they block.
    async with shown() as host, shown() as mesh:
        scene = ExitStack()
        try:
            running = await trio.to_thread.run_sync(lambda: scene.enter_context(demo()))
            scene.enter_context(traffic(running))
            await host.open(running.host)
            await mesh.open(running.mesh)
            for page in (host, mesh):
                await page.until("#edges", lambda text: re.search(r"host-a\s+redis\s+host-b", text), "the edge")
                assert "Nothing that" in await page.text("#fine")
            yield running, host, mesh
            for page in (host, mesh):
                await page.leave()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(scene.close)


async def named(page: ShownPage, what: str, began: float) -> str:
    """What is wrong, once it names this; how long that took is printed, not judged: other tests run meanwhile."""
    await page.until("#problems", lambda text: what in text, f"the problem {what}")
    print(f"shown {time.time() - began:.1f} s after it began: {what}")  # noqa: T201
    rows = await page.run("return [...document.querySelectorAll('#problems tbody tr')].map((row) => row.innerText)")
    [row] = [row for row in rows if what in row][:1]
    assert began - 2 < since(row) <= time.time(), row
    return str(row)


async def test_a_service_that_is_down() -> None:
    async with watched() as (running, host, mesh):
        began = time.time()
        for service in running.stage.services:
            if service.what == "redis-server on host-b":
                service._process.send_signal(signal.SIGKILL)
        row = await named(host, "redis at host-b", began)
        assert "SERVICE" in row
        assert "fails (connect_failed)" in row
        assert await host.run("return document.querySelectorAll('#graph path.bad').length") == 2
        assert await host.faulty() == ["redis", "host-b"]
        await host.picture("page-service.png")
        row = await named(mesh, "redis at host-b", began)
        assert "told by host-" in row


async def test_a_host_that_is_cut_off() -> None:
    """A cable is pulled: nothing says so."""
    async with watched() as (running, host, mesh):
        began = time.time()
        running.lab.b.cable_down()
        row = await named(host, "host-a to host-b", began)
        assert "LINK" in row
        row = await named(host, "Host host-b is down", began)
        assert "HOST" in row
        assert "cannot be reached: all hosts that offer it are down" in await host.text("#problems")
        assert await host.faulty() == ["redis", "host-b"]
        await host.until("#summary", lambda text: re.search(r"open, \d+ of them waiting for a link", text), "who waits")
        await host.picture("page-host.png")
        row = await named(mesh, "host-b", began)
        assert "host-b" in row
        # The map forgets it when its lease is over.
        row = await named(mesh, "Host host-b (10.77.0.2:7600) has vanished", began)
        await mesh.picture("page-mesh.png")
        running.lab.b.cable_up()
        for page in (host, mesh):
            await page.until("#fine", lambda text: "Nothing that" in text, "the end of it")


async def test_a_link_that_is_cut_shows_within_the_next_answers() -> None:
    """While the other host refuses the next link, its streams wait."""
    async with watched() as (running, host, mesh):
        far = running.lab.b.netns
        refuse = "table inet cut { chain in { type filter hook input priority 0; tcp dport 7600 drop\n }\n }\n"
        netns.run(netns.inside(far, ["nft", "-f", "-"]), stdin=refuse)
        began = time.time()
        running.cut_links()
        row = await named(host, "host-a to host-b", began)
        assert "LINK" in row
        await named(mesh, "host-a to host-b", began)
        netns.run(netns.inside(far, ["nft", "delete", "table", "inet", "cut"]))
        await host.until("#fine", lambda text: "Nothing that" in text, "the end of it")


async def test_a_link_that_flaps() -> None:
    async with watched() as (running, host, mesh):
        began = time.time()

        async def cut(until: Callable[[], bool]) -> None:
            while not until():
                await trio.to_thread.run_sync(running.cut_links)
                await trio.sleep(1.5)

        over = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut, lambda: over)
            row = await named(host, "The links to host-b flap: lost and resumed", began)
            assert "host-a to host-b" in row
            assert await host.faulty() == [], "the hosts are well"
            assert await host.run("return document.querySelectorAll('#graph path.bad').length") == 2
            await host.picture("page-link.png")
            row = await named(mesh, "flap: lost and resumed", began)
            assert "host-a" in row
            over = True


async def test_a_reader_that_is_slow() -> None:
    async with watched() as (running, host, mesh):
        began = time.time()
        with RedisClient(running.stage.socket) as client:
            client.call(b"SET", b"large", b"x" * (16 << 20))
        with socket.socket(socket.AF_UNIX) as reader:
            reader.connect(str(running.stage.socket))
            reader.sendall(b"GET large\r\n" * 4)  # and reads none of it
            row = await named(host, "does not take its bytes", began)
            assert "READER" in row
            assert "uid 0 on host-a" in row
            assert "redis" in row
            await host.picture("page-reader.png")
            row = await named(mesh, "does not take its bytes", began)
            assert "uid 0 on host-a" in row
        await host.until("#fine", lambda text: "Nothing that" in text, "the end of it")


async def test_it_shows_who_talks_to_whom() -> None:
    async with watched() as (_, host, mesh):
        await host.until("#edges", lambda text: re.search(r"[1-9][\d.]* KiB", text), "a rate")
        await host.picture("page.png")
        assert "told by control server control-1" in await mesh.text("#summary")
        hosts = await mesh.text("#hosts")
        assert "10.77.0.1:7600" in hosts
        assert "10.77.0.2:7600" in hosts
        assert re.search(r"redis\s+1\s+host-b", await mesh.text("#services"))
