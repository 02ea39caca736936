from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from proxy.demo import netns
from tests.check.ground import Ground, check, findings, names, seen, unseen
from tests.tools.nobody import as_nobody

pytestmark = [pytest.mark.netns, pytest.mark.failure(15)]
ONLY = ("sockets",)


def upstream(path: Path, **more: str) -> dict[str, Any]:
    """A configuration's sections for one upstream, which this host serves itself."""
    return {
        "services": {"echo": {"deliver": "tcp:127.0.0.1:9"}},
        "upstreams": {"echo": {"listen": f"unix:{path}", **more}},
    }


def test_a_directory_that_others_cannot_enter(ground: Ground) -> None:
    folder = ground.folder / "calls"
    folder.mkdir(mode=0o750)
    config = ground.config(**upstream(folder / "echo.sock"))
    found = findings(ground.check(ground.here, config))["closed-directory"]
    assert found.read == f"{folder} has mode 0750, and the socket in it is meant for everybody"
    config = ground.config(**upstream(folder / "echo.sock", mode="0660"))
    assert names(ground.check(ground.here, config)) == set()
    config = ground.config(**upstream(folder / "echo.sock"))
    ground.run(ground.here, found.mend.partition(",")[0])
    assert names(ground.check(ground.here, config)) == set()


def test_a_directory_that_anybody_may_write_to(ground: Ground) -> None:
    folder = ground.folder / "calls"
    folder.mkdir()
    config = ground.config(**upstream(folder / "echo.sock"))
    folder.chmod(0o1777)
    assert names(ground.check(ground.here, config)) == set()
    folder.chmod(0o777)
    found = findings(ground.check(ground.here, config))["open-directory"]
    ground.run(ground.here, found.mend)
    assert names(ground.check(ground.here, config)) == set()


def test_a_read_only_file_system(ground: Ground) -> None:
    folder = ground.folder / "calls"
    folder.mkdir()
    config = ground.config(**upstream(folder / "echo.sock"))
    mounted = f'mount -t tmpfs -o ro,mode=0755 tmpfs {folder} && exec "$@"'
    prefix = netns.inside(ground.here, ["unshare", "-m", "sh", "-c", mounted, "_"])
    assert findings(check(prefix, config))["read-only-directory"].where == "upstreams.echo.listen"


def test_no_directory(ground: Ground) -> None:
    file = ground.folder / "calls"
    config = ground.config(**upstream(file / "echo.sock"))
    report = ground.check(ground.here, config)
    assert f"{file} (upstreams.echo.listen) does not exist; the proxy makes it" in seen(report)
    file.write_text("")
    assert f"{file} is not a directory" in findings(ground.check(ground.here, config))["not-a-directory"].read


def test_services(ground: Ground) -> None:
    web = ground.folder / "web" / "web.sock"
    config = ground.config(services={"web": {"deliver": f"unix:{web}"}})
    found = findings(ground.check(ground.here, config))["no-service-socket"]
    assert found.read == f"{web} has not even its directory"
    web.parent.mkdir()
    assert "has no socket" in findings(ground.check(ground.here, config))["no-service-socket"].read
    web.mkdir()
    assert findings(ground.check(ground.here, config))["not-a-socket"].where == "services.web.deliver"
    web.rmdir()
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(web))
        report = ground.check(ground.here, config)
    assert f"{web} (services.web.deliver) is a socket" in seen(report)
    assert names(report) == set()


@pytest.mark.nobody
def test_what_may_not_be_looked_at(ground: Ground) -> None:
    folder = ground.folder / "closed"
    config = ground.config(**upstream(folder / "calls" / "echo.sock"))
    (folder / "calls").mkdir(parents=True)
    folder.chmod(0o700)
    report = check(netns.inside(ground.here, as_nobody()), ground.readable(config))
    assert f"{folder}/calls (upstreams.echo.listen): no permission; ask as root" in unseen(report)
