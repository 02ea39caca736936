"""Listening, refused, or nothing that says anything of the peer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from control.base.reading.addresses import TcpAddress
from proxy.links.carry import NothingSaid, hear
from proxy.links.device import LinkDevice
from proxy.links.probe import Answer, ask
from tests.links.wire import listening, silent
from tests.tools.sockets import fds_since, free_port, open_fds

pytestmark = pytest.mark.failure("23")


async def answer_of(address: TcpAddress, *, source: str | None = None, seconds: float = 20.0) -> Answer:
    """What comes of one question; nothing is left open."""
    before = open_fds()
    found = await ask(address, device=LinkDevice(source or "0.0.0.0"), seconds=seconds)
    assert not fds_since(before)
    return found


async def test_somebody_who_listens_takes_it_for_a_look() -> None:
    with listening() as (listener, address):
        assert await answer_of(address, source="127.0.0.1") is Answer.LISTENING
        stream = await listener.accept()
        with pytest.raises(NothingSaid):
            await hear(stream)
        await stream.aclose()


async def test_nobody_listens() -> None:
    assert await answer_of(TcpAddress("127.0.0.1", free_port())) is Answer.REFUSED


async def test_a_name_refuses_when_each_of_its_addresses_does() -> None:
    port = free_port()
    assert await answer_of(TcpAddress("localhost", port)) is Answer.REFUSED
    with socket.create_server(("127.0.0.1", port)):
        assert await answer_of(TcpAddress("localhost", port)) is Answer.LISTENING


class Names(trio.abc.HostnameResolver):
    """Any name has these addresses."""

    def __init__(self, *hosts: str) -> None:
        self._hosts = hosts

    async def getaddrinfo(self, host: object, port: object, *_: object, **__: object) -> Any:
        found = [(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in self._hosts]
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, port)) for family, each in found]

    async def getnameinfo(self, *_: object) -> Any:
        raise NotImplementedError


async def test_a_name_of_which_one_address_refuses_and_one_is_silent() -> None:
    trio.socket.set_custom_hostname_resolver(Names("127.0.0.2", "127.0.0.1"))
    with silent() as address:
        assert await answer_of(TcpAddress("two.example", address.port), seconds=1.0) is Answer.NONE


async def test_an_address_of_the_other_family_cannot_be_asked_and_does_not_count() -> None:
    trio.socket.set_custom_hostname_resolver(Names("127.0.0.1", "::1"))
    assert await answer_of(TcpAddress("both.example", free_port()), source="127.0.0.1") is Answer.REFUSED


async def test_silence_says_nothing() -> None:
    with silent() as address:
        assert await answer_of(address, seconds=0.2) is Answer.NONE


@pytest.mark.parametrize(
    ("host", "source"),
    [("127.0.0.1", "192.0.2.1"), ("no-such-host.invalid", None), ("127.0.0.1", "::1")],
    ids=["an address that is gone", "an unknown name", "another family"],
)
async def test_what_goes_wrong_on_this_host_says_nothing_of_the_peer(host: str, source: str | None) -> None:
    assert await answer_of(TcpAddress(host, free_port()), source=source) is Answer.NONE


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None is left to this process."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_it_says_nothing_of_the_peer() -> None:
    address = TcpAddress("127.0.0.1", free_port())
    with no_descriptors():
        found = await ask(address, device=LinkDevice("0.0.0.0"), seconds=20)
    assert found is Answer.NONE


async def test_cancelled() -> None:
    before = open_fds()
    with silent() as address:
        with trio.move_on_after(0.1) as scope:
            await ask(address, device=LinkDevice("0.0.0.0"), seconds=20)
        assert scope.cancelled_caught
    assert not fds_since(before)
