"""The HELLO of a host that was dialled is lost: it calls on a session that nobody else knows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from proxy.demo import netns
from proxy.demo.lab import Lab, LabHost
from tests.system.world import PORT
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, eventually, exchange, read_exactly

pytestmark = [pytest.mark.netns, pytest.mark.failure("21c")]

ANSWER = f"tcp sport {PORT} ip length > 60 drop"
"""What host-a sends to who has dialled it: HELLO and all behind it. Its kernel's words get through."""


@contextmanager
def deaf(host: LabHost) -> Iterator[None]:
    """No answer from host-a's proxy reaches the host, for the time of the block."""
    nft = host.command(["nft"])
    netns.run([*nft, "add table ip deaf; add chain ip deaf way { type filter hook input priority 0; }"])
    netns.run([*nft, f"add rule ip deaf way {ANSWER}"])
    try:
        yield
    finally:
        netns.run([*nft, "delete table ip deaf"])


def config(folder: Path, lab: Lab, side: str) -> dict[str, object]:
    """host-b dials, since an upstream of its names host-a's service. What host-a calls it calls by the way."""
    own, other = (lab.a, lab.b) if side == "a" else (lab.b, lab.a)
    peer = {"address": f"{other.address}:{PORT}", "services": ["there" if side == "a" else "here"]}
    calls = "all" if side == "a" else {"here": {"listen": f"unix:{folder}/b/here.sock"}}
    return {
        "host": f"host-{side}",
        "run_dir": f"{folder}/{side}/run",
        "socket_dir": f"{folder}/{side}/services",
        "links": {"listen": f"{own.address}:{PORT}", "security": "none", "dial_timeout": "2s"},
        "peers": {"host-b" if side == "a" else "host-a": peer},
        "upstreams": calls,
        "services": {} if side == "a" else {"there": {"deliver": f"unix:{folder}/there.sock"}},
        "limits": {"open_timeout": "1m"},
        "log": {"level": "debug", "format": "json"},
    }


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, with a folder for each host."""
    with tempfile.TemporaryDirectory(prefix="hl-") as path:
        for side in "ab":
            Path(path, side).mkdir()
        yield Path(path)


@pytest.mark.parametrize("how", ["the connection breaks", "the dialler gives up"])
def test_calls_go_over_to_the_next_session(lab: Lab, folder: Path, how: str) -> None:
    a = Proxy(config(folder, lab, "a"), folder / "a", host=lab.a)
    b = Proxy(config(folder, lab, "b"), folder / "b", host=lab.b)
    with Echo(f"unix:{folder}/there.sock") as echo, a, ExitStack() as clients, ExitStack() as wire:
        wire.enter_context(deaf(lab.b))
        with b:
            up = a.wait_for("link up", peer="host-b")
            calls = [clients.enter_context(connect(folder / "a" / "services" / "there.sock")) for _ in range(8)]
            for number, call in enumerate(calls):
                call.sendall(b"message %d" % number)
            if how == "the connection breaks":
                netns.run(lab.a.command(["ss", "-HtnK", "state", "established", "sport", "=", str(PORT)]))
            a.wait_for("link down", link=up["link"])
            wire.close()
            for number, call in enumerate(calls):
                wanted = b"message %d" % number
                assert read_exactly(call, len(wanted)) == wanted
                exchange(call, b"and on it goes")
            assert echo.accepted == len(calls), "each has reached the service once"
            assert not a.events("stream ended", level="warning")
            clients.close()
            eventually(lambda: echo.ended == len(calls), "the ends")
