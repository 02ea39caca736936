from __future__ import annotations

import io
import time

from rich.console import Console

from control.api.mesh import CaRoot, CaStatus, TokenInfo
from control.api.messages import MeshHost, MeshService
from control.base.grid import Grid
from control.cli import meshtables


def shown(table: Grid) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=200).print(*table.within(200))
    return out.getvalue().splitlines()


def test_many_names_take_one_cell() -> None:
    assert meshtables.listed([]) == "-"
    assert meshtables.listed(["a", "b"]) == "a, b"
    assert meshtables.listed(f"s{number}" for number in range(100)).endswith("s7 and 92 more")


def test_hosts_as_a_control_server_and_as_a_proxy_know_them() -> None:
    told = [MeshHost(name=name, address=f"{name}:1", state=None, services=["web"], segment="rack") for name in "ab"]
    assert [line.split() for line in shown(meshtables.hosts_table(told))] == [
        ["host", "address", "segment", "services", "offers"],
        ["a", "a:1", "rack", "1", "web"],
        ["b", "b:1", "rack", "1", "web"],
    ]
    seen = [MeshHost(name="a", address="a:1", state="idle", services=[], links=0, streams=0)]
    assert shown(meshtables.hosts_table(seen))[1].split() == ["a", "a:1", "idle", "0", "0", "0", "-"]
    assert len(shown(meshtables.hosts_table([]))) == 1


def test_services() -> None:
    found = [MeshService(service="web", offered_by=["b", "a"])]
    assert shown(meshtables.services_table(found))[1].split() == ["web", "2", "a,", "b"]


def test_what_a_terminal_could_act_on_is_escaped() -> None:
    host = MeshHost(name="a", address="a:1", state="up", services=[], version="\x1b[2J")
    assert "\x1b" not in "".join(shown(meshtables.hosts_table([host])))


def test_tokens_and_cas() -> None:
    token = TokenInfo(id="1f", host="a", expires=time.time() + 65)
    assert "1m" in shown(meshtables.tokens_table([token]))[1]
    root = CaRoot(id="ca", issues=True, key_here=False, not_after=time.time() + 90000, hosts=("a",))
    assert shown(meshtables.ca_table(CaStatus(mesh="m", roots=(root,))))[1].split()[:3] == ["ca", "yes", "no"]
