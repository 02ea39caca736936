"""``python -m benchmarks.door DIRECTORY NAMESPACE LABEL=VALUE``: the door with one container, which no engine knows.

It opens in that network namespace (its name in /run/netns) what the label asks for, and hands it to the proxy whose
`door.directory` it is, by the door's own means; it runs until it is killed. So a benchmark has listeners inside
containers' namespaces on machines without an engine.
"""

from __future__ import annotations

import os
import socket
import sys

import trio

from control.base.system.unixsock import bind_unix
from proxy.config.schema import DoorConfig
from proxy.door.desired import Container, desired
from proxy.door.directories import Directories
from proxy.door.door import make_directory
from proxy.door.messages import SOCKET
from proxy.door.proxies import Proxies
from proxy.door.rooms import Rooms

NAMESPACES = "/run/netns"


async def run(directory: str, namespace: str, label: str) -> None:
    """Raises SystemExit with one line if the label cannot be had."""
    key, _, value = label.partition("=")
    wanted = desired([Container(id="bench", name="bench", running=True, namespace=namespace, labels={key: value})])
    make_directory(DoorConfig(directory=directory, user=os.geteuid()))
    proxies = Proxies(os.geteuid(), lambda: None)
    proxies.rooms = rooms = Rooms(NAMESPACES, proxies.tell)
    proxies.directories = Directories(proxies.tell)
    try:
        await rooms.become(wanted)
        if wanted.problems or rooms.unfinished:
            sys.exit(f"benchmarks.door: {label} in {namespace}: {wanted.problems or 'it cannot be opened'}")
        rooms.complete()
        proxies.listed()
        with bind_unix(f"{directory}/{SOCKET}", mode=0o600, kind=socket.SOCK_SEQPACKET) as bound:
            await proxies.serve(bound.socket)
    finally:
        rooms.close()


if __name__ == "__main__":
    trio.run(run, *sys.argv[1:4])
