"""How control servers even out their watchers (sans-IO): numbers in, numbers out.

After a control server was away its hosts are at the others, and nothing drives them back: one that was restarted would
have nothing to do for good. So the server with the most watchers asks a few of them at a time to go to another one, and
that takes them only if it has fewer than the mean, and two fewer than the fullest. By that each move brings the servers
closer together, and there is a last one: nobody goes to and fro. A few more than others have are no reason to begin
(hosts choose at random), but what was begun goes on until no move would help.

Whoever is asked may know one address only, behind which there may be all servers or this one, or not reach the one that
has room. When nobody goes, the pause until the next attempt doubles.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["AT_ONCE", "LONGEST_WAIT", "SLACK", "WatcherSpread", "takes"]

SLACK = 0.1
"""Part of the mean by which a server exceeds it before it begins. Hosts that choose between two servers at random
differ by less in a mesh of some hundred."""
AT_ONCE = 20
"""Watchers asked at a time, every ten seconds (`control.server.servers.ROUND`): each is a TLS handshake, of which a
server makes hundreds a second. 500 hosts have returned in four minutes."""
LONGEST_WAIT = 64
"""Rounds from one attempt to the next, at most, if nobody goes: some ten minutes."""


class WatcherSpread:
    """What one server does about its own watchers. `decide` is called once in each round.

    Attributes:
        uneven: this server has too many.
    """

    def __init__(self) -> None:
        self.uneven = False
        self._wait, self._left = 1, 0

    def decide(self, own: int, others: Sequence[int], asked: int, went: int) -> int:
        """How many watchers to ask to go now.

        Args:
            own, others: watchers of this server, and of each other one that can take more.
            asked, went: how many were asked since the last round, and have gone.
        """
        if asked:
            self._wait = 1 if went else min(2 * self._wait, LONGEST_WAIT)
            self._left = self._wait
        excess = own - _mean(own, others)
        enough = 0.0 if self.uneven else SLACK * (own - excess)
        self.uneven = bool(others) and own - min(others) >= 2 and excess >= enough
        self._left -= 1
        if not self.uneven or own < max(others) or self._left > 0:
            return 0
        return min(AT_ONCE, max(1, int(excess)))


def takes(own: int, others: Sequence[int]) -> bool:
    """Whether a server with `own` watchers takes one that another server has asked to go."""
    return own < _mean(own, others) and own + 2 <= max(others)


def _mean(own: int, others: Sequence[int]) -> float:
    return (own + sum(others)) / (1 + len(others))
