"""Requests whose answer is more than what the parts behind them say; test_openapi has all the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from control.api import certificates, mesh
from control.api.client import Denied
from control.server.api import ROUTES, Api
from control.store.sqlite import open_sqlite
from tests.control.server.conftest import PATIENCE, World, news, record


async def test_status_counts(world: World) -> None:
    async with world.serving(), world.client("host-a") as client, world.admin() as admin:
        await client.register(record("host-a", "web", "redis"))
        with pytest.raises(Denied):
            await client.register(record("host-b"))
        with trio.fail_after(PATIENCE):
            while (found := await admin.status()).hosts != 1:
                await trio.sleep(0.01)
        async with client.watch() as messages:
            await anext(messages)
            assert (await admin.status()).watchers == 1
        assert (found.name, found.mesh, found.services, found.watching) == ("control-1", "hostlane", 2, True)
        assert found.refused == 1
        assert found.requests >= 3


async def test_refused_joins_are_counted_by_their_cause(world: World) -> None:
    async with world.serving(), world.client() as stranger, world.admin() as admin:
        made = await admin.create_token(mesh.TokenRequest(host="host-a", ttl=60))
        request = mesh.JoinRequest(host="host-a", token=made.token, csr=certificates.request(certificates.new_key()))
        await stranger.join(request)
        for wrong in (request, mesh.JoinRequest(host="host-a", token="junk", csr="")):
            with pytest.raises(Denied, match="the token is not accepted"):
                await stranger.join(wrong)
        assert (await admin.status()).joining == {"joined": 1, "token_used": 1, "token_malformed": 1}


async def test_a_watch_goes_on_from_where_it_was(world: World) -> None:
    async with world.serving(), world.client("host-a") as client:
        with trio.fail_after(PATIENCE):
            async with client.watch() as messages:
                first = await anext(messages)
            assert isinstance(first, mesh.MapSnapshot)
            registered = await client.register(record("host-a"))
            async with client.watch(first.epoch, first.revision) as messages:
                second = await news(messages)
            assert isinstance(second, mesh.MapChanges)
            assert second.revision == registered.revision
            async with client.watch("another", first.revision) as messages:
                assert isinstance(await anext(messages), mesh.MapSnapshot)


@pytest.mark.parametrize("after", [-1, 1 << 63, 10**30])
async def test_a_revision_that_no_store_has_is_refused(world: World, after: int) -> None:
    async with world.serving(), world.client("host-a") as client:
        epoch = (await client.hosts()).epoch
        with pytest.raises(Denied, match="allowed: a revision"), trio.fail_after(PATIENCE):
            async with client.watch(epoch, after):
                pass


async def test_a_backup_is_a_store_and_never_overwrites(world: World, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    async with world.serving(), world.client("host-a") as client, world.admin() as admin:
        await client.register(record("host-a"))
        with pytest.raises(Denied) as caught:
            await client.backup(mesh.BackupRequest(path=str(target)))
        assert caught.value.status == 403
        await admin.backup(mesh.BackupRequest(path=str(target)))
        assert target.stat().st_mode & 0o777 == 0o600
        for path, why in ((str(target), "exists already"), ("copy.db", "an absolute path"), ("/nowhere/x", "no such")):
            with pytest.raises(Denied, match=why):
                await admin.backup(mesh.BackupRequest(path=path))
    async with open_sqlite(str(target)) as copy:
        assert [item.key for item in (await copy.read("hosts/")).items] == ["hosts/host-a"]


def test_every_handler_has_a_route_of_its_own() -> None:
    handlers = [route.handle.__name__ for route in ROUTES]
    assert len(handlers) == len(set(handlers))
    assert {name for name in vars(Api) if not name.startswith("_")} == set(handlers)
