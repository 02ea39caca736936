"""A host with the certificate of a control plane, or with the user's own."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from control.api.mesh import TrustBundle
from proxy.config.difference import between
from proxy.config.schema import parse
from proxy.demo.certificates import CertificateAuthority
from proxy.links.keyring import Keyring
from proxy.mesh.membership import Membership


def member(folder: Path) -> tuple[Membership, Keyring, list[Container[str]]]:
    """One with certificate files of the user's own, and the serial numbers whose links were cut."""
    files = CertificateAuthority().write(folder, "host-a")
    tls = ", ".join(f"{key}: {path}" for key, path in files.items())
    text = f"host: host-a\nlinks: {{listen: 127.0.0.1:7600, tls: {{{tls}}}}}\n"
    config = parse(f"{text}control: {{servers: [127.0.0.1:7601], state_dir: {folder}/state}}\n", "f")
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
