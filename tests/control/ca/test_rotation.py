from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from control.api import certificates
from control.api.identity import issued_at, serial_of
from control.api.mesh import IssueResponse, RenewRequest
from control.base.errors import RequestRefused
from control.ca import root as ca
from control.ca.issuing import DAY, ClientCertificate
from tests.control.conftest import Server

CSR = certificates.request(certificates.new_key())


def certificate(issued: IssueResponse) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate.encode())


async def renew(server: Server, issued: IssueResponse, host: str = "host-a") -> IssueResponse:
    found = certificate(issued)
    shown = ClientCertificate(host, serial_of(found), found.not_valid_after_utc.timestamp(), ca.issuer_of(found))
    return await server.joining.renew(RenewRequest(csr=CSR), shown)


async def test_a_whole_rotation(server: Server) -> None:
    """At no moment is anybody refused who should not be: each certificate that is in use has its root in the bundle."""
    first = await server.join("host-a")
    (old,) = certificates.read_roots(first.bundle)

    await server.rotation.add()
    trust = await server.trust()
    _, new = certificates.read_roots(trust.bundle)
    assert trust.renew_before == 0
    certificate(await renew(server, first)).verify_directly_issued_by(old)

    server.clock.now += 60
    status = await server.rotation.activate()
    trust = await server.trust()
    assert certificates.read_roots(trust.bundle) == [new, old]
    assert issued_at(certificate(first)) < trust.renew_before
    assert [(root.issues, root.certificates, root.hosts) for root in status.roots] == [
        (True, 0, ()), (False, 2, ("host-a",)),
    ]  # fmt: skip

    with pytest.raises(RequestRefused) as caught:
        await server.rotation.drop()
    assert (caught.value.status, caught.value.code) == (409, "in_use")
    assert "2 certificates of it still valid, the last until 2027-01-16" in str(caught.value)
    assert "(not renewed yet: host-a)" in str(caught.value)

    server.clock.now += 60
    second = await renew(server, first)
    certificate(second).verify_directly_issued_by(new)
    assert issued_at(certificate(second)) >= trust.renew_before
    with pytest.raises(RequestRefused, match=r"\(all hosts have newer ones, so that --force harms none\)"):
        await server.rotation.drop()

    server.clock.now += DAY
    status = await server.rotation.drop()
    assert [root.id for root in status.roots] == [ca.root_id(new)]
    assert certificates.read_roots((await server.trust()).bundle) == [new]
    assert f"{ca.root_id(old)}.key.dropped" in os.listdir(server.keys.directory)


async def test_dropping_by_force(server: Server) -> None:
    """A CA key that was stolen: waiting would help the thief."""
    await server.join("host-a")
    await server.rotation.add()
    await server.rotation.activate()
    with capture_logs() as logs:
        status = await server.rotation.drop(force=True)
    assert len(status.roots) == 1
    assert logs[-1]["event"] == "CA dropped: nobody trusts it any more"
    assert (logs[-1]["forced"], logs[-1]["certificates"]) == (True, 1)


async def test_steps_out_of_order(server: Server) -> None:
    for step, code in ((server.rotation.activate, "nothing_to_activate"), (server.rotation.drop, "nothing_to_drop")):
        with pytest.raises(RequestRefused) as caught:
            await step()
        assert (caught.value.status, caught.value.code) == (409, code)
    await server.rotation.add()
    before = sorted(os.listdir(server.keys.directory))
    with pytest.raises(RequestRefused) as caught:
        await server.rotation.add()
    assert caught.value.code == "in_rotation"
    assert sorted(os.listdir(server.keys.directory)) == before


async def test_one_that_was_added_by_mistake(server: Server) -> None:
    await server.join("host-a")
    await server.rotation.add()
    assert len((await server.rotation.drop()).roots) == 1
    await server.rotation.add()


async def test_two_servers(server: Server, second: Server, tmp_path: Path) -> None:
    first = await server.join("host-a")
    await server.rotation.add()
    status = await second.rotation.status()
    assert [root.key_here for root in status.roots] == [True, False]
    with pytest.raises(RequestRefused) as caught:
        await second.rotation.activate()
    assert (caught.value.status, caught.value.code) == (503, "no_key")
    await server.rotation.activate()
    # The second server refuses to issue, the first goes on; once it has the key, both do.
    with pytest.raises(RequestRefused) as caught:
        await renew(second, first)
    assert caught.value.status == 503
    await renew(server, first)
    new = (await server.rotation.status()).roots[0].id
    shutil.copy2(f"{server.keys.directory}/{new}.key", second.keys.directory)
    newest = certificates.read_roots((await server.trust()).bundle)[0]
    certificate(await renew(second, first)).verify_directly_issued_by(newest)


async def test_a_directory_that_cannot_be_written(server: Server) -> None:
    shutil.rmtree(server.keys.directory)
    Path(server.keys.directory).touch()
    with pytest.raises(RequestRefused) as caught:
        await server.rotation.add()
    assert (caught.value.status, caught.value.code) == (503, "files")
    assert len((await server.issuer.state())[0].roots) == 1


async def test_a_store_that_was_lost_in_the_middle(server: Server) -> None:
    """Both CAs are in force, and the one issues that all hosts trust."""
    old = (await server.rotation.status()).roots[0].id
    server.clock.now += 3600
    await server.rotation.add()
    await server.store.commit(delete=["ca/state"])
    status = await server.rotation.status()
    assert len(status.roots) == 2
    assert (status.roots[0].id, status.roots[0].issues) == (old, True)
