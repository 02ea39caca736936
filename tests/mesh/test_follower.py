"""A proxy that follows: what it is made equal to, when, and what it does when nobody tells it anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from control.api.mesh import SILENCE, HostRecord, MapChanges, MapHeartbeat, ServiceOffer, TrustBundle
from proxy.config.schema import Config, parse
from proxy.errors import NotApplied
from proxy.mesh.follower import APPLY_EVERY, ATTEMPTS, HELD_BACK, MapClient, MapFollower
from proxy.mesh.map import KEPT
from proxy.mesh.statelock import StateLock
from tests.mesh.plane import Plane, eventually, snapshot

pytestmark = pytest.mark.usefixtures("threadless")  # The map's file is read and written beside a clock that jumps.


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def record(letter: str, *services: str, instance: str = "1") -> HostRecord:
    offers = tuple(ServiceOffer(name=service) for service in services)
    return HostRecord(name=f"host-{letter}", address=f"10.0.0.{ord(letter)}:7600", instance=instance, services=offers)


class Proxy:
    """What is followed with; sockets of some services cannot be had."""

    def __init__(self, plane: MapClient, state_dir: Path, state: StateLock | None = None, **sections: Any) -> None:
        self.static = self.parse(state_dir, **sections)
        self.applied: list[Config] = []
        self.times: list[float] = []
        self.broken: set[str] = set()
        self.attempts = 0
        self.engaged = False
        self.renewed: list[str] = []
        self.trust: list[TrustBundle] = []
        self.follower = MapFollower(
            self.static,
            plane,
            instance=f"i1-{state_dir}" if state else "i1",
            version="0.1",
            apply=self.apply,
            renewed=self.renewed.append,
            trusted=self.trust.append,
            random=Random(1).random,
            state=state,
        )

    @staticmethod
    def parse(state_dir: Path, **sections: Any) -> Config:
        control = {"servers": ["10.0.0.9:7601"], "state_dir": str(state_dir)}
        base = {"host": "host-a", "links": {"listen": "10.0.0.1:7600"}, "control": control, "upstreams": "all"}
        return parse(json.dumps({**base, **sections}), "test.yaml")

    def apply(self, config: Config) -> None:
        self.attempts += 1
        if self.engaged:
            raise NotApplied(["another process is taking over"])
        if broken := sorted(self.broken & config.upstreams.keys()):
            raise NotApplied([f"cannot listen on {broken[0]}"])
        self.applied.append(config)
        self.times.append(trio.current_time())

    @property
    def peers(self) -> str:
        return "".join(name[-1] for name in self.applied[-1].peers)

    @property
    def upstreams(self) -> set[str]:
        return set(self.applied[-1].upstreams)


@asynccontextmanager
async def following(plane: Plane, state_dir: Path, **sections: Any) -> AsyncIterator[Proxy]:
    proxy = Proxy(plane, state_dir, **sections)
    async with trio.open_nursery() as nursery:
        await proxy.follower.begin()
        await nursery.start(proxy.follower.run)
        if not plane.down:
            await plane.asked("watch")
        yield proxy
        nursery.cancel_scope.cancel()


async def test_services_come_and_go(autojump_clock: MockClock, tmp_path: Path) -> None:
    plane = Plane()
    plane.first = snapshot(record("b", "redis"))
    async with following(plane, tmp_path, services={"own": {"deliver": "unix:/own"}}) as proxy:
        assert (proxy.peers, proxy.upstreams) == ("", {"own"})
        assert (await plane.asked("register"))[1].services == (ServiceOffer(name="own"),)
        await eventually(lambda: proxy.peers == "b", "host-b")
        assert proxy.upstreams == {"redis", "own"}
        plane.say(MapChanges(revision=2, put=(record("c", "web", "redis"),), gone=("host-b",)))
        await eventually(lambda: proxy.peers == "c", "host-c")
        assert proxy.upstreams == {"redis", "web", "own"}
        standing = proxy.follower.standing
        assert (standing.server, standing.last_error, standing.from_disk) == ("plane", None, False)


async def test_the_first_change_waits_for_nothing_and_a_burst_is_one(autojump_clock: MockClock, tmp_path: Path) -> None:
    plane = Plane()
    plane.first = snapshot()
    async with following(plane, tmp_path) as proxy:
        await plane.asked("watch")
        await trio.sleep(10)
        proxy.times.clear()
        began = trio.current_time()
        for revision in range(2, 102):
            plane.say(MapChanges(revision=revision, put=(record("b", f"s{revision}"),)))
            await trio.sleep(APPLY_EVERY / 10)
        await trio.sleep(10 * APPLY_EVERY)
        assert proxy.times[0] == pytest.approx(began, abs=APPLY_EVERY / 10)
        assert len(proxy.times) <= 12
        assert proxy.upstreams == {"s101"}


@pytest.mark.failure(11)
async def test_a_silent_watch_is_left(autojump_clock: MockClock, tmp_path: Path) -> None:
    plane = Plane()
    plane.first = snapshot(record("b", "redis"), revision=7)
    async with following(plane, tmp_path) as proxy:
        await plane.asked("watch", 2)
        assert SILENCE <= trio.current_time() <= SILENCE + 1
        assert plane.calls[-1] == ("watch", "one", 7)
        assert proxy.peers == "b"


@pytest.mark.failure(11)
async def test_nothing_is_lost_without_the_control_plane_nor_when_it_is_back_empty(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    plane = Plane()
    plane.first = snapshot(record("a"), record("b", "redis"), record("c", "redis"), revision=7)
    async with following(plane, tmp_path) as proxy:
        await eventually(lambda: proxy.peers == "bc", "both")
        plane.down = True
        plane.cut()
        await trio.sleep(300)
        assert proxy.peers == "bc"
        assert proxy.follower.standing.last_error == "no control server answers: plane: connection refused"
        plane.down, plane.epoch, plane.first = False, "two", snapshot(epoch="two")
        watches = plane.count("watch")
        await plane.asked("watch", watches + 1)
        await eventually(lambda: proxy.follower.map.unconfirmed, "the empty answer")
        assert proxy.peers == "bc"
        registered = plane.count("register")
        plane.say(MapChanges(revision=2, put=(record("b", "redis"),)))
        await plane.asked("register", registered + 1)
        for beat in range(int(KEPT / 5) + 1):
            await trio.sleep(5)
            plane.say(MapHeartbeat(revision=2 + beat))
        await eventually(lambda: proxy.peers == "b", "host-c left for good")


async def test_the_map_survives_the_proxy(autojump_clock: MockClock, tmp_path: Path) -> None:
    plane = Plane()
    plane.first = snapshot(record("b", "redis"), revision=7)
    async with following(plane, tmp_path / "state") as proxy:
        await eventually(lambda: proxy.peers == "b", "host-b")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    plane.down = True
    async with following(plane, tmp_path / "state") as proxy:
        assert (proxy.peers, proxy.upstreams) == ("b", {"redis"})
        assert proxy.follower.standing.from_disk
        assert proxy.follower.standing.heard_at is not None
        assert (await plane.asked("watch", plane.count("watch") + 1))[1:] == ("one", 7)
        plane.down = False
        plane.first = MapHeartbeat(revision=7)
        await eventually(lambda: proxy.follower.standing.server, "the watch")


@pytest.mark.parametrize("content", [b"rubbish", b'{"version":1}'])
async def test_a_map_that_is_none_is_one_warning(
    content: bytes, autojump_clock: MockClock, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    (tmp_path / "map.json").write_bytes(content)
    plane = Plane()
    plane.down = True
    async with following(plane, tmp_path, peers={"host-b": {"address": "10.0.0.2:1", "services": ["web"]}}) as proxy:
        assert (proxy.peers, proxy.upstreams) == ("b", {"web"})
    [warning] = [entry for entry in logs if "last map is of no use" in entry["event"]]
    assert str(tmp_path / "map.json") in warning["error"]
    assert (tmp_path / "map.json").read_bytes() == content, "nobody has told anything better"


async def test_a_map_that_cannot_be_saved_is_said_once(
    autojump_clock: MockClock, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    (tmp_path / "file").write_text("")
    plane = Plane()
    plane.first = snapshot(record("b", "redis"))
    async with following(plane, tmp_path / "file") as proxy:
        await eventually(lambda: proxy.peers == "b", "host-b")
        for revision in range(2, 9):
            plane.say(MapChanges(revision=revision, put=(record("b", f"s{revision}"),)))
            await trio.sleep(5)
    assert len([entry for entry in logs if entry["event"] == "the map is not on disk"]) == 1


async def test_a_socket_that_cannot_be_had_keeps_nothing_else(
    autojump_clock: MockClock, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    plane = Plane()
    plane.first = snapshot()
    names = [f"s{number}" for number in range(40)]
    async with following(plane, tmp_path) as proxy:
        proxy.broken = {"s7", "s23"}
        plane.say(MapChanges(revision=2, put=(record("b", *names),)))
        await eventually(lambda: proxy.applied and proxy.peers == "b", "host-b")
        assert proxy.upstreams == set(names) - proxy.broken
        left_out = proxy.follower.standing.left_out
        assert left_out == {name: f"service without a socket: cannot listen on {name}" for name in proxy.broken}
        proxy.broken = {"s7"}
        await trio.sleep(HELD_BACK + 1)
        assert proxy.upstreams == set(names) - {"s7"}
        await trio.sleep(10 * HELD_BACK)
    said = [entry["services"] for entry in logs if entry["event"] == "no socket for some services"]
    assert [sorted(services) for services in said] == [["s23", "s7"]]


async def test_very_many_of_them_cost_a_bounded_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    plane = Plane()
    plane.first = snapshot()
    names = [f"s{number}" for number in range(1000)]
    async with following(plane, tmp_path) as proxy:
        proxy.broken = set(names)
        proxy.attempts = 0
        plane.say(MapChanges(revision=2, put=(record("b", *names), record("c"))))
        await eventually(lambda: proxy.applied and proxy.peers == "bc", "both")
        assert proxy.upstreams == set()
        assert proxy.attempts <= ATTEMPTS + 2


async def test_who_is_another_process_is_told(autojump_clock: MockClock, tmp_path: Path) -> None:
    plane = Plane()
    plane.first = snapshot(record("b"), record("c"))
    async with following(plane, tmp_path) as proxy:
        trust = TrustBundle(bundle="pem")
        plane.say(MapChanges(revision=2, put=(record("b", instance="2"), record("c"), record("d")), trust=trust))
        await eventually(lambda: proxy.applied and proxy.peers == "bcd", "all")
        assert proxy.renewed == ["host-b"]
        assert proxy.trust == [trust]


async def test_another_file_for_the_same_map(autojump_clock: MockClock, tmp_path: Path) -> None:
    plane = Plane()
    plane.first = snapshot(record("a"), record("b", "redis"))
    async with following(plane, tmp_path) as proxy:
        await eventually(lambda: proxy.peers == "b", "host-b")
        proxy.follower.rebase(Proxy.parse(tmp_path, services={"web": {"deliver": "unix:/web"}}))
        assert proxy.upstreams == {"redis", "web"}
        assert (await plane.asked("register", 2))[1].services == (ServiceOffer(name="web"),)
        proxy.broken = {"shop"}
        with pytest.raises(NotApplied):
            proxy.follower.rebase(Proxy.parse(tmp_path, services={"shop": {"deliver": "unix:/shop"}}))
        plane.say(MapChanges(revision=2, put=(record("c", "redis"),)))
        await eventually(lambda: proxy.peers == "bc", "host-c")
        assert proxy.upstreams == {"redis", "web"}, "as before"


async def test_a_proxy_that_can_follow_nothing_for_now_does_so_later(
    autojump_clock: MockClock, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    plane = Plane()
    plane.first = snapshot()
    async with following(plane, tmp_path) as proxy:
        proxy.engaged = True
        plane.say(MapChanges(revision=2, put=(record("b", "redis"),)))
        await trio.sleep(10)
        assert proxy.peers == ""
        assert [entry["event"] for entry in logs].count("the map cannot be followed for now") == 1
        proxy.engaged = False
        await eventually(lambda: proxy.peers == "b", "host-b")


@pytest.mark.failure("31")
async def test_what_a_message_costs_does_not_grow_with_the_map(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Only what it names is looked at, and for a heartbeat nothing."""
    plane = Plane()
    plane.first = snapshot(record("b"), record("c", "redis"))
    async with following(plane, tmp_path) as proxy:
        await eventually(lambda: proxy.applied and proxy.peers == "bc", "both")
        found = proxy.follower.map.hosts = Watched(proxy.follower.map.hosts)
        plane.say(MapHeartbeat(revision=1))
        plane.say(MapChanges(revision=2, put=(record("b", "web"),), gone=("host-x",)))
        await eventually(lambda: "web" in proxy.upstreams, "the change")
        assert found.whole == 1, "when the proxy is made equal to it, and no message is taken in"
        assert "host-c" not in found.looked_at


class Watched(dict[str, HostRecord]):
    """A map that knows how it was looked at: how often as a whole, and for whom."""

    whole = 0

    def __init__(self, hosts: dict[str, HostRecord]) -> None:
        super().__init__(hosts)
        self.looked_at: set[object] = set()

    def __iter__(self) -> Iterator[str]:
        self.whole += 1
        return super().__iter__()

    def get(self, name: object, default: object = None) -> Any:
        self.looked_at.add(name)
        return super().get(name, default)  # type: ignore[call-overload]


@pytest.mark.failure("31")
async def test_who_does_not_answer_and_what_was_lost_are_told_apart(
    autojump_clock: MockClock, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    """With the same words, too: neither line hides the other, whichever comes first."""
    plane = Plane()
    plane.first = snapshot()
    error = "no control server answers: plane: connection refused"
    async with following(plane, tmp_path) as proxy:
        await eventually(lambda: proxy.follower.standing.server, "followed")
        plane.down = True
        plane.cut()
        watches = plane.count("watch")
        await eventually(lambda: plane.count("watch") > watches, "asked again")
        for _ in range(3):
            proxy.follower.unanswered(error)
            watches = plane.count("watch")
            await eventually(lambda watches=watches: plane.count("watch") > watches + 1, "asked again")
        assert proxy.follower.standing.last_error == error
    lost = [each for each in logs if each["event"].startswith("not following") and each["log_level"] == "warning"]
    assert [each["error"] for each in lost] == ["plane: the server ended the watch", error]
    assert all(each["kind"] == () for each in lost), "what goes to and fro is a line a minute"
    assert sum(each["event"].startswith("no control server answers") for each in logs) == 3


@pytest.mark.failure("31")
async def test_services_that_come_and_go_leave_a_line(
    autojump_clock: MockClock, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    plane = Plane()
    plane.first = snapshot(record("b", "redis"), revision=1)
    async with following(plane, tmp_path) as proxy:
        await eventually(lambda: "host-b" in proxy.follower.map.hosts, "the first map, which is no news")
        plane.say(MapChanges(revision=2, put=(record("b", "redis", "web"), record("c", "db")), gone=()))
        await eventually(lambda: "host-c" in proxy.follower.map.hosts, "two services more")
        plane.say(MapChanges(revision=3, put=(), gone=("host-c",)))
        await eventually(lambda: "host-c" not in proxy.follower.map.hosts, "one of them is gone")
    told = [(each["event"], each["host"], each["services"]) for each in logs if each["event"].startswith("services ")]
    assert sorted(told) == [
        ("services gone", "host-c", ["db"]),
        ("services offered", "host-b", ["web"]),
        ("services offered", "host-c", ["db"]),
    ]
