"""A program that passes connections on, as socat and many others do: ``python -m tests.tools.forwarder FROM TO``.

Both are addresses of Unix sockets or of TCP as the configuration writes them. It logs one line, ``forwarding``, when it
listens. When one end of a connection has ended it closes both. The proxy sees two connections of a process that it does
not know, and cannot tell that they belong together.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from contextlib import suppress

from tests.tools.sockets import parse


async def main(listen: str, to: str) -> None:
    """Ends with the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            further, back = await _connect(to)
        except OSError:
            writer.close()
            return
        ways = [asyncio.ensure_future(_copy(reader, back)), asyncio.ensure_future(_copy(further, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        back.close()
        writer.close()

    family, target = parse(listen)
    if family == socket.AF_UNIX:
        server = await asyncio.start_unix_server(forward, target, backlog=4096)
    else:
        server = await asyncio.start_server(forward, *target, backlog=4096)
    sys.stdout.write(json.dumps({"event": "forwarding"}) + "\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


async def _connect(to: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    family, target = parse(to)
    if family != socket.AF_UNIX:
        return await asyncio.open_connection(*target)
    return await asyncio.open_unix_connection(target)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What comes, to its end or to an error of either."""
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
