"""End of stream means what TCP meant: every row of the table in SPEC.md, over a link and between two sockets of one
host, with no bytes in flight, some, and more than all credit.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import trio

import proxy.mux
from proxy.errors import CloseReason
from proxy.pump.splice import Splice
from tests.pump.rig import End, Kind, Rig, proxied, rig

CREDIT = 64 * 1024
IN_FLIGHT = {"none": 0, "some": 100, "more than all credit": 20 * CREDIT}
HEADING = "closer | how | caller socket | service socket | other end sees"
RESET, END, UNIX_END, EITHER = "ECONNRESET", "EOF", "EOF (AF_UNIX)", "EOF or ECONNRESET"


class Row(NamedTuple):
    closer: str
    how: str
    caller: Kind
    service: Kind
    sees: str


def rows() -> Iterator[Row]:
    """The table in SPEC.md, one row for each pair of socket types."""
    lines = iter((Path(proxy.mux.__path__[0]) / "SPEC.md").read_text().splitlines())
    for line in lines:
        if line.strip("| ") == HEADING:
            break
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        closer, how, callers, services, sees = (cell.strip() for cell in line.strip("|").split("|"))
        for caller in callers.split(", "):
            for service in services.split(", "):
                yield Row(closer, how, cast(Kind, caller), cast(Kind, service), sees)


ROWS = list(rows())


def test_the_table_is_complete() -> None:
    """Each way to stop, at each end, with each pair of types, once."""
    written_to = {"close, written to", "SHUT_RD and close, written to"}
    hows = {"half-close", "close", "close, unread", "reset", "killed", "killed, unread"} | written_to
    expected = {
        (closer, how, caller, service)
        for closer in ("caller", "service")
        for how in hows
        for caller in ("unix", "tcp")
        for service in ("unix", "tcp")
    }
    assert len(ROWS) == len(expected)
    assert {row[:4] for row in ROWS} == expected
    assert {row.sees for row in ROWS} == {RESET, END, UNIX_END, EITHER}


async def joined_by(way: str, joined: Rig, row: Row) -> tuple[End, End, trio.Event]:
    """The two ends (caller, service), and what is set when the stream is over."""
    over = trio.Event()
    if way == "link":
        stream = await joined.stream(row.caller, row.service)
        return stream.caller, stream.service, stream.inbound.over
    (ours, caller), (theirs, service) = proxied(row.caller), proxied(row.service)
    joined.sockets += (ours, theirs)
    joined.ends += (caller, service)
    Splice(joined.a.pump, ours, theirs, lambda reason: over.set()).start()
    return caller, service, over


def stop(end: End, how: str) -> None:
    """Stop as the table says."""
    if how == "half-close":
        end.finish()
    elif how == "reset":
        end.abort()
    elif how.startswith("killed"):
        holder = subprocess.Popen(["sleep", "60"], pass_fds=[end.raw.fileno()])
        end.close()
        holder.kill()
        holder.wait()
    else:
        end.close()


@pytest.mark.failure(2, 3, "21a")
@pytest.mark.parametrize("size", IN_FLIGHT.values(), ids=list(IN_FLIGHT))
@pytest.mark.parametrize("way", ["link", "splice"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row))
async def test_what_the_other_end_sees(row: Row, way: str, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with rig(credit=CREDIT) as joined:
        caller, service, over = await joined_by(way, joined, row)
        one, other = (caller, service) if row.closer == "caller" else (service, caller)
        if "unread" in row.how:
            await other.send(b"never read")
            await one.sock.recv(1, socket.MSG_PEEK)

        last_words = 0

        async def speak() -> None:
            nonlocal last_words
            if row.how.startswith("SHUT_RD"):
                one.raw.shutdown(socket.SHUT_RD)
            await one.send(payload)
            # Of what its kernel has not handed over, TCP drops what it will when it does not end cleanly.
            cut = one.kind == "tcp" and row.sees != END
            last_words = size - one.untaken if cut else size
            stop(one, row.how)

        async def write_on() -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                while row.how.endswith("written to"):
                    await other.send(b"is anybody there?")
                    await trio.sleep(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            nursery.start_soon(write_on)
            received, reset = await other.rest()
        if row.sees != EITHER:
            assert reset == (row.sees == RESET)
        assert payload.startswith(received)
        assert len(received) >= last_words
        if row.how == "half-close":
            await other.send(b"the other direction goes on")
            assert await one.read(27) == b"the other direction goes on"
            assert not over.is_set()
        other.close()
        if row.how == "half-close":
            assert await one.rest() == (b"", False)
        await over.wait()


@pytest.mark.failure(3)
@pytest.mark.parametrize("closer", ["caller", "service"])
async def test_a_writer_to_an_end_that_has_closed_is_reset(closer: str) -> None:
    """A close with nothing unread is passed on as an end; bytes that come afterwards meet a closed socket."""
    async with rig() as joined:
        stream = await joined.stream("tcp", "tcp")
        one, other = stream.ends(closer)
        one.close()
        assert await other.rest() == (b"", False)
        with pytest.raises(OSError):
            while True:
                await other.send(b"anybody there?")
                await trio.sleep(0)
        await stream.over()
        assert stream.outbound.reason is stream.inbound.reason is CloseReason.ABORTED


@pytest.mark.failure(3)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_unix_end_with_bytes_unread_sees_the_reset(kind: Kind) -> None:
    """Where a Unix socket can express an abort, it does: its own bytes lay unread in the proxy's socket."""
    async with rig(credit=CREDIT) as joined:
        stream = await joined.stream("unix", kind)
        while stream.outbound.lane.credit:
            stream.caller.fill()
            await trio.sleep(0)
        stream.caller.fill()
        if kind == "tcp":
            stream.service.abort()
        else:
            stream.service.close()
        assert (await stream.caller.rest()).reset
        await stream.over()


FAILURES = [CloseReason.OVER_BUDGET, CloseReason.LINK_LOST, CloseReason.PROTOCOL_ERROR, CloseReason.STOPPED]


@pytest.mark.failure(3)
@pytest.mark.parametrize("reason", FAILURES)
@pytest.mark.parametrize("to", ["unix", "tcp"])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_what_both_ends_see_when_the_mesh_fails(kind: Kind, to: Kind, reason: CloseReason) -> None:
    """The second table: a reset where the type of socket has one, at both ends."""
    async with rig() as joined:
        stream = await joined.stream(kind, to)
        await stream.caller.send(b"x")
        assert await stream.service.read(1) == b"x"
        if reason is CloseReason.OVER_BUDGET:
            stream.inbound.lane.abort(reason)
        else:
            joined.far.doom(reason)
        joined.b.pump.settle()
        assert await stream.caller.rest() == (b"", kind == "tcp")
        assert await stream.service.rest() == (b"", to == "tcp")
        await stream.over()
        assert stream.outbound.reason is stream.inbound.reason is reason


@pytest.mark.failure(2, 3)
@pytest.mark.parametrize("closer", ["caller", "service"])
async def test_both_end_at_once(closer: str) -> None:
    for kind in ("unix", "tcp"):
        async with rig() as joined:
            for number in range(20):
                stream = await joined.stream(cast(Kind, kind), cast(Kind, kind))
                one, other = stream.ends(closer)
                await one.send(b"one")
                await other.send(b"other")
                one.finish()
                if number % 2:
                    await trio.sleep(0)
                other.finish()
                assert await one.rest() == (b"other", False)
                assert await other.rest() == (b"one", False)
                await stream.over()
                assert stream.outbound.reason is stream.inbound.reason is CloseReason.FINISHED
