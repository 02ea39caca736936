from __future__ import annotations

from proxy.check.report import Unchecked
from proxy.check.rules.modules import Module, ModuleFacts, idle, judge
from tests.check.rules.lines import findings, only, seen, unseen


def module(name: str, references: int = 0, *holders: str) -> Module:
    return Module(name=name, references=references, holders=holders)


def test_a_module_that_nothing_holds() -> None:
    found = only(judge(ModuleFacts(modules=(module("xt_conntrack"),))))
    assert (found.name, found.level, found.where) == ("idle-module", "note", "xt_conntrack")
    assert found.mend.startswith("modprobe -r xt_conntrack; ")


def test_a_rule_is_a_reference() -> None:
    lines = list(judge(ModuleFacts(modules=(module("xt_conntrack", 3),))))
    assert findings(lines) == []
    assert "xt_conntrack is in use (3 references)" in seen(lines)


def test_held_by_modules_that_are_idle_themselves() -> None:
    modules = (module("nf_nat", 2, "xt_MASQUERADE", "nft_chain_nat"), module("xt_MASQUERADE"), module("nft_chain_nat"))
    found = only(judge(ModuleFacts(modules=modules)))
    assert found.read.endswith("held by xt_MASQUERADE, nft_chain_nat, which nothing uses either)")
    assert found.mend.startswith("modprobe -r xt_MASQUERADE nft_chain_nat nf_nat; ")


def test_held_by_a_module_that_is_in_use() -> None:
    modules = (module("nf_nat", 1, "nft_chain_nat"), module("nft_chain_nat", 2))
    assert findings(judge(ModuleFacts(modules=modules))) == []


def test_a_holder_that_is_not_listed_is_in_use() -> None:
    assert not idle(module("nf_nat", 1, "unknown"), {})


def test_br_netfilter_is_for_bridges() -> None:
    modules = (module("br_netfilter"),)
    assert only(judge(ModuleFacts(modules=modules))).where == "br_netfilter"
    assert findings(judge(ModuleFacts(modules=modules, bridges=("docker0",)))) == []


def test_none_of_them() -> None:
    assert seen(judge(ModuleFacts(modules=()))) == [
        f"{name} is not loaded" for name in ("nf_nat", "xt_conntrack", "br_netfilter")
    ]
    assert unseen(judge(ModuleFacts(modules=Unchecked("kernel modules", "none")))) == ["kernel modules"]
