from __future__ import annotations

from typing import get_args

import msgspec

from proxy.door.messages import MOST_STOCK, PROTOCOL, FromDoor, FromProxy, Hello, Listener

EXAMPLES = {int: 1 << 60, str: "127.0.0.1:80", list[str]: ["redis"]}


def test_every_message_comes_back_as_it_was() -> None:
    for kinds in (FromDoor, FromProxy):
        for kind in get_args(kinds):
            message = kind(*(EXAMPLES[field.type] for field in msgspec.structs.fields(kind)))
            assert msgspec.json.decode(msgspec.json.encode(message), type=kinds) == message


def test_the_bytes_are_those_that_other_versions_know() -> None:
    assert msgspec.json.encode(Hello()) == b'{"type":"hello","protocol":2}'
    assert msgspec.json.encode(Listener(7, "127.0.0.1:1", "redis", "shop", "web")) == (
        b'{"type":"listener","namespace":7,"listen":"127.0.0.1:1","service":"redis","caller":"shop","container":"web"}'
    )
    assert PROTOCOL == 2


def test_the_kernel_passes_so_many_descriptors() -> None:
    assert MOST_STOCK <= 253
