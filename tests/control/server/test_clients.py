"""Clients over real TLS: hostile ones end alone, and certificates decide who may what."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import msgspec
import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from control.api import certificates, mesh
from control.api.client import ControlClient, Denied, Unreachable
from control.ca import root as ca
from control.ca.issuing import ClientCertificate
from control.server import clients
from control.server.clients import HANDSHAKES_PER_CLIENT, LOCAL_CLIENTS
from control.server.config import AdminConfig
from control.server.hosts import HostRegistry
from proxy.demo.mesh import HOSTLANE
from tests.control.server.conftest import LIMITS, MESH, PATIENCE, World, over_after_a_round, record
from tests.tools.namespaces import PID, USER, contained

SMALL = msgspec.structs.replace(LIMITS, connections_per_client=4, request_timeout=0.5, idle_timeout=2.0)
GET = b"GET /v1/health HTTP/1.1\r\nHost: c\r\n\r\n"


async def ends(stream: trio.abc.ReceiveStream) -> bytes:
    found = b""
    with trio.fail_after(PATIENCE):
        try:
            async for chunk in stream:
                found += bytes(chunk)
        except trio.BrokenResourceError:
            pass
    return found


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)


async def well(world: World) -> None:
    """The server does its work for everybody else."""
    async with world.client("host-w") as client:
        await client.register(record("host-w", address="10.77.1.1:7600"))
        await client.alive("host-w", "1")


async def test_who_shows_nothing_may_join_and_no_more(world: World) -> None:
    async with world.serving(), world.client() as client:
        assert (await client.ca()).mesh == MESH
        for request in (client.hosts, client.status, lambda: client.register(record("host-a"))):
            with pytest.raises(Denied) as caught:
                await request()
            assert (caught.value.status, caught.value.code) == (401, "no_certificate")
        with pytest.raises(Denied) as caught:
            async with client.watch():
                pass
        assert caught.value.code == "no_certificate"


async def test_a_host_speaks_for_itself_only(world: World) -> None:
    async with world.serving(), world.client("host-a") as client:
        with pytest.raises(Denied) as caught:
            await client.register(record("host-b"))
        assert (caught.value.status, caught.value.code) == (403, "forbidden")
        with pytest.raises(Denied) as caught:
            await client.create_token(mesh.TokenRequest(host="host-b", ttl=60.0))
        assert caught.value.code == "forbidden"


async def test_a_certificate_of_another_ca_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = ca.new_root(MESH, time.time())
    async with world.serving():
        async with world.client(context=world.context("host-a", root=stranger)) as client:
            # For this client alone: the others may take their time, and on a busy machine they do.
            with monkeypatch.context() as patched, pytest.raises(Unreachable):
                patched.setattr("control.api.client.DEADLINE", 0.5)
                await client.hosts()
        await well(world)


async def test_a_host_cannot_pose_as_a_control_server(
    world: World, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = world.context()
    server = world.context("host-a")
    posing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (file,) = world.directory.glob("host-a-*.pem")
    posing.load_cert_chain(file)
    assert server is not posing
    listener = (await trio.open_ssl_over_tcp_listeners(0, posing, host="127.0.0.1"))[0]
    port = listener.transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]

    async def handshake(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handshake, [listener])
        dice = over_after_a_round(mock_clock, monkeypatch)
        client = ControlClient([f"127.0.0.1:{port}"], lambda: context, name=MESH, random=dice)
        with pytest.raises(Unreachable, match="its certificate is not accepted"):
            await client.join(mesh.JoinRequest(host="host-a", token="x", csr="x"))
        nursery.cancel_scope.cancel()


async def test_a_renewed_certificate_leaves_no_connection_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[httpx.AsyncClient] = []

    def new(client: ControlClient, context: ssl.SSLContext | None = None) -> httpx.AsyncClient:
        made.append(before(client, context))
        return made[-1]

    before = ControlClient._new_client
    monkeypatch.setattr(ControlClient, "_new_client", new)
    shown = world.context("host-a")
    async with world.serving(), ControlClient([f"127.0.0.1:{world.port}"], lambda: shown, name=MESH) as client:
        await client.hosts()
        for _ in range(3):
            shown = world.context("host-a")
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(client.hosts)
        assert [each.is_closed for each in made].count(False) == 1


async def test_revoked_is_cut_off_at_once(world: World) -> None:
    async with world.serving(), world.admin() as admin:
        created = await admin.create_token(mesh.TokenRequest(host="host-a", ttl=600.0))
        key = certificates.new_key()
        async with world.client() as nobody:
            request = mesh.JoinRequest(host="host-a", token=created.token, csr=certificates.request(key))
            issued = await nobody.join(request)
            with pytest.raises(Denied) as caught:
                await nobody.join(request)
            assert caught.value.status == 403
        file = world.directory / "joined.pem"
        file.write_text(issued.certificate + certificates.key_pem(key))
        context = world.context()
        context.load_cert_chain(file)
        async with world.client(context=context) as client:
            await client.register(record("host-a"))
            with trio.fail_after(PATIENCE):
                async with client.watch() as messages:
                    assert isinstance(await anext(messages), mesh.MapSnapshot)
                    assert (await admin.revoke(mesh.RevokeRequest(host="host-a"))).serials
                    # The watch ends, with or without a last word.
                    async for _ in messages:
                        pass
            with pytest.raises(Denied) as caught:
                await client.hosts()
            assert (caught.value.status, caught.value.code) == (403, "revoked")


async def test_a_host_is_revoked_whose_certificate_the_store_has_lost(world: World) -> None:
    async with world.serving(), world.admin() as admin, world.client("host-a") as client:
        with pytest.raises(Denied, match="no valid certificate"):
            await admin.revoke(mesh.RevokeRequest(host="host-a"))
        await client.register(record("host-a"))
        await client.register(record("host-a", "web"))
        assert len((await admin.revoke(mesh.RevokeRequest(host="host-a"))).serials) == 1
        for asked in (client.hosts, lambda: client.register(record("host-a"))):
            with pytest.raises(Denied) as caught:
                await asked()
            assert caught.value.code == "revoked"
        assert (await admin.hosts()).hosts == ()


async def test_a_certificate_of_a_dropped_ca_opens_nothing_on_a_connection_that_is_there(world: World) -> None:
    """Who has stolen a CA's key could stay for ever otherwise: by renewing through a connection from before."""
    async with world.serving(), world.admin() as admin, world.client("host-a") as thief:
        await thief.register(record("host-a"))
        with trio.fail_after(PATIENCE):
            async with thief.watch() as messages:
                assert isinstance(await anext(messages), mesh.MapSnapshot)
                await admin.rotate("add")
                await admin.rotate("activate")
                await thief.register(record("host-a"))
                await admin.rotate("drop", force=True)
                async for _ in messages:
                    pass
        with pytest.raises(Denied) as caught:
            await thief.renew(mesh.RenewRequest(csr=certificates.request(certificates.new_key())))
        assert (caught.value.status, caught.value.code) == (403, "dropped")


@pytest.mark.failure(18)
@pytest.mark.parametrize(
    "junk",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\x16\x03\x01\x7f\xff" + b"\x00" * 300, b"\x00" * 5000],
    ids=["nothing", "http", "half-a-hello", "bad-hello", "zeros"],
)
async def test_what_is_not_tls_is_closed(world: World, junk: bytes) -> None:
    with structlog.testing.capture_logs() as logs:
        async with world.serving(limits=SMALL):
            async with await trio.open_tcp_stream("127.0.0.1", world.port) as client:
                if junk:
                    await client.send_all(junk)
                await ends(client)
            await well(world)
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_handshakes_that_stall_hold_up_no_other_address(world: World) -> None:
    limits = msgspec.structs.replace(LIMITS, request_timeout=5.0)
    async with world.serving(limits=limits):
        stalled = [
            await trio.open_tcp_stream("127.0.0.1", world.port, local_address="127.0.0.2")
            for _ in range(HANDSHAKES_PER_CLIENT + 10)
        ]
        for stream in stalled:
            # Who says nothing at all is not even begun with; half a hello takes a turn.
            await stream.send_all(b"\x16\x03\x01\x01\x00")
        with trio.fail_after(PATIENCE):
            await well(world)
        for stream in stalled:
            await stream.aclose()
        # And those that waited behind them are served, or gone.
        await well(world)


async def test_a_storm_holds_up_nobody_who_is_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes waits for those before; who only says that it is there, or watches, does not. And nothing is done for
    those who have lost patience: others would lose theirs meanwhile."""
    made: list[clients.Clients] = []
    taken: list[str] = []
    left: list[str] = []
    release = trio.Event()
    register, build = HostRegistry.register, clients.Clients.__init__

    async def slow(
        hosts: HostRegistry, request: mesh.RegisterRequest, shown: ClientCertificate, client: str
    ) -> mesh.RegisterResponse:
        taken.append(request.record.name)
        await release.wait()
        return await register(hosts, request, shown, client)

    def building(self: clients.Clients, *arguments: object) -> None:
        made.append(self)
        build(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(clients.Clients, "__init__", building)
    monkeypatch.setattr(clients, "WORKING", 1)
    async with world.serving(), world.client("host-w") as there:
        await there.register(record("host-w", address="10.77.1.1:7600"))
        monkeypatch.setattr(HostRegistry, "register", slow)
        leaving = trio.CancelScope()
        async with trio.open_nursery() as storm:

            async def come(name: str, scope: trio.CancelScope) -> None:
                with scope:
                    async with world.client(name) as client:
                        await client.register(record(name))
                left.append(name)

            storm.start_soon(come, "host-0", trio.CancelScope())
            await until(lambda: taken)
            for count, scope in ((1, leaving), (2, trio.CancelScope())):
                storm.start_soon(come, f"host-{count}", scope)
                await until(lambda: made[0]._working.statistics().tasks_waiting == count)  # noqa: B023
            with trio.fail_after(PATIENCE):
                await there.alive("host-w", "1")
                async with there.watch() as messages:
                    assert isinstance(await anext(messages), mesh.MapSnapshot)
            leaving.cancel()
            await until(lambda: left == ["host-1"])
            release.set()
    assert taken == ["host-0", "host-2"]


@pytest.mark.failure(5, 18)
async def test_hostile_requests_disturb_nobody(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        async with world.serving(limits=SMALL):
            for sent in (
                b"GET /v1/watch HTTP/1.1\r\nHost: c\r\n",
                b"PUT /v1/hosts/host-a HTTP/1.1\r\nHost: c\r\nContent-Length: 100\r\n\r\n{",
                b"PUT /v1/hosts/host-a HTTP/1.1\r\nHost: c\r\nContent-Length: 9999999999\r\n\r\n",
                b"BREW /v1/hosts HTTP/1.1\r\nHost: c\r\n\r\n",
                b"\x00\xff" * 3000,
                GET * 500,
            ):
                stream = await world.raw("host-a")
                try:
                    await stream.send_all(sent)
                except trio.BrokenResourceError:
                    pass
                await ends(stream)
                await trio.aclose_forcefully(stream)
                await well(world)
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_a_client_that_takes_no_answers_is_dropped(world: World) -> None:
    async with world.serving(limits=SMALL), world.admin() as admin:
        stream = await world.raw("host-a")
        with trio.move_on_after(PATIENCE):
            try:
                while True:
                    await stream.send_all(b"GET /openapi.json HTTP/1.1\r\nHost: c\r\n\r\n" * 50)
            except trio.BrokenResourceError:
                pass
        await trio.aclose_forcefully(stream)
        with trio.fail_after(PATIENCE):
            while (await admin.status()).clients:
                await trio.sleep(0.01)
        await well(world)


async def test_one_address_gets_so_many_connections(world: World) -> None:
    async with world.serving(limits=SMALL), world.admin() as admin:
        streams = [await world.raw() for _ in range(4)]
        async with await trio.open_tcp_stream("127.0.0.1", world.port) as one_more:
            assert await ends(one_more) == b""
        assert (await admin.status()).refused >= 1
        for stream in streams:
            await trio.aclose_forcefully(stream)
        with trio.fail_after(PATIENCE):
            while (await admin.status()).clients:
                await trio.sleep(0.01)
        await well(world)


async def test_one_address_gets_so_many_requests(world: World) -> None:
    limits = msgspec.structs.replace(LIMITS, requests_per_second=1)
    async with world.serving(limits=limits), world.client("host-a") as client:
        await client.hosts()
        await client.hosts()
        with pytest.raises(Denied) as caught:
            await client.hosts()
        assert (caught.value.status, caught.value.code) == (429, "too_many")


async def test_the_local_socket_has_its_own_clients(world: World) -> None:
    async with world.serving():
        waiting = []
        for _ in range(LOCAL_CLIENTS):
            waiting.append(await trio.open_unix_socket(world.socket))
        await well(world)
        one_more = await trio.open_unix_socket(world.socket)
        assert await ends(one_more) == b""
        for stream in (*waiting, one_more):
            await stream.aclose()


async def test_the_local_socket_is_its_owners(world: World) -> None:
    async with world.serving():
        assert os.stat(world.socket).st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(world.socket)
            client.sendall(b"POST /v1/tokens HTTP/1.1\r\nHost: c\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            client.settimeout(PATIENCE)
            answer = await trio.to_thread.run_sync(client.recv, 65536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "body"


@settings(max_examples=15)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_junk_within_tls(pieces: list[bytes]) -> None:
    directory = Path(tempfile.mkdtemp(prefix="hl-"))
    world = World(directory)

    async def junk() -> None:
        async with world.serving(limits=SMALL):
            stream = await world.raw()
            try:
                for piece in pieces:
                    await stream.send_all(piece)
            except trio.BrokenResourceError:
                pass
            await trio.aclose_forcefully(stream)
            async with world.client() as client:
                assert (await client.ca()).mesh == MESH

    with structlog.testing.capture_logs() as logs:
        trio.run(junk)
    shutil.rmtree(directory)
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


@pytest.mark.failure("30a")
@pytest.mark.parametrize(
    ("began", "code", "words"), [(-7200, "expired", "has expired: on "), (7200, "early", "is not valid before ")]
)
async def test_a_certificate_that_is_not_valid_now_is_refused_for_that(
    world: World, began: float, code: str, words: str
) -> None:
    async with world.serving(), world.client(context=world.context("host-a", began=began)) as client:
        renewal = mesh.RenewRequest(csr=certificates.request(certificates.new_key()))
        for request in (client.hosts, lambda: client.renew(renewal), lambda: client.alive("host-a", "1")):
            with pytest.raises(Denied, match=words) as caught:
                await request()
            assert (caught.value.status, caught.value.code) == (403, code)
        with pytest.raises(Denied, match=words):
            async with client.watch():
                pass
        assert await client.ca()


@pytest.mark.failure("21")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("kinds", [(PID,), (USER,)], ids=["pid", "user"])
async def test_a_container_is_no_administrator(world: World, kinds: tuple[tuple[str, ...], ...]) -> None:
    async with world.serving(), world.admin() as admin:
        for words in (["token", "create", "--host", "host-x"], ["revoke", "host-x"], ["hosts"]):
            contain = contained(world.config.run_dir, [*HOSTLANE, *words, "--socket", world.socket], *kinds)
            with trio.fail_after(6 * PATIENCE):
                done = await trio.run_process(contain, capture_stdout=True, capture_stderr=True, check=False)
            assert (done.returncode, done.stdout) == (1, b"")
            [line] = done.stderr.decode().splitlines()
            assert "namespace, such as a container's; allowed: " in line
            assert "admin.from: any" in line
        assert await admin.tokens() == []


@pytest.mark.failure("21")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_a_container_is_one_where_the_configuration_says_so(world: World) -> None:
    async with world.serving(admin=AdminConfig(origin="any")):
        argv = [*HOSTLANE, "token", "create", "--host", "host-x", "--socket", world.socket]
        with trio.fail_after(6 * PATIENCE):
            await trio.run_process(contained(world.config.run_dir, argv, PID), capture_stdout=True)


@pytest.mark.failure("31")
async def test_any_number_of_hosts_behind_one_address_watch(world: World) -> None:
    async with world.serving(limits=SMALL), AsyncExitStack() as watches:
        for number in range(20):
            client = await watches.enter_async_context(world.client(f"host-{number}"))
            await client.register(record(f"host-{number}", address=f"10.77.2.{number + 1}:7600"))
            watch = await watches.enter_async_context(client.watch())
            assert isinstance(await anext(aiter(watch)), mesh.MapSnapshot)
        async with world.admin() as admin:
            assert (await admin.status()).watchers == 20


@pytest.mark.failure("31")
async def test_who_shows_nothing_takes_no_place_of_hosts_that_are_in_and_is_named_once(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        async with world.serving(limits=SMALL), world.client("host-a") as client:
            async with client.watch() as watch:
                assert isinstance(await anext(aiter(watch)), mesh.MapSnapshot)
                strangers = [await world.raw() for _ in range(SMALL.connections_per_client)]
                for _ in range(2):
                    late = await trio.open_tcp_stream("127.0.0.1", world.port)
                    assert await ends(late) == b""
                    await late.aclose()
                for stranger in strangers:
                    await trio.aclose_forcefully(stranger)
    refused = [each for each in logs if each["event"] == "client refused"]
    assert {each["client"] for each in refused} == {"127.0.0.1"}
    assert len({each["kind"] for each in refused}) == 1
    assert "limits.connections_per_client: 4 that have shown no host's certificate" in refused[0]["error"]


@pytest.mark.failure("31")
async def test_one_host_has_a_bound_of_its_own_and_is_named(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        async with world.serving(limits=SMALL):
            held = [await world.raw("host-a") for _ in range(SMALL.connections_per_client)]
            one_more = await world.raw("host-a")
            assert await ends(one_more) == b""
            await well(world)
            for stream in (*held, one_more):
                await trio.aclose_forcefully(stream)
    (refused,) = [each for each in logs if each["event"] == "client refused"]
    assert (refused["host"], refused["error"]) == ("host-a", "limits.connections_per_client: 4 of one host")


@pytest.mark.failure("31")
async def test_a_host_whose_certificate_does_not_count_is_named(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        async with world.serving(), world.admin() as admin, world.client("host-a") as client:
            await client.register(record("host-a"))
            await admin.revoke(mesh.RevokeRequest(host="host-a"))
            while (await admin.hosts()).hosts:
                await trio.sleep(0.01)
            with pytest.raises(Denied, match="has been revoked"):
                await client.alive("host-a", "1")
            async with world.client(context=world.context("host-b", began=-7200.0)) as expired:
                with pytest.raises(Denied, match="has expired"):
                    await expired.hosts()
    assert [each for each in logs if "vanished" in each["event"]] == []
    refused = {each["host"]: each["error"] for each in logs if each["event"] == "host refused"}
    assert refused["host-a"] == "this certificate of host host-a has been revoked"
    assert refused["host-b"].startswith("this certificate of host host-b has expired")
