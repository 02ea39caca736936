"""The stage by itself: which ways there are, and a proof that would notice a changed byte (test_runner.py plays it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.demo import setup as stages
from proxy.demo.lab import Lab
from proxy.demo.loopback import Loopback
from proxy.demo.processes import DemoError
from proxy.demo.setup import free_ports, on_loopback, on_two_hosts


class Memory:
    """A Redis client whose server keeps values, less whatever the test changes."""

    values: dict[bytes, bytes]
    spoil_reply = spoil_store = False

    def __init__(self, path: Path) -> None:
        self.through_mesh = path.parent.name == "a.s"

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None: ...

    def call(self, *words: bytes) -> bytes:
        if words[0] == b"SET":
            Memory.values = {words[1]: words[2]}
            return b"OK"
        value = Memory.values[words[1]]
        return value[:-1] + b"?" if (self.spoil_reply if self.through_mesh else self.spoil_store) else value


@pytest.mark.parametrize("spoil", [None, "spoil_reply", "spoil_store"])
def test_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str | None) -> None:
    monkeypatch.setattr(stages, "RedisClient", Memory)
    monkeypatch.setattr(stages.os, "urandom", lambda size: b"x" * size)
    stage = on_loopback(Loopback(), tmp_path)
    if spoil is None:
        assert stage.prove().startswith("Byte-exact: 1 MiB")
    else:
        monkeypatch.setattr(Memory, spoil, True)
        with pytest.raises(DemoError, match="bytes changed"):
            stage.prove()


def test_proof_without_a_mesh(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="did not get through"):
        on_loopback(Loopback(), tmp_path).prove()


def test_ways_of_the_loopback(tmp_path: Path) -> None:
    stage = on_loopback(Loopback(), tmp_path)
    mesh, direct = stage.ways
    assert mesh.target == ("-s", str(tmp_path / "a.s" / "redis.sock"))
    assert mesh.through_mesh
    assert not direct.through_mesh
    ends = (stage.server, stage.near, stage.far)
    ports = {port for end in ends for port in (end.port, end.page_port)}
    assert len(ports | {int(direct.target[-1])}) == 7


def test_ways_between_two_hosts(tmp_path: Path) -> None:
    lab = Lab()
    mesh, bridge, macvlan = on_two_hosts(lab, tmp_path).ways
    assert (mesh.container, bridge.container, macvlan.container) == (False, True, False)
    assert lab.b.machine_address in bridge.target
    assert lab.b.address in macvlan.target


def test_free_ports() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
