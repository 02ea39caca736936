from __future__ import annotations

import pytest

from proxy.explain.account import Explanation, MessagePath, PathStep
from proxy.explain.show import lines

DIRECT = MessagePath(
    title="directly from here to host-b, 10.0.0.2",
    parts=(
        PathStep(name="caller", read="a connection"),
        PathStep(name="bridge docker0", read="MTU 1500", where="here", costs="a look-up"),
        PathStep(name="other end", read="only root may follow it", where="process 7 (x)", seen=False),
        PathStep(name="host-b", read="a process"),
    ),
    kernel_ms=0.04,
    round_trip_ms=None,
    first_byte="a handshake",
)
THROUGH = MessagePath(
    title="through Hostlane",
    parts=(PathStep(name="\x1b[2J", read="x"),),
    kernel_ms=0.05,
    round_trip_ms=0.5,
    first_byte="y",
)


def shown(direct: MessagePath | None) -> str:
    found = Explanation(
        service="redis", host="host-a", peer="host-b" if direct else None, direct=direct, through=THROUGH, saved=("z",)
    )
    return "\n".join(line.plain for line in lines(found))


@pytest.mark.failure("32")
def test_a_picture() -> None:
    assert (
        shown(DIRECT)
        == """\
redis, called on host-a, served by host-b

 there+back   directly from here to host-b, 10.0.0.2
              ● caller  a connection
              │
              ┄ in this namespace
              ● bridge docker0  MTU 1500
              │   costs a look-up
              │
              ┄ process 7 (x)
              ? other end  only root may follow it
              │
              ● host-b  a process
   0.040 ms   = from kernel to kernel (ICMP echo), nobody is woken
 unmeasured   = between processes, each of them woken; what was measured of it
              a new connection waits for: a handshake

 there+back   through Hostlane
              ● \\x1b[2J  x
   0.050 ms   = from kernel to kernel (ICMP echo), nobody is woken
   0.500 ms   = between processes, each of them woken; what was measured of it
              a new connection waits for: y

saved since the proxy started
  z"""
    )


def test_a_service_of_this_host() -> None:
    assert shown(None).splitlines()[0] == "redis, called on host-a, served by this host itself"
    assert "directly" not in shown(None)
