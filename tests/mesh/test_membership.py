"""A host with the certificate of a control plane, or with the user's own."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from control.api.mesh import TrustBundle
from proxy.config.difference import between
from proxy.config.schema import parse
from proxy.demo.certificates import CertificateAuthority
from proxy.links.keyring import Keyring
from proxy.mesh.membership import Membership
from proxy.telemetry import meshview
from tests.tools.sockets import PATIENCE, free_ports


def member(folder: Path, *servers: str) -> tuple[Membership, Keyring, list[Container[str]]]:
    """One with certificate files of the user's own, and the serial numbers whose links were cut."""
    files = CertificateAuthority().write(folder, "host-a")
    tls = ", ".join(f"{key}: {path}" for key, path in files.items())
    text = f"host: host-a\nlinks: {{listen: 127.0.0.1:7600, tls: {{{tls}}}}}\n"
    named = ", ".join(f'"{server}"' for server in servers or ("127.0.0.1:7601",))
    config = parse(f"{text}control: {{servers: [{named}], state_dir: {folder}/state}}\n", "f")
    keyring = Keyring.from_config(config)
    assert keyring is not None
    cut: list[Container[str]] = []
    found = Membership(
        config,
        keyring,
        None,
        instance="i1",
        apply=lambda new: between(config, new),
        renewed=lambda host: None,
        cut=cut.append,
    )
    return found, keyring, cut


async def test_what_is_revoked_counts_with_own_files_too(tmp_path: Path) -> None:
    found, keyring, cut = member(tmp_path)
    found.trusted(TrustBundle(bundle="", revoked=("abc",)))
    assert "abc" in keyring.revoked
    assert len(cut) == 1
    assert "abc" in cut[0]
    found.trusted(TrustBundle(bundle="", revoked=("abc",)))
    assert len(cut) == 1, "nothing new"


async def test_files_of_ones_own_are_not_renewed(tmp_path: Path) -> None:
    found, _, _ = member(tmp_path)
    await found.keep()
    await found.close()


async def rude(stream: trio.SocketStream) -> None:
    """Not a control server: it closes before TLS has begun."""
    await stream.aclose()


async def chatty(stream: trio.SocketStream) -> None:
    await stream.send_all(b"220 mail.example.com ESMTP\r\n")
    await stream.aclose()


@pytest.mark.failure("31")
@pytest.mark.parametrize(("there", "why"), [(None, "connection refused"), (rude, ": "), (chatty, "no TLS with it: ")])
async def test_who_finds_no_control_server_says_so_at_once(tmp_path: Path, there: Any, why: str) -> None:
    (dead,) = free_ports(1)
    servers = [f"127.0.0.1:{dead}"]
    async with trio.open_nursery() as nursery:
        if there is not None:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            servers.append(f"127.0.0.1:{listener.socket.getsockname()[1]}")
            nursery.start_soon(trio.serve_listeners, there, [listener])
        found, _, _ = member(tmp_path, *servers)
        with capture_logs() as logs:
            nursery.start_soon(found.follower.run)

            def said() -> list[str]:
                return [each["error"] for each in logs if each["event"] == "no control server answers, trying on"]

            with trio.fail_after(PATIENCE):
                while not said():
                    await trio.sleep(0.01)
            error, others = said()[0], [each["event"] for each in logs]
            # The requests are still being tried, whose end used to be the first that anybody heard.
            assert "not registered" not in others
            assert all(f"{server}: " in error for server in servers)
            assert f"127.0.0.1:{dead}: connection refused" in error
            assert f"{servers[-1]}: " in error
            assert why in error.rpartition(servers[-1])[2]
            told = meshview.discovery(found.follower.static, found.follower, None)
            assert (told.server, told.last_error) == (None, error)
            nursery.cancel_scope.cancel()
    await found.close()
