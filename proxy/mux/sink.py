"""What a session tells whoever drives it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from proxy.errors import CloseReason
from proxy.mux.frames import Open
from proxy.mux.stream import Stream

S_in = TypeVar("S_in", bound=Stream, contravariant=True)


class SessionSink(Protocol[S_in]):
    """The calls that a `Session` makes. They come in the order of the frames; none may raise anything but
    ProtocolError.
    """

    def on_call(self, stream: S_in, call: Open) -> None:
        """The peer opened a stream; answer with `Session.accept` or `Session.refuse`, now or later."""

    def on_opened(self, stream: S_in) -> None:
        """The peer delivered the stream that we opened."""

    def on_refused(self, stream: S_in, reason: CloseReason) -> None:
        """The peer could not deliver it; no byte reached an application. The stream is closed."""

    def on_data(self, stream: S_in, data: memoryview) -> None:
        """Bytes for the stream; the view is only good during the call. Report them with `Session.consumed` once they
        left the proxy.
        """

    def on_fin(self, stream: S_in) -> None:
        """No more bytes will come."""

    def on_rst(self, stream: S_in, reason: CloseReason) -> None:
        """The peer aborted the stream, which is closed."""

    def on_credit(self, stream: S_in) -> None:
        """The stream may send more."""

    def on_pong(self, token: int) -> None:
        """The answer to `Session.ping`."""

    def on_goaway(self, reason: CloseReason) -> None:
        """The peer accepts no new streams on this session."""

    def on_closed(self, stream: S_in) -> None:
        """The stream is closed on both sides, whoever did it; before any other call that says so."""
