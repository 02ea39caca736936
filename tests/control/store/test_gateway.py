from __future__ import annotations

import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from control.api import certificates
from control.base.errors import StartError
from control.ca import root as roots
from control.store.base import Put, StoreError
from control.store.etcd import open_etcd
from control.store.etcdwire import EtcdKeyspace, EtcdRange, EtcdResponse, EtcdTxn
from control.store.gateway import EtcdAccess, EtcdRefused, Gateway
from tests.control.store.etcds import Etcd
from tests.tools.sockets import free_ports

pytestmark = pytest.mark.etcd

KEYS = EtcdKeyspace("gateway/")


@pytest.fixture
def dead() -> str:
    """Nobody listens there."""
    return f"http://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def hung() -> Iterator[str]:
    """It takes what is sent, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
async def stranger() -> AsyncIterator[str]:
    """An HTTP server that has never heard of etcd."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\n<p>no")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def read(gateway: Gateway) -> EtcdRange:
    return await gateway.call("/v3/kv/range", KEYS.range(""), EtcdRange, repeat=True)


async def put(gateway: Gateway) -> EtcdTxn:
    return await gateway.call("/v3/kv/txn", KEYS.txn([], [Put("a", b"")], []), EtcdTxn, repeat=False)


async def test_the_next_member_is_asked(etcd: Etcd, dead: str, hung: str) -> None:
    gateway = Gateway(EtcdAccess((dead, hung, *etcd.endpoints), timeout=0.3))
    assert (await read(gateway)).header.revision
    assert gateway.endpoint() == etcd.endpoints[0]
    assert await gateway.alive(etcd.endpoints[0])
    assert not await gateway.alive(hung)
    assert not await gateway.alive(dead)
    await gateway.aclose()


async def test_many_that_fail_together_ask_the_same_next(etcd: Etcd, dead: str) -> None:
    gateway = Gateway(EtcdAccess((dead, *etcd.endpoints)))
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(read, gateway)
    assert gateway.endpoint() == etcd.endpoints[0]
    await gateway.aclose()


async def test_a_commit_that_was_not_sent_is_tried_elsewhere(etcd: Etcd, dead: str) -> None:
    gateway = Gateway(EtcdAccess((dead, *etcd.endpoints)))
    assert (await put(gateway)).succeeded
    await gateway.aclose()


async def test_a_commit_that_may_have_happened_is_not_done_twice(etcd: Etcd, hung: str) -> None:
    gateway = Gateway(EtcdAccess((hung, *etcd.endpoints), timeout=0.3))
    before = (await read(gateway)).header.revision
    await gateway.aclose()
    gateway = Gateway(EtcdAccess((hung, *etcd.endpoints), timeout=0.3))
    with pytest.raises(StoreError) as caught:
        await put(gateway)
    assert str(caught.value) == f"{hung}: no answer within 0.3 s; whether the commit has happened is not known"
    assert gateway.endpoint() == etcd.endpoints[0], "or the next commit would wait for the same one"
    assert (await read(gateway)).header.revision == before
    assert (await put(gateway)).succeeded
    await gateway.aclose()


async def test_nobody_answers(dead: str, hung: str) -> None:
    gateway = Gateway(EtcdAccess((dead,), timeout=0.1))
    with pytest.raises(StoreError, match=r"cannot be reached \(connection refused\); no member has answered for 0.3 s"):
        await put(gateway)
    await gateway.aclose()
    gateway = Gateway(EtcdAccess((hung, hung), timeout=0.1))
    with pytest.raises(StoreError, match="no answer within 0.1 s; no member has answered for 0.3 s"):
        await read(gateway)
    await gateway.aclose()


async def test_cancelled_it_ends_at_once(hung: str) -> None:
    gateway = Gateway(EtcdAccess((hung,)))
    with trio.move_on_after(0.1) as scope:
        await read(gateway)
    assert scope.cancelled_caught
    await gateway.aclose()


async def test_a_server_that_is_no_etcd(stranger: str) -> None:
    gateway = Gateway(EtcdAccess((stranger,), timeout=0.1))
    with pytest.raises(StoreError, match="not one of etcd's v3 gateway"):
        await read(gateway)
    await gateway.aclose()


async def test_an_answer_that_is_no(etcd: Etcd) -> None:
    gateway = Gateway(EtcdAccess(etcd.endpoints))
    with pytest.raises(EtcdRefused, match="requested lease not found") as caught:
        await gateway.call("/v3/lease/revoke", {"ID": "7"}, EtcdResponse, repeat=True)
    assert caught.value.failure.code == 5
    await gateway.aclose()


async def test_members_of_two_clusters(etcd: Etcd, tmp_path: Path) -> None:
    with Etcd(tmp_path) as other:
        gateway = Gateway(EtcdAccess((*etcd.endpoints, *other.endpoints)))
        await read(gateway)
        gateway.leave(gateway.endpoint())
        with pytest.raises(StoreError, match="belongs to another etcd cluster"):
            await read(gateway)
        await gateway.aclose()


@pytest.mark.parametrize("endpoint", ["10.0.0.5:2379", "http://10.0.0.5", "ftp://a:1", "http://a:x", "http://a:1/v3"])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(StartError) as caught:
        Gateway(EtcdAccess((endpoint,)))
    assert str(caught.value) == f"etcd endpoint: found '{endpoint}'; allowed: http[s]://HOST:PORT"


def test_no_endpoint_at_all() -> None:
    with pytest.raises(StartError, match="found none"):
        Gateway(EtcdAccess(()))


def test_tls_files_that_are_none(tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for ca in (text, tmp_path / "none.pem"):
        with pytest.raises(StartError, match=rf"{ca.name}: not the certificates of etcd's CA \("):
            Gateway(EtcdAccess(("https://a:1",), ca=str(ca)))
    with pytest.raises(StartError, match="text.pem: not a certificate and its key"):
        Gateway(EtcdAccess(("https://a:1",), certificate=str(text), key=str(text)))


def member_of(root: roots.RootCa) -> str:
    names, key = roots.CertificateNames.host("m", "a"), certificates.new_key()
    return roots.issue(root, key.public_key(), names, time.time(), 3600.0).certificate


PARTIAL_CHAINS = ssl.create_default_context().verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN


@pytest.mark.skipif(bool(PARTIAL_CHAINS), reason="this Python trusts any certificate that it is given")
@pytest.mark.parametrize("count", [1, 2])
def test_a_ca_of_etcd_that_is_none(tmp_path: Path, count: int) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("".join(member_of(roots.new_root("m", time.time())) for _ in range(count)))
    with pytest.raises(StartError) as caught:
        Gateway(EtcdAccess(("https://a:1",), ca=str(file)))
    said = 'found the certificate of "CN=host/a", which is not a CA; allowed: CA certificates'
    assert str(caught.value) == f"{file}: {said}"


def self_signed() -> str:
    """As etcd makes one with --auto-tls."""
    key, name, now = certificates.new_key(), x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return certificates.pem(builder.sign(key, hashes.SHA256()))


@pytest.mark.parametrize("order", [1, -1])
def test_a_member_beside_its_ca_is_trusted(tmp_path: Path, order: int) -> None:
    root = roots.new_root("m", time.time())
    file = tmp_path / "ca.pem"
    file.write_text("".join([member_of(root), certificates.pem(root.certificate)][::order]))
    Gateway(EtcdAccess(("https://a:1",), ca=str(file)))


@pytest.mark.parametrize("count", [1, 3])
def test_members_that_signed_themselves_are_trusted(tmp_path: Path, count: int) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("".join(self_signed() for _ in range(count)))
    Gateway(EtcdAccess(("https://a:1",), ca=str(file)))


async def test_no_etcd_is_no_start(dead: str) -> None:
    with pytest.raises(StartError, match="cannot be reached"):
        async with open_etcd(EtcdAccess((dead,), timeout=0.1)):
            raise AssertionError
