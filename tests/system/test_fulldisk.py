"""Disks that are full: what is paid for is not lost, and what is known is served."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.mesh import HOSTLANE
from tests.system.world import ask, hostlane
from tests.tools.process import Process
from tests.tools.smalldisk import SmallDisk
from tests.tools.sockets import eventually, free_port

pytestmark = [pytest.mark.netns, pytest.mark.failure("30a")]

FULL = "the disk is full"


class Site:
    """A control server and host-a, on loopback; `disk` is mounted at ``disk`` in `folder`.

    Attributes:
        control, proxy: neither is started.
    """

    def __init__(self, folder: Path, disk: SmallDisk, *, control_state: str, host_state: str) -> None:
        self.folder, self.disk = folder, disk
        port = free_port()
        self.control_file = self._write(
            "control",
            name="control-1",
            listen=f"127.0.0.1:{port}",
            run_dir=str(folder / "control-run"),
            state_dir=str(folder / control_state),
            lease="5s",
        )
        self.host_file = self._write(
            "host",
            host="host-a",
            run_dir=str(folder / "run"),
            links={"listen": f"127.0.0.1:{free_port()}"},
            control={
                "servers": [f"127.0.0.1:{port}"],
                "token_file": str(folder / "token"),
                "state_dir": str(folder / host_state),
            },
        )
        made = self.run("control", "init", "--config", str(self.control_file))
        assert made.returncode == 0, made.stderr
        self.control = Process(disk.argv([*HOSTLANE, "control", "--config", str(self.control_file)]))
        self.proxy = Process(disk.argv([*HOSTLANE, "proxy", "--config", str(self.host_file)]))

    def _write(self, kind: str, **config: Any) -> Path:
        file = self.folder / f"{kind}.yaml"
        file.write_text(json.dumps({**config, "log": {"format": "json"}}))
        return file

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = self.disk.argv([*HOSTLANE, *words])
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def administer(self, *words: str) -> subprocess.CompletedProcess[str]:
        return hostlane(*words, "--config", str(self.control_file))

    def give_token(self) -> str:
        made = self.administer("token", "create", "--host", "host-a")
        assert made.returncode == 0, made.stderr
        (self.folder / "token").write_text(made.stdout)
        return made.stdout

    def following(self) -> bool:
        found = ask(self.folder / "run" / "admin.sock", "status")["control"]
        return bool(found["server"] and found["registered"])


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hl-"))
    (made / "disk").mkdir()
    yield made
    shutil.rmtree(made)


def test_a_full_disk_costs_no_token(folder: Path) -> None:
    with SmallDisk(folder / "disk") as disk:
        site = Site(folder, disk, control_state="control", host_state="disk/state")
        with site.control as control:
            control.wait_for("control server ready")
            site.give_token()
            disk.fill()
            refused = site.run("proxy", "--config", str(site.host_file))
            assert refused.returncode == 2
            state = folder / "disk" / "state"
            assert f"control.state_dir: {state}: no space left on device; the token has not been used" in refused.stderr
            assert len(json.loads(site.administer("token", "list", "--json").stdout)) == 1
            disk.free()
            with site.proxy as proxy:
                proxy.wait_for("joined the mesh")
                proxy.wait_for("registered")
                # What is renewed when the disk is full is not asked for in vain, and what runs goes on.
                disk.fill()
                eventually(site.following, "it follows")
            assert not control.events("join refused: token used")


def test_a_control_server_serves_what_it_knows_from_a_full_disk(folder: Path) -> None:
    with SmallDisk(folder / "disk") as disk:
        site = Site(folder, disk, control_state="disk/control", host_state="state")
        control = site.control
        with control:
            control.wait_for("control server ready")
            site.give_token()
            with site.proxy as proxy:
                proxy.wait_for("registered")
                for stop in (control.kill, control.stop):
                    stop()
                    disk.fill()
                    control.start()
                    control.wait_for(f"{FULL}: what the store knows is served, and nothing can be changed")
                    control.wait_for("control server ready")
                    hosts = site.administer("hosts")
                    assert hosts.returncode == 0, hosts.stderr
                    assert "host-a" in hosts.stdout
                    eventually(site.following, "the host follows it, and is registered as before")
                    refused = site.administer("token", "create", "--host", "host-b")
                    assert refused.returncode == 1
                    assert FULL in refused.stderr
                    disk.free()
                    made = site.administer("token", "create", "--host", "host-b")
                    assert made.returncode == 0, made.stderr
                    assert not proxy.events("the control plane had lost sight of this host, which registers again")


def test_without_a_store_there_is_nothing_to_serve(folder: Path) -> None:
    with SmallDisk(folder / "disk") as disk:
        site = Site(folder, disk, control_state="disk/control", host_state="state")
        disk.path("control/store.db").unlink(missing_ok=True)
        disk.fill()
        refused = site.run("control", "--config", str(site.control_file))
        assert refused.returncode == 2
        assert f"{folder}/disk/control/store.db: {FULL}" in refused.stderr
