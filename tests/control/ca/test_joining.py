"""Joining, renewing and revoking against a real store: what each asker is told, and what the log says."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import trio
from cryptography import x509
from structlog.testing import capture_logs

from control.api import certificates, tokens
from control.api.identity import host_of, serial_of
from control.api.mesh import IssueResponse, JoinRequest, RenewRequest, RevokeRequest, TokenRequest
from control.base.errors import RequestRefused
from control.ca import joining
from control.ca import root as ca
from control.ca.issuing import CERTIFICATES, DAY, ClientCertificate
from control.ca.joining import NOT_ACCEPTED, TOKENS
from control.ca.trust import REVOKED
from control.store.base import Put, StoreError
from tests.control.conftest import Server

Logs = list[MutableMapping[str, Any]]
CSR = certificates.request(certificates.new_key())


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


async def token(server: Server, host: str = "host-a", ttl: float = 600) -> str:
    return (await server.joining.create_token(TokenRequest(host=host, ttl=ttl))).token


def request(raw: str, host: str = "host-a", csr: str = CSR) -> JoinRequest:
    return JoinRequest(host=host, token=raw, csr=csr)


def serial(issued: IssueResponse) -> str:
    return serial_of(x509.load_pem_x509_certificate(issued.certificate.encode()))


def shown(issued: IssueResponse) -> ClientCertificate:
    """It, as its holder's connection shows it."""
    found = x509.load_pem_x509_certificate(issued.certificate.encode())
    host = host_of(found, "hostlane")
    return ClientCertificate(host, serial_of(found), found.not_valid_after_utc.timestamp(), ca.issuer_of(found))


async def refused(server: Server, asked: JoinRequest, count: str, client: str = "10.0.0.1") -> None:
    """As every stranger is: one line that does not say what was wrong. The counter says it."""
    before = server.joining.counts[count]
    with pytest.raises(RequestRefused) as caught:
        await server.joining.join(asked, client)
    assert (caught.value.status, caught.value.code, str(caught.value)) == (403, "token", NOT_ACCEPTED)
    assert server.joining.counts[count] == before + 1


async def keys(server: Server, prefix: str) -> list[str]:
    return [item.key for item in (await server.store.read(prefix)).items]


# Joining


async def test_a_host_joins(server: Server, logs: Logs) -> None:
    key = certificates.new_key()
    issued = await server.join("host-a", key)
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert issued.mesh == "hostlane"
    assert host_of(certificate, "hostlane") == "host-a"
    assert certificate.public_key() == key.public_key()
    (root,) = certificates.read_roots(issued.bundle)
    certificate.verify_directly_issued_by(root)
    assert [entry["event"] for entry in logs][-2:] == ["token created", "host joined"]
    assert server.joining.counts == {"joined": 1}


async def test_a_token_knows_the_ca(server: Server) -> None:
    found = tokens.parse_untrusted(await token(server))
    (root,) = certificates.read_roots((await server.issuer.authorities()).bundle)
    assert found.ca == (certificates.fingerprint(root),)
    await server.rotation.add()
    found = tokens.parse_untrusted(await token(server))
    assert len(found.ca) == 2


async def test_the_store_has_no_secret(server: Server) -> None:
    found = tokens.parse_untrusted(await token(server))
    (item,) = (await server.store.read(TOKENS)).items
    assert item.lease
    assert found.secret.encode() not in item.value


async def test_a_used_token(server: Server, logs: Logs) -> None:
    raw = await token(server)
    await server.joining.join(request(raw), "10.0.0.1")
    await refused(server, request(raw), "token_used")
    assert logs[-1]["event"] == "join refused: token used"
    assert logs[-1]["log_level"] == "warning"
    assert "it was used on 2027-01-15" in logs[-1]["why"]
    assert logs[-1]["client"] == "10.0.0.1"


async def test_a_token_works_once_even_when_used_on_two_servers_at_the_same_time(
    server: Server, second: Server
) -> None:
    for _ in range(5):
        raw, won, lost = await token(server), [], []

        async def use(one: Server, raw: str = raw, won: list[str] = won, lost: list[str] = lost) -> None:
            try:
                won.append((await one.joining.join(request(raw), "10.0.0.1")).certificate)
            except RequestRefused as error:
                lost.append(error.code)

        async with trio.open_nursery() as nursery:
            for one in (server, second):
                nursery.start_soon(use, one)
        assert (len(won), lost) == (1, ["token"])
    assert len(await keys(server, CERTIFICATES)) == 5


async def test_an_expired_token(server: Server, logs: Logs) -> None:
    raw = await token(server, ttl=600)
    server.clock.now += 600
    await refused(server, request(raw), "token_expired")
    assert "it expired on 2027-01-15 08:10" in logs[-1]["why"]


async def test_another_hosts_token(server: Server, logs: Logs) -> None:
    await refused(server, request(await token(server, "host-b")), "token_wrong_host")
    assert logs[-1]["why"] == "it is for host host-b"


async def test_a_token_whose_name_was_changed(server: Server) -> None:
    """The record says whom it is for, not the token."""
    raw = await token(server, "host-b")
    found = tokens.parse_untrusted(raw)
    changed = tokens.text(tokens.JoinToken(id=found.id, secret=found.secret, host="host-a", ca=found.ca))
    await refused(server, request(changed), "token_wrong_host")
    await server.joining.join(request(raw, "host-b"), "10.0.0.1")


async def test_an_unknown_token(server: Server) -> None:
    strange = tokens.text(tokens.make("host-a", ("ab" * 32,), os.urandom(40)))
    await refused(server, request(strange), "token_unknown")


async def test_a_guessed_secret(server: Server, logs: Logs) -> None:
    """The id of a token is no secret: it stands in logs. Nothing about the token is told without the secret."""
    raw = await token(server, "host-b")
    found = tokens.parse_untrusted(raw)
    guess = tokens.JoinToken(id=found.id, secret="A" * 43, host="host-a", ca=found.ca)
    await refused(server, request(tokens.text(guess)), "token_wrong_secret")
    assert found.secret not in str(logs)


@pytest.mark.parametrize("raw", ["", "junk", "hostlane1.", "hostlane1.AAAA", "x" * 100_000, "hostlane1.\x00"])
async def test_a_malformed_token(server: Server, raw: str) -> None:
    await refused(server, request(raw), "token_malformed")


async def test_a_bad_request_does_not_use_the_token_up(server: Server) -> None:
    raw = await token(server)
    for csr in ("", "junk", "x" * 100_000):
        with pytest.raises(RequestRefused) as caught:
            await server.joining.join(request(raw, csr=csr), "10.0.0.1")
        assert (caught.value.status, caught.value.code) == (400, "csr")
    assert server.joining.counts["bad_csr"] == 3
    await server.joining.join(request(raw), "10.0.0.1")


async def test_who_asks_too_often_is_told_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio, "current_time", lambda: 1000.0)
    for _ in range(joining.JOIN_BURST):
        await refused(server, request("junk"), "token_malformed")
    raw = await token(server)
    with pytest.raises(RequestRefused) as caught:
        await server.joining.join(request(raw), "10.0.0.1")
    assert (caught.value.status, caught.value.code) == (429, "too_many")
    assert server.joining.counts["too_many"] == 1
    await server.joining.join(request(raw), "10.0.0.2")


# Tokens


async def test_tokens_are_listed_without_secrets(server: Server) -> None:
    assert await server.joining.tokens() == []
    raw = [await token(server, host, ttl) for host, ttl in (("host-a", 60), ("host-b", 600), ("host-c", 600))]
    await server.joining.join(request(raw[2], "host-c"), "10.0.0.1")
    found = await server.joining.tokens()
    assert sorted(each.host for each in found) == ["host-a", "host-b"]
    assert not any(tokens.parse_untrusted(each).secret in str(found) for each in raw)
    server.clock.now += 60
    assert [each.host for each in await server.joining.tokens()] == ["host-b"]


async def test_a_deleted_token(server: Server) -> None:
    raw = await token(server)
    (found,) = await server.joining.tokens()
    await server.joining.delete_token(found.id)
    await refused(server, request(raw), "token_unknown")
    for strange in (found.id, "", "../ca", "x" * 1000):
        with pytest.raises(RequestRefused) as caught:
            await server.joining.delete_token(strange)
        assert (caught.value.status, caught.value.code) == (404, "unknown_token")


@pytest.mark.parametrize(("host", "ttl", "code"), [
    ("Host A", 60, "host"), ("", 60, "host"), ("host-a", 0, "ttl"), ("host-a", -1, "ttl"), ("host-a", 1e9, "ttl"),
    ("host-a", float("nan"), "ttl"),
])  # fmt: skip
async def test_tokens_that_are_not_made(server: Server, host: str, ttl: float, code: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        await token(server, host, ttl)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert await keys(server, TOKENS) == []


# Renewing


async def test_a_certificate_is_renewed(server: Server) -> None:
    first = await server.join("host-a")
    server.clock.now += DAY / 2
    key = certificates.new_key()
    second = await server.joining.renew(RenewRequest(csr=certificates.request(key)), shown(first))
    certificate = x509.load_pem_x509_certificate(second.certificate.encode())
    assert host_of(certificate, "hostlane") == "host-a"
    assert certificate.public_key() == key.public_key()
    assert len(await keys(server, CERTIFICATES)) == 2


async def test_a_renewal_without_a_request(server: Server) -> None:
    first = await server.join("host-a")
    with pytest.raises(RequestRefused) as caught:
        await server.joining.renew(RenewRequest(csr="junk"), shown(first))
    assert caught.value.code == "csr"


async def test_a_host_that_renews_all_the_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio, "current_time", lambda: 1000.0)
    first = await server.join("host-a")
    for _ in range(joining.RENEW_BURST):
        await server.joining.renew(RenewRequest(csr=CSR), shown(first))
    with pytest.raises(RequestRefused) as caught:
        await server.joining.renew(RenewRequest(csr=CSR), shown(first))
    assert caught.value.status == 429


# Revoking


async def test_a_revoked_host(server: Server, second: Server, logs: Logs) -> None:
    first = await server.join("host-a")
    renewed = await second.joining.renew(RenewRequest(csr=CSR), shown(first))
    other = await server.join("host-b")
    unused, others = await token(server), await token(server, "host-b")
    await server.store.commit(put=[Put("hosts/host-a", b"{}"), Put("hosts/host-b", b"{}")])

    done = await server.joining.revoke(RevokeRequest(host="host-a"))
    gone = {serial(first), serial(renewed)}
    assert set(done.serials) == gone
    assert set((await server.trust()).revoked) == gone
    assert logs[-1]["event"] == "host revoked"
    assert await keys(server, "hosts/") == ["hosts/host-b"]
    # The stolen certificate, still in date, gets no other one from any server; nor does a token that lay about.
    for each in (server, second):
        for held in (first, renewed):
            with pytest.raises(RequestRefused) as caught:
                await each.joining.renew(RenewRequest(csr=CSR), shown(held))
            assert (caught.value.status, caught.value.code) == (403, "revoked")
    await refused(server, request(unused), "token_unknown")
    # The other host does not notice.
    await server.joining.renew(RenewRequest(csr=CSR), shown(other))
    await server.joining.join(request(others, "host-b"), "10.0.0.1")
    # A new token lets the name in again, and the old certificates stay out.
    again = await server.join("host-a")
    assert serial(again) not in (await server.trust()).revoked
    assert set((await server.trust()).revoked) == gone


async def test_revoking_twice_and_whom_nobody_knows(server: Server) -> None:
    await server.join("host-a")
    assert len((await server.joining.revoke(RevokeRequest(host="host-a"))).serials) == 1
    assert (await server.joining.revoke(RevokeRequest(host="host-a"))).serials == ()
    with pytest.raises(RequestRefused) as caught:
        await server.joining.revoke(RevokeRequest(host="host-x"))
    assert (caught.value.status, caught.value.code) == (404, "unknown_host")


async def forget(server: Server, issued: IssueResponse) -> None:
    """As a store that was restored from an older copy has."""
    await server.store.commit(delete=[f"{CERTIFICATES}{serial(issued)}"])


async def test_a_renewal_enters_what_the_store_has_lost(server: Server, logs: Logs) -> None:
    """Hosts go on after an older copy was restored; and whoever is revoked then is revoked with all that he has."""
    issued = await server.join("host-a")
    await forget(server, issued)
    renewed = await server.joining.renew(RenewRequest(csr=CSR), shown(issued))
    assert "a certificate that the store did not know" in [entry["event"] for entry in logs]
    both = {serial(issued), serial(renewed)}
    assert set((await server.joining.revoke(RevokeRequest(host="host-a"))).serials) == both
    await forget(server, issued)
    with pytest.raises(RequestRefused) as caught:
        await server.joining.renew(RenewRequest(csr=CSR), shown(issued))
    assert (caught.value.status, caught.value.code) == (403, "revoked")
    assert await keys(server, CERTIFICATES) == []


async def test_what_the_store_has_lost_and_no_ca_in_force_stands_for(server: Server) -> None:
    """Not even through a server that has not heard yet that the CA was dropped."""
    issued = await server.join("host-a")
    await forget(server, issued)
    await server.rotation.add()
    await server.rotation.activate()
    await server.rotation.drop(force=True)
    with pytest.raises(RequestRefused) as caught:
        await server.joining.renew(RenewRequest(csr=CSR), shown(issued))
    assert (caught.value.status, caught.value.code) == (403, "dropped")


async def test_two_who_enter_the_same_certificate(server: Server, second: Server) -> None:
    issued = await server.join("host-a")
    await forget(server, issued)
    async with trio.open_nursery() as nursery:
        for each in (server, second):
            nursery.start_soon(each.joining.renew, RenewRequest(csr=CSR), shown(issued))
    assert len(await keys(server, CERTIFICATES)) == 3


async def test_a_host_with_many_certificates(server: Server) -> None:
    first = await server.join("host-a")
    for _ in range(50):
        await token(server)
    for number in range(150):
        await server.issuer.issue(
            certificates.new_key().public_key(), ca.CertificateNames.host("hostlane", "host-a"), "host-a"
        )
        assert number < 150
    done = await server.joining.revoke(RevokeRequest(host="host-a"))
    assert len(set(done.serials)) == 151
    assert serial(first) in done.serials
    assert await keys(server, CERTIFICATES) == []
    assert await server.joining.tokens() == []


async def test_a_renewal_in_the_middle_of_a_revocation(server: Server) -> None:
    """Whoever comes first: in the end the host has no certificate that counts."""
    for _ in range(5):
        first = await server.join("host-a")

        async def renew(first: IssueResponse = first) -> None:
            with trio.move_on_after(10):
                try:
                    while True:
                        held = (await server.issuer.issue(
                            certificates.new_key().public_key(), ca.CertificateNames.host("hostlane", "host-a"),
                            "host-a",
                            when=[joining.Condition(f"{REVOKED}{serial(first)}", 0)],
                        ))[0]  # fmt: skip
                        assert held
                except joining.Conflict:
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew)
            await server.joining.revoke(RevokeRequest(host="host-a"))
        assert await keys(server, CERTIFICATES) == []


async def test_one_certificate(server: Server) -> None:
    first, other = await server.join("host-a"), await server.join("host-a")
    written = ":".join(f"{byte:02X}" for byte in bytes.fromhex(serial(first).rjust(40, "0")))
    assert (await server.joining.revoke(RevokeRequest(serial=written))).serials == (serial(first),)
    assert (await server.joining.revoke(RevokeRequest(serial=serial(first)))).serials == (serial(first),)
    assert (await server.trust()).revoked == (serial(first),)
    await server.joining.renew(RenewRequest(csr=CSR), shown(other))


async def test_one_that_the_store_has_never_seen(server: Server) -> None:
    """After the store was lost, say: the administrator may know it from elsewhere."""
    await server.joining.revoke(RevokeRequest(serial="abc123"))
    assert (await server.trust()).revoked == ("abc123",)


@pytest.mark.parametrize("asked", [
    RevokeRequest(), RevokeRequest(host="a", serial="1"), RevokeRequest(host="No Host"), RevokeRequest(serial="xyz"),
    RevokeRequest(serial=""), RevokeRequest(serial="a" * 41), RevokeRequest(serial="../tokens"),
])  # fmt: skip
async def test_revocations_that_mean_nothing(server: Server, asked: RevokeRequest) -> None:
    with pytest.raises(RequestRefused) as caught:
        await server.joining.revoke(asked)
    assert caught.value.status == 400
    assert await keys(server, REVOKED) == []


async def test_a_store_with_junk(server: Server) -> None:
    found = tokens.parse_untrusted(await token(server))
    await server.store.commit(put=[Put(f"{TOKENS}{found.id}", b"junk")])
    with pytest.raises(StoreError, match=f"tokens/{found.id} is not one of this version"):
        await server.joining.join(request(tokens.text(found)), "10.0.0.1")
