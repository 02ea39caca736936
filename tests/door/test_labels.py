from __future__ import annotations

import pytest

from control.base.reading.addresses import TcpAddress
from control.base.reading.serviceaddress import address_of
from proxy.door.labels import ContainerLabels, concerned, read

REDIS = TcpAddress("127.77.0.2", 6379)


def one_problem(labels: dict[str, str]) -> str:
    found, problems = read(labels)
    assert found == ContainerLabels(caller=found.caller, group=found.group)
    [line] = problems
    assert "\n" not in line
    return line


def test_what_a_container_asks_for() -> None:
    found, problems = read({
        "hostlane.use": "redis@127.77.0.2:6379, db@[::1]:5432",
        "hostlane.offer": "web=tcp:127.0.0.1:8080,api=tcp:[::1]:8081",
        "hostlane.caller": "shop",
        "maintainer": "somebody",
    })
    assert problems == []
    assert found.uses == {REDIS: "redis", TcpAddress("::1", 5432): "db"}
    assert found.offers == {"web": TcpAddress("127.0.0.1", 8080), "api": TcpAddress("::1", 8081)}
    assert found.caller == "shop"


def test_localhost_is_both() -> None:
    found, _ = read({"hostlane.use": "redis@127.0.0.1:6379"})
    assert found.uses == {TcpAddress("127.0.0.1", 6379): "redis", TcpAddress("::1", 6379): "redis"}


def test_without_an_address_it_is_that_of_the_name() -> None:
    found, problems = read({"hostlane.use": "redis:6379"})
    assert (list(found.uses), problems) == ([TcpAddress(address_of("redis"), 6379)], [])


def test_compose_names_the_caller() -> None:
    compose = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    found, problems = read({**compose, "hostlane.use": "redis:6379"})
    assert (found.caller, found.group, problems) == ("shop.web", "shop\nweb", [])
    found, _ = read({**compose, "hostlane.caller": "front"})
    assert (found.caller, found.group) == ("front", "shop\nweb")


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ({"hostlane.sue": "redis"}, "hostlane.sue: unknown; allowed: hostlane.use, "),
        ({"hostlane.use": "redis"}, 'hostlane.use: found "redis"; allowed: SERVICE@127.x.y.z:PORT, '),
        ({"hostlane.use": ""}, 'hostlane.use: found ""; allowed: '),
        ({"hostlane.use": "redis@10.0.0.1:6379"}, "is no loopback address"),
        ({"hostlane.use": "redis@127.0.0.1:70000"}, "hostlane.use: found"),
        ({"hostlane.use": "Redis@127.0.0.1:7"}, "hostlane.use: found"),
        ({"hostlane.offer": "redis=127.0.0.1:6379"}, "allowed: SERVICE=tcp:IP:PORT"),
        ({"hostlane.offer": "redis=tcp:localhost:6379"}, "allowed: SERVICE=tcp:IP:PORT"),
        ({"hostlane.offer": "redis=tcp:0.0.0.0:6379"}, "every address of the container"),
        ({"hostlane.caller": "Shop"}, 'hostlane.caller: found "Shop"; allowed: 1 to 63'),
        ({"hostlane.caller": ""}, 'hostlane.caller: found ""; allowed: 1 to 63'),
        ({"hostlane.sockets": ""}, 'hostlane.sockets: found ""; allowed: services, several with'),
        ({"hostlane.sockets": "../x"}, 'hostlane.sockets: found "../x"; allowed: services, '),
        ({"hostlane.attach": ""}, 'hostlane.attach: found ""; allowed: '),
        ({"hostlane.attach": "eth0/x"}, 'hostlane.attach: found "eth0/x"; allowed: '),
        (
            {"com.docker.compose.project": "shop", "com.docker.compose.service": "Web"},
            'com.docker.compose.service: found "shop.Web"; allowed: 1 to 63 of a-z',
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_left_out(labels: dict[str, str], line: str) -> None:
    assert line in one_problem(labels)


def test_all_else_holds() -> None:
    found, problems = read({"hostlane.use": "redis@127.77.0.2:6379,nonsense", "hostlane.x": ""})
    assert found.uses == {REDIS: "redis"}
    assert len(problems) == 2


def test_one_place_for_two_services() -> None:
    found, [line] = read({"hostlane.use": "redis@127.77.0.2:6379,db@127.77.0.2:6379"})
    assert found.uses == {REDIS: "redis"}
    assert line == "hostlane.use: 127.77.0.2:6379 is for redis already, and cannot be for db"


def test_one_service_at_two_places() -> None:
    found, [line] = read({"hostlane.offer": "web=tcp:127.0.0.1:80,web=tcp:127.0.0.1:81"})
    assert found.offers == {"web": TcpAddress("127.0.0.1", 80)}
    assert line == "hostlane.offer: web is at 127.0.0.1:80 already, not 127.0.0.1:81"


def test_a_circle() -> None:
    found, [line] = read({"hostlane.use": "redis@127.77.0.2:6379", "hostlane.offer": "web=tcp:127.77.0.2:6379"})
    assert found.offers == {}
    assert line == "hostlane.offer: 127.77.0.2:6379 is where this container calls redis: a circle"


def test_whose_labels_matter() -> None:
    assert concerned({"hostlane.anything": ""})
    assert not concerned({"hostlan": "", "com.docker.compose.project": "hostlane.use"})


def test_one_socket_for_each_service() -> None:
    found, [line] = read({"hostlane.sockets": "redis,db,redis"})
    assert found.sockets == ("redis", "db")
    assert line == 'hostlane.sockets: found "redis"; allowed: services, several with commas between, each once'


def test_sockets_and_interface() -> None:
    found, problems = read({"hostlane.sockets": "redis, db", "hostlane.attach": "eth0"})
    assert (found.sockets, found.attach, problems) == (("redis", "db"), "eth0", [])
