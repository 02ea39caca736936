"""The document tells what the server does: each status that a route has is provoked, and nothing else comes."""

from __future__ import annotations

import ipaddress
import json
import time

import httpx
import msgspec
import pytest
import trio

from control.api import certificates, mesh
from control.api.mesh import ControlErrorBody
from control.ca import root as ca
from control.server.api import ROUTES
from control.server.config import AddressPoolConfig
from control.server.openapi import document, statuses
from tests.control.server.conftest import World, record

DOCUMENT = document(ROUTES, "1")
COMMON = {405, 413, 429, 503}


class Wire:
    """Requests as anybody, as host-a, or as the administrator; what came is noted."""

    def __init__(self, world: World) -> None:
        self.seen: set[tuple[str, str, int]] = set()
        extensions = {"sni_hostname": "control.hostlane.internal"}
        base = f"https://127.0.0.1:{world.port}"
        self.clients = {
            "nobody": httpx.AsyncClient(verify=world.context(), base_url=base, trust_env=False),
            "host": httpx.AsyncClient(verify=world.context("host-a"), base_url=base, trust_env=False),
            "host-c": httpx.AsyncClient(verify=world.context("host-c"), base_url=base, trust_env=False),
            "admin": httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=world.socket), base_url="http://c"),
        }
        self.extensions, self.base, self.world = extensions, base, world

    def become(self, host: str, certificate: str) -> None:
        """One more client, with this certificate and key (PEM)."""
        file, context = self.world.directory / f"{host}.pem", self.world.context()
        file.write_text(certificate)
        context.load_cert_chain(file)
        self.clients[host] = httpx.AsyncClient(verify=context, base_url=self.base, trust_env=False)

    async def __call__(self, who: str, method: str, path: str, body: object = None, at: str = "") -> httpx.Response:
        """`at`: the route's path, where that is another than this one."""
        content = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        found = await self.clients[who].request(method, path, content=content, extensions=dict(self.extensions))
        self.seen.add((method, at or path.partition("?")[0], found.status_code))
        if found.status_code >= 400:
            assert msgspec.json.decode(found.content, type=ControlErrorBody).code
        return found


async def test_the_document_is_what_the_server_serves(world: World) -> None:
    async with world.serving(), world.client() as client:
        wire = Wire(world)
        served = (await wire("nobody", "GET", "/openapi.json")).json()
        assert served["paths"] == json.loads(json.dumps(DOCUMENT["paths"]))
        assert await client.ca()
        await close(wire)


async def close(wire: Wire) -> None:
    for client in wire.clients.values():
        await client.aclose()


async def test_each_documented_status_comes_and_no_other(world: World) -> None:
    segment = AddressPoolConfig(pool=ipaddress.ip_network("10.77.0.0/31"))
    async with world.serving(segments={"lan": segment}):
        wire = Wire(world)
        await provoke(wire)
        await close(wire)
    known = {(route.method, route.path, status) for route in ROUTES for status in statuses(route)}
    extra = {(method, path, status) for method, path, status in wire.seen - known if status not in COMMON}
    assert extra == set(), "answers that the document does not have"
    assert known - wire.seen == set(), "statuses that nothing provokes"


async def provoke(wire: Wire) -> None:
    own, alive = "/v1/hosts/{name}", "/v1/hosts/{name}/alive"
    host, other = {"record": record("host-a")}, {"record": record("host-b", address="10.77.0.200:7600")}
    for path in ("/openapi.json", "/v1/health", "/v1/ca"):
        await wire("nobody", "GET", path)
    for path in ("/v1/hosts", "/v1/status"):
        await wire("nobody", "GET", path)
        await wire("host", "GET", path)
    await wire("nobody", "GET", "/v1/watch")
    await wire("host", "GET", "/v1/watch?after=x")
    await stream(wire)

    await wire("host", "PUT", "/v1/hosts/host-a", host, own)
    await wire("host", "PUT", "/v1/hosts/host-a", other, own)
    await wire("host", "PUT", "/v1/hosts/host-b", other, own)
    await wire("nobody", "PUT", "/v1/hosts/host-a", host, own)
    await wire("host", "POST", "/v1/hosts/host-a/alive", {"instance": "1"}, alive)
    await wire("host", "POST", "/v1/hosts/host-a/alive", {"instance": "0"}, alive)
    await wire("host", "POST", "/v1/hosts/host-a/alive", b"", alive)
    await wire("host", "POST", "/v1/hosts/host-b/alive", {"instance": "1"}, alive)
    await wire("nobody", "POST", "/v1/hosts/host-a/alive", {"instance": "1"}, alive)
    await wire("host", "DELETE", "/v1/hosts/host-a", None, own)
    await wire("host", "DELETE", "/v1/hosts/host-b?instance=1", None, own)
    await wire("nobody", "DELETE", "/v1/hosts/host-a?instance=1", None, own)
    await wire("host", "DELETE", "/v1/hosts/host-a?instance=1", None, own)
    await wire("admin", "DELETE", "/v1/hosts/host-a", None, own)
    await wire("host", "POST", "/v1/hosts/host-a/alive", {"instance": "1"}, alive)

    await wire("host", "POST", "/v1/addresses", {"segment": "lan"})
    await wire("host", "POST", "/v1/addresses", {"segment": "wan"})
    await wire("host", "POST", "/v1/addresses", [])
    await wire("admin", "POST", "/v1/addresses", {"segment": "lan"})
    await wire("nobody", "POST", "/v1/addresses", {"segment": "lan"})
    await wire("host", "DELETE", "/v1/addresses?segment=lan&part=@web:eth1", None, "/v1/addresses")
    await wire("host", "DELETE", "/v1/addresses", None, "/v1/addresses")
    await wire("nobody", "DELETE", "/v1/addresses?segment=lan", None, "/v1/addresses")
    await wire("admin", "DELETE", "/v1/addresses?segment=lan", None, "/v1/addresses")

    wire.become("server", server(wire.world))
    for who in ("admin", "host"):
        await wire(who, "GET", "/v1/edges")
    for who in ("server", "host"):
        await wire(who, "GET", "/v1/edges/told")

    await joining(wire)
    await taken(wire)
    for method, path in (
        ("POST", "/v1/tokens"), ("GET", "/v1/tokens"), ("DELETE", "/v1/tokens/x"), ("POST", "/v1/revoke"),
        ("GET", "/v1/ca/status"), ("POST", "/v1/ca/add"), ("POST", "/v1/ca/activate"), ("POST", "/v1/ca/drop"),
        ("POST", "/v1/backup"),
    ):  # fmt: skip
        at = "/v1/tokens/{id}" if path.endswith("/x") else path
        await wire("host", method, path, None, at)
    for _ in range(2):
        await wire("admin", "POST", "/v1/backup", {"path": f"{wire.world.directory}/copy.db"})
    await wire("admin", "POST", "/v1/backup", {"path": "copy.db"})
    await wire("admin", "POST", "/v1/ca/activate")
    await wire("admin", "POST", "/v1/ca/drop", {})
    await wire("admin", "POST", "/v1/ca/drop", b"x")
    for _ in range(2):
        await wire("admin", "POST", "/v1/ca/add")
    await wire("admin", "POST", "/v1/ca/activate")
    await wire("admin", "POST", "/v1/ca/drop", {})
    await wire("admin", "POST", "/v1/ca/drop", {"force": True})
    await wire("admin", "GET", "/v1/ca/status")


async def joining(wire: Wire) -> None:
    key = certificates.new_key()
    csr = certificates.request(key)
    await wire("admin", "POST", "/v1/tokens", {"host": "no host", "ttl": 60})
    created = (await wire("admin", "POST", "/v1/tokens", {"host": "host-b", "ttl": 600})).json()["token"]
    issued = (await wire("nobody", "POST", "/v1/join", {"host": "host-b", "token": created, "csr": csr})).json()
    await wire("nobody", "POST", "/v1/join", {"host": "host-b", "token": created, "csr": csr})
    wire.become("host-b", issued["certificate"] + certificates.key_pem(key))
    await wire("nobody", "POST", "/v1/join", b"")
    await wire("host", "POST", "/v1/renew", {"csr": csr})
    await wire("host", "POST", "/v1/renew", {"csr": "x"})
    await wire("nobody", "POST", "/v1/renew", {"csr": csr})
    await wire("admin", "POST", "/v1/renew", {"csr": csr})
    await wire("admin", "POST", "/v1/tokens", {"host": "host-c", "ttl": 600})
    found = (await wire("admin", "GET", "/v1/tokens")).json()
    for _ in range(2):
        await wire("admin", "DELETE", f"/v1/tokens/{found[0]['id']}", None, "/v1/tokens/{id}")
    await wire("admin", "POST", "/v1/revoke", {})
    await wire("admin", "POST", "/v1/revoke", {"host": "host-z"})
    await wire("admin", "POST", "/v1/revoke", {"host": "host-b"})
    for path in ("/v1/hosts", "/v1/status", "/v1/watch"):
        await wire("host-b", "GET", path)


async def taken(wire: Wire) -> None:
    """Two more hosts want what host-a has."""
    host = {"record": record("host-a", address="10.77.0.9:7600")}
    await wire("host", "PUT", "/v1/hosts/host-a", host, "/v1/hosts/{name}")
    other = wire.clients["host"]
    wire.clients["host"] = wire.clients["host-c"]
    clash = {"record": record("host-c", address="10.77.0.9:7600")}
    await wire("host", "PUT", "/v1/hosts/host-c", clash, "/v1/hosts/{name}")
    for _ in range(2):
        await wire("host", "POST", "/v1/addresses", {"segment": "lan", "address": "10.77.0.0"})
        await wire("host", "POST", "/v1/addresses", {"segment": "lan", "address": "10.77.0.1"})
    wire.clients["host"] = other


def server(world: World) -> str:
    """Certificate and key of another control server."""
    key = certificates.new_key()
    names = ca.CertificateNames.control("hostlane", "control-2")
    leaf = ca.issue(world.root, key.public_key(), names, time.time(), 3600.0)
    return f"{leaf.certificate}{certificates.key_pem(key)}"


async def stream(wire: Wire) -> None:
    async with wire.clients["host"].stream("GET", "/v1/watch", extensions=dict(wire.extensions)) as found:
        wire.seen.add(("GET", "/v1/watch", found.status_code))
        chunks = found.aiter_raw()
        assert b'"snapshot"' in await anext(chunks)
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(chunks)


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_every_operation_says_what_comes(path: str) -> None:
    for operation in DOCUMENT["paths"][path].values():
        assert operation["summary"]
        assert "default" in operation["responses"]
        named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_schemas_are_those_of_the_messages() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert {"HostRecord", "ControlErrorBody", "MapSnapshot", "MapChanges", "MapHeartbeat"} <= schemas.keys()
    assert set(schemas["HostRecord"]["properties"]) == {field.name for field in msgspec.structs.fields(mesh.HostRecord)}
