from __future__ import annotations

from dataclasses import replace

from control.base.reading.addresses import TcpAddress
from proxy.door.desired import Container, desired

REDIS = TcpAddress("127.0.0.1", 6379)
CLIENT = Container("1", "client", "2026-01-01", True, False, "abc", "none", "none", {
    "hostlane.use": "redis@127.7.7.7:1"
})  # fmt: skip
SERVER = Container("2", "server", "2026-01-02", True, False, "def", "none", "none", {
    "hostlane.offer": "redis=tcp:127.0.0.1:6379"
})  # fmt: skip


def problem(*containers: Container) -> str:
    [line] = desired(containers).problems
    return line


def test_containers_that_run_have_what_they_ask_for() -> None:
    found = desired([SERVER, CLIENT])
    assert found.problems == ()
    assert found.rooms["1"].listeners == {TcpAddress("127.7.7.7", 1): "redis"}
    assert found.rooms["2"].offers == {"redis": REDIS}
    assert (found.rooms["1"].namespace, found.rooms["2"].name) == ("abc", "server")


def test_one_that_does_not_run_has_nothing() -> None:
    assert desired([replace(SERVER, running=False), replace(CLIENT, namespace="")]).rooms == {}


def test_an_offer_is_there_while_its_container_is_well() -> None:
    for health, there in (("none", True), ("starting", False), ("healthy", True), ("unhealthy", False)):
        [room] = desired([replace(SERVER, health=health)]).rooms.values()
        assert bool(room.offers) is there
    [room] = desired([replace(SERVER, paused=True)]).rooms.values()
    assert not room.offers


def test_who_is_paused_or_unwell_keeps_its_listeners() -> None:
    for other in (replace(CLIENT, paused=True), replace(CLIENT, health="unhealthy")):
        assert desired([other]).rooms["1"].listeners


def test_networks_of_others() -> None:
    assert "container client: its network is the host's" in problem(replace(CLIENT, mode="host", namespace="default"))
    line = problem(replace(CLIENT, mode="container:2", namespace=""), SERVER)
    assert line == "container client: its network is another container's; put its labels there"
    line = problem(replace(CLIENT, namespace="def"), SERVER)
    assert line == "container server: it is in the network namespace of client; put its labels there"


def test_the_older_one_offers_until_it_ends() -> None:
    other = replace(SERVER, id="3", name="other", created="2026-01-03", namespace="ghi")
    found = desired([other, SERVER])
    assert found.rooms["2"].offers
    assert not found.rooms["3"].offers
    assert found.problems == ("container other: hostlane.offer: server offers redis, and goes first",)
    for gone in (replace(SERVER, running=False), replace(SERVER, health="unhealthy")):
        found = desired([other, gone])
        assert found.rooms["3"].offers
        assert found.problems == ()


def test_callers_of_one_name() -> None:
    labels = {**CLIENT.labels, "hostlane.caller": "shop"}
    one, two = replace(CLIENT, labels=labels), replace(CLIENT, id="9", name="two", created="2027", labels=labels)
    found = desired([one, replace(two, namespace="x")])
    assert (found.rooms["1"].caller, found.rooms["9"].caller) == ("shop", "")
    [line] = found.problems
    assert line == "container two: hostlane.caller: client is caller shop, so that calls of this one name no caller"


def test_replicas_are_one_caller() -> None:
    compose = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", **CLIENT.labels}
    one, two = replace(CLIENT, labels=compose), replace(CLIENT, id="9", name="two", namespace="x", labels=compose)
    found = desired([one, two])
    assert found.problems == ()
    assert {room.caller for room in found.rooms.values()} == {"shop.web"}


def test_what_is_wrong_names_the_container_even_if_it_does_not_run() -> None:
    line = problem(replace(CLIENT, running=False, labels={"hostlane.use": "?"}))
    assert line.startswith('container client: hostlane.use: found "?"')
