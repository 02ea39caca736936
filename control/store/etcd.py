"""The store in an etcd cluster, for several control servers: they keep nothing themselves.

Transactions, leases and watches are etcd's own; reads are linearizable, which is etcd's default. What etcd answers late
or not at all is asked of the next member, except a commit that may have happened: that is a StoreError.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from trio.abc import ReceiveChannel

from control.base.errors import StartError
from control.store import etcdwire
from control.store.base import (
    Commit,
    Compacted,
    Condition,
    Item,
    LeaseGone,
    Put,
    StoreError,
    StoreSnapshot,
    check,
    check_key,
    check_keys,
)
from control.store.etcdwatch import follow
from control.store.etcdwire import (
    EtcdKeepAlive,
    EtcdKeyspace,
    EtcdLease,
    EtcdRange,
    EtcdResponse,
    EtcdTimeToLive,
    EtcdTxn,
)
from control.store.gateway import EtcdAccess, EtcdRefused, Gateway
from control.store.watches import StoreWatch


@asynccontextmanager
async def open_etcd(access: EtcdAccess) -> AsyncIterator[EtcdStore]:
    """The store in that cluster. Leaving the block closes all connections; etcd keeps everything, leases too.

    Raises StartError if something in `access` is wrong, or if no member answers within three times the timeout.
    """
    check_key(access.prefix)
    gateway = Gateway(access)
    try:
        store = EtcdStore(gateway, EtcdKeyspace(access.prefix))
        try:
            await gateway.authenticate()
            await store.start()
        except StoreError as error:
            raise StartError(str(error)) from None
        yield store
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await gateway.aclose()


class EtcdStore:
    """See `control.store.base.Store`; made by `open_etcd`."""

    def __init__(self, gateway: Gateway, keyspace: EtcdKeyspace) -> None:
        self.epoch = ""
        self._gateway = gateway
        self._keyspace = keyspace

    async def start(self) -> None:
        """Find the epoch, or begin one. Raises StoreError."""
        key = etcdwire.encoded(self._keyspace.epoch)
        new = {"request_put": {"key": key, "value": etcdwire.encoded(secrets.token_hex(8))}}
        absent = {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": "0"}
        read = {"request_range": {"key": key}}
        # In one transaction, and read even so: of two servers that start, or two tries, one makes it.
        body = {"compare": [absent], "success": [new, read], "failure": [read]}
        answer = await self._gateway.call("/v3/kv/txn", body, EtcdTxn, repeat=True)
        (pair,) = answer.responses[-1].response_range.kvs
        # The cluster's id is part of it: a snapshot that was restored as a new cluster is another history.
        self.epoch = f"{pair.value.decode()}-{self._gateway.cluster:x}"

    async def read(self, prefix: str) -> StoreSnapshot:
        check_key(prefix)
        answer = await self._gateway.call("/v3/kv/range", self._keyspace.range(prefix), EtcdRange, repeat=True)
        return self._keyspace.view(answer)

    async def find(self, *keys: str) -> tuple[Item | None, ...]:
        check_keys(keys)
        answer = await self._gateway.call("/v3/kv/txn", self._keyspace.finding(keys), EtcdTxn, repeat=True)
        return self._keyspace.found(answer)

    async def commit(
        self, *, when: Sequence[Condition] = (), put: Sequence[Put] = (), delete: Sequence[str] = ()
    ) -> int:
        check(when, put, delete)
        try:
            body = self._keyspace.txn(when, put, delete)
            answer = await self._gateway.call("/v3/kv/txn", body, EtcdTxn, repeat=not put and not delete)
        except EtcdRefused as refused:
            if refused.failure.code == etcdwire.NOT_FOUND:
                raise LeaseGone("the lease of an item is gone") from None
            raise
        if not answer.succeeded:
            raise self._keyspace.conflict(when, answer)
        return answer.header.revision

    @asynccontextmanager
    async def watch(self, prefix: str, after: int) -> AsyncIterator[ReceiveChannel[Commit]]:
        check_key(prefix)
        await self._reach(after)
        watch = StoreWatch(prefix, after)
        failed: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, self._gateway, self._keyspace, watch)
            # The caller's own errors are to reach it as they are, not in a group.
            try:
                yield watch
            except Exception as error:
                failed = error
            finally:
                watch.end(trio.ClosedResourceError("the watch was closed"))
            nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def grant(self, ttl: float) -> int:
        # A grant that was made and not heard of ends by itself.
        body = {"TTL": str(math.ceil(ttl))}
        return (await self._gateway.call("/v3/lease/grant", body, EtcdLease, repeat=True)).id

    async def keep_alive(self, lease: int) -> None:
        answer = await self._gateway.call("/v3/lease/keepalive", {"ID": str(lease)}, EtcdKeepAlive, repeat=True)
        if answer.result.ttl <= 0:
            raise LeaseGone("the lease is gone")

    async def unheard(self, lease: int) -> float:
        answer = await self._gateway.call("/v3/lease/timetolive", {"ID": str(lease)}, EtcdTimeToLive, repeat=True)
        if answer.ttl <= 0:
            raise LeaseGone("the lease is gone")
        return float(max(0, answer.granted - answer.ttl))

    async def revoke(self, lease: int) -> None:
        try:
            await self._gateway.call("/v3/lease/revoke", {"ID": str(lease)}, EtcdResponse, repeat=True)
        except EtcdRefused as refused:
            if refused.failure.code != etcdwire.NOT_FOUND:
                raise

    async def backup(self, path: str) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the store is etcd's, and so is its backup: etcdctl snapshot save FILE")

    async def _reach(self, after: int) -> None:
        """Raises Compacted when the history does not reach back to this revision, or not up to it."""
        body = {**self._keyspace.range(""), "revision": str(max(after, 1)), "count_only": True}
        try:
            await self._gateway.call("/v3/kv/range", body, EtcdRange, repeat=True)
        except EtcdRefused as refused:
            if refused.failure.code == etcdwire.OUT_OF_RANGE:
                raise Compacted(f"revision {after}: {refused.failure.message}") from None
            raise
