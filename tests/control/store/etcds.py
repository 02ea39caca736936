"""Members of an etcd cluster, each a process of its own on loopback: Debian's etcd, started and ended by the tests."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.tools.sockets import free_ports

PATIENCE = 30.0

FAST = ("--heartbeat-interval=50", "--election-timeout=500")
"""Half a second until a new leader is looked for, on a machine that is busy."""


@functools.cache
def missing() -> str | None:
    """Why there can be no etcd here, or None."""
    return None if shutil.which("etcd") else "etcd is not installed (Debian: apt-get install etcd-server)"


class Member:
    """One etcd. What it said is in ``log``."""

    def __init__(self, name: str, place: Path, client: str, peer: str, options: Sequence[str]) -> None:
        self.name = name
        self.client = client
        self.peer = peer
        self.log = place / f"{name}.log"
        self._options = [
            f"--name={name}", f"--data-dir={place / name}", f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            "--initial-cluster-token=tests", *FAST, *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: str) -> None:
        # Whatever is set for an etcd of this machine is not for this one.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
        if platform.machine() == "aarch64":
            # etcd 3.4 wants to be asked twice there.
            environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"
        argv = ["etcd", *self._options, f"--initial-cluster={cluster}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """At once, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def status(self, client: httpx.Client) -> dict[str, str]:
        return client.post(f"{self.client}/v3/maintenance/status", json={}).raise_for_status().json()


class Etcd:
    """A cluster; ``with`` starts it and waits until it has a leader, and kills it at the end."""

    def __init__(self, place: Path, members: int = 1, options: Sequence[str] = (), scheme: str = "http") -> None:
        ports = free_ports(2 * members)
        self.members = [
            Member(
                f"etcd-{number}", place, f"{scheme}://127.0.0.1:{ports[2 * number]}",
                f"http://127.0.0.1:{ports[2 * number + 1]}", options,
            )
            for number in range(members)
        ]  # fmt: skip
        self._cluster = ",".join(f"{member.name}={member.peer}" for member in self.members)
        self.endpoints = tuple(member.client for member in self.members)

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                self.start(member)
            if self.endpoints[0].startswith("http:"):
                self.leader()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()

    def start(self, member: Member) -> None:
        member.start(self._cluster)

    def leader(self) -> Member:
        """The member that leads, as soon as all that run agree on one."""
        until = time.monotonic() + PATIENCE
        with httpx.Client(trust_env=False, timeout=1) as client:
            while time.monotonic() < until:
                found = set()
                by_id = {}
                for member in self.members:
                    try:
                        status = member.status(client)
                    except httpx.HTTPError:
                        continue
                    by_id[status["header"]["member_id"]] = member
                    found.add(status.get("leader", "0"))
                if len(found) == 1 and (leader := by_id.get(found.pop())) is not None:
                    return leader
                time.sleep(0.05)
        logs = "\n".join(member.log.read_text()[-2000:] for member in self.members)
        raise AssertionError(f"no leader within {PATIENCE:.0f} s:\n{logs}")

    def leaderless(self, member: Member) -> None:
        """Wait until that member knows of no leader."""
        until = time.monotonic() + PATIENCE
        with httpx.Client(trust_env=False, timeout=1) as client:
            while member.status(client).get("leader", "0") != "0":
                assert time.monotonic() < until, f"{member.name} still has a leader"
                time.sleep(0.05)

    def call(self, path: str, body: dict[str, object]) -> None:
        """What an administrator does with etcdctl."""
        httpx.post(self.endpoints[0] + path, json=body, trust_env=False, timeout=10).raise_for_status()


def self_signed(place: Path, name: str) -> tuple[str, str]:
    """The files of a certificate for 127.0.0.1, its own CA, for both ends of a connection; and of its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(usages, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = place / f"{name}.pem", place / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(files[0]), str(files[1])
