"""The sockets on which links arrive, when their interface goes and returns."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from control.base.reading.addresses import TcpAddress
from proxy.demo import netns
from proxy.errors import StartError
from proxy.links.device import LinkDevice
from proxy.links.listening import LOOK_EVERY, REST, LinkListeners, bound_to
from tests.check.ground import Ground
from tests.tools.sockets import fds_since, open_fds

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
    assert not fds_since(before)


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


LATE = {
    "the address": ("auto", ["link delete mv0"], "no interface has that address", ["mv0", "lo"]),
    "the address, of a NIC": ("auto", ["link delete mv0", "address add 10.77.0.3/24 dev eth0"], "", [""]),
    "the interface that is named": ("mv0", ["link delete mv0"], "there is no interface mv0", ["mv0", "lo"]),
    "the address of the one that is named": (
        "mv0",
        ["address delete 10.77.0.3/24 dev mv0"],
        "mv0 does not have 10.77.0.3",
        ["mv0", "lo"],
    ),
}


@pytest.mark.failure("30")
@pytest.mark.parametrize("what", LATE)
def test_what_comes_late_is_waited_for(ground: Ground, what: str) -> None:
    """It is said once, and what is missing can be asked. A NIC's address is there before anybody looks again."""
    wanted, before, why, after = LATE[what]
    ground.ip(ground.here, *before[:1])

    async def follow() -> None:
        listeners, acceptor, came = LinkListeners(ADDRESS, LinkDevice(ADDRESS.host, wanted)), Acceptor(), trio.Event()
        listeners.came = came.set
        listeners.open()
        assert devices(listeners) == []
        assert listeners.missing == (
            f"links.listen: 10.77.0.3:7600: {why or LATE['the address'][2]}: peers cannot reach this host"
        )
        async with trio.open_nursery() as nursery:
            with capture_logs() as logs:
                nursery.start_soon(listeners.keep, acceptor)
                await trio.sleep(2 * LOOK_EVERY)
                assert not acceptor.renewed.is_set()
                if why:
                    mv0(ground) if "delete mv0" in before[0] else ground.ip(ground.here, UNDO)
                else:
                    ground.ip(ground.here, *before[1:])
                with trio.fail_after(20):
                    await acceptor.renewed.wait()
            assert came.is_set()
            nursery.cancel_scope.cancel()
        assert [entry["event"] for entry in logs if entry["event"] != "links go through their interface"] == [
            "waiting for the links' address",
            "the links' address is there: listening",
        ]
        assert (devices(listeners), listeners.missing) == (after, "")
        with socket.create_connection((ADDRESS.host, ADDRESS.port), 20):
            pass
        listeners.close()

    fds = open_fds()
    with netns.entered(ground.here):
        trio.run(follow)
    assert open_fds() == fds


UNDO = "address add 10.77.0.3/24 dev mv0"


@pytest.mark.failure("30")
def test_a_port_that_is_taken_when_the_address_comes(ground: Ground) -> None:
    """It cannot be an error that ends the proxy any more."""
    ground.ip(ground.here, "address delete 10.77.0.3/24 dev mv0")

    async def follow() -> None:
        listeners, acceptor = LinkListeners(ADDRESS, LinkDevice(ADDRESS.host)), Acceptor()
        listeners.open()
        ground.ip(ground.here, UNDO)
        other = socket.create_server((ADDRESS.host, ADDRESS.port))
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listeners.keep, acceptor)
                await trio.sleep(3 * LOOK_EVERY)
                assert listeners.missing.endswith("the port is in use: is another proxy running?")
                other.close()
                with trio.fail_after(20):
                    await acceptor.renewed.wait()
                nursery.cancel_scope.cancel()
        said = [entry["error"] for entry in logs if entry["event"] == "waiting for the links' address"]
        assert len(said) == 2
        assert listeners.missing == ""
        listeners.close()

    with netns.entered(ground.here):
        trio.run(follow)


@pytest.mark.failure("30")
def test_an_address_that_goes_while_it_listens_is_missing(ground: Ground) -> None:
    async def follow() -> None:
        listeners, acceptor = LinkListeners(ADDRESS, LinkDevice(ADDRESS.host)), Acceptor()
        listeners.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listeners.keep, acceptor)
            for command, missing in (("address delete 10.77.0.3/24 dev mv0", True), (UNDO, False)):
                ground.ip(ground.here, command)
                listeners.look_again()
                with trio.fail_after(20):
                    while bool(listeners.missing) != missing:
                        await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        listeners.close()

    with netns.entered(ground.here):
        trio.run(follow)


@pytest.mark.parametrize("quiet_first", [True, False])
def test_it_follows_its_interface(ground: Ground, quiet_first: bool) -> None:
    """Made anew, or no longer answered for by its parent; nobody tells of it."""
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
        trio.run(follow, clock=trio.testing.MockClock(rate=20))


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


async def test_it_leaves_what_is_bound_to_nothing_alone(autojump_clock: trio.testing.MockClock) -> None:
    listeners = LinkListeners(TcpAddress("127.0.0.1", 0), LinkDevice("127.0.0.1"))
    listeners.open()
    acceptor, [first] = Acceptor(), listeners.all
    with trio.move_on_after(10 * REST):
        await listeners.keep(acceptor)
    assert (devices(listeners), listeners.all) == ([""], [first])
    assert not acceptor.renewed.is_set()
    listeners.close()
