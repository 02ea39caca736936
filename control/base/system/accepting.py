"""What accept(2) says when it is this machine, not the client, that cannot."""

from __future__ import annotations

import errno

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""No descriptor or memory for one more connection, which goes on waiting."""
PAUSE = 0.1
"""Seconds until the next attempt, as trio does: nothing but an end of other connections helps, and until then the one
that waits would be reported all the time."""
