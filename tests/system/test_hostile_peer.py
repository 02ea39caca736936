"""A peer that breaks the specification or takes all it can get, beside one whose traffic is verified.

It is a plain socket that has shaken hands as host-c, a peer of both hosts; nobody but its own link may notice.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from proxy.demo.lab import Lab
from proxy.errors import CloseReason
from proxy.links.handshake import Hello, encode_hello
from proxy.mux import frames
from proxy.mux.frames import HEADER, HEADER_SIZE, LENGTH_MASK, FrameKind, Open, encode
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, PORT, World
from tests.tools.servers import Listener
from tests.tools.sockets import connect, eventually, read_exactly, read_to_end

pytestmark = pytest.mark.netns

MORE: dict[str, Any] = {
    "peers": {"host-c": {"address": "10.77.0.9:7600"}},
    "links": {"replay_buffer": "64KiB", "resume_timeout": "100ms"},
    "limits": {"stream_credit": "16KiB"},
}
UNPINGED = {**MORE, "links": {**MORE["links"], "ping_interval": "60s", "ping_timeout": "60s"}}
"""Where the peer does not answer while the test does something else: on a busy machine its silence would end the link
too."""


class Hostile:
    """A link of host-c's to host-b, past its handshake, in the test's hands.

    Attributes:
        offset: bytes that `frame` has returned of what host-b has sent behind its HELLO.
    """

    def __init__(self, sock: socket.socket, session: str = "1", max_streams: int = 9) -> None:
        self.sock, self.offset = sock, 0
        names = {"host": "host-c", "to": "host-b", "instance": "1", "session": session}
        sock.sendall(encode_hello(Hello(**names, stream_credit=16384, max_streams=max_streams)))
        assert self.frame()[0] is FrameKind.HELLO
        self.offset = 0

    def frame(self) -> tuple[FrameKind, int, bytes]:
        """The next frame that host-b sends: kind, stream id, payload. Fails at the end."""
        (word,) = HEADER.unpack(read_exactly(self.sock, HEADER_SIZE))
        payload = read_exactly(self.sock, word & LENGTH_MASK)
        self.offset += HEADER_SIZE + len(payload)
        return FrameKind(word >> 56), word >> frames.KEY_SHIFT & frames.ID_MASK, payload

    def goodbye(self) -> CloseReason:
        """What the last frame says."""
        while True:
            kind, _, payload = self.frame()
            if kind is FrameKind.GOAWAY:
                # An end, or a reset where host-b had not read all of it.
                assert read_to_end(self.sock).received == b""
                return CloseReason(payload[0])


@contextmanager
def hostile(lab: Lab) -> Iterator[Hostile]:
    own = lab.a.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # it soon takes no more
    with connect(f"tcp:{lab.b.address}:{PORT}", own) as sock:
        yield Hostile(sock)


@contextmanager
def undisturbed(world: World) -> Iterator[Callers]:
    """Callers on host-a whose every byte is checked, before, during and after the block."""
    with Callers(Caller(number, world.call(KINDS[number % 2])) for number in range(6)) as callers:
        callers.all_talk()
        yield callers
        callers.all_talk()
    assert callers.endings() == {"stopped"}
    assert not world.a.events("link down")
    assert not world.b.events("link down", peer="host-a")


def opening(stream_id: int, service: str = "unix") -> bytes:
    return encode(FrameKind.OPEN, stream_id, frames.encode_open(Open(service)))


VIOLATIONS: dict[str, tuple[bytes, str]] = {
    "an unknown kind": (b"\x01" + bytes(7), "unknown frame kind 0x01"),
    "a second HELLO": (encode(FrameKind.HELLO), "unknown frame kind 0x0f"),
    "a frame that is too long": (encode(FrameKind.OPEN, 1, bytes(4097)), "OPEN frame of 4097 bytes"),
    "an OPEN cut short": (encode(FrameKind.OPEN, 1, b"\0\0\0\0\x09web"), "malformed OPEN payload of 8 bytes"),
    "an OPEN with a name that is no text": (
        encode(FrameKind.OPEN, 1, b"\0\0\0\0\1\xff\0"), "malformed OPEN payload of 7 bytes",
    ),
    "an id of the other side": (opening(2), "OPEN of stream 2, which is not the peer's to open"),
    "an id twice": (opening(1) + opening(1), "OPEN of stream 1, which is not the peer's to open"),
    "data for no stream": (encode(FrameKind.DATA, 7, b"x"), "DATA for stream 7, which does not exist"),
    "an answer to its own call": (opening(1) + encode(FrameKind.OPENED, 1), "OPENED on stream 1, which is open"),
    "data behind the end": (
        opening(1) + encode(FrameKind.DATA_FIN, 1) + encode(FrameKind.DATA, 1, b"x"),
        "DATA on stream 1, which is fin_received",
    ),
    "credit of nothing": (
        opening(1) + encode(FrameKind.CREDIT, 1, bytes(4)), "CREDIT of 0 bytes on stream 1, which has 16384",
    ),
    "credit beyond all bounds": (
        opening(1) + encode(FrameKind.CREDIT, 1, b"\xff\xff\xff\xff"),
        "CREDIT of 4294967295 bytes on stream 1, which has 16384",
    ),
    "more than its credit": (
        opening(1) + encode(FrameKind.DATA, 1, bytes(16385)),
        "DATA of 16385 bytes on stream 1, which had 16384 bytes of credit left",
    ),
    "an ACK of what was never sent": (encode(FrameKind.ACK, 0, b"\xff" * 8), f"ACK of offset {2**64 - 1}, but only "),
    "no reason": (encode(FrameKind.GOAWAY), "GOAWAY with unknown close reason (none)"),
}  # fmt: skip


@pytest.mark.failure(18)
def test_who_breaks_the_specification_loses_the_link_and_nobody_else_notices(lab: Lab) -> None:
    with World(lab, more=MORE) as world, undisturbed(world) as callers:
        for name, (said, detail) in VIOLATIONS.items():
            before = len(world.b.log)
            with hostile(lab) as peer:
                peer.sock.sendall(said)
                assert peer.goodbye() is CloseReason.PROTOCOL_ERROR, name
            down = world.b.wait_for("link down", before, peer="host-c")
            assert down["reason"] == "protocol_error", name
            assert down["detail"].startswith(detail), name
            callers.all_talk(2)


@pytest.mark.failure(17, 18)
def test_half_a_frame_and_no_more(lab: Lab) -> None:
    """What was written in part is never completed with anything else, nor waited for by anybody else."""
    with World(lab, more=MORE) as world, undisturbed(world) as callers:
        with hostile(lab) as peer:
            peer.sock.sendall(opening(1) + encode(FrameKind.DATA, 1, bytes(1000))[:500])
            callers.all_talk()
        world.b.wait_for("link down", peer="host-c", reason="link_lost")
        eventually(lambda: world.counts()["b"] == len(callers), "its stream is gone")


def flood_of_pings(number: int) -> bytes:
    return encode(FrameKind.PING, 0, number.to_bytes(8, "big")) * 2000


def flood_of_opens(number: int) -> bytes:
    """And of pings: alone, refusals would take three times as long to fill a megabyte."""
    first = 1 + 2 * 2000 * number
    ping = encode(FrameKind.PING, 0, bytes(8))
    return b"".join(opening(stream_id, "nowhere") + ping for stream_id in range(first, first + 4000, 2))


@pytest.mark.failure(18, 19, "27")
@pytest.mark.parametrize("flood", [flood_of_pings, flood_of_opens], ids=["pings", "opens"])
def test_who_asks_and_never_reads_loses_the_link(lab: Lab, flood: Callable[[int], bytes]) -> None:
    """The answers are kept for it up to twice the replay buffer, and no further."""
    with World(lab, more={**UNPINGED, "log": {"level": "info"}}) as world, undisturbed(world) as callers:
        with hostile(lab) as peer:
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                for number in range(10_000):
                    peer.sock.sendall(flood(number))
        down = world.b.wait_for("link down", peer="host-c", reason="protocol_error")
        assert down["detail"].endswith(" bytes unacknowledged")
        callers.all_talk()
        lines = len(world.b.events("stream ended", reason="no_such_service"))
        refused = world.ask("b", "status")["refused_by_reason"].get("no_such_service", 0)
        assert (refused > 1000) == (flood is flood_of_opens)
        assert lines <= 5, "the log is not the peer's to fill: one, and one for each minute that it lasts"


@pytest.mark.failure(19)
def test_who_takes_all_memory_takes_its_share(lab: Lab) -> None:
    """Streams to a service that reads nothing: the kernel holds a part of their bytes, the proxy the rest."""
    with TemporaryDirectory(prefix="hl-") as folder, Listener(f"unix:{folder}/sink.sock") as sink:
        more = {
            **MORE,
            "services": {"sink": {"deliver": sink.address}},
            "limits": {"memory": "8MiB", "memory_per_peer": "1MiB"},
        }
        with World(lab, more=more) as world, undisturbed(world) as callers:
            with hostile(lab) as peer:
                for stream_id in range(1, 121, 2):
                    peer.sock.sendall(opening(stream_id, "sink") + encode(FrameKind.DATA, stream_id, bytes(65536)) * 4)
                world.b.wait_for("stream ended", reason="over_budget", peer="host-c")
                assert 1 << 19 < memory_of(world, "host-c") <= 1 << 20
                callers.all_talk()
            eventually(lambda: world.counts()["b"] == len(callers), "its streams are gone")
            assert not world.b.events("stream ended", reason="over_budget", peer="host-a")
            assert memory_of(world, "host-c") == 0


def memory_of(world: World, peer: str) -> int:
    """Bytes that host-b holds for a peer's streams."""
    held: int = next(each["memory_used"] for each in world.ask("b", "status")["peers"] if each["name"] == peer)
    return held


@pytest.mark.failure("21b-f")
@pytest.mark.parametrize("rate", [None, 50])
def test_who_opens_faster_than_it_was_told_is_refused_and_nobody_else_is(lab: Lab, rate: int | None) -> None:
    """Also where the others' own proxy has been told the same. Without a rate nobody is refused."""
    more = {**MORE, "limits": {"opens_per_second": rate}}
    with World(lab, more=more) as world, undisturbed(world) as callers, hostile(lab) as peer:
        peer.sock.sendall(b"".join(opening(stream_id, "nowhere") for stream_id in range(1, 1001, 2)))
        refused: list[int] = []
        while len(refused) < 500:
            kind, _, payload = peer.frame()
            refused += payload if kind is FrameKind.REFUSE else b""
        overloaded = refused.count(CloseReason.OVERLOADED)
        assert (overloaded > 300) if rate else (overloaded == 0)
        callers.all_talk()


class Flood(threading.Thread):
    """Pings on each of these links without an end: at every moment PINGS of each are not answered yet, or will be.

    Attributes:
        answered: how many are, by link.
    """

    def __init__(self, links: list[Hostile]) -> None:
        super().__init__(daemon=True)
        self.answered = dict.fromkeys(links, 0)
        self._said = dict.fromkeys(links, 0)
        self._got = {link: bytearray() for link in links}
        self._offset = {link: link.offset for link in links}
        self._stopping = threading.Event()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for link in self._said:
                selector.register(link.sock, selectors.EVENT_READ, link)
                self._say(link, PINGS)
            while not self._stopping.is_set():
                for key, _ in selector.select(0.1):
                    self._hear(key.data)

    def stop(self) -> None:
        """Ends it; what was said and is not answered stays so."""
        self._stopping.set()
        self.join()

    def unanswered(self) -> list[int]:
        """How many of each link have no answer."""
        return [said - self.answered[link] for link, said in self._said.items()]

    def _say(self, link: Hostile, pings: int) -> None:
        # Few enough that the kernel has room for them and for their answers: this never waits.
        self._said[link] += pings
        link.sock.sendall(encode(FrameKind.PING, 0, bytes(8)) * pings)

    def _hear(self, link: Hostile) -> None:
        got = self._got[link]
        got += link.sock.recv(65536)
        position = answers = 0
        while len(got) >= position + HEADER_SIZE:
            (word,) = HEADER.unpack_from(got, position)
            if len(got) < (behind := position + HEADER_SIZE + (word & LENGTH_MASK)):
                break
            answers += word >> 56 == FrameKind.PONG
            position = behind
        del got[:position]
        self._offset[link] += position
        self.answered[link] += answers
        if answers:
            link.sock.sendall(encode(FrameKind.ACK, 0, self._offset[link].to_bytes(8, "big")))
            self._say(link, answers)


PINGS = 500
LEAVING = 64


def leave(link: Hostile, says: CloseReason) -> None:
    """Have it with a stream, and leaving."""
    link.sock.sendall(opening(1) + encode(FrameKind.GOAWAY, 0, frames.encode_reason(says)))
    while link.frame()[0] is not FrameKind.OPENED:
        pass


@pytest.mark.failure("21b-d")
@pytest.mark.parametrize("says", [CloseReason.DRAINING, CloseReason.IDLE])
def test_as_many_links_as_may_be_leaving_flood_and_the_honest_are_served_meanwhile(lab: Lab, says: CloseReason) -> None:
    """Not after the flood, which has no end; and each link of it gets its turn."""
    with World(lab, more=UNPINGED) as world, undisturbed(world) as callers, ExitStack() as stack:
        links = []
        for number in range(LEAVING):
            sock = stack.enter_context(connect(f"tcp:{lab.b.address}:{PORT}", lab.a.socket()))
            links.append(Hostile(sock, f"leaving {number}"))
            leave(links[-1], says)
        flood = Flood(links)
        flood.start()
        try:
            for _ in range(5):
                before = sum(flood.answered.values())
                callers.all_talk()
                assert flood.is_alive()
                eventually(lambda seen=before: sum(flood.answered.values()) > seen, "its turns")  # type: ignore[misc]
            eventually(lambda: min(flood.answered.values()) > 0, "each link has had one")
        finally:
            flood.stop()
        assert min(flood.unanswered()) == PINGS, "all had as much to say as ever"
        assert not world.b.events("link down", peer="host-c")


@pytest.mark.failure("21b-d")
@pytest.mark.parametrize("says", [CloseReason.DRAINING, CloseReason.IDLE])
def test_many_links_that_are_leaving_are_one_peer(lab: Lab, says: CloseReason) -> None:
    """All their frames are answered, and none of anybody else's is late."""
    pings = 2000
    with World(lab, more=UNPINGED) as world, undisturbed(world) as callers, ExitStack() as stack:
        links = []
        for number in range(LEAVING):
            sock = stack.enter_context(connect(f"tcp:{lab.b.address}:{PORT}", lab.a.socket()))
            links.append(Hostile(sock, f"leaving {number}"))
            leave(links[-1], says)
        for round_ in range(3):
            for link in links:
                link.sock.sendall(encode(FrameKind.PING, 0, round_.to_bytes(8, "big")) * pings)
            callers.all_talk()
            for link in links:
                answers = 0
                while answers < pings:
                    kind, _, payload = link.frame()
                    answers += kind is FrameKind.PONG
                assert payload == round_.to_bytes(8, "big")
