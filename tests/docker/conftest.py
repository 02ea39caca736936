"""Two hosts for all tests with engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker.engines import EngineHost, two_hosts

Hosts = tuple[EngineHost, EngineHost]


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    """They are started once: mark tests ``docker``."""
    with two_hosts() as made:
        yield made


@pytest.fixture
def empty(hosts: Hosts) -> Iterator[Hosts]:
    """Both hosts, without the containers of other tests."""
    yield hosts
    for host in hosts:
        if names := set(host.docker("ps", "--all", "--format={{.Names}}").split()) - {"door", "proxy"}:
            host.docker("rm", "--force", *names)
