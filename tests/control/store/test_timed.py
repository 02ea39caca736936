"""Each operation is passed on, and noted."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from control.store.base import Store, StoreError
from control.store.timed import OPERATIONS, TimedStore


class Inner:
    """Answers each operation with its name and arguments."""

    epoch = "1"

    def __getattr__(self, name: str) -> Any:
        async def operation(*args: object, **more: object) -> object:
            return name, args, more

        return operation

    def watch(self, prefix: str, after: int) -> object:
        return "watch", prefix, after


def test_all_operations_of_a_store_are_there() -> None:
    methods = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
    assert methods == {*OPERATIONS, "watch"}
    assert methods <= set(dir(TimedStore))


async def test_what_it_passes_on_and_notes() -> None:
    store: Any = TimedStore(Inner())  # type: ignore[arg-type]
    assert store.epoch == "1"
    assert await store.read("a") == ("read", ("a",), {})
    assert await store.find("a", "b") == ("find", ("a", "b"), {})
    assert await store.commit(put=[1]) == ("commit", (), {"when": (), "put": [1], "delete": ()})
    assert await store.grant(5.0) == ("grant", (5.0,), {})
    assert await store.unheard(3) == ("unheard", (3,), {})
    for name in ("keep_alive", "revoke", "backup"):
        assert await getattr(store, name)(7) is None
    assert store.watch("a", 5) == ("watch", "a", 5)
    assert {name: histogram.count for name, histogram in store.seconds.items()} == dict.fromkeys(OPERATIONS, 1)


async def test_failures_are_noted_too() -> None:
    class Broken(Inner):
        async def read(self, prefix: str) -> object:
            raise StoreError("away")

    store = TimedStore(Broken())  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        await store.read("a")
    assert store.seconds["read"].count == 1
