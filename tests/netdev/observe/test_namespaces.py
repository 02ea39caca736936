from __future__ import annotations

import os

import pytest

from proxy.errors import NetError
from proxy.netdev.observe import namespaces


def here() -> str:
    return os.readlink("/proc/thread-self/ns/net")


@pytest.mark.netns
def test_the_work_is_done_there_and_this_thread_stays(space: str) -> None:
    home = here()
    with open(f"/run/netns/{space}", "rb") as there:
        assert namespaces.run_inside(there.fileno(), here) != home
        with pytest.raises(KeyError):
            namespaces.run_inside(there.fileno(), lambda: {}["x"])
    assert here() == home


def test_what_is_no_namespace(tmp_path: os.PathLike[str]) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(NetError, match="cannot enter the network namespace: "):
            namespaces.run_inside(fd, here)
    finally:
        os.close(fd)


def test_namespaces_are_opened() -> None:
    for fd in (namespaces.open_namespace(), namespaces.open_namespace(os.getpid())):
        assert f"net:[{os.fstat(fd).st_ino}]" == here()
        os.close(fd)
    with pytest.raises(NetError, match="there is no process 4194304"):
        namespaces.open_namespace(4194304)
