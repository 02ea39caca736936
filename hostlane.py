"""The command ``hostlane`` of an installation: whether its packages are its own, then ``control.cli.main``.

The packages are called ``proxy`` and ``control``. Where another distribution has one of that name in the same
environment, pip puts the files of both into one folder: what is imported then is a mixture, which would fail somewhere.
This module stands alone, as importing one of them would be too late.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

OURS = {
    "control": ("api", "base", "ca", "cli", "server", "store"),
    "proxy": (
        "agent", "cdi", "check", "config", "core", "demo", "door", "explain", "inbound", "links", "mesh", "mux",
        "netdev", "outbound", "pool", "pump", "routing", "setup", "telemetry", "commands.py", "errors.py",
    ),
}  # fmt: skip
"""What is in them, beside ``__init__.py``."""
REMEDY = "install Hostlane in an environment of its own, such as: python3 -m venv /opt/hostlane"


def main() -> None:
    """Run the command line, unless the packages are not ours; then say so in a line. Exits the process."""
    problem = mixed()
    if problem:
        sys.stderr.write(f"hostlane: {problem}; {REMEDY}\n")
        sys.exit(2)
    from control.cli.main import main as command

    command()


def mixed() -> str:
    """What is wrong with the packages; empty: nothing. Imports none of them."""
    here = os.path.dirname(os.path.abspath(__file__))
    for name, inside in OURS.items():
        spec = find_spec(name)
        found = None if spec is None or spec.origin is None else os.path.dirname(os.path.abspath(spec.origin))
        if found is None:
            return f"the package {name} has no __init__.py here: another distribution has taken it along"
        if found != os.path.join(here, name):
            return f"the package {name} is another one here, in {found}{_owners(name)}"
        strangers = sorted(entry for entry in os.listdir(found) if entry not in inside and _is_module(found, entry))
        if strangers:
            return (
                f"the package {name} is mixed with another one of that name ({', '.join(strangers[:3])}){_owners(name)}"
            )
    return ""


def _is_module(folder: str, entry: str) -> bool:
    if entry.endswith(".py"):
        return entry not in ("__init__.py", "__main__.py")
    return os.path.exists(os.path.join(folder, entry, "__init__.py"))


def _owners(name: str) -> str:
    from importlib.metadata import packages_distributions

    owners = sorted({owner for owner in packages_distributions().get(name, []) if owner != "hostlane"})
    return f", that of {', '.join(owners)}" if owners else ""
