"""A day of arrivals, made up: one use a line on standard output, for ``hostlane pool replay``.

    python -m benchmarks.arrivals mixed > mixed.jsonl          (or: alike; ``--seed N`` for another day)

Real traces of who calls whom are nobody's to publish, so this draws them from what such systems are known to do, each
peer with parameters of its own:

=========  ======  =====================================================================================================
kind       peers   how it calls
=========  ======  =====================================================================================================
steady     8       independent calls (Poisson), 36 to 220 an hour by day, a seventh of it by night
clock      10      a burst of 1 to 5 calls every 1 to 60 minutes, late by a second or so, one run in fifty missed
sessions   14      a person or job arrives (Poisson, every 10 to 60 minutes by day, a tenth by night) and makes 8 to 40
                   calls with pauses that have a heavy tail (Pareto, shape 1.1 to 1.7, cut at 10 minutes)
rare       8       4 to 40 times a day, 1 to 3 calls
check      2       a health check every 15 or 30 s
batch      3       2 to 5 runs of 100 to 500 calls, one behind the other, a mebibyte each
=========  ======  =====================================================================================================

Heavy-tailed pauses within sessions that arrive independently: Paxson and Floyd, "Wide area traffic: the failure of
Poisson modeling" (1995), and Barford and Crovella's SURGE (1998). Clocks beside rare and steady callers:
Shahrad et al., "Serverless in the wild" (2020). ``alike`` has twenty peers of the kind ``sessions`` that all have the
same parameters: there one TTL for all is the best that can be, and nothing is to be gained by telling them apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from math import exp, log, pi, sin
from random import Random

import click

from proxy.pool.recorded import RecordedUse, encode

DAY = 86400.0
"""Seconds."""
Call = tuple[float, float, int]
"""When it begins and how long it takes (seconds), and how many bytes it moves."""


def steady(random: Random) -> Iterator[Call]:
    """See the module's text, like all that follow."""
    rate = exp(random.uniform(log(0.01), log(0.06)))
    for time in _by_day(random, rate, night=0.15):
        yield time, random.expovariate(1 / 0.05), random.randrange(100, 2000)


def clock(random: Random) -> Iterator[Call]:
    period = random.choice([60, 120, 300, 300, 600, 900, 1800, 3600])
    late, calls = random.uniform(0.2, 2.5), random.randint(1, 5)
    due = random.uniform(0, period)
    while due < DAY:
        if random.random() < 0.98:
            time = due + abs(random.gauss(0, late))
            for _ in range(calls):
                takes = random.expovariate(1 / 0.2)
                yield time, takes, random.randrange(200, 4000)
                time += takes + random.expovariate(1 / 0.6)
        due += period


def sessions(random: Random) -> Iterator[Call]:
    every, calls = random.uniform(600, 3600), random.randint(8, 40)
    return _sessions(random, every, calls, random.uniform(1.1, 1.7), random.uniform(0.5, 4))


def same_sessions(random: Random) -> Iterator[Call]:
    return _sessions(random, every=1200, calls=20, shape=1.3, shortest=1.5)


def rare(random: Random) -> Iterator[Call]:
    for time in _by_day(random, random.uniform(4, 40) / DAY, night=0.3):
        for call in range(random.randint(1, 3)):
            yield time + call * random.uniform(0.1, 2), random.expovariate(1 / 0.5), 1000


def check(random: Random) -> Iterator[Call]:
    period = random.choice([15, 30])
    time = random.uniform(0, period)
    while time < DAY:
        yield time + random.uniform(0, 0.3), 0.01, 200
        time += period


def batch(random: Random) -> Iterator[Call]:
    for _ in range(random.randint(2, 5)):
        time = random.uniform(0, DAY)
        for _ in range(random.randint(100, 500)):
            takes = random.lognormvariate(0, 0.8)
            yield time, takes, 1 << 20
            time += takes + random.expovariate(1 / 1.5)


Kind = Callable[[Random], Iterator[Call]]
DAYS: dict[str, list[tuple[Kind, int]]] = {
    "mixed": [(steady, 8), (clock, 10), (sessions, 14), (rare, 8), (check, 2), (batch, 3)],
    "alike": [(same_sessions, 20)],
}
"""Kinds of peers, and how many of each."""


def day(kind: str, seed: int = 1) -> list[RecordedUse]:
    """All uses of a day, in the order of time. The same seed gives the same day."""
    uses = [
        RecordedUse(time=round(time, 3), peer=f"{make.__name__}-{number}", duration=round(takes, 3), bytes=moved)
        for make, peers in DAYS[kind]
        for number in range(1, peers + 1)
        for time, takes, moved in make(Random(f"{seed}/{make.__name__}/{number}"))
        if time < DAY
    ]
    return sorted(uses, key=lambda use: use.time)


def _by_day(random: Random, rate: float, night: float) -> Iterator[float]:
    """Times of independent arrivals: `rate` a second at two in the afternoon, and `night` of that from ten to six."""
    time = random.expovariate(rate)
    while time < DAY:
        hour = time / 3600
        light = sin(pi * (hour - 6) / 16) if 6 <= hour <= 22 else 0.0
        if random.random() < night + (1 - night) * light:
            yield time
        time += random.expovariate(rate)


def _sessions(random: Random, every: float, calls: int, shape: float, shortest: float) -> Iterator[Call]:
    """`calls` is the mean of a session; `shape` and `shortest` (seconds) are those of the pauses."""
    for time in _by_day(random, 1 / every, night=0.1):
        while True:
            takes = random.expovariate(1 / 0.1)
            yield time, takes, random.randrange(300, 60000)
            time += takes + min(shortest * random.paretovariate(shape), 600)
            if random.random() < 1 / calls:
                break


@click.command()
@click.argument("kind", type=click.Choice(list(DAYS)))
@click.option("--seed", default=1, show_default=True)
def main(kind: str, seed: int) -> None:
    """Print a day of arrivals."""
    for use in day(kind, seed):
        sys.stdout.buffer.write(encode(use))


if __name__ == "__main__":
    main()
