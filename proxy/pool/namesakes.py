"""Two hosts of one name, as a static mesh meets them: nobody gives names out there, so a configuration that was copied
is enough, and each peer puts the links of both into one pool.

Neither of the two sees the other one. A peer sees both: links of two processes that are in use at the same time. It
says so, and tells each of them, by a call for a service that nobody can have (`mux.frames.NAMESAKE`; SPEC.md, section
5.2). A restart, or a process that takes over, looks alike for a moment only: the links of the process before have
ended, are leaving, or bring nothing any more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from time import monotonic
from typing import NamedTuple

import structlog
import trio

from proxy.mux.frames import NAMESAKE, Open, encode_open
from proxy.pool.pool import Pool
from proxy.pump.link import Link

log = structlog.get_logger()

LOOK = 5.0
"""Seconds between looks. Each link brings something at least every `links.ping_interval`, so two processes are told
apart within that and two looks."""
TELL_EVERY = 60.0
KEPT = 2.5 * TELL_EVERY
"""Seconds between two tellings as long as it goes on, and until what was told counts as over."""
MOST = 4
"""Addresses that are told: as many as fit into an OPEN, whatever they are."""


class _Sighting(NamedTuple):
    """Since when (monotonic) these processes of one peer have had links side by side, and when they are told next."""

    instances: frozenset[str]
    since: float
    tell_at: float


class Namesakes:
    """See the module's text.

    Args:
        host: this host's name.
        pools: returns all pools.
        settle: `Pump.settle`.
    """

    def __init__(self, host: str, pools: Callable[[], Iterable[Pool]], settle: Callable[[], None]) -> None:
        self._host, self._pools, self._settle = host, pools, settle
        self._seen: dict[str, _Sighting] = {}
        self._told: dict[str, tuple[str, float]] = {}

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await trio.sleep(LOOK)
            self.look(monotonic())

    def look(self, now: float) -> None:
        """Look at all pools once, and tell whom it concerns. `now`: seconds (monotonic)."""
        seen: dict[str, _Sighting] = {}
        for pool in self._pools():
            newest = _newest(pool)
            if len(newest) < 2:
                continue
            before = self._seen.get(pool.name)
            if before is None or before.instances != newest.keys():
                seen[pool.name] = _Sighting(frozenset(newest), now, now)
                continue
            seen[pool.name] = before
            if before.tell_at <= now and all(link.heard_at > before.since for link in newest.values()):
                seen[pool.name] = before._replace(tell_at=now + TELL_EVERY)
                self._tell(pool.name, list(newest.values()), first=before.tell_at == before.since)
        self._seen = seen

    def _tell(self, peer: str, links: list[Link], first: bool) -> None:
        hosts = [_ip(link) for link in links]
        if first:
            log.error("two proxies bear the name of one host", kind=(peer,), peer=peer, at=sorted(hosts))
        for link, own in zip(links, hosts, strict=True):
            if link.usable:
                others = [each for each in hosts if each != own] or [own]
                link.session.open(encode_open(Open(NAMESAKE, caller=" ".join([own, *others][:MOST]))))
        self._settle()

    def heard_untrusted(self, peer: str, text: str) -> None:
        """A peer says that other proxies bear this host's name: `text` is their addresses, this one's first."""
        try:
            here, *others = (str(ipaddress.ip_address(each)) for each in text.split()[:MOST])
        except ValueError:
            return
        said = f"another proxy bears the name {self._host}: at {', '.join(others) or here}; this one is at {here}"
        if said != self._told.get(peer, ("", 0.0))[0]:
            # A peer may say something else each time.
            log.error(
                "another proxy bears this host's name",
                kind=(peer,),
                host=self._host,
                here=here,
                others=others,
                told_by=peer,
            )
        self._told[peer] = said, monotonic() + KEPT

    def told(self) -> list[str]:
        """What peers say of this host's name, a line each."""
        now = monotonic()
        self._told = {peer: found for peer, found in self._told.items() if found[1] > now}
        return [f"{said}, says {peer}" for peer, (said, _) in sorted(self._told.items())]


def _newest(pool: Pool) -> dict[str, Link]:
    """By process of the peer: the link on which it was heard last, of those that are not leaving."""
    found: dict[str, Link] = {}
    for link in pool.links:
        before = found.get(link.session.instance)
        if not link.leaving and (before is None or link.heard_at > before.heard_at):
            found[link.session.instance] = link
    return found


def _ip(link: Link) -> str:
    return link.remote_address.rpartition(":")[0].strip("[]")
