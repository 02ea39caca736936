"""``python -m tests.vm``: exit 0 if all checks hold, 1 if one does not, 2 if the machine cannot be built or booted."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys

import click

from tests.vm import emulator, image


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if os.geteuid() != 0 or platform.machine() != "x86_64":
            raise image.MissingError("root on an x86-64 machine is needed (mmdebstrap, chroot)")
        root = image.emulator()
        kernel = image.kernel(root)
        target = root / "boot" / "initramfs"
        try:
            image.initramfs(root, target)
            verdicts = emulator.boot(root, kernel, lambda line: click.echo(line, err=True))
        finally:
            target.unlink(missing_ok=True)
    except image.MissingError as error:
        click.echo(f"hostlane: {error}", err=True)
        sys.exit(2)
    for verdict in verdicts:
        click.echo(json.dumps(verdict))
    checks = [verdict for verdict in verdicts if "check" in verdict]
    failed = [verdict["check"] for verdict in checks if not verdict["ok"]]
    if not verdicts or "end" not in verdicts[-1]:
        click.echo(f"hostlane: the machine did not come to its end ({len(checks)} checks until then)", err=True)
        sys.exit(2)
    click.echo(f"{len(checks) - len(failed)} of {len(checks)} checks hold" + (f"; not: {', '.join(failed)}" * bool(failed)))
    sys.exit(1 if failed else 0)


main()
