from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from control.base.system import loading

PROXY = """
import sys
from control.base.system import loading
from proxy.config import schema
with loading.for_good("structlog", {libraries}):
    from control.base.system import logs
    from proxy.agent import process
    {member}
"""
CONTROL = """
import sys
from control.base.system import loading
with loading.for_good("structlog", "httpx", "httpcore"):
    from control.base.system import logs
    from control.server import serve
    {store}
"""
DOOR = """
import sys
from control.base.system import loading
with loading.for_good("structlog", "httpx", "httpcore"):
    from control.base.system import logs
    from proxy.door import attaching, door
"""


def in_a_process(code: str) -> set[str]:
    """The modules that are loaded there in the end."""
    code += "\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        PROXY.format(libraries="", member=""),
        PROXY.format(libraries="'httpx', 'httpcore'", member="from proxy.mesh import join, membership"),
        CONTROL.format(store=""),
        CONTROL.format(store="from control.store import etcd"),
        DOOR,
    ],
    ids=["proxy", "proxy in a mesh with a control plane", "control server", "control server on etcd", "door"],
)
def test_a_daemon_loads_nothing_for_its_looks(code: str) -> None:
    """What one of these would cost, every start and restart would wait for."""
    assert not in_a_process(code) & {"rich", "pygments", "importlib.metadata"}


def test_a_static_mesh_needs_no_client_of_a_control_plane() -> None:
    assert not in_a_process(PROXY.format(libraries="", member="")) & {"httpx", "pyroute2", "proxy.mesh.membership"}


def test_rich_is_there_for_whoever_imports_it_later() -> None:
    assert "rich.table" in in_a_process(PROXY.format(libraries="", member="") + "\nimport rich.table")


def test_rich_that_is_loaded_stays() -> None:
    assert "rich" in in_a_process("import rich\n" + PROXY.format(libraries="", member=""))


def test_what_cannot_be_imported_leaves_all_as_it_was() -> None:
    before = sys.modules.get("rich")
    with pytest.raises(ModuleNotFoundError), loading.for_good("no_such_module"):
        pass
    assert sys.modules.get("rich") is before
    assert gc.isenabled()


def test_the_collector_rests_while_it_loads_and_leaves_it_alone() -> None:
    code = """
import gc, sys
from control.base.system import loading
with loading.for_good():
    assert not gc.isenabled()
    import trio
assert gc.isenabled()
assert gc.get_freeze_count() > 10_000
assert len(gc.get_objects()) < 1_000
"""
    assert "trio" in in_a_process(code)


def test_a_collector_that_was_off_stays_off() -> None:
    code = "import gc, sys\ngc.disable()\nfrom control.base.system import loading\nwith loading.for_good(): pass\n"
    assert "gc" in in_a_process(code + "assert not gc.isenabled()")
