from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from control.base.reading.addresses import TcpAddress
from proxy.demo import netns
from proxy.door import rooms as module
from proxy.door.desired import Desired, Room
from proxy.door.messages import End, Listener, Offer, Stock, Withdraw
from proxy.door.namespaces import cookie_of
from proxy.door.rooms import Rooms
from tests.door.conftest import DIRECTORY
from tests.tools.sockets import fds_since, open_fds

pytestmark = pytest.mark.netns
REDIS, WEB = TcpAddress("127.77.0.2", 6379), TcpAddress("127.0.0.1", 80)


class House:
    """Rooms, and what they have told."""

    def __init__(self) -> None:
        self.told: list[msgspec.Struct] = []
        self.sockets: list[socket.socket] = []
        self.rooms = Rooms(DIRECTORY, self._tell)

    def _tell(self, message: msgspec.Struct, sockets: list[socket.socket]) -> None:
        self.told.append(message)
        self.sockets += sockets

    async def become(self, *rooms: Room) -> list[msgspec.Struct]:
        """What was told for it."""
        self.told.clear()
        await self.rooms.become(Desired({room.container: room for room in rooms}, ()))
        return self.told


def room(name: str, id: str = "1", **what: Any) -> Room:
    return Room(id, f"name-{id}", name, **what)


def call(name: str, address: TcpAddress) -> None:
    with netns.make_socket(name) as caller:
        caller.connect((address.host, address.port))


async def test_a_container_comes_and_goes(namespace: Callable[[], str]) -> None:
    house, name = House(), namespace()
    before = open_fds()
    wanted = room(name, listeners={REDIS: "redis"}, offers={"web": WEB}, caller="shop")
    listener, offer = await house.become(wanted)
    [found] = house.rooms
    assert listener == Listener(found.cookie, "127.77.0.2:6379", "redis", "shop", "name-1")
    assert offer == Offer(found.cookie, "web", "127.0.0.1:80", "name-1")
    call(name, REDIS)
    assert await house.become(wanted) == []
    assert await house.become() == [End(found.cookie, "name-1")]
    with pytest.raises(ConnectionRefusedError):
        call(name, REDIS)
    assert not fds_since(before)


async def test_an_offer_that_is_withdrawn(namespace: Callable[[], str]) -> None:
    house = House()
    wanted = room(namespace(), offers={"web": WEB})
    await house.become(wanted)
    [found] = house.rooms
    assert await house.become(replace(wanted, offers={})) == [Withdraw(found.cookie, "web")]
    assert await house.become(wanted) == [Offer(found.cookie, "web", "127.0.0.1:80", "name-1")]
    moved = replace(wanted, offers={"web": REDIS})
    expected = [Withdraw(found.cookie, "web"), Offer(found.cookie, "web", "127.77.0.2:6379", "name-1")]
    assert await house.become(moved) == expected


async def test_a_container_that_was_restarted_has_another_namespace(namespace: Callable[[], str]) -> None:
    house, one, two = House(), namespace(), namespace()
    await house.become(room(one, listeners={REDIS: "redis"}))
    [before] = house.rooms
    end, listener = await house.become(room(two, listeners={REDIS: "redis"}))
    assert end == End(before.cookie, "name-1")
    assert isinstance(listener, Listener)
    assert listener.namespace != before.cookie
    call(two, REDIS)
    house.rooms.close()


async def test_two_containers_may_have_one_address(namespace: Callable[[], str]) -> None:
    house, one, two = House(), namespace(), namespace()
    await house.become(room(one, "1", listeners={REDIS: "a"}), room(two, "2", listeners={REDIS: "b"}))
    assert len({cookie_of(sock) for sock in house.sockets}) == 2
    house.rooms.close()


async def test_what_cannot_be_had_is_tried_again_and_said_once(
    namespace: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    house, name = House(), namespace()
    wanted = room(name, listeners={REDIS: "redis"})
    with netns.entered(name):
        taken = socket.create_server(("0.0.0.0", 6379))
    with taken:
        assert await house.become(wanted) == []
        assert house.rooms.unfinished
        [line] = house.rooms.problems
        assert line.startswith("container name-1: 127.77.0.2:6379: a program in the container listens there")
    [listener] = await house.become(wanted)
    assert isinstance(listener, Listener)
    assert (house.rooms.problems, house.rooms.unfinished) == ([], False)
    house.rooms.close()


async def test_nothing_is_said_of_a_container_that_is_just_ending(namespace: Callable[[], str]) -> None:
    house = House()
    assert await house.become(room("no-such-namespace", listeners={REDIS: "redis"})) == []
    assert (house.rooms.problems, house.rooms.unfinished) == ([], True)
    assert await house.become() == []
    assert not house.rooms.unfinished


async def test_without_ipv6_it_is_127_0_0_1_alone(namespace: Callable[[], str]) -> None:
    house, name = House(), namespace()
    netns.run(netns.inside(name, ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]))
    told = await house.become(room(name, listeners={WEB: "web", TcpAddress("::1", 80): "web"}))
    assert [message.listen for message in told if isinstance(message, Listener)] == ["127.0.0.1:80"]
    assert not house.rooms.unfinished
    house.rooms.close()


async def test_a_listener_that_a_proxy_has_kept(namespace: Callable[[], str]) -> None:
    """The door was away meanwhile."""
    before, house, name = House(), House(), namespace()
    wanted = room(name, listeners={REDIS: "redis"})
    await before.become(wanted)
    [kept] = [sock.dup() for sock in before.sockets]
    before.rooms.close()
    assert await house.become(wanted) == []
    assert house.rooms.unfinished
    [found] = house.rooms
    house.rooms.shown(found.cookie, "127.77.0.2:6379", kept)
    assert await house.become(wanted) == []
    assert not house.rooms.unfinished
    assert found.listeners[REDIS] is kept
    house.rooms.complete()
    unwanted = socket.socket()
    house.rooms.shown(found.cookie, "127.77.0.2:6379", unwanted)
    assert unwanted.fileno() < 0
    house.rooms.close()


async def test_a_listener_that_is_shown_before_its_container_is_seen(namespace: Callable[[], str]) -> None:
    before, house, name = House(), House(), namespace()
    wanted = room(name, listeners={REDIS: "redis"})
    await before.become(wanted)
    [found], [kept], unwanted = before.rooms, [sock.dup() for sock in before.sockets], socket.socket()
    before.rooms.close()
    house.rooms.shown(found.cookie, "127.77.0.2:6379", kept)
    house.rooms.shown(found.cookie, "127.77.0.2:9", unwanted)
    assert await house.become(wanted) == [Listener(found.cookie, "127.77.0.2:6379", "redis", "", "name-1")]
    house.rooms.complete()
    assert unwanted.fileno() < 0
    call(name, REDIS)
    house.rooms.close()


async def test_stock(namespace: Callable[[], str]) -> None:
    house, name = House(), namespace()
    await house.become(room(name, offers={"web": WEB}))
    [found] = house.rooms
    stock, sockets = await house.rooms.stock(found.cookie, 4, 10_000)
    assert (stock, len(sockets)) == (Stock(found.cookie, 4), 64)
    assert {cookie_of(sock) for sock in sockets} == {found.cookie}
    for sock in sockets:
        sock.close()
    netns.delete(name)
    assert await house.rooms.stock(found.cookie, 4, 1) == (Stock(found.cookie, 4), [])
    assert await house.rooms.stock(1, 4, 1) == (Stock(1, 4), [])
    assert found.gone
