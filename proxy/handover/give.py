"""The old side: offers its listening sockets to a process that comes for them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import structlog
import trio

from proxy.handover.parcel import VERSION, HandoverError, Offer, Socket, Word, check_peer, expect, send
from proxy.links.door import Door, serve_behind
from proxy.outbound.sockets import Heirloom

log = structlog.get_logger()

GETTING_READY = 120.0
"""Seconds that the new process may take to get ready: its interfaces may need a while to come up (up_timeout)."""
ANSWER = 5.0
"""Seconds that it may take for one word then; meanwhile nobody accepts anything."""


class Offered(NamedTuple):
    """A listening socket, and what it is for (proxy/handover/inheritance.py)."""

    kind: str
    address: str
    heirloom: Heirloom


class Estate(Protocol):
    """The proxy whose sockets these are."""

    @property
    def host(self) -> str:
        """Its name."""

    def engage(self) -> str | None:
        """Why nobody can take it over now; None: somebody can, and it listens on the same until `keep` or `leave`."""

    def sockets(self) -> Iterable[Offered]:
        """All that it listens on."""

    def hold(self, pid: int) -> str | None:
        """Accept nothing more for now: process `pid` is about to. Returns why not, if it cannot be taken over any more;
        then it has done nothing.
        """

    def keep(self) -> None:
        """It will not: go on as before, whether held or not."""

    def leave(self, seconds: float) -> None:
        """It does: close the sockets, and end when the streams are through, within so many seconds."""


async def give(sock: trio.SocketStream, estate: Estate) -> None:
    """Hand everything over to the process at the other end, or nothing. Whatever goes wrong is a line in the log, and
    the proxy goes on. Closes `sock`.
    """
    pid = 0
    try:
        pid = check_peer(sock.socket)
        if (why := estate.engage()) is not None:
            raise HandoverError(why)
        try:
            seconds = await _converse(sock, estate, pid)
        except BaseException:
            estate.keep()
            raise
        log.info("proxy handed over", pid=pid)
        estate.leave(seconds)
    except HandoverError as error:
        log.warning("proxy not handed over", pid=pid, error=str(error))
        with trio.move_on_after(ANSWER):
            await _say_no(sock, str(error))
    finally:
        await trio.aclose_forcefully(sock)


async def _converse(sock: trio.SocketStream, estate: Estate, pid: int) -> float:
    sockets = list(estate.sockets())
    try:
        with trio.fail_after(GETTING_READY):
            await send(sock, Offer(version=VERSION, host=estate.host, pid=os.getpid(), sockets=len(sockets)))
            for offered in sockets:
                await send(sock, _described(offered), _descriptors(offered.heirloom))
            await expect(sock, "ready")
        if (why := estate.hold(pid)) is not None:
            raise HandoverError(why)
        with trio.fail_after(ANSWER):
            await send(sock, Word(word="yours"))
            return (await expect(sock, "taken")).seconds
    except trio.TooSlowError:
        raise HandoverError("the other process takes too long") from None


def _described(offered: Offered) -> Socket:
    _, _, birth, mode, owner, group = offered.heirloom
    return Socket(kind=offered.kind, address=offered.address, birth=birth, mode=mode, owner=owner, group=group)


def _descriptors(heirloom: Heirloom) -> list[int]:
    return [heirloom.sock.fileno()] + ([heirloom.lock] if heirloom.lock is not None else [])


async def _say_no(sock: trio.SocketStream, why: str) -> None:
    try:
        await send(sock, Word(word="no", why=why))
    except HandoverError:
        pass


async def serve(listener: trio.SocketListener, estate: Estate, door: Door) -> None:
    """Give to whoever comes, until cancelled."""

    async def handle(sock: trio.SocketStream) -> None:
        await give(sock, estate)

    await serve_behind(door, handle, [listener])
