from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.check.ground import Ground, check, findings, seen
from tests.system.cgroups import Cgroup
from tests.tools.process import Proxy

pytestmark = [pytest.mark.netns, pytest.mark.failure("33")]
ONLY = ("memory",)
MIB = 1 << 20


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    made = Cgroup(128 * MIB)
    try:
        made.__enter__()
    except OSError as error:
        pytest.skip(f"no cgroup with a memory limit can be made here: {error.strerror}")
    yield made
    made.__exit__()


def test_what_a_proxy_would_be_in(ground: Ground, cgroup: Cgroup) -> None:
    found = findings(check(cgroup.inside([]), ground.config(limits={"memory": "512MiB"})))["memory-limit"]
    assert found.level == "wrong"
    assert "a process started from here is in a cgroup that may take 128 MiB" in found.read
    assert str(cgroup.file) in found.read
    assert "memory-limit" not in findings(check(cgroup.inside([]), ground.config()))


def test_without_a_configuration(ground: Ground, cgroup: Cgroup) -> None:
    assert "limits.memory = 31 MiB, the default here" in seen(check(cgroup.inside([])))


def test_a_running_proxy_is_in_its_own(ground: Ground, cgroup: Cgroup) -> None:
    folder = ground.folder / "proxy"
    folder.mkdir()
    config = ground.config(listen="127.0.0.1", limits={"memory": "40MiB"}, log={"format": "json"})
    proxy = Proxy(config.read_text(), folder)
    proxy.argv = cgroup.inside(proxy.argv)
    with proxy:
        found = findings(check([], config))["memory-limit"]
    assert found.level == "note"
    assert f"the running proxy, process {proxy.pid}, is in a cgroup that may take 128 MiB" in found.read
