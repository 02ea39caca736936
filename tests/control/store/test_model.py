"""Both stores against a dict and a list: what is read, refused, and watched, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.store.base import Commit, Condition, Conflict, Item, KeyChange, LeaseGone, Put, Store
from control.store.etcd import open_etcd
from control.store.gateway import EtcdAccess
from control.store.sqlite import open_sqlite
from tests.control.store.etcds import Etcd

Opening = Callable[[], AbstractAsyncContextManager[Store]]

NUMBERS = itertools.count()
KEYS = ("a", "a/", "a/b", "a0", "b")
PREFIXES = ("", "a", "a/", "c")

keys = st.sampled_from(KEYS)
commits = st.tuples(
    st.just("commit"),
    # Which revision a condition names: none, the present one of its key, an older one of another.
    st.lists(st.tuples(keys, st.sampled_from(["absent", "present", "other"])), max_size=2),
    st.lists(st.tuples(keys, st.binary(max_size=3), st.integers(0, 2)), max_size=3, unique_by=lambda put: put[0]),
    st.sets(keys, max_size=2),
)
steps = st.lists(
    st.one_of(
        commits, commits, commits, st.tuples(st.just("revoke"), st.integers(1, 2)), st.tuples(st.just("grant")),
        st.tuples(st.just("watch"), st.sampled_from(PREFIXES), st.integers(0, 10)),
    ),
    max_size=12,
)  # fmt: skip


class Model:
    """What a store should hold; revisions are those that the store gave."""

    def __init__(self, revision: int) -> None:
        self.revisions = [revision]
        self.items: dict[str, Item] = {}
        self.leases: list[int] = [0]
        self.alive: set[int] = {0}
        self.history: list[Commit] = []

    def note(self, revision: int, puts: Sequence[Put], deletes: Sequence[str]) -> None:
        changes = [KeyChange(item.key, item.value) for item in puts]
        changes += [KeyChange(key, None) for key in deletes if key in self.items]
        for key in deletes:
            self.items.pop(key, None)
        self.items |= {item.key: Item(item.key, item.value, revision, item.lease) for item in puts}
        if changes:
            assert revision > self.revisions[-1]
            self.revisions.append(revision)
            self.history.append(Commit(revision, tuple(sorted(changes))))

    def seen(self, prefix: str, after: int) -> list[Commit]:
        found = [
            Commit(commit.revision, tuple(change for change in commit.changes if change.key.startswith(prefix)))
            for commit in self.history
            if commit.revision > after
        ]
        return [commit for commit in found if commit.changes]


async def commit(
    store: Store,
    model: Model,
    conditions: Sequence[tuple[str, str]],
    puts: Sequence[tuple[str, bytes, int]],
    deletes: set[str],
) -> None:
    when = []
    for key, kind in conditions:
        present = model.items[key].revision if key in model.items else 0
        when.append(Condition(key, {"absent": 0, "present": present, "other": model.revisions[-1] + 1}[kind]))
    # The second and third lease may not be there yet: then it is another one, or none.
    put = [Put(key, value, model.leases[lease % len(model.leases)]) for key, value, lease in puts]
    delete = sorted(deletes - {item.key for item in put})
    broken = [key for key, revision in when if revision != (model.items[key].revision if key in model.items else 0)]
    try:
        revision = await store.commit(when=when, put=put, delete=delete)
    except Conflict as conflict:
        assert broken[0] == conflict.key
    except LeaseGone:
        assert not broken
        assert any(item.lease not in model.alive for item in put)
    else:
        assert not broken
        assert all(item.lease in model.alive for item in put)
        model.note(revision, put, delete)


async def go_through(opening: Opening, steps: Sequence[tuple[Any, ...]]) -> None:
    async with opening() as store, store.watch("a", (await store.read("")).revision) as live:
        model = Model((await store.read("")).revision)
        start = model.revisions[0]
        for step in steps:
            match step:
                case ("commit", conditions, puts, deletes):
                    await commit(store, model, conditions, puts, deletes)
                case ("grant",):
                    model.leases.append(await store.grant(60))
                    model.alive.add(model.leases[-1])
                case ("revoke", int(number)):
                    lease = model.leases[number % len(model.leases)]
                    if lease:
                        await store.revoke(lease)
                        gone = [item.key for item in model.items.values() if item.lease == lease]
                        model.alive.discard(lease)
                        model.note((await store.read("")).revision, [], gone)
                case ("watch", str(prefix), int(back)):
                    after = model.revisions[-1 - back % len(model.revisions)]
                    expected = model.seen(prefix, after)
                    async with store.watch(prefix, after) as channel:
                        with trio.fail_after(20):
                            assert [await channel.receive() for _ in expected] == expected
            for prefix in PREFIXES:
                view = await store.read(prefix)
                assert view.items == tuple(model.items[key] for key in sorted(model.items) if key.startswith(prefix))
                assert view.revision >= model.revisions[-1]
        # The last one shows that nothing came twice before it.
        model.note(await store.commit(put=[Put("a/end", b"")]), [Put("a/end", b"")], [])
        expected = model.seen("a", start)
        with trio.fail_after(20):
            assert [await live.receive() for _ in expected] == expected


@settings(max_examples=60)
@given(steps)
def test_sqlite(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]) -> None:
    path = tmp_path_factory.mktemp("model", numbered=True) / "store.db"
    trio.run(go_through, lambda: open_sqlite(str(path)), steps)


@pytest.mark.etcd
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps)
def test_etcd(etcd: Etcd, steps: list[tuple[Any, ...]]) -> None:
    access = EtcdAccess(etcd.endpoints, prefix=f"model-{next(NUMBERS)}/")
    trio.run(go_through, lambda: open_etcd(access), steps)
