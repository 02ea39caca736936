"""Which host a new stream for a service would take, and why: what `routing.balance` decides, in words (sans-IO)."""

from __future__ import annotations

from collections.abc import Sequence

from control.api.messages import RouteCandidate
from proxy.config.schema import EVERYBODY, AllowRuleConfig

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


def not_allowed_in_words(
    service: str, rules: Sequence[AllowRuleConfig], host: str, caller: str, uid: int | None
) -> str:
    """Why no rule lets this caller in: which one comes nearest, and what speaks against it. The rules are those of now;
    they may let it in by now.
    """
    key = f"services.{service}.allow"
    if tuple(rules) == EVERYBODY:
        return f"by {key} as it was then; now everybody may call"
    against = [(rule, _against(rule, host, caller, uid)) for rule in rules]
    if not against:
        return f"{key} lets nobody in"
    rule, wrong = min(against, key=lambda each: (len(each[1]), -_matching(each[0], each[1])))
    if not wrong:
        return f"by {key} as it was then; now it may call ({rule_in_words(rule)})"
    return f"{key}: nearest is {rule_in_words(rule)}, but {' and '.join(wrong)}"


def _matching(rule: AllowRuleConfig, wrong: Sequence[str]) -> int:
    return sum(getattr(rule, key) is not None for key in ("host", "service", "uid")) - len(wrong)


def _against(rule: AllowRuleConfig, host: str, caller: str, uid: int | None) -> list[str]:
    """What of a caller is not as the rule has it."""
    said = {"host": f"it is on {host}", "service": f"it is {caller or 'no service that its host knows'}"}
    said["uid"] = "it has no uid" if uid is None else f"its uid is {uid}"
    is_it = {"host": host, "service": caller, "uid": uid}
    return [said[key] for key in is_it if getattr(rule, key) not in (None, is_it[key])]
