from __future__ import annotations

import msgspec

from proxy.cdi.messages import FromHook, Ready, Refused, Starting, Stopped


def test_what_the_hook_writes_and_reads_by_hand() -> None:
    decode = msgspec.json.Decoder(FromHook).decode
    assert decode(b'{"type":"starting","id":"a1"}') == Starting("a1")
    assert decode(b'{"type":"stopped","id":"a1"}') == Stopped("a1")
    assert msgspec.json.encode(Ready()) == b'{"type":"ready"}'
    assert msgspec.json.encode(Refused("no")) == b'{"type":"refused","why":"no"}'
