"""``hostlane net attach | detach``."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from proxy.config import Config
    from proxy.configinterfaces import ContainerInterface
    from proxy.netdev.containers import Target


def names_a_container(command: Callable[..., None]) -> Callable[..., None]:
    """The argument and option that say whose interface it is."""
    command = click.option("--pid", type=click.IntRange(1), help="A process in the namespace instead of a container.")(
        command
    )
    return click.argument("container", required=False)(command)


def find(container: str | None, pid: int | None) -> Target:
    """The container or process. Raises NetError."""
    from proxy.netdev import containers

    if (container is None) == (pid is None):
        raise click.UsageError("name a container or give --pid, one of them")
    return containers.of_process(pid) if pid is not None else containers.of_container(str(container))


def wanted(config: Config, name: str, options: dict[str, Any]) -> ContainerInterface:
    """What the options say; without any, what ``containers`` of the configuration says about this one."""
    given = {key: value for key, value in options.items() if value not in (None, ())}
    if not given and name in config.containers:
        return config.containers[name]
    if not given:
        raise click.UsageError(f"the configuration has no containers.{name}, and no option says what it shall get")
    return read_options(name, given)


def read_options(name: str, given: dict[str, Any]) -> ContainerInterface:
    """The options as the section of a configuration file would be read. Raises UsageError with all that is wrong."""
    from control.reading.decode import Decoder
    from control.reading.yamlmap import Document, Path
    from proxy.configinterfaces import ContainerInterface
    from proxy.interfacecheck import check_interfaces

    data = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    path: Path = ("containers", name)
    document = Document(lines={(*path, key): 1 for key in data})
    found = Decoder(document).decode(data, ContainerInterface, path)
    check_interfaces(SimpleNamespace(interfaces={}, containers={name: found}, segments={}), document)
    if document.problems:
        texts = [f"--{_option(problem.path[2:])}: {problem.text}" for problem in document.problems]
        raise click.UsageError("; ".join(texts))
    assert isinstance(found, ContainerInterface)
    return found


def _option(path: tuple[str | int, ...]) -> str:
    return {"addresses": "address"}.get(str(path[0]), str(path[0])) if path else "parent"
