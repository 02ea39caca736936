from __future__ import annotations

import io
import time

from rich.console import Console
from rich.table import Table

from control.api.mesh import CaRoot, CaStatus, HostRecord, MapSnapshot, ServiceOffer, TokenInfo
from control.cli import meshtables


def shown(table: Table) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    return out.getvalue().splitlines()


def test_many_names_take_one_cell() -> None:
    assert meshtables.listed([]) == "-"
    assert meshtables.listed(["a", "b"]) == "a, b"
    assert meshtables.listed(f"s{number}" for number in range(100)).endswith("s7 and 92 more")


def test_the_map() -> None:
    offers = (ServiceOffer(name="web"),)
    hosts = tuple(HostRecord(name=n, address=f"{n}:1", instance="1", services=offers) for n in ("a", "b"))
    found = MapSnapshot(epoch="e", revision=1, hosts=hosts)
    assert len(shown(meshtables.hosts_table(found))) == 3
    assert shown(meshtables.services_table(found))[1].split() == ["web", "2", "a,", "b"]


def test_what_a_terminal_could_act_on_is_escaped() -> None:
    record = HostRecord(name="a", address="a:1", instance="1", version="\x1b[2J")
    found = MapSnapshot(epoch="e", revision=1, hosts=(record,))
    assert "\x1b" not in "".join(shown(meshtables.hosts_table(found)))


def test_tokens_and_cas() -> None:
    token = TokenInfo(id="1f", host="a", expires=time.time() + 65)
    assert "1m" in shown(meshtables.tokens_table([token]))[1]
    root = CaRoot(id="ca", issues=True, key_here=False, not_after=time.time() + 90000, hosts=("a",))
    assert shown(meshtables.ca_table(CaStatus(mesh="m", roots=(root,))))[1].split()[:3] == ["ca", "yes", "no"]
