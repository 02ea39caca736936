"""Files that somebody replaces while the proxy runs."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.agent.reload import _REPLACED
from tests.system.world import hostlane
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, exchange, free_port

LOST = {
    "the socket": lambda sockets: (sockets / "echo.sock").unlink(),
    "all files": lambda sockets: [each.unlink() for each in sockets.iterdir()],
    "the directory": shutil.rmtree,
    "a directory that was moved": lambda sockets: sockets.rename(sockets.with_name("elsewhere")),
}

IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text("mine"),
    "a directory": Path.mkdir,
    "a link to nowhere": lambda path: path.symlink_to("/nowhere"),
}

pytestmark = [pytest.mark.netns, pytest.mark.failure("30")]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hl-"))
    yield path
    shutil.rmtree(path)


def written(folder: Path, **sections: Any) -> dict[str, Any]:
    """The configuration of a proxy alone on this machine."""
    return {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": f"127.0.0.1:{free_port()}", "security": "none"},
        "log": {"format": "json"},
        **sections,
    }


@pytest.mark.parametrize("editor", ["writes another file", "keeps a backup", "writes over", "changes nothing"])
def test_a_configuration_that_is_mounted_as_a_single_file(folder: Path, editor: str) -> None:
    """As a container sees it. What is written into the file is applied; a file in its place cannot be seen, and a
    reload says so instead of "nothing has changed"."""
    source = folder / "on-the-host.yaml"
    config = written(folder)
    source.write_text(json.dumps(config))
    proxy = Proxy(config, folder)
    mount = f"mount --bind {source} {proxy.file} && exec " + '"$@"'
    proxy.argv = ["unshare", "--mount", "sh", "-c", mount, "sh", *proxy.argv]
    with proxy:
        changed = json.dumps({**config, "peers": {"host-b": {"address": "127.0.0.2:7600"}}})
        match editor:
            case "writes another file":
                (folder / "new").write_text(changed)
                (folder / "new").replace(source)
            case "keeps a backup":
                source.rename(folder / "on-the-host.yaml~")
                source.write_text(changed)
            case "writes over":
                source.write_text(changed)
            case _:
                pass
        done = hostlane("reload", "--socket", f"{folder}/run/admin.sock")
        if editor in ("writes another file", "keeps a backup"):
            proxy.wait_for("changes of the configuration cannot be seen", error=f"{proxy.file}: {_REPLACED}")
        status = json.loads(hostlane("status", "--json", "--socket", f"{folder}/run/admin.sock").stdout)
    if editor in ("writes over", "changes nothing"):
        assert (done.returncode, done.stderr) == (0, "")
        assert ("peers" in done.stdout) == (editor == "writes over")
        assert status["config_stale"] == ""
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"{proxy.file}: {_REPLACED}\n"
        assert status["config_stale"] == f"{proxy.file}: {_REPLACED}"


@pytest.mark.parametrize("lost", LOST)
def test_a_socket_whose_file_somebody_removes(folder: Path, lost: str) -> None:
    """As systemd-tmpfiles does with what it takes for old and dead, or a script that empties a directory."""
    sockets = folder / "sockets"
    with Echo(f"unix:{folder}/service.sock") as echo:
        upstream = {"listen": f"unix:{sockets}/echo.sock", "mode": "0660"}
        config = written(folder, services={"echo": {"deliver": echo.address}}, upstreams={"echo": upstream})
        with Proxy(config, folder) as proxy, connect(f"unix:{sockets}/echo.sock") as open_before:
            exchange(open_before, b"before")
            kept = folder / "kept.sock"
            os.link(sockets / "echo.sock", kept)  # as a container has it that mounts the file by itself
            LOST[lost](sockets)
            proxy.wait_for("somebody had removed a socket's file: it is bound again", level="warning")
            assert stat.S_IMODE((sockets / "echo.sock").stat().st_mode) == 0o660
            for path in (sockets / "echo.sock", kept):
                with connect(f"unix:{path}") as client:
                    exchange(client, b"after")
            exchange(open_before, b"meanwhile")
        assert not (sockets / "echo.sock").exists()


@pytest.mark.parametrize("what", ["a file", "a directory", "a link to nowhere"])
def test_something_else_in_a_sockets_place_is_left_there(folder: Path, what: str) -> None:
    """It is said once, `health` and `status` show it, and when it has gone the socket comes back."""
    path = folder / "echo.sock"
    with Echo(f"unix:{folder}/service.sock") as echo:
        upstream = {"listen": f"unix:{path}"}
        config = written(folder, services={"echo": {"deliver": echo.address}}, upstreams={"echo": upstream})
        with Proxy(config, folder) as proxy:
            path.unlink()
            IN_THE_WAY[what](path)
            before = path.lstat()
            proxy.wait_for("a socket's file is gone, and cannot be bound again", level="error")
            health = hostlane("health", "ready", "--socket", f"{folder}/run/admin.sock")
            assert health.returncode == 1
            assert str(path) in health.stderr + health.stdout
            status = hostlane("status", "--socket", f"{folder}/run/admin.sock")
            assert status.returncode == 1
            assert f"hostlane: cannot listen on unix:{path}: " in status.stderr
            assert "missing" in status.stdout
            assert os.path.samestat(path.lstat(), before)
            path.rmdir() if what == "a directory" else path.unlink()
            proxy.wait_for("somebody had removed a socket's file: it is bound again")
            with connect(f"unix:{path}") as client:
                exchange(client, b"again")
            assert len(proxy.events("a socket's file is gone, and cannot be bound again")) == 1
            assert hostlane("status", "--socket", f"{folder}/run/admin.sock").returncode == 0
