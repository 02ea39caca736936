from __future__ import annotations

from typing import Any

from control.api.mesh import HostEdges, HostRecord, ServiceOffer, ToldProblem
from control.server.meshproblems import FoundInMesh, GoneHost, SeenMesh, mesh_problems


def record(name: str, *services: str) -> HostRecord:
    offers = tuple(ServiceOffer(name=each) for each in services)
    return HostRecord(name=name, address="10.0.0.1:7600", instance="1", services=offers)


def told(host: str, *problems: ToldProblem, age: float = 1.0) -> dict[str, HostEdges]:
    return {host: HostEdges(host=host, age_s=age, edges=(), problems=problems)}


def wrong(kind: str, name: str, text: str, lasts: float = 5.0) -> ToldProblem:
    return ToldProblem(kind=kind, name=name, text=text, lasts_s=lasts)


def found(**more: Any) -> list[FoundInMesh]:
    usual: dict[str, Any] = {
        "server": "control-1", "hosts": {"host-a": record("host-a", "web")}, "told": {}, "gone": [], "silent": [],
        "unanswered": {},
    }  # fmt: skip
    return mesh_problems(SeenMesh(**{**usual, **more}))


def test_all_is_well() -> None:
    assert found() == []


def test_what_many_say_is_there_once_since_the_first_of_them() -> None:
    one = told("host-a", wrong("service", "redis at host-b", "Short.", 5), wrong("link", "host-a to host-b", "Lost."))
    other = told("host-c", wrong("service", "redis at host-b", "Long.", 70), age=2.0)
    service, link = found(told={**one, **other})
    assert service == FoundInMesh("service", "redis at host-b", "Long.", 72.0, ("host-a", "host-c"))
    assert link == FoundInMesh("link", "host-a to host-b", "Lost.", 6.0, ("host-a",))


def test_what_hosts_have_of_their_own_is_apart() -> None:
    memory = wrong("this host", "memory", "Memory is 95% of its limit.")
    each = found(told={**told("host-a", memory), **told("host-c", memory)})
    assert [problem.key for problem in each] == [("host", "host-a: memory"), ("host", "host-c: memory")]


def test_a_host_that_has_vanished_and_what_it_leaves() -> None:
    gone = [GoneHost(record("host-b", "redis", "web"), 20.0), GoneHost(record("host-c", "redis"), 10.0)]
    peers = told("host-a", wrong("host", "host-b", "Host host-b is down: no answer.", 30.0))
    first, second, service = found(gone=gone, told=peers)
    assert (first.kind, first.name, first.since, first.told_by) == ("host", "host-b", 31.0, ("host-a",))
    assert first.text == (
        "Host host-b (10.0.0.1:7600) has vanished: it does not say any more that it is there. "
        "Host host-b is down: no answer."
    )
    assert second.name == "host-c"
    assert (service.name, service.since) == ("redis", 10.0)
    assert service.text == "No host offers service redis any more; host-b, host-c did.", "web there is, at host-a"


def test_the_control_plane_itself() -> None:
    assert found(hosts=None)[0].text == "Control server control-1 cannot watch its store."
    [problem] = found(unanswered={"control server control-2": "no answer within 3 s"})
    assert (problem.name, problem.text) == ("control-2", "Control server control-2: no answer within 3 s.")


def test_hosts_that_tell_nothing_are_one_line() -> None:
    [problem] = found(silent=["d", "a", "c", "b", "e"])
    assert problem.name == "a, b, c and 2 more"
    assert problem.text.startswith("a, b, c and 2 more tell nothing of edges and problems")
    assert found(silent=["a"])[0].text.startswith("a tells nothing")
