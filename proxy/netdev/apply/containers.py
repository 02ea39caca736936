"""``attach`` and ``detach``: the namespaces of host and container, and the plans between them. Blocks.

Call it from a process that lives in the host's network namespace. Only short-lived threads enter the container's.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import msgspec
from msgspec import Struct

from proxy.config.interfaces import ContainerInterfaceConfig
from proxy.config.schema import Config
from proxy.errors import NetError
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.apply.manage import look
from proxy.netdev.observe import docker, observe
from proxy.netdev.observe.namespaces import open_namespace, run_inside
from proxy.netdev.plan.attach import plan_attachment, plan_detachment, plan_return
from proxy.netdev.plan.steps import NetPlan


class AttachTarget(Struct, frozen=True, kw_only=True):
    """The container or process that gets an interface."""

    name: str
    """Of the container; stands in the mark."""
    pid: int | None
    """None: it does not run, or `namespace` says where."""
    namespace: str | None = None
    """The file of its network namespace, for whoever cannot see its process."""

    @property
    def runs(self) -> bool:
        """Whether it has a network namespace."""
        return self.pid is not None or self.namespace is not None


def of_container(name: str) -> AttachTarget:
    """A container by its name. Raises NetError when the engine does not answer."""
    return AttachTarget(name=name, pid=docker.container_pid(name))


def of_process(pid: int) -> AttachTarget:
    """A process that is in a network namespace of its own; ``pid-NUMBER`` stands for the container's name."""
    return AttachTarget(name=f"pid-{pid}", pid=pid if os.path.exists(f"/proc/{pid}") else None)


def attach(
    config: Config,
    target: AttachTarget,
    wanted: ContainerInterfaceConfig,
    elsewhere: Mapping[str, int] = MappingProxyType({}),
) -> NetPlan:
    """Give the container its interface. Returns what was done. Raises NetError; nothing is changed then.

    ``elsewhere``: as `budget.usages` takes it.
    """
    if not target.runs:
        raise NetError(f"{target.name} does not run or is not there; only what runs has a network namespace")
    with _namespace(target.pid, target.namespace) as container:
        return give(config, target.name, container, wanted, elsewhere)


def give(
    config: Config,
    name: str,
    container: int,
    wanted: ContainerInterfaceConfig,
    elsewhere: Mapping[str, int] = MappingProxyType({}),
) -> NetPlan:
    """The same for a network namespace that is open as the descriptor ``container``."""
    with _namespace() as home:
        if os.fstat(home).st_ino == os.fstat(container).st_ino:
            raise NetError(f"{name} is in this host's network namespace (--network host); use interfaces:")
        inside = run_inside(container, observe.snapshot)
        plan = plan_attachment(config, name, wanted, look(), inside, _temporary(), elsewhere)
        apply(plan, Kernel(home=home, container=container))
        return plan


def detach(config: Config, target: AttachTarget) -> NetPlan:
    """Take it away again, also after the container has ended. Returns what was done. Raises NetError."""
    taken = NetPlan()
    if target.pid is not None:
        with _namespace() as home, _namespace(target.pid) as container:
            inside = run_inside(container, observe.snapshot)
            taken = plan_detachment(config.host, target.name, inside, _temporary())
            apply(taken, Kernel(home=home, container=container))
    given_back = plan_return(config.host, target.name, look())
    apply(given_back, Kernel())
    return msgspec.structs.replace(given_back, steps=(*taken.steps, *given_back.steps))


def _temporary() -> str:
    """A name that no namespace has: 12 characters, and room for a number behind."""
    return f"hl{secrets.token_hex(5)}"


@contextmanager
def _namespace(pid: int | None = None, path: str | None = None) -> Iterator[int]:
    fd = open_namespace(pid, path)
    try:
        yield fd
    finally:
        os.close(fd)
