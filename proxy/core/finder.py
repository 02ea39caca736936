"""Whether the core runs compiled or as plain Python is decided here, once, before the rest of ``proxy`` is imported.

Compiled modules run if they lie beside their sources, unless ``HOSTLANE_PURE=1`` says otherwise. They do so together:
all of `modules.COMPILED`, made of the very sources that lie there, or none. Anything between is refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import Literal

from control.base.errors import StartError
from proxy.core import modules

Core = Literal["compiled", "python"]
PURE_VARIABLE = "HOSTLANE_PURE"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class CompiledFinder:
    """A finder on ``sys.meta_path`` that knows the compiled modules, by their names, and nothing else."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


def install(root: str = ROOT) -> None:
    """From now on the compiled modules are imported where there are any. Called by ``proxy`` itself.

    Raises StartError if ``HOSTLANE_PURE`` says nothing that is known, and if what was compiled is not all of the set or
    was made of other sources: a layout of objects that the other half does not know would corrupt memory.
    """
    if _pure() or core() == "compiled" or not (there := modules.built(root)):
        return
    files = modules.wanted(root)
    stale, missing = there - set(files.values()), set(files.values()) - there
    if stale or missing:
        what = f"{os.path.join(root, min(stale or missing))} "
        what += "was compiled from other sources than these" if stale else "is missing, others are there"
        again = f"compile again (make core, or pip install), or set {PURE_VARIABLE}=1 to run the plain modules"
        raise StartError(f"{what}: {again}")
    sys.meta_path.insert(0, CompiledFinder({module: os.path.join(root, file) for module, file in files.items()}))


def core() -> Core:
    """What the core runs as in this process."""
    return "compiled" if any(isinstance(finder, CompiledFinder) for finder in sys.meta_path) else "python"


def _pure() -> bool:
    found = os.environ.get(PURE_VARIABLE, "")
    if found not in ("", "0", "1"):
        raise StartError(f"{PURE_VARIABLE}: found {found!r}; allowed: 1 (the plain modules run), 0 or nothing")
    return found == "1"
