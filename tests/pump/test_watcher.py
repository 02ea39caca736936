from __future__ import annotations

from proxy.outbound.call import Call
from proxy.pump.lane import Lane
from proxy.pump.link import Link
from proxy.pump.listener import Listener
from proxy.pump.turnshare import TurnShare
from proxy.pump.watcher import Carrier, Watcher


def asked(protocol: type) -> set[str]:
    """The methods that whoever is called by it must have."""
    ours = [each for each in protocol.__mro__ if each.__module__.startswith("proxy.")]
    return {name for each in ours for name in vars(each) if not name.startswith("_")}


def test_the_loop_finds_what_it_calls() -> None:
    """By name: what one lacked would show as an AttributeError in the middle of a turn."""
    for watcher in (Lane, Link, TurnShare, Listener, Call):
        assert asked(Watcher) <= set(dir(watcher))
    assert asked(Carrier) <= set(dir(Link))
