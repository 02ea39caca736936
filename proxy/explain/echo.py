"""The other end of a measured socket, in a process of its own: ``python -m proxy.explain.echo DESCRIPTOR``.

Accepts on the listening descriptor and sends back what comes, one connection after the other, until its standard input
ends.
"""

from __future__ import annotations

import selectors
import socket
import sys

BYTES = 64
"""A small message."""


def main(descriptor: int) -> None:
    """Ends with whoever started it."""
    with socket.socket(fileno=descriptor) as listener, selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while all(key.fileobj is listener for key, _ in selector.select()):
            client, _ = listener.accept()
            with client:
                client.setblocking(True)
                while data := client.recv(BYTES):
                    client.sendall(data)


if __name__ == "__main__":
    main(int(sys.argv[1]))
