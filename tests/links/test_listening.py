"""The sockets on which links arrive, when their interface goes and returns."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from control.base.reading.addresses import TcpAddress
from proxy.demo import netns
from proxy.errors import StartError
from proxy.links.device import LinkDevice
from proxy.links.listening import LinkListeners, bound_to
from tests.check.ground import Ground
from tests.tools.sockets import open_fds

pytestmark = [pytest.mark.netns, pytest.mark.failure("25")]

ADDRESS = TcpAddress("10.77.0.3", 7600)


@pytest.fixture
def ground() -> Iterator[Ground]:
    with Ground() as made:
        made.run(made.here, "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
        mv0(made)
        yield made


def mv0(ground: Ground) -> None:
    ground.macvlan(ground.here, "mv0", ground.here, f"{ADDRESS.host}/24")


def devices(listeners: LinkListeners) -> list[str]:
    return [bound_to(each.socket) for each in listeners.all]


class Acceptor:
    def __init__(self) -> None:
        self.reserved = False
        self.renewed = trio.Event()

    def renew_links(self) -> None:
        self.renewed.set()


def test_one_for_the_interface_and_one_for_this_host(ground: Ground) -> None:
    async def listen() -> None:
        listeners = LinkListeners(ADDRESS, LinkDevice(ADDRESS.host))
        listeners.open()
        assert devices(listeners) == ["mv0", "lo"]
        with socket.create_connection((ADDRESS.host, ADDRESS.port)):
            pass
        with pytest.raises(StartError, match="the port is in use"):
            LinkListeners(ADDRESS, LinkDevice(ADDRESS.host)).open()
        listeners.close()
        listeners.close()

    before = open_fds()
    with netns.entered(ground.here):
        trio.run(listen)
    assert open_fds() == before


@pytest.mark.parametrize("bound", [True, False])
def test_one_that_another_process_has_opened(ground: Ground, bound: bool) -> None:
    async def listen() -> None:
        theirs = socket.socket()
        if bound:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"mv0\0")
        theirs.bind((ADDRESS.host, ADDRESS.port))
        theirs.listen()
        listeners = LinkListeners(ADDRESS, LinkDevice(ADDRESS.host))
        listeners.open(theirs)
        assert devices(listeners) == []
        listeners.use()
        assert devices(listeners) == ["mv0", "lo"]
        listeners.close()

    with netns.entered(ground.here):
        trio.run(listen)


def test_a_named_interface_that_does_not_exist(ground: Ground) -> None:
    with netns.entered(ground.here), pytest.raises(StartError) as caught:
        LinkListeners(ADDRESS, LinkDevice(ADDRESS.host, "hl9")).open()
    assert str(caught.value) == "links.interface: there is no interface hl9"


@pytest.mark.parametrize("quiet_first", [True, False])
def test_it_follows_its_interface(ground: Ground, quiet_first: bool) -> None:
    """Made anew, or no longer answered for by its parent."""
    if not quiet_first:
        ground.run(ground.here, "echo 0 > /proc/sys/net/ipv4/conf/all/arp_ignore")

    async def follow() -> None:
        listeners, acceptor = LinkListeners(ADDRESS, LinkDevice(ADDRESS.host)), Acceptor()
        listeners.open()
        assert devices(listeners) == (["mv0", "lo"] if quiet_first else [""])
        first = listeners.all[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listeners.keep, acceptor)
            if quiet_first:
                ground.ip(ground.here, "link delete mv0")
                mv0(ground)
            else:
                ground.run(ground.here, "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
            with trio.fail_after(20):
                await acceptor.renewed.wait()
            nursery.cancel_scope.cancel()
        assert devices(listeners) == ["mv0", "lo"]
        assert (listeners.all[0] is first) == (not quiet_first)
        listeners.close()

    with netns.entered(ground.here):
        trio.run(follow)


def test_it_follows_its_address_to_another_interface(ground: Ground) -> None:
    """To one that links are bound to, to a NIC, and back."""
    ground.macvlan(ground.here, "mv1", ground.here, None)
    ground.ip(ground.here, "link set mv1 up")
    places = ["mv1", "eth0", "mv0"]

    async def follow() -> None:
        listeners, acceptor, before = LinkListeners(ADDRESS, LinkDevice(ADDRESS.host)), Acceptor(), "mv0"
        listeners.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listeners.keep, acceptor)
            for place in places:
                acceptor.renewed = trio.Event()
                ground.ip(ground.here, f"address delete {ADDRESS.host}/24 dev {before}",
                          f"address add {ADDRESS.host}/24 dev {place}")  # fmt: skip
                listeners.look_again()
                with trio.fail_after(20):
                    await acceptor.renewed.wait()
                assert devices(listeners) == ([""] if place == "eth0" else [place, "lo"])
                before = place
                with socket.create_connection((ADDRESS.host, ADDRESS.port), 20):
                    pass
                with pytest.raises(StartError, match="the port is in use"):
                    LinkListeners(ADDRESS, LinkDevice(ADDRESS.host)).open()
            nursery.cancel_scope.cancel()
        listeners.close()

    fds = open_fds()
    with netns.entered(ground.here):
        trio.run(follow)
    assert open_fds() == fds


@pytest.mark.parametrize("wanted", ["any", "mv1", "auto"])
def test_one_that_another_process_has_bound_to_another_interface(ground: Ground, wanted: str) -> None:
    """By another links.interface; `auto`: to one that was deleted and made anew. Without CAP_NET_RAW it stays so."""
    ground.macvlan(ground.here, "mv1", ground.here, f"{ADDRESS.host}/24" if wanted == "mv1" else None)

    async def listen() -> None:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"mv0\0")
        theirs.bind((ADDRESS.host, ADDRESS.port))
        theirs.listen()
        if wanted == "auto":
            ground.ip(ground.here, "link delete mv0")
            mv0(ground)
        device = LinkDevice(ADDRESS.host, wanted)
        listeners, acceptor = LinkListeners(ADDRESS, device), Acceptor()
        listeners.open(theirs)
        listeners.use()
        assert devices(listeners) == {"any": [""], "mv1": ["mv1", "lo"], "auto": ["mv0", "lo"]}[wanted]
        assert theirs.fileno() >= 0, "its process still accepts there"
        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listeners.keep, acceptor)
                while theirs.fileno() >= 0:
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
        assert theirs.fileno() < 0, "nobody accepts there any more"
        assert not device.look().why
        listeners.close()

    with netns.entered(ground.here):
        trio.run(listen)


async def test_it_leaves_what_is_bound_to_nothing_alone() -> None:
    listeners = LinkListeners(TcpAddress("127.0.0.1", 0), LinkDevice("127.0.0.1"))
    listeners.open()
    with trio.fail_after(20):
        await listeners.keep(Acceptor())
    assert devices(listeners) == [""]
    listeners.close()
