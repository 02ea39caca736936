"""The modules that are compiled together, where that is done. setup.py, the finder, the package data and the tests go
by this list; it is the only one.

A compiled module is called after what it was made of: ``proxy/mux/replay.core-0123456789abcdef.cpython-311-….so``. So
the import system does not take it for ``proxy.mux.replay`` on its own account, and whoever looks can tell, before
anything is loaded, whether all of the set are there and were made of the sources that lie beside them.

(Read by setup.py on its own, where nothing of Hostlane can be imported: it imports nothing of ours.)
"""

from __future__ import annotations

import hashlib
import os
from importlib.machinery import EXTENSION_SUFFIXES

COMPILED = (
    "proxy.core.syscalls",
    "proxy.inbound.delivery",
    "proxy.mux.extracredit",
    "proxy.mux.replay",
    "proxy.mux.session",
    "proxy.mux.sink",
    "proxy.mux.stream",
    "proxy.outbound.acceptor",
    "proxy.pool.evidence",
    "proxy.pool.learning",
    "proxy.pool.picking",
    "proxy.pool.uses",
    "proxy.pump.accepting",
    "proxy.pump.busypoll",
    "proxy.pump.carrier",
    "proxy.pump.descriptor",
    "proxy.pump.edgetally",
    "proxy.pump.lane",
    "proxy.pump.link",
    "proxy.pump.loop",
    "proxy.pump.openings",
    "proxy.pump.session",
    "proxy.pump.streamobserver",
    "proxy.pump.tally",
    "proxy.pump.turn",
    "proxy.pump.turnshare",
)
"""They know the layout of each other's objects: compiled are all of them, or none."""

SOURCES = (".py", ".pyx", ".pxd")
"""Where a module has a .pyx, that is compiled, and the .py is what runs uncompiled."""
MARK = ".core-"


def build_id(root: str) -> str:
    """16 hexadecimal digits that stand for the sources of the set, names and contents. The time of a file says less:
    a checkout of another branch, a copy or a wheel changes it at will.

    Args:
        root: the folder that ``proxy`` lies in.

    Raises OSError if a source cannot be read.
    """
    digest = hashlib.sha256()
    for module in COMPILED:
        for ending in SOURCES:
            path = os.path.join(root, *module.split(".")) + ending
            try:
                with open(path, "rb") as file:
                    text = file.read()
            except FileNotFoundError:
                continue
            digest.update(f"{module}{ending} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


def extension(module: str, build: str) -> str:
    """The file of a module's compiled form, for the interpreter that asks; seen from the folder of ``proxy``."""
    return os.path.join(*module.split(".")) + MARK + build + EXTENSION_SUFFIXES[0]


def wanted(root: str) -> dict[str, str]:
    """Each module of the set, and what the compiled form of its present source is called."""
    build = build_id(root)
    return {module: extension(module, build) for module in COMPILED}


def built(root: str) -> set[str]:
    """The compiled modules that lie there for this interpreter, made of whatever sources; seen from `root`."""
    ending, found = EXTENSION_SUFFIXES[0], set()
    for folder in {os.path.join(*module.split(".")[:-1]) for module in COMPILED}:
        try:
            names = os.listdir(os.path.join(root, folder))
        except OSError:
            continue  # not on a disk, say: then nothing compiled is, either
        found |= {os.path.join(folder, name) for name in names if MARK in name and name.endswith(ending)}
    return found
