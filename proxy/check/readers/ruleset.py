"""The nftables rules of this thread's namespace, through ``nft -j list ruleset``. Only root may list them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from proxy.check.report import Unchecked
from proxy.check.rules.netfilter import Chain, Ruleset

WHAT = "nftables rules"
_PATIENCE_S = 20
"""Seconds; a host with 10,000 rules needs one."""
_NAT = {"dnat", "snat", "masquerade", "redirect"}
_XT_NAT = {"DNAT", "SNAT", "MASQUERADE", "REDIRECT"}
_XT_CONNTRACK = {"conntrack", "state", "connmark", "connlimit"}
_DOCKER_DNS = "127.0.0.11"


def read() -> Ruleset | Unchecked:
    """The rules as they are now; Unchecked without root or without nft."""
    if os.geteuid() != 0:
        return Unchecked(WHAT, "no permission; ask as root")
    try:
        done = subprocess.run(
            ["nft", "-j", "list", "ruleset"], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except FileNotFoundError:
        return Unchecked(WHAT, "nft is not installed")
    except (OSError, subprocess.TimeoutExpired):
        return Unchecked(WHAT, "nft did not answer")
    if done.returncode != 0:
        return Unchecked(WHAT, " ".join(done.stderr.split())[:200] or "nft failed")
    return parse(done.stdout)


def parse(text: str) -> Ruleset | Unchecked:
    """The meaning of nft's JSON (libnftables-json(5))."""
    try:
        entries = json.loads(text)["nftables"]
        chains = [entry["chain"] for entry in entries if "chain" in entry]
        rules = [entry["rule"] for entry in entries if "rule" in entry]
        return Ruleset(
            chains=tuple(_chains(chains, rules)),
            nat=any(_is_nat(key, value) for rule in rules for key, value in _walk(rule["expr"])),
            conntrack=any(_needs_conntrack(key, value) for rule in rules for key, value in _walk(rule["expr"])),
            docker_dns=any(_is_docker_dns(rule, chains) for rule in rules),
        )
    except (ValueError, KeyError, TypeError):
        return Unchecked(WHAT, "nft's answer is not the JSON that nft is known to print")


def _chains(chains: list[dict[str, Any]], rules: list[dict[str, Any]]) -> Iterator[Chain]:
    """Base chains that have rules, with those of the chains that they lead to in the count of neither."""
    for chain in chains:
        own = [rule["expr"] for rule in rules if _place(rule, rule["chain"]) == _place(chain, chain["name"])]
        if "hook" not in chain or not own:
            continue
        counters = [value["packets"] for expr in own for key, value in _walk(expr) if key == "counter" and value]
        yield Chain(
            table=f"{chain['family']} {chain['table']}",
            name=chain["name"],
            kind=chain["type"],
            hook=chain["hook"],
            rules=len(own),
            packets=sum(counters) if counters else None,
        )


def _place(entry: dict[str, Any], chain: str) -> tuple[str, str, str]:
    return entry["family"], entry["table"], chain


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


def _is_nat(key: str, value: Any) -> bool:
    return key in _NAT or (key == "xt" and isinstance(value, dict) and value.get("name") in _XT_NAT)


def _needs_conntrack(key: str, value: Any) -> bool:
    xt = key == "xt" and isinstance(value, dict) and value.get("name") in _XT_CONNTRACK
    return key == "ct" or xt or _is_nat(key, value)


def _is_docker_dns(rule: dict[str, Any], chains: list[dict[str, Any]]) -> bool:
    """A rule about Docker's DNS server in a table that does NAT."""
    nat = any(chain.get("type") == "nat" and chain["table"] == rule["table"] for chain in chains)
    return nat and any(value == _DOCKER_DNS for _, value in _walk(rule["expr"]))
