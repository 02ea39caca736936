"""What a store promises, asked of each kind."""

from __future__ import annotations

import pytest
import trio
from trio.abc import ReceiveChannel

from control.base.errors import HostlaneError
from control.store import base
from control.store.base import Commit, Compacted, Condition, Conflict, Item, KeyChange, LeaseGone, Put, Store

PATIENCE = 20.0


async def take(channel: ReceiveChannel[Commit], count: int) -> list[Commit]:
    with trio.fail_after(PATIENCE):
        return [await channel.receive() for _ in range(count)]


def test_errors_are_lines_for_users() -> None:
    assert str(base.Conflict("hosts/a")) == "hosts/a was changed meanwhile"
    assert issubclass(base.LeaseGone, HostlaneError)


@pytest.mark.parametrize(
    ("put", "delete", "why"),
    [
        (["a"], ["a"], "twice"),
        (["a", "a"], [], "twice"),
        ([""], [], "empty"),
        (["a b"], [], "'a b' is not a key"),
        ([], ["ä"], "is not a key"),
        (["x" * 513], [], "is not a key"),
        ([f"k{n}" for n in range(129)], [], "allowed: 128 each"),
    ],
)
def test_what_no_store_takes(put: list[str], delete: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        base.check([], [Put(key, b"") for key in put], delete)


def test_size_is_bounded() -> None:
    base.check([], [Put("a", bytes(base.COMMIT_BYTES - 1))], [])
    with pytest.raises(ValueError, match="bytes; allowed: 1048576"):
        base.check([], [Put("a", bytes(base.COMMIT_BYTES))], [])


def test_the_end_of_a_prefix() -> None:
    assert base.after_prefix("hosts/") == "hosts0"
    assert base.after_prefix("hosts/") > "hosts/~~~"


async def test_what_is_put_is_read(store: Store) -> None:
    empty = await store.read("")
    assert empty.items == ()
    assert empty.revision > 0
    first = await store.commit(put=[Put("hosts/b", b"2"), Put("hosts/a", b"1"), Put("tokens/x", b"")])
    second = await store.commit(put=[Put("hosts/b", b"\0\xff")], delete=["tokens/x"])
    assert empty.revision < first < second
    view = await store.read("hosts/")
    assert view == (second, (Item("hosts/a", b"1", first), Item("hosts/b", b"\0\xff", second)))
    assert (await store.read("hosts/a")).items == (Item("hosts/a", b"1", first),)
    assert [item.key for item in (await store.read("")).items] == ["hosts/a", "hosts/b"]


async def test_finding_some_keys(store: Store) -> None:
    assert await store.find("a") == (None,)
    lease = await store.grant(60)
    first = await store.commit(put=[Put("a", b"1"), Put("a/b", b"2", lease)])
    second = await store.commit(put=[Put("c", b"\0\xff")])
    found = await store.find("c", "b", "a", "a/b")
    assert found == (Item("c", b"\0\xff", second), None, Item("a", b"1", first), Item("a/b", b"2", first, lease))
    assert (await base.find_one(store, "c"), await base.find_one(store, "b")) == (Item("c", b"\0\xff", second), None)
    for keys in (["a b"], ["a"] * 129):
        with pytest.raises(ValueError):
            await store.find(*keys)


async def test_a_prefix_ends_where_it_ends(store: Store) -> None:
    await store.commit(put=[Put(key, b"") for key in ("a", "a/", "a/~", "a0", "a.", "b")])
    assert [item.key for item in (await store.read("a/")).items] == ["a/", "a/~"]


async def test_the_largest_commit(store: Store) -> None:
    puts = [Put(f"k{n:03}", bytes([n]) * (base.COMMIT_BYTES // base.OPERATIONS - 4)) for n in range(base.OPERATIONS)]
    when = [Condition(item.key, 0) for item in puts]
    revision = await store.commit(when=when, put=puts)
    assert await store.read("k") == (revision, tuple(Item(key, value, revision) for key, value, _ in puts))


async def test_a_commit_without_a_change(store: Store) -> None:
    revision = await store.commit(put=[Put("a", b"")])
    assert await store.commit(delete=["b"]) == revision
    assert await store.commit(when=[Condition("a", revision)]) == revision
    assert await store.commit(put=[Put("a", b"")]) > revision


async def test_conditions(store: Store) -> None:
    revision = await store.commit(when=[Condition("a", 0)], put=[Put("a", b"1"), Put("b", b"1")])
    for when in (
        [Condition("a", 0)],
        [Condition("b", revision), Condition("a", revision + 1)],
        [Condition("c", revision), Condition("a", 0)],
    ):
        with pytest.raises(Conflict) as caught:
            await store.commit(when=when, put=[Put("a", b"2"), Put("c", b"2")], delete=["b"])
        assert caught.value.key == ("c" if len(when) == 2 and when[0].key == "c" else "a")
    assert await store.read("") == (revision, (Item("a", b"1", revision), Item("b", b"1", revision)))
    later = await store.commit(when=[Condition("a", revision), Condition("c", 0)], put=[Put("c", b"")], delete=["a"])
    assert await store.commit(when=[Condition("a", 0), Condition("c", later)], delete=["c"]) > later


async def test_one_of_many_wins(store: Store) -> None:
    """The address book and the tokens rest on this."""
    won = []

    async def try_it(name: str) -> None:
        try:
            await store.commit(when=[Condition("a", 0)], put=[Put("a", name.encode())])
        except Conflict:
            return
        won.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(try_it, f"host-{number}")
    assert len(won) == 1
    assert (await store.read("a")).items[0].value == won[0].encode()


async def test_watch_gives_what_comes(store: Store) -> None:
    before = await store.commit(put=[Put("x/a", b"0")])
    async with store.watch("x/", before) as channel:
        first = await store.commit(put=[Put("x/c", b"1"), Put("y", b"1")], delete=["x/a", "x/none"])
        await store.commit(put=[Put("y", b"2")])
        second = await store.commit(put=[Put("x/a", b"")])
        assert await take(channel, 2) == [
            Commit(first, (KeyChange("x/a", None), KeyChange("x/c", b"1"))),
            Commit(second, (KeyChange("x/a", b""),)),
        ]


async def test_watch_gives_what_was_before_it(store: Store) -> None:
    start = (await store.read("")).revision
    revisions = [await store.commit(put=[Put(f"x/{n}", b"%d" % n)]) for n in range(5)]
    for missed in range(5):
        after = revisions[missed - 1] if missed else start
        async with store.watch("x/", after) as channel:
            revisions.append(await store.commit(put=[Put("x/new", b"")]))
            commits = await take(channel, len(revisions) - missed)
            assert [commit.revision for commit in commits] == revisions[missed:]


async def test_watch_while_writes_go_on(store: Store) -> None:
    """Each watcher begins in the middle of it, and sees each commit once."""
    start = (await store.read("")).revision
    seen: list[list[bytes | None]] = []

    async def watch() -> None:
        async with store.watch("n", start) as channel:
            seen.append([commit.changes[0].value for commit in await take(channel, 60)])

    async with trio.open_nursery() as nursery:
        for number in range(60):
            await store.commit(put=[Put("n", b"%d" % number)])
            if number % 10 == 5:
                nursery.start_soon(watch)
    assert seen == [[b"%d" % number for number in range(60)]] * 6


async def test_a_revision_that_never_was(store: Store) -> None:
    revision = (await store.read("")).revision
    with pytest.raises(Compacted):
        async with store.watch("", revision + 1000):
            raise AssertionError


async def test_a_watch_that_was_left_is_closed(store: Store) -> None:
    async with store.watch("", (await store.read("")).revision) as channel:
        await channel.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive()
    with pytest.raises(trio.ClosedResourceError):
        await channel.receive()


async def test_items_go_with_their_lease(store: Store) -> None:
    mine, other = await store.grant(60), await store.grant(60)
    assert 0 not in (mine, other)
    assert mine != other
    before = await store.commit(put=[Put("a", b"", mine), Put("b", b"", mine), Put("c", b"", mine), Put("d", b"")])
    moved = await store.commit(put=[Put("b", b"", other)])
    left = await store.commit(put=[Put("c", b"")])
    assert [item.lease for item in (await store.read("")).items] == [mine, other, 0, 0]
    async with store.watch("", left) as channel:
        await store.revoke(mine)
        await store.revoke(mine)
        ((revision, changes),) = await take(channel, 1)
        assert changes == (KeyChange("a", None),)
    assert await store.read("") == (
        revision, (Item("b", b"", moved, other), Item("c", b"", left), Item("d", b"", before)),
    )  # fmt: skip


async def test_a_lease_that_is_gone(store: Store) -> None:
    lease = await store.grant(60)
    await store.keep_alive(lease)
    assert 0 <= await store.unheard(lease) < 60
    await store.revoke(lease)
    with pytest.raises(LeaseGone):
        await store.keep_alive(lease)
    with pytest.raises(LeaseGone):
        await store.unheard(lease)
    with pytest.raises(LeaseGone):
        await store.commit(put=[Put("a", b"", lease), Put("b", b"")])
    with pytest.raises(Conflict):
        await store.commit(when=[Condition("a", 7)], put=[Put("a", b"", lease)])
    await store.revoke(lease)
    assert (await store.read("")).items == ()


async def test_a_lease_ends_by_itself_and_a_kept_one_does_not(store: Store) -> None:
    dies, lives = await store.grant(1), await store.grant(1)
    revision = await store.commit(put=[Put("dies", b"", dies), Put("dies/too", b"", dies), Put("lives", b"", lives)])
    async with trio.open_nursery() as nursery, store.watch("", revision) as channel:

        async def keep() -> None:
            while True:
                await store.keep_alive(lives)
                await trio.sleep(0.2)

        nursery.start_soon(keep)
        (commit,) = await take(channel, 1)
        assert commit.changes == (KeyChange("dies", None), KeyChange("dies/too", None))
        with pytest.raises(LeaseGone):
            await store.keep_alive(dies)
        assert [item.key for item in (await store.read("")).items] == ["lives"]
        nursery.cancel_scope.cancel()
