"""Hostlane as it would be if nothing were kept for another link: ``python -m benchmarks.unretained`` is ``hostlane``
with bytes forgotten as soon as they are sent, and no acknowledgements. The path ``hostlane-unretained`` runs two of
these beside ``hostlane``: the difference is what surviving a lost link costs while none is lost.

Nothing in proxy/ knows of this: it exchanges three things from outside, which only the plain modules allow. So compare
it with the path of a ``--program NAME=PATH,HOSTLANE_PURE=1``. A link that is lost ends its streams here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

if __name__ == "__main__":
    os.environ["HOSTLANE_PURE"] = "1"

from proxy.mux import session
from proxy.mux.session import Session
from proxy.pump.link import Link


def patch(exchange: Callable[[object, str, object], None] = setattr) -> None:
    """Make it so, by `exchange` (object, attribute, new value)."""
    send = Link.flush

    def flush(link: Link) -> None:
        send(link)
        out = link.session.out
        if out.acked < out.sent:
            link.session._on_ack(memoryview(out.sent.to_bytes(8, "big")), 0, 8)  # as if the peer had said so

    exchange(Link, "flush", flush)
    exchange(Session, "acknowledge", lambda session: None)
    exchange(session, "ACK_EVERY", 1 << 62)


if __name__ == "__main__":
    from control.cli.main import main

    patch()
    sys.exit(main())
