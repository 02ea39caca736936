"""A piece of network in namespaces, made for one test with whatever fault it needs, and its diagnosis."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from proxy.check.diagnose import diagnose
from proxy.check.report import Finding, Report
from proxy.config.schema import load
from proxy.demo import netns
from proxy.demo.mesh import HOSTLANE
from tests.tools.sockets import PATIENCE

_serials = itertools.count()

DOCKER_DNS = """
table ip nat {
    chain DOCKER_OUTPUT {
        ip daddr 127.0.0.11 tcp dport 53 counter dnat to 127.0.0.11:37891
        ip daddr 127.0.0.11 udp dport 53 counter dnat to 127.0.0.11:41942
    }
    chain OUTPUT {
        type nat hook output priority -100; policy accept;
        ip daddr 127.0.0.11 counter jump DOCKER_OUTPUT
    }
    chain DOCKER_POSTROUTING {
        ip saddr 127.0.0.11 tcp sport 37891 counter snat to :53
        ip saddr 127.0.0.11 udp sport 41942 counter snat to :53
    }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        ip daddr 127.0.0.11 counter jump DOCKER_POSTROUTING
    }
}
"""
"""What dockerd 26.1 puts into the namespace of a container on a macvlan network, as ``nft list ruleset`` showed it."""


class Ground:
    """``with`` gives namespaces ``here`` and ``there``, joined by a veth ``eth0`` at each end: 10.77.0.1 and 10.77.0.2.

    Attributes:
        here, there: names of namespaces.
        folder: gone after the block, like all the rest.
        only: names of the groups to look into; none: all, which takes a second or two.
    """

    def __init__(self, only: Sequence[str] = ()) -> None:
        self.only = tuple(only)
        self._stem = f"{netns.PREFIX}-{os.getpid()}-{next(_serials)}"
        self._namespaces: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self.folder = Path(tempfile.mkdtemp(prefix="hl-"))
        self.here, self.there = f"{self._stem}-chk-here", f"{self._stem}-chk-there"

    def __enter__(self) -> Self:
        try:
            self.add("here")
            self.add("there")
            self.cable(self.here, "eth0", self.there, "eth0")
            for name, number in ((self.here, 1), (self.there, 2)):
                self.ip(name, f"address add 10.77.0.{number}/24 dev eth0")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        for name in self._namespaces:
            netns.delete(name)
        shutil.rmtree(self.folder)

    def add(self, role: str) -> str:
        """One more namespace; returns its name."""
        name = f"{self._stem}-chk-{role}"
        netns.add(name)
        self._namespaces.append(name)
        return name

    def ip(self, namespace: str, *commands: str) -> None:
        """``ip -n NAMESPACE ...``, one after the other."""
        for command in commands:
            netns.run(["ip", "-n", namespace, *command.split()])

    def run(self, namespace: str, command: str, stdin: str | None = None) -> str:
        """A shell command in a namespace."""
        return netns.run(netns.inside(namespace, ["sh", "-c", command]), stdin=stdin)

    def nft(self, namespace: str, rules: str) -> None:
        netns.run(netns.inside(namespace, ["nft", "-f", "-"]), stdin=rules)

    def live(self, namespace: str) -> int:
        """A process in a namespace, as every container has one; returns its pid."""
        process = subprocess.Popen(netns.inside(namespace, ["cat"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        # Its answer says that it is in.
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.read(1)
        return process.pid

    def cable(self, one: str, its: str, other: str, others: str) -> None:
        """A veth from ``one``, where it is called ``its``, to ``other``, where it is called ``others``; both up."""
        netns.run(f"ip link add {its} netns {one} type veth peer name {others} netns {other}".split())
        self.ip(one, f"link set {its} up")
        self.ip(other, f"link set {others} up")

    def macvlan(self, parent: str, name: str, namespace: str, address: str | None, *, below: str = "eth0") -> None:
        """A macvlan in mode bridge on ``below`` of the namespace ``parent``, in ``namespace``, up."""
        netns.run(f"ip -n {parent} link add {name} link {below} netns {namespace} type macvlan mode bridge".split())
        if address is not None:
            self.ip(namespace, f"address add {address} dev {name}")
        self.ip(namespace, f"link set {name} up")

    def reaches(self, namespace: str, address: str) -> bool:
        """Whether somebody at that address answers; nobody listens there, and says so."""
        with netns.make_socket(namespace) as sock:
            sock.settimeout(PATIENCE)
            try:
                sock.connect((address, 9))
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
        raise AssertionError(f"somebody listens at {address} port 9")

    def config(self, *, listen: str = "10.77.0.1", peer: str | None = "10.77.0.2", **sections: Any) -> Path:
        """A configuration file."""
        content: dict[str, Any] = {
            "host": "host-a",
            "run_dir": str(self.folder / "run"),
            "links": {"listen": f"{listen}:7600", "security": "none"},
            "peers": {"host-b": {"address": f"{peer}:7600"}} if peer else {},
        }
        content.update(sections)
        file = self.folder / "host-a.yaml"
        file.write_text(json.dumps(content))
        return file

    def readable(self, config: Path) -> Path:
        """The same file, for everybody."""
        self.folder.chmod(0o755)
        config.chmod(0o644)
        return config

    def check(self, namespace: str, config: Path | None = None) -> Report:
        """The diagnosis of a namespace, of the groups ``only``, made by this process (the command is `check`)."""
        with netns.entered(namespace):
            return diagnose(load(config) if config else None, only=self.only)


def check(prefix: list[str], config: Path | None = None, certificates: Sequence[Path] = ()) -> Report:
    """Run ``hostlane check --json`` behind a prefix of its command line; its exit code must go with what it says."""
    argv = [*prefix, *HOSTLANE, "check", "--json", *(["--config", str(config)] if config else [])]
    for file in certificates:
        argv += ["--certificate", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    report = msgspec.json.decode(done.stdout, type=Report)
    assert done.returncode == (1 if report.wrong else 0)
    return report


def findings(report: Report) -> dict[str, Finding]:
    """All findings by name."""
    return {finding.name: finding for group in report.groups for finding in group.findings}


def names(report: Report, level: str = "wrong") -> set[str]:
    """The names of all findings of a level."""
    return {name for name, finding in findings(report).items() if finding.level == level}


def seen(report: Report) -> str:
    """Everything that was found to be as it should be, as one text."""
    return "\n".join(text for group in report.groups for text in group.seen)


def unseen(report: Report) -> str:
    """Everything that could not be looked at, with the reason, as one text."""
    return "\n".join(f"{item.what}: {item.why}" for group in report.groups for item in group.unseen)
