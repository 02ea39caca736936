"""What is known of a name: how long, for whom, in which order, and what while the name service gives no answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.pump import resolver
from proxy.pump.deadlines import Deadline, Deadlines
from proxy.pump.lookups import Found, LookUps, Question, Tell
from proxy.pump.resolver import Answer, Resolver, TooMany

NONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Asked(LookUps):
    """Look-ups that the test answers."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[str, Tell]] = []

    def start(self, question: Question, tell: Tell) -> None:
        self.waiting.append((question[0], tell))

    def answer(self, *addresses: str, error: OSError | None = None) -> None:
        """Answer the only look-up that is under way."""
        [(_, tell)], self.waiting = self.waiting, []
        found: Found = [(0, 0, 0, "", (address, 0)) for address in addresses for _kind in ("stream", "again")]
        tell(error or found)


class Bench(Deadlines):
    """A resolver with a clock of its own, which is also the queue of what is due."""

    def __init__(self) -> None:
        self.now, self.settled = 1000.0, 0
        self._due: list[tuple[float, Deadline]] = []
        self.asked = Asked()
        self.resolver = Resolver(self.asked, self, self._count, lambda: self.now)
        self.told: list[Answer] = []

    def _count(self) -> None:
        self.settled += 1

    def add(self, seconds: float, action: Any) -> Deadline:
        deadline = Deadline(action)
        self._due.append((self.now + seconds, deadline))
        return deadline

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        due, self._due = [d for t, d in self._due if t <= self.now], [(t, d) for t, d in self._due if t > self.now]
        for deadline in due:
            if deadline.action is not None:
                deadline.action()

    def ask(self, host: str = "service.test") -> list[Answer]:
        """One call more; what it is told is in the list that is returned, as soon as it is."""
        told: list[Answer] = []
        self.resolver.ask(host, told.append)
        return told

    def known(self, *addresses: str) -> None:
        self.ask()
        self.asked.answer(*addresses)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def test_all_who_ask_meanwhile_get_the_same_answer(bench: Bench) -> None:
    told = [bench.ask(), bench.ask(), bench.ask()]
    assert told == [[], [], []]
    bench.asked.answer("10.0.0.1")
    assert told == [[["10.0.0.1"]]] * 3
    assert bench.settled == 1


@pytest.mark.failure("29")
def test_an_answer_is_good_for_a_while(bench: Bench) -> None:
    bench.known("10.0.0.1")
    bench.pass_by(resolver.FRESH - 0.1)
    assert bench.ask() == [["10.0.0.1"]]
    assert not bench.asked.waiting
    bench.pass_by(0.2)
    told = bench.ask()
    assert told == []
    bench.asked.answer("10.0.0.2")
    assert told == [["10.0.0.2"]]


@pytest.mark.failure("29")
@pytest.mark.parametrize("trouble", ["silence", "failure"])
def test_the_last_good_answer_goes_on_while_there_is_none(
    bench: Bench, trouble: str, logs: list[MutableMapping[str, Any]]
) -> None:
    bench.known("10.0.0.1")
    bench.pass_by(resolver.FRESH)
    told = bench.ask()
    if trouble == "silence":
        bench.pass_by(resolver.PATIENCE)
        assert told == [["10.0.0.1"]]
        assert bench.ask() == [["10.0.0.1"]], "who comes later does not wait for the same silence again"
        bench.asked.answer(error=AGAIN)
    else:
        bench.asked.answer(error=AGAIN)
        assert told == [["10.0.0.1"]]
    assert bench.ask() == [["10.0.0.1"]]
    assert [entry["event"] for entry in logs] == ["a name is not resolved: its last addresses are used"]
    bench.pass_by(resolver.RETRY)
    bench.ask()
    bench.asked.answer("10.0.0.2")
    assert bench.ask() == [["10.0.0.2"]]
    assert [entry["event"] for entry in logs][1:] == ["a name is resolved again"]


@pytest.mark.failure("29")
def test_not_for_ever(bench: Bench) -> None:
    bench.known("10.0.0.1")
    bench.pass_by(resolver.OLDEST + 1)
    told = bench.ask()
    bench.asked.answer(error=AGAIN)
    assert told == [AGAIN]


def test_that_there_is_no_such_name_is_an_answer(bench: Bench) -> None:
    bench.known("10.0.0.1")
    bench.pass_by(resolver.FRESH)
    told = bench.ask()
    bench.asked.answer(error=NONE)
    assert told == [NONE]
    assert bench.ask() == [NONE], "for a moment, so that many calls do not ask again and again"
    bench.pass_by(resolver.RETRY)
    assert bench.ask() == []


def test_a_name_that_no_name_server_may_be_asked_for(bench: Bench) -> None:
    """idna: a label that is too long, say."""
    told = bench.ask()
    [(_, tell)] = bench.asked.waiting
    tell(OSError("label too long"))
    assert [str(answer) for answer in told] == ["label too long"]


@pytest.mark.failure("29")
def test_one_name_s_waiting_calls_are_bounded_and_others_are_not_concerned(bench: Bench) -> None:
    waiting = [bench.ask("silent.test") for _ in range(resolver.MOST_WAITING)]
    [refused] = bench.ask("silent.test")
    assert isinstance(refused, TooMany)
    assert str(refused) == f"{resolver.MOST_WAITING} connections wait for the address of silent.test already"
    assert not any(waiting)
    assert [name for name, _ in bench.asked.waiting] == ["silent.test"]
    bench.asked.waiting.clear()
    told = bench.ask("other.test")
    bench.asked.answer("10.0.0.1")
    assert told == [["10.0.0.1"]]


@pytest.mark.failure("29")
def test_more_calls_than_may_wait_use_the_old_addresses(bench: Bench) -> None:
    """As a busy service has each time that its addresses are asked for again."""
    bench.known("10.0.0.1")
    bench.pass_by(resolver.FRESH + 1)
    waiting = [bench.ask() for _ in range(resolver.MOST_WAITING)]
    assert not any(waiting)
    assert bench.ask() == [["10.0.0.1"]]
    bench.asked.answer("10.0.0.2")
    assert waiting == [[["10.0.0.2"]]] * resolver.MOST_WAITING


def test_who_gives_up_is_told_nothing_and_leaves_its_place(bench: Bench) -> None:
    told: list[Answer] = []
    tell = told.append
    assert bench.resolver.ask("service.test", tell)
    bench.resolver.forget("service.test", tell)
    bench.resolver.forget("service.test", tell)
    bench.resolver.forget("unknown.test", tell)
    others = bench.ask()
    bench.asked.answer("10.0.0.1")
    assert (told, others) == ([], [["10.0.0.1"]])


@pytest.mark.failure("29")
def test_calls_spread_over_the_addresses_of_a_family_and_the_families_take_turns(bench: Bench) -> None:
    bench.known("fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2", "10.0.0.3")
    lists = [answer for _ in range(6) for answer in bench.ask()]
    for found in lists:
        assert isinstance(found, list)
        assert sorted(found) == sorted(["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2", "10.0.0.3"])
        assert [":" in address for address in found] == [True, False, True, False, False]
    assert {found[0] for found in lists if isinstance(found, list)} == {"fd00::1", "fd00::2"}
    assert {found[1] for found in lists if isinstance(found, list)} == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}


@pytest.mark.failure("29")
def test_an_address_that_did_not_accept_comes_last_for_a_while(bench: Bench) -> None:
    bench.known("10.0.0.1", "10.0.0.2", "10.0.0.3")
    bench.resolver.hold_back("service.test", "10.0.0.2")
    bench.resolver.hold_back("unknown.test", "10.0.0.2")
    bench.pass_by(1)
    assert {answer[-1] for _ in range(3) for answer in bench.ask() if isinstance(answer, list)} == {"10.0.0.2"}
    bench.pass_by(resolver.HOLD_BACK)
    bench.known("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert {answer[0] for _ in range(3) for answer in bench.ask() if isinstance(answer, list)} == {
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    }


@pytest.mark.failure("29")
def test_when_no_address_accepts_the_next_call_asks_again(bench: Bench) -> None:
    bench.known("10.0.0.1")
    bench.resolver.doubt("service.test")
    bench.resolver.doubt("unknown.test")
    told = bench.ask()
    bench.asked.answer("10.0.0.2")
    assert told == [["10.0.0.2"]]


@pytest.mark.failure(18)
def test_a_bug_in_who_asked_costs_nobody_else(bench: Bench) -> None:
    def fail(answer: Answer) -> None:
        raise RuntimeError("a bug")

    bench.resolver.ask("service.test", fail)
    told = bench.ask()
    bench.asked.answer("10.0.0.1")
    assert told == [["10.0.0.1"]]


def test_names_are_forgotten_when_there_are_too_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "MOST_NAMES", 2)
    told = bench.ask("under-way.test")
    under_way = bench.asked.waiting.pop()
    bench.known("10.0.0.1")
    bench.ask("third.test")
    bench.asked.answer("10.0.0.3")
    assert bench.ask() == [], "it was forgotten"
    under_way[1]([(0, 0, 0, "", ("10.0.0.2", 0))])
    assert told == [["10.0.0.2"]]
