"""What is the etcd store's own; what every store promises is in test_base.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from control.base.errors import StartError
from control.store.base import Compacted, Condition, Put
from control.store.etcd import open_etcd
from control.store.etcdwire import encoded
from control.store.gateway import EtcdAccess
from tests.control.store.etcds import Etcd, self_signed

pytestmark = pytest.mark.etcd


async def test_servers_that_start_together_have_one_epoch(access: EtcdAccess) -> None:
    epochs: list[str] = []

    async def one() -> None:
        async with open_etcd(access) as store:
            epochs.append(store.epoch)

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
    assert len(epochs) == 10
    assert len(set(epochs)) == 1


async def test_two_meshes_share_an_etcd(access: EtcdAccess) -> None:
    async with open_etcd(access) as mine, open_etcd(access._replace(prefix=f"{access.prefix}other/")) as theirs:
        assert mine.epoch != theirs.epoch
        before = (await mine.read("")).revision
        async with mine.watch("", before) as watch:
            await theirs.commit(put=[Put("a", b"theirs")])
            revision = await mine.commit(when=[Condition("a", 0)], put=[Put("a", b"mine")])
            assert (await watch.receive()).revision == revision
        assert [item.value for item in (await theirs.read("")).items] == [b"theirs"]


async def test_two_servers_see_each_others_leases(access: EtcdAccess) -> None:
    async with open_etcd(access) as one:
        lease = await one.grant(60)
        async with open_etcd(access) as other:
            revision = await other.commit(put=[Put("a", b"", lease)])
            await other.keep_alive(lease)
        async with one.watch("", revision) as watch:
            await one.revoke(lease)
            assert (await watch.receive()).changes == (("a", None),)


async def test_history_that_is_compacted(etcd: Etcd, access: EtcdAccess) -> None:
    async with open_etcd(access) as store:
        revisions = [await store.commit(put=[Put("a", b"%d" % number)]) for number in range(3)]
        deleted = await store.commit(delete=["a"])
        etcd.call("/v3/kv/compaction", {"revision": str(deleted)})
        for after in (0, revisions[0], revisions[-1]):
            with pytest.raises(Compacted, match="compacted"):
                async with store.watch("", after):
                    raise AssertionError
        async with store.watch("", deleted) as watch:
            later = await store.commit(put=[Put("a", b"")])
            assert (await watch.receive()).revision == later


async def test_a_large_history_comes_in_fragments(access: EtcdAccess) -> None:
    """8 MiB are more than one message of etcd's."""
    async with open_etcd(access) as store:
        start = (await store.read("")).revision
        revisions = [
            await store.commit(put=[Put(f"k{n}/{part}", bytes(100_000)) for part in range(10)]) for n in range(6)
        ]
        async with store.watch("", start) as watch:
            got = [await watch.receive() for _ in revisions]
        assert [commit.revision for commit in got] == revisions
        assert {len(commit.changes) for commit in got} == {10}


async def test_the_callers_error_comes_as_it_is(access: EtcdAccess) -> None:
    with pytest.raises(KeyError):
        async with open_etcd(access) as store, store.watch("", (await store.read("")).revision):
            raise KeyError


async def test_a_user_and_a_token_that_is_forgotten(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:
        etcd.call("/v3/auth/user/add", {"name": "root", "password": "secret"})
        etcd.call("/v3/auth/role/add", {"name": "root"})
        etcd.call("/v3/auth/user/grant", {"user": "root", "role": "root"})
        # As docs/operations.md has it: what a mesh may touch.
        mesh = {"permType": "READWRITE", "key": encoded("hostlane/"), "range_end": encoded("hostlane0")}
        etcd.call("/v3/auth/user/add", {"name": "mesh", "password": "also secret"})
        etcd.call("/v3/auth/role/add", {"name": "mesh"})
        etcd.call("/v3/auth/role/grant", {"name": "mesh", "perm": mesh})
        etcd.call("/v3/auth/user/grant", {"user": "mesh", "role": "mesh"})
        etcd.call("/v3/auth/enable", {})
        access = EtcdAccess(etcd.endpoints, user="mesh", password="also secret")
        for wrong in (access._replace(password="guess"), access._replace(user=None)):
            with pytest.raises(StartError, match=r"authentication failed|user name is empty"):
                async with open_etcd(wrong):
                    raise AssertionError
        async with open_etcd(access) as store:
            revision = await store.commit(put=[Put("a", b"")])
            # As after five minutes without a request, or another member.
            store._gateway._token = "forgotten"
            await store.keep_alive(await store.grant(60))
            store._gateway._token = "forgotten"
            assert (await store.read("a")).revision == revision
            await store._reach(revision)
            store._gateway._token = "forgotten"
            async with trio.open_nursery() as nursery, store.watch("", revision) as watch:
                store._gateway._token = "forgotten"
                nursery.start_soon(store.read, "")
                later = await store.commit(put=[Put("b", b"")])
                assert (await watch.receive()).revision == later
        with pytest.raises(StartError, match="permission denied"):
            async with open_etcd(access._replace(prefix="theirs/")):
                raise AssertionError


async def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "etcd")
    stranger, strange_key = self_signed(tmp_path, "stranger")
    options = [
        f"--cert-file={certificate}", f"--key-file={key}", f"--trusted-ca-file={certificate}", "--client-cert-auth",
    ]  # fmt: skip
    with Etcd(tmp_path, options=options, scheme="https") as etcd:
        access = EtcdAccess(etcd.endpoints, ca=certificate, certificate=certificate, key=key)
        # It may still be starting.
        async with open_etcd(access) as store:
            revision = await store.commit(put=[Put("a", b"")])
            async with store.watch("", revision - 1) as watch:
                assert (await watch.receive()).revision == revision
        for wrong, why in (
            (access._replace(ca=stranger), "self-signed"),
            (access._replace(certificate=None, key=None), "certificate required|broke"),
            (access._replace(certificate=stranger, key=strange_key), "broke|unknown ca|bad certificate"),
        ):
            with pytest.raises(StartError, match=why):
                async with open_etcd(wrong._replace(timeout=0.2)):
                    raise AssertionError
