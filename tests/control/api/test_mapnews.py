from __future__ import annotations

import pytest

from control.api.mapnews import SHOWN, changes, services_of
from control.api.mesh import HostRecord, ServiceOffer

pytestmark = pytest.mark.failure("31")


def host(name: str, *services: str) -> HostRecord:
    offers = tuple(ServiceOffer(name=each) for each in services)
    return HostRecord(name=name, address="10.0.0.1:7600", instance="1", services=offers)


def test_what_appears_and_what_goes() -> None:
    found = [(each.event, each.fields["services"]) for each in changes(host("a", "x", "y"), host("a", "y", "z"))]
    assert found == [("services offered", ["z"]), ("services gone", ["x"])]
    assert list(changes(host("a", "x"), host("a", "x"))) == []
    assert list(changes(None, host("a"))) == []
    assert list(changes(None, None)) == []


def test_a_line_names_so_many_and_counts_the_others() -> None:
    (news,) = changes(host("a", *(f"s{number:02}" for number in range(25))), None)
    assert (news.event, news.fields["count"], len(news.fields["services"])) == ("services gone", 25, SHOWN)


def test_a_host_is_one_kind_whatever_it_offers() -> None:
    """Summaries tell few kinds apart, and one host must not have them all."""
    kinds = {each.fields["kind"] for number in range(100) for each in changes(None, host("a", f"s{number}"))}
    assert kinds == {("a",)}


def test_maps() -> None:
    same = host("c", "x")
    before, now = {"a": host("a", "x"), "c": same}, {"b": host("b", "x"), "c": same}
    assert {(each.event, each.fields["host"]) for each in services_of(before, now)} == {
        ("services gone", "a"),
        ("services offered", "b"),
    }
