"""Links that are lost under live streams: by the cable, by a reset, by a peer that is half gone, by an address that
changes, by packets that vanish. Streams go on, byte for byte, or end for one reason and in time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy.demo import netns
from proxy.demo.lab import Lab, LabHost
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, PORT, World, kill_links
from tests.tools.sockets import eventually, exchange, read_exactly, read_to_end

# The benchmarks' programs are no part of what is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import loadrun
from benchmarks.build import build
from benchmarks.loadrun import Phase, Target

pytestmark = [pytest.mark.netns, pytest.mark.failure(7)]

FAST = {"ping_interval": "500ms", "ping_timeout": "1s", "dial_timeout": "1s"}
PATIENT = {"open_timeout": "1m"}
STREAMS = "ping=198,bulk=1,source=1"
SECONDS = 60.0
PULLS = (0.1, 5.0, 0.3, 1.0, 3.0, 0.5, 2.0, 0.2, 4.0, 1.5)
"""Seconds that the cable is out; in between the connection is killed, each time after REST seconds."""
REST = (SECONDS - sum(PULLS) - 3) / (2 * len(PULLS))


def world(lab: Lab, mtls: bool = False, *, echo: bool = True, listen: str | None = None, **links: Any) -> World:
    own = {"listen": listen} if listen else {}
    sections = {"links": {**FAST, "resume_timeout": "1m", **links, **own}, "limits": PATIENT}
    return World(lab, echo=echo, mtls=mtls, more=sections)


@contextmanager
def rules(host: LabHost, *wanted: str, hook: str = "input") -> Iterator[None]:
    """nft rules for TCP packets that a host gets (or sends), as long as the block lasts."""
    nft = host.command(["nft"])
    netns.run([*nft, "add table ip lost"])
    try:
        netns.run([*nft, f"add chain ip lost wire {{ type filter hook {hook} priority 0; }}"])
        for rule in wanted:
            netns.run([*nft, f"add rule ip lost wire meta l4proto tcp {rule}"])
        yield
    finally:
        netns.run([*nft, "delete table ip lost"])


def peer(side: World, host: str) -> dict[str, Any]:
    found: dict[str, Any] = side.ask(host, "status")["peers"][0]
    return found


def resumed(side: World) -> int:
    return sum(peer(side, host)["resumed"] for host in ("a", "b"))


async def hurt(lab: Lab) -> None:
    """Ten kills and ten pulls, at both ends in turn."""
    for number, seconds in enumerate(PULLS):
        await trio.sleep(REST)
        await trio.to_thread.run_sync(kill_links, lab.hosts[number % 2])
        await trio.sleep(REST)
        host = lab.hosts[number // 2 % 2]
        host.cable_down()
        try:
            await trio.sleep(seconds)
        finally:
            host.cable_up()


@pytest.mark.timeout(300)  # it takes more than a minute by itself: SECONDS, and two proxies to start and to stop
@pytest.mark.parametrize("mtls", [False, True])
async def test_200_streams_over_ten_pulled_cables_and_ten_killed_connections(lab: Lab, mtls: bool) -> None:
    """Messages there and back on 198 of them, bulk in one direction each on two; the load client checks every byte."""
    programs = build()
    with world(lab, mtls, echo=False) as both:
        server = [str(programs.echo), "--seconds", "110", "--listen", both.deliver("unix")]
        process = lab.b.popen(server)
        eventually(lambda: os.path.exists(both.deliver("unix").removeprefix("unix:")), "the server")
        target, ready = Target(tuple(lab.a.command([])), both.listen("unix")), trio.Event()
        token = trio.lowlevel.current_trio_token()
        figures: list[loadrun.Figures] = []

        def load() -> None:
            figures.extend(
                loadrun.run(
                    str(programs.load),
                    target,
                    [Phase(SECONDS, STREAMS)],
                    ready_within=20,
                    on_ready=lambda: token.run_sync_soon(ready.set),
                )
            )

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, load)
                await ready.wait()
                await hurt(lab)
        finally:
            process.kill()
            process.wait()
        assert figures[0].errors == 0
        assert min(figures[0].round_trips, figures[0].bulk_bytes, figures[0].source_bytes) > 0
        assert resumed(both) >= 2 * len(PULLS)
        for proxy in (both.a, both.b):
            assert proxy.events("link down", reason="link_lost")
            assert not proxy.events("session ended")
            assert not proxy.events("stream ended", level="warning")


def test_the_commands_show_what_is_suspended_and_what_was(lab: Lab) -> None:
    with world(lab) as both, both.call("unix") as client:
        exchange(client, b"before")
        lab.a.cable_down()
        try:
            eventually(lambda: peer(both, "a")["suspended"] == peer(both, "b")["suspended"] == 1, "the loss")
            [link], [stream] = both.ask("a", "links"), both.ask("a", "streams")
            assert link["suspended_s"] > 0
            assert "peer_timeout" in link["suspended_why"]
            assert stream["suspended"]
            assert peer(both, "a")["links"] == 0
            client.sendall(b"in between")
        finally:
            lab.a.cable_up()
        assert read_exactly(client, 10) == b"in between"
        for host in "ab":
            [link] = both.ask(host, "links")
            # On a busy machine pings that hurry as these do may lose a link once more.
            assert (link["resumed"] >= 1, link["suspended_s"]) == (True, None)
        both.a.wait_for("link up", resumed=1)


@pytest.mark.failure(6)
def test_a_peer_that_was_restarted_is_recognised_at_once(lab: Lab) -> None:
    """Either proxy is killed and started again, long before the time for resuming is over."""
    with world(lab, resume_timeout="1h", refused_timeout="1h", ping_timeout="5s") as both:
        for proxy, other in ((both.b, both.a), (both.a, both.b)):
            with Callers(Caller(number, both.call(KINDS[number % 2])) for number in range(8)) as callers:
                callers.all_talk()
                seen = len(other.log)
                proxy.kill()
                other.wait_for("link down", since=seen)
                assert not other.events("session ended")[:-1]
                proxy.restart()
                assert other.wait_for("session ended", since=seen)["reason"] == "peer_restarted"
                # Not the first that has ended since: the callers before may still be on their way out.
                other.wait_for("stream ended", since=seen, reason="peer_restarted")
                # A proxy that is killed with bytes of a unix caller unread resets that one, too.
                assert {"reset"} <= callers.endings() <= {"end", "reset"}
            with both.call("unix") as client:
                exchange(client, b"the next one")
        both.wait_until_idle()


def test_after_the_time_streams_end_on_both_hosts(lab: Lab) -> None:
    with world(lab, resume_timeout="1s") as both:
        with Callers(Caller(number, both.call(KINDS[number % 2])) for number in range(8)) as callers:
            callers.all_talk()
            lab.b.cable_down()
            try:
                assert callers.endings() == {"end", "reset"}
                for proxy in (both.a, both.b):
                    ended = proxy.wait_for("session ended")
                    assert (ended["reason"], ended["streams"]) == ("resume_timeout", 8)
                    assert proxy.wait_for("stream ended")["reason"] == "resume_timeout"
                assert both.counts() == {"a": 0, "b": 0}
            finally:
                lab.b.cable_up()
        with both.call("unix") as client:
            exchange(client, b"the next one")


@pytest.mark.failure(11)
@pytest.mark.parametrize("mtls", [False, True])
def test_the_dialling_host_gets_another_address(lab: Lab, mtls: bool) -> None:
    move = ["ip", "-n", lab.a.netns, "address"]
    with world(lab, mtls, listen=f"0.0.0.0:{PORT}") as both, Callers(
        Caller(number, both.call("unix")) for number in range(4)
    ) as callers:
        callers.all_talk()
        netns.run([*move, "delete", f"{lab.a.address}/24", "dev", "mv0"])
        netns.run([*move, "add", "10.77.0.11/24", "dev", "mv0"])
        try:
            callers.all_talk()
            [link] = both.ask("b", "links")
            assert (link["remote"].rpartition(":")[0], link["resumed"] >= 1) == ("10.77.0.11", True)
        finally:
            netns.run([*move, "delete", "10.77.0.11/24", "dev", "mv0"])
            netns.run([*move, "add", f"{lab.a.address}/24", "dev", "mv0"])
        callers.all_talk()
        for caller in callers:
            caller.stop()
        assert callers.endings() == {"stopped"}


@pytest.mark.failure(6)
def test_a_peer_that_has_not_noticed(lab: Lab) -> None:
    """host-a's end is gone and nothing tells host-b, whose pings are rare: it finds its dead link in the way."""
    slow = {"ping_interval": "10m", "ping_timeout": "10m", "max_per_peer": 1}
    with world(lab, **slow) as both, Callers(Caller(number, both.call("unix")) for number in range(4)) as callers:
        callers.all_talk()
        with rules(lab.a, "tcp flags & rst == rst drop", hook="output"):
            kill_links(lab.a)
            both.b.wait_for("link down", detail="the peer goes on over another link")
            callers.all_talk()
        assert not both.b.events("stream ended", level="warning")
        for caller in callers:
            caller.stop()
        assert callers.endings() == {"stopped"}


def test_a_wire_that_loses_packets(lab: Lab) -> None:
    with world(lab) as both, Callers(Caller(number, both.call("unix")) for number in range(8)) as callers:
        for share in (10, 40):
            with rules(lab.a, f"numgen random mod 100 < {share} drop"):
                callers.all_talk(10)
        callers.all_talk()
        for caller in callers:
            caller.stop()
        assert callers.endings() == {"stopped"}
        assert not both.a.events("stream ended", level="warning")


BLACK_HOLE = "ip length > 1000 drop"
HASTY = {"ping_interval": "300ms", "ping_timeout": "300ms"}


@pytest.mark.failure(14)
def test_a_black_hole_for_large_packets_is_noticed_and_left(lab: Lab) -> None:
    """In one direction, so that host-a goes on hearing of host-b. Either of them notices, host-a what is not answered
    or host-b the silence, and tells the other by closing. The message arrives when the hole is gone.
    """
    large = bytes(range(256)) * 400
    with world(lab, **HASTY) as both, both.call("unix") as client:
        exchange(client, b"small")
        with rules(lab.b, BLACK_HOLE):
            exchange(client, b"small ones pass")
            client.sendall(large)
            both.a.wait_for("link down")
            eventually(
                lambda: any(proxy.events("link down", reason="peer_timeout") for proxy in (both.a, both.b)),
                "one of them has noticed",
            )
        assert read_exactly(client, len(large)) == large


@pytest.mark.failure(14)
def test_a_black_hole_that_stays_ends_what_is_in_it(lab: Lab) -> None:
    """Every new link comes up, since HELLO is small. It does not count as long as nothing more arrives on it."""
    with world(lab, **HASTY, resume_timeout="4s") as both:
        with rules(lab.b, BLACK_HOLE), both.call("tcp") as client:
            client.sendall(b"x" * 100_000)
            assert read_to_end(client).reset
            ended = both.a.wait_for("stream ended", level="warning")
            assert ended["reason"] == "resume_timeout"
            assert len(both.a.events("link up")) > 2
            assert "do large packets get through? (hostlane check)" in both.a.wait_for("session ended")["detail"]
        with both.call("tcp") as client:
            exchange(client, b"y" * 100_000)
