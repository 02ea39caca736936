"""What a session tells whoever drives it: one call for each thing that the peer did."""

from __future__ import annotations

from typing import Any

from proxy.errors import CloseReason
from proxy.mux.frames import Open


class SessionSink:
    """The calls that a `mux.session.Session` makes on itself, in the order of the frames: its driver's subclass has the
    methods, which do nothing here (without `on_call` no stream of the peer is ever answered). None may raise anything
    but ProtocolError. A stream is one of those that `Session._make` makes.
    """

    def on_call(self, stream: Any, call: Open) -> None:
        """The peer opened a stream; answer with `Session.accept` or `Session.refuse`, now or later."""

    def on_opened(self, stream: Any) -> None:
        """The peer delivered the stream that we opened."""

    def on_refused(self, stream: Any, reason: CloseReason) -> None:
        """The peer could not deliver the stream that we opened; no byte of it reached an application. It is closed."""

    def on_data(self, stream: Any, data: bytearray) -> None:
        """Bytes for the stream, which the sink may keep. Report them with `Session.consumed` once they
        have left the proxy.
        """

    def on_fin(self, stream: Any) -> None:
        """The peer will send no more bytes on the stream."""

    def on_rst(self, stream: Any, reason: CloseReason) -> None:
        """The peer ended both directions of the stream. It is closed."""

    def on_credit(self, stream: Any) -> None:
        """The peer granted the stream more credit."""

    def on_pong(self, token: int) -> None:
        """The answer to `Session.ping`, with its token."""

    def on_goaway(self, reason: CloseReason) -> None:
        """The peer accepts no new streams on this session."""

    def on_closed(self, stream: Any) -> None:
        """Both directions have ended as seen from here, whoever ended them. Comes once for each stream, before the
        `on_fin`, `on_rst` or `on_refused` of the same frame; not for streams that `Session.close` returns.
        """
