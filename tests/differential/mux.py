"""Two sessions that talk to each other at random: frames that arrive in pieces or not at all, credit that runs out,
ends and resets at any time, lost links, and peers that say what they may not. See ``both``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random
from zlib import crc32

from proxy.core import finder
from proxy.errors import CloseReason, ProtocolError
from proxy.mux import frames
from proxy.mux.frames import FrameKind, Open, encode
from proxy.mux.session import SessionSettings
from proxy.mux.slabpool import SlabPool
from proxy.mux.stream import MAY_SEND, StreamState
from tests.differential.saying import say
from tests.mux.pair import Side, Talk

STEPS = 1500
TICK = 0.0005
"""Seconds that a step takes, as the sessions are told."""
NOISE = bytes(range(251)) * 300
SIZES = (0, 1, 64, 1000, 16384, 65535, 65536)


class Told(Side):
    """A side that writes down each call of its session."""

    def tell(self, *words: object) -> None:
        self.told.append(" ".join(map(str, words)))

    def start_telling(self) -> None:
        self.told: list[str] = []

    def on_call(self, stream: Talk, call: Open) -> None:
        super().on_call(stream, call)
        self.tell("call", stream.id, call)

    def on_opened(self, stream: Talk) -> None:
        self.tell("opened", stream.id)

    def on_refused(self, stream: Talk, reason: CloseReason) -> None:
        self.tell("refused", stream.id, reason.label)

    def on_data(self, stream: Talk, data: bytearray) -> None:
        stream.unread += len(data)
        self.tell("data", stream.id, len(data), crc32(data))

    def on_fin(self, stream: Talk) -> None:
        self.tell("fin", stream.id)

    def on_rst(self, stream: Talk, reason: CloseReason) -> None:
        self.tell("rst", stream.id, reason.label)

    def on_credit(self, stream: Talk) -> None:
        self.tell("credit", stream.id)

    def on_pong(self, token: int) -> None:
        self.tell("pong", token)

    def on_goaway(self, reason: CloseReason) -> None:
        self.tell("goaway", reason.label)

    def on_closed(self, stream: Talk) -> None:
        self.tell("closed", stream.id)


class Conversation:
    """What happens between two sides, as a seed has it. Begins again with two new ones when one broke the rules."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.slabs = SlabPool(keep=2)
        self.now = 0.0
        self.begin()

    def begin(self) -> None:
        choose = self.random.choice
        max_id = choose([6, 40, frames.MAX_ID, frames.MAX_ID])
        bound = choose([512 << 10, 4 << 20])
        settings = [
            SessionSettings(
                stream_credit=choose([100, 20_000, 262_144, 262_144]),
                max_streams=choose([2, 20, 65535]),
                reasons=choose([frames.FIRST_REASONS, 40]),
                via=choose([True, False]),
            )
            for _ in range(2)
        ]
        self.sides = [
            Told(
                dialler=number == 0,
                local=settings[number],
                remote=settings[1 - number],
                max_id=max_id,
                bound=bound,
                slabs=self.slabs,
            )
            for number in range(2)
        ]
        for side in self.sides:
            side.start_telling()
        self.wires = [bytearray(), bytearray()]

    # What can happen, each with how often

    def open(self, who: int) -> object:
        side = self.sides[who]
        if not side.session.can_open:
            return "no"
        stream = side.session.open(frames.encode_open(Open(f"service-{self.random.randrange(9)}")))
        return stream.id, side.send(stream, NOISE[: self.random.choice(SIZES)])

    def answer(self, who: int) -> object:
        side = self.sides[who]
        found = []
        for stream in list(side.session.streams.values()):
            if stream.state in (StreamState.CALLED, StreamState.CALLED_FIN) and self.random.random() < 0.7:
                found.append(stream.id)
                if self.random.random() < 0.8:
                    side.session.accept(stream)
                else:
                    side.session.refuse(stream, self.random.choice(list(CloseReason)))
        return found

    def send(self, who: int) -> object:
        side, stream = self.sides[who], self.some(who)
        if stream is None or stream.state in (StreamState.CALLED, StreamState.CALLED_FIN):
            return None
        start, size = self.random.randrange(251), self.random.choice(SIZES)
        return stream.id, [side.send(stream, NOISE[start : start + size]) for _ in range(self.random.choice([1, 1, 9]))]

    def fin(self, who: int) -> object:
        stream = self.some(who)
        if stream is None or not MAY_SEND >> stream.state & 1:
            return None
        self.sides[who].session.fin(stream)
        return stream.id

    def reset(self, who: int) -> object:
        stream = self.some(who)
        if stream is None or stream.state in (StreamState.CALLED, StreamState.CALLED_FIN):
            return None
        self.sides[who].session.reset(stream, self.random.choice(list(CloseReason)))
        return stream.id

    def read(self, who: int) -> object:
        side = self.sides[who]
        for stream in list(side.session.streams.values()):
            if stream.unread and self.random.random() < 0.6:
                stream.unread = self.random.choice([0, 0, stream.unread // 2])
                side.session.consumed(stream, stream.unread, self.now)

    def acknowledge(self, who: int) -> object:
        return self.sides[who].session.acknowledge()

    def ping(self, who: int) -> object:
        for _ in range(self.random.choice([1, 1, 1, 300])):
            self.sides[who].session.ping(self.random.getrandbits(64))

    def goaway(self, who: int) -> object:
        return self.sides[who].session.goaway(self.random.choice([CloseReason.DRAINING, CloseReason.IDLE]))

    def carry(self, who: int) -> object:
        """What is due goes out, as much as the link takes; some of what is under way arrives, cut anywhere."""
        side, wire = self.sides[who], self.wires[who]
        sent = side.take(self.random.choice([3, 1000, 1 << 20, 1 << 40]))
        wire += sent
        arriving = self.random.choice([1, 8, 500, len(wire), len(wire)])
        data = bytes(wire[:arriving])
        del wire[:arriving]
        pieces = self.random.choice([1, 1, 2, 7])
        for number in range(pieces):
            self.sides[1 - who].feed(data[len(data) * number // pieces : len(data) * (number + 1) // pieces])
        return len(sent), crc32(sent), len(data)

    def relink(self, who: int) -> object:
        """The link is lost with all that is under way, and another one comes."""
        received = [side.session.received for side in self.sides]
        for wire, side, heard in zip(self.wires, self.sides, reversed(received), strict=True):
            wire.clear()
            side.lose_link()
            side.session.resume(heard)
        return received

    def lie(self, who: int) -> object:
        """The peer says what it may not, or might have."""
        words, choose = self.random, self.random.choice
        payload = choose(
            [
                words.randbytes(words.randrange(12)),
                frames.encode_u32(choose([0, 1, 100, 1 << 31, (1 << 32) - 1])),
                frames.encode_u64(choose([0, 1, 1 << 40, 1 << 63, (1 << 64) - 1])),
                frames.encode_open(Open("lie")),
                bytes([choose(list(CloseReason))]),
                NOISE[: choose([60000, 65536])],
            ]
        )
        ids = [*self.sides[who].session.streams, 0, 1, 2, 3, frames.MAX_ID, (1 << 32) - 1]
        said = encode(choose(list(FrameKind)), choose(ids), payload)
        if words.random() < 0.2:
            said = words.randbytes(words.randrange(1, 40))
        self.sides[who].feed(said)
        return said.hex() if len(said) < 60 else len(said)

    def resume_wrongly(self, who: int) -> object:
        session = self.sides[who].session
        offset = self.random.choice([0, session.out.sent + 1, session.out.sent - 1, session.out.acked, 1 << 63])
        session.resume(offset)
        return offset

    def look(self, who: int) -> object:
        """At what a driver asks."""
        session = self.sides[who].session
        stream = self.some(who)
        size = self.random.choice(SIZES)
        answer = None if stream is None else session.sendable(stream, size)
        return answer, session.out.room(size)

    HAPPENS: tuple[tuple[Callable[[Conversation, int], object], int], ...] = (
        (open, 14), (answer, 14), (send, 30), (fin, 5), (reset, 4), (read, 16), (acknowledge, 4), (ping, 2),
        (carry, 60), (relink, 2), (look, 4),
    )  # fmt: skip
    BREAKS = ((goaway, 4), (lie, 10), (resume_wrongly, 2))
    """Whatever follows, these end most sessions soon: they are rare."""

    def some(self, who: int) -> Talk | None:
        streams = list(self.sides[who].session.streams.values())
        return self.random.choice(streams) if streams else None

    def step(self, number: int) -> None:
        """One thing happens, and all that can be seen is written down."""
        self.now += TICK
        choices = self.BREAKS if self.random.random() < 0.02 else self.HAPPENS
        (what,) = self.random.choices([what for what, _ in choices], [often for _, often in choices])
        who, broken = self.random.randrange(2), False
        try:
            result = what(self, who)
        except ProtocolError as error:
            result, broken = f"ProtocolError: {error}", True
        except Exception as error:  # a fault that both must have, or neither
            result, broken = f"{type(error).__name__}: {error}", True
        say(number, what.__name__, "ab"[who], result)
        for side in self.sides:
            show(side)
        if broken:
            self.end()
            self.begin()

    def end(self) -> None:
        for side in self.sides:
            say("left", [stream.id for stream in side.session.close()], side.session.out.room(1))
        assert self.slabs.in_use == 0, self.slabs.in_use


def show(side: Told) -> None:
    """All that can be seen of one side."""
    session, out = side.session, side.session.out
    say(
        " ", side.told, session.received, session.called, session.open_quota, session.going_away, session.grant_below,
        len(session.lingering), len(session.extra_credit.extended),
        "out", out.acked, out.sent, out.end, out.unsent, out.unacked, out.base, out.pos, out.limit, out.overrun,
        out.dirty, out.deferrable, "slabs", side.slabs.in_use, side.slabs.bytes_held,
        "streams", [
            (s.id, StreamState(s.state).label, s.credit, s.allow, s.granted, s.received_grants, s.granted_at, s.word,
             s.bytes_moved, s.bytes_sent, s.bytes_received)
            for s in session.streams.values()
        ],
    )  # fmt: skip
    side.told.clear()


def main(seed: int) -> None:
    say(f"core: {finder.core()}")
    conversation = Conversation(seed)
    for number in range(STEPS):
        conversation.step(number)
    conversation.end()


if __name__ == "__main__":
    main(int(sys.argv[1]))
