"""``hostlane proxy | validate | demo``. Whatever is slow to import is imported by the command that needs it."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from proxy.errors import ConfigError, HostlaneError, StartError

if TYPE_CHECKING:
    from proxy.config.schema import Config


@click.command()
@click.option("--config", "file", metavar="FILE", required=True, help="The host's configuration.")
@click.option(
    "--takeover", is_flag=True, help="Take the place of the proxy that runs in the same run_dir, if one does."
)
def proxy(file: str, takeover: bool) -> None:
    """Run this host's proxy in the foreground.

    SIGTERM or Ctrl-C ends it: new calls are refused, open streams may finish, a second signal does not wait for them.
    SIGHUP: the configuration file is read and applied again (hostlane reload does the same, and shows what changed).
    SIGUSR2: the same command is started again with --takeover, which loses neither a connection nor a stream.
    """
    from proxy.config.schema import load

    try:
        config = load(file)
    except ConfigError as error:
        sys.exit(_report([error]))
    sys.exit(serve(config, os.path.abspath(file), takeover))


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
def validate(files: tuple[str, ...]) -> None:
    """Check configuration files, and the certificates that they name.

    Everything that is wrong is reported at once. Exit 0 if nothing is, else 2.
    """
    from proxy.config.schema import load

    code = 0
    for file in files:
        try:
            _check_certificates(load(file), file)
        except ConfigError as error:
            code = _report([error])
        else:
            click.echo(f"{click.format_filename(file)}: ok")
    sys.exit(code)


def _check_certificates(config: Config, file: str) -> None:
    from proxy.links.keyring import Keyring

    if config.links.tls is None:
        return  # what the control plane has issued, or will, is not this file's
    try:
        Keyring.from_config(config)
    except ConfigError as error:
        raise ConfigError([f"{file}: {problem}" for problem in error.problems]) from None


@click.command()
def demo() -> None:
    """Two hosts join a mesh, one has a Redis: measure, show a table.

    As root in network namespaces, otherwise on loopback. Cleans up after itself, also after Ctrl-C.
    """
    from proxy.demo import runner

    sys.exit(runner.main())


def serve(config: Config, file: str, takeover: bool = False) -> int:
    """Run the proxy until it is told to stop. Returns the exit code; what went wrong is on stderr by then.

    Args:
        file: the configuration's, to be read again on SIGHUP.
        takeover: as `agent.run` takes it.
    """
    import trio

    from control.base.system import logs
    from proxy.agent import agent

    logs.configure(config.log.level, config.log.format)
    # Modules and their classes are here to stay: the collector, which comes by every few 10,000 calls, need not look at
    # their 48,000 objects again, for which every stream would wait 15 to 30 ms.
    gc.collect()
    gc.freeze()
    try:
        trio.run(agent.run, config, file, takeover)
    except BaseException as error:
        return _end(error)
    return 0


def _end(error: BaseException) -> int:
    found = list(leaves(error))
    expected = [leaf for leaf in found if isinstance(leaf, HostlaneError)]
    if len(expected) == len(found):
        return _report(expected)
    # Ctrl-C before the proxy was up, or after it had stopped: whoever pressed it knows.
    if all(isinstance(leaf, (HostlaneError, KeyboardInterrupt)) for leaf in found):
        return 1
    _log_bug(error)
    return 1


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions themselves, out of whatever groups nurseries have put around them."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def _log_bug(error: BaseException) -> None:
    """An error outside our tree is a bug; its traceback is for whoever repairs it, as one event like all others."""
    import structlog

    first = next(iter(leaves(error)), error)
    text = "".join(traceback.format_exception(error))
    structlog.get_logger().error("proxy failed", error=f"{type(first).__name__}: {first}", traceback=text)


def _report(errors: list[HostlaneError]) -> int:
    """Print what is wrong, a line each; returns the exit code that goes with it."""
    for error in errors:
        lines = error.problems if isinstance(error, ConfigError) else [f"hostlane: {error}"]
        for line in lines:
            click.echo(line, err=True)
    return 2 if any(isinstance(error, (ConfigError, StartError)) for error in errors) else 1
