"""A plan while it is made: the network as it is, and what has been decided so far (sans-IO)."""

from __future__ import annotations

from proxy.netdev.observe import mark
from proxy.netdev.observe.mark import InterfaceMark
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.observe.records import NetInterface
from proxy.netdev.plan.steps import NetPlan, Operation, Step


class PlanDraft:
    """Collects steps, problems and notes.

    Attributes:
        gone: indices of interfaces that the steps so far delete or give back.
        made: names of interfaces that they make.
        taken_vfs: virtual functions that they take, by parent and index.
        vf_counts: how many functions a parent will have, where they change it.
        set: settings that they change, by interface and key.
    """

    def __init__(self, host: str, world: NetworkState) -> None:
        self.host = host
        self.world = world
        self.gone: set[int] = set()
        self.made: set[str] = set()
        self.taken_vfs: set[tuple[str, int]] = set()
        self.vf_counts: dict[str, int] = {}
        self.set: set[tuple[str, str]] = set()
        self._steps: list[Step] = []
        self._problems: list[str] = []
        self._notes: list[str] = []

    def do(self, operation: Operation, *undo: Operation) -> None:
        self._steps.append(Step(operation, undo))

    def problem(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)

    def note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def plan(self) -> NetPlan:
        return NetPlan(steps=tuple(self._steps), problems=tuple(self._problems), notes=tuple(self._notes))

    def named(self, name: str) -> NetInterface | None:
        """The interface of that name, if it exists and the steps so far leave it there."""
        found = self.world.snapshot.named(name)
        return None if found is None or found.index in self.gone else found

    def own(self) -> list[tuple[NetInterface, InterfaceMark]]:
        """The interfaces that bear this host's mark and that the steps so far leave there."""
        marked = [(found, mark.read(found.alias)) for found in self.world.snapshot.interfaces]
        return [(found, m) for found, m in marked if m and m.host == self.host and found.index not in self.gone]

    def is_own(self, interface: NetInterface, name: str) -> bool:
        found = mark.read(interface.alias)
        return found is not None and (found.host, found.name) == (self.host, name)
