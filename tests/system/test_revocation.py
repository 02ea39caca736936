"""A host is revoked, and its stolen certificate with it: real processes, mutual TLS, one control server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo.lab import Lab
from tests.system.fleet import Fleet
from tests.system.world import hostlane
from tests.tools.process import Proxy
from tests.tools.sockets import connect, eventually, exchange, read_to_end

pytestmark = pytest.mark.netns


@pytest.fixture
def fleet(lab: Lab) -> Iterator[Fleet]:
    with Fleet(lab) as running:
        running.begin(b=["web"], c=["mail"])
        yield running


@pytest.mark.failure(12)
def test_a_revoked_host_is_cut_off_and_others_are_not(fleet: Fleet, tmp_path: Path) -> None:
    a, b, c = (fleet.proxies[letter] for letter in "abc")
    with fleet.call("mail") as cut, fleet.call("web") as goes_on:
        exchange(cut, b"hello")
        exchange(goes_on, b"hello")
        stolen = shutil.copytree(fleet.folder / "c" / "state", fleet.folder / "stolen", symlinks=True)

        done = hostlane("revoke", "host-c", "--config", str(fleet.control_file), host=fleet.lab.a)
        assert done.returncode == 0, done.stderr
        down = a.wait_for("link down", peer="host-c", reason="revoked")
        assert down["streams"] == 1
        read_to_end(cut)
        c.wait_for("this host's certificate was revoked; only a new token helps")
        eventually(lambda: fleet.offered_by("mail") == "", "it is off the map")

        # The thief has everything that the host had, and its address too.
        c.stop()
        config = fleet._config("c")
        config["control"]["state_dir"] = str(stolen)
        config["control"].pop("token_file")
        config["peers"] = {"host-b": {"address": f"{fleet.addresses['b']}:7600", "services": ["web"]}}
        config["upstreams"] = {"web": {"listen": f"unix:{tmp_path}/web.sock"}}
        with Proxy(config, tmp_path, host=fleet.lab.b) as thief:
            thief.wait_for("proxy ready")
            since = len(b.log)
            with connect(tmp_path / "web.sock") as attempt:
                b.wait_for("link refused", since, reason="revoked")
                read_to_end(attempt)
            assert fleet.offered_by("mail") == ""
        exchange(goes_on, b"still")

    # The honest host comes back with a new token.
    made = hostlane("token", "create", "--host", "host-c", "--config", str(fleet.control_file), host=fleet.lab.a)
    (fleet.folder / "c" / "token").write_text(made.stdout)
    c.restart()
    eventually(lambda: fleet.offered_by("mail") == "c", "it is on the map again")
    with fleet.call("mail") as again:
        exchange(again, b"hello")
