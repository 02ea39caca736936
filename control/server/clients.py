"""Clients from accept to close: admission, TLS, then one request after another answered by the routes.

Two barriers keep whatever goes wrong with one client from all others: `Clients.serve` (the connection barrier) and
`Clients._respond` (a step earlier, where an answer can still say so). Both log; the second one's log has the traceback.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog
import trio
from trio.abc import Stream

from control.api.mesh import ControlErrorBody
from control.api.refusals import NEEDS_TOKEN
from control.base.errors import RequestRefused
from control.base.http import HttpRequest, HttpResponse, ResponseLines
from control.base.ratelimit import RateLimit
from control.base.system.commanders import Commanders
from control.base.tokenbucket import TokenBucket
from control.server.api import Api
from control.server.config import ControlLimits
from control.server.connection import Connection
from control.server.credentials import caller_of
from control.server.limits import ConnectionLimiter, OpenConnection
from control.server.pacedstream import PacedStream, has_left, until_heard
from control.server.routes import ApiRoutes, Caller, MatchedRequest
from control.server.watching import MapWatchers
from control.store.base import StoreError

__all__ = ["Clients"]

log = structlog.get_logger()

LOCAL_CLIENTS = 64
"""Connections to the local socket, apart from those of the network, so that the administrator always gets in; and as
many of those who may not command there."""
LINES_PER_SECOND, LINES_AT_ONCE = 1 / 60, 5
"""Log lines about local clients that may not command: a container may ask for ever."""
CLIENTS = 10_000
"""Clients whose requests are counted, each against limits.requests_per_second, and twice as many at once."""
HANDSHAKES, HANDSHAKES_PER_CLIENT = 64, 4
"""TLS handshakes at a time, of all and of one address. When a thousand hosts come back at once, a few handshakes are
made and then the next, instead of all together until all have run out of time."""
STEPS = 4
"""Steps of handshakes in one round of the event loop: up to 2 ms each, for which all who are connected have to wait."""
WORKING = 32
"""Requests of the network at work at a time, the others in the order of arrival: a thousand at once would share the
server until all of them are too late, while the store has enough to do with these."""
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, ssl.SSLError)
_encode = msgspec.json.Encoder().encode


class Clients:
    """See the module's text.

    Args:
        reached: called with the IP address of this machine at which a host that has shown its certificate has come.

    Attributes:
        answered: requests, by the path of their route (empty: there is none) and the status of the answer.
        context: TLS for the next client; set by whoever keeps this server's certificate.
    """

    def __init__(
        self,
        table: ApiRoutes,
        api: Api,
        watching: MapWatchers,
        limits: ControlLimits,
        mesh: str,
        admission: ConnectionLimiter,
        reached: Callable[[str], None] = lambda address: None,
    ) -> None:
        self._reached = reached
        self._table, self._api, self._watching = table, api, watching
        self._limits, self._mesh = limits, mesh
        self._admission = admission
        self._local = ConnectionLimiter(2 * LOCAL_CLIENTS, LOCAL_CLIENTS)
        self._lines = TokenBucket(LINES_PER_SECOND, LINES_AT_ONCE)
        per_second = limits.requests_per_second
        self._requests = RateLimit(per_second, 2 * per_second, most=CLIENTS)
        self._connections: set[Connection] = set()
        self._handshakes = trio.CapacityLimiter(HANDSHAKES)
        self._working = trio.CapacityLimiter(WORKING)
        self._turns = trio.CapacityLimiter(STEPS)
        self._waiting: dict[str, trio.CapacityLimiter] = {}
        self._stopping = False
        self.answered: dict[tuple[str, int], int] = {}
        self.context: ssl.SSLContext | None = None

    def stop(self) -> None:
        """End connections that have no request under way; the others end after their answer."""
        self._stopping = True
        for connection in list(self._connections):
            connection.end_if_idle()

    async def serve(self, client: trio.SocketStream) -> None:
        """One client of the network, from accept to close. Raises nothing but trio.Cancelled."""
        try:
            address = str(client.socket.getpeername()[0])
        except OSError:
            address = ""
        if not address or self._stopping:
            await trio.aclose_forcefully(client)
            return
        place = self._admission.enter(address)
        if place is None:
            most = self._limits.connections_per_client
            why = f"limits.connections_per_client: {most} that have shown no host's certificate (yet)"
            if self._admission.full:
                why = f"limits.connections: {self._limits.connections}, of all clients"
            _say_refused(address, why)
            await trio.aclose_forcefully(client)
            return
        try:
            await self._guarded(address, client, partial(self._secured, client, address, place))
        finally:
            place.leave()

    async def serve_local(self, commanders: Commanders, client: trio.SocketStream) -> None:
        """One client of the local socket, as `serve`. Who is none of the commanders gets a 403 for whatever it asks."""
        refused = commanders.refusal(client.socket)
        if refused is not None and self._lines.take(trio.current_time()):
            log.warning("local client refused", error=refused)
        kind = "admin" if refused is None else "refused"
        if self._stopping:
            await trio.aclose_forcefully(client)
            return
        place = self._local.enter(kind)
        if place is None:
            _say_refused("local", f"{LOCAL_CLIENTS} connections at a time")
            await trio.aclose_forcefully(client)
            return
        try:
            caller = Caller("local", admin=refused is None, refused=refused)
            await self._guarded("local", client, partial(self._converse, client, caller, client))
        finally:
            place.leave()

    async def _guarded(self, address: str, client: trio.SocketStream, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except _GONE as error:
            # The client went away, or is too slow to be told anything.
            log.debug("client is gone", client=address, slow=isinstance(error, trio.TooSlowError))
        except Exception:
            log.exception("client failed")
        finally:
            await trio.aclose_forcefully(client)

    async def _secured(self, client: trio.SocketStream, address: str, place: OpenConnection) -> None:
        assert self.context is not None
        with trio.move_on_after(self._limits.request_timeout) as patience:
            # Who says nothing waits here, and takes nobody's turn.
            await trio.lowlevel.wait_readable(client.socket)
        if patience.cancelled_caught:
            return
        transport = PacedStream(client, self._turns)
        own = self._waiting.setdefault(address, trio.CapacityLimiter(HANDSHAKES_PER_CLIENT))
        try:
            async with own, self._handshakes:
                if has_left(client):
                    return
                stream = trio.SSLStream(transport, self.context, server_side=True, https_compatible=True)
                with trio.fail_after(self._limits.request_timeout):
                    await stream.do_handshake()
        except trio.BrokenResourceError as error:
            log.debug("no TLS with a client", client=address, error=str(error.__cause__ or error))
            return
        finally:
            if not own.borrowed_tokens and not own.statistics().tasks_waiting:
                self._waiting.pop(address, None)
        transport.turns = None
        caller = caller_of(stream.getpeercert(binary_form=True), address, self._mesh)
        if caller.host is not None and not place.known_as(_name(caller)):
            most = self._limits.connections_per_client
            _say_refused(address, f"limits.connections_per_client: {most} of one host", caller.host)
            return
        if caller.host is not None:
            self._reached(_own_address(client))
        await self._converse(stream, caller, client)
        with trio.move_on_after(1):
            await stream.aclose()

    async def _converse(self, stream: Stream, caller: Caller, client: trio.SocketStream) -> None:
        connection = Connection(
            stream,
            self._limits,
            partial(self._respond, caller, client),
            partial(self._in_time, caller),
            lambda: self._stopping,
        )
        self._connections.add(connection)
        try:
            await connection.converse()
        finally:
            self._connections.discard(connection)

    def _in_time(self, caller: Caller) -> bool:
        """Whether a request does not come too soon after the others of its client."""
        if caller.admin or self._requests.allows(_name(caller), trio.current_time()):
            return True
        _say_refused(caller.address, f"limits.requests_per_second: {self._limits.requests_per_second}", caller.host)
        return False

    async def _respond(
        self, caller: Caller, client: trio.SocketStream, asked: HttpRequest
    ) -> HttpResponse | ResponseLines:
        self._api.requests += 1
        path = ""
        try:
            method = "GET" if asked.method == "HEAD" else asked.method
            route, names, query = self._table.find(method, asked.target, caller)
            path = route.path
            if "anybody" not in route.who and (refusal := self._watching.refuses(caller)) is not None:
                raise refusal
            if route.stream and asked.method == "HEAD":
                raise RequestRefused(405, "method", f"method HEAD on {route.path}; allowed: GET")
            body = self._table.decode(route, asked.body)
            call = MatchedRequest(caller, names, query, body, partial(until_heard, client))
            with trio.fail_after(self._limits.request_timeout):
                # The administrator waits for nobody.
                if route.quick or caller.admin:
                    found = await route.handle(self._api, call)
                else:
                    async with self._working:
                        if has_left(client):
                            # It comes again: work for nobody would make others wait until they have left, too.
                            raise trio.BrokenResourceError
                        found = await route.handle(self._api, call)
        except RequestRefused as refused:
            return self._refusal(caller, asked, path, refused.status, refused.code, str(refused))
        except (StoreError, trio.TooSlowError) as error:
            text = str(error) if isinstance(error, StoreError) else "the store does not answer in time"
            log.warning("request failed", kind=(text,), method=asked.method, path=_path(asked), error=text)
            return self._refusal(caller, asked, path, 503, "store", text)
        except trio.BrokenResourceError:
            raise
        except Exception:
            log.exception("request failed", method=asked.method, path=_path(asked))
            return self._refusal(
                caller, asked, path, 500, "internal", "this control server could not answer; its log says why"
            )
        self._count(path, 200 if route.stream else route.status)
        if route.stream:
            lines: ResponseLines = found
            return lines
        return HttpResponse(route.status, b"" if found is None else _encode(found))

    def _count(self, path: str, status: int) -> None:
        self.answered[path, status] = self.answered.get((path, status), 0) + 1

    def _refusal(
        self, caller: Caller, asked: HttpRequest, path: str, status: int, code: str, text: str
    ) -> HttpResponse:
        self._api.refused += 1
        self._count(path, status)
        if code in NEEDS_TOKEN:
            log.warning("host refused", kind=(caller.host, code), host=caller.host, client=caller.address, error=text)
        elif code == "busy":
            _say_refused(caller.address, text, caller.host)
        log.debug("refused", client=caller.address, host=caller.host, path=_path(asked), status=status, code=code)
        allow = (("allow", text.rpartition("allowed: ")[2]),) if status == 405 else ()
        return HttpResponse(status, _encode(ControlErrorBody(error=text, code=code)), headers=allow)


def _own_address(client: trio.SocketStream) -> str:
    """The IP address of this machine that a client has connected to."""
    host, _, scope = str(client.socket.getsockname()[0]).partition("%")
    found = ipaddress.ip_address(host)
    plain = getattr(found, "ipv4_mapped", None) or found
    return f"{plain}%{scope}" if scope else str(plain)


def _name(caller: Caller) -> str:
    """Who the limits of one client are for: the host, if it has shown who it is. Hosts may share an address."""
    return caller.address if caller.host is None else f"host {caller.host}"


def _say_refused(address: str, error: str, host: str | None = None) -> None:
    """Once for each client and reason, and then summarised: a limit that nobody hears of is looked for in the
    network."""
    log.warning("client refused", kind=(host or address, error), client=address, host=host, error=error)


def _path(asked: HttpRequest) -> str:
    """For logs: short, printable, and without the query."""
    return ascii(asked.target.partition("?")[0][:80])
