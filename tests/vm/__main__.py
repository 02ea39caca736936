"""``python -m tests.vm [MACHINE...]``: a line of JSON for each check as it is made, and what was seen where it fails.

build/vm/verdicts.jsonl has what was seen for all, build/vm/console.log what the kernel and drivers said. Exit 0 if all
checks hold, 1 if one does not, 2 if the machine cannot be built or did not come to its end.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click

from tests.vm import emulator, image

PROGRAMS = ("mmdebstrap", "cpio")


def _end(number: int, frame: object) -> None:
    """Once: timeout(1) and make both send it, and the emulator is being ended by then."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    names = sys.argv[1:] or list(emulator.MACHINES)
    if unknown := [name for name in names if name not in emulator.MACHINES]:
        click.echo(
            f"hostlane: no such machine: {' '.join(unknown)}; there are {', '.join(emulator.MACHINES)}", err=True
        )
        sys.exit(2)
    try:
        verdicts = _run(names)
    except image.MissingError as error:
        click.echo(f"hostlane: {error}", err=True)
        sys.exit(2)
    checks = [verdict for verdict in verdicts if "check" in verdict]
    failed = [verdict["check"] for verdict in checks if not verdict["ok"]]
    if not verdicts or "end" not in verdicts[-1]:
        why = f"a machine did not come to its end ({len(checks)} checks until then)"
        click.echo(f"hostlane: {why}; see {image.WORK / 'console.log'}", err=True)
        sys.exit(2)
    click.echo(f"{len(checks) - len(failed)} of {len(checks)} checks hold")
    sys.exit(1 if failed else 0)


def _run(names: Sequence[str]) -> list[dict[str, Any]]:
    if os.geteuid() != 0 or platform.machine() != "x86_64":
        raise image.MissingError("the machine can be built by root on x86-64 only (mmdebstrap and chroot)")
    if lacking := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise image.MissingError(f"not installed: {' '.join(lacking)} (Debian: apt-get install {' '.join(lacking)})")
    click.echo("building and booting emulated machines; this takes minutes", err=True)
    root = image.emulator()
    target = root / "boot" / "initramfs"
    try:
        image.initramfs(root, target)
        with (image.WORK / "console.log").open("w") as log, (image.WORK / "verdicts.jsonl").open("w") as kept:
            found: list[dict[str, Any]] = []
            for name in names:
                console = emulator.boot(name, root, image.kernel(root), lambda line: print(line, file=log, flush=True))
                with closing(console) as verdicts:
                    for verdict in verdicts:
                        found.append(verdict)
                        print(json.dumps(verdict), file=kept, flush=True)
                        _show(verdict)
                if not found or "end" not in found[-1]:
                    break
    finally:
        target.unlink(missing_ok=True)
    return found


def _show(verdict: dict[str, Any]) -> None:
    click.echo(json.dumps({key: value for key, value in verdict.items() if not verdict.get("ok") or key != "seen"}))


main()
