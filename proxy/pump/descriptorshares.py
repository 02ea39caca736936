"""Descriptors are shared out: a reserve that no call gets, and for one upstream or peer no more than leaves some to
others.

The kernel gives the lowest free descriptor (open(2)), so the number of a new one is at least how many are in use: one
comparison tells whether they may run short.

A share is a dynamic threshold, as switches share their buffers (Choudhury and Hahne, "Dynamic queue length thresholds
for shared-memory packet switches", 1998): one may hold ALPHA times as many as are free. One alone gets four fifths of
all; each one that comes takes its share of the rest.
"""

from __future__ import annotations

ALPHA = 4
LEAST_RESERVE, MOST_RESERVE = 16, 256
"""Descriptors for links, dialling, the admin socket, the control plane and files: a sixteenth of all, within these."""


class DescriptorShares:
    """What follows from the limit of this process.

    Args:
        limit: descriptors that it may open (RLIMIT_NOFILE).

    Attributes:
        ceiling: the lowest descriptor that no call gets.
        scarce: the lowest at which shares are looked at: below, there are as many left for others as are in use.
        used_up: whether at the last look the next one was none for calls. The number of a connection is known when it
            is accepted, and then it cannot be given back; so whoever accepts looks again first.
    """

    def __init__(self, limit: int) -> None:
        self.ceiling = max(limit // 2, limit - max(LEAST_RESERVE, min(limit // 16, MOST_RESERVE)))
        self.scarce = self.ceiling // 2
        self.used_up = False

    def share(self, descriptor: int) -> int:
        """How many one upstream or peer may hold when a new descriptor has this number."""
        return max(0, ALPHA * (self.ceiling - descriptor))
