from __future__ import annotations

from dataclasses import replace

from control.base.reading.addresses import TcpAddress
from proxy.door.desired import Container, SocketDirectory, desired

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


SHOP = Container("3", "shop-web-1", "2026-01-03", labels={
    "hostlane.sockets": "redis,db", "com.docker.compose.project": "shop", "com.docker.compose.service": "web"
})  # fmt: skip


def test_a_directory_is_there_from_the_creation_to_the_removal() -> None:
    for each in (SHOP, replace(SHOP, running=True, namespace="x"), replace(SHOP, running=True, mode="host")):
        found = desired([each])
        assert found.directories == {"shop-web-1": SocketDirectory("shop\nweb", ("redis", "db"), "shop.web")}
        assert (found.rooms, found.problems) == ({}, ())
    assert desired([]).directories == {}


def test_one_that_takes_the_place_of_another_has_its_directory() -> None:
    """Compose creates the next one under another name, removes the one before, and then renames it and starts it."""
    labels = {**SHOP.labels, "hostlane.sockets": "db,mail"}
    younger = replace(SHOP, id="4", name="0123456789ab_shop-web-1", created="2026-01-04", labels=labels)
    found = desired([SHOP, younger])
    assert found.directories["shop-web-1"].services == ("redis", "db", "mail")
    assert found.problems == ()
    for alone in (younger, replace(younger, name="shop-web-1")):
        assert desired([alone]).directories["shop-web-1"].services == ("db", "mail")


def test_directories_that_cannot_be() -> None:
    other = Container("5", "0123456789ab_shop-web-1", "2027", labels={"hostlane.sockets": "redis"})
    line = "directory shop-web-1 is another container's; rename one"
    assert problem(SHOP, other) == f"container 0123456789ab_shop-web-1: hostlane.sockets: {line}"
    for name in ("..", "a/../../b", "-x", "a b", "x" * 300, "ü"):
        found = desired([replace(SHOP, name=name)])
        assert found.directories == {}
        assert "hostlane.sockets: its name is its directory's: found" in found.problems[0]
        assert "\n" not in found.problems[0]


def test_services_with_dots_are_not_others() -> None:
    def labels(project: str, service: str) -> dict[str, str]:
        return {"com.docker.compose.project": project, "com.docker.compose.service": service, **CLIENT.labels}

    one = replace(CLIENT, labels=labels("a.b", "c"))
    two = replace(CLIENT, id="9", name="two", namespace="x", labels=labels("a", "b.c"))
    assert problem(one, two).startswith("container two: hostlane.caller: client is caller a.b.c,")


def test_who_is_to_get_an_interface() -> None:
    asks = replace(CLIENT, labels={"hostlane.attach": "eth0"})
    assert desired([asks]).attaching == ("client",)
    assert desired([replace(asks, running=False)]).attaching == ()
