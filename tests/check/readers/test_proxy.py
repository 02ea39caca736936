"""What a real proxy says of itself, or does not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from control.api import admin
from proxy.check.context import DiagnosisContext
from proxy.check.readers import proxy as proxy_reader
from proxy.check.report import Finding
from proxy.check.rules.proxy import judge
from proxy.config.schema import Config, load
from proxy.links import acceptgate
from tests.pump.agents import mesh
from tests.pump.rig import until
from tests.tools.process import Proxy
from tests.tools.sockets import connect, eventually, free_port

pytestmark = pytest.mark.failure("30")
CODES = [errno.EACCES, errno.EPERM]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hl-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def proxy(folder: Path) -> Proxy:
    """Not started."""
    config: dict[str, Any] = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": f"127.0.0.1:{free_port()}", "security": "none"},
        "peers": {"host-b": {"address": "127.0.0.2:9", "services": ["echo"]}},
        "upstreams": {"echo": {"listen": f"unix:{folder}/echo.sock"}},
        "pool": {"record": f"{folder}/uses"},
        "log": {"format": "json"},
    }
    return Proxy(config, folder)


def found(config: Config) -> list[tuple[str, str]]:
    """Names of the findings, and what was read."""
    context = cast(DiagnosisContext, SimpleNamespace(config=config))
    return [(each.name, each.read) for each in judge(proxy_reader.read(context)) if isinstance(each, Finding)]


def test_one_that_is_well_and_one_that_is_gone(proxy: Proxy) -> None:
    config = load(proxy.file)
    with proxy:
        proxy.wait_for("proxy ready")
        assert found(config) == []
    assert found(config) == []
    context = cast(DiagnosisContext, SimpleNamespace(config=config))
    facts = proxy_reader.read(context)
    assert facts.unseen is not None
    assert facts.unseen.why.endswith("admin.sock: no proxy runs")


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_callers_that_cannot_be_accepted(proxy: Proxy, folder: Path, code: int) -> None:
    proxy.argv = [sys.executable, "-m", "tests.tools.seccomp", "--pump", str(code), *proxy.argv]
    with proxy, connect(f"unix:{folder}/echo.sock"):
        proxy.wait_for("cannot accept a connection", error=os.strerror(code))
        line = f"unix:{folder}/echo.sock: cannot accept a connection: {os.strerror(code)}"
        assert found(load(proxy.file)) == [("cannot-accept", line)]


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
async def test_links_that_cannot_be_accepted(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied(socket.socket):
        denied = True

        def accept(self) -> Any:
            if Denied.denied and self.family == socket.AF_INET:
                raise OSError(code, os.strerror(code))
            return super().accept()

    monkeypatch.setattr(acceptgate, "socket", SimpleNamespace(socket=Denied))
    async with mesh() as hosts:
        agent = await hosts.start("host-a")
        host, _, port = hosts.addresses["host-a"].partition(":")
        with socket.create_connection((host, int(port))):
            await until(lambda: agent.view.failing(), "it fails")
            line = f"links.listen: cannot accept a connection: {os.strerror(code)}"
            assert await trio.to_thread.run_sync(found, agent.config) == [("cannot-accept", line)]
            Denied.denied = False
            await until(lambda: not agent.view.failing(), "it works again")
            assert await trio.to_thread.run_sync(found, agent.config) == []


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_one_that_cannot_even_be_asked(proxy: Proxy, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "TIMEOUT", 1.0)
    proxy.argv = [sys.executable, "-m", "tests.tools.seccomp", str(code), *proxy.argv]
    with proxy:
        proxy.wait_for("proxy ready")
        [(name, read)] = found(load(proxy.file))
    assert name == "silent-proxy"
    assert f"process {proxy.pid}: " in read
    assert "no answer for 1 s" in read


def taken(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.mkdir()


def piped(path: Path) -> None:
    path.rename(path.with_name("old"))
    os.mkfifo(path)


@pytest.mark.parametrize("make", [taken, piped])
def test_uses_that_cannot_be_recorded(proxy: Proxy, folder: Path, make: Callable[[Path], None]) -> None:
    with proxy:
        proxy.wait_for("proxy ready")
        make(folder / "uses")
        proxy.wait_for("uses are not recorded")
        [(name, read)] = found(load(proxy.file))
        assert name == "uses-not-recorded"
        assert f"{folder}/uses: found a " in read
        (folder / "uses").rmdir() if make is taken else (folder / "uses").unlink()
        proxy.wait_for("uses are recorded again")
        assert found(load(proxy.file)) == []


@pytest.mark.netns
@pytest.mark.parametrize("backup", [True, False], ids=["keeps a backup", "keeps none"])
def test_a_configuration_that_is_mounted_as_a_single_file(proxy: Proxy, folder: Path, backup: bool) -> None:
    """As a container sees it, and an editor on the host replaces it."""
    source, old = folder / "on-the-host.yaml", folder / "on-the-host.yaml~"
    config = load(proxy.file)
    source.write_text(proxy.file.read_text())
    mount = f"mount --bind {source} {proxy.file} && exec " + '"$@"'
    proxy.argv = ["unshare", "--mount", "sh", "-c", mount, "sh", *proxy.argv]
    with proxy:
        proxy.wait_for("proxy ready")
        assert found(config) == []
        (folder / "new").write_text(json.dumps({}))
        if backup:
            source.rename(old)
        (folder / "new").replace(source)
        proxy.wait_for("changes of the configuration cannot be seen")
        [(name, read)] = found(config)
        assert name == "stale-configuration"
        assert read.startswith(f"{proxy.file}: a mount of this one file")
        if backup:
            old.replace(source)
            proxy.wait_for("changes of the configuration can be seen again")
            eventually(lambda: found(config) == [], "it is the file that was meant")
