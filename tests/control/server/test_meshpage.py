"""The page of a control server: what it is told, and how it looks in a real browser with a mesh of a large size, whose
hosts register as they do."""

from __future__ import annotations

import re
import time
from functools import partial

import msgspec
import pytest
import trio
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from control.api.mesh import HostRecord, ServiceOffer, ToldProblem
from control.api.messages import EdgeInfo
from control.api.page import MOST_PAGE_ROWS
from control.base.page.serve import FILES, POLICY, STATE
from control.base.reading.addresses import TcpAddress
from control.base.reading.keys import ScrapeConfig
from control.server import meshpage
from control.server.meshpage import MeshPageState
from tests.control.server.conftest import World, record
from tests.control.server.test_edges import edge
from tests.telemetry.metrics.told import ask, free_port
from tests.tools.shownpage import aside, shown, since

HOSTS, SERVICES, EDGES = 200, 2000, 50


def page_at(port: int) -> ScrapeConfig:
    return ScrapeConfig(listen=TcpAddress("127.0.0.1", port), page=True)


async def state(port: int, query: str = "") -> MeshPageState:
    return msgspec.json.decode((await ask(port, f"{STATE}?{query}")).body, type=MeshPageState)


async def test_it_is_off_by_default(world: World) -> None:
    port = free_port()
    async with world.serving(telemetry=ScrapeConfig(listen=TcpAddress("127.0.0.1", port))):
        for path in (*FILES, STATE):
            assert (await ask(port, path)).status == 404
        assert (await ask(port, "/metrics")).status == 200


async def test_who_may_ask_and_how(world: World) -> None:
    port = free_port()
    async with world.serving(telemetry=page_at(port)):
        for path in (*FILES, STATE):
            answer = await ask(port, path)
            assert (answer.status, answer.headers["content-security-policy"]) == (200, POLICY)
            assert (await ask(port, path, host="evil.example")).status == 421, "DNS rebinding"
            for method in ("POST", "PUT", "DELETE"):
                assert (await ask(port, path, method=method)).status == 405


async def test_what_it_shows_of_hosts_services_and_problems(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshpage, "FRESH", 0.0)
    port = free_port()
    async with world.serving(telemetry=page_at(port)), world.client("host-a") as a, world.client("host-b") as b:
        await a.register(record("host-a", address="10.77.2.1:7600"))
        await b.register(record("host-b", "redis", address="10.77.2.2:7600"))
        busy, failing = edge("host-a", "host-b"), edge("host-a", "host-b", service="mail", failing_s=9.0, streams=0)
        wrong = ToldProblem(kind="service", name="mail at host-b", text="Service mail at host-b fails.", lasts_s=9.0)
        await a.alive("host-a", "1", (busy, failing), (wrong,))
        found = await state(port)
        assert (found.mesh, found.server, found.all_hosts, found.all_services) == ("hostlane", "control-1", 2, 1)
        assert (found.edges, found.streams, found.more_edges) == ([busy, failing], 1, 0)
        [problem] = found.problems
        assert (problem.name, problem.told_by) == ("mail at host-b", ("host-a",))
        assert abs(time.time() - 9.0 - problem.since) < 60
        told = [(host.name, host.failing, host.problems) for host in found.hosts]
        assert told == [("host-a", 1, 1), ("host-b", 1, 0)]
        assert found.hosts[0].told_s is not None
        assert found.hosts[1].told_s is None, "and it is too early to call that a problem"
        mail, redis = found.services
        assert (mail.name, mail.offered_by, mail.failing) == ("mail", 0, 1)
        assert (redis.name, redis.hosts, redis.rate, redis.callers) == ("redis", ("host-b",), 11.0, 1)
        found = await state(port, "search=mail")
        assert [each.name for each in found.services] == ["mail"]
        assert (found.edges, found.hosts, found.all_edges) == ([failing], [], 2)
        assert (await state(port, "service=redis")).edges == [busy]


async def test_a_host_that_vanishes_is_a_problem_until_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshpage, "FRESH", 0.0)
    port, began = free_port(), time.time()
    async with world.serving(telemetry=page_at(port), lease=1.0), world.client("host-b") as b:
        await b.register(record("host-b", "redis"))
        with trio.fail_after(20):
            while len((found := await state(port)).problems) < 2:
                await trio.sleep(0.05)
        host, service = found.problems
        assert (host.kind, host.name) == ("host", "host-b")
        assert (service.kind, service.name) == ("service", "redis")
        assert began <= host.since <= time.time()
        await b.register(record("host-b", "redis", instance="2"))
        with trio.fail_after(20):
            while [each.name for each in (await state(port)).problems if each.kind == "service"]:
                await trio.sleep(0.01)


async def test_hosts_that_tell_nothing_are_a_problem_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshpage, "FRESH", 0.0)
    monkeypatch.setattr(meshpage, "STALE", 0.0)
    port = free_port()
    async with world.serving(telemetry=page_at(port)), world.client("host-b") as b:
        await b.register(record("host-b"))
        with trio.fail_after(20):
            while not (await state(port)).hosts:
                await trio.sleep(0.01)
        assert (await state(port)).problems == [], "it has just come"
        monkeypatch.setattr(meshpage, "SETTLING", 0.0)
        with trio.fail_after(20):
            while not (found := await state(port)).problems:
                await trio.sleep(0.01)
        assert found.problems[0].text.startswith("host-b tells nothing of edges")


def large() -> list[tuple[HostRecord, tuple[EdgeInfo, ...]]]:
    """Each host offers ten services, and calls fifty of others."""
    made = []
    for number in range(HOSTS):
        name = f"host-{number:03}"
        offers = tuple(ServiceOffer(name=f"service-{number:03}-{each}") for each in range(SERVICES // HOSTS))
        address = f"10.{number // 250}.{number % 250}.1:7600"
        edges = tuple(
            edge(
                name,
                f"host-{there:03}",
                service=f"service-{there:03}-{each % 10}",
                caller=f"app-{each}",
                sent_per_s=1.0 + number,
            )
            for each in range(EDGES)
            for there in [(number + 1 + 4 * each) % HOSTS]
        )
        made.append((HostRecord(name=name, address=address, instance="1", services=offers), edges))
    return made


async def stand_up(world: World, mesh: list[tuple[HostRecord, tuple[EdgeInfo, ...]]]) -> None:
    """All of them register, and tell, over mutual TLS."""
    limit = trio.CapacityLimiter(8)

    async def one(host: HostRecord, edges: tuple[EdgeInfo, ...]) -> None:
        wrong = ToldProblem(kind="service", name="service-007-3 at host-007", text="It fails.", lasts_s=60.0)
        async with limit, world.client(host.name) as client:
            await client.register(host)
            told = [each for each in edges if each.service == "service-007-3"]
            await client.alive(host.name, "1", edges, (wrong,) if told else ())

    async with trio.open_nursery() as nursery:
        for host, edges in mesh:
            nursery.start_soon(one, host, edges)


@pytest.mark.browser
@pytest.mark.timeout(300)
async def test_two_hundred_hosts_and_two_thousand_services_stay_usable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.server.edges.STALE", 600.0)  # they tell once only
    port = free_port()
    async with shown() as page, world.serving(telemetry=page_at(port), lease=600.0):
        await stand_up(world, large())
        await page.open(port)
        await page.until("#summary", lambda text: f"{HOSTS} hosts, {SERVICES} services" in text, "the mesh")
        count = f"{MOST_PAGE_ROWS} of {HOSTS * EDGES} edges, and {HOSTS * EDGES - MOST_PAGE_ROWS} that are less busy"
        await page.until("#shown", lambda text: text == count, "the busiest edges")
        whole = await page.size()
        assert whole < 12_000, "a browser has no trouble with so many elements, each second"
        assert await page.run("return document.querySelectorAll('#graph [role=button]').length") <= 36
        for table in ("edges", "services", "hosts"):
            assert await page.run(f"return document.querySelectorAll('#{table} tbody tr').length") == 101
        assert "and 1900 more" in await page.text("#services")

        # What is wrong is one line, though many say so.
        problems = await page.until("#problems", lambda text: "service-007-3" in text, "the problem")
        assert "told by" in problems
        assert "more" in problems
        assert since(problems) < time.time() - 59
        assert await page.run("return document.querySelectorAll('#problems tbody tr').length") == 1

        # The least busy host is not among the edges that were sent, and is found.
        box = await aside(lambda: page.browser.find_element(By.ID, "search"))
        await aside(lambda: box.send_keys("host-000"))
        await page.until("#edges", lambda text: "app-49" in text, "edges of the host that is looked for")
        await page.until("#hosts", lambda text: text.count("host-") == 1, "the host")
        assert await page.run("return document.activeElement.id") == "search"
        await aside(lambda: box.send_keys(Keys.CONTROL, "a"))
        await aside(lambda: box.send_keys("service-199-7"))
        services = await page.until("#services", lambda text: text.count("service-") == 1, "the service")
        assert "host-199" in services
        assert await page.size() < whole

        # By keyboard alone: from the search to the first name, which is chosen, and back to everything.
        await page.until("#graph", lambda text: "service-199-7" in text, "the drawing")

        def keys(*pressed: str) -> None:
            page.browser.switch_to.active_element.send_keys(*pressed)

        for _ in range(10):
            await aside(partial(keys, Keys.TAB))
            if await page.run("return document.activeElement.dataset.node ?? null"):
                break
        name = await page.run("return document.activeElement.dataset.node")
        await aside(partial(keys, Keys.ENTER))
        assert await page.run("return document.activeElement.dataset.node") == name, "it keeps the focus"
        assert await page.run("return document.activeElement.ariaPressed") == "true"
        await page.until("#shown", lambda text: text.startswith("1 of "), "its edges")
        await aside(partial(keys, Keys.SHIFT, Keys.TAB))
        await page.leave()


@pytest.mark.browser
@pytest.mark.timeout(240)
async def test_what_the_page_says_to_a_screen_reader(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshpage, "FRESH", 0.0)
    port = free_port()
    async with shown(width=500) as page, world.serving(telemetry=page_at(port)), world.client("host-a") as a:
        await a.register(record("host-a"))
        await page.open(port)
        await page.until("#fine", lambda text: "Nothing that the control plane or any host knows of" in text, "peace")
        wrong = ToldProblem(kind="host", name="host-b", text="Host host-b is down: no answer.", lasts_s=1.0)
        await a.alive("host-a", "1", (edge("host-a", "host-b"),), (wrong,))
        await page.until("#news", lambda text: text == wrong.text, "the announcement, once")
        await page.run("document.getElementById('news').textContent = ''")
        grown = re.compile(r"for ([3-9]|\d\d) s")  # a busy machine shows some seconds late
        await page.until("#problems", lambda text: grown.search(text) is not None, "an older problem")
        assert await page.text("#news") == "", "that it has grown older is no news"
        tree = await aside(lambda: page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {}))
        roles = [node["role"]["value"] for node in tree["nodes"] if "role" in node and not node["ignored"]]
        for role in ("table", "rowheader", "columnheader", "cell", "region", "status", "searchbox", "button", "main"):
            assert role in roles, role
        names = {node.get("name", {}).get("value") for node in tree["nodes"]}
        assert "host-b, something fails: show only this" in names
        wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert await page.run(wide), "in a narrow window only tables and the drawing scroll"
        await a.alive("host-a", "1", (), ())
        await page.until("#news", lambda text: text == "No longer wrong: host host-b.", "the end of it")
        await page.leave()
