"""``${NAME}`` and ``${NAME:-default}`` in the values of a configuration file; ``$$`` is a ``$``.

They are replaced when YAML has been read, so that a variable is one value, whatever is in it, and never a key or a
comment. A value without quotes is then taken as if its text stood in the file: ``${LINKS}`` may be a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from control.base.reading.units import quote

_DOLLAR = re.compile(r"\$(?:\$|\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\})?)", re.ASCII)
_NAMED = "allowed: ${NAME}, ${NAME:-default}, or $$ for a $"


def substituted(text: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """The text with the values of its variables, and their names. Of one that is empty the default is taken, too, as in
    a shell.

    Raises ValueError, worded "what was found; what is allowed", for a variable that is not set and has no default.
    """
    if "$" not in text:
        return text, []
    names: list[str] = []

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, default = match[1], match[2]
        if name is None:
            raise ValueError(f"found {quote(text[match.start() : match.start() + 40])}; {_NAMED}")
        found = environment.get(name)
        if not found and default is not None:
            return default[2:]
        if found is None:
            raise ValueError(
                f"found ${{{name}}}, which is not set in the environment; allowed: a variable that is set, or "
                f"${{{name}:-default}}"
            )
        names.append(name)
        return found

    return _DOLLAR.sub(value, text), names
