"""What commands print with ``--json``: one type for each command, whoever answers.

As `main.COMMANDS`, the table holds strings: nothing is imported before it is needed.
"""

from __future__ import annotations

from types import GenericAlias
from typing import Any, NamedTuple

from control.base.terminal import imported


class Answer(NamedTuple):
    """The type of an answer (``module:attribute``), or of each item of a list; `lines`: there are several answers, each
    on a line, as of every command with --watch.
    """

    kind: str
    listed: bool = False
    lines: bool = False

    def type(self) -> Any:
        """As msgspec and its schemas take it."""
        kind: Any = imported(self.kind)
        return GenericAlias(list, (kind,)) if self.listed else kind


_MESSAGES, _MESH = "control.api.messages:", "control.api.mesh:"
ANSWERS = {
    "validate --effective": Answer("control.base.reading.effective:EffectiveValue", listed=True),
    "status": Answer(f"{_MESSAGES}Status"),
    "health": Answer(f"{_MESSAGES}HealthAnswer"),
    "hosts": Answer(f"{_MESSAGES}MeshHost", listed=True),
    "services": Answer(f"{_MESSAGES}MeshService", listed=True),
    "services --explain": Answer(f"{_MESSAGES}ServiceRoute"),
    "links": Answer(f"{_MESSAGES}LinkInfo", listed=True),
    "streams": Answer(f"{_MESSAGES}StreamInfo", listed=True),
    "streams --by": Answer(f"{_MESSAGES}StreamGroup", listed=True),
    "call": Answer(f"{_MESSAGES}CallResult"),
    "edges": Answer(f"{_MESSAGES}Edges"),
    "tap": Answer("control.api.accessline:TapLine", lines=True),
    "reload": Answer(f"{_MESSAGES}ReloadResult"),
    "drain": Answer(f"{_MESSAGES}DrainProgress", lines=True),
    "check": Answer("proxy.check.report:Report"),
    "explain": Answer("proxy.explain.account:Explanation"),
    "net plan": Answer("proxy.netdev.commands:PlanAnswer"),
    "net apply": Answer("proxy.netdev.commands:PlanAnswer"),
    "net remove": Answer("proxy.netdev.commands:PlanAnswer"),
    "net attach": Answer("proxy.netdev.commands:PlanAnswer"),
    "net detach": Answer("proxy.netdev.commands:PlanAnswer"),
    "net status": Answer("proxy.netdev.plan.status:InterfaceState", listed=True),
    "net budget": Answer("proxy.netdev.plan.budget:MacUsage", listed=True),
    "net budget --hosts": Answer("proxy.netdev.plan.budget:SegmentDivision"),
    "pool replay": Answer("proxy.pool.commands:ReplayRow", listed=True),
    "token create": Answer(f"{_MESSAGES}NewToken"),
    "token list": Answer(f"{_MESH}TokenInfo", listed=True),
    "revoke": Answer(f"{_MESH}RevokeDone"),
    "ca status": Answer(f"{_MESH}CaStatus"),
    "ca add": Answer(f"{_MESH}CaStatus"),
    "ca activate": Answer(f"{_MESH}CaStatus"),
    "ca drop": Answer(f"{_MESH}CaStatus"),
    "certificates new": Answer(f"{_MESSAGES}NewCertificate", listed=True),
    "version": Answer(f"{_MESSAGES}VersionInfo"),
}
"""By command, as one types it."""


def schema_of(command: str) -> dict[str, Any]:
    """The JSON Schema of an answer."""
    import msgspec

    from control.base.reading.jsonschema import DIALECT

    return {"$schema": DIALECT, "title": f"hostlane {command} --json", **msgspec.json.schema(ANSWERS[command].type())}
