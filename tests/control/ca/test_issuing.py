from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from cryptography import x509
from structlog.testing import capture_logs

from control.api import certificates
from control.api.identity import uris
from control.base import wallclock
from control.base.errors import RequestRefused, StartError
from control.ca import castate, issuing
from control.ca import root as ca
from control.ca.issuing import CERTIFICATES, DAY, CertificateRecord, Issuer, ServerCertificate
from control.ca.keyfiles import KeyFiles
from control.store.base import Condition, Conflict, Put, Store, StoreError
from tests.control.conftest import Clock, Server


async def test_a_store_that_began_empty_takes_the_ca_over(server: Server) -> None:
    state, revision = await server.issuer.state()
    assert state.issuing == ca.root_id(server.keys.roots()[0])
    assert revision > 0
    found = await server.issuer.authorities()
    assert found.mesh == "hostlane"
    assert found.bundle == state.bundle == certificates.pem(server.keys.roots()[0])


async def test_no_ca_anywhere(real_store: Store, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(StartError, match="there is no CA in .*; hostlane control init makes one"):
        await Server(real_store, str(tmp_path / "none"), clock).issuer.open()


async def test_servers_of_two_meshes(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="the store is that of mesh hostlane, this control server is for mesh other"):
        await Server(server.store, str(tmp_path / "ca"), server.clock, mesh="other").issuer.open()


async def test_a_ca_of_another_mesh(real_store: Store, tmp_path: Path, clock: Clock) -> None:
    KeyFiles(str(tmp_path / "ca")).create("other", clock())
    with pytest.raises(StartError, match="a CA of mesh other; this control server is for hostlane"):
        await Server(real_store, str(tmp_path / "ca"), clock).issuer.open()


async def test_servers_that_start_at_the_same_time_agree(real_store: Store, tmp_path: Path, clock: Clock) -> None:
    servers = [Server(real_store, str(tmp_path / name), clock) for name in ("one", "two", "three")]
    for each in servers:
        each.keys.create("hostlane", clock())
    async with trio.open_nursery() as nursery:
        for each in servers:
            nursery.start_soon(each.issuer.open)
    states = {(await each.issuer.state())[0].issuing for each in servers}
    assert len(states) == 1


async def test_a_server_without_the_key_refuses_and_says_so(server: Server, tmp_path: Path) -> None:
    other = Server(server.store, str(tmp_path / "empty"), server.clock)
    with capture_logs() as logs:
        await other.issuer.open()
    assert [entry["event"] for entry in logs] == ["this control server issues no certificates: it lacks the CA's key"]
    with pytest.raises(RequestRefused) as caught:
        await other.join("host-a")
    assert (caught.value.status, caught.value.code) == (503, "no_key")
    assert "lacks the key of CA" in str(caught.value)
    assert (await server.join("host-a")).mesh == "hostlane"
    with pytest.raises(StartError, match="lacks the key of CA"):
        await other.issuer.keep_certificate("two", lambda _: None)
    # The operator copies the key: no restart is needed.
    state, _ = await server.issuer.state()
    os.makedirs(other.keys.directory)
    os.link(f"{server.keys.directory}/{state.issuing}.key", f"{other.keys.directory}/{state.issuing}.key")
    assert (await other.join("host-b")).mesh == "hostlane"


async def test_what_is_issued_stands_in_the_store(server: Server) -> None:
    issued = await server.join("host-a")
    serial = f"{x509.load_pem_x509_certificate(issued.certificate.encode()).serial_number:x}"
    (item,) = (await server.store.read(CERTIFICATES)).items
    record = msgspec.json.decode(item.value, type=CertificateRecord)
    state, _ = await server.issuer.state()
    assert item.key == f"{CERTIFICATES}{serial}"
    assert item.lease
    now = int(server.clock())
    assert record == CertificateRecord(host="host-a", issued=now, expires=now + DAY, issuer=state.issuing)


async def test_a_condition_that_does_not_hold(server: Server) -> None:
    with pytest.raises(Conflict):
        await server.issuer.issue(
            certificates.new_key().public_key(),
            ca.CertificateNames.host("hostlane", "a"),
            "a",
            when=[Condition("tokens/x", 7)],
        )
    assert (await server.store.read(CERTIFICATES)).items == ()


async def test_a_store_with_junk(server: Server) -> None:
    await server.store.commit(put=[Put(castate.KEY, b"junk")])
    with pytest.raises(StoreError, match="ca/state is not one of this version"):
        await server.issuer.authorities()


class Used:
    """The certificates that a control server was given."""

    def __init__(self) -> None:
        self.all: list[ServerCertificate] = []
        self.news = trio.Event()

    def __call__(self, certificate: ServerCertificate) -> None:
        self.all.append(certificate)
        self.news.set()
        self.news = trio.Event()


async def test_its_own_certificate(server: Server) -> None:
    used = Used()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.issuer.keep_certificate, "one", used)
        (found,) = used.all
        certificate = x509.load_pem_x509_certificate(found.certificate.encode())
        assert uris(certificate) == ["spiffe://hostlane/control/one"]
        assert found.bundle == (await server.issuer.authorities()).bundle
        assert ca.key_id(ca.read_key(found.key.encode()))
        ssl.create_default_context(cadata=found.bundle)
        nursery.cancel_scope.cancel()


async def test_it_is_another_one_when_the_cas_change(server: Server, second: Server) -> None:
    """On every server, also on one that has not the new key and goes on with the old CA."""
    used, others = Used(), Used()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.issuer.keep_certificate, "one", used)
        await nursery.start(second.issuer.keep_certificate, "two", others)
        for step in (server.rotation.add, server.rotation.activate):
            here, there = used.news, others.news
            await step()
            await here.wait()
            await there.wait()
        nursery.cancel_scope.cancel()
    bundle = (await server.issuer.authorities()).bundle
    new, old = certificates.read_roots(bundle)
    for found, root in ((used.all[-1], new), (others.all[-1], old)):
        assert found.bundle == bundle
        x509.load_pem_x509_certificate(found.certificate.encode()).verify_directly_issued_by(root)


async def test_at_half_life(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the wall clock, which is looked at again and again: it may be set."""
    monkeypatch.setattr(wallclock, "LOOK", 0.01)
    used = Used()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.issuer.keep_certificate, "one", used)
        server.clock.now += 0.5 * DAY
        await used.news.wait()
        nursery.cancel_scope.cancel()
    assert used.all[1].not_after == pytest.approx(used.all[0].not_after + 0.5 * DAY, abs=1)


@pytest.mark.failure("30a")
@pytest.mark.parametrize("jump", [3 * DAY, -3 * DAY], ids=["the machine has slept", "the clock was set back"])
async def test_it_is_renewed_at_once_when_the_clock_has_jumped(
    server: Server, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    monkeypatch.setattr(wallclock, "LOOK", 0.01)
    used = Used()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.issuer.keep_certificate, "one", used)
        news, first = used.news, used.all[0]
        server.clock.now += jump
        await news.wait()
        nursery.cancel_scope.cancel()
    certificate = x509.load_pem_x509_certificate(used.all[1].certificate.encode())
    now = server.clock()
    assert certificate.not_valid_before_utc.timestamp() < now < certificate.not_valid_after_utc.timestamp()
    assert used.all[1].not_after == pytest.approx(first.not_after + jump, abs=1)


class FullDisk:
    """A store that can be read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def grant(self, ttl: float) -> int:
        if self.full:
            raise StoreError("store.db: the disk is full")
        return await self._store.grant(ttl)


@pytest.mark.failure("30a")
async def test_without_room_for_a_record_it_has_one_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an hour, so that it can serve what it knows; with a record as soon as there is room."""
    monkeypatch.setattr(wallclock, "LOOK", 0.01)
    monkeypatch.setattr(issuing, "RETRY", 0.01)
    disk: Any = FullDisk(server.store)
    issuer = Issuer(disk, server.keys, mesh="hostlane", now=server.clock)
    used, disk.full = Used(), True
    async with trio.open_nursery() as nursery:
        with capture_logs() as logs:
            await nursery.start(issuer.keep_certificate, "one", used)
            news = used.news
            assert used.all[0].not_after == pytest.approx(server.clock() + issuing.UNRECORDED, abs=1)
            assert [(entry["event"], entry["error"]) for entry in logs] == [
                ("the store does not record this control server's certificate", "store.db: the disk is full")
            ]
            assert (await server.store.read(CERTIFICATES)).items == ()
            server.clock.now += issuing.UNRECORDED * 0.75
            await news.wait()
            news = used.news
            assert used.all[1].not_after == pytest.approx(server.clock() + issuing.UNRECORDED, abs=1)
            disk.full = False
            await news.wait()
            assert used.all[2].not_after == pytest.approx(server.clock() + DAY, abs=1)
            assert len((await server.store.read(CERTIFICATES)).items) == 1
            # While there is a recorded one that lasts, a full disk is no reason for another kind.
            disk.full = True
            server.clock.now += 0.6 * DAY
            while not any("the old one stays" in entry["event"] for entry in logs):
                await trio.sleep(0.01)
            assert len(used.all) == 3
            news = used.news
            server.clock.now += 0.6 * DAY
            await news.wait()
            assert not used.all[3].recorded
        nursery.cancel_scope.cancel()


async def test_a_failure_keeps_the_old_one_and_is_said_once(server: Server) -> None:
    used = Used()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.issuer.keep_certificate, "one", used)
        with capture_logs() as logs:
            await server.store.commit(put=[Put(castate.KEY, b"junk")])
            while not any("the old one stays" in entry["event"] for entry in logs):
                await trio.sleep(0.01)
        assert len(used.all) == 1
        nursery.cancel_scope.cancel()
