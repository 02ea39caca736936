"""TLS between the pump and a link's socket, with the ``recv_into`` and ``send`` of a plain non-blocking socket.

OpenSSL works on two memory buffers and never sees the socket. That costs a copy each way and saves system calls: one
``recv`` takes everything that has arrived, however many records it is (``ssl.SSLSocket`` makes two for each record of
16 KiB), and one ``send`` takes four records. docs/security.md has the figures of both.

Two rules of a socket must hold for TLS too:

1. The epoll reports again what ``recv_into`` leaves behind. So it never takes more from the socket than fits into the
   caller's buffer once it is decrypted, and decrypts all of it; at most an incomplete record stays in OpenSSL.
2. Bytes that ``send`` counts as taken are on their way. A record of which the kernel took only a part counts as not
   sent, and the rest of it goes out first next time; a peer can only acknowledge bytes of whole records.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from typing import cast

RECORD = 16 * 1024
"""Most plaintext bytes in a TLS record (RFC 8446, section 5.1)."""
RECORD_COST = 256 + 5
"""Most bytes that a record adds to its plaintext (section 5.2)."""
ENCRYPTED_AT_ONCE = 4 * RECORD
"""Plaintext bytes per system call: four records, and little to keep if the kernel takes none of it."""
LEAST_ROOM = 2 * (RECORD + RECORD_COST)
"""Least size in bytes of a buffer to receive into."""


class TlsWire:
    """One end of a TLS connection. The socket's owner sets ``sock`` when the handshake has ended, and closes it.

    Attributes:
        tls, incoming, outgoing: OpenSSL's connection, and the buffers of encrypted bytes to and from it. Until ``sock``
            is set, only the handshake (`proxy.links.tls`) uses them.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, name: str | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side, server_hostname=name)
        self.sock: socket.socket | None = None
        self._read = cast(Callable[[int, memoryview], int], self.tls.read)  # with a buffer it returns a count
        self._left = memoryview(b"")
        self._owed: list[tuple[int, int]] = []

    def recv_into(self, view: memoryview, /) -> int:
        """As the socket's; the buffer has at least LEAST_ROOM bytes. 0: the peer has ended the connection. Raises
        BlockingIOError, or another OSError if the link is lost or its bytes fail TLS's checks.
        """
        assert self.sock is not None
        assert len(view) >= LEAST_ROOM
        # The encrypted bytes go into the caller's buffer first, and OpenSSL copies them: no allocation for each call.
        count = self.sock.recv_into(view, len(view) - RECORD - RECORD_COST)
        if not count:
            return 0
        incoming, read = self.incoming, self._read
        incoming.write(view[:count])
        size, filled = len(view), 0
        try:
            while incoming.pending:
                count = read(size - filled, view[filled:])
                if not count:
                    break
                filled += count
        except ssl.SSLWantReadError:
            if not filled:
                raise BlockingIOError(errno.EAGAIN, "an incomplete record") from None
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            raise OSError(errno.EPROTO, f"TLS: {reason_of(error)}") from None
        return filled

    def send(self, view: memoryview, /) -> int:
        """As the socket's: returns how many bytes were taken; raises BlockingIOError, or another OSError. The next call
        must begin with the first byte that was not taken, as a part of its record may be on its way already.
        """
        done = self._send_left()
        end = len(view)
        while done < end and not self._left:
            stop = min(done + ENCRYPTED_AT_ONCE, end)
            at = done
            while at < stop:
                at += self.tls.write(view[at : min(at + RECORD, stop)])
                self._owed.append((self.outgoing.pending, at - done))
            self._left = memoryview(self.outgoing.read())
            try:
                done += self._send_left()
            except OSError:
                if not done:
                    raise
                break  # count what was sent, which may have arrived; the next call raises the error
        if not done:
            raise BlockingIOError(errno.EAGAIN, "the socket takes no more")
        return done

    def _send_left(self) -> int:
        """Send encrypted bytes that are left. Returns the plaintext bytes of the records that this has completed."""
        if not self._left:
            return 0
        assert self.sock is not None
        try:
            sent = self.sock.send(self._left)
        except BlockingIOError:
            return 0
        self._left = self._left[sent:]
        whole = 0
        waiting: list[tuple[int, int]] = []
        for encrypted, plain in self._owed:
            if encrypted <= sent:
                whole = plain
            else:
                waiting.append((encrypted - sent, plain - whole))
        self._owed = waiting
        return whole


NOT_OURS = {7, 18, 19, 20, 21}
"""OpenSSL's verification errors (x509_vfy.h) for a chain that does not lead to a CA of the bundle; 7: it leads to a CA
that has the same name as one of them, but another key."""


def reason_of(error: ssl.SSLError) -> str:
    """OpenSSL's name of the error in lower-case words: ``tlsv1 alert unknown ca``."""
    return (error.reason or type(error).__name__).lower().replace("_", " ")
