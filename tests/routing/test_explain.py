"""What is said is what is done."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api.messages import RouteCandidate
from proxy.config.schema import EVERYBODY, AllowRuleConfig
from proxy.routing import explain
from proxy.routing.balance import choose
from proxy.routing.explain import decide, not_allowed_in_words


def candidate(host: str, state: Any = "up", **more: Any) -> RouteCandidate:
    return RouteCandidate(host=host, address="10.0.0.1:1", state=state, streams=0, **more)


HERE = candidate("a", "here")
CASES = {
    "nobody": ([], [], explain.NOBODY),
    "here": ([HERE, candidate("b")], ["a"], explain.HERE),
    "here, ejected, and a peer": ([candidate("a", "here", ejected_for_s=3.0), candidate("b")], ["b"], explain.ONE),
    "here, ejected, and no peer": ([candidate("a", "here", ejected_for_s=3.0), candidate("b", "down")], ["a"],
                                   explain.HERE),
    "several": ([candidate("b"), candidate("c"), candidate("d", "idle")], ["b", "c"], explain.SEVERAL),
    "one ejected": ([candidate("b", ejected_for_s=1.0), candidate("c")], ["c"], explain.ONE),
    "ejected or cold": ([candidate("b", ejected_for_s=1.0), candidate("c", "idle")], ["c"], explain.COLD),
    "ejected or broken": ([candidate("b", ejected_for_s=1.0), candidate("c", "down", last_error="x")], ["b"],
                          explain.EJECTED),
    "all broken": ([candidate("b", "down", last_error="x")], ["b"], explain.COLD),
    "the only one, ejected": ([candidate("b", ejected_for_s=1.0)], ["b"], explain.EJECTED),
}  # fmt: skip


@pytest.mark.parametrize(("candidates", "takes", "why"), CASES.values(), ids=CASES)
def test_words(candidates: list[RouteCandidate], takes: list[str], why: str) -> None:
    assert decide(candidates) == (takes, why)


@dataclass
class Peer:
    name: str
    up: bool
    idle: bool
    last_error: str | None
    ejected: bool
    streams: int = 0

    def invite(self) -> None: ...


flags = st.booleans()
peers = st.lists(
    st.builds(Peer, st.sampled_from("bcdefg"), flags, flags, st.sampled_from([None, "x"]), flags),
    unique_by=lambda each: each.name,
    min_size=1,
)


@given(peers, st.integers())
def test_the_choice_is_one_of_those_that_are_named(found: list[Peer], seed: int) -> None:
    chosen = choose(found, Random(seed).random, {each.name for each in found if each.ejected})
    takes, why = decide([
        candidate(
            each.name,
            "up" if each.up else "idle" if each.idle else "down",
            ejected_for_s=1.0 if each.ejected else None,
            last_error=each.last_error,
        )
        for each in found
    ])  # fmt: skip
    if chosen is None:
        assert why == explain.COLD
    else:
        assert chosen.name in takes
        assert why != explain.COLD


RULES = (
    AllowRuleConfig(host="host-b", uid=1000),
    AllowRuleConfig(service="shop"),
    AllowRuleConfig(host="host-b", service="web", uid=7),
)


@pytest.mark.parametrize(
    ("caller", "says"),
    [
        (("host-b", "", 1001), "nearest is host host-b, uid 1000, but its uid is 1001"),
        (("host-c", "", 1000), "nearest is host host-b, uid 1000, but it is on host-c"),
        (("host-b", "web", 8), "nearest is host host-b, service web, uid 7, but its uid is 8"),
        (("host-c", "cart", None), "nearest is service shop, but it is cart"),
        (("host-c", "", None), "nearest is service shop, but it is no service that its host knows"),
    ],
)
def test_why_no_rule_lets_a_caller_in(caller: tuple[str, str, int | None], says: str) -> None:
    assert not_allowed_in_words("db", RULES, *caller) == f"services.db.allow: {says}"


def test_rules_that_have_changed_since() -> None:
    assert not_allowed_in_words("db", (), "host-b", "", 1) == "services.db.allow lets nobody in"
    now = not_allowed_in_words("db", RULES, "host-c", "shop", 1)
    assert now == "by services.db.allow as it was then; now it may call (service shop)"
    assert not_allowed_in_words("db", EVERYBODY, "c", "", 1).endswith("now everybody may call")
