"""/proc/modules in the form that a host with Docker shows, written by hand: a kernel without modules has no place for a
fault."""

from __future__ import annotations

from proxy.check.context import DiagnosisContext
from proxy.check.readers import files
from proxy.check.readers.modules import modules, read
from proxy.check.report import Unchecked
from proxy.check.rules.modules import Module
from proxy.netdev.observe.observe import NetInterface, NetSnapshot

TEXT = """\
xt_conntrack 16384 0 - Live 0x0000000000000000
nft_chain_nat 16384 2 - Live 0x0000000000000000
xt_MASQUERADE 20480 0 - Live 0x0000000000000000
nf_nat 57344 2 nft_chain_nat,xt_MASQUERADE, Live 0x0000000000000000
br_netfilter 36864 0 - Live 0x0000000000000000
fuse 176128 5 - Live 0x0000000000000000
loop 32768 1 [permanent], Live 0x0000000000000000
"""


def test_the_file() -> None:
    found = modules(TEXT)
    assert not isinstance(found, Unchecked)
    known = {module.name: module for module in found}
    assert known["nf_nat"] == Module(name="nf_nat", references=2, holders=("nft_chain_nat", "xt_MASQUERADE"))
    assert known["br_netfilter"] == Module(name="br_netfilter", references=0)
    assert known["loop"] == Module(name="loop", references=1)


def test_a_kernel_that_cannot_unload() -> None:
    assert modules("nf_nat 57344 - - Live 0x0000000000000000\n") == (Module(name="nf_nat", references=1),)


def test_no_such_file() -> None:
    assert modules(Unchecked("/proc/modules", files.ABSENT)) == Unchecked(
        "kernel modules", "this kernel has no loadable modules: what it has built in cannot be unloaded"
    )
    assert modules(Unchecked("/proc/modules", "no")) == Unchecked("kernel modules", "no")


def test_this_machine() -> None:
    bridge = NetInterface(index=3, name="br0", kind="bridge")
    assert read(DiagnosisContext(config=None, snapshot=NetSnapshot(interfaces=(bridge,)))).bridges == ("br0",)
