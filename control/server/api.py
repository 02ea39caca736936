"""What each request does, and the table of all requests (`ROUTES`)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from control.api import mesh
from control.api.messages import Edges
from control.base.errors import RequestRefused
from control.base.http import ResponseLines
from control.base.reading import units
from control.base.version import VERSION
from control.ca.issuing import ClientCertificate, Issuer
from control.ca.joining import HostEnrolment
from control.ca.rotation import CaRotation
from control.server.addressbook import AddressBook
from control.server.edges import EdgeBook, MeshEdges
from control.server.hosts import HostRegistry
from control.server.limits import ConnectionLimiter
from control.server.routes import ApiRoute, Caller, MatchedRequest
from control.server.watching import MapWatchers
from control.store.base import StoreError

__all__ = ["ROUTES", "Api"]


MOST_REVISIONS = (1 << 63) - 1
"""Of any store; JSON that every program reads has no greater numbers either."""


class Api:
    """The parts of a control server, as requests use them. Methods raise RequestRefused, and StoreError."""

    def __init__(
        self,
        name: str,
        mesh_name: str,
        *,
        hosts: HostRegistry,
        book: AddressBook,
        joining: HostEnrolment,
        issuer: Issuer,
        rotation: CaRotation,
        watching: MapWatchers,
        admission: ConnectionLimiter,
        backup: Callable[[str], Awaitable[None]],
        edge_book: EdgeBook,
        edges: MeshEdges,
    ) -> None:
        self._name, self._mesh = name, mesh_name
        self._hosts, self._book, self._joining = hosts, book, joining
        self._issuer, self._rotation, self._watching = issuer, rotation, watching
        self._admission = admission
        self._backup = backup
        self._edge_book, self._edges = edge_book, edges
        self._began = time.monotonic()
        self.requests = 0
        self.refused = 0
        self.document: dict[str, Any] = {}

    async def put_host(self, call: MatchedRequest) -> mesh.RegisterResponse:
        record = call.body.record
        if record.name != call.names["name"]:
            text = f"found a record of host {units.show(record.name)}; allowed: of {call.names['name']}"
            raise RequestRefused(400, "record", text)
        return await self._hosts.register(call.body, _shown(call.caller), call.caller.address)

    async def alive(self, call: MatchedRequest) -> mesh.AliveResponse:
        name = call.names["name"]
        answer = await self._hosts.alive(name, call.body.instance)
        if call.body.edges is not None:
            self._edge_book.tell(name, call.body.edges, call.body.problems)
        return answer

    async def edges(self, call: MatchedRequest) -> Edges:
        return await self._edges.read([*self._watching.checked().hosts])

    async def told_edges(self, call: MatchedRequest) -> mesh.ToldEdges:
        return mesh.ToldEdges(hosts=tuple(self._edge_book.told()))

    async def delete_host(self, call: MatchedRequest) -> None:
        name = call.names["name"]
        if call.caller.admin:
            await self._hosts.remove(name)
        elif not call.query.get("instance"):
            raise RequestRefused(400, "query", "found no instance; allowed: ?instance=... of the process that leaves")
        else:
            await self._hosts.leave(name, call.query["instance"])

    async def hosts(self, call: MatchedRequest) -> mesh.MapSnapshot:
        return self._watching.checked().snapshot()

    async def watch(self, call: MatchedRequest) -> ResponseLines:
        willing = call.query.get("elsewhere", "")
        if willing not in ("", "yes", "sent"):
            raise RequestRefused(400, "query", f"found elsewhere={units.show(willing)}; allowed: yes, sent")
        self._watching.admit(sent=willing == "sent")
        epoch = call.query.get("epoch", "")
        try:
            after = int(call.query.get("after", "0"))
            if not 0 <= after <= MOST_REVISIONS:
                raise ValueError
        except ValueError:
            text = f"found after={units.show(call.query['after'])}; allowed: a revision, a whole number"
            raise RequestRefused(400, "query", text) from None

        async def lines(send: Callable[[bytes], Awaitable[None]]) -> None:
            instance = call.query.get("instance", "")
            await self._watching.watch(call.caller, epoch, after, send, instance, call.heard if willing else None)

        return lines

    async def addresses(self, call: MatchedRequest) -> mesh.AddressLease:
        assert call.caller.host is not None
        await self._hosts.admit(call.caller.host, call.body.secret, call.caller.address)
        return await self._book.lease(call.caller.host, call.body)

    async def give_back(self, call: MatchedRequest) -> None:
        assert call.caller.host is not None
        if not call.query.get("segment"):
            text = "found no segment; allowed: ?segment=NAME, and &part=@CONTAINER:INTERFACE"
            raise RequestRefused(400, "query", text)
        await self._book.give_back(call.caller.host, call.query["segment"], call.query.get("part", ""))

    async def status(self, call: MatchedRequest) -> mesh.ControlStatus:
        feed = self._watching.feed
        return mesh.ControlStatus(
            name=self._name,
            mesh=self._mesh,
            version=VERSION,
            uptime_s=round(time.monotonic() - self._began, 3),
            epoch=feed.epoch if feed else "",
            revision=feed.revision if feed else 0,
            watching=feed is not None,
            hosts=len(feed.hosts) if feed else 0,
            services=feed.services if feed else 0,
            watchers=self._watching.watchers,
            clients=self._admission.total,
            requests=self.requests,
            refused=self.refused + self._admission.turned_away,
            segments=await self._book.use(call.caller.host),
            joining=dict(self._joining.counts),
        )

    async def health(self, call: MatchedRequest) -> mesh.Health:
        self._watching.checked()
        return mesh.Health(name=self._name)

    async def backup(self, call: MatchedRequest) -> None:
        path = call.body.path
        if not path.startswith("/") or not path.isprintable():
            raise RequestRefused(400, "path", f"found {units.show(path)}; allowed: an absolute path")
        try:
            await self._backup(path)
        except StoreError as error:
            # Not a 503: no other control server would do it, and this one is well.
            raise RequestRefused(409, "backup", str(error)) from None

    async def openapi(self, call: MatchedRequest) -> dict[str, Any]:
        return self.document

    async def ca(self, call: MatchedRequest) -> mesh.CaBundle:
        return await self._issuer.authorities()

    async def join(self, call: MatchedRequest) -> mesh.IssueResponse:
        return await self._joining.join(call.body, call.caller.address)

    async def renew(self, call: MatchedRequest) -> mesh.IssueResponse:
        return await self._joining.renew(call.body, _shown(call.caller))

    async def create_token(self, call: MatchedRequest) -> mesh.TokenCreated:
        return await self._joining.create_token(call.body)

    async def tokens(self, call: MatchedRequest) -> list[mesh.TokenInfo]:
        return await self._joining.tokens()

    async def delete_token(self, call: MatchedRequest) -> None:
        await self._joining.delete_token(call.names["id"])

    async def revoke(self, call: MatchedRequest) -> mesh.RevokeDone:
        return await self._joining.revoke(call.body)

    async def ca_status(self, call: MatchedRequest) -> mesh.CaStatus:
        return await self._rotation.status()

    async def ca_add(self, call: MatchedRequest) -> mesh.CaStatus:
        return await self._rotation.add()

    async def ca_activate(self, call: MatchedRequest) -> mesh.CaStatus:
        return await self._rotation.activate()

    async def ca_drop(self, call: MatchedRequest) -> mesh.CaStatus:
        return await self._rotation.drop(call.body.force)


def _shown(caller: Caller) -> ClientCertificate:
    """The certificate of a request that only a host may make."""
    assert caller.host is not None
    assert caller.serial is not None
    assert caller.expires is not None
    assert caller.issuer is not None
    return ClientCertificate(caller.host, caller.serial, caller.expires, caller.issuer)


AFTER = {
    "epoch": "the store's epoch that `after` is of",
    "after": "the revision that the watcher has",
    "instance": "the process of the host that watches",
    "elsewhere": "yes: it goes to a control server with fewer watchers if asked to; sent: it has been asked by another",
}
NO_HOST = {404: "unknown_host: it is not registered (any more)"}

ROUTES = (
    ApiRoute("GET", "/openapi.json", ("anybody", "admin"), Api.openapi, "this document", answer=dict[str, Any]),
    ApiRoute("GET", "/v1/health", ("anybody", "admin"), Api.health, "whether this server can do its work",
          answer=mesh.Health),
    ApiRoute("GET", "/v1/ca", ("anybody", "admin"), Api.ca, "the CA certificates in force", answer=mesh.CaBundle),
    ApiRoute("POST", "/v1/join", ("anybody",), Api.join, "a host's first certificate, for a token",
          body=mesh.JoinRequest, answer=mesh.IssueResponse,
          refuses={403: "token: none, used, expired, of another host"}),
    ApiRoute("POST", "/v1/renew", ("host",), Api.renew, "a host's next certificate",
          body=mesh.RenewRequest, answer=mesh.IssueResponse),
    ApiRoute("GET", "/v1/hosts", ("host", "admin"), Api.hosts, "the map, as it is now", answer=mesh.MapSnapshot),
    ApiRoute("PUT", "/v1/hosts/{name}", ("own",), Api.put_host, "register a host, the whole record each time",
          body=mesh.RegisterRequest, answer=mesh.RegisterResponse,
          refuses={409: "taken: the address is another host's; in_use: the name is another proxy's, which is alive"}),
    ApiRoute("DELETE", "/v1/hosts/{name}", ("own", "admin"), Api.delete_host,
          "a process of a host leaves; by the administrator: take a host off the map and free its addresses",
          status=204, query={"instance": "the process that leaves; needed from a host"}, refuses=NO_HOST),
    ApiRoute("POST", "/v1/hosts/{name}/alive", ("own",), Api.alive, "a process of a host is still there",
          body=mesh.Instance, answer=mesh.AliveResponse, quick=True,
          refuses={**NO_HOST, 409: "superseded: another instance has registered"}),
    ApiRoute("GET", "/v1/watch", ("host", "admin"), Api.watch,
             "the map and its changes, a line of JSON each, without end",
          answer=mesh.WatchLine, query=AFTER, stream=True, quick=True),
    ApiRoute("POST", "/v1/addresses", ("host",), Api.addresses, "an address on a segment for the host that asks",
          body=mesh.AddressRequest, answer=mesh.AddressLease,
          refuses={404: "no_segment", 409: "taken, by a host that is named; in_use; pool_empty"}),
    ApiRoute("DELETE", "/v1/addresses", ("host",), Api.give_back,
          "a host does not need an address any more; fine if it has none", status=204,
          query={"segment": "that the address is on; needed", "part": "what of the host had it; default: itself"}),
    ApiRoute("GET", "/v1/edges", ("admin",), Api.edges, "who talks to whom in the mesh", answer=Edges),
    ApiRoute("GET", "/v1/edges/told", ("server",), Api.told_edges, "what hosts have told this server of their edges",
          answer=mesh.ToldEdges),
    ApiRoute("GET", "/v1/status", ("host", "admin"), Api.status, "what this server does", answer=mesh.ControlStatus),
    ApiRoute("POST", "/v1/tokens", ("admin",), Api.create_token, "a token for a host to join with",
          body=mesh.TokenRequest, answer=mesh.TokenCreated),
    ApiRoute("GET", "/v1/tokens", ("admin",), Api.tokens, "tokens that can still be used", answer=list[mesh.TokenInfo]),
    ApiRoute("DELETE", "/v1/tokens/{id}", ("admin",), Api.delete_token, "a token is worth nothing any more",
          status=204, refuses={404: "unknown_token"}),
    ApiRoute("POST", "/v1/revoke", ("admin",), Api.revoke, "certificates of a host, or one, count no longer",
          body=mesh.RevokeRequest, answer=mesh.RevokeDone, refuses={404: "unknown_host"}),
    ApiRoute("POST", "/v1/backup", ("admin",), Api.backup, "a copy of the store in a new file on this machine",
          body=mesh.BackupRequest, status=204,
          refuses={409: "backup: it could not be written, or the store is etcd's"}),
    ApiRoute("GET", "/v1/ca/status", ("admin",), Api.ca_status, "the CAs in force and what hangs on them",
          answer=mesh.CaStatus),
    ApiRoute("POST", "/v1/ca/add", ("admin",), Api.ca_add, "a new CA joins the bundle; the old one goes on issuing",
          answer=mesh.CaStatus, refuses={409: "in_rotation"}),
    ApiRoute("POST", "/v1/ca/activate", ("admin",), Api.ca_activate, "the new CA issues; hosts renew now",
          answer=mesh.CaStatus, refuses={409: "nothing_to_activate"}),
    ApiRoute("POST", "/v1/ca/drop", ("admin",), Api.ca_drop, "the CA that does not issue leaves the bundle",
          body=mesh.CaDrop, answer=mesh.CaStatus, refuses={409: "nothing_to_drop, in_use"}),
)  # fmt: skip
