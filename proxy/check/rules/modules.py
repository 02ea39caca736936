"""Kernel modules for bridges, NAT and connection tracking that are loaded although nothing uses them."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked

COSTS = {
    "nf_nat": "the first NAT rule that anything adds switches connection tracking on for all packets of its namespace",
    "xt_conntrack": "the first rule with a connection state switches connection tracking on for all packets of its "
    "namespace",
    "br_netfilter": "every IP frame of every bridge passes the host's IP rules, and connection tracking where it is on",
}


class Module(Struct, frozen=True, kw_only=True):
    """A line of /proc/modules."""

    name: str
    references: int
    holders: tuple[str, ...] = ()
    """Modules that need it; each is one of the references."""


class ModuleFacts(Struct, frozen=True, kw_only=True):
    """The loaded modules. ``bridges``: bridge interfaces of this namespace, which are what br_netfilter is for."""

    modules: tuple[Module, ...] | Unchecked
    bridges: tuple[str, ...] = ()


def judge(facts: ModuleFacts) -> Iterator[Line]:
    """All lines about modules."""
    if isinstance(facts.modules, Unchecked):
        yield facts.modules
        return
    known = {module.name: module for module in facts.modules}
    for name, cost in COSTS.items():
        module = known.get(name)
        if module is None:
            yield Passed(f"{name} is not loaded")
        elif not idle(module, known):
            yield Passed(f"{name} is in use ({module.references} references)")
        elif name == "br_netfilter" and facts.bridges:
            yield Passed(f"br_netfilter is loaded, and there is {', '.join(facts.bridges)}")
        else:
            yield _idle(module, cost, known)


def idle(module: Module, known: dict[str, Module]) -> bool:
    """Whether only idle modules refer to it: a rule, a chain or a socket that uses a module is a reference too."""
    if module.references > len(module.holders):
        return False
    return all(name in known and idle(known[name], known) for name in module.holders)


def _idle(module: Module, cost: str, known: dict[str, Module]) -> Finding:
    above = list(dict.fromkeys(_above(module, known)))
    held = f", held by {', '.join(module.holders)}, which nothing uses either" if module.holders else ""
    return Finding(
        name="idle-module",
        level="note",
        where=module.name,
        read=f"{module.name} is loaded and no rule uses it ({module.references} references{held})",
        cost=cost,
        mend=f"modprobe -r {' '.join([*above, module.name])}; echo blacklist {module.name} > "
        f"/etc/modprobe.d/{module.name}.conf",
    )


def _above(module: Module, known: dict[str, Module]) -> Iterator[str]:
    """What must be unloaded before it, in that order."""
    for name in module.holders:
        yield from _above(known[name], known)
        yield name
