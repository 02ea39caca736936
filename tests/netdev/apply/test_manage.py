from __future__ import annotations

import pytest

from proxy.config import schema as config
from proxy.demo import netns
from proxy.errors import NetError
from proxy.netdev.apply import manage
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import HEAD, dump, lines

pytestmark = pytest.mark.netns

TEXT = HEAD + "interfaces: {hl0: {parent: eth0}, hl1: {parent: eth0}}\n"


def parsed(rest: str = "") -> config.Config:
    return config.parse(TEXT + rest, "f")


def test_up_and_away(space: str) -> None:
    before = dump(space)
    with netns.entered(space):
        assert [item.problem for item in manage.state(parsed())] == ["hl0: not made yet", "hl1: not made yet"]
        assert len(lines(manage.bring_up(parsed()))) == 6
        assert manage.bring_up(parsed()) == NetPlan()
        assert [item.problem for item in manage.state(parsed())] == [None, None]
        assert lines(manage.take_away(parsed())) == ["hl0: delete", "hl1: delete"]
    assert dump(space) == before


def test_a_segment_that_is_over_its_limit(space: str) -> None:
    before = dump(space)
    segment = "segments: {front: {parent: eth0, mac_limit: 4, hosts: 2%s}}\n"
    with netns.entered(space):
        with pytest.raises(NetError, match="segment front: this host would use 3 MACs of its share of 2"):
            manage.bring_up(parsed(segment % ""))
        assert dump(space) == before
        done = manage.bring_up(parsed(segment % ", over_limit: warn"))
    assert len(done.steps) == 6
    assert done.notes == ("segment front: this host would use 3 MACs of its share of 2 (4 for 2 hosts)",)
