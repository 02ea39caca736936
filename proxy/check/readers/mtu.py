"""The path MTU to each peer, found by asking."""

from __future__ import annotations

from proxy.check.context import DiagnosisContext, PeerTarget
from proxy.check.readers import files
from proxy.check.readers.echo import EchoProbe, PacketTooBig, open_echo
from proxy.check.report import Unchecked
from proxy.check.rules.mtu import MtuFacts, MtuProbe
from proxy.netdev.observe.observe import NetInterface

SMALL = 128
"""Bytes; passes wherever IP does."""
LARGEST = 65535
"""Of an IP packet; loopback's MTU is greater by one."""


def read(context: DiagnosisContext) -> MtuFacts:
    """Takes some seconds for a peer behind a black hole, or one that does not answer."""
    found = []
    for target in context.targets:
        route = context.route_to(target.address) if target.address else None
        interface = context.snapshot.at(route.interface) if route else None
        if interface is not None:
            found.append(_measure(context, target, interface))
    return MtuFacts(measured=tuple(found))


def _measure(context: DiagnosisContext, target: PeerTarget, interface: NetInterface) -> MtuProbe | Unchecked:
    assert target.address is not None
    what = f"path MTU to {target.address} ({target.peer})"
    echo = open_echo(target.address, context.bind)
    if isinstance(echo, Unchecked):
        return echo
    with echo:
        try:
            if echo.ask(SMALL) is not True:
                return Unchecked(what, "it answers no echo requests; is it up, and does a firewall let them pass?")
            largest, told = _search(echo, min(interface.mtu, LARGEST))
        except OSError as error:
            return files.unseen(what, error)
    return MtuProbe(
        peer=target.peer,
        address=target.address,
        interface=interface.name,
        mtu=min(interface.mtu, LARGEST),
        largest=largest,
        told=told.mtu if told else None,
        teller=told.by if told else None,
    )


def _search(echo: EchoProbe, high: int) -> tuple[int, PacketTooBig | None]:
    """The largest packet that is answered, and what a router said about larger ones. ``SMALL`` is known to pass."""
    told = None
    passed, lost = SMALL, high + 1
    size = high
    while lost - passed > 1:
        answer = echo.ask(size)
        if answer is True:
            passed = size
        else:
            lost = size
        if isinstance(answer, PacketTooBig) and passed <= answer.mtu < lost:
            # Ask with that size next: beyond that router the MTU may be smaller still.
            told, size = answer, answer.mtu
            lost = answer.mtu + 1
            continue
        if answer is False:
            # A packet of the size that the router gave, or a smaller one, vanished: its answer does not explain that.
            told = None
        size = (passed + lost) // 2
    return passed, told
