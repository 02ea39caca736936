"""The client of the control plane: several servers, of which any will do.

A request goes to the server that answered last, and on to the others, in random order, when that one does not; rounds
are repeated, with growing pauses, until one answers or `DEADLINE` is over. What a server *refuses* is an answer.

Errors, of every method: `Unreachable` (nobody answered) and `Denied` (the answer is no). Cancelled, a request may or
may not have been carried out; all but `ControlClient.join` may simply be repeated.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx
import msgspec
import trio
from msgspec import structs

from control.api import mesh
from control.api.mapwatch import MAX_LINE, MapWatch, WatchStream, finish
from control.api.messages import EdgeInfo, Edges
from control.api.refusals import Denied, Unreachable, denied_by, reason_of
from control.base.httpclient import RequestBody, closing_given_up

__all__ = ["ControlClient", "Denied", "MapWatch", "Unreachable"]

T = TypeVar("T")

DEADLINE = 15.0
"""Seconds for a request with all its attempts: enough to find the third server when two do not even refuse."""
ATTEMPT, ONLY = 4.0, 8.0
"""Seconds for one server to answer, and for the only one there is. One that is alive, and its store with it, takes
milliseconds; but while a thousand hosts come back to it, whoever gives up just makes it begin again. A host that says
every 5 s that it is there, and loses one connection so, is still heard before its lease (15 s) is over."""
CONNECTING = 0.75
"""The part of that which connecting may take, and then the TLS handshake; httpx knows one limit for both."""
PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds: the first pause between two rounds lies below the one, which doubles up to the other."""
MAX_BODY = 1 << 20
"""Bytes of an answer. An unverified server (`ControlClient.ca`) must not fill this process's memory."""
_FAILED = (httpx.TransportError, httpx.StreamError, trio.TooSlowError)


class ControlClient:
    """See the module's text. ``async with`` closes it; so does `aclose`.

    Args:
        servers: ``IP:PORT`` or ``NAME:PORT``, or one ``unix:/path`` for a control server's local socket.
        tls: the context for the next connection. Asked for each request, so that a renewed certificate is shown from
            then on; it must return the same object as long as nothing has changed. None: only for the local socket.
        name: of the mesh. The servers' certificates must bear its `mesh.control_name`.

    Attributes:
        on_denied: told of each refusal before it is raised.
        on_unanswered: told after each round in which no server answered: which were asked, and why each did not. (A
            request goes on, and raises Unreachable only when its time is over.)
        secret: of this host's state_dir, said with each request for an address.
    """

    def __init__(
        self,
        servers: Sequence[str],
        tls: Callable[[], ssl.SSLContext] | None = None,
        *,
        name: str = "hostlane",
        random: random.Random = random.Random(),  # noqa: B008 - one for all is what is meant
    ) -> None:
        if not servers:
            raise ValueError("no control server")
        self._socket = servers[0].removeprefix("unix:") if servers[0].startswith("unix:") else None
        if self._socket is None and tls is None:
            raise ValueError("servers on the network need TLS")
        self._servers = [*servers]
        self._attempt = ATTEMPT if len(servers) > 1 else ONLY
        self._tls = tls
        self._extensions = {} if self._socket else {"sni_hostname": mesh.control_name(name)}
        self._random = random
        self._best: str | None = None
        self._http: httpx.AsyncClient | None = None
        self._context: ssl.SSLContext | None = None
        self.on_denied: Callable[[Denied], None] = _ignore
        self.on_unanswered: Callable[[str], None] = _ignore
        self.secret = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close idle connections. The client may be used again."""
        http, self._http, self._context = self._http, None, None
        if http is not None:
            await http.aclose()

    async def register(
        self, record: mesh.HostRecord, *, secret: str = "", before: str = "", yields: bool = False
    ) -> mesh.RegisterResponse:
        """This host is there, and offers that; the rest as in `mesh.RegisterRequest`. Denied ``taken``: another host
        has its address; ``in_use``: another proxy bears its name, and is alive."""
        body = mesh.RegisterRequest(record=record, secret=secret, before=before, yields=yields)
        return await self._ask("PUT", f"/v1/hosts/{quote(record.name, safe='')}", mesh.RegisterResponse, body)

    async def alive(
        self,
        name: str,
        instance: str,
        edges: tuple[EdgeInfo, ...] | None = None,
        problems: tuple[mesh.ToldProblem, ...] = (),
    ) -> mesh.AliveResponse:
        """This host is still there, and has these edges and problems. Denied ``unknown_host``: its lease is over,
        register again; ``superseded``: another process has registered this host since."""
        body = mesh.Instance(instance=instance, edges=edges, problems=problems)
        path = f"/v1/hosts/{quote(name, safe='')}/alive"
        server, raw = await self._exchange("POST", path, body)
        # Nothing: a server of an earlier version.
        return self._decoded(server, raw, mesh.AliveResponse) if raw else mesh.AliveResponse()

    async def leave(self, name: str, instance: str) -> None:
        """This host goes. Fine if it is gone already, or has been registered by another process since."""
        query = f"?instance={quote(instance, safe='')}"
        await self._exchange("DELETE", f"/v1/hosts/{quote(name, safe='')}{query}")

    async def renew(self, request: mesh.RenewRequest) -> mesh.IssueResponse:
        """A new certificate for this host."""
        return await self._ask("POST", "/v1/renew", mesh.IssueResponse, request)

    async def join(self, request: mesh.JoinRequest) -> mesh.IssueResponse:
        """The first certificate of a host, for a token.

        The token works once, so nothing is repeated that may have reached a server: Unreachable then.
        """
        return await self._ask("POST", "/v1/join", mesh.IssueResponse, request, once=True)

    async def ca(self) -> mesh.CaBundle:
        """The CA certificates in force."""
        return await self._ask("GET", "/v1/ca", mesh.CaBundle)

    async def addresses(self, request: mesh.AddressRequest) -> mesh.AddressLease:
        """An address for this host. Denied ``taken`` (another host has it), ``no_segment``, ``pool_empty``,
        ``in_use``."""
        asked = structs.replace(request, secret=self.secret)
        return await self._ask("POST", "/v1/addresses", mesh.AddressLease, asked)

    async def give_back(self, segment: str, part: str = "") -> None:
        """What this host, or a part of it, holds on a segment is free. Fine if that is nothing."""
        query = f"?segment={quote(segment, safe='')}&part={quote(part, safe='')}"
        await self._exchange("DELETE", f"/v1/addresses{query}")

    async def hosts(self) -> mesh.MapSnapshot:
        """The whole map, as it is now."""
        return await self._ask("GET", "/v1/hosts", mesh.MapSnapshot, most=MAX_LINE)

    async def edges(self) -> Edges:
        """Local socket: who talks to whom in the mesh."""
        return await self._ask("GET", "/v1/edges", Edges, most=MAX_LINE)

    async def told_edges(self) -> mesh.ToldEdges:
        """Another control server: what hosts have told it of their edges."""
        return await self._ask("GET", "/v1/edges/told", mesh.ToldEdges, most=MAX_LINE)

    async def status(self) -> mesh.ControlStatus:
        """What the server that answers does."""
        return await self._ask("GET", "/v1/status", mesh.ControlStatus)

    async def remove(self, name: str) -> None:
        """Local socket: take a host off the map and free its addresses. Denied ``unknown_host``."""
        await self._exchange("DELETE", f"/v1/hosts/{quote(name, safe='')}")

    async def create_token(self, request: mesh.TokenRequest) -> mesh.TokenCreated:
        """Local socket: a token for a host to join with."""
        return await self._ask("POST", "/v1/tokens", mesh.TokenCreated, request, once=True)

    async def tokens(self) -> list[mesh.TokenInfo]:
        """Local socket: the tokens that nobody has used yet."""
        return await self._ask("GET", "/v1/tokens", list[mesh.TokenInfo])

    async def delete_token(self, token: str) -> None:
        """Local socket: a token, by its id, is worth nothing any more. Denied ``unknown_token``."""
        await self._exchange("DELETE", f"/v1/tokens/{quote(token, safe='')}")

    async def revoke(self, request: mesh.RevokeRequest) -> mesh.RevokeDone:
        """Local socket: certificates count no longer."""
        return await self._ask("POST", "/v1/revoke", mesh.RevokeDone, request)

    async def backup(self, request: mesh.BackupRequest) -> None:
        """Local socket: a copy of the store in a file. Denied ``backup``: there is none, and why."""
        await self._exchange("POST", "/v1/backup", request, once=True)

    async def ca_status(self) -> mesh.CaStatus:
        """Local socket: the CAs in force, and what hangs on each."""
        return await self._ask("GET", "/v1/ca/status", mesh.CaStatus)

    async def rotate(self, step: Literal["add", "activate", "drop"], *, force: bool = False) -> mesh.CaStatus:
        """Local socket: a step of the rotation of CAs; how they stand afterwards. `force`: see `mesh.CaDrop`."""
        body = mesh.CaDrop(force=force) if step == "drop" else None
        return await self._ask("POST", f"/v1/ca/{step}", mesh.CaStatus, body, once=True)

    @asynccontextmanager
    async def watch(self, epoch: str = "", after: int = 0, instance: str = "") -> AsyncIterator[MapWatch]:
        """The map and its changes, from ``after`` in ``epoch`` on; without them, or when that is too long ago, it
        begins with a `mesh.MapSnapshot`. `instance`: the process of this host that watches.

        Entering raises as every method does. Keep watching in a loop: a watch that ends is the server's, and the next
        one goes to another server first.
        """
        willing = "" if self._socket is not None else "yes"
        try:
            _, stream = await self._anybody(lambda server: self._watch(server, epoch, after, instance, willing))
        except Denied as denied:
            self._best = None
            raise self._told(denied) from None

        async def elsewhere(server: str, epoch: str, after: int) -> WatchStream | None:
            return await self._other(server, lambda other: self._watch(other, epoch, after, instance, "sent"))

        watch = MapWatch(stream, elsewhere, epoch, after)
        try:
            yield watch
        finally:
            # Whoever watches again does so because this watch is no good any more.
            self._best = None
            await watch.aclose()

    async def _watch(self, server: str, epoch: str, after: int, instance: str, willing: str) -> WatchStream:
        """A watch at that server. Raises as `_send` does, and Denied, of which nobody is told yet."""
        asked = {"epoch": epoch, "after": str(after)} if epoch else {}
        # Servers of earlier versions do not know all of it.
        newer = {name: value for name, value in (("instance", instance), ("elsewhere", willing)) if value}
        http = self._new_client()
        stream = None
        try:
            while True:
                query = urlencode(asked | newer)
                response = await self._send(http, server, "GET", f"/v1/watch{f'?{query}' if query else ''}")
                if response.status_code == 200:
                    stream = WatchStream(server, response, http)
                    return stream
                async with aclosing(response):
                    denied = denied_by(response.status_code, await _body(response, MAX_BODY))
                if denied.code != "query" or not newer or willing == "sent":
                    raise denied
                newer.popitem()
        finally:
            if stream is None:
                with trio.move_on_after(1, shield=True):
                    await http.aclose()

    async def _other(self, server: str, attempt: Callable[[str], Awaitable[T]]) -> T | None:
        """The answer of another server than this one, each of which is asked once; None: none of them agrees, within
        the time that one has. Where only one is known there may be several behind its address (a balancer, a name): it
        is asked by a new connection, and the same server does not agree.
        """
        others = [other for other in self._order() if other != server] or [server]
        with trio.move_on_after(ATTEMPT):
            for other in others:
                try:
                    found = await attempt(other)
                except (*_FAILED, _Busy, Denied):
                    continue
                # Requests, too: the other one had more of those as well.
                self._best = other
                return found
        return None

    async def _ask(
        self, method: str, path: str, kind: type[T], body: Any = None, *, once: bool = False, most: int = MAX_BODY
    ) -> T:
        """The decoded answer. `once`: do not repeat what may have arrived somewhere."""
        server, raw = await self._exchange(method, path, body, once=once, most=most)
        return self._decoded(server, raw, kind)

    @staticmethod
    def _decoded(server: str, raw: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Unreachable(f"{server}: the answer is not one of a control server of this version") from None

    async def _exchange(
        self, method: str, path: str, body: Any = None, *, once: bool = False, most: int = MAX_BODY
    ) -> tuple[str, bytes]:
        """The server that agreed, and the body of its answer."""
        content = b"" if body is None else msgspec.json.encode(body)

        async def attempt(server: str) -> tuple[int, bytes]:
            response = await self._send(await self._client(), server, method, path, content)
            async with aclosing(response):
                return response.status_code, await _body(response, most)

        server, (status, raw) = await self._anybody(attempt, once=once)
        if not 200 <= status < 300:
            raise self._told(denied_by(status, raw))
        self._best = server
        return server, raw

    def _told(self, denied: Denied) -> Denied:
        self.on_denied(denied)
        return denied

    async def _anybody(self, attempt: Callable[[str], Awaitable[T]], *, once: bool = False) -> tuple[str, T]:
        """The server that answered, and its answer. Raises Unreachable."""
        failures: dict[str, str] = {}
        pause = PAUSE
        with trio.move_on_after(DEADLINE):
            while True:
                for server in self._order():
                    try:
                        with trio.fail_after(self._attempt):
                            return server, await attempt(server)
                    except (*_FAILED, _Busy) as error:
                        connecting = isinstance(error, httpx.ConnectTimeout)
                        failures[server] = reason_of(error, self._attempt * (CONNECTING if connecting else 1))
                        self._best = None
                        if once and not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, _Busy)):
                            raise Unreachable(f"{server}: {failures[server]}; it may have been done or not") from None
                if self._socket is not None:
                    break
                self.on_unanswered(self._unanswered(failures))
                await trio.sleep(self._random.random() * pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        raise Unreachable(self._unanswered(failures))

    def _unanswered(self, failures: Mapping[str, str]) -> str:
        tried = [f"{server}: {failures.get(server, 'not tried')}" for server in self._servers]
        return f"no control server answers: {'; '.join(tried)}"

    def _order(self) -> list[str]:
        """The last good one first, the others as the dice fall: the clients of a server that died spread."""
        order = self._random.sample(self._servers, len(self._servers))
        if self._best is not None:
            order.sort(key=lambda server: server != self._best)
        return order

    async def _send(
        self, http: httpx.AsyncClient, server: str, method: str, path: str, content: bytes = b""
    ) -> httpx.Response:
        """The head of the answer; its body is still to come. Raises _Busy where another server should be asked."""
        url = f"http://hostlane{path}" if self._socket is not None else f"https://{server}{path}"
        headers = {"content-type": "application/json"} if content else {}
        extensions = {**self._extensions, "trace": closing_given_up()}
        request = http.build_request(method, url, content=content or None, headers=headers, extensions=extensions)
        request.stream = RequestBody(content)
        response = await http.send(request, stream=True)
        if response.status_code >= 500:
            async with aclosing(response):
                raise _Busy(str(denied_by(response.status_code, await _body(response, MAX_BODY))))
        return response

    async def _client(self) -> httpx.AsyncClient:
        """The one for requests, with the context of now."""
        context = self._tls() if self._tls is not None else None
        if self._http is None or context is not self._context:
            before, self._context, self._http = self._http, context, self._new_client(context)
            if before is not None:
                # Others may ask meanwhile, and take the new one; or have it replaced as well.
                await before.aclose()
                return await self._client()
        return self._http

    def _new_client(self, context: ssl.SSLContext | None = None) -> httpx.AsyncClient:
        if context is None and self._tls is not None:
            context = self._tls()
        # The environment's proxy settings are about other servers than these.
        verify = context if context is not None else False
        transport = httpx.AsyncHTTPTransport(uds=self._socket, verify=verify, trust_env=False)
        headers = {"accept-encoding": "identity", "user-agent": "hostlane"}
        # Everything but connecting is bounded by an attempt's time and `mesh.SILENCE`.
        timeout = httpx.Timeout(None, connect=CONNECTING * self._attempt)
        return httpx.AsyncClient(transport=transport, timeout=timeout, headers=headers, trust_env=False)


class _Busy(Exception):
    """A server answered that it cannot (5xx)."""


async def _body(response: httpx.Response, most: int) -> bytes:
    body = bytearray()
    chunks = response.aiter_raw()
    async for chunk in chunks:
        body += chunk
        if len(body) > most:
            await finish(chunks)
            raise httpx.ReadError(f"an answer of more than {most >> 20} MiB")
    return bytes(body)


def _ignore(told: object) -> None:
    pass
