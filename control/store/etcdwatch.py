"""A watch of etcd that goes on: from one member to the next, each time from the last revision that has come whole.

A member that has lost its leader says so (`gateway.HEADERS`), one whose machine is gone is noticed by TCP
(`gateway.KEEPALIVE`), and one that hangs because it does not answer anything else either.
"""

from __future__ import annotations

import math

import httpx
import structlog
import trio

from control.store import etcdwire
from control.store.base import Compacted, StoreError
from control.store.etcdwire import CommitAssembler, EtcdKeyspace, EtcdWatchMessage
from control.store.gateway import PAUSE, Gateway
from control.store.watches import StoreWatch

log = structlog.get_logger()


async def follow(gateway: Gateway, keyspace: EtcdKeyspace, watch: StoreWatch) -> None:
    """Give the watch what comes, until it has ended or this is cancelled. Raises nothing: the watch ends, with
    Compacted, or with StoreError when no member could be watched for the gateway's patience."""
    heard_at = trio.current_time()
    while True:
        endpoint = gateway.endpoint()
        heard, why = await _listen(gateway, keyspace, watch, endpoint)
        if watch.ended:
            return
        if heard:
            log.info("etcd is watched through another member", kind=(endpoint,), left=endpoint, why=why)
            heard_at = trio.current_time()
        elif trio.current_time() - heard_at >= gateway.patience:
            watch.end(StoreError(f"{endpoint}: {why}; no member could be watched for {gateway.patience:g} s"))
            return
        else:
            # A watch whose token is too old is cancelled at its beginning.
            await gateway.refresh()
        gateway.leave(endpoint)
        await trio.sleep(PAUSE)


async def _listen(gateway: Gateway, keyspace: EtcdKeyspace, watch: StoreWatch, endpoint: str) -> tuple[bool, str]:
    """Take what this member sends until no more comes: (there was a watch, why it is over)."""
    async with trio.open_nursery() as nursery:
        listening = _Listening(gateway, keyspace, watch, endpoint, nursery.cancel_scope)
        nursery.start_soon(_probe, gateway, endpoint, nursery.cancel_scope)
        try:
            body = keyspace.watch(watch.prefix, watch.seen)
            await gateway.listen(endpoint, "/v3/watch", body, listening.take)
        except (httpx.HTTPError, StoreError) as error:
            listening.why = str(error) or type(error).__name__
        nursery.cancel_scope.cancel()
    return listening.heard, listening.why


class _Listening:
    """What one member sends, until it says that no more comes: then it cancels the scope.

    Attributes:
        heard: there was a watch.
        why: the reason why no more comes; until something has come, that the member does not answer.
    """

    def __init__(
        self, gateway: Gateway, keyspace: EtcdKeyspace, watch: StoreWatch, endpoint: str, scope: trio.CancelScope
    ) -> None:
        self.heard = False
        self.why = "it does not answer"
        self._gateway = gateway
        self._watch = watch
        self._endpoint = endpoint
        self._assembly = CommitAssembler(keyspace)
        self._scope = scope
        self._over = False
        scope.deadline = trio.current_time() + gateway.timeout

    def take(self, line: bytes) -> None:
        """Give the watch what is in the line."""
        if self._over:
            return
        try:
            self._taken(etcdwire.decode(line, EtcdWatchMessage))
        except StoreError as error:
            self.why = str(error)
            self._over = True
        if self._over or self._watch.ended:
            self._over = True
            self._scope.cancel()
        else:
            # No deadline any more: from now on `_probe` notices when the member hangs.
            self.heard, self._scope.deadline = True, math.inf

    def _taken(self, line: EtcdWatchMessage) -> None:
        if line.error is not None:
            raise StoreError(line.error.message)
        message = line.result
        self._gateway.check_cluster(self._endpoint, message.header.cluster_id)
        if message.compact_revision:
            first = message.compact_revision
            self._watch.end(Compacted(f"the history begins with revision {first}: read everything again"))
        elif message.canceled:
            raise StoreError(message.cancel_reason or "it cancelled the watch")
        for commit in self._assembly.take(message):
            self._watch.offer(commit)
        if not (message.events or message.created):
            # A notice of progress: all up to there has been sent.
            self._watch.pass_over(message.header.revision)


async def _probe(gateway: Gateway, endpoint: str, scope: trio.CancelScope) -> None:
    """Cancel the scope when the member does not answer."""
    while True:
        await trio.sleep(gateway.timeout)
        if not await gateway.alive(endpoint):
            scope.cancel()
