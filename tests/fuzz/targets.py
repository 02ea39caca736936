"""What is fuzzed: any bytes go in, and a valid state or one of the documented errors comes out. Anything else is a bug.

The targets need no fuzzer: tests/fuzz/test_targets.py runs them, too.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.errors import CloseReason, HandshakeError, ProtocolError
from proxy.links.handshake import Hello, HelloReader, encode_hello
from proxy.links.resumemark import LOOK, is_instance, meant_untrusted
from proxy.mux.session import SessionSettings
from proxy.mux.slabpool import SlabPool
from proxy.mux.stream import StreamState
from tests.mux.pair import Side, check

PIECE = 97
"""Bytes that arrive at a time: a number that falls together with no frame."""
_LIMITS = SessionSettings(stream_credit=16384, max_streams=5)
# Small, so that an input of a few hundred bytes can reach them.
_SLABS = SlabPool()

DIALLED, ANSWER, REFUSE, READ, END = 1, 8, 16, 32, 64
"""Bits of a session input's first byte: what this side is and does. Bits 1 and 2 are how many streams it has opened."""


def hello(data: bytes) -> None:
    """The first bytes on a link. The first one of the input says where the rest is cut in two."""
    cut, said = (data[0], data[1:]) if data else (0, b"")
    whole = _outcome(HelloReader(), [said])
    pieces = _outcome(HelloReader(), [said[:cut], said[cut:]])
    assert pieces == whole, "a cut changes nothing"
    if isinstance(whole, Hello):
        assert _outcome(HelloReader(), [encode_hello(whole)]) == whole


def _outcome(reader: HelloReader, pieces: list[bytes]) -> Hello | str | None:
    try:
        return next((said for said in map(reader.feed_untrusted, pieces) if said is not None), None)
    except HandshakeError as error:
        assert "\n" not in str(error)
        return str(error)


def mark(data: bytes) -> None:
    """The first bytes on a connection, looked at for the process that it is meant for. The first two bytes of the input
    say where the rest is cut.
    """
    cut, said = int.from_bytes(data[:2], "big"), data[2 : 2 + LOOK]
    whole = meant_untrusted(said)
    assert not whole or is_instance(whole)
    assert meant_untrusted(said[:cut]) in (None, whole), "a cut changes nothing"


def session(data: bytes) -> None:
    """What a peer says on a link that is up, and this side's answers in between."""
    what, said = (data[0], data[1:]) if data else (0, b"")
    side = Side(dialler=bool(what & DIALLED), local=_LIMITS, remote=_LIMITS, slabs=_SLABS)
    for _ in range(what >> 1 & 3):
        side.send(side.open(), b"early")
    side.take()
    try:
        for start in range(0, len(said), PIECE):
            side.feed(said[start : start + PIECE])
            _act(side, what)
            side.take()
            check(side)
    except ProtocolError as error:
        assert "\n" not in str(error)
        check(side)
    finally:
        side.session.close()
    assert _SLABS.in_use == 0


def _act(side: Side, what: int) -> None:
    """Do to every stream what the input asks for, as far as its state allows it."""
    session = side.session
    for stream in list(session.streams.values()):
        called = stream.state in (StreamState.CALLED, StreamState.CALLED_FIN)
        if called and what & ANSWER:
            session.accept(stream)
        elif called and what & REFUSE:
            session.refuse(stream, CloseReason.NO_SUCH_SERVICE)
        if stream.state in (StreamState.OPEN, StreamState.FIN_RECEIVED, StreamState.FIN_SENT):
            if what & READ:
                side.read(stream)
            if what & END and stream.state != StreamState.FIN_SENT:
                session.fin(stream)


TARGETS: dict[str, Callable[[bytes], None]] = {"hello": hello, "mark": mark, "session": session}
