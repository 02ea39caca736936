"""Who may call the services of this host: the rules of the configuration, compiled once (sans-IO).

The calling host vouches for what it says about its own callers (service and uid); who the calling host is, the link's
handshake has settled. Calls within this host are subject to the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from proxy.config.schema import EVERYBODY, AllowRuleConfig, ServiceConfig
from proxy.mux.frames import UNKNOWN_UID, Open


class RuleKey(NamedTuple):
    """A rule as it is looked up; None stands for anybody."""

    host: str | None
    service: str | None
    uid: int | None


@dataclass(frozen=True, slots=True)
class AllowRules:
    """The rules by service; a service that is not in here may be called by everybody in the mesh."""

    rules: Mapping[str, frozenset[RuleKey]]

    @classmethod
    def from_services(cls, services: Mapping[str, ServiceConfig]) -> AllowRules:
        """What the keys `allow` say."""
        return cls({name: _compile(each.allow) for name, each in services.items() if each.allow != EVERYBODY})

    def allows(self, call: Open, host: str) -> bool:
        """Whether a caller on `host` may make this call. Costs at most eight look-ups, however many rules there are."""
        rules = self.rules.get(call.service)
        if rules is None:
            return True
        return any(key in rules for key in product((host, None), (call.caller, None), (call.uid, None)))


def describe(call: Open) -> str:
    """Who called, as a log line says why a call was not allowed."""
    uid = "no uid" if call.uid == UNKNOWN_UID else f"uid {call.uid}"
    return f"caller {call.caller or 'unknown'}, {uid}"


def _compile(rules: Iterable[AllowRuleConfig]) -> frozenset[RuleKey]:
    return frozenset(RuleKey(rule.host, rule.service, rule.uid) for rule in rules)
