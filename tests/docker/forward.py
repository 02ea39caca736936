"""What lets a program that knows no HTTP proxy call by CONNECT: it connects to a port of its own container instead.

    python3 forward.py PORT SOCKET SERVICE

Nothing but Python's own library, as it runs in a container with nothing else.
"""

from __future__ import annotations

import socket
import sys
import threading


def tunnel(path: str, service: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.sendall(f"CONNECT {service}:0 HTTP/1.1\r\nHost: {service}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (byte := sock.recv(1)):
            break
        head += byte
    if b" 200" not in head.split(b"\r\n")[0]:
        raise ConnectionError(head.decode())
    return sock


def copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, sink):
            each.close()


def serve(sock: socket.socket, path: str, service: str) -> None:
    try:
        far = tunnel(path, service)
    except OSError:
        return sock.close()
    threading.Thread(target=copy, args=(far, sock), daemon=True).start()
    copy(sock, far)


def main() -> None:
    port, path, service = sys.argv[1:]
    with socket.create_server(("127.0.0.1", int(port))) as listening:
        while True:
            threading.Thread(target=serve, args=(listening.accept()[0], path, service), daemon=True).start()


if __name__ == "__main__":
    main()
