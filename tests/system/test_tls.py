"""Mutual TLS between two real proxies: who gets a link, what both say to who does not, and new certificates under
traffic.
"""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from control.api.identity import host_uri
from proxy.demo.certificates import CertificateAuthority, write
from proxy.demo.lab import Lab
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, PORT, World, hostlane
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, eventually, exchange, read_to_end, say

pytestmark = pytest.mark.netns

A, B = (host_uri("hostlane", name) for name in ("host-a", "host-b"))
IN_USE = "new certificate files in use"
REFUSED = "new certificate files refused, the old ones stay in use"
PATIENT = {"limits": {"open_timeout": "1m"}}
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def test_messages_of_all_sizes_around_the_limits(lab: Lab) -> None:
    with World(lab, mtls=True) as world:
        for kind in KINDS:
            for size in (1, 16_383, 16_384, 16_385, 65_536, 131_072):
                with world.call(kind) as client:
                    exchange(client, Random(size).randbytes(size))
        world.wait_until_idle()
        assert world.ask("a", "status")["security"] == "mtls"


def reconfigure(proxy: Proxy, host: str | None = None, **links: Any) -> None:
    """Change the configuration of a proxy that does not run."""
    config = json.loads(proxy.file.read_text())
    config["host"] = host or config["host"]
    config["links"].update(links)
    proxy.file.write_text(json.dumps(config))


def another_ca(world: World, folder: Path) -> None:
    CertificateAuthority("Other CA").write(folder, "host-b")


def another_host(world: World, folder: Path) -> None:
    """The machine has been given to host-x by now, which is as good a host as any."""
    assert world.authority is not None
    reconfigure(world.b, host="host-x", tls=world.authority.write(folder, "host-x"))


def plaintext(world: World, folder: Path) -> None:
    reconfigure(world.b, security="none")


def tls(world: World, folder: Path) -> None:
    reconfigure(world.b, security="mtls", tls=CertificateAuthority().write(folder, "host-b"))


CASES: dict[str, tuple[bool, Callable[[World, Path], None], str, str]] = {
    "another CA": (
        True,
        another_ca,
        "the peer's certificate is refused: it is not signed by a CA in links.tls.ca",
        "the peer refused this host's certificate: it is not signed by a CA that the peer trusts",
    ),
    "another host": (
        True,
        another_host,
        "host 'host-x' answered instead of 'host-b', says its certificate",
        "the peer refused: wrong_host",
    ),
    "TLS to a plaintext port": (
        True,
        plaintext,
        "the peer speaks plaintext, this host has links.security: mtls",
        "the peer speaks TLS, this host has links.security: none",
    ),
    "plaintext to a TLS port": (
        False,
        tls,
        "the peer speaks TLS, this host has links.security: none",
        "the peer speaks plaintext, this host has links.security: mtls",
    ),
}


@pytest.mark.failure(11)
@pytest.mark.parametrize("case", CASES)
def test_a_host_that_is_not_the_one_meant_gets_no_stream_and_disturbs_nobody(lab: Lab, case: str) -> None:
    """host-b comes back as somebody else; host-c offers the same service all the time."""
    mtls, change, at_a, at_b = CASES[case]
    with World(lab, mtls=mtls, third=True, more=PATIENT) as world, Echo(world.deliver("unix", "c")):
        world.kill_b()
        change(world, world.folder / "b")
        with Callers(Caller(number, world.call("unix")) for number in range(4)) as callers:
            callers.all_talk()
            world.b.restart()
            said = world.a.wait_for("cannot reach peer", error=at_a)
            world.b.wait_for("link refused", level="warning", error=at_b)
            assert said["peer"] == "host-b"
            assert len(world.a.events("cannot reach peer", level="warning", error=at_a)) == 1
            callers.all_talk()
            assert world.ask("b", "status")["streams_opened"] == 0
            assert world.ask("b", "links") == []
        assert callers.endings() == {"stopped"}


def stranger(world: World, lab: Lab, context: ssl.SSLContext) -> str:
    """Make a TLS handshake with host-b from host-a's machine; what it was told, in OpenSSL's words."""
    with connect(f"tcp:{lab.b.address}:{PORT}", lab.a.socket()) as sock:
        try:
            with context.wrap_socket(sock) as secured:
                return f"frame {secured.recv(1000)[0]:#04x}"
        except ssl.SSLError as error:
            return error.reason or type(error).__name__


def context(world: World, certificate: bytes | None = None, key: bytes | None = None) -> ssl.SSLContext:
    assert world.authority is not None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=world.authority.certificate.decode())
    if certificate and key:
        folder = world.folder / "stranger"
        folder.mkdir(exist_ok=True)
        files = write(folder, certificate, key, b"")
        made.load_cert_chain(files["certificate"], files["key"])
    return made


@pytest.mark.failure(11, 18)
def test_strangers_are_told_why_and_disturb_nobody(lab: Lab) -> None:
    with World(lab, mtls=True) as world:
        authority = world.authority
        assert authority is not None
        old = context(world, *authority.issue(A))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        cases = {
            "the peer sent no certificate": (context(world), "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            "the peer's certificate is refused: certificate has expired": (
                context(world, *authority.issue(A, start=NOW - 2 * DAY, end=NOW - DAY)),
                "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            ),
            "the peer's certificate names no host: found 2 URI names; "
            "allowed: exactly one, spiffe://hostlane/host/<name>": (
                context(world, *authority.issue(A, B)),
                "frame 0x0a",
            ),
            "the peer's certificate is refused: it is not signed by a CA in links.tls.ca": (
                context(world, *CertificateAuthority("Other CA").issue(A)),
                "TLSV1_ALERT_UNKNOWN_CA",
            ),
            "the peer does not speak TLS 1.3": (old, "TLSV1_ALERT_PROTOCOL_VERSION"),
        }
        with Callers(Caller(number, world.call(KINDS[number % 2])) for number in range(4)) as callers:
            for error, (how, told) in cases.items():
                assert stranger(world, lab, how) == told, error
                world.b.wait_for("link refused", level="warning", error=error)
            callers.all_talk()
        assert callers.endings() == {"stopped"}
        assert len(world.b.events("link refused")) == len(cases)
        assert world.links() == 1


@pytest.mark.failure(18)
@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(600), bytes(70_000)])
def test_what_is_not_tls_is_turned_away(lab: Lab, said: bytes) -> None:
    with World(lab, mtls=True) as world:
        with connect(f"tcp:{lab.b.address}:{PORT}", lab.a.socket()) as sock:
            say(sock, said)
            read_to_end(sock)
        world.b.wait_for("link refused", level="warning")
        with world.call("unix") as client:
            exchange(client, b"as before")


def shown(world: World, lab: Lab, ca: bytes) -> bytes:
    """The certificate that host-b shows now to who dials it (whatever it then thinks of the caller)."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=ca.decode())
    with connect(f"tcp:{lab.b.address}:{PORT}", lab.a.socket()) as sock, made.wrap_socket(sock) as secured:
        return secured.getpeercert(binary_form=True) or b""


def wait_for_new_files(world: World, times: int) -> None:
    eventually(lambda: all(len(proxy.events(IN_USE)) == times for proxy in (world.a, world.b)), "new files in use")


@pytest.mark.failure(12)
def test_new_certificates_and_a_new_ca_under_traffic(lab: Lab) -> None:
    """The CA is exchanged as it should be: first both in the bundles, then new certificates, then the new one alone."""
    with World(lab, mtls=True, more=PATIENT) as world:
        old, new = world.authority, CertificateAuthority("New CA")
        assert old is not None
        steps = [
            (old, old.certificate),
            (old, old.certificate + new.certificate),
            (new, old.certificate + new.certificate),
            (new, new.certificate),
        ]
        with Callers(Caller(number, world.call(KINDS[number % 2])) for number in range(6)) as callers:
            for number, (issuer, bundle) in enumerate(steps, 1):
                for side, uri in (("a", A), ("b", B)):
                    certificate, key = issuer.issue(uri)
                    write(world.folder / side, certificate, key, bundle)
                wait_for_new_files(world, number)
                assert shown(world, lab, issuer.certificate) == ssl.PEM_cert_to_DER_cert(certificate.decode())
                callers.all_talk()
        assert callers.endings() == {"stopped"}
        assert len(world.a.events("link up")) == 1, "the link is still the first one"
        world.b.kill()
        world.b.restart()
        with world.call("unix") as client:
            exchange(client, b"a link by the new CA")
        assert not world.a.events(REFUSED)


@pytest.mark.failure(12)
def test_a_bad_new_file_keeps_the_old_ones(lab: Lab) -> None:
    with World(lab, mtls=True, more=PATIENT) as world:
        with Callers(Caller(number, world.call("unix")) for number in range(3)) as callers:
            (world.folder / "a" / "key.pem").write_text("half a ke")
            said = world.a.wait_for(REFUSED, level="warning")
            assert said["error"].startswith(f"links.tls.key: {world.folder}/a/key.pem: found no readable private key")
            callers.all_talk()
        assert callers.endings() == {"stopped"}
        world.b.kill()
        world.b.restart()
        with world.call("unix") as client:
            exchange(client, b"a new link by the old files")
        assert len(world.a.events(REFUSED)) == 1, "once for each change"


@pytest.mark.failure(12)
def test_a_certificate_runs_out_under_traffic(lab: Lab) -> None:
    """Links that are up stay; new ones are refused, with a line on both sides; a new certificate mends it."""
    with World(lab, mtls=True, more=PATIENT) as world:
        authority = world.authority
        assert authority is not None
        with Callers(Caller(number, world.call("unix")) for number in range(3)) as callers:
            callers.all_talk()
            end = datetime.now(UTC) + timedelta(seconds=8)
            write(world.folder / "a", *authority.issue(A, start=end - DAY, end=end), authority.certificate)
            world.a.wait_for(IN_USE)
            world.a.wait_for("this host's certificate expires soon", level="warning")
            world.a.wait_for("this host's certificate expired", level="error")
            callers.all_talk()
        assert callers.endings() == {"stopped"}
        world.b.kill()
        world.b.restart()
        refused = "the peer refused this host's certificate: it has expired, says the peer's clock"
        world.a.wait_for("cannot reach peer", level="warning", error=refused)
        world.b.wait_for("link refused", error="the peer's certificate is refused: certificate has expired")
        authority.write(world.folder / "a", "host-a")
        with world.call("unix") as client:
            exchange(client, b"mended")


@pytest.fixture
def files(lab: Lab) -> Iterator[World]:
    """Two hosts of which nothing runs."""
    world = World(lab, mtls=True)
    yield world
    shutil.rmtree(world.folder)


@pytest.mark.parametrize("command", [["validate"], ["proxy", "--config"]])
def test_files_that_cannot_be_used_are_a_line_each(lab: Lab, files: World, command: list[str]) -> None:
    world = files
    assert world.authority is not None
    file, folder = str(world.b.file), world.folder / "b"
    world.authority.write(folder, "host-x")
    (folder / "ca.pem").unlink()
    done = hostlane(*command, file, host=lab.b)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.removeprefix(f"{file}: ").replace(f"{folder}/", "") for line in done.stderr.splitlines()] == [
        "links.tls.ca: ca.pem: no such file",
        'links.tls.certificate: certificate.pem: found the name "spiffe://hostlane/host/host-x"; '
        "allowed: spiffe://hostlane/host/host-b",
    ]
