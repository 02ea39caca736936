"""Which host a new stream for a service would take, and why: what `routing.balance` decides, in words (sans-IO)."""

from __future__ import annotations

from collections.abc import Sequence

from control.api.messages import RouteCandidate
from proxy.config.schema import AllowRuleConfig

HERE = "this host offers it, and nothing is nearer"
ONE = "the only one that has a link"
SEVERAL = "two are picked at random, and the one with fewer streams gets it"
COLD = "none has a link: the stream waits for the first that comes up, at most limits.open_timeout"
EJECTED = "all of them are ejected, and one is tried anyway"
NOBODY = "nobody offers it"


def decide(candidates: Sequence[RouteCandidate]) -> tuple[list[str], str]:
    """The names of the hosts one of which would get the stream, and why."""
    good = [each for each in candidates if each.ejected_for_s is None]
    up = [each for each in good if each.state == "up"]
    here = [each for each in candidates if each.state == "here"]
    if here and (here[0] in good or not up):
        return [here[0].host], HERE
    peers = [each for each in candidates if each.state != "here"]
    if not peers:
        return [], NOBODY
    if up:
        return _names(up), ONE if len(up) == 1 else SEVERAL
    hopeful = [each for each in good if each in peers and each.last_error is None]
    if not hopeful and (last := [each for each in peers if each.state == "up"]):
        return _names(last), EJECTED
    return _names(hopeful or peers), COLD


def _names(candidates: Sequence[RouteCandidate]) -> list[str]:
    return [each.host for each in candidates]


def rule_in_words(rule: AllowRuleConfig) -> str:
    """A rule of `allow`, as the file has it: ``host host-b, uid 1000``."""
    given = [(key, getattr(rule, key)) for key in ("host", "service", "uid")]
    return ", ".join(f"{key} {value}" for key, value in given if value is not None)
