"""Numbers over a takeover: packet by packet, and with whole proxies."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from control.base.exposition import Readings
from proxy.agent import agent as agent_module
from proxy.telemetry.metrics import catalog, handedon
from proxy.telemetry.metrics.handedon import ROWS, CountsOfOthers, CountTeller
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until
from tests.telemetry.metrics.told import Told, both, converse, scrape
from tests.tools.sockets import PATIENCE

ENDED, OPEN, WAIT = catalog.STREAMS_ENDED, catalog.STREAMS_OPEN, catalog.STREAM_WAIT
STREAM = ("echo", "host-b", "outbound")


def others() -> CountsOfOthers:
    return CountsOfOthers(lambda family, labels: labels, lambda family, labels: True)


class Old:
    """A process that ends with its streams, and the one that it tells."""

    def __init__(self) -> None:
        self.readings = Readings()
        self.teller = CountTeller(self._read)
        self.other = others()
        self.packets: list[bytes] = []
        self.room = 1 << 30

    async def _read(self) -> Readings:
        return self.readings

    async def say(self, packet: bytes) -> None:
        if not self.room:
            raise BrokenPipeError
        self.room -= 1
        self.packets.append(packet)
        self.other.heard("old", packet)

    async def told(self) -> Readings:
        """What the other one knows when more has been told."""
        await self.teller.tell(self.say)
        found = Readings()
        await self.other.add_to(found)
        return found


async def test_counters_are_told_as_what_is_new_and_gauges_as_they_are() -> None:
    old = Old()
    old.readings.add(ENDED, 5, *STREAM, "finished")
    old.readings.add(OPEN, 3, *STREAM)
    old.readings.add(catalog.PEER_UP, 1, "host-b")  # of the one that accepts alone
    old.readings.buckets(catalog.PUMP_TURN, catalog.BOUNDS[catalog.PUMP_TURN.name], [2, 0, 0, 0, 0, 0, 0, 1], 0.5, ())
    first = await old.told()
    assert first.numbers == {ENDED: {(*STREAM, "finished"): 5}, OPEN: {STREAM: 3}}
    assert first.histograms[catalog.PUMP_TURN][()].counts == [2, 0, 0, 0, 0, 0, 0, 1]
    old.readings.numbers[ENDED][*STREAM, "finished"] = 7
    old.readings.numbers[OPEN][STREAM] = 1
    for _ in range(2):
        second = await old.told()
        assert second.numbers == {ENDED: {(*STREAM, "finished"): 7}, OPEN: {STREAM: 1}}
        assert second.histograms[catalog.PUMP_TURN][()].counts == [2, 0, 0, 0, 0, 0, 0, 1]
    old.other.ended("old")
    last = Readings()
    await old.other.add_to(last)
    assert last.numbers == {ENDED: {(*STREAM, "finished"): 7}, OPEN: {}} or OPEN not in last.numbers
    assert last.numbers[ENDED][*STREAM, "finished"] == 7


async def test_a_counter_at_0_does_not_vanish() -> None:
    old = Old()
    old.readings.add(ENDED, 0, *STREAM, "finished")
    old.readings.buckets(WAIT, catalog.BOUNDS[WAIT.name], [0] * 12, 0.0, ("echo",))
    for _ in range(2):
        found = await old.told()
        assert found.numbers == {ENDED: {(*STREAM, "finished"): 0}}
        assert found.histograms[WAIT][("echo",)].counts == [0] * 12
    assert len(old.packets[1]) < len(old.packets[0])


@pytest.mark.parametrize("stops", [[1], [2, 1, 1], [0, 1, 0, 2, 1]])
async def test_what_was_not_sent_is_told_next_time_and_nothing_twice(stops: Iterable[int]) -> None:
    old = Old()
    for number in range(5 * ROWS):
        old.readings.add(ENDED, number + 1, f"s{number}", "p", "outbound", "finished")
    for room in stops:
        old.room = room
        with pytest.raises(BrokenPipeError):
            await old.teller.tell(old.say)
    old.room = 1 << 30
    found = await old.told()
    assert sum(found.numbers[ENDED].values()) == sum(range(1, 5 * ROWS + 1))
    assert max(map(len, old.packets)) < 64 * 1024


async def test_a_scrape_waits_for_the_first_words_and_not_for_ever(autojump_clock: trio.abc.Clock) -> None:
    for comes in (True, False):
        old = Old()
        old.readings.add(ENDED, 5, *STREAM, "finished")
        assert not old.other.waiting
        old.other.expect(trio.current_time() + 3)
        began = trio.current_time()
        found = Readings()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.other.add_to, found)
            await trio.sleep(1)
            assert old.other.waiting
            if comes:
                await old.teller.tell(old.say)
        assert trio.current_time() - began == (1 if comes else 3)
        assert not old.other.waiting
        assert (ENDED in found.numbers) == comes


async def test_what_is_forgotten_here_is_forgotten() -> None:
    known = True
    other = CountsOfOthers(lambda family, labels: labels, lambda family, labels: known)
    old = Old()
    old.other = other
    old.readings.add(ENDED, 5, *STREAM, "finished")
    old.readings.buckets(WAIT, catalog.BOUNDS[WAIT.name], [1] * 12, 1.0, ("echo",))
    assert (await old.told()).series == 1 + 12 + 2
    known = False
    assert (await old.told()).series == 0


@given(st.binary(max_size=200))
def test_any_packet(packet: bytes) -> None:
    with capture_logs():
        others().heard("old", packet)


def test_families_of_another_version_are_ignored() -> None:
    other = others()
    rows = [("hostlane_things", ["a"], 5), (ENDED.name, ["too", "few"], 5), (ENDED.name, [*STREAM, "finished"], -5)]
    packet = handedon._encode(
        (True, True, rows, [("hostlane_things_seconds", [], [1], 1.0), (WAIT.name, ["a"], [1], 1.0)])
    )
    other.heard("old", packet)
    assert other._counted.series == 0


async def _takeover(hosts: Mesh, near: int) -> None:
    upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
    sections = {**hosts.peers(b=["echo"]), "upstreams": upstreams, "telemetry": {"listen": f"127.0.0.1:{near}"}}
    hosts.agents.pop("host-a old", None)
    old = await hosts.takeover("host-a", sections)
    await until(lambda: old.draining.began, "it has let go")


def _never_less(before: Told, after: Told) -> None:
    """No counter has gone down."""
    now = {(s.name, *sorted(s.labels.items())): s.value for s in after.samples}
    for family in before.families.values():
        for sample in family.samples:
            if family.type in ("counter", "histogram"):
                key = (sample.name, *sorted(sample.labels.items()))
                assert now.get(key, -1.0) >= sample.value, key


async def until_told(near: int, name: str, value: float, **labels: str) -> Told:
    """The first scrape that says so: what other processes have is told every second."""
    with trio.fail_after(PATIENCE):
        while (found := await scrape(near))(name, **labels) != value:
            await trio.sleep(0.1)
    return found


async def test_counters_go_on_in_the_next_process_and_in_the_one_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "PATIENCE", PATIENCE)  # however busy this machine is
    async with mesh() as hosts:
        service, near, _ = await both(hosts)
        for _ in range(3):
            await converse(hosts, service)
        caller = hosts.call()
        end = await service.accept()
        await caller.send(b"before")
        await end.read(6)
        told = await scrape(near)
        stream = {"service": "echo", "peer": "host-b", "direction": "outbound"}
        assert told("hostlane_streams_opened_total", service="echo", direction="outbound") == 4
        first = hosts.agents["host-a"]
        for number in (1, 2):
            await _takeover(hosts, near)
            after = await scrape(near)
            _never_less(told, after)
            assert after("hostlane_streams_opened_total", service="echo", direction="outbound") == 3 + number
            await converse(hosts, service)
            told = await scrape(near)
            assert told("hostlane_streams_opened_total", service="echo", direction="outbound") == 4 + number
            told = await until_told(near, "hostlane_streams_open", 1, **stream)
        await caller.send(b"and after")
        await end.read(9)
        caller.close()
        await end.rest()
        end.close()
        await until(lambda: not first.stats.open, "the last stream of the first process has ended")
        told = await until_told(near, "hostlane_streams_ended_total", 6, **stream)
        assert told("hostlane_stream_sent_bytes_total", **stream) == 5 * 7 + 15
        assert told("hostlane_stream_wait_seconds_count", service="echo") == 6
