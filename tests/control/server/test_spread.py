"""Servers that even out, in numbers: what they do together ends, and ends even."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.spread import AT_ONCE, LONGEST_WAIT, WatcherSpread, takes

pytestmark = pytest.mark.failure("31")


class Mesh:
    """Hosts at servers. A host knows some of the servers, and goes to whichever of these takes it."""

    def __init__(self, counts: list[int], random: Random, known: list[set[int]] | None = None) -> None:
        self.counts, self.random = list(counts), random
        self.known = known or [set(range(len(counts)))]
        self.spreads = [WatcherSpread() for _ in counts]
        self.last = [(0, 0) for _ in counts]
        self.asked = self.moves = 0

    def others(self, server: int) -> list[int]:
        return [count for other, count in enumerate(self.counts) if other != server]

    def round(self) -> None:
        seen = [self.others(server) for server in range(len(self.counts))]
        wanted = [
            spread.decide(self.counts[server], seen[server], *self.last[server])
            for server, spread in enumerate(self.spreads)
        ]
        for server, count in enumerate(wanted):
            went = sum(self.ask(server) for _ in range(count))
            self.last[server] = (count, went)
            self.asked += count
            self.moves += went

    def ask(self, server: int) -> bool:
        known = sorted(self.random.choice(self.known) - {server})
        for other in self.random.sample(known, len(known)):
            if takes(self.counts[other], self.others(other)):
                self.counts[server] -= 1
                self.counts[other] += 1
                return True
        return False


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([50, 50, 0], [33, 33, 34]),
        ([1000, 0], [500, 500]),
        ([4, 0, 0], [1, 1, 2]),
        ([2, 0], [1, 1]),
        ([2, 2, 0], [1, 1, 2]),
        ([3, 0], [1, 2]),
        ([1, 0], [0, 1]),
        ([500, 480, 520], [480, 500, 520]),
        ([0, 0], [0, 0]),
    ],
)
def test_who_was_restarted_gets_its_share(before: list[int], after: list[int]) -> None:
    mesh = Mesh(before, Random(1))
    for _ in range(200):
        mesh.round()
    assert sorted(mesh.counts) == sorted(after)


def test_a_trickle_and_no_storm() -> None:
    mesh = Mesh([1000, 1000, 0], Random(1))
    for _ in range(100):
        moves = mesh.moves
        mesh.round()
        assert mesh.moves - moves <= 2 * AT_ONCE, "of the fullest one, or of two that are alike"


counts = st.lists(st.integers(0, 300), min_size=2, max_size=5)


@given(counts, st.integers(0, 1000))
def test_it_ends_even_and_nobody_goes_to_and_fro(before: list[int], seed: int) -> None:
    mesh = Mesh(before, Random(seed))
    moved = []
    for _ in range(300):
        spread = sum(count * count for count in mesh.counts)
        moves = mesh.moves
        mesh.round()
        if mesh.moves > moves:
            assert sum(count * count for count in mesh.counts) < spread, "each move brings them closer together"
        moved.append((mesh.moves, mesh.asked))
    assert moved[-1] == moved[150], "it is over"
    mean = sum(before) / len(before)
    assert max(mesh.counts) - min(mesh.counts) <= 1 or max(mesh.counts) - mean <= 0.1 * mean


@given(counts, st.integers(0, 1000), st.data())
def test_hosts_that_know_some_servers_only_do_not_go_to_and_fro_either(
    before: list[int], seed: int, data: st.DataObject
) -> None:
    """Their servers cannot be even with the others, and ask ever more seldom."""
    every = st.sets(st.integers(0, len(before) - 1), min_size=1)
    mesh = Mesh(before, Random(seed), data.draw(st.lists(every, min_size=1, max_size=3)))
    for _ in range(1000):
        mesh.round()
    moves, asked = mesh.moves, mesh.asked
    rounds = 10 * LONGEST_WAIT
    for _ in range(rounds):
        mesh.round()
    assert mesh.moves - moves <= sum(before) // 10
    if mesh.moves == moves:
        assert mesh.asked - asked <= len(before) * AT_ONCE * (rounds / LONGEST_WAIT + 1)


def test_who_has_a_few_more_does_not_begin_and_who_has_begun_ends_even() -> None:
    spread = WatcherSpread()
    assert spread.decide(105, [95], 0, 0) == 0
    assert spread.decide(120, [95], 0, 0) == 12
    assert spread.uneven
    assert spread.decide(104, [96], 12, 12) == 4
    assert spread.decide(100, [99], 4, 4) == 0
    assert not spread.uneven
    assert spread.decide(102, [98], 0, 0) == 0


def test_only_the_fullest_asks() -> None:
    assert WatcherSpread().decide(50, [60, 0], 0, 0) == 0
    assert WatcherSpread().decide(60, [50, 0], 0, 0) == AT_ONCE
    assert WatcherSpread().decide(60, [], 0, 0) == 0


def test_when_nobody_goes_the_next_attempt_comes_later_and_later() -> None:
    spread = WatcherSpread()
    at, asked = [], 0
    for number in range(4 * LONGEST_WAIT):
        asked = spread.decide(10, [0], asked, 0)
        if asked:
            at.append(number)
    pauses = [later - before for before, later in pairwise(at)]
    assert pauses[:6] == [2, 4, 8, 16, 32, 64]
    assert set(pauses[6:]) <= {LONGEST_WAIT}
    # Somebody goes: it need not wait any more.
    while not (asked := spread.decide(10, [0], 0, 0)):
        pass
    assert spread.decide(9, [1], asked, 1) > 0
