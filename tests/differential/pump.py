"""Two pumps with a link between them, real sockets at both ends, and a seed that says what callers and services do:
talk, stall, stop in every way, at the same time or while the link is lost. See ``both``.

When a socket is ready is the kernel's affair, so in how many frames bytes travel differs from run to run. What is
written down does not: after each step it waits until all has arrived that can.
"""

from __future__ import annotations

import array
import fcntl
import resource
import sys
import termios
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from random import Random
from typing import Any, NoReturn
from zlib import crc32

import structlog
import trio
import trio.testing

from proxy.core import finder
from proxy.errors import CloseReason
from proxy.mux.stream import StreamState
from proxy.pump import loop
from proxy.pump.lane import Lane
from proxy.pump.splice import Splice
from tests.differential.saying import say
from tests.pump.rig import KINDS, End, Record, Rig, Stream, proxied, rig, until

STEPS = 60
MOST = 12
"""Streams open at a time."""
SIZES = (1, 64, 64, 64, 1000, 16_384, 70_000, 400_000)
STALL = 1_500_000
"""Bytes that nobody reads: more than all credit and what the buffers of two Unix sockets hold."""
NOISE = bytes(range(251)) * (STALL // 251 + 2)
REFUSALS = (CloseReason.NO_SUCH_SERVICE, CloseReason.CONNECT_FAILED, CloseReason.NOT_ALLOWED)


class Told(Record):
    """Takes another observer's place once the stream is open, and writes down all that it is told."""

    def __init__(self, before: Record) -> None:
        super().__init__(before.direction)
        self.before, self.lane = before, before.lane
        self.calls: list[str] = []
        self.lane.observer = self

    def lane_opened(self, lane: Lane) -> None:
        self.calls.append("opened")
        super().lane_opened(lane)

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        self.calls.append(f"ended {reason.label}")
        super().lane_ended(lane, reason)
        self.before.reason = reason
        self.before.over.set()


class Talking:
    """A stream, and how many bytes its two ends have sent: 0 is the caller, 1 the service."""

    def __init__(self, number: int, stream: Stream) -> None:
        self.number = number
        self.ends: tuple[End, End] = (stream.caller, stream.service)
        self.observers = (Told(stream.outbound), Told(stream.inbound))
        self.sent = [0, 0]
        self.finished = [False, False]

    async def say(self, who: int, size: int) -> str:
        """One end sends, the other one reads all of it."""
        start = self.sent[who] % 251
        self.sent[who] += size
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.ends[who].send, NOISE[start : start + size])
            got = await self.ends[1 - who].read(size)
        assert got == NOISE[start : start + size]
        return f"{self.number}: {size} bytes {crc32(got)}"

    def show(self) -> str:
        lanes = [observer.lane for observer in self.observers]
        return f"{self.number}: " + " ".join(
            f"{lane.id} {StreamState(lane.state).label} {lane.bytes_sent} {lane.bytes_received}" for lane in lanes
        )


def unread(end: End) -> int:
    """Bytes that lie in a socket's receive buffer."""
    found = array.array("i", [0])
    fcntl.ioctl(end.raw.fileno(), termios.FIONREAD, found)
    return found[0]


class Play:
    """What happens between the two hosts."""

    def __init__(self, seed: int, joined: Rig) -> None:
        self.random = Random(seed)
        self.rig = joined
        self.talking: list[Talking] = []
        self.opened = 0

    async def step(self, number: int) -> None:
        random = self.random
        what = random.choice(self.FEW if len(self.talking) < MOST // 2 else self.MANY)
        if what is not Play.open and not self.talking:
            what = Play.open
        result = await what(self)
        say(number, what.__name__, result)
        await self.quiet()
        self.show()

    async def quiet(self) -> None:
        """Everything has been handed over, and both sides know of the same credit."""
        near, far = self.rig.near.session, self.rig.far.session

        def settled() -> bool:
            if near.out.unsent or far.out.unsent or near.streams.keys() != far.streams.keys():
                return False
            return all(
                one.credit == other.allow
                for mine, theirs in ((near.streams, far.streams), (far.streams, near.streams))
                for stream_id, one in mine.items()
                if one.state == (other := theirs[stream_id]).state == StreamState.OPEN
            )

        await until(settled, "both sides know the same")

    def show(self) -> None:
        for host, link in ((self.rig.a, self.rig.near), (self.rig.b, self.rig.far)):
            session = link.session
            say(
                "  ", session.suspended, session.resumed, session.called, sorted(session.streams),
                "budget", host.pump.budget.used, "uses", host.counting.uses, host.counting.over, host.counting.ends,
                session.going_away, session.over, link.congested,
            )  # fmt: skip
        for each in self.talking:
            say("    ", each.show())

    # What can happen

    async def open(self) -> object:
        """Some callers at once, with bytes that are there already, or none."""
        random = self.random
        found = []
        for _ in range(random.randrange(1, 4)):
            size = random.choice([0, 0, 64, 5000, 30_000])
            kinds = random.choice(KINDS), random.choice(KINDS)
            stream = await self.rig.stream(*kinds, early=NOISE[:size])
            await stream.outbound.opened.wait()
            assert await stream.service.read(size) == NOISE[:size]
            self.opened += 1
            new = Talking(self.opened, stream)
            new.sent[0] = size
            self.talking.append(new)
            found.append((new.number, kinds, size))
        return found

    async def talk(self) -> object:
        """Many at the same time, both ways."""
        random, asked = self.random, list[Callable[[], Awaitable[str]]]()
        for each in random.sample(self.talking, random.randrange(1, len(self.talking) + 1)):
            for who in (0, 1):
                if not each.finished[who] and random.random() < 0.7:
                    asked.append(partial(each.say, who, random.choice(SIZES)))
        return await together(asked)

    async def chat(self) -> object:
        """Question and answer, again and again."""
        each, size = self.random.choice(self.talking), self.random.choice(SIZES[:5])
        turns = [who for who in (0, 1) if not each.finished[who]] * 20
        return [await each.say(who, size) for who in turns][-1:]

    async def stall(self) -> object:
        """A reader stops reading until all credit is used up, while others go on; then it reads everything."""
        unix = [each for each in self.talking if each.ends[0].kind == each.ends[1].kind == "unix"]
        ways = [(each, who) for each in unix for who in (0, 1) if not each.finished[who]]
        if not ways:
            return None
        each, who = self.random.choice(ways)
        start = each.sent[who] % 251
        each.sent[who] += STALL
        lane = each.observers[who].lane
        others = [other for other in self.talking if other is not each and not any(other.finished)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(each.ends[who].send, NOISE[start : start + STALL])
            await until(lambda: lane.credit == 0, "all credit is used up")
            said = await together([partial(other.say, side, 64) for other in others for side in (0, 1)])
            got = await each.ends[1 - who].read(STALL)
        assert got == NOISE[start : start + STALL]
        return each.number, who, crc32(got), said

    async def finish(self) -> object:
        """One end says that no more will come; the other one may still go on."""
        ways = [(each, who) for each in self.talking for who in (0, 1) if not each.finished[who]]
        each, who = self.random.choice(ways)
        each.ends[who].finish()
        each.finished[who] = True
        ending = await each.ends[1 - who].rest()
        return each.number, who, ending, await self.over(each) if all(each.finished) else None

    async def close(self) -> object:
        """One end closes, with nothing unread; the other one sees how, and closes too."""
        each, who = self.random.choice(self.talking), self.random.randrange(2)
        each.ends[who].close()
        ending = await each.ends[1 - who].rest()
        each.ends[1 - who].close()
        return each.number, who, ending, await self.over(each)

    async def abort(self) -> object:
        """One end aborts; perhaps it has not read all that it was sent."""
        each, who, size = self.random.choice(self.talking), self.random.randrange(2), self.random.choice([0, 500])
        if size and not each.finished[1 - who]:
            await each.ends[1 - who].send(NOISE[:size])
            await until(lambda: unread(each.ends[who]) == size, "it could be read")
        each.ends[who].abort()
        if each.finished[who]:  # the other end has seen the end already
            each.ends[1 - who].abort()
            return each.number, who, size, await self.over(each)
        ending = await each.ends[1 - who].rest()
        each.ends[1 - who].close()
        return each.number, who, size, ending, await self.over(each)

    async def refuse(self) -> object:
        """A call that nobody takes."""
        handover, kind = self.rig.handover, self.random.choice(KINDS)
        handover.refuse = self.random.choice(REFUSALS)
        caller, record = self.rig.call(kind, early=NOISE[: self.random.choice([0, 64])])
        reason = await record.ended()
        handover.refuse = None
        ending = await caller.rest()
        caller.close()
        return kind, reason.label, record.refused, ending.received

    async def lose(self) -> object:
        """The link is lost; some talk meanwhile, and all of it arrives over the next one."""
        await self.rig.cut()
        asked = [
            partial(each.say, who, self.random.choice(SIZES[:6]))
            for each in self.talking
            for who in (0, 1)
            if not each.finished[who] and self.random.random() < 0.7
        ]
        async with trio.open_nursery() as nursery:
            said: list[str] = []

            async def go() -> None:
                said.extend(await together(asked))

            nursery.start_soon(go)
            await trio.testing.wait_all_tasks_blocked()
            say("  lost", self.rig.near.session.suspended, self.rig.far.session.suspended, len(asked))
            self.rig.relink()
        return said

    async def splice(self) -> object:
        """A caller and a service on the same host."""
        kinds = self.random.choice(KINDS), self.random.choice(KINDS)
        (ours, caller), (theirs, service) = (proxied(kind) for kind in kinds)
        self.rig.sockets += (ours, theirs)
        self.rig.ends += (caller, service)
        over, reasons = trio.Event(), list[str]()

        def ended(reason: CloseReason) -> None:
            reasons.append(reason.label)
            over.set()

        Splice(self.rig.a.pump, ours, theirs, ended).start()
        self.rig.a.pump.settle()
        sums = []
        for _ in range(self.random.randrange(1, 4)):
            for one, other in ((caller, service), (service, caller)):
                said = NOISE[: self.random.choice(SIZES)]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one.send, said)
                    got = await other.read(len(said))
                assert got == said
                sums.append(crc32(got))
        one, other = self.random.sample([caller, service], 2)
        how = self.random.choice(["finish", "close", "abort"])
        getattr(one, how)()
        ending = await other.rest()
        other.close()
        if how == "finish":
            one.close()
        await over.wait()
        return kinds, sums, how, ending, reasons

    FEW = (open, open, talk, chat, stall, lose, splice, refuse)
    MANY = (open, talk, talk, talk, chat, stall, finish, close, close, abort, abort, lose, refuse, splice)

    async def over(self, each: Talking) -> list[list[str]]:
        """The stream has ended: what both observers were told."""
        self.talking.remove(each)
        for observer in each.observers:
            await observer.over.wait()
        return [observer.calls for observer in each.observers]

    async def end(self) -> None:
        """Everything ends as it is; the observers of what is open are told by the rig's end."""
        for each in list(self.talking):
            each.ends[0].close()
            each.ends[1].close()
            say("closed", each.number, len(await self.over(each)))


async def together(asked: list[Callable[[], Awaitable[str]]]) -> list[str]:
    """All at the same time; what they return, in order."""
    said: dict[int, str] = {}

    async def one(number: int, ask: Callable[[], Awaitable[str]]) -> None:
        said[number] = await ask()

    async with trio.open_nursery() as nursery:
        for number, ask in enumerate(asked):
            nursery.start_soon(one, number, ask)
    return [said[number] for number in sorted(said)]


async def play(seed: int) -> None:
    credit = Random(seed).choice([20_000, 64 * 1024, 262_144])
    async with rig(credit=credit, survives=True, patience=100) as joined:
        happening = Play(seed, joined)
        for number in range(STEPS):
            await happening.step(number)
        await happening.end()
        await happening.quiet()
    say("nothing left")


def logged(logger: Any, kind: str, entry: MutableMapping[str, Any]) -> NoReturn:
    """In place of the log."""
    say("logged", kind, entry)
    raise structlog.DropEvent


def main(seed: int) -> None:
    say(f"core: {finder.core()}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    structlog.configure(processors=[logged])
    loop.LINGER = 0  # both pumps share this thread: one that waits in the kernel keeps the other one waiting
    trio.run(play, seed)


if __name__ == "__main__":
    main(int(sys.argv[1]))
