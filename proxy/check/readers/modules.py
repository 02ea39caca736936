"""/proc/modules: name, size, references, holders, state, address (proc(5))."""

from __future__ import annotations

from proxy.check.context import DiagnosisContext
from proxy.check.readers import files
from proxy.check.report import Unchecked
from proxy.check.rules.modules import Module, ModuleFacts

PATH = "/proc/modules"


def read(context: DiagnosisContext) -> ModuleFacts:
    """What is loaded."""
    return ModuleFacts(
        modules=modules(files.text(PATH)),
        bridges=tuple(found.name for found in context.snapshot.interfaces if found.kind == "bridge"),
    )


def modules(text: str | Unchecked) -> tuple[Module, ...] | Unchecked:
    """The modules that the file lists."""
    if isinstance(text, Unchecked):
        absent = "this kernel has no loadable modules: what it has built in cannot be unloaded"
        return Unchecked("kernel modules", absent if text.why == files.ABSENT else text.why)
    return tuple(_module(line.split()) for line in text.splitlines())


def _module(words: list[str]) -> Module:
    holders = tuple(name for name in words[3].split(",") if name not in ("", "-", "[permanent]"))
    # "-": the kernel cannot unload modules and does not count.
    references = int(words[2]) if words[2].isdecimal() else len(holders) + 1
    return Module(name=words[0], references=references, holders=holders)
