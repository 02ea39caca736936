"""What ``hostlane join`` writes."""

from __future__ import annotations

from typing import Any

import pytest

from control.base.reading.addresses import TcpAddress, UnixAddress
from proxy.config.schema import parse
from proxy.setup import configuration
from proxy.setup.configuration import JoinOptions, offered, reached, text_of, used


def options(**more: Any) -> JoinOptions:
    base: dict[str, Any] = {
        "host": "host-c", "mesh": "hostlane", "listen": "10.77.0.3:7600", "servers": ["10.77.0.1:7601"],
        "offers": {}, "uses": {},
    }  # fmt: skip
    return JoinOptions(**{**base, **more})


def test_as_little_as_possible() -> None:
    text = text_of(options())
    assert text.splitlines()[1:] == [
        "host: host-c",
        "links:",
        '  listen: "10.77.0.3:7600"',
        "control:",
        '  servers: ["10.77.0.1:7601"]',
    ]
    assert parse(text, "x").control is not None


def test_everything() -> None:
    uses, every = used(["redis", "web=tcp:127.0.0.1:80", "all"], "/run/s")
    assert every
    offers = offered(["redis=tcp:[::1]:6379", "web=unix:/srv/a b/%.sock"])
    found = parse(
        text_of(
            options(
                mesh="shop", uses=uses, use_all=every, offers=offers, run_dir="/run/r", socket_dir="/run/s",
                state_dir="/var/s", listen="[fd00::1]:7600",
            )
        ),
        "x",
    )  # fmt: skip
    assert (found.mesh, found.run_dir, found.socket_dir) == ("shop", "/run/r", "/run/s")
    assert found.control is not None
    assert (found.control.state_dir, found.links.listen.host) == ("/var/s", "fd00::1")
    assert found.upstreams["redis"].listen == UnixAddress("/run/s/redis.sock")
    assert found.upstreams["web"].listen == TcpAddress("127.0.0.1", 80)
    assert found.services["redis"].deliver == TcpAddress("::1", 6379)
    assert found.services["web"].deliver == UnixAddress("/srv/a b/%.sock")
    assert reached(found) == [
        "redis: unix:/run/s/redis.sock",
        "web: tcp:127.0.0.1:80",
        "every service of the mesh: unix:/run/s/SERVICE.sock",
    ]


def test_all_alone() -> None:
    uses, every = used(["all"], configuration.DEFAULT_SOCKET_DIR)
    found = parse(text_of(options(uses=uses, use_all=every)), "x")
    assert found.all_upstreams is not None
    assert found.upstreams == {}


@pytest.mark.parametrize("text", ["redis", "redis=6379", "Redis=tcp:127.0.0.1:1", "redis=tcp:0.0.0.0:1", "=unix:/x"])
def test_wrong_offers(text: str) -> None:
    with pytest.raises(ValueError, match=r"found .*; allowed: "):
        offered([text])


@pytest.mark.parametrize("texts", [["Redis"], ["redis=6379"], ["redis", "redis=tcp:127.0.0.1:1"], ["all=tcp:x:1"]])
def test_wrong_uses(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"found .*; allowed: "):
        used(texts, "/run/s")
