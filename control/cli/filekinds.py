"""The two kinds of configuration files, and which of them a file is of.

As `main.COMMANDS`, the table holds strings: nothing of the proxy is imported before it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from control.base.errors import ConfigError
from control.base.reading.yamlmap import Document, read
from control.base.terminal import imported


@dataclass(frozen=True)
class FileKind:
    """A kind of file: who reads it, and what says what may stand there. ``module:attribute`` each.

    Attributes:
        names: the key that only this kind has and must have.
        config: the type; examine: text and name of a file to it and its `Document`.
        check: looks at the other files that it names.
        words: by key, a word that may stand there for a whole section.
    """

    title: str
    names: str
    config: str
    examine: str
    check: str
    words: dict[str, str] = field(default_factory=dict)

    def keys(self) -> set[str]:
        """Those of the first level."""
        return {field.encode_name for field in msgspec.structs.fields(imported(self.config))}

    def examined(self, text: str, file: str) -> tuple[Any, Document]:
        """The configuration, and where its values stand. Raises ConfigError."""
        found: tuple[Any, Document] = imported(self.examine)(text, file)
        return found

    def check_files(self, config: Any, file: str) -> None:
        """Raises ConfigError."""
        imported(self.check)(config, file)


KINDS = {
    "host": FileKind(
        title="a host's configuration",
        names="host",
        config="proxy.config.schema:Config",
        examine="proxy.config.schema:examine",
        check="proxy.commands:check_files",
        words={"upstreams": "all"},
    ),
    "control": FileKind(
        title="a control server's configuration",
        names="name",
        config="control.server.config:Config",
        examine="control.server.config:examine",
        check="control.cli.controlcommands:check_files",
    ),
}


def kind_of(text: str, file: str) -> FileKind:
    """Which kind of file this is, by the keys that it has. What is no mapping at all is said to be no host's
    configuration, by whoever reads it as one.

    Raises ConfigError if it has no key of either.
    """
    data = read(text).data
    if not isinstance(data, dict) or not data:
        return KINDS["host"]
    counted = {name: len(kind.keys() & set(data)) + 10 * (kind.names in data) for name, kind in KINDS.items()}
    best = max(counted, key=lambda name: counted[name])
    if not counted[best]:
        allowed = " or ".join(f"{kind.title} (with {kind.names})" for kind in KINDS.values())
        raise ConfigError([f"{file}:1: found a file of another kind; allowed: {allowed}"])
    return KINDS[best]
