from __future__ import annotations

from typing import Any

import msgspec
import pytest

from control.api.mesh import HostRecord, ServiceOffer
from control.base.errors import RequestRefused
from control.server import registry
from control.store.base import Condition, Item, Put

RECORD = HostRecord(name="host-a", address="10.77.0.1:7600", instance="1", services=(ServiceOffer(name="web"),))


def item(record: HostRecord, revision: int = 5, lease: int = 9) -> Item:
    return Item(f"hosts/{record.name}", msgspec.json.encode(record), revision, lease)


def link(host: str, revision: int = 5) -> Item:
    return Item("links/10.77.0.1:7600", msgspec.json.encode({"host": host}), revision, 9)


def test_a_new_host_is_two_items_on_one_lease() -> None:
    change = registry.register(RECORD, 7, None, None)
    assert change.when == (Condition("hosts/host-a", 0), Condition("links/10.77.0.1:7600", 0))
    assert [(put.key, put.lease) for put in change.put] == [("hosts/host-a", 7), ("links/10.77.0.1:7600", 7)]
    assert registry.decode_record(Item("hosts/host-a", change.put[0].value, 1)) == RECORD


def test_the_newest_instance_wins() -> None:
    change = registry.register(msgspec.structs.replace(RECORD, instance="2"), 7, item(RECORD), link("host-a"))
    assert change.when == (Condition("hosts/host-a", 5), Condition("links/10.77.0.1:7600", 5))


def test_a_host_that_moves_gives_its_address_back() -> None:
    moved = msgspec.structs.replace(RECORD, address="10.77.0.2:7600")
    change = registry.register(moved, 7, item(RECORD), None)
    assert change.delete == ("links/10.77.0.1:7600",)
    assert isinstance(change.put[1], Put)
    assert change.put[1].key == "links/10.77.0.2:7600"


@pytest.mark.failure(13)
def test_an_address_of_another_host_is_refused_with_its_name() -> None:
    with pytest.raises(RequestRefused) as caught:
        registry.register(RECORD, 7, None, link("host-b"))
    assert (caught.value.status, caught.value.code) == (409, "taken")
    assert "host host-b's" in str(caught.value)


def test_staying_alive() -> None:
    assert registry.holding("host-a", "1", item(RECORD)) == 9
    with pytest.raises(RequestRefused, match="register again") as caught:
        registry.holding("host-a", "1", None)
    assert caught.value.code == "unknown_host"
    with pytest.raises(RequestRefused, match="another process") as caught:
        registry.holding("host-a", "0", item(RECORD))
    assert caught.value.code == "superseded"


def test_an_old_process_takes_nothing_away() -> None:
    assert registry.leave("0", item(RECORD)) is None
    assert registry.leave("1", None) is None
    change = registry.leave("1", item(RECORD))
    assert change is not None
    assert change.delete == ("hosts/host-a", "links/10.77.0.1:7600")
    assert [put.key for put in registry.leave("1", item(RECORD)._replace(lease=7)).put] == ["left/host-a"]  # type: ignore[union-attr]
    assert change.when == (Condition("hosts/host-a", 5),)


def test_records_are_kept_in_one_spelling() -> None:
    record = msgspec.structs.replace(
        RECORD, address="[FD00::0:1]:7600", services=(ServiceOffer(name="b"), ServiceOffer(name="a"))
    )
    kept = registry.check_record(record)
    assert kept.address == "[fd00::1]:7600"
    assert [offer.name for offer in kept.services] == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"address": "10.77.0.1"}, "no port"),
        ({"address": "0.0.0.0:7600"}, "the address of one machine"),
        ({"address": "[fe80::1%eth0]:7600"}, "whose interface means nothing on other machines"),
        ({"services": (ServiceOffer(name="../x"),)}, "allowed: 1 to 63"),
        ({"services": (ServiceOffer(name="a"), ServiceOffer(name="a"))}, "stands there twice"),
        ({"services": tuple(ServiceOffer(name=f"s{i}") for i in range(5000))}, "at most 4096"),
        ({"instance": ""}, "an instance"),
        ({"version": "x" * 200}, "at most 128"),
        ({"mac": "\x1b[2J"}, "printable"),
        ({"name": "Host A"}, "allowed: 1 to 63"),
    ],
)
def test_records_that_are_none(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(RequestRefused, match=found) as caught:
        registry.check_record(msgspec.structs.replace(RECORD, **changes))
    assert caught.value.status == 400
