from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.store import etcdwire
from control.store.base import Commit, Condition, Item, KeyChange, Put, StoreError
from control.store.etcdwire import (
    CommitAssembler,
    EtcdKeepAlive,
    EtcdKeyspace,
    EtcdRange,
    EtcdTxn,
    EtcdWatchMessage,
    EtcdWatchResponse,
    LineSplitter,
)

KEYS = EtcdKeyspace("mesh/")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_range_as_etcd_answers() -> None:
    body = (
        b'{"header":{"cluster_id":"14841639068965178418","member_id":"10276657743932975437","revision":"7","raft_term":'
        b'"2"},"kvs":[{"key":"bWVzaC9pdGVtcy9hLzE=","create_revision":"2","mod_revision":"5","version":"1","value":'
        b'"eA==","lease":"9223372036854775807"},{"key":"bWVzaC9pdGVtcy9iMQ==","mod_revision":"6"}],"count":"2"}'
    )
    answer = etcdwire.decode(body, EtcdRange)
    assert answer.header.cluster_id == 14841639068965178418
    assert KEYS.view(answer) == (7, (Item("a/1", b"x", 5, 9223372036854775807), Item("b1", b"", 6)))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"kvs": 1}', b'{"kvs": [{"key": "*"}]}', b"\xff"])
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(StoreError, match="not one of etcd's v3 gateway"):
        etcdwire.decode(body, EtcdRange)


def test_ranges_stay_inside_the_prefix() -> None:
    assert KEYS.range("") == {"key": b64("mesh/items/"), "range_end": b64("mesh/items0")}
    assert KEYS.range("hosts/") == {"key": b64("mesh/items/hosts/"), "range_end": b64("mesh/items/hosts0")}
    assert KEYS.epoch == "mesh/epoch"


def test_a_transaction() -> None:
    body = KEYS.txn([Condition("a", 3), Condition("b", 0)], [Put("c", b"x", 9)], ["d"])
    assert body == {
        "compare": [
            {"key": b64("mesh/items/a"), "target": "MOD", "result": "EQUAL", "mod_revision": "3"},
            {"key": b64("mesh/items/b"), "target": "MOD", "result": "EQUAL", "mod_revision": "0"},
        ],
        "success": [
            {"request_put": {"key": b64("mesh/items/c"), "value": b64("x"), "lease": "9"}},
            {"request_delete_range": {"key": b64("mesh/items/d")}},
        ],
        "failure": [{"request_range": {"key": b64("mesh/items/a")}}, {"request_range": {"key": b64("mesh/items/b")}}],
    }


def test_the_condition_that_did_not_hold() -> None:
    found = {"response_range": {"kvs": [{"key": b64("mesh/items/a"), "mod_revision": "3"}]}}
    nothing = {"response_range": {"header": {"revision": "9"}}}
    answer = etcdwire.decode(json.dumps({"responses": [found, nothing]}).encode(), EtcdTxn)
    assert not answer.succeeded
    assert KEYS.conflict([Condition("a", 3), Condition("b", 1)], answer).key == "b"
    assert KEYS.conflict([Condition("a", 0), Condition("b", 1)], answer).key == "a"
    with pytest.raises(StoreError):
        KEYS.conflict([Condition("a", 3), Condition("b", 0)], answer)


def test_a_lease_that_is_gone_has_no_ttl() -> None:
    assert etcdwire.decode(b'{"result":{"header":{"revision":"2"},"ID":"12345"}}\n', EtcdKeepAlive).result.ttl == 0
    assert etcdwire.decode(b'{"result":{"ID":"12345","TTL":"15"}}\n', EtcdKeepAlive).result.ttl == 15


def test_the_first_revision_of_a_watch_is_one_that_was_seen() -> None:
    for after, start in ((0, "1"), (1, "1"), (7, "7")):
        request = KEYS.watch("hosts/", after)["create_request"]
        assert request["start_revision"] == start
        assert request["key"] == b64("mesh/items/hosts/")


def event(revision: int, key: str, value: str | None = "") -> dict[str, Any]:
    pair = {"key": b64(f"mesh/items/{key}"), "mod_revision": str(revision)}
    return {"type": "DELETE", "kv": pair} if value is None else {"kv": {**pair, "value": b64(value)}}


def watched(*events: dict[str, Any], fragment: bool = False) -> EtcdWatchResponse:
    line = json.dumps({"result": {"header": {"revision": "99"}, "fragment": fragment, "events": list(events)}})
    return etcdwire.decode(line.encode(), EtcdWatchMessage).result


def test_events_become_commits() -> None:
    assembly = CommitAssembler(KEYS)
    message = watched(event(4, "b", "1"), event(4, "a", None), event(6, "a", "2"))
    assert list(assembly.take(message)) == [
        Commit(4, (KeyChange("a", None), KeyChange("b", b"1"))),
        Commit(6, (KeyChange("a", b"2"),)),
    ]
    assert list(assembly.take(watched())) == []


@given(st.lists(st.integers(1, 4), min_size=1), st.sets(st.integers(0, 20)))
def test_fragments_cut_where_they_like(sizes: list[int], cuts: set[int]) -> None:
    commits = [
        Commit(revision, tuple(KeyChange(f"k{number}", b"") for number in range(size)))
        for revision, size in enumerate(sizes, start=5)
    ]
    events = [event(commit.revision, change.key) for commit in commits for change in commit.changes]
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    pieces = [events[start:end] for start, end in pairwise(edges)]
    assembly = CommitAssembler(KEYS)
    got: list[Commit] = []
    for number, piece in enumerate(pieces, start=1):
        got += assembly.take(watched(*piece, fragment=number < len(pieces)))
    assert got == commits


@given(st.lists(st.binary(max_size=5).map(lambda data: data.replace(b"\n", b"")), max_size=5), st.integers(1, 30))
def test_lines_come_in_pieces(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines) + b"rest"
    reader = LineSplitter()
    got = [line for at in range(0, len(data), size) for line in reader.feed(data[at : at + size])]
    assert got == [line for line in lines if line]
    assert list(reader.feed(b"\n")) == [b"rest"]
