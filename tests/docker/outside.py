"""The way out of a host that has none: an HTTP proxy in its network, which connects from this machine's own. Builds get
packages by it.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PORT = 3128
LIMIT = 180.0
"""Seconds without a word from outside."""
PIECE = 1 << 16


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        try:
            far = socket.create_connection((host, int(port)), LIMIT)
        except OSError as error:
            return self.send_error(502, str(error))
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with far:
            back = threading.Thread(target=_copy, args=(far, self.connection), daemon=True)
            back.start()
            _copy(self.connection, far)
            back.join()

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        headers = {name: value for name, value in self.headers.items() if "connection" not in name.lower()}
        far = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=LIMIT)
        try:
            far.request("GET", f"{where.path or '/'}{'?' * bool(where.query)}{where.query}", headers=headers)
            answer = far.getresponse()
            content = answer.read()
        except OSError as error:
            return self.send_error(502, str(error))
        finally:
            far.close()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: what fails is said by whoever asks."""


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def way_out(listening: socket.socket, address: str) -> Iterator[str]:
    """Serve at an address of the host, until the block ends. Yields the proxy's URL.

    Args:
        listening: a TCP socket that was made in the host's network; it is closed here.
    """
    server = ThreadingHTTPServer((address, PORT), _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, PORT))
    listening.listen(64)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{address}:{PORT}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
