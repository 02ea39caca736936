"""Who may call what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.base.reading.addresses import UnixAddress
from proxy.config.schema import EVERYBODY, AllowRuleConfig, ServiceConfig
from proxy.mux.frames import UNKNOWN_UID, Open
from proxy.routing.allow import AllowRules, describe


def allowed(*rules: AllowRuleConfig) -> AllowRules:
    return AllowRules.from_services({"redis": ServiceConfig(deliver=UnixAddress("/x"), allow=rules)})


def call(service: str = "redis", uid: int = 1000, caller: str = "shop") -> Open:
    return Open(service, uid, caller)


def test_without_rules_everybody_in_the_mesh() -> None:
    nobody_else = Open("redis", UNKNOWN_UID, "")
    assert allowed(*EVERYBODY).rules == {}
    assert allowed(*EVERYBODY).allows(nobody_else, "host-a")
    assert AllowRules.from_services({}).allows(nobody_else, "host-a")


def test_an_empty_list_is_nobody() -> None:
    assert not allowed().allows(call(), "host-a")
    assert allowed().allows(call("web"), "host-a"), "the rules of one service say nothing about another"


def test_a_rule_fits_who_is_all_of_what_it_gives() -> None:
    only = allowed(AllowRuleConfig(host="host-a", service="shop", uid=1000))
    assert only.allows(call(), "host-a")
    assert not only.allows(call(), "host-b")
    assert not only.allows(call(uid=1001), "host-a")
    assert not only.allows(call(caller="shopping"), "host-a")


def test_one_rule_that_fits_is_enough() -> None:
    either = allowed(AllowRuleConfig(host="host-b"), AllowRuleConfig(service="shop", uid=5))
    assert either.allows(call(uid=7), "host-b")
    assert either.allows(call(uid=5), "host-c")
    assert not either.allows(call(uid=7), "host-c")


def test_who_has_no_name_or_uid_fits_no_rule_that_asks_for_one() -> None:
    assert not allowed(AllowRuleConfig(service="shop")).allows(call(caller=""), "host-a")
    assert not allowed(AllowRuleConfig(uid=0)).allows(call(uid=UNKNOWN_UID), "host-a")
    assert allowed(AllowRuleConfig(uid=0)).allows(call(uid=0, caller=""), "host-a")


hosts, names, uids = st.sampled_from(["host-a", "host-b"]), st.sampled_from(["shop", "web"]), st.integers(0, 2)
rules = st.builds(AllowRuleConfig, host=st.none() | hosts, service=st.none() | names, uid=st.none() | uids)


@given(st.lists(rules.filter(lambda rule: rule != AllowRuleConfig()), max_size=5), hosts, names | st.just(""),
       uids | st.just(UNKNOWN_UID))  # fmt: skip
def test_the_look_up_says_what_reading_the_rules_one_by_one_says(
    given_: list[AllowRuleConfig], host: str, caller: str, uid: int
) -> None:
    fits = any(
        rule.host in (None, host) and rule.service in (None, caller) and rule.uid in (None, uid) for rule in given_
    )
    assert allowed(*given_).allows(call(uid=uid, caller=caller), host) is fits


def test_a_log_line_says_who() -> None:
    assert describe(call()) == "caller shop, uid 1000"
    assert describe(call(uid=UNKNOWN_UID, caller="")) == "caller unknown, no uid"
